//! The workspaces that run, each started when it is needed and stopped when it is idle.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use certs::ticket::SessionOrder;
use model::{Clock, SessionId, Timestamp, WorkspaceId, WorkspaceLimits};
use tokio::time::Instant;
use wire::message::{AgentEvent, Running as Runs};

use crate::leftovers;
use crate::mount::{DataMount, Lease, force_unmount};
use crate::reports::Reports;
use crate::storage::Storage;
use crate::watch::Watcher;
use crate::workspace::{Container, Owner, Place, StartError, close_home};

/// How often idle workspaces are looked for.
const LOOK: Duration = Duration::from_secs(1);

/// What workspaces are made of.
pub struct Setup {
    /// Where and how they run.
    pub place: Place,
    /// Where their datasets come from.
    pub storage: Storage,
    /// Memory for rebuilt blocks of each, bytes.
    pub cache_bytes: usize,
    /// How long one stays without sessions at most, whatever its study says.
    pub idle: Duration,
    /// Now.
    pub clock: Arc<dyn Clock>,
    /// Where starts, stops and faults are told.
    pub reports: Reports,
}

/// The workspaces of this host. Clones share everything.
#[derive(Clone)]
pub struct Workspaces(Arc<Inner>);

struct Inner {
    setup: Setup,
    rooms: Mutex<HashMap<WorkspaceId, Arc<Room>>>,
}

/// A place for one workspace, running or not.
#[derive(Debug, Default)]
struct Room {
    running: tokio::sync::Mutex<Option<Running>>,
    use_: Mutex<Use>,
}

#[derive(Debug)]
struct Running {
    container: Arc<Container>,
    mount: DataMount,
    watcher: Arc<Watcher>,
}

#[derive(Debug)]
struct Use {
    sessions: usize,
    since: Instant,
    /// What the study says, of the last session that came.
    idle: Duration,
    /// What the last session that left could read, for what goes on without it.
    linger: Option<Linger>,
}

/// Datasets that stay visible while nobody is there.
#[derive(Debug)]
struct Linger {
    _lease: Lease,
    until: Timestamp,
}

impl Default for Use {
    fn default() -> Use {
        Use { sessions: 0, since: Instant::now(), idle: Duration::MAX, linger: None }
    }
}

/// Why a session has no workspace.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// The workspace belongs to someone else, or to another study.
    #[error("the workspace is another person's or another study's")]
    Owner,
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// A session's stay in a workspace. Its datasets are visible, and the workspace is kept, for as
/// long as this lives; and unless it is withdrawn, for as long as the workspace runs on.
#[derive(Debug)]
pub struct Stay {
    /// The workspace.
    pub container: Arc<Container>,
    /// Whether it was started for this session.
    pub cold: bool,
    lease: Option<Lease>,
    room: Arc<Room>,
    session: SessionId,
    until: Timestamp,
}

impl std::fmt::Debug for Workspaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Workspaces")
    }
}

impl Workspaces {
    /// None yet. Call [`Workspaces::tend`] beside it.
    pub fn new(setup: Setup) -> Workspaces {
        Workspaces(Arc::new(Inner { setup, rooms: Mutex::default() }))
    }

    /// Where their datasets come from.
    pub fn storage(&self) -> &Storage {
        &self.0.setup.storage
    }

    /// Where faults of backends are told.
    pub fn reports(&self) -> &Reports {
        &self.0.setup.reports
    }

