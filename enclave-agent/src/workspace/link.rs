//! The agent's end of the socket pair that leads to a workspace's PID 1.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

use crate::descriptors::register;
use crate::init_protocol::{Notice, Order, mark_of, receive, send};

/// Orders that may wait to be sent: more than a workspace can have sessions.
const ORDERS: usize = 1024;
/// A session gets two notices in its life.
const NOTICES: usize = 4;

/// What PID 1 said about a session, and what came along.
pub type Said = (Notice, Vec<OwnedFd>);

/// The workspace is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the workspace is gone")]
pub struct Lost;

/// The way to PID 1. When the last copy is dropped, PID 1 ends, and all the workspace with it.
#[derive(Debug, Clone)]
pub struct Link(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    orders: mpsc::Sender<(Order, Vec<OwnedFd>)>,
    sessions: Arc<Sessions>,
    next: AtomicU64,
    gone: watch::Receiver<bool>,
}

#[derive(Debug, Default)]
struct Sessions(Mutex<HashMap<u64, mpsc::Sender<Said>>>);

impl Link {
    /// Takes over the socket once PID 1 has said that it is ready.
    pub async fn open(socket: OwnedFd) -> io::Result<Link> {
        let socket = register(socket)?;
        match next(&socket).await? {
            Some((Notice::Ready, _)) => {}
            Some(_) => return Err(io::Error::other("PID 1 did not begin with being ready")),
            None => return Err(io::Error::other("PID 1 ended before it was ready")),
        }
        let (orders, waiting) = mpsc::channel(ORDERS);
        let (gone_now, gone) = watch::channel(false);
        let sessions = Arc::new(Sessions::default());
        tokio::spawn(relay(socket, waiting, sessions.clone(), gone_now));
        Ok(Link(Arc::new(Shared { orders, sessions, next: AtomicU64::new(1), gone })))
    }

    /// A number for a session, and what will be said about it. Its mark is no other session's.
    pub fn register(&self) -> (u64, mpsc::Receiver<Said>) {
        let (sender, receiver) = mpsc::channel(NOTICES);
        let mut sessions = self.0.sessions.lock();
        let id = loop {
            let id = self.0.next.fetch_add(1, Ordering::Relaxed);
            // There are far more marks than there can be sessions.
            if sessions.keys().all(|other| mark_of(*other) != mark_of(id)) {
                break id;
            }
        };
        sessions.insert(id, sender);
        (id, receiver)
    }

    /// Forgets a session; what is still said about it is dropped.
    pub fn forget(&self, id: u64) {
        self.0.sessions.lock().remove(&id);
    }

    /// Sends an order without waiting.
    pub fn order(&self, order: Order, with: Vec<OwnedFd>) -> Result<(), Lost> {
        self.0.orders.try_send((order, with)).map_err(|_| Lost)
    }

    /// Resolves when the workspace is gone.
    pub async fn gone(&self) {
        let mut gone = self.0.gone.clone();
        let _ = gone.wait_for(|gone| *gone).await;
    }

    /// Whether the workspace is gone.
    pub fn is_gone(&self) -> bool {
        *self.0.gone.borrow() || self.0.gone.has_changed().is_err()
    }
}

impl Sessions {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, mpsc::Sender<Said>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass_on(&self, notice: Notice, with: Vec<OwnedFd>) {
        let (id, last) = match &notice {
            Notice::Ready => return,
            Notice::Started { id, .. } => (*id, false),
            Notice::Failed { id, .. } | Notice::Ended { id, .. } => (*id, true),
        };
        let mut sessions = self.lock();
        if let Some(session) = sessions.get(&id) {
            let _ = session.try_send((notice, with));
        }
        if last {
            sessions.remove(&id);
        }
    }
}

async fn relay(
    socket: AsyncFd<OwnedFd>,
    mut orders: mpsc::Receiver<(Order, Vec<OwnedFd>)>,
    sessions: Arc<Sessions>,
    gone: watch::Sender<bool>,
) {
    loop {
        tokio::select! {
            notice = next(&socket) => match notice {
                Ok(Some((notice, with))) => sessions.pass_on(notice, with),
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "the way to a workspace's PID 1 broke");
                    break;
                }
            },
            order = orders.recv() => match order {
                Some((order, with)) => {
                    let with: Vec<_> = with.iter().map(AsFd::as_fd).collect();
                    let sent = socket
                        .async_io(Interest::WRITABLE, |fd| send(fd.as_fd(), &order, &with))
                        .await;
                    if let Err(error) = sent {
                        tracing::warn!(%error, "an order did not reach a workspace's PID 1");
                        break;
                    }
                }
                None => break,
            },
        }
    }
    sessions.lock().clear();
    let _ = gone.send(true);
}

async fn next(socket: &AsyncFd<OwnedFd>) -> io::Result<Option<Said>> {
    socket.async_io(Interest::READABLE, |fd| receive(fd.as_fd())).await
}
