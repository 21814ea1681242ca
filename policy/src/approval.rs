//! Acts that take a second officer.
//!
//! Which do is for the operator of a house to choose. An act that does is first asked for, then approved
//! by somebody else who may do it too, and only then done by whoever asked. What is defended here: nobody
//! approves what they asked for themselves. What is not: two officers who agree.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use model::PersonId;

use crate::channel::Channel;
use crate::decide::{Decision, decide};
use crate::denial::Denial;
use crate::recording::{RecordingMode, RecordingRule};
use crate::request::{Action, AdminAction, Facts, Request};
use crate::set::PolicySet;
use crate::supervision::{Joining, SupervisionRule};

/// A kind of act that may take a second officer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Matter {
    /// To let a person in again who was locked out.
    Unlock,
    /// To let files leave the workspaces of a study.
    Export,
    /// To record less of the sessions of a study than before.
    RecordLess,
    /// To let sessions of a study go on without a second person, or others look at them or type in them
    /// with less of their person's knowledge.
    SuperviseLess,
    /// To make somebody an officer, or to hand out the token with which a device becomes an officer's:
    /// without it, one person could make the second one.
    Officers,
}

impl Matter {
    /// Every one of them.
    pub const ALL: [Matter; 5] =
        [Matter::Unlock, Matter::Export, Matter::RecordLess, Matter::SuperviseLess, Matter::Officers];

    /// Its stable name in configuration, records and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Matter::Unlock => "unlock",
            Matter::Export => "export",
            Matter::RecordLess => "record-less",
            Matter::SuperviseLess => "supervise-less",
            Matter::Officers => "officers",
        }
    }

    /// What somebody must be permitted to do to approve it.
    pub const fn action(self) -> Action {
        Action::Administer(match self {
            Matter::Unlock => AdminAction::LockPerson,
            Matter::Export => AdminAction::SetChannels,
            Matter::RecordLess => AdminAction::SetRecording,
            Matter::SuperviseLess => AdminAction::SetSupervision,
            Matter::Officers => AdminAction::EnrolPerson,
        })
    }

    /// Whether to open these channels lets files leave.
    pub fn in_channels(allow: &[Channel]) -> Option<Matter> {
        let leaves = |channel: &Channel| matches!(channel, Channel::Export | Channel::ExportData);
        allow.iter().any(leaves).then_some(Matter::Export)
    }

    /// Whether less is recorded by `now` than by `before`.
    pub fn in_recording(before: RecordingRule, now: RecordingRule) -> Option<Matter> {
        let rank = |mode| match mode {
            RecordingMode::Off => 0,
            RecordingMode::BestEffort => 1,
            RecordingMode::Strict => 2,
        };
        let limit = |mib| if mib == 0 { u32::MAX } else { mib };
        let less = rank(now.mode) < rank(before.mode)
            || (before.input && !now.input)
            || (before.commands && !now.commands)
            || limit(now.limit_mib) < limit(before.limit_mib);
        less.then_some(Matter::RecordLess)
    }

    /// Whether `now` leaves a person less protected than `before`.
    pub fn in_supervision(before: SupervisionRule, now: SupervisionRule) -> Option<Matter> {
        let rank = |joining| match joining {
            Joining::Never => 0,
            Joining::Consent => 1,
            Joining::Always => 2,
        };
        let less = (before.moderated && !now.moderated)
            || (before.told && !now.told)
            || rank(now.joining) > rank(before.joining);
        less.then_some(Matter::SuperviseLess)
    }
}

impl fmt::Display for Matter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Nothing that may take a second officer has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no matter for a second officer; those are unlock, export, record-less, supervise-less, officers"
)]
pub struct UnknownMatter(pub String);

impl FromStr for Matter {
    type Err = UnknownMatter;

    fn from_str(text: &str) -> Result<Matter, UnknownMatter> {
        let known = Matter::ALL.into_iter().find(|matter| matter.name() == text);
        known.ok_or_else(|| UnknownMatter(text.chars().take(64).collect()))
    }
}

/// Which acts take a second officer in this house.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApprovalRules(BTreeSet<Matter>);

impl ApprovalRules {
    /// These do. Whoever chooses any chooses [`Matter::Officers`] too.
    pub fn of(matters: impl IntoIterator<Item = Matter>) -> ApprovalRules {
        let mut chosen: BTreeSet<Matter> = matters.into_iter().collect();
        if !chosen.is_empty() {
            chosen.insert(Matter::Officers);
        }
        ApprovalRules(chosen)
    }

