//! The detector behind the log: it follows as the sinks do, in order, with a durable cursor.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit::Log;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::decoys::Decoys;
use super::detector::Detector;
use super::folder::{Look, Source};
use super::rules::{RuleError, RuleSet};
use super::{Finding, Level};
use crate::SinkError;
use crate::cursor::Cursor;
use crate::feed::{SAVE_EVERY, blocking};

/// Events that are judged in one go.
const BATCH: usize = 256;
/// Events before the cursor that are looked at again after a start, so that correlations remember.
const WARM_MAX: u64 = 20_000;
/// Events behind the cursor that are searched for findings told before the start.
const TOLD_MAX: u64 = 100_000;
/// How often the folder of rules is looked at. A change is taken up when it looks the same twice,
/// so that no half-written file is read.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What may change while the detector runs.
#[derive(Debug, Clone)]
pub struct Control {
    /// The rules.
    pub rules: watch::Receiver<Arc<RuleSet>>,
    /// The decoys.
    pub decoys: watch::Receiver<Arc<Decoys>>,
}

/// How the detector is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchStatus {
    /// Events from the start of the log that are judged, and that it needs no more; none before it has
    /// begun.
    pub judged: Option<u64>,
    /// Events judged since the start.
    pub evaluated: u64,
    /// Time that took, in microseconds.
    pub micros: u64,
    /// Events in the log that are not judged yet.
    pub lag: u64,
    /// Findings since the start, the mildest level first.
    pub findings: [u64; Level::ALL.len()],
    /// Findings that were not told, since the same had been told or strangers caused too many.
    pub unsaid: u64,
}

/// What the detector follows, and how it is told about.
pub struct Following {
    /// The log.
    pub log: Log,
    /// The file that remembers how far it is. Without one it begins at the end of the log: what
    /// happened before it was there is not acted upon.
    pub cursor: PathBuf,
    /// Rules and decoys.
    pub control: Control,
    /// Where it says how it is.
    pub status: watch::Sender<WatchStatus>,
}

/// Judges every event of the log and hands each finding to `report`, one after the other, until the
/// log is closed. The cursor does not pass an event before `report` is done with what was found in it. A finding that stands in the log from before a crash is not handed over again.
pub async fn follow<F>(following: Following, mut report: impl FnMut(Finding) -> F) -> Result<(), SinkError>
where
    F: Future<Output = ()>,
{
    let Following { log, cursor, mut control, status } = following;
    let (cursor, mut next) = open(&log, cursor).await?;
    let detector =
        Detector::new(control.rules.borrow_and_update().clone(), control.decoys.borrow_and_update().clone());
    let (mut detector, told) = warm(&log, detector, next).await?;
    status.send_modify(|status| status.judged = Some(next));
    let mut saving: Option<JoinHandle<Result<(), SinkError>>> = None;
    let mut saved = (next, tokio::time::Instant::now());
    loop {
        let due = saved.0 != next && saving.as_ref().is_none_or(JoinHandle::is_finished);
        tokio::select! {
            biased;
            size = log.wait_beyond(next) => if size <= next {
                blocking(move || cursor.save(next)).await?;
                return Ok(());
            },
            () = tokio::time::sleep_until(saved.1 + SAVE_EVERY), if due => {}
        }
        if control.rules.has_changed().unwrap_or(false) {
            detector.replace_rules(control.rules.borrow_and_update().clone());
        }
        if control.decoys.has_changed().unwrap_or(false) {
            detector.replace_decoys(control.decoys.borrow_and_update().clone());
        }
        if log.durable_size() > next {
            let (after, judged) = judge(&log, detector, next).await?;
            detector = after;
            for finding in judged.findings {
                let trigger = finding.evidence.last().copied().unwrap_or_default();
                if !told.contains(&(finding.rule.clone(), trigger)) {
                    status.send_modify(|status| status.findings[finding.level as usize] += 1);
                    report(finding).await;
                }
            }
            next = judged.next;
            status.send_modify(|status| {
                status.judged = Some(next);
                status.evaluated += judged.count;
                status.micros += judged.micros;
                status.lag = log.durable_size().saturating_sub(next);
                status.unsaid = detector.unsaid();
            });
        }
        if saved.0 != next
            && saved.1.elapsed() >= SAVE_EVERY
            && saving.as_ref().is_none_or(JoinHandle::is_finished)
        {
            if let Some(ended) = saving.take() {
                // A task that was broken off says that the runtime is going down.
                ended.await.unwrap_or(Ok(()))?;
            }
            let cursor = cursor.clone();
            saving = Some(tokio::task::spawn_blocking(move || cursor.save(next)));
            saved = (next, tokio::time::Instant::now());
        }
    }
}

