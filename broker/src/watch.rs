//! Detection over the log: its rules and decoys, and what findings bring about at the gate.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use audit::{Event, EventKind, FindingLevel, FindingReaction};
use gate::{Gate, Refusal};
use model::{PersonId, SessionId, StudyId};
use serde::{Deserialize, Deserializer, de};
use siem::detect::{
    Control, Decoy, DecoyKind, Decoys, Finding, Following, Level, Look, Policy, Reaction, Response,
    RuleError, RuleSet, Source, Standing, WatchStatus, follow, keep_rules,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How far detection may be behind before the node's health says so.
const BEHIND: u64 = 10_000;
/// The file that remembers how far detection is.
const CURSOR: &str = "detection.cursor";
/// How long a finding that could not be recorded or answered waits before it is tried again.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What the log is watched for, and what that brings about.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Detection {
    /// Whether the log is watched at all.
    pub enabled: bool,
    /// The folder of the operator's own rules; one that is not there holds none.
    pub rules: PathBuf,
    /// Whether the rules that the house comes with are used too.
    pub builtin: bool,
    /// Threshold which level on a finding ends the person's sessions in the study.
    pub end_session: Threshold,
    /// Threshold which level on a finding locks the person.
    pub lock_person: Threshold,
    /// What certain rules bring about, whatever their level.
    pub response: Vec<Response>,
    /// People whose sessions end where others are locked.
    pub never_lock: Vec<PersonId>,
}

/// Threshold a level on, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threshold(Option<Level>);

impl Default for Detection {
    fn default() -> Self {
        Detection {
            enabled: true,
            rules: PathBuf::from("rules"),
            builtin: true,
            end_session: Threshold(None),
            lock_person: Threshold(Some(Level::Critical)),
            response: Vec::new(),
            never_lock: Vec::new(),
        }
    }
}

impl<'de> Deserialize<'de> for Threshold {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Threshold, D::Error> {
        let word = String::deserialize(from)?;
        if word == "never" {
            return Ok(Threshold(None));
        }
        let level = Level::ALL.into_iter().find(|level| level.code() == word);
        let words = "never, informational, low, medium, high or critical";
        level
            .map(|level| Threshold(Some(level)))
            .ok_or_else(|| de::Error::custom(format!("{word:?} is not {words}")))
    }
}

impl Detection {
    fn policy(&self) -> Policy {
        Policy {
            end_session: self.end_session.0,
            lock_person: self.lock_person.0,
            rules: self.response.clone(),
            never_lock: self.never_lock.iter().map(ToString::to_string).collect(),
        }
    }
}

/// How detection is, for health and metrics.
#[derive(Debug, Clone)]
pub struct Watch {
    enabled: bool,
    status: watch::Sender<WatchStatus>,
    rules: watch::Sender<Arc<RuleSet>>,
    /// Why the folder's rules are not in force.
    refused: watch::Sender<Option<RuleError>>,
    /// Whether it ended by a fault.
    broken: Arc<AtomicBool>,
}

impl Watch {
    /// Detection that has not begun; nothing is watched before [`Watch::run`].
    pub fn new(config: &Detection) -> Watch {
        Watch {
            enabled: config.enabled,
            status: watch::Sender::default(),
            rules: watch::Sender::new(Arc::new(RuleSet::default())),
            refused: watch::Sender::default(),
            broken: Arc::default(),
        }
    }

    /// Whether somebody should look, and what is the matter.
    pub fn trouble(&self) -> Option<&'static str> {
        if !self.enabled {
            None
        } else if self.broken.load(Ordering::Relaxed) {
            Some("the log is not watched")
        } else if self.refused.borrow().is_some() {
            Some("rules were refused")
        } else {
            (self.status.borrow().lag > BEHIND).then_some("behind the log")
        }
    }

    /// Up to where the log is judged; none if nothing is detected. Detection that has not begun yet needs
    /// everything.
    pub fn judged(&self) -> Option<u64> {
        self.enabled.then(|| self.status.borrow().judged.unwrap_or(0))
    }

    /// The figures, and how many rules are in force.
    pub fn figures(&self) -> (WatchStatus, usize) {
        (self.status.borrow().clone(), self.rules.borrow().len())
    }

    /// Carries out what was found and decided before the last process ended, and was broken off by its
    /// end. To be done before anybody is let in.
    pub async fn make_up(gate: &Gate, dir: &Path) -> anyhow::Result<()> {
        let from = siem::detect::judged(gate.log(), &dir.join(CURSOR)).await?;
        gate.make_up(from).await?;
        Ok(())
    }

    /// Watches until the log is closed or the broker stops; the cursor lies in `dir`.
    pub async fn run(self, config: Detection, gate: Gate, dir: PathBuf, stopping: CancellationToken) {
        let source = Source { folder: Some(dir.join(&config.rules)), builtin: config.builtin };
        let origin = config.rules.display().to_string();
        let look = self.load(&gate, &source, &origin).await;
        let (mut stored, decoys) = (gate.decoys_in_force(), watch::Sender::new(Arc::default()));
        decoys.send_replace(Arc::new(known(&stored.borrow_and_update())));
        let following = Following {
            log: gate.log().clone(),
            cursor: dir.join(CURSOR),
            control: Control { rules: self.rules.subscribe(), decoys: decoys.subscribe() },
            status: self.status.clone(),
        };
        let policy = config.policy();
        let watching = follow(following, |finding| answer(&gate, &policy, finding));
        let fresh = keep_rules(source, look, self.rules.clone(), |loaded| self.tell(&gate, &origin, loaded));
        let laying = async {
            while stored.changed().await.is_ok() {
                decoys.send_replace(Arc::new(known(&stored.borrow_and_update())));
            }
            std::future::pending::<()>().await;
        };
        let ended = tokio::select! {
            ended = watching => ended,
            () = fresh => Ok(()),
            () = laying => Ok(()),
            // What ends with the broker is in the log, and is judged after the next start.
            () = stopping.cancelled() => Ok(()),
        };
        if let Err(error) = ended {
            tracing::error!(%error, "the log is not watched");
            self.broken.store(true, Ordering::Relaxed);
        }
    }

    /// The first rules: if the folder's are refused, those that the house comes with. How the folder
    /// looked before.
    async fn load(&self, gate: &Gate, source: &Source, origin: &str) -> Look {
        let own = source.clone();
        let loaded = tokio::task::spawn_blocking(move || (own.look(), own.load())).await;
        let Ok((look, loaded)) = loaded else { return Look::default() };
        if loaded.is_err()
            && let Ok(builtin) = (Source { folder: None, builtin: true }).load()
        {
            self.rules.send_replace(Arc::new(builtin));
        }
        let loaded = loaded.map(Arc::new);
        if let Ok(rules) = &loaded {
            self.rules.send_replace(Arc::clone(rules));
        }
        self.tell(gate, origin, loaded).await;
        look
    }

    async fn tell(&self, gate: &Gate, origin: &str, loaded: Result<Arc<RuleSet>, RuleError>) {
        let kind = match &loaded {
            Ok(rules) => EventKind::RulesLoaded {
                set: rules.hash().to_owned(),
                rules: rules.len() as u64,
                source: origin.to_owned(),
            },
            Err(error) => {
                tracing::error!(%error, "the rules of detection are refused");
                EventKind::RulesRefused {
                    set: self.rules.borrow().hash().to_owned(),
                    file: error.file.clone(),
                    line: error.line.map(|line| line as u64),
                    reason: error.reason.clone(),
                }
            }
        };
        self.refused.send_replace(loaded.err());
        if let Err(refusal) = gate.record(&Event::new(gate.now(), kind)).await {
            tracing::error!(code = %refusal.code, "a change of the rules could not be recorded");
        }
    }
}