    /// Whether this does.
    pub fn takes_second(&self, matter: Matter) -> bool {
        self.0.contains(&matter)
    }

    /// Those that do, in order.
    pub fn matters(&self) -> impl Iterator<Item = Matter> {
        self.0.iter().copied()
    }
}

/// Decides whether somebody may approve what `asked_by` asked for: somebody else, who may do it too.
/// `request` is the approver's, for the [`Matter::action`].
pub fn decide_approval(request: &Request, asked_by: &PersonId, set: &PolicySet, facts: &Facts) -> Decision {
    match decide(request, set, facts) {
        Decision::Permit(_) if request.person == *asked_by => Decision::Deny(Denial::OwnRequest),
        decision => decision,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Standing;
    use model::{RoleId, Timestamp};

    #[test]
    fn what_is_less_is_told_from_what_is_more() {
        let rule = RecordingRule::default();
        let less = Some(Matter::RecordLess);
        for (now, matter) in [
            (rule, None),
            (RecordingRule { mode: RecordingMode::Off, ..rule }, less),
            (RecordingRule { mode: RecordingMode::BestEffort, ..rule }, less),
            (RecordingRule { limit_mib: 15, ..rule }, less),
            (RecordingRule { limit_mib: 0, ..rule }, None),
            (RecordingRule { input: true, commands: true, lead: true, limit_mib: 99, ..rule }, None),
        ] {
            assert_eq!(Matter::in_recording(rule, now), matter, "{now:?}");
        }
        let more = RecordingRule { input: true, commands: true, limit_mib: 0, ..rule };
        for now in [
            RecordingRule { input: false, ..more },
            RecordingRule { commands: false, ..more },
            RecordingRule { limit_mib: u32::MAX - 1, ..more },
        ] {
            assert_eq!(Matter::in_recording(more, now), less, "{now:?}");
        }
        let rule = SupervisionRule { moderated: true, ..SupervisionRule::default() };
        let less = Some(Matter::SuperviseLess);
        for (now, matter) in [
            (rule, None),
            (SupervisionRule { moderated: false, ..rule }, less),
            (SupervisionRule { told: false, ..rule }, less),
            (SupervisionRule { joining: Joining::Always, ..rule }, less),
            (SupervisionRule { joining: Joining::Never, ..rule }, None),
        ] {
            assert_eq!(Matter::in_supervision(rule, now), matter, "{now:?}");
        }
        assert_eq!(Matter::in_channels(&[Channel::Shell, Channel::Upload]), None);
        assert_eq!(Matter::in_channels(&[Channel::Shell, Channel::ExportData]), Some(Matter::Export));
    }

    #[test]
    fn officers_come_with_any_other() {
        for matter in Matter::ALL {
            assert_eq!(matter.name().parse(), Ok(matter));
            let rules = ApprovalRules::of([matter]);
            assert!(rules.takes_second(matter) && rules.takes_second(Matter::Officers));
        }
        assert!("everything".parse::<Matter>().is_err());
        assert_eq!(ApprovalRules::of([]).matters().count(), 0);
    }

    #[test]
    fn somebody_else_approves_who_may_do_it_too() {
        let set = PolicySet::build(1, &[], &[]).unwrap();
        let request = |name: &str, matter: Matter| Request {
            person: PersonId::from_name(name).unwrap(),
            study: None,
            dataset: None,
            action: matter.action(),
            purpose: None,
            now: Timestamp::from_secs(1),
        };
        let facts = |role: &str| Facts {
            person: Standing::Active,
            programme_roles: vec![RoleId::from_name(role).unwrap()],
            ..Facts::default()
        };
        let alice = PersonId::from_name("alice").unwrap();
        let decide =
            |name, matter, facts: &Facts| decide_approval(&request(name, matter), &alice, &set, facts);
        let security = facts("security");
        assert!(matches!(decide("bob", Matter::Unlock, &security), Decision::Permit(_)));
        assert_eq!(decide("alice", Matter::Unlock, &security), Decision::Deny(Denial::OwnRequest));
        let refused = |decision| matches!(decision, Decision::Deny(Denial::RoleMissing { .. }));
        assert!(refused(decide("bob", Matter::Unlock, &facts("steward"))));
        assert!(refused(decide("bob", Matter::Officers, &security)));
        let locked = Facts { person: Standing::Locked, ..security };
        assert_eq!(decide("bob", Matter::Unlock, &locked), Decision::Deny(Denial::PersonLocked));
    }
}
