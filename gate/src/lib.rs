//! The one door.
//!
//! Whatever anyone wants becomes a question here. The gate gathers the facts ([`store`]), asks the
//! pure [`policy`], writes the answer durably to the [`audit`] log, and only then mints a
//! [`Permit`]. What does work takes a permit, whose constructor is private to this crate: there is
//! no permit without a record and no work without a permit.
//!
//! The order is the same everywhere and is what the promises rest on:
//!
//! 1. a lease is registered, so that a revocation from here on finds it;
//! 2. facts are read and policy decides; an error is a denial;
//! 3. the decision is appended to the log and fsynced; if that fails, so does the request;
//! 4. the permit leaves the gate, still tied to its lease.
//!
//! A revocation is recorded, then stored, then swapped into the policy, then ends every lease that
//! rests on what was revoked. A lease that was being granted meanwhile sees the changed policy
//! epoch and is decided again.

mod administration;
mod approvals;
mod channels;
mod decoys;
mod deposits;
mod events;
mod facts;
mod findings;
mod identity;
mod keeping;
mod leases;
mod live;
mod order;
mod permit;
mod recordings;
mod refusal;
mod sessions;
mod states;
mod supervision;
mod within;
mod workspaces;

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use certs::ticket::TicketKey;
use model::{Clock, Entropy, PersonId};
use policy::PolicySet;
use signer::SignerClient;

pub use administration::{
    FirstTokens, NewDataset, NewGrant, NewPerson, NewStudy, Records, ServiceCertificate,
};
pub use approvals::ApprovalSettings;
pub use channels::{FileRights, Wanted};
pub use decoys::NewDecoy;
pub use deposits::Deposit;
pub use findings::{Aftermath, FindingRecord};
pub use identity::{AgentAnswer, Authorities, LoginAnswer, LoginRequest};
pub use keeping::{FetchRecord, KeepRecord, Kept, MoveRecord};
pub use leases::EndCause;
pub use order::RecordingOrder;
pub use permit::{Action, Permit};
pub use recordings::{PlayRecording, Recorded, RecordingChange};
pub use refusal::{Refusal, RefusalKind};
pub use sessions::{DatasetAccess, OpenSession, Outcome, SessionRequest};
pub use states::AcceptState;
pub use supervision::{SupervisionChange, WatchSession};
pub use workspaces::{Errand, KeepWorkspace, Target, Whereabouts};

use leases::Leases;

/// Who stands at the door, as far as a certificate has proved it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The person that the certificate names.
    pub person: PersonId,
    /// Where the connection comes from.
    pub peer: Option<SocketAddr>,
    /// Which front door was used.
    pub via: Via,
    /// The fingerprint of the key whose possession was proved.
    pub key_fingerprint: String,
}

/// A front door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// The SSH listener.
    Ssh,
    /// The HTTPS listener.
    Api,
}

impl Via {
    /// The door's name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Via::Ssh => "ssh",
            Via::Api => "api",
        }
    }
}

/// The door. Cheap to clone; every clone is the same door.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Inner>,
}

struct Inner {
    store: store::Store,
    log: audit::Log,
    signer: SignerClient,
    tickets: ArcSwap<TicketKey>,
    policies: ArcSwap<PolicySet>,
    leases: Leases,
    tallies: events::Tallies,
    decoys: tokio::sync::watch::Sender<Arc<Vec<store::Decoy>>>,
    live: live::Live,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// One change of policy at a time: what is swapped in was built from the latest records.
    changing: tokio::sync::Mutex<()>,
    /// One request for a second officer at a time.
    approving: tokio::sync::Mutex<()>,
    logins: std::sync::Mutex<certs::login::SeenLogins>,
    settings: Settings,
}

/// What an operator may set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a person's certificates live.
    pub person_lifetime: std::time::Duration,
    /// How long a service's certificates live.
    pub service_lifetime: std::time::Duration,
    /// How long a one-time token may wait to be used.
    pub token_lifetime: std::time::Duration,
    /// How long an agent may take to act on a ticket.
    pub ticket_lifetime: std::time::Duration,
    /// What takes a second officer.
    pub approvals: ApprovalSettings,
}

impl Default for Settings {
    fn default() -> Self {
        use std::time::Duration;
        Settings {
            person_lifetime: Duration::from_secs(15 * 60),
            service_lifetime: Duration::from_secs(24 * 3600),
            token_lifetime: Duration::from_secs(24 * 3600),
            ticket_lifetime: Duration::from_secs(30),
            approvals: ApprovalSettings::default(),
        }
    }
}

/// What the gate stands on.
pub struct Foundations {
    /// The records.
    pub store: store::Store,
    /// The log.
    pub log: audit::Log,
    /// The process that holds the CA keys.
    pub signer: SignerClient,
    /// The key that signs tickets.
    pub ticket_key: TicketKey,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// What an operator may set.
    pub settings: Settings,
    /// Recordings of sessions that an earlier process left open, each with its session.
    pub left_open: Vec<(model::SessionId, Recorded)>,
}