fn known(stored: &[store::Decoy]) -> Decoys {
    let kind = |kind| match kind {
        store::DecoyKind::Address => DecoyKind::Address,
        store::DecoyKind::Key => DecoyKind::Key,
        store::DecoyKind::Object => DecoyKind::Object,
    };
    Decoys::new(stored.iter().map(|d| (d.what.clone(), Decoy { id: d.id.to_string(), kind: kind(d.kind) })))
}

/// Records a finding and does what policy says, however long the records or the log take: the
/// detector goes no further before, so that neither a finding nor its lock is left behind. Whatever
/// cannot be recorded is not permitted either; nobody gets in meanwhile.
async fn answer(gate: &Gate, policy: &Policy, finding: Finding) {
    let standing = until_done(&finding.rule, || standing(gate, &finding)).await;
    let reaction = match policy.reaction(&finding, &standing) {
        Reaction::None => FindingReaction::None,
        Reaction::EndSession => FindingReaction::EndSession,
        Reaction::LockPerson => FindingReaction::LockPerson,
    };
    let subject = &finding.subject;
    let event = Event {
        person: subject.person.as_ref().and_then(|id| id.parse::<PersonId>().ok()),
        session: subject.session.as_ref().and_then(|id| id.parse::<SessionId>().ok()),
        study: subject.study.as_ref().and_then(|id| id.parse::<StudyId>().ok()),
        peer: subject.peer.clone(),
        ..Event::new(gate.now(), kind(&finding, reaction))
    };
    let recorded = until_done(&finding.rule, || gate.record_finding(event.clone())).await;
    until_done(&finding.rule, || gate.carry_out(&recorded)).await;
}

/// How it stands with whom a finding is about, now.
async fn standing(gate: &Gate, finding: &Finding) -> Result<Standing, Refusal> {
    let subject = &finding.subject;
    let unknown = Standing { now: gate.now(), session_open: false, let_in_since: false };
    let Some(person) = subject.person.as_ref().and_then(|id| id.parse::<PersonId>().ok()) else {
        return Ok(unknown);
    };
    let session = subject.session.as_ref().and_then(|id| id.parse::<SessionId>().ok());
    let trigger = finding.evidence.last().copied().unwrap_or_default();
    let found = gate.aftermath(&person, session.as_ref(), trigger).await?;
    Ok(Standing { session_open: found.session_open, let_in_since: found.let_in_since, ..unknown })
}

/// Tries until it is done, with pauses that double up to [`PAUSE_MAX`].
async fn until_done<T, F>(rule: &str, attempt: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, Refusal>>,
{
    let mut pause = PAUSE_MIN;
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(refusal) => {
                tracing::error!(code = %refusal.code, rule, "a finding could not be recorded or answered yet");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn kind(finding: &Finding, reaction: FindingReaction) -> EventKind {
    EventKind::Finding {
        rule: finding.rule.clone(),
        name: finding.name.clone(),
        title: finding.title.clone(),
        title_ja: finding.title_ja.clone(),
        level: match finding.level {
            Level::Informational => FindingLevel::Informational,
            Level::Low => FindingLevel::Low,
            Level::Medium => FindingLevel::Medium,
            Level::High => FindingLevel::High,
            Level::Critical => FindingLevel::Critical,
        },
        tags: finding.tags.clone(),
        evidence: finding.evidence.clone(),
        observed: finding.at,
        proven: finding.subject.proven,
        decoy: finding.decoy.clone(),
        repeated: finding.repeated,
        reaction,
    }
}
