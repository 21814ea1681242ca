//! What a witness was asked since its start.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Decisions since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<Counted>);

/// How often each was decided, by its stable word.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counted {
    pub(crate) decisions: BTreeMap<&'static str, u64>,
    /// Why the state could not be written, until it can be.
    pub(crate) not_kept: Option<String>,
}

impl Counts {
    /// One more.
    pub(crate) fn decided(&self, word: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).decisions.entry(word).or_default() += 1;
    }

    /// The state was written, or could not be.
    pub(crate) fn kept(&self, fault: Option<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).not_kept = fault;
    }

    /// All of it, now.
    pub(crate) fn now(&self) -> Counted {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
