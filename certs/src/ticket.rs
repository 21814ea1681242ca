//! Tickets: the gate's signed, short-lived orders to one agent.
//!
//! Sealed form: one byte of version (2), the signer's certificate (u16 LE length, DER), the order
//! (u32 LE length, postcard of [`Ticket`]), and an ECDSA P-256 signature (ASN.1 DER) over
//! [`CONTEXT`] and the order. The certificate names `ticket/…` and was issued directly by the CA,
//! so an agent needs to trust nothing but the CA.
//!
//! A ticket travels only inside the broker's mutually authenticated connection; it is sealed all
//! the same, so that what an agent does can be traced to a key that signs nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use model::{
    AgentId, DatasetId, ObjectId, PersonId, SessionId, StudyId, TicketId, Timestamp, WorkspaceId,
    WorkspaceLimits, WorkspaceName,
};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::x509::{CaCertificate, ChainRefusal, KeyPair, verify_signed};
use crate::{Replayed, Seen, SpiffeId, TrustDomain};

/// What the signature covers before the order itself.
pub const CONTEXT: &[u8] = b"sekisho ticket v2\0";
/// The largest sealed ticket, bytes.
pub const SEALED_MAX: usize = 1 << 20;
/// The longest life of a ticket.
pub const LIFETIME_MAX: Duration = Duration::from_secs(60);
/// How far the issuer's clock may run ahead of the agent's.
pub const SKEW: Duration = Duration::from_secs(5);
const VERSION: u8 = 2;

/// One order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Its own name; an agent obeys it once.
    pub id: TicketId,
    /// When it was signed.
    pub issued: Timestamp,
    /// When it ends, at most [`LIFETIME_MAX`] later.
    pub expires: Timestamp,
    /// The only agent that may obey.
    pub agent: AgentId,
    /// What to do.
    pub order: Order,
}

/// What an agent is told to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Open a session in a workspace.
    Session(SessionOrder),
    /// Take a file in.
    Deposit(DepositOrder),
    /// Take in a record of the house itself.
    Keep(KeepOrder),
    /// Hand out such a record.
    Fetch(FetchOrder),
    /// Do something with a workspace itself.
    Workspace(WorkspaceOrder),
}

/// What is to become of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceOrder {
    /// Which.
    pub workspace: WorkspaceId,
    /// What.
    pub fate: Fate,
    /// Why, for whoever is in it.
    pub reason: String,
}

/// What becomes of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// It ends with everything that runs in it; its home stays.
    Stop,
    /// It ends, and its home is destroyed.
    Remove {
        /// Whose home.
        person: PersonId,
        /// In which study.
        study: StudyId,
        /// Which of theirs.
        name: WorkspaceName,
    },
}

/// A session: who, for which study, with which data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOrder {
    /// The session.
    pub session: SessionId,
    /// Who works.
    pub person: PersonId,
    /// For which study.
    pub study: StudyId,
    /// Where.
    pub workspace: WorkspaceId,
    /// What the person calls it.
    pub name: WorkspaceName,
    /// What it may use.
    pub limits: WorkspaceLimits,
    /// With which data.
    pub datasets: Vec<DatasetOrder>,
    /// When access to the data ends.
    pub access_until: Timestamp,
}

/// A dataset as a workspace sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetOrder {
    /// The dataset.
    pub dataset: DatasetId,
    /// Its files.
    pub objects: Vec<ObjectOrder>,
}

/// A file of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectOrder {
    /// The object.
    pub object: ObjectId,
    /// Its file name in the dataset, see [`is_file_name`].
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// The root that its manifest must have.
    pub manifest_root: [u8; 32],
}

/// A file to take in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepositOrder {
    /// The object it becomes.
    pub object: ObjectId,
    /// The dataset it joins.
    pub dataset: DatasetId,
    /// Its file name in the dataset, see [`is_file_name`].
    pub name: String,
    /// Who hands it in.
    pub person: PersonId,
}

/// A record of the house to take in, such as a part of its audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepOrder {
    /// The object it becomes, see [`ObjectId::is_kept`].
    pub object: ObjectId,
}

/// A record of the house to hand out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchOrder {
    /// The object, see [`ObjectId::is_kept`].
    pub object: ObjectId,
    /// Bytes.
    pub size: u64,
    /// The root that its manifest must have.
    pub manifest_root: [u8; 32],
}

