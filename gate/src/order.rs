//! How a session is to be recorded, as its permit says.

use policy::{RecordingMode, RecordingRule};

use crate::channels::Wanted;

/// How a session is to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordingOrder {
    /// Whether the session ends when it cannot be.
    pub strict: bool,
    /// Whether what the person types is recorded too.
    pub input: bool,
    /// How many bytes of output are kept of each minute; all of them if there is no limit.
    pub limit: Option<u64>,
}

impl RecordingOrder {
    pub(crate) fn of(rule: RecordingRule, wanted: &Wanted, terminal: bool) -> Option<RecordingOrder> {
        let (shell, command) = (*wanted == Wanted::Shell, matches!(wanted, Wanted::Exec(_)));
        rule.covers(terminal, shell, command).then(|| RecordingOrder {
            strict: rule.mode == RecordingMode::Strict,
            input: rule.input,
            limit: (rule.limit_mib > 0).then(|| u64::from(rule.limit_mib) << 20),
        })
    }

    /// What the person is told of it.
    pub(crate) fn notice(self) -> &'static str {
        if self.input {
            "What this terminal shows and what you type in it are recorded."
        } else {
            "What this terminal shows is recorded."
        }
    }
}

/// How records name the order.
pub(crate) fn mode_of(order: Option<RecordingOrder>) -> audit::RecordingMode {
    match order {
        None => audit::RecordingMode::Off,
        Some(RecordingOrder { strict: true, .. }) => audit::RecordingMode::Strict,
        Some(RecordingOrder { strict: false, .. }) => audit::RecordingMode::BestEffort,
    }
}
