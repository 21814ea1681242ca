//! What the tests stand on: a place for workspaces in a temporary directory, and its removal.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use certs::ticket::{DatasetOrder, ObjectOrder};
use enclave_agent::init_protocol::{End, Program};
use enclave_agent::reports::Reports;
use enclave_agent::storage::Storage;
use enclave_agent::watch::{Eyes, Watcher};
use enclave_agent::workspace::{Container, Homes, Launch, Limits, Owner, Place, Process, Runtime, Streams};
use model::{BackendId, DatasetId, ObjectId, PersonId, SeededEntropy, StudyId, WorkspaceId, WorkspaceName};
use sharding::vault::Backend;
use wire::message::AgentEvent;

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A place with directories of its own.
pub struct Bench {
    pub place: Place,
    /// What was told of the workspaces that [`Bench::start`] started, and when.
    pub reports: Arc<Mutex<Vec<(Instant, AgentEvent)>>>,
    dir: tempfile::TempDir,
}

pub fn owner(study: &str, person: &str) -> Owner {
    Owner {
        study: StudyId::from_name(study).unwrap(),
        person: PersonId::from_name(person).unwrap(),
        workspace: WorkspaceName::default(),
    }
}

impl Bench {
    pub fn new(limits: Limits) -> Bench {
        let dir = tempfile::tempdir_in("/run").unwrap();
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        let place = Place {
            runtime: Runtime { program: "runc".into(), root: dir.path().join("runc") },
            run: dir.path().join("run"),
            homes: Homes { folders: dir.path().join("homes"), disks: Some(dir.path().join("disks")) },
            init: PathBuf::from(env!("CARGO_BIN_EXE_sekisho-init")),
            cgroup: format!("/sekisho/{}", tag(dir.path())),
            limits,
            eyes: Eyes::default(),
        };
        Bench { place, reports: Arc::default(), dir }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn id(&self) -> WorkspaceId {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        WorkspaceId::from_name(&format!("t{}-{number}", std::process::id())).unwrap()
    }

    /// Eyes that tell to [`Bench::reports`].
    pub fn watcher(&self, id: &WorkspaceId) -> Arc<Watcher> {
        let reports = self.reports.clone();
        let heard = move |event| reports.lock().unwrap().push((Instant::now(), event));
        Watcher::new(id.clone(), &self.place.eyes, Reports::new(Box::new(heard)))
    }

    pub async fn start(&self, owner: &Owner) -> Running {
        let id = self.id();
        let data = self.place.make_data_dir(&id).unwrap();
        let watcher = self.watcher(&id);
        Running(Arc::new(self.place.start(&id, owner, &self.place.limits, &data, &watcher).await.unwrap()))
    }
}

fn tag(dir: &Path) -> String {
    dir.file_name().unwrap().to_string_lossy().trim_start_matches('.').to_owned()
}

impl Drop for Bench {
    fn drop(&mut self) {
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = std::fs::remove_dir(hierarchy.path().join(self.place.cgroup.trim_start_matches('/')));
            let _ = std::fs::remove_dir(hierarchy.path().join("sekisho"));
        }
    }
}

/// A running workspace with the conveniences of a test.
#[derive(Clone)]
pub struct Running(pub Arc<Container>);

/// What a command did.
#[derive(Debug)]
pub struct Done {
    pub end: End,
    pub out: String,
    pub err: String,
}

impl Running {
    pub fn launch_of(&self, command: &str) -> Launch {
        let home = self.0.owner().home();
        Launch {
            program: Program::Command(command.as_bytes().to_vec()),
            env: vec![
                ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()),
                ("HOME".into(), home.clone()),
                ("USER".into(), self.0.owner().person.name().into()),
            ],
            home,
            terminal: None,
        }
    }

    pub async fn begin(&self, command: &str) -> (Process, Streams) {
        self.0.launch(self.launch_of(command)).await.unwrap()
    }

    pub async fn sh(&self, command: &str) -> Done {
        let (process, streams) = self.begin(command).await;
        finish(process, streams).await
    }
}

pub async fn finish(process: Process, streams: Streams) -> Done {
    let Streams::Pipes { input, output, error } = streams else { panic!("no terminal was asked for") };
    drop(input);
    let (out, err) = tokio::join!(drain(&output), drain(&error));
    let end = process.ended().await.unwrap();
    Done { end, out, err }
}

pub async fn drain(pipe: &enclave_agent::workspace::Pipe) -> String {
    let mut all = Vec::new();
    loop {
        let part = pipe.take(65536).await.unwrap();
        if part.is_empty() {
            return String::from_utf8_lossy(&all).into_owned();
        }
        all.extend_from_slice(&part);
    }
}

/// The repository's real test data.
pub fn giab(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/giab_tiny").join(name)
}

/// Three backends, any two of which suffice.
pub struct Shares {
    pub folders: Vec<PathBuf>,
    pub storage: Storage,
}

impl Shares {
    pub fn new(bench: &Bench) -> Shares {
        let folders: Vec<PathBuf> = (1..=3).map(|n| bench.dir().join(format!("backend{n}"))).collect();
        let backends = folders
            .iter()
            .zip(["north", "east", "south"])
            .map(|(folder, name)| Backend::local(BackendId::from_name(name).unwrap(), name, folder).unwrap())
            .collect();
        Shares { storage: Storage::new(backends, 2), folders }
    }

    pub async fn deposit(&self, dataset: &str, files: &[(&str, Vec<u8>)]) -> DatasetOrder {
        let vault = self.storage.depositing().unwrap();
        let mut objects = Vec::new();
        for (name, bytes) in files {
            let object = ObjectId::from_name(&format!("{dataset}-{}", objects.len())).unwrap();
            let done = vault.deposit(&object, &bytes[..], &SeededEntropy::new(5), |_| {}).await.unwrap();
            objects.push(ObjectOrder {
                object,
                name: (*name).to_owned(),
                size: done.size,
                manifest_root: done.root,
            });
        }
        DatasetOrder { dataset: DatasetId::from_name(dataset).unwrap(), objects }
    }
}
