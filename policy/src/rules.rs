use std::fmt;
use std::str::FromStr;

use crate::channel::Channel;
use crate::limits::Limit;
use model::{DatasetId, GrantId, IdError, PersonId, RoleId, StudyId, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A person's role in a study.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Membership {
    /// Who.
    pub person: PersonId,
    /// In which study.
    pub study: StudyId,
    /// As what.
    pub role: RoleId,
}

/// The permission of a study (all who have a role in it, or one person of it) to use a dataset for
/// a time. Revoked grants are not rules: they are left out of a policy set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GrantRule {
    /// Which grant.
    pub grant: GrantId,
    /// Who in the study may use it.
    pub grantee: Grantee,
    /// The study.
    pub study: StudyId,
    /// The dataset.
    pub dataset: DatasetId,
    /// The first instant at which it holds.
    pub not_before: Timestamp,
    /// The first instant at which it no longer holds.
    pub not_after: Timestamp,
}

/// To whom something is granted within a study. Prints and parses as the prefixed identifier.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grantee {
    /// One person, while they are a member.
    Person(PersonId),
    /// Every member with this role.
    Role(RoleId),
}

/// Why a text names no grantee.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a grantee is a person (u:…) or a role (role:…)")]
pub struct GranteeError {
    /// What was wrong with the identifier.
    #[from]
    source: IdError,
}

impl Grantee {
    /// The prefixed identifier.
    pub fn as_str(&self) -> &str {
        match self {
            Grantee::Person(person) => person.as_str(),
            Grantee::Role(role) => role.as_str(),
        }
    }
}

impl fmt::Display for Grantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Grantee {
    type Err = GranteeError;

    fn from_str(text: &str) -> Result<Self, GranteeError> {
        if text.starts_with(RoleId::PREFIX) {
            Ok(Grantee::Role(text.parse()?))
        } else {
            Ok(Grantee::Person(text.parse()?))
        }
    }
}

impl Serialize for Grantee {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Grantee {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// The name of a rule that took part in a decision, for the audit log: `grant:…` for a grant,
/// `study/role:researcher/open-session` and `programme/role:steward/create-study` for a row of the
/// authorisation matrix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RuleId(String);

impl RuleId {
    pub(crate) fn of_grant(grant: &GrantId) -> RuleId {
        RuleId(grant.as_str().to_owned())
    }

    pub(crate) fn of_matrix(scope: &str, role: &RoleId, action: &str) -> RuleId {
        RuleId(format!("{scope}/{role}/{action}"))
    }

    pub(crate) fn of_channel(study: &StudyId, channel: Channel, allowed: bool) -> RuleId {
        RuleId(format!("{study}/channel/{channel}/{}", if allowed { "allow" } else { "refuse" }))
    }

    pub(crate) fn of_certificate(channel: Channel) -> RuleId {
        RuleId(format!("certificate/channel/{channel}/refuse"))
    }

    pub(crate) fn of_limit(study: &StudyId, limit: Limit) -> RuleId {
        RuleId(format!("{study}/limits/{limit}"))
    }

    pub(crate) fn of_gate(channel: Channel) -> RuleId {
        RuleId(format!("gate/channel/{channel}/refuse"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
