//! How sessions of a study are recorded.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What happens when a recording cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordingMode {
    /// Nothing is recorded.
    Off,
    /// The session goes on, and it is recorded that something of it is missing.
    BestEffort,
    /// The session ends.
    Strict,
}

impl RecordingMode {
    /// Its stable name in records and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            RecordingMode::Off => "off",
            RecordingMode::BestEffort => "best-effort",
            RecordingMode::Strict => "strict",
        }
    }
}

impl fmt::Display for RecordingMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No mode has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no mode of recording; the modes are off, best-effort, strict")]
pub struct UnknownMode(pub String);

impl FromStr for RecordingMode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<RecordingMode, UnknownMode> {
        let all = [RecordingMode::Off, RecordingMode::BestEffort, RecordingMode::Strict];
        let known = all.into_iter().find(|mode| mode.name() == text);
        known.ok_or_else(|| UnknownMode(text.chars().take(64).collect()))
    }
}

/// How sessions of one study are recorded. The default is what a study begins with: what is shown on
/// terminals is recorded, or the session ends; what is typed is not, since passwords that are not
/// shown would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordingRule {
    /// Whether, and what happens when it cannot be.
    pub mode: RecordingMode,
    /// Whether what people type is recorded too, also where it is not shown.
    pub input: bool,
    /// Whether commands without a terminal are recorded too.
    pub commands: bool,
    /// How much output of each minute is kept, in MiB; all of it if 0.
    pub limit_mib: u32,
    /// Whether the lead of the study may see recordings of it.
    pub lead: bool,
}

impl Default for RecordingRule {
    fn default() -> RecordingRule {
        RecordingRule {
            mode: RecordingMode::Strict,
            input: false,
            commands: false,
            limit_mib: 16,
            lead: false,
        }
    }
}

impl RecordingRule {
    /// Whether a session of this kind is recorded. Login shells are, with or without a terminal:
    /// leaving the terminal away must not be a way around.
    pub const fn covers(self, terminal: bool, shell: bool, command: bool) -> bool {
        !matches!(self.mode, RecordingMode::Off) && (terminal || shell || (command && self.commands))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_and_terminals_are_covered_and_commands_where_the_rule_says_so() {
        let rule = RecordingRule::default();
        assert!(rule.covers(true, false, true) && rule.covers(false, true, false));
        assert!(!rule.covers(false, false, true) && !rule.covers(false, false, false));
        assert!(RecordingRule { commands: true, ..rule }.covers(false, false, true));
        assert!(!RecordingRule { mode: RecordingMode::Off, ..rule }.covers(true, true, true));
    }

    #[test]
    fn a_rule_comes_back_as_it_went_and_an_empty_one_is_the_default() {
        for name in ["off", "best-effort", "strict"] {
            assert_eq!(name.parse::<RecordingMode>().unwrap().name(), name);
        }
        assert!("on".parse::<RecordingMode>().is_err());
        let rule = RecordingRule { mode: RecordingMode::BestEffort, input: true, ..RecordingRule::default() };
        let text = serde_json::to_string(&rule).unwrap();
        assert!(text.contains("\"best-effort\""), "{text}");
        assert_eq!(serde_json::from_str::<RecordingRule>(&text).unwrap(), rule);
        assert_eq!(serde_json::from_str::<RecordingRule>("{}").unwrap(), RecordingRule::default());
        assert!(serde_json::from_str::<RecordingRule>("{\"secret\":true}").is_err());
    }
}