/// Why the gate cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The records could not be read.
    #[error("the records could not be read: {0}")]
    Store(#[from] store::StoreError),
    /// The records hold a policy that does not compile; nothing is permitted by a broken policy.
    #[error("the stored policy does not compile: {0}")]
    Policy(#[from] policy::PolicyError),
    /// The log takes no records.
    #[error("the audit log takes no records: {0}")]
    Log(#[from] audit::AppendError),
    /// What an earlier process left open could not be counted.
    #[error("the audit log cannot be read: {0}")]
    Read(#[from] audit::ReadError),
}

/// How many logins are remembered so that none is used twice; those of four minutes, in effect.
const LOGINS_REMEMBERED: usize = 100_000;

impl Gate {
    /// Reads the policy from the records and opens the door.
    pub async fn new(on: Foundations) -> Result<Gate, GateError> {
        let snapshot = on.store.policy_snapshot().await?;
        let set = PolicySet::build(snapshot.epoch, &snapshot.memberships, &snapshot.grants)?;
        let decoys = Arc::new(on.store.decoys().await?);
        let gate = Gate {
            inner: Arc::new(Inner {
                store: on.store,
                log: on.log,
                signer: on.signer,
                tickets: ArcSwap::from_pointee(on.ticket_key),
                policies: ArcSwap::from_pointee(set),
                leases: Leases::default(),
                tallies: events::Tallies::default(),
                decoys: tokio::sync::watch::Sender::new(decoys),
                live: live::Live::default(),
                clock: on.clock,
                entropy: on.entropy,
                changing: tokio::sync::Mutex::new(()),
                approving: tokio::sync::Mutex::new(()),
                logins: std::sync::Mutex::new(certs::login::SeenLogins::new(LOGINS_REMEMBERED)),
                settings: on.settings,
            }),
        };
        gate.settle(&on.left_open).await?;
        Ok(gate)
    }

    /// Closes what an earlier process of this house left open.
    async fn settle(&self, recorded: &[(model::SessionId, Recorded)]) -> Result<(), GateError> {
        let store = &self.inner.store;
        let open = store.open_sessions().await?;
        let ids: Vec<_> = open.iter().map(|session| session.id.clone()).collect();
        let gate = self.clone();
        let recounting =
            tokio::task::spawn_blocking(move || gate.inner.tallies.recount(&gate.inner.log, &ids));
        if let Ok(recounted) = recounting.await {
            recounted?;
        }
        for (session, recorded) in recorded {
            self.seal_left_open(session, recorded).await?;
        }
        for session in open {
            // None: the session was stored, and the process ended before the log had it.
            let tally = self.inner.tallies.end(&session.id);
            let (events_first, events_last, count) = tally.map_or((0, 0, 0), |t| (t.first, t.last, t.count));
            let kind = audit::EventKind::SessionClosed {
                exit: audit::SessionExit::Aborted { reason: "the broker was restarted".to_owned() },
                bytes_in: 0,
                bytes_out: 0,
                events_first,
                events_last,
                count,
            };
            let event = audit::Event {
                person: Some(session.person),
                session: Some(session.id),
                study: Some(session.study),
                ..audit::Event::new(self.now(), kind)
            };
            self.inner.log.append(&event).await?;
        }
        store.close_open_sessions(self.now(), "aborted: the broker was restarted").await?;
        store.abandon_pending(self.now()).await?;
        self.settle_kept().await
    }

    /// Puts a renewed ticket key in the place of the old one.
    pub fn renew_ticket_key(&self, key: TicketKey) {
        self.inner.tickets.store(Arc::new(key));
    }

    /// Appends an event that is no decision of the gate's own: what a front door or an agent saw.
    /// It returns once the record is durable.
    pub async fn record(&self, event: &audit::Event) -> Result<u64, Refusal> {
        let index = self.inner.log.append(event).await.map_err(Refusal::unrecorded)?;
        if let Some(session) = &event.session {
            self.inner.tallies.add(session, index);
        }
        Ok(index)
    }

    /// The log that the gate writes to, for readers.
    pub fn log(&self) -> &audit::Log {
        &self.inner.log
    }

    /// Does something to its end, also when whoever asked for it hangs up meanwhile: a change of
    /// policy that is stored but not in force would be a hole.
    pub(crate) async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        tokio::spawn(work).await.unwrap_or_else(|error| {
            tracing::error!(%error, "a change broke off");
            Err(Refusal::new(
                RefusalKind::Unavailable,
                "unavailable",
                "The change broke off half-way. Please tell the operators.",
            ))
        })
    }

    /// The present instant by the gate's clock.
    pub fn now(&self) -> model::Timestamp {
        self.inner.clock.now()
    }
}
