//! What a person may do: `decide(&Request, &PolicySet, &Facts) -> Decision`, pure and synchronous.
//!
//! Three things meet in a decision. *Facts* are gathered by the gate for one request (is the person
//! active, is the study open, under which conditions does the dataset stand). *Rules* are compiled
//! ahead of time into an immutable [`PolicySet`]: memberships and grants, evaluated by one Casbin
//! enforcer per study. *Conditions of data use* ([`duo`]) follow the GA4GH Data Use Ontology, and a
//! condition that a machine cannot decide becomes [`Decision::Manual`], never a permit.
//!
//! What is defended here: an identifier of one kind is never taken for one of another kind (every
//! identifier carries a prefix, and the types keep them apart); an empty policy permits nothing;
//! a failing evaluation denies; and Casbin's answer is believed only if our own walk over the same
//! rules names the rules that matched. What is not defended here: facts that the gate gathered
//! wrongly, and a policy set older than the records (the gate compares [`PolicySet::epoch`]).

mod approval;
mod authorisation;
mod channel;
pub mod command;
mod decide;
mod denial;
pub mod disease;
pub mod duo;
mod engine;
mod limits;
mod quota;
mod recording;
mod request;
mod rules;
mod set;
mod supervision;

pub use approval::{ApprovalRules, Matter, UnknownMatter, decide_approval};
pub use authorisation::{MatrixRow, authorisation_matrix};
pub use channel::{CertificateRules, Channel, ChannelRules, UnknownChannel};
pub use decide::{Basis, Decision, Obligation, decide};
pub use denial::Denial;
pub use limits::{Limit, LimitOutOfRange, StudyLimits};
pub use quota::Usage;
pub use recording::{RecordingMode, RecordingRule, UnknownMode};
pub use request::{Action, AdminAction, Facts, Request, Standing, StudyFacts};
pub use rules::{GrantRule, Grantee, GranteeError, Membership, RuleId};
pub use set::{PolicyError, PolicySet};
pub use supervision::{Joining, SupervisionRule, UnknownJoining};
