//! One running workspace.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use model::{SessionId, WorkspaceId};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::bundle::{Bundle, Limits, Owner, make_dir};
use super::home::{self, Homes};
use super::link::Link;
use super::process::{Launch, LaunchError, Process, Streams};
use super::runtime::{Runtime, RuntimeError};
use crate::watch::{Barrier, Eyes, Reception, Telling, Watcher};

/// How long PID 1 may take to be ready.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the runtime may take until it has handed over the filter whose calls are notified.
const NOTIFIED: Duration = Duration::from_secs(20);

/// Where workspaces run on this host, and how.
#[derive(Debug, Clone)]
pub struct Place {
    /// The runtime.
    pub runtime: Runtime,
    /// Holds a directory for each running workspace. Mapped users must be able to pass through
    /// the directories above it.
    pub run: PathBuf,
    /// Where the homes lie.
    pub homes: Homes,
    /// The program that becomes PID 1.
    pub init: PathBuf,
    /// The control group that holds those of the workspaces, from the root of each hierarchy.
    pub cgroup: String,
    /// The limits of any workspace.
    pub limits: Limits,
    /// What is watched in each.
    pub eyes: Eyes,
}

/// Why a workspace did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its files could not be made.
    #[error("the workspace's files could not be made")]
    Files(#[source] io::Error),
    /// Its home could not be made ready.
    #[error("the workspace's home could not be made ready")]
    Home(#[source] io::Error),
    /// The datasets could not be mounted.
    #[error("the datasets could not be mounted")]
    Mount(#[source] io::Error),
    /// The runtime could not start it.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// What is done in it cannot be seen.
    #[error("what is done in the workspace could not be watched")]
    Watch(#[source] io::Error),
    /// Its PID 1 did not come up.
    #[error("the workspace's first process did not come up")]
    Init(#[source] io::Error),
}

/// A running workspace. Dropping it ends its processes; [`Container::stop`] also removes what it
/// leaves on the host.
#[derive(Debug)]
pub struct Container {
    id: WorkspaceId,
    owner: Owner,
    dir: PathBuf,
    runtime: Runtime,
    pid: i32,
    link: Link,
    watcher: Arc<Watcher>,
    home: PathBuf,
    why: OnceLock<String>,
    // They end with the workspace.
    _watching: Vec<Telling>,
}

impl Place {
    /// The directory of a workspace.
    pub fn dir(&self, id: &WorkspaceId) -> PathBuf {
        self.run.join("ws").join(id.name())
    }

    /// Where the datasets of a workspace are mounted on the host; the directory is made here.
    pub fn make_data_dir(&self, id: &WorkspaceId) -> Result<PathBuf, StartError> {
        let dir = self.dir(id);
        let data = dir.join("data");
        let make = || {
            make_dir(&self.run, 0o711)?;
            make_dir(&self.run.join("ws"), 0o711)?;
            make_dir(&dir, 0o711)?;
            make_dir(&data, 0o755)
        };
        make().map_err(StartError::Files)?;
        Ok(data)
    }

    /// Starts a workspace within `limits`, with what is at `data` as its `/data`, under the eyes of
    /// `watcher`.
    pub async fn start(
        &self,
        id: &WorkspaceId,
        owner: &Owner,
        limits: &Limits,
        data: &Path,
        watcher: &Arc<Watcher>,
    ) -> Result<Container, StartError> {
        let dir = self.dir(id);
        let home =
            self.homes.open(owner, &dir.join("home"), limits.disk_mib).await.map_err(StartError::Home)?;
        let calls = dir.join("calls");
        let cgroup = format!("{}/{}", self.cgroup, id.name());
        let bundle = Bundle {
            dir: &dir,
            owner,
            limits,
            home: &home,
            data,
            init: &self.init,
            cgroup: &cgroup,
            calls: self.eyes.calls.then_some(calls.as_path()),
        };
        bundle.write().map_err(StartError::Files)?;
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|errno| StartError::Init(errno.into()))?;
        nonblocking(&ours).map_err(StartError::Init)?;
        let running = async { Ok(self.runtime.run(&dir, id.name(), theirs).await?) };
        let pid = if self.eyes.calls {
            let reception = Reception::at(&calls).map_err(StartError::Watch)?;
            let seeing = reception.receive(watcher.clone());
            // The first execution is that of PID 1: it is waited for while the runtime runs.
            let seeing = async {
                let seen = tokio::time::timeout(NOTIFIED, seeing).await;
                seen.map_err(io::Error::from).flatten().map_err(StartError::Watch)
            };
            let (pid, ()) = tokio::try_join!(running, seeing)?;
            let _ = std::fs::remove_file(&calls);
            pid
        } else {
            running.await?
        };
        let mut watching = vec![watcher.start()];
        if self.eyes.packets {
            let raised = tokio::task::spawn_blocking(move || Barrier::raise(pid)).await;
            let barrier = raised.map_err(io::Error::other).flatten().and_then(Barrier::new);
            let guarding = barrier.map_err(StartError::Watch)?.guard(watcher.clone());
            watching.push(Telling(tokio::spawn(guarding)));
        }
        let link = match tokio::time::timeout(PATIENCE, Link::open(ours)).await {
            Ok(Ok(link)) => link,
            Ok(Err(error)) => return Err(StartError::Init(error)),
            Err(slow) => return Err(StartError::Init(slow.into())),
        };
        let (id, owner, runtime) = (id.clone(), owner.clone(), self.runtime.clone());
        Ok(Container {
            id,
            owner,
            dir,
            runtime,
            pid,
            link,
            watcher: watcher.clone(),
            home,
            why: OnceLock::new(),
            _watching: watching,
        })
    }
}

impl Container {
    /// Which workspace this is.
    pub fn id(&self) -> &WorkspaceId {
        &self.id
    }

    /// Whom it is for.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// What a person should know of it.
    pub fn notices(&self) -> Vec<String> {
        home::notice(&self.home).into_iter().collect()
    }

    /// Says why it is about to be stopped, for those who are in it.
    pub fn say_why(&self, reason: &str) {
        let _ = self.why.set(reason.to_owned());
    }

    /// Why it was stopped, if it was.
    pub fn why(&self) -> &str {
        self.why.get().map_or("it ended by itself", String::as_str)
    }

    /// The host's number of its PID 1.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Starts a session's processes, without saying which session it is.
    pub async fn launch(&self, launch: Launch) -> Result<(Process, Streams), LaunchError> {
        Process::launch(&self.link, launch, |_| {}).await
    }

    /// Starts processes of a session; what they do is told as that session's.
    pub async fn launch_for(
        &self,
        session: &SessionId,
        launch: Launch,
    ) -> Result<(Process, Streams), LaunchError> {
        Process::launch(&self.link, launch, |mark| self.watcher.join(mark, session)).await
    }

    /// The session has ended: what is seen from now on and cannot be told apart is not its own.
    pub fn forget(&self, session: &SessionId) {
        self.watcher.leave(session);
    }

    /// Whether it ended by itself.
    pub fn is_gone(&self) -> bool {
        self.link.is_gone()
    }

    /// Resolves when it has ended by itself.
    pub async fn gone(&self) {
        self.link.gone().await;
    }

    /// Ends it and removes what it leaves, but for the mount of its datasets and its directory.
    pub async fn stop(&self) -> Result<(), RuntimeError> {
        self.runtime.delete(self.id.name()).await?;
        // PID 1 became this process's child if the agent is its subreaper; otherwise there is
        // nothing to wait for.
        let _ = nix::sys::wait::waitpid(
            nix::unistd::Pid::from_raw(self.pid),
            Some(nix::sys::wait::WaitPidFlag::WNOHANG),
        );
        let _ = std::fs::remove_dir_all(self.dir.join("rootfs"));
        let home = self.dir.join("home");
        let _ = tokio::task::spawn_blocking(move || home::close(&home)).await;
        Ok(())
    }
}

fn nonblocking(fd: &impl std::os::fd::AsFd) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}
