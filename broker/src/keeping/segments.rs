//! The audit log itself, part by part: kept as soon as a checkpoint covers a part, and moved out of the
//! house when nobody needs the copy here any more.
//!
//! To keep a part makes two entries, and to move it one; a part has at least 256. So the log does not
//! chase its own tail.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use audit::{Event, EventKind, KeptKind, Log, PackError, SegmentRange};
use gate::Refusal;
use store::{KeptRecord, KeptState, KeptSubject};
use tokio::time::Instant;

use super::{KeepError, Keeping, Lateness, Source, SourceError, Turn};
use crate::config::Retention;

/// How often it is looked whether what is waited for has come. That looks at memory, and with a witness
/// at one small file; the records are asked only when there is something to do.
const LOOK: Duration = Duration::from_millis(500);
/// How long after a part could not be kept at all it is tried again, at first and at most: each time
/// is an entry of the log.
const AGAIN: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// Parts that are looked at in one go.
const PARTS: u64 = 64;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Follows the log of a house.
pub struct Segments {
    /// What carries the parts.
    pub keeping: Keeping,
    /// What the operator wants.
    pub retention: Retention,
    /// Whether a part must stand under a checkpoint that a witness has signed.
    pub witnessed: bool,
    /// Who follows the log, and needs it here until then.
    pub followers: Followers,
}

/// Who follows the log from its folder.
pub struct Followers {
    /// The collectors, and how many entries each has.
    pub sinks: Box<dyn Fn() -> Vec<(String, u64)> + Send + Sync>,
    /// How far detection is; none if nothing is detected.
    pub judged: Box<dyn Fn() -> Option<u64> + Send + Sync>,
}

impl Followers {
    /// Who still needs an entry below `end`.
    fn needing(&self, end: u64) -> Option<String> {
        let behind = (self.sinks)().into_iter().find(|(_, delivered)| *delivered < end);
        behind.map(|(name, _)| format!("the collector {name} does not have all of it yet")).or_else(|| {
            (self.judged)().filter(|judged| *judged < end).map(|_| "detection is behind".to_owned())
        })
    }
}

/// A part of the log as a source.
struct Part {
    log: Log,
    range: SegmentRange,
    witnessed: bool,
}

impl Source for Part {
    fn write_to(&self, to: &mut dyn Write) -> Result<Option<[u8; 32]>, SourceError> {
        let reader = self.log.reader();
        let note = if self.witnessed {
            let signed = reader.witnessed().map_err(|error| SourceError::Broken(error.to_string()))?;
            signed.map(|(_, note)| note).unwrap_or_else(|| self.log.checkpoint())
        } else {
            self.log.checkpoint()
        };
        match reader.pack(self.range, &note, to) {
            Ok(header) => Ok(Some(header.root)),
            Err(PackError::Write(error)) => Err(error.into()),
            Err(other) => Err(SourceError::Broken(other.to_string())),
        }
    }
}

impl Segments {
    /// Keeps part after part until the broker stops.
    pub async fn run(self) {
        let stopping = self.keeping.stopping.clone();
        tokio::select! {
            () = async { tokio::join!(self.keep_all(), self.tell(), self.move_all()); } => {}
            () = stopping.cancelled() => {}
        }
    }

