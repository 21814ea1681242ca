//! The share backends of this agent.

use std::sync::Arc;

use model::BackendId;
use sharding::vault::{
    Backend, BackendStats, Experience, FaultSink, Options, Placement, Shortfall, Vault, VaultError,
};

/// Backends and threshold; vaults are made of it, each with its own listener for faults. All of
/// them learn together which backends are slow or failing.
#[derive(Debug, Clone)]
pub struct Storage {
    backends: Vec<Backend>,
    k: u8,
    placement: Placement,
    experience: Experience,
    near: Vec<BackendId>,
}

impl Storage {
    /// `k` of `backends` suffice to read.
    pub fn new(backends: Vec<Backend>, k: u8) -> Storage {
        Storage {
            backends,
            k,
            placement: Placement::default(),
            experience: Experience::default(),
            near: Vec::new(),
        }
    }

    /// With more asked of the way shares lie at institutions.
    pub fn placed(self, placement: Placement) -> Storage {
        Storage { placement, ..self }
    }

    /// With some of the backends near.
    pub fn near_to(self, near: Vec<BackendId>) -> Storage {
        Storage { near, ..self }
    }

    /// The backends that are near.
    pub fn near(&self) -> Vec<BackendId> {
        self.near.clone()
    }

    /// The institutions that the objects could not do without though they should, or why nothing
    /// may be deposited.
    pub fn check(&self) -> Result<Vec<Shortfall>, VaultError> {
        Ok(self.depositing()?.placement().to_vec())
    }

    /// A vault for reading.
    pub fn reading(&self, faults: Arc<dyn FaultSink>) -> Vault {
        Vault::reading(self.backends.clone(), Options { faults, ..self.options() })
    }

    /// A vault for depositing.
    pub fn depositing(&self) -> Result<Vault, VaultError> {
        Vault::new(self.backends.clone(), self.k, self.options())
    }

    /// What was counted of every backend.
    pub fn stats(&self) -> Vec<BackendStats> {
        self.experience.stats()
    }

    /// The backends with the institutions that run them.
    pub fn names(&self) -> Vec<(BackendId, String)> {
        self.backends.iter().map(|backend| (backend.id.clone(), backend.institution.clone())).collect()
    }

    fn options(&self) -> Options {
        Options { placement: self.placement, experience: self.experience.clone(), ..Options::default() }
    }
}
