//! Objects over `n` backends: [`Vault::deposit`], [`Vault::open`] and ranges of an
//! [`ObjectReader`], [`Vault::verify`].
//!
//! # Promises
//! - A deposit is acknowledged after all `n` backends have acknowledged every byte of it, the
//!   manifest last; on [`Backend::local`] an acknowledgement is an fsync of file and folder. What
//!   an attempt writes lies under names of its own, so that a crash or a failure leaves garbage
//!   but never half an object.
//! - A read fetches only the blocks that its range touches, from `k` backends, and returns bytes
//!   only after they matched the tag that the root pins. A backend that fails, lies or is late is
//!   replaced by another, named to the [`FaultSink`], and asked last for a while.
//! - Every request has a time limit, every queue and buffer a bound: nothing hangs.

mod backend;
mod deposit;
mod fault;
mod pool;
mod reader;
mod verify;

use std::sync::Arc;
use std::time::Duration;

pub use backend::Backend;
pub use deposit::{DepositError, Deposited};
pub use fault::{Fault, FaultKind, FaultSink, IgnoreFaults};
pub use reader::{MAX_READ, ObjectReader, ReadError};
pub use verify::{BackendState, Found, Verification};

use crate::codec::{CodecError, Threshold};
use pool::Pool;

/// Time limits and bounds.
#[derive(Clone)]
pub struct Options {
    /// Limit of one read request. Default 2 s.
    pub read_timeout: Duration,
    /// After how long a spare backend is asked as well. Default 300 ms.
    pub hedge_after: Duration,
    /// Limit of one write request, which carries up to 4 MiB. Default 60 s.
    pub write_timeout: Duration,
    /// For how long a backend that failed is asked last. Default 30 s.
    pub penalty: Duration,
    /// Requests in flight to one backend. Default 16.
    pub concurrency: usize,
    /// Who hears of faults. Default nobody.
    pub faults: Arc<dyn FaultSink>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            read_timeout: Duration::from_secs(2),
            hedge_after: Duration::from_millis(300),
            write_timeout: Duration::from_secs(60),
            penalty: Duration::from_secs(30),
            concurrency: 16,
            faults: Arc::new(IgnoreFaults),
        }
    }
}

/// `n` backends, any `k` of which suffice.
#[derive(Clone)]
pub struct Vault {
    threshold: Option<Threshold>,
    pool: Arc<Pool>,
}

impl Vault {
    /// Deposits `k` of all `backends`; reads whatever any of them holds, however it was shared.
    pub fn new(backends: Vec<Backend>, k: u8, options: Options) -> Result<Vault, CodecError> {
        let n = u8::try_from(backends.len()).unwrap_or(u8::MAX);
        Ok(Vault { threshold: Some(Threshold::new(k, n)?), pool: Pool::new(backends, options) })
    }

    /// Only reads: any number of backends, in any order.
    pub fn reading(backends: Vec<Backend>, options: Options) -> Vault {
        Vault { threshold: None, pool: Pool::new(backends, options) }
    }
}
