//! States of processes and their hosts that somebody accepts as the ones that were meant.

use audit::{Change, RecordKind};
use policy::AdminAction;

use crate::{Entry, Gate, Permit, Refusal};

/// The state of a process and its host is from now on the one that was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptState {
    /// The process, as it is called where its state is told: `broker`, or an agent's identifier.
    pub process: String,
    /// The digits that stand for the state.
    pub state: String,
}

impl crate::permit::sealed::Sealed for AcceptState {}

impl Gate {
    /// Permits that a state is accepted. That the process is still in it is for the process to see.
    pub async fn accept_state(
        &self,
        entry: &Entry,
        accepted: AcceptState,
    ) -> Result<Permit<AcceptState>, Refusal> {
        let what = format!("{} {}", accepted.process, accepted.state);
        let change = (RecordKind::Declaration, what, Change::Updated);
        let permit = self.admit(entry, AdminAction::AcceptState, change).await?;
        Ok(permit.for_action(accepted))
    }
}