/// How far a detector with this cursor is known to have been: what it found in the events before was
/// handed over and answered. The end of the log, if it has not begun.
pub async fn judged(log: &Log, cursor: &Path) -> Result<u64, SinkError> {
    open(log, cursor.to_owned()).await.map(|(_, judged)| judged)
}

/// Takes up the rules of `source` whenever its folder changes, and hands over what came of it: the
/// set that is in force now, or why the old one stays. `taken` is how the folder looked before the
/// present rules were read. Never ends.
pub async fn keep_rules<F>(
    source: Source,
    mut taken: Look,
    rules: watch::Sender<Arc<RuleSet>>,
    mut tell: impl FnMut(Result<Arc<RuleSet>, RuleError>) -> F,
) where
    F: Future<Output = ()>,
{
    let look = |source: &Source| {
        let source = source.clone();
        async move { tokio::task::spawn_blocking(move || source.look()).await.unwrap_or_default() }
    };
    let mut before = taken.clone();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = look(&source).await;
        if now == before && now != taken {
            taken = now.clone();
            let own = source.clone();
            let Ok(loaded) = tokio::task::spawn_blocking(move || own.load()).await else { return };
            let loaded = loaded.map(Arc::new);
            if let Ok(set) = &loaded {
                rules.send_replace(Arc::clone(set));
            }
            tell(loaded).await;
        }
        before = now;
    }
}

async fn open(log: &Log, path: PathBuf) -> Result<(Cursor, u64), SinkError> {
    let (origin, size, local_from) = (log.origin().to_owned(), log.durable_size(), log.local_from()?);
    blocking(move || {
        let fresh = !path.exists();
        let (cursor, judged) = Cursor::open(&path, &origin)?;
        if judged > size {
            return Err(SinkError::LogSetBack { delivered: judged, size });
        }
        if fresh {
            cursor.save(size)?;
            return Ok((cursor, size));
        }
        // What was moved to the vault while nothing was judged is not judged any more.
        Ok((cursor, judged.max(local_from)))
    })
    .await
}

/// Lets the detector see what it saw before the start, without telling of it again, and finds what
/// was told of the events that it is yet to judge.
async fn warm(
    log: &Log,
    mut detector: Detector,
    next: u64,
) -> Result<(Detector, HashSet<(String, u64)>), SinkError> {
    let log = log.clone();
    blocking(move || {
        let mut told = HashSet::new();
        let end = log.durable_size().min(next.saturating_add(TOLD_MAX));
        let mut at = next.saturating_sub(WARM_MAX).max(log.local_from()?);
        while at < end {
            let entries = log.read(at, BATCH)?;
            let Some((last, _)) = entries.last() else { break };
            at = last + 1;
            for (index, entry) in &entries {
                let Some(event) = audit::export(log.origin(), *index, entry) else { continue };
                if *index < next {
                    detector.observe(*index, &event);
                } else if let Some(finding) = told_of(&event) {
                    told.insert(finding);
                }
            }
        }
        Ok((detector, told))
    })
    .await
}

fn told_of(event: &Value) -> Option<(String, u64)> {
    if event.pointer("/metadata/event_code")? != "finding" {
        return None;
    }
    let said = event.get("unmapped")?;
    let trigger = said.get("evidence")?.as_array()?.last()?.as_u64()?;
    Some((said.get("rule")?.as_str()?.to_owned(), trigger))
}

struct Judged {
    next: u64,
    count: u64,
    micros: u64,
    findings: Vec<Finding>,
}

async fn judge(log: &Log, mut detector: Detector, from: u64) -> Result<(Detector, Judged), SinkError> {
    let log = log.clone();
    blocking(move || {
        let began = Instant::now();
        let entries = log.read(from, BATCH)?;
        let mut judged = Judged { next: from, count: entries.len() as u64, micros: 0, findings: Vec::new() };
        for (index, entry) in &entries {
            if let Some(event) = audit::export(log.origin(), *index, entry) {
                judged.findings.extend(detector.observe(*index, &event));
            }
            judged.next = index + 1;
        }
        judged.micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        Ok((detector, judged))
    })
    .await
}
