use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Entropy, EntropyError};

/// The most characters a name may have, after its prefix.
const NAME_MAX: usize = 63;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The prefix that tells kinds of identifier apart is missing or another one.
    #[error("an identifier of this kind begins with {expected:?}")]
    Prefix {
        /// What it should begin with.
        expected: &'static str,
    },
    /// Nothing follows the prefix, or too much.
    #[error("a name has 1 to {NAME_MAX} characters")]
    Length,
    /// A character that names do not have.
    #[error("a name has lower-case letters, digits, and '-', '_' or '.' between them")]
    Character,
}

fn check(name: &str) -> Result<(), IdError> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(IdError::Length);
    }
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = name.as_bytes();
    let inside = bytes.iter().all(|&c| plain(c) || matches!(c, b'-' | b'_' | b'.'));
    // A name that begins or ends with a mark could be taken for an option or a path.
    if inside && plain(bytes[0]) && plain(bytes[bytes.len() - 1]) && !name.contains("..") {
        Ok(())
    } else {
        Err(IdError::Character)
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// It prints, parses and serialises with its prefix; the name behind it is lower-case,
        /// safe as a path segment, as a host label and on a command line.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// What every identifier of this kind begins with.
            pub const PREFIX: &'static str = $prefix;

            /// From the bare name, without the prefix.
            pub fn from_name(name: &str) -> Result<Self, IdError> {
                check(name)?;
                Ok(Self(format!("{}{name}", Self::PREFIX)))
            }

            /// A fresh one from 128 random bits.
            pub fn random(entropy: &(impl Entropy + ?Sized)) -> Result<Self, EntropyError> {
                let mut bytes = [0; 16];
                entropy.fill(&mut bytes)?;
                let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
                Ok(Self(format!("{}{hex}", Self::PREFIX)))
            }

            /// The bare name, without the prefix.
            pub fn name(&self) -> &str {
                &self.0[Self::PREFIX.len()..]
            }

            /// The whole identifier, with its prefix.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let name = text.strip_prefix(Self::PREFIX).ok_or(IdError::Prefix { expected: Self::PREFIX })?;
                Self::from_name(name)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// A natural person.
    PersonId = "u:";
    /// A role that a person has in a study or in the programme.
    RoleId = "role:";
    /// An approved research project.
    StudyId = "study:";
    /// A set of objects under the same data-use conditions.
    DatasetId = "ds:";
    /// A stored file.
    ObjectId = "obj:";
    /// The permission of a study to use a dataset until a date.
    GrantId = "grant:";
    /// An isolated place of work.
    WorkspaceId = "ws:";
    /// One stay of one person in a workspace.
    SessionId = "sess:";
    /// A process that runs workspaces.
    AgentId = "agent:";
    /// One of the places where shares lie.
    BackendId = "backend:";
    /// A thing laid out to be touched by whoever should not.
    DecoyId = "decoy:";
    /// A request for something that takes a second officer.
    ApprovalId = "appr:";
    /// A signed, short-lived order from the gate to an agent.
    TicketId = "tick:";
}

/// What the name of an object that is one of the house's own records begins with.
const KEPT: &str = "kept-";

impl ObjectId {
    /// A fresh one for a record of the house itself, such as a part of the audit log.
    ///
    /// An agent hands out nothing but such objects in the clear, and takes none but these in for it:
    /// the name is bound into every share, so that no genome can ever pass for one.
    pub fn random_kept(entropy: &(impl Entropy + ?Sized)) -> Result<Self, EntropyError> {
        let plain = Self::random(entropy)?;
        Ok(Self(format!("{}{KEPT}{}", Self::PREFIX, plain.name())))
    }

    /// Whether it is a record of the house itself.
    pub fn is_kept(&self) -> bool {
        self.name().starts_with(KEPT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededEntropy;

    #[test]
    fn prefix_and_name_survive_the_round_trip() {
        let id: StudyId = "study:brca-2026".parse().unwrap();
        assert_eq!((id.name(), id.as_str()), ("brca-2026", "study:brca-2026"));
        assert_eq!(StudyId::from_name("brca-2026").unwrap(), id);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<StudyId>(&json).unwrap(), id);
    }

    #[test]
    fn another_kind_is_not_taken_for_this_one() {
        assert_eq!("role:admin".parse::<PersonId>(), Err(IdError::Prefix { expected: "u:" }));
        assert!(serde_json::from_str::<PersonId>("\"alice\"").is_err());
    }

    #[test]
    fn names_that_could_mislead_are_refused() {
        for bad in ["", "-x", "x-", ".", "a..b", "A", "a/b", "a b", "a\0b", "a:b", "名", &"x".repeat(64)] {
            assert!(PersonId::from_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn records_of_the_house_are_told_from_what_was_deposited() {
        let entropy = SeededEntropy::new(1);
        let (kept, other) = (ObjectId::random_kept(&entropy).unwrap(), ObjectId::random(&entropy).unwrap());
        assert!(kept.is_kept() && !other.is_kept());
        assert_eq!(kept.as_str().parse::<ObjectId>().as_ref(), Ok(&kept));
    }

    #[test]
    fn random_ids_are_valid_and_differ() {
        let entropy = SeededEntropy::new(1);
        let (a, b) = (SessionId::random(&entropy).unwrap(), SessionId::random(&entropy).unwrap());
        assert_ne!(a, b);
        assert_eq!(a.as_str().parse::<SessionId>().as_ref(), Ok(&a));
    }
}