/// Why a ticket could not be sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The order breaks a rule of its own.
    #[error(transparent)]
    Rule(#[from] RuleBroken),
    /// Too many files for one ticket.
    #[error("the order is too large for one ticket ({0} bytes; at most {SEALED_MAX})")]
    TooLarge(usize),
    /// It could not be encoded.
    #[error("the order could not be encoded")]
    Encoding,
}

/// A rule that every ticket keeps, whoever signed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleBroken {
    /// It ends before it begins, or lives too long.
    #[error("a ticket lives at most {} s", LIFETIME_MAX.as_secs())]
    Lifetime,
    /// A file name that a folder cannot have, or has twice.
    #[error("{0:?} is no usable name for a file of a dataset")]
    FileName(String),
    /// A dataset that is named twice.
    #[error("{0} is named twice")]
    Duplicate(DatasetId),
    /// An object that such an order cannot be about. What people bring is never handed out whole, and a
    /// record of the house is never a file of a dataset.
    #[error("no such order is given about {0}")]
    Object(ObjectId),
}

/// Why an agent does not obey a ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketRefusal {
    /// Too large, of another version, or damaged.
    #[error("the ticket cannot be read")]
    Malformed,
    /// Its certificate does not lead to the CA.
    #[error("the ticket's certificate is refused: {0}")]
    Chain(#[source] ChainRefusal),
    /// Signed by someone whose certificate is good, but not for tickets.
    #[error("{0} may not sign tickets")]
    Signer(SpiffeId),
    /// The signature does not belong to the order.
    #[error("the ticket's signature does not match")]
    Signature,
    /// It breaks a rule that every ticket keeps.
    #[error(transparent)]
    Rule(RuleBroken),
    /// For another agent.
    #[error("the ticket is for {0}")]
    OtherAgent(AgentId),
    /// Signed in the future: the clocks disagree.
    #[error("the ticket was issued at {0}, which has not come yet; check the clocks")]
    NotYet(Timestamp),
    /// Its time is over.
    #[error("the ticket expired at {0}")]
    Expired(Timestamp),
    /// Obeyed before.
    #[error("the ticket cannot be used: {0}")]
    Replayed(#[from] Replayed),
}

/// The gate's key for tickets, with its certificate.
#[derive(Debug, Clone)]
pub struct TicketKey {
    key: KeyPair,
    certificate: CertificateDer<'static>,
}

impl TicketKey {
    /// From a key and the certificate (`ticket/…`) that the CA issued for it.
    pub fn new(key: KeyPair, certificate: CertificateDer<'static>) -> TicketKey {
        TicketKey { key, certificate }
    }

    /// The certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Seals an order.
    pub fn seal(&self, ticket: &Ticket) -> Result<Vec<u8>, SealError> {
        ticket.check()?;
        let order = postcard::to_stdvec(ticket).map_err(|_| SealError::Encoding)?;
        let certificate_len = u16::try_from(self.certificate.len()).map_err(|_| SealError::Encoding)?;
        let order_len = u32::try_from(order.len()).map_err(|_| SealError::TooLarge(order.len()))?;
        let signature = self.key.sign(&[CONTEXT, &order].concat());
        let mut sealed = vec![VERSION];
        sealed.extend_from_slice(&certificate_len.to_le_bytes());
        sealed.extend_from_slice(&self.certificate);
        sealed.extend_from_slice(&order_len.to_le_bytes());
        sealed.extend_from_slice(&order);
        sealed.extend_from_slice(&signature);
        if sealed.len() > SEALED_MAX { Err(SealError::TooLarge(sealed.len())) } else { Ok(sealed) }
    }
}

/// Opens a sealed ticket on the agent `me`. The caller then asks [`SeenTickets`] whether it is the
/// first time.
pub fn open(
    sealed: &[u8],
    ca: &CaCertificate,
    domain: &TrustDomain,
    me: &AgentId,
    now: Timestamp,
) -> Result<Ticket, TicketRefusal> {
    let parts = Parts::parse(sealed).ok_or(TicketRefusal::Malformed)?;
    let certificate = CertificateDer::from(parts.certificate);
    let message = [CONTEXT, parts.order].concat();
    let signer =
        verify_signed(&certificate, ca, domain, now, &message, parts.signature).map_err(|e| match e {
            crate::x509::SignedRefusal::Chain(refusal) => TicketRefusal::Chain(refusal),
            crate::x509::SignedRefusal::Signature => TicketRefusal::Signature,
        })?;
    if !matches!(signer, SpiffeId::Ticket(_)) {
        return Err(TicketRefusal::Signer(signer));
    }
    let ticket = match postcard::take_from_bytes::<Ticket>(parts.order) {
        Ok((ticket, [])) => ticket,
        _ => return Err(TicketRefusal::Malformed),
    };
    ticket.check().map_err(TicketRefusal::Rule)?;
    if ticket.agent != *me {
        Err(TicketRefusal::OtherAgent(ticket.agent))
    } else if ticket.issued > now.plus(SKEW) {
        Err(TicketRefusal::NotYet(ticket.issued))
    } else if now >= ticket.expires {
        Err(TicketRefusal::Expired(ticket.expires))
    } else {
        Ok(ticket)
    }
}

/// Whether `name` can name a file in a folder: 1 to 255 bytes, no `/`, no control characters, not
/// `.` or `..`.
pub fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name != "."
        && name != ".."
        && !name.chars().any(|c| c == '/' || c.is_control())
}

