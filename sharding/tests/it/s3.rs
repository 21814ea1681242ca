//! One backend is a real S3 server (`s3s-fs`), the others are folders; it is killed and started
//! again in the middle of everything.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use model::{BackendId, ObjectId, SeededEntropy};
use sharding::vault::{
    Access, Backend, CredentialSource, DepositError, Fault, FaultKind, Options, ReadError, Vault,
};
use tokio::io::{AsyncRead, ReadBuf};

use crate::server;
use crate::support::{BLOCK, EXTENT, content};

const ID: &str = "sekisho-test";
const SECRET: &str = "neither-logged-nor-shown";

/// An S3 server over a folder. It listens at the same port whenever it runs.
struct Server {
    at: SocketAddr,
    folder: PathBuf,
    running: Option<Child>,
}

impl Server {
    fn start(folder: &Path) -> Server {
        let at = server::free();
        std::fs::create_dir_all(folder.join("genomes")).unwrap();
        let mut server = Server { at, folder: folder.to_owned(), running: None };
        server.resume();
        server
    }

    fn resume(&mut self) {
        let mut command = Command::new(program());
        command.args(["--host", "127.0.0.1", "--port", &self.at.port().to_string()]);
        command.args(["--access-key", ID, "--secret-key", SECRET]).arg(&self.folder);
        command.env_remove("RUST_LOG");
        self.running = Some(server::start(&mut command, self.at, Duration::from_secs(20)));
    }

    /// At once, as a power cut would.
    fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The server's program: named by a variable, or where `cargo install` puts programs.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("SEKISHO_S3_SERVER") {
        return named.into();
    }
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let installed = home.map(|home| home.join("bin/s3s-fs")).filter(|program| program.exists());
    installed.unwrap_or_else(|| "s3s-fs".into())
}

/// `n` folders after one S3 bucket.
struct World {
    server: Arc<Mutex<Server>>,
    backends: Vec<Backend>,
    faults: Arc<Mutex<Vec<Fault>>>,
    object: ObjectId,
    dir: tempfile::TempDir,
}

impl World {
    fn new(folders: usize) -> World {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(&dir.path().join("s3"));
        let access = access(&dir.path().join("key"), server.at, SECRET);
        let id = |name: &str| BackendId::from_name(name).unwrap();
        let url = "s3://genomes/shares/of-ours".parse().unwrap();
        let mut backends = vec![Backend::open(id("s3"), "The cloud", &url, &access, |_| None).unwrap()];
        backends.extend((1..=folders).map(|at| {
            let folder = dir.path().join(format!("folder-{at}"));
            Backend::local(id(&format!("folder-{at}")), format!("House {at}"), &folder).unwrap()
        }));
        World {
            server: Arc::new(Mutex::new(server)),
            backends,
            faults: Arc::default(),
            object: ObjectId::from_name("genome-1").unwrap(),
            dir,
        }
    }

    fn vault(&self, k: u8) -> Vault {
        let heard = self.faults.clone();
        // Two busy cores are no fault of a server's.
        let options = Options {
            read_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            penalty: Duration::from_millis(100),
            faults: Arc::new(move |fault| heard.lock().unwrap().push(fault)),
            ..Options::default()
        };
        Vault::new(self.backends.clone(), k, options).unwrap()
    }

    async fn read_all(&self, vault: &Vault, root: &[u8; 32]) -> Result<Vec<u8>, ReadError> {
        let reader = vault.open(&self.object, root).await?;
        Ok(reader.read_at(0, usize::try_from(reader.size()).unwrap()).await?.to_vec())
    }

    fn files_in_bucket(&self) -> usize {
        let folder = self.dir.path().join("s3/genomes/shares/of-ours").join(self.object.name());
        std::fs::read_dir(folder).map_or(0, Iterator::count)
    }
}

fn access(key: &Path, server: SocketAddr, secret: &str) -> Access {
    std::fs::write(key, format!("access_key_id = {ID}\nsecret_access_key = {secret}\n")).unwrap();
    std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o600)).unwrap();
    Access {
        endpoint: Some(format!("http://{server}").parse().unwrap()),
        credentials: Some(CredentialSource::File(key.to_owned())),
        ..Access::default()
    }
}

/// A source that tells, before it gives more, how many bytes it has given.
struct Telling<'a, F> {
    left: &'a [u8],
    given: usize,
    tell: F,
}

