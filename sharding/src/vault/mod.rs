//! Objects over `n` backends: [`Vault::deposit`], [`Vault::open`] and ranges of an
//! [`ObjectReader`], [`Vault::verify`], [`Vault::repair`], [`Vault::refresh`], [`Vault::collect`],
//! [`Vault::destroy`].
//!
//! # Promises
//! - A deposit is acknowledged after all `n` backends have acknowledged every byte of it, the
//!   manifest last; on [`Backend::local`] an acknowledgement is an fsync of file and folder. What
//!   a deposit writes lies under names of its own, so that a crash or a failure leaves something
//!   to take up or to collect, but never half an object.
//! - A read fetches only the blocks that its range touches, from `k` backends, and returns bytes
//!   only after they bore the tag that the root pins. A backend that fails, lies or is late is
//!   replaced by another, named to the [`FaultSink`], and asked last for a while.
//! - Repair and refresh replace nothing that was good before what replaces it is there.
//! - Every request has a time limit, every queue and buffer a bound: nothing hangs.

mod asking;
mod backend;
mod blocks;
mod collect;
mod deposit;
mod examine;
mod fault;
mod files;
mod folder;
mod health;
mod pace;
mod placement;
mod pool;
mod reader;
mod refresh;
mod repair;
mod resume;
mod verify;
mod wiped;

use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;

pub use backend::{
    Access, AccessError, Backend, BackendError, BackendUrl, BackendUrlError, Bucket, CredentialSource,
    Endpoint,
};
pub use collect::{Collected, Destroyed, Destruction};
pub use deposit::{DepositError, Deposited, Depositing};
pub use fault::{Fault, FaultKind, FaultSink, IgnoreFaults};
pub use health::{BackendStats, Experience};
pub use pace::Pace;
pub use placement::{IfFewer, Placement, PlacementError, Shortfall};
pub use reader::{MAX_READ, ObjectReader, ReadError};
pub use refresh::{Refresh, RefreshError};
pub use repair::{Repaired, RepairedBackend};
pub use resume::Unfinished;
pub use verify::{BackendState, Found, Verification};
pub use wiped::Wiped;

use crate::codec::{CodecError, Threshold};
use crate::format::{Mode, Scheme};
use pool::Pool;

/// Time limits and bounds.
#[derive(Clone)]
pub struct Options {
    /// How deposits are shared. Default: every byte by itself.
    pub mode: Mode,
    /// Who signs manifests. Default nobody.
    pub signer: Option<Arc<SigningKey>>,
    /// Limit of one read request. Default 2 s.
    pub read_timeout: Duration,
    /// After how long a spare backend is asked as well, at most; less once it is known that a
    /// backend usually answers sooner. Default 300 ms.
    pub hedge_after: Duration,
    /// Limit of one write request, which carries up to 4 MiB. Default 60 s.
    pub write_timeout: Duration,
    /// How many backends may miss their shares of a deposit and be repaired later. Default none.
    pub may_miss: usize,
    /// Bytes of plaintext and shares that a deposit may have under way, though at least one
    /// extent of 4 MiB with its shares. Default 96 MiB.
    pub memory: usize,
    /// For how long a backend that failed is asked last. Default 30 s.
    pub penalty: Duration,
    /// Requests in flight to one backend. Default 16.
    pub concurrency: usize,
    /// What was learnt of the backends, to share it with other vaults. Default nothing yet.
    pub experience: Experience,
    /// How shares must lie at institutions for a vault that deposits.
    pub placement: Placement,
    /// How fast checks and repairs may read, over all backends together. Default as fast as it goes.
    pub pace: Pace,
    /// Who hears of faults. Default nobody.
    pub faults: Arc<dyn FaultSink>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            mode: Mode::default(),
            signer: None,
            read_timeout: Duration::from_secs(2),
            hedge_after: Duration::from_millis(300),
            write_timeout: Duration::from_secs(60),
            may_miss: 0,
            memory: 96 << 20,
            penalty: Duration::from_secs(30),
            concurrency: 16,
            experience: Experience::default(),
            placement: Placement::default(),
            pace: Pace::unlimited(),
            faults: Arc::new(IgnoreFaults),
        }
    }
}

/// `n` backends, any `k` of which suffice.
#[derive(Clone)]
pub struct Vault {
    scheme: Option<Scheme>,
    short: Vec<Shortfall>,
    pool: Arc<Pool>,
}

/// Why no vault was made.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// `k` or the number of backends.
    #[error(transparent)]
    Threshold(#[from] CodecError),
    /// Which institutions hold how much.
    #[error(transparent)]
    Placement(#[from] PlacementError),
}

impl Vault {
    /// Deposits `k` of all `backends`; reads whatever any of them holds, however it was shared.
    /// Refused if an institution would hold `k` shares.
    pub fn new(backends: Vec<Backend>, k: u8, options: Options) -> Result<Vault, VaultError> {
        let n = u8::try_from(backends.len()).unwrap_or(u8::MAX);
        let threshold = Threshold::new(k, n)?;
        let short = options.placement.check(threshold, &backends)?;
        let scheme = Scheme { mode: options.mode, threshold };
        Ok(Vault { scheme: Some(scheme), short, pool: Pool::new(backends, options) })
    }

    /// Only reads: any number of backends, in any order.
    pub fn reading(backends: Vec<Backend>, options: Options) -> Vault {
        Vault { scheme: None, short: Vec::new(), pool: Pool::new(backends, options) }
    }

    /// What was counted and learnt of every backend.
    pub fn stats(&self) -> Vec<BackendStats> {
        self.pool.options.experience.stats()
    }

    /// The institutions that this vault cannot do without, though it should.
    pub fn placement(&self) -> &[Shortfall] {
        &self.short
    }
}
