//! The share backends of this agent.

use std::sync::Arc;

use model::BackendId;
use sharding::vault::{Backend, FaultSink, Options, Vault, VaultError};

/// Backends and threshold; vaults are made of it, each with its own listener for faults.
#[derive(Debug, Clone)]
pub struct Storage {
    backends: Vec<Backend>,
    k: u8,
}

impl Storage {
    /// `k` of `backends` suffice to read.
    pub fn new(backends: Vec<Backend>, k: u8) -> Storage {
        Storage { backends, k }
    }

    /// A vault for reading.
    pub fn reading(&self, faults: Arc<dyn FaultSink>) -> Vault {
        Vault::reading(self.backends.clone(), Options { faults, ..Options::default() })
    }

    /// A vault for depositing.
    pub fn depositing(&self) -> Result<Vault, VaultError> {
        Vault::new(self.backends.clone(), self.k, Options::default())
    }

    /// The backends with the institutions that run them.
    pub fn names(&self) -> Vec<(BackendId, String)> {
        self.backends.iter().map(|backend| (backend.id.clone(), backend.institution.clone())).collect()
    }
}