impl<F: FnMut(usize) + Unpin> AsyncRead for Telling<'_, F> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let given = self.given;
        (self.tell)(given);
        let (now, left) = self.left.split_at(self.left.len().min(into.remaining()).min(1 << 20));
        into.put_slice(now);
        self.left = left;
        self.given += now.len();
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_a_backend_like_any_other() {
    let world = World::new(4);
    let (vault, content) = (world.vault(3), content(2 * EXTENT + 3 * BLOCK + 5));
    let root =
        vault.deposit(&world.object, content.as_slice(), &SeededEntropy::new(1), |_| {}).await.unwrap().root;
    assert!(world.files_in_bucket() > 0, "nothing lies in the bucket");
    assert!(world.read_all(&vault, &root).await.unwrap() == content);
    let found = vault.verify(&world.object, &root, |_| {}).await.unwrap();
    assert!(found.whole(), "{found:?}");
    assert_eq!(vault.manifests(None).await[0].held_by, 5);
    // The bucket is needed: any byte of it counts.
    let few = Vault::reading(world.backends[..3].to_vec(), Options::default());
    assert!(world.read_all(&few, &root).await.unwrap() == content);
    assert!(world.faults.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_named_and_not_shown() {
    let world = World::new(1);
    // Another seed each time: a deposit that fails takes back its own share set.
    let deposit = |vault: Vault, seed: u64| {
        let object = world.object.clone();
        async move { vault.deposit(&object, &b"x"[..], &SeededEntropy::new(seed), |_| {}).await }
    };
    let root = deposit(world.vault(2), 1).await.unwrap().root;

    let at = world.server.lock().unwrap().at;
    let access = access(&world.dir.path().join("other"), at, "another-secret");
    let (id, url) = (BackendId::from_name("s3").unwrap(), "s3://genomes/shares/of-ours".parse().unwrap());
    let stranger = Backend::open(id, "The cloud", &url, &access, |_| None).unwrap();
    let backends = vec![stranger, world.backends[1].clone()];
    assert!(!format!("{backends:?}").contains("another-secret"));
    let vault = Vault::new(backends, 2, Options::default()).unwrap();
    let error = deposit(vault.clone(), 2).await.unwrap_err();
    let DepositError::Backend { backend, institution, .. } = &error else { panic!("{error:?}") };
    assert_eq!((backend.name(), institution.as_str()), ("s3", "The cloud"));
    let unread = world.read_all(&vault, &root).await.unwrap_err();
    let ReadError::TooFew { faults, .. } = &unread else { panic!("{unread:?}") };
    assert_eq!((faults[0].backend.name(), faults[0].kind), ("s3", FaultKind::Unreachable));
    for said in [format!("{error:?}"), format!("{unread:?}")] {
        assert!(!said.contains("another-secret") && !said.contains(SECRET), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposit_into_a_server_that_dies_is_whole_or_an_error() {
    let world = World::new(4);
    let (vault, content) = (world.vault(3), content(4 * EXTENT + 77));
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    // Killed when so many bytes were taken; started again when so many more were, or only after.
    for (dies, back) in [
        (0, Some(1)),
        (EXTENT, None),
        (EXTENT + 1, Some(1)),
        (2 * EXTENT, Some(EXTENT)),
        (3 * EXTENT + 1, Some(1)),
        (4 * EXTENT, None),
        (4 * EXTENT + 1, Some(0)),
    ] {
        let server = world.server.clone();
        let tell = move |given: usize| {
            let mut server = server.lock().unwrap();
            if given >= dies && server.running.is_some() && given < dies + (1 << 20) {
                server.kill();
            }
            if server.running.is_none() && back.is_some_and(|later| given >= dies + later) {
                server.resume();
            }
        };
        let source = Telling { left: &content, given: 0, tell };
        let entropy = SeededEntropy::new(dies as u64);
        let attempt = tokio::time::timeout(
            Duration::from_secs(30),
            vault.deposit(&world.object, source, &entropy, |_| {}),
        );
        match attempt.await.expect("a deposit hangs") {
            Ok(deposited) => acknowledged.push(deposited.root),
            Err(
                DepositError::Backend { backend, institution, .. }
                | DepositError::Timeout { backend, institution },
            ) => {
                assert_eq!((backend.name(), institution.as_str()), ("s3", "The cloud"));
                refused += 1;
                // Somebody tries again once it is back.
                let mut server = world.server.lock().unwrap();
                server.kill();
                server.resume();
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(refused >= 2, "{refused} refused: the server did not die in the middle");
    let entropy = SeededEntropy::new(99);
    let again = vault.deposit(&world.object, content.as_slice(), &entropy, |_| {}).await.unwrap();
    acknowledged.push(again.root);
    // What was refused does not show, what was acknowledged is whole everywhere.
    let found = vault.manifests(Some(&world.object)).await;
    assert_eq!(found.len(), acknowledged.len(), "{found:?}");
    for root in &acknowledged {
        assert!(world.read_all(&vault, root).await.unwrap() == content);
        assert!(vault.verify(&world.object, root, |_| {}).await.unwrap().whole());
    }
    println!("{} acknowledged and whole, {refused} refused", acknowledged.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_goes_on_without_the_server_and_with_it_when_it_is_back() {
    let world = World::new(4);
    let (vault, content) = (world.vault(3), content(3 * EXTENT));
    let root =
        vault.deposit(&world.object, content.as_slice(), &SeededEntropy::new(1), |_| {}).await.unwrap().root;
    // The bucket and two folders: without the bucket there are too few.
    let few = Vault::reading(world.backends[..3].to_vec(), Options::default());
    for _ in 0..3 {
        let reader = vault.open(&world.object, &root).await.unwrap();
        let needing = few.open(&world.object, &root).await.unwrap();
        world.faults.lock().unwrap().clear();
        for at in (0..content.len()).step_by(BLOCK) {
            if at == EXTENT {
                world.server.lock().unwrap().kill();
            }
            let read = reader.read_at(at as u64, BLOCK).await.unwrap();
            assert!(read.as_slice() == &content[at..at + BLOCK]);
        }
        let error = needing.read_at(0, 1).await.unwrap_err();
        let ReadError::TooFew { needed: 3, good: 2, faults, .. } = &error else { panic!("{error:?}") };
        assert_eq!((faults[0].backend.name(), faults[0].kind), ("s3", FaultKind::Unreachable));
        let verified = vault.verify(&world.object, &root, |_| {}).await.unwrap();
        assert!(verified.readable() && !verified.whole());
        let faults = world.faults.lock().unwrap().clone();
        assert!(!faults.is_empty() && faults.iter().all(|fault| fault.backend.name() == "s3"), "{faults:?}");

        world.server.lock().unwrap().resume();
        assert!(needing.read_at(0, content.len()).await.unwrap().as_slice() == content);
        assert!(vault.verify(&world.object, &root, |_| {}).await.unwrap().whole());
    }
}
