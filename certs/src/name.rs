use std::fmt;
use std::str::FromStr;

use model::{AgentId, PersonId};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is not a trust domain, a SPIFFE name or a host name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not the shape of a DNS name in lower case.
    #[error("{0:?} is not a domain name in lower case, like sekisho.example")]
    Domain(String),
    /// Not `spiffe://<trust domain>/<kind>/<name>`.
    #[error("{0:?} is not a SPIFFE name of this system")]
    Spiffe(String),
    /// A SPIFFE name, but of another trust domain.
    #[error("{found:?} belongs to another trust domain than {expected:?}")]
    ForeignDomain {
        /// The name that was met.
        found: String,
        /// The trust domain that was expected.
        expected: String,
    },
}

/// Shortens a foreign text for an error message.
pub(crate) fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Whether `text` is a host name of lower-case letters, digits and inner hyphens (RFC 1123).
pub(crate) fn is_host_name(text: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// The name under which one installation issues all its certificates, such as `sekisho.example`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// The domain's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = NameError;

    fn from_str(text: &str) -> Result<TrustDomain, NameError> {
        if is_host_name(text) {
            Ok(TrustDomain(text.to_owned()))
        } else {
            Err(NameError::Domain(excerpt(text)))
        }
    }
}

impl Serialize for TrustDomain {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TrustDomain {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<TrustDomain, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// Who an X.509 certificate speaks for, within a trust domain.
///
/// It prints, parses and serialises as its path, `agent/hall-1`; [`SpiffeId::uri`] and
/// [`SpiffeId::parse_uri`] give and take the whole URI, `spiffe://sekisho.example/agent/hall-1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpiffeId {
    /// A broker.
    Broker(String),
    /// A process that runs workspaces.
    Agent(AgentId),
    /// The client of the collectors of security events.
    Siem(String),
    /// A person's device.
    Person(PersonId),
    /// The key that signs tickets.
    Ticket(String),
    /// A service beside the system, such as a collector.
    Service(String),
}

impl SpiffeId {
    /// The whole URI.
    pub fn uri(&self, domain: &TrustDomain) -> String {
        format!("spiffe://{domain}/{self}")
    }

    /// Reads a whole URI, which must belong to `domain`.
    pub fn parse_uri(uri: &str, domain: &TrustDomain) -> Result<SpiffeId, NameError> {
        let rest = uri.strip_prefix("spiffe://").ok_or_else(|| NameError::Spiffe(excerpt(uri)))?;
        let (found, path) = rest.split_once('/').ok_or_else(|| NameError::Spiffe(excerpt(uri)))?;
        if found != domain.as_str() {
            return Err(NameError::ForeignDomain {
                found: excerpt(uri),
                expected: domain.as_str().to_owned(),
            });
        }
        path.parse().map_err(|_| NameError::Spiffe(excerpt(uri)))
    }

    /// Whether this speaks for a human being rather than for a process.
    pub fn is_person(&self) -> bool {
        matches!(self, SpiffeId::Person(_))
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpiffeId::Broker(name) => write!(f, "broker/{name}"),
            SpiffeId::Agent(id) => write!(f, "agent/{}", id.name()),
            SpiffeId::Siem(name) => write!(f, "siem/{name}"),
            SpiffeId::Person(id) => write!(f, "person/{}", id.name()),
            SpiffeId::Ticket(name) => write!(f, "ticket/{name}"),
            SpiffeId::Service(name) => write!(f, "service/{name}"),
        }
    }
}

impl FromStr for SpiffeId {
    type Err = NameError;

    fn from_str(path: &str) -> Result<SpiffeId, NameError> {
        let refuse = || NameError::Spiffe(excerpt(path));
        let (kind, name) = path.split_once('/').ok_or_else(refuse)?;
        // Every kind of name follows the grammar of identifiers.
        let agent = AgentId::from_name(name).map_err(|_| refuse())?;
        let owned = || name.to_owned();
        match kind {
            "broker" => Ok(SpiffeId::Broker(owned())),
            "agent" => Ok(SpiffeId::Agent(agent)),
            "siem" => Ok(SpiffeId::Siem(owned())),
            "person" => PersonId::from_name(name).map(SpiffeId::Person).map_err(|_| refuse()),
            "ticket" => Ok(SpiffeId::Ticket(owned())),
            "service" => Ok(SpiffeId::Service(owned())),
            _ => Err(refuse()),
        }
    }
}

impl Serialize for SpiffeId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SpiffeId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<SpiffeId, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn domain() -> TrustDomain {
        "sekisho.test".parse().unwrap()
    }

    #[test]
    fn every_kind_survives_the_round_trip() {
        for path in
            ["broker/main", "agent/hall-1", "siem/main", "person/alice", "ticket/main", "service/siem.a"]
        {
            let id: SpiffeId = path.parse().unwrap();
            assert_eq!(id.to_string(), path);
            assert_eq!(SpiffeId::parse_uri(&id.uri(&domain()), &domain()), Ok(id));
        }
    }

    #[test]
    fn foreign_and_misshapen_names_are_refused() {
        for bad in [
            "spiffe://other.test/agent/a",
            "spiffe://sekisho.test.evil/agent/a",
            "spiffe://sekisho.test/agent/a/b",
            "spiffe://sekisho.test/agent/",
            "spiffe://sekisho.test/root/a",
            "spiffe://sekisho.test/agent/..",
            "spiffe://sekisho.test//agent/a",
            "SPIFFE://sekisho.test/agent/a",
            "https://sekisho.test/agent/a",
            "spiffe://sekisho.test/agent/a?x=1",
            "spiffe://sekisho.test",
        ] {
            assert!(SpiffeId::parse_uri(bad, &domain()).is_err(), "{bad}");
        }
        for bad in ["", ".", "a..b", "-a", "a-", "A.b", "a_b", "a b", &"x".repeat(64), "a."] {
            assert!(bad.parse::<TrustDomain>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in ".{0,120}") {
            if let Ok(id) = SpiffeId::parse_uri(&text, &domain()) {
                prop_assert_eq!(id.uri(&domain()), text);
            }
        }
    }
}
