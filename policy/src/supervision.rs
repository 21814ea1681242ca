//! How sessions of a study are supervised while they go on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Who may type in somebody else's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Joining {
    /// Nobody.
    Never,
    /// Whom the person lets, at their terminal.
    Consent,
    /// Whoever may join at all; the person is told.
    Always,
}

impl Joining {
    /// Its stable name in records and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Joining::Never => "never",
            Joining::Consent => "consent",
            Joining::Always => "always",
        }
    }
}

impl fmt::Display for Joining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no such rule about joining.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no rule about joining; the rules are never, consent, always")]
pub struct UnknownJoining(pub String);

impl FromStr for Joining {
    type Err = UnknownJoining;

    fn from_str(text: &str) -> Result<Joining, UnknownJoining> {
        let all = [Joining::Never, Joining::Consent, Joining::Always];
        let known = all.into_iter().find(|joining| joining.name() == text);
        known.ok_or_else(|| UnknownJoining(text.chars().take(64).collect()))
    }
}

/// How sessions of one study are supervised. The default is what a study begins with: who is watched
/// is told, nobody types in another's session without their yes, and nobody needs company.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SupervisionRule {
    /// Whether a person is told, on their terminal, that they are watched and by whom.
    pub told: bool,
    /// Who may type in somebody else's session.
    pub joining: Joining,
    /// Whether sessions start only when a second person is there who may watch, and end when they
    /// leave.
    pub moderated: bool,
}

impl Default for SupervisionRule {
    fn default() -> SupervisionRule {
        SupervisionRule { told: true, joining: Joining::Consent, moderated: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_comes_back_as_it_went_and_an_empty_one_is_the_default() {
        for name in ["never", "consent", "always"] {
            assert_eq!(name.parse::<Joining>().unwrap().name(), name);
        }
        assert!("sometimes".parse::<Joining>().is_err());
        let rule = SupervisionRule { moderated: true, joining: Joining::Never, ..SupervisionRule::default() };
        let text = serde_json::to_string(&rule).unwrap();
        assert_eq!(serde_json::from_str::<SupervisionRule>(&text).unwrap(), rule);
        assert_eq!(serde_json::from_str::<SupervisionRule>("{}").unwrap(), SupervisionRule::default());
        assert!(serde_json::from_str::<SupervisionRule>("{\"secret\":true}").is_err());
    }
}
