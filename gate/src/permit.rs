use std::sync::Arc;

use crate::leases::{EndCause, Lease};

/// Keeps actions within this crate: each is declared where it is defined.
pub(crate) mod sealed {
    pub trait Sealed {}
}

/// Something that needs a permit. Only the gate's own actions are.
pub trait Action: sealed::Sealed {}
impl<A: sealed::Sealed> Action for A {}

/// Proof that the gate permitted `A` and that the log holds the record of it.
///
/// It cannot be made, copied or widened outside the gate. It may end before its holder is done:
/// whoever works under it watches [`Permit::ended`].
#[derive(Debug)]
pub struct Permit<A: Action> {
    action: A,
    record: u64,
    lease: Arc<Lease>,
}

impl<A: Action> Permit<A> {
    pub(crate) fn mint(action: A, record: u64, lease: Arc<Lease>) -> Permit<A> {
        Permit { action, record, lease }
    }

    /// The same permit, for what exactly was asked.
    pub(crate) fn for_action<B: Action>(self, action: B) -> Permit<B> {
        Permit { action, record: self.record, lease: self.lease }
    }

    /// What is permitted.
    pub fn action(&self) -> &A {
        &self.action
    }

    /// The index of the record of this decision in the log.
    pub fn record(&self) -> u64 {
        self.record
    }

    /// Waits until the permit ends: its grant was revoked or ran out, its holder was locked. It
    /// fires at once when it already has; it never fires for a permit that has no end.
    pub async fn ended(&self) -> EndCause {
        self.lease.ended().await
    }
}
