//! Detection: Sigma rules over every event of the log, in the order of the log.
//!
//! The detector reads events in the very form in which collectors get them, so that a rule can be
//! tried on an exported log, here and elsewhere. Single events are judged by `rsigma-eval`; counting
//! over time ([`correlate`]) is ours, because what it remembers must be bounded whatever people do.
//! It follows the log at a distance, as the sinks do, and never holds up a door.
//!
//! What a finding may bring about is decided by [`Policy`]. Only events that prove who acted
//! ([`Subject::proven`]) can end a session or lock a person: nobody is locked by what somebody else
//! said about them at a door.
//!
//! It does not defend against whoever controls the agent of a workspace, who can leave out what it
//! sees; nor against what looks like honest work.

mod builtin;
mod correlate;
mod decoys;
mod detector;
mod fields;
mod folder;
mod follow;
mod parse;
mod policy;
mod rules;
mod set;
mod view;

use model::Timestamp;
use serde::{Deserialize, Serialize};

pub use builtin::BUILTIN;
pub use decoys::{Decoy, DecoyKind, Decoys};
pub use detector::Detector;
pub use folder::{Look, Source, read_folder};
pub use follow::{Control, Following, WatchStatus, follow, judged, keep_rules};
pub use policy::{Policy, Reaction, Response, Standing};
pub use rules::{RuleError, RuleInfo, RuleSet, Text};

/// How bad it is, in Sigma's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Worth knowing.
    Informational,
    /// Worth a look some day.
    Low,
    /// Worth a look today.
    Medium,
    /// Somebody should look now.
    High,
    /// Something is wrong for certain.
    Critical,
}

impl Level {
    /// Every level, the mildest first.
    pub const ALL: [Level; 5] =
        [Level::Informational, Level::Low, Level::Medium, Level::High, Level::Critical];

    /// The stable word that stands for it.
    pub const fn code(self) -> &'static str {
        match self {
            Level::Informational => "informational",
            Level::Low => "low",
            Level::Medium => "medium",
            Level::High => "high",
            Level::Critical => "critical",
        }
    }
}

/// Whom the events behind a finding are about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// The person, `u:…`, where all the events name the same.
    pub person: Option<String>,
    /// The session, `sess:…`, of the last event.
    pub session: Option<String>,
    /// The study, `study:…`, of the last event.
    pub study: Option<String>,
    /// Where the last event came from, as far as it says.
    pub peer: Option<String>,
    /// Whether every one of the events is of a kind that is only recorded once the person has proved
    /// who they are. False where a stranger could have caused one by naming them.
    pub proven: bool,
}

/// A rule that fits.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The rule's id.
    pub rule: String,
    /// Its name, by which people call it.
    pub name: Option<String>,
    /// Its title.
    pub title: String,
    /// Its title in Japanese.
    pub title_ja: Option<String>,
    /// Its level.
    pub level: Level,
    /// Its tags, ATT&CK's among them.
    pub tags: Vec<String>,
    /// Indices in the log of the events behind it, oldest first; the last is the one that made it fit.
    pub evidence: Vec<u64>,
    /// When the last of them happened.
    pub at: Timestamp,
    /// Whom it is about.
    pub subject: Subject,
    /// The decoy that was touched, by its identifier.
    pub decoy: Option<String>,
    /// How often the same rule fitted the same subject before without being told again.
    pub repeated: u64,
}
