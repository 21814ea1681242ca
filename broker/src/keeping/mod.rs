//! The house's own records as secret shares: parts of the audit log, recordings of sessions.
//!
//! [`Keeping::keep`] takes one from its source to the backends: encrypted here to the key that the agent
//! has for such records, shared there, read back from the shares and compared, and only then on record.
//! [`Keeping::fetch`] has one back. Both go through the gate, and through an agent: the broker holds no
//! share. [`segments`] does so with the log itself.
//!
//! What this does not defend against: an agent that remembers what it took in. Agents see every genome
//! they serve; they may see the house's records as well.

pub mod carry;
pub mod fetch;
mod lateness;
pub mod segments;

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use gate::{Gate, KeepRecord, Permit, Refusal, RefusalKind};
use model::Entropy;
use store::{KeptFile, KeptRecord, KeptState, KeptSubject};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use wire::broker::AgentLink;

use crate::hub::Hub;
pub(crate) use lateness::{Lateness, Turn};

use carry::AttemptError;

/// How many records are carried at once.
const TOGETHER: usize = 2;
/// Attempts under one permit; after them whoever wants the record kept asks again.
const ATTEMPTS: u32 = 12;
/// The first pause after a failure, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(300));
/// How often an agent is looked for while none is connected.
const LOOK: Duration = Duration::from_millis(500);

/// What is to be kept. It is written out anew for each attempt.
pub trait Source: Send + Sync + 'static {
    /// Writes it from its beginning to its end. Blocks. Of a part of the log it returns the root over
    /// its entries.
    fn write_to(&self, to: &mut dyn Write) -> Result<Option<[u8; 32]>, SourceError>;
}

/// Why a source could not be written out.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Nobody takes it any more; the attempt says why.
    #[error("nobody takes it any more")]
    NotTaken,
    /// It cannot be read, or is not what it should be: to try again does not help.
    #[error("{0}")]
    Broken(String),
}

impl From<io::Error> for SourceError {
    fn from(error: io::Error) -> SourceError {
        match error.kind() {
            io::ErrorKind::BrokenPipe => SourceError::NotTaken,
            _ => SourceError::Broken(error.to_string()),
        }
    }
}

/// Why a record is not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The gate said no, or could not say anything.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The source is broken.
    #[error("what should be kept cannot be read: {0}")]
    Source(String),
    /// Every attempt failed; it may be asked again.
    #[error("it was tried {ATTEMPTS} times, the last time: {0}")]
    GaveUp(String),
    /// The broker is being stopped; the next start goes on.
    #[error("the broker is being stopped")]
    Stopping,
}

/// How keeping is, for health, metrics and the console.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Entries of the log below this index are kept.
    pub kept: u64,
    /// Entries above it that could be.
    pub waiting: u64,
    /// Entries below this index may have been moved out of the house.
    pub local_from: u64,
    /// Records kept since the start.
    pub records: u64,
    /// Attempts that failed since the start.
    pub failures: u64,
    /// Why the last attempt failed, until one succeeds.
    pub last_error: Option<String>,
    /// Whether something waits for longer than it should.
    pub lagging: bool,
    /// Why the oldest part that might leave the house does not.
    pub held_back: Option<String>,
}

/// Keeps records of the house. Cheap to clone; every clone is the same.
#[derive(Clone)]
pub struct Keeping {
    gate: Gate,
    hub: Hub,
    entropy: Arc<dyn Entropy>,
    places: Arc<Semaphore>,
    status: watch::Sender<Status>,
    stopping: CancellationToken,
}

impl Keeping {
    /// Keeps records through the agents of `hub` until `stopping`.
    pub fn new(gate: Gate, hub: Hub, entropy: Arc<dyn Entropy>, stopping: CancellationToken) -> Keeping {
        let places = Arc::new(Semaphore::new(TOGETHER));
        Keeping { gate, hub, entropy, places, status: watch::Sender::default(), stopping }
    }

    /// How it is.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Keeps one record, and returns once it was read back from its shares and the log says so. What is
    /// kept already is returned as it is.
    ///
    /// It waits while no agent is connected, and tries again, with pauses that grow, what failed. It can
    /// be dropped, and the process killed, at any moment: asked again it goes on under the same object,
    /// and what an attempt left is removed by the next.
    pub async fn keep(
        &self,
        subject: &KeptSubject,
        source: Arc<dyn Source>,
    ) -> Result<KeptRecord, KeepError> {
        let mut known = self.gate.kept().of(subject).await?;
        if known.as_ref().is_some_and(|kept| matches!(kept.state, KeptState::Stored { .. })) {
            self.gate.catch_up_kept().await?;
            known = self.gate.kept().of(subject).await?;
        }
        if let Some(kept) = known.filter(|kept| !matches!(kept.state, KeptState::Pending)) {
            return Ok(kept);
        }
        let permit = self.gate.keep_record(subject).await?;
        let (agent, file) = self.attempts(&permit, source).await?;
        let kept = self.gate.record_kept(permit, agent.agent(), file).await?;
        tracing::info!(%subject, object = %kept.object, "a record is kept");
        self.status.send_modify(|status| status.records += 1);
        Ok(kept)
    }

    async fn attempts(
        &self,
        permit: &Permit<KeepRecord>,
        source: Arc<dyn Source>,
    ) -> Result<(AgentLink, KeptFile), KeepError> {
        let mut pause = PAUSES.0;
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            let link = self.agent().await?;
            let Ok(_place) = self.places.acquire().await else { return Err(KeepError::Stopping) };
            let attempt = carry::attempt(&self.gate, &link, permit, Arc::clone(&source), &*self.entropy);
            let outcome = tokio::select! {
                outcome = attempt => outcome,
                () = self.stopping.cancelled() => return Err(KeepError::Stopping),
            };
            match outcome {
                Ok(file) => {
                    self.status.send_modify(|status| status.last_error = None);
                    return Ok((link, file));
                }
                Err(error) => {
                    tracing::warn!(subject = %permit.action().subject, %error, "a record was not kept");
                    self.failed(&error);
                    match error {
                        AttemptError::Source(broken) => return Err(KeepError::Source(broken)),
                        AttemptError::Refused(refusal) if refusal.kind != RefusalKind::Unavailable => {
                            return Err(refusal.into());
                        }
                        other => last = other.to_string(),
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.jittered(pause)) => {}
                () = self.stopping.cancelled() => return Err(KeepError::Stopping),
            }
            pause = (pause * 2).min(PAUSES.1);
        }
        Err(KeepError::GaveUp(last))
    }

    /// An agent, as soon as there is one.
    async fn agent(&self) -> Result<AgentLink, KeepError> {
        loop {
            if let Some(link) = self.hub.choose() {
                return Ok(link);
            }
            let nobody = "no agent is connected".to_owned();
            self.status.send_if_modified(|status| {
                let news = status.last_error.as_ref() != Some(&nobody);
                status.last_error = Some(nobody);
                news
            });
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.stopping.cancelled() => return Err(KeepError::Stopping),
            }
        }
    }

    fn failed(&self, error: &dyn fmt::Display) {
        self.status.send_modify(|status| {
            status.failures += 1;
            status.last_error = Some(error.to_string());
        });
    }

    /// Half of the time for certain, the other half by chance.
    fn jittered(&self, time: Duration) -> Duration {
        let mut byte = [255];
        let _ = self.entropy.fill(&mut byte);
        time / 2 + time / 2 * u32::from(byte[0]) / 255
    }
}

impl fmt::Debug for Keeping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeping").field("status", &*self.status.borrow()).finish_non_exhaustive()
    }
}
