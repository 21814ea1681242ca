//! Everybody who follows a session beside the client that is in it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::happening::Happening;

/// Who follows one session.
#[derive(Debug, Default)]
pub(crate) struct Followers {
    inward: AtomicU64,
    outward: AtomicU64,
}

impl Followers {
    /// Tells all of them, before the client or the workspace gets it.
    pub(crate) fn tell(&self, happening: &Happening) {
        match happening {
            Happening::Output(data) | Happening::Error(data) => {
                self.outward.fetch_add(data.len() as u64, Ordering::Relaxed);
            }
            Happening::Input(data) => {
                self.inward.fetch_add(data.len() as u64, Ordering::Relaxed);
            }
            Happening::Resized(_) | Happening::OutputEnded => {}
        }
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
