//! Everybody who follows a session beside the client that is in it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::happening::Happening;
use crate::recordings::Recorder;

/// Who follows one session.
#[derive(Debug, Default)]
pub(crate) struct Followers {
    inward: AtomicU64,
    outward: AtomicU64,
    recorder: Option<Recorder>,
}

impl Followers {
    /// A recorder, or nobody.
    pub(crate) fn new(recorder: Option<Recorder>) -> Followers {
        Followers { recorder, ..Followers::default() }
    }

    /// Tells all of them, before the client or the workspace gets it. Waits while the recorder is
    /// behind.
    pub(crate) async fn tell(&self, happening: &Happening) {
        match happening {
            Happening::Output(data) | Happening::Error(data) => {
                self.outward.fetch_add(data.len() as u64, Ordering::Relaxed);
            }
            Happening::Input(data) => {
                self.inward.fetch_add(data.len() as u64, Ordering::Relaxed);
            }
            Happening::Resized(_) | Happening::OutputEnded => {}
        }
        if let Some(recorder) = &self.recorder
            && (recorder.order.input || !matches!(happening, Happening::Input(_)))
        {
            recorder.tell(happening).await;
        }
    }

    /// Waits until the session cannot be recorded any further, though it should be: why, and whether
    /// that ends it.
    pub(crate) async fn broken(&self) -> (String, bool) {
        match &self.recorder {
            Some(recorder) => (recorder.broken().await, recorder.order.strict),
            None => std::future::pending().await,
        }
    }

    /// Nobody records any more; whoever did.
    pub(crate) fn take_recorder(&mut self) -> Option<Recorder> {
        self.recorder.take()
    }

    /// Bytes from the client to the workspace so far.
    pub(crate) fn inward(&self) -> u64 {
        self.inward.load(Ordering::Relaxed)
    }

    /// Bytes from the workspace to the client so far.
    pub(crate) fn outward(&self) -> u64 {
        self.outward.load(Ordering::Relaxed)
    }
}