    async fn keep_all(&self) {
        let mut again = AGAIN.0;
        loop {
            match self.next().await {
                Ok((kept, Some(range))) => {
                    self.wait_for(kept, range).await;
                    let subject = KeptSubject::AuditSegment { first: range.first(), count: range.count() };
                    let log = self.keeping.gate.log().clone();
                    let part = Arc::new(Part { log, range, witnessed: self.witnessed });
                    match self.keeping.keep(&subject, part).await {
                        Ok(_) => {
                            again = AGAIN.0;
                            continue;
                        }
                        Err(KeepError::Stopping) => return,
                        Err(error) => {
                            tracing::error!(%subject, %error, "a part of the audit log is not kept");
                            self.keeping.failed(&error);
                            tokio::time::sleep(again).await;
                            again = (again * 2).min(AGAIN.1);
                        }
                    }
                }
                Ok((kept, None)) => {
                    self.keeping.failed(&format!("there is no part of the log that begins at {kept}"));
                    tokio::time::sleep(AGAIN.1).await;
                }
                Err(refusal) => {
                    self.keeping.failed(&refusal);
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
    }

    /// Waits until all of `range` stands under a checkpoint that counts; entries below `kept` are kept.
    async fn wait_for(&self, kept: u64, range: SegmentRange) {
        loop {
            let covered = self.covered(range);
            let waiting = covered.map_or(0, |covered| covered.saturating_sub(kept));
            self.keeping.status.send_if_modified(|status| {
                let changed = (status.kept, status.waiting) != (kept, waiting);
                (status.kept, status.waiting) = (kept, waiting);
                changed
            });
            if covered.is_some() {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Up to where everything is kept, and the part that is due next: one that was begun, or the one
    /// behind the last.
    async fn next(&self) -> Result<(u64, Option<SegmentRange>), Refusal> {
        let last = self.keeping.gate.kept().last_segment().await?;
        Ok(match last.as_ref().map(|last| (&last.state, last.subject.entries())) {
            Some((KeptState::Pending | KeptState::Stored { .. }, Some((first, count)))) => {
                (first, SegmentRange::new(first, count))
            }
            Some((_, Some((first, count)))) => {
                (first + count, SegmentRange::at(first + count, self.retention.segment_bundles))
            }
            _ => (0, SegmentRange::at(0, self.retention.segment_bundles)),
        })
    }

    /// How many entries stand under a checkpoint that counts, if all of `range` do.
    fn covered(&self, range: SegmentRange) -> Option<u64> {
        let log = self.keeping.gate.log();
        let all = |covered: u64| (covered >= range.end()).then_some(covered);
        let own = all(log.checkpoint_size())?;
        if !self.witnessed {
            return Some(own);
        }
        // What the witness has signed is looked at only where something depends on it.
        let signed = log.reader().witnessed().ok().flatten();
        all(signed.map_or(0, |(checkpoint, _)| checkpoint.size).min(own))
    }

    /// Records when something waits for longer than it should, and when nothing does any more; both once.
    async fn tell(&self) {
        let mut lateness = Lateness::new(Duration::from_secs(self.retention.lagging_secs));
        loop {
            tokio::time::sleep(LOOK).await;
            let status = self.keeping.status();
            let what = KeptKind::AuditSegment;
            // Each part that is kept shows that it goes on.
            let turn = lateness.look(Instant::now(), status.waiting, status.kept, status.lagging);
            let kind = match turn {
                Some(Turn::Late) => {
                    let last_error = status.last_error.unwrap_or_else(|| "it takes too long".to_owned());
                    EventKind::KeptLagging { what, waiting: status.waiting, last_error }
                }
                Some(Turn::Over) => EventKind::KeptRecovered { what, kept: status.kept },
                None => continue,
            };
            let gate = &self.keeping.gate;
            if let Err(refusal) = gate.record(&Event::new(gate.now(), kind)).await {
                tracing::error!(code = %refusal.code, "the state of keeping could not be recorded");
                continue;
            }
            self.keeping.status.send_modify(|status| status.lagging = turn == Some(Turn::Late));
        }
    }

    async fn move_all(&self) {
        loop {
            let kept = self.keeping.status().kept;
            match self.move_due().await {
                Ok(Some(oldest)) => self.until_it_may_go(&oldest).await,
                // Nothing else can go before another part is kept.
                Ok(None) => {
                    let mut status = self.keeping.status.subscribe();
                    let _ = status.wait_for(|status| status.kept != kept).await;
                }
                Err(why) => {
                    tracing::error!(error = %why, "a part of the audit log was not moved out of the house");
                    self.keeping.status.send_modify(|status| status.held_back = Some(why));
                    tokio::time::sleep(AGAIN.0).await;
                }
            }
        }
    }

    /// Moves what may go: first what was begun, then the oldest. Returns the oldest that stays for now,
    /// if that can ever go.
    async fn move_due(&self) -> Result<Option<KeptRecord>, String> {
        let gate = &self.keeping.gate;
        let list =
            |state| async move { gate.kept().segments_in(state, PARTS).await.map_err(|e| e.to_string()) };
        for begun in list("moving").await? {
            self.move_one(&begun).await?;
        }
        let mut stays = None;
        while self.retention.moves() && stays.is_none() {
            let kept = list("kept").await?;
            if kept.is_empty() {
                break;
            }
            for kept in kept {
                if self.stays(&kept) {
                    stays = Some(kept);
                    break;
                }
                self.move_one(&kept).await?;
            }
        }
        let local_from = gate.log().local_from().map_err(|e| e.to_string())?;
        self.keeping.status.send_if_modified(|status| {
            let changed = status.local_from != local_from;
            status.local_from = local_from;
            changed
        });
        Ok(stays)
    }

    async fn until_it_may_go(&self, kept: &KeptRecord) {
        while self.stays(kept) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether a part stays here for now; says who holds it back, if it is old enough to go.
    fn stays(&self, kept: &KeptRecord) -> bool {
        let Some(range) = range_of(kept) else { return true };
        let is_old = self.is_old(kept, range);
        let held_back = if is_old { self.followers.needing(range.end()) } else { None };
        let stays = !is_old || held_back.is_some();
        self.keeping.status.send_if_modified(|status| {
            let changed = status.held_back != held_back;
            status.held_back = held_back;
            changed
        });
        stays
    }

    /// Whether nothing that the operator set wants a part here any more.
    fn is_old(&self, kept: &KeptRecord, range: SegmentRange) -> bool {
        let KeptState::Kept { at, .. } = &kept.state else { return false };
        let gate = &self.keeping.gate;
        let old = |days: u64| gate.now().since(*at) >= DAY * u32::try_from(days).unwrap_or(u32::MAX);
        let far = |entries: u64| gate.log().durable_size().saturating_sub(range.end()) >= entries;
        self.retention.local_days.is_none_or(old) && self.retention.local_entries.is_none_or(far)
    }

    async fn move_one(&self, kept: &KeptRecord) -> Result<(), String> {
        let gate = &self.keeping.gate;
        let Some(range) = range_of(kept) else { return Ok(()) };
        let permit = gate.move_record(&kept.object).await.map_err(|e| e.to_string())?;
        let log = gate.log().clone();
        let moved = tokio::task::spawn_blocking(move || log.remove_local(range)).await;
        moved.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        gate.record_moved(permit).await.map_err(|e| e.to_string())?;
        tracing::info!(subject = %kept.subject, "a part of the audit log is in the vault alone");
        Ok(())
    }
}

fn range_of(kept: &KeptRecord) -> Option<SegmentRange> {
    kept.subject.entries().and_then(|(first, count)| SegmentRange::new(first, count))
}