    /// Lets a session in, starting the workspace if it does not run.
    pub async fn enter(&self, order: &SessionOrder) -> Result<Stay, EnterError> {
        let owner =
            Owner { study: order.study.clone(), person: order.person.clone(), workspace: order.name.clone() };
        let room = self.room(&order.workspace);
        let mut running = room.running.lock().await;
        if running.as_ref().is_some_and(|running| running.container.is_gone()) {
            self.stop(&order.workspace, &mut running, "it ended by itself").await;
        }
        let cold = running.is_none();
        if running.is_none() {
            *running = Some(self.start(&order.workspace, &owner, &order.limits).await?);
        }
        let Some(now) = running.as_ref() else { return Err(EnterError::Owner) };
        if *now.container.owner() != owner {
            return Err(EnterError::Owner);
        }
        room.arrive(Duration::from_secs(order.limits.idle_secs).min(self.0.setup.idle));
        let lease = Some(now.mount.grant(&order.session, &order.datasets));
        // Of what an earlier session left, the newcomer sees what its own ticket shows.
        drop(room.forget());
        let (session, until) = (order.session.clone(), order.access_until);
        Ok(Stay { container: now.container.clone(), cold, lease, room: room.clone(), session, until })
    }

    /// Stops what is idle or ended by itself, until dropped.
    pub async fn tend(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            for (id, room) in self.rooms() {
                // One that is being entered or started is not idle.
                let Ok(mut running) = room.running.try_lock() else { continue };
                let Some(now) = running.as_ref() else { continue };
                if now.container.is_gone() {
                    self.stop(&id, &mut running, "it ended by itself").await;
                } else if let Some(reason) = room.outlived(self.0.setup.clock.now()) {
                    self.stop(&id, &mut running, reason).await;
                }
            }
        }
    }

    /// What runs, and how many are in it.
    pub fn running(&self) -> Vec<Runs> {
        let mut all = Vec::new();
        for (workspace, room) in self.rooms() {
            // One that is being started or stopped is told when that is done.
            let runs = room.running.try_lock().map_or(true, |running| running.is_some());
            let (sessions, since) = room.using();
            if runs && room.was_seen() {
                let idle_secs = if sessions == 0 { since.elapsed().as_secs() } else { 0 };
                all.push(Runs {
                    workspace,
                    sessions: u32::try_from(sessions).unwrap_or(u32::MAX),
                    idle_secs: u32::try_from(idle_secs).unwrap_or(u32::MAX),
                });
            }
        }
        all.sort_by(|one, other| one.workspace.cmp(&other.workspace));
        all
    }

    /// Stops a workspace and destroys its home.
    pub async fn remove(&self, id: &WorkspaceId, owner: &Owner, reason: &str) -> io::Result<()> {
        let room = self.room(id);
        let mut running = room.running.lock().await;
        if running.as_ref().is_some_and(|running| running.container.owner() != owner) {
            return Err(io::Error::other("the workspace is another person's or another study's"));
        }
        self.stop(id, &mut running, reason).await;
        let (homes, owner) = (self.0.setup.place.homes.clone(), owner.clone());
        tokio::task::spawn_blocking(move || homes.remove(&owner)).await.map_err(io::Error::other)?
    }

    /// Stops every workspace that nobody is in.
    pub async fn stop_unused(&self, reason: &str) {
        for (id, room) in self.rooms() {
            let mut running = room.running.lock().await;
            if room.using().0 == 0 {
                self.stop(&id, &mut running, reason).await;
            }
        }
    }

    /// Stops a workspace with everything in it.
    pub async fn condemn(&self, id: &WorkspaceId, reason: &str) {
        let room = self.room(id);
        let mut running = room.running.lock().await;
        self.stop(id, &mut running, reason).await;
    }

    /// Stops every workspace.
    pub async fn stop_all(&self, reason: &str) {
        for (id, room) in self.rooms() {
            let mut running = room.running.lock().await;
            self.stop(&id, &mut running, reason).await;
        }
    }

    fn room(&self, id: &WorkspaceId) -> Arc<Room> {
        let mut rooms = self.0.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.entry(id.clone()).or_default().clone()
    }

    fn rooms(&self) -> Vec<(WorkspaceId, Arc<Room>)> {
        let rooms = self.0.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.iter().map(|(id, room)| (id.clone(), room.clone())).collect()
    }

    async fn start(
        &self,
        id: &WorkspaceId,
        owner: &Owner,
        limits: &WorkspaceLimits,
    ) -> Result<Running, StartError> {
        let began = Instant::now();
        let Setup { place, storage, cache_bytes, reports, .. } = &self.0.setup;
        let started = async {
            let data = place.make_data_dir(id)?;
            let watcher = Watcher::new(id.clone(), &place.eyes, reports.clone());
            let mount =
                DataMount::open(&data, storage, *cache_bytes, watcher.clone()).map_err(StartError::Mount)?;
            let limits = place.limits.narrowed(limits);
            let container = Arc::new(place.start(id, owner, &limits, &data, &watcher).await?);
            Ok(Running { container, mount, watcher })
        };
        match started.await {
            Ok(running) => {
                let cold_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::info!(workspace = %id, cold_ms, "a workspace runs");
                reports.tell(AgentEvent::WorkspaceStarted { workspace: id.clone(), cold_ms });
                Ok(running)
            }
            Err(error) => {
                let _ = place.runtime.delete(id.name()).await;
                clear(place, id);
                Err(error)
            }
        }
    }

    async fn stop(&self, id: &WorkspaceId, running: &mut Option<Running>, reason: &str) {
        let Some(now) = running.as_ref() else { return };
        now.container.say_why(reason);
        let Setup { place, reports, .. } = &self.0.setup;
        let room = self.room(id);
        drop(room.forget());
        let Some(Running { container, mount, watcher }) = running.take() else { return };
        if let Err(error) = container.stop().await {
            tracing::error!(workspace = %id, %error, "a workspace did not stop cleanly");
        }
        drop(mount);
        watcher.finish();
        clear(place, id);
        tracing::info!(workspace = %id, reason, "a workspace was stopped");
        reports.tell(AgentEvent::WorkspaceStopped { workspace: id.clone(), reason: reason.to_owned() });
    }
}

