//! The workspaces that run, each started when it is needed and stopped when it is idle.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use certs::ticket::SessionOrder;
use model::{SessionId, WorkspaceId};
use tokio::time::Instant;
use wire::message::AgentEvent;

use crate::mount::{DataMount, Lease, force_unmount};
use crate::reports::Reports;
use crate::storage::Storage;
use crate::watch::Watcher;
use crate::workspace::{Container, Owner, Place, StartError};

/// How often idle workspaces are looked for.
const LOOK: Duration = Duration::from_secs(1);

/// What workspaces are made of.
#[derive(Debug)]
pub struct Setup {
    /// Where and how they run.
    pub place: Place,
    /// Where their datasets come from.
    pub storage: Storage,
    /// Memory for rebuilt blocks of each, bytes.
    pub cache_bytes: usize,
    /// How long one stays without sessions.
    pub idle: Duration,
    /// Where starts, stops and faults are told.
    pub reports: Reports,
}

/// The workspaces of this host. Clones share everything.
#[derive(Debug, Clone)]
pub struct Workspaces(Arc<Inner>);

#[derive(Debug)]
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
}

impl Default for Use {
    fn default() -> Use {
        Use { sessions: 0, since: Instant::now() }
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
/// long as this lives.
#[derive(Debug)]
pub struct Stay {
    /// The workspace.
    pub container: Arc<Container>,
    /// Whether it was started for this session.
    pub cold: bool,
    lease: Option<Lease>,
    room: Arc<Room>,
    session: SessionId,
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
        let owner = Owner { study: order.study.clone(), person: order.person.clone() };
        let room = self.room(&order.workspace);
        let mut running = room.running.lock().await;
        if running.as_ref().is_some_and(|running| running.container.is_gone()) {
            self.stop(&order.workspace, &mut running, "it ended by itself").await;
        }
        let cold = running.is_none();
        if running.is_none() {
            *running = Some(self.start(&order.workspace, &owner).await?);
        }
        let Some(now) = running.as_ref() else { return Err(EnterError::Owner) };
        if *now.container.owner() != owner {
            return Err(EnterError::Owner);
        }
        room.change(|sessions| sessions + 1);
        let lease = Some(now.mount.grant(&order.session, &order.datasets));
        let session = order.session.clone();
        Ok(Stay { container: now.container.clone(), cold, lease, room: room.clone(), session })
    }

    /// Stops what is idle or ended by itself, until dropped.
    pub async fn tend(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            for (id, room) in self.rooms() {
                // One that is being entered or started is not idle.
                let Ok(mut running) = room.running.try_lock() else { continue };
                let (sessions, since) = room.using();
                let Some(now) = running.as_ref() else { continue };
                if now.container.is_gone() {
                    self.stop(&id, &mut running, "it ended by itself").await;
                } else if sessions == 0 && since.elapsed() >= self.0.setup.idle {
                    self.stop(&id, &mut running, "it was idle").await;
                }
            }
        }
    }

    /// Stops a workspace that can no longer be relied on, with everything in it.
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

    async fn start(&self, id: &WorkspaceId, owner: &Owner) -> Result<Running, StartError> {
        let began = Instant::now();
        let Setup { place, storage, cache_bytes, reports, .. } = &self.0.setup;
        let started = async {
            let data = place.make_data_dir(id)?;
            let watcher = Watcher::new(id.clone(), &place.eyes, reports.clone());
            let mount =
                DataMount::open(&data, storage, *cache_bytes, watcher.clone()).map_err(StartError::Mount)?;
            let container = Arc::new(place.start(id, owner, &data, &watcher).await?);
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
        let Some(Running { container, mount, watcher }) = running.take() else { return };
        let Setup { place, reports, .. } = &self.0.setup;
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
    fn change(&self, how: impl FnOnce(usize) -> usize) {
        let mut use_ = self.use_.lock().unwrap_or_else(PoisonError::into_inner);
        *use_ = Use { sessions: how(use_.sessions), since: Instant::now() };
    }

    fn using(&self) -> (usize, Instant) {
        let use_ = self.use_.lock().unwrap_or_else(PoisonError::into_inner);
        (use_.sessions, use_.since)
    }
}

impl Stay {
    /// Takes the session's datasets away, at once.
    pub fn withdraw(&mut self) {
        self.lease = None;
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.withdraw();
        self.container.forget(&self.session);
        self.room.change(|sessions| sessions.saturating_sub(1));
    }
}

/// Removes what a workspace leaves on the host once its processes are gone.
fn clear(place: &Place, id: &WorkspaceId) {
    let dir = place.dir(id);
    force_unmount(&dir.join("data"));
    match std::fs::remove_dir_all(&dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(dir = %dir.display(), %error, "could not be removed"),
    }
}