/// The tickets that an agent has obeyed, each until it expires.
#[derive(Debug)]
pub struct SeenTickets(Seen<TicketId>);

impl SeenTickets {
    /// Remembers at most `capacity` at a time; beyond, tickets are refused until some expire.
    pub fn new(capacity: usize) -> SeenTickets {
        SeenTickets(Seen::new(capacity))
    }

    /// Admits an opened ticket once.
    pub fn admit(&mut self, ticket: &Ticket, now: Timestamp) -> Result<(), TicketRefusal> {
        Ok(self.0.admit(&ticket.id, ticket.expires, now)?)
    }
}

impl Ticket {
    fn check(&self) -> Result<(), RuleBroken> {
        if self.expires <= self.issued || self.expires > self.issued.plus(LIFETIME_MAX) {
            return Err(RuleBroken::Lifetime);
        }
        match &self.order {
            Order::Deposit(order) => {
                check_kept(&order.object, false)?;
                check_file_name(&order.name)
            }
            Order::Keep(order) => check_kept(&order.object, true),
            Order::Fetch(order) => check_kept(&order.object, true),
            Order::Workspace(_) => Ok(()),
            Order::Session(order) => {
                let mut datasets = BTreeSet::new();
                for dataset in &order.datasets {
                    if !datasets.insert(&dataset.dataset) {
                        return Err(RuleBroken::Duplicate(dataset.dataset.clone()));
                    }
                    let mut names = BTreeSet::new();
                    for object in &dataset.objects {
                        check_kept(&object.object, false)?;
                        check_file_name(&object.name)?;
                        if !names.insert(object.name.as_str()) {
                            return Err(RuleBroken::FileName(object.name.clone()));
                        }
                    }
                }
                Ok(())
            }
        }
    }
}

fn check_kept(object: &ObjectId, kept: bool) -> Result<(), RuleBroken> {
    if object.is_kept() == kept { Ok(()) } else { Err(RuleBroken::Object(object.clone())) }
}

fn check_file_name(name: &str) -> Result<(), RuleBroken> {
    if is_file_name(name) { Ok(()) } else { Err(RuleBroken::FileName(crate::name::excerpt(name))) }
}

struct Parts<'a> {
    certificate: &'a [u8],
    order: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Parts<'a> {
    fn parse(sealed: &'a [u8]) -> Option<Parts<'a>> {
        if sealed.len() > SEALED_MAX {
            return None;
        }
        let (&version, rest) = sealed.split_first()?;
        let (len, rest) = rest.split_first_chunk()?;
        let (certificate, rest) = rest.split_at_checked(u16::from_le_bytes(*len).into())?;
        let (len, rest) = rest.split_first_chunk()?;
        let (order, signature) = rest.split_at_checked(u32::from_le_bytes(*len).try_into().ok()?)?;
        (version == VERSION).then_some(Parts { certificate, order, signature })
    }
}