impl Room {
    fn arrive(&self, idle: Duration) {
        let mut use_ = self.lock();
        use_.sessions += 1;
        use_.idle = idle;
    }

    /// A session goes; what it could read stays if it says so, in the place of what stayed before.
    fn go(&self, linger: Option<Linger>) {
        let before = {
            let mut use_ = self.lock();
            use_.sessions = use_.sessions.saturating_sub(1);
            use_.since = Instant::now();
            linger.and_then(|linger| use_.linger.replace(linger))
        };
        drop(before);
    }

    /// Takes away what stayed.
    fn forget(&self) -> Option<Linger> {
        self.lock().linger.take()
    }

    /// Why the workspace should go, if it should.
    fn outlived(&self, now: Timestamp) -> Option<&'static str> {
        let use_ = self.lock();
        if use_.sessions > 0 {
            return None;
        }
        if use_.linger.as_ref().is_some_and(|linger| linger.until <= now) {
            return Some("access to its study has ended");
        }
        (use_.since.elapsed() >= use_.idle).then_some("it was idle")
    }

    /// Whether a session ever came.
    fn was_seen(&self) -> bool {
        self.lock().idle < Duration::MAX
    }

    fn using(&self) -> (usize, Instant) {
        let use_ = self.lock();
        (use_.sessions, use_.since)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Use> {
        self.use_.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stay {
    /// Takes the session's datasets away, at once, and those that an earlier one left.
    pub fn withdraw(&mut self) {
        self.lease = None;
        drop(self.room.forget());
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let until = self.until;
        let linger = self.lease.take().map(|lease| Linger { _lease: lease, until });
        self.container.forget(&self.session);
        self.room.go(linger);
    }
}

/// Removes what a workspace leaves on the host once its processes are gone.
fn clear(place: &Place, id: &WorkspaceId) {
    let dir = place.dir(id);
    force_unmount(&dir.join("data"));
    close_home(&dir.join("home"));
    leftovers::remove(&dir);
}
