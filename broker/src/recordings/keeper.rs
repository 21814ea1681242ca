//! Recordings kept as secret shares as soon as their session is closed, and taken out of this folder when
//! they are old enough.
//!
//! Nothing here is remembered but in the records: what is due is what they have no kept copy of, so that
//! a broker that was killed anywhere goes on where it was. To keep a recording makes two entries of the
//! log, and to let go of the copy here one.

use std::time::Duration;

use audit::{Event, EventKind, KeptKind};
use futures::StreamExt;
use gate::{Gate, Refusal};
use store::{KeptRecord, KeptState, KeptSubject, Recording};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Recordings;
use crate::config::KeptRecordings;
use crate::keeping::{KeepError, Keeping, Lateness, Turn};

/// Recordings that are looked at in one go.
const SOME: u64 = 64;
/// Recordings that are carried at once; the agents' places are shared with the log.
const TOGETHER: usize = 2;
/// How long until it is looked again without being told to.
const LOOK: Duration = Duration::from_secs(30);
/// How long after one could not be kept at all it is tried again, at first and at most: each time is an
/// entry of the log.
const AGAIN: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// How often it is looked whether something waits for too long.
const TELL: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// How the keeping of recordings is, for health and metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Recordings that are due and not kept.
    pub waiting: u64,
    /// Recordings kept since the start.
    pub kept: u64,
    /// Why the last one that could not be kept, or could not leave, was not, until one is.
    pub last_error: Option<String>,
    /// Whether something waits for longer than it should.
    pub lagging: bool,
    /// All recordings that are sealed in the log below this index are kept.
    settled: u64,
}

/// Follows the recordings of a house.
pub struct Keeper {
    /// What is followed.
    pub recordings: Recordings,
    /// What carries them.
    pub keeping: Keeping,
    /// Who decides.
    pub gate: Gate,
    /// What the operator wants.
    pub rule: KeptRecordings,
    /// When it ends.
    pub stopping: CancellationToken,
}

impl Keeper {
    /// Keeps recording after recording until the broker stops.
    pub async fn run(self) {
        tokio::select! {
            () = async { tokio::join!(self.keep_all(), self.move_all(), self.tell()); } => {}
            () = self.stopping.cancelled() => {}
        }
    }

    async fn keep_all(&self) {
        let mut from = 0;
        // The first that was not kept in this round, and when the next round begins.
        let mut missed: Option<u64> = None;
        let mut pause = AGAIN.0;
        let mut again = Instant::now();
        loop {
            let due = match self.due(from, missed).await {
                Ok(due) => due,
                Err(refusal) => {
                    self.told(|status| status.last_error = Some(refusal.to_string()));
                    Vec::new()
                }
            };
            if due.is_empty() {
                self.told(|status| status.settled = missed.unwrap_or(from));
                tokio::select! {
                    () = self.recordings.closed() => {}
                    () = tokio::time::sleep(LOOK) => {}
                    () = tokio::time::sleep_until(again), if missed.is_some() => {}
                }
                if missed.is_some() && Instant::now() >= again {
                    from = missed.take().unwrap_or(from);
                }
                continue;
            }
            let tried = due.into_iter().map(|recording| async move {
                let kept = self.keep(&recording).await;
                (recording.record, kept)
            });
            let tried: Vec<(u64, bool)> = futures::stream::iter(tried).buffered(TOGETHER).collect().await;
            for (record, kept) in tried {
                from = from.max(record + 1);
                if kept {
                    pause = AGAIN.0;
                } else if missed.is_none() {
                    missed = Some(record);
                    again = Instant::now() + pause;
                    pause = (pause * 2).min(AGAIN.1);
                }
            }
            // A restart begins at the first that is missing anyhow.
            self.told(|status| status.settled = missed.unwrap_or(from));
        }
    }

    async fn due(&self, from: u64, missed: Option<u64>) -> Result<Vec<Recording>, Refusal> {
        let waiting = self.gate.kept().recordings_waiting(missed.unwrap_or(from)).await?;
        self.told(|status| status.waiting = waiting);
        self.gate.kept().recordings_due(from, SOME).await
    }

    async fn keep(&self, recording: &Recording) -> bool {
        let subject = KeptSubject::SessionRecording { session: recording.session.clone() };
        match self.keeping.keep(&subject, self.recordings.source(recording)).await {
            Ok(_) => {
                self.told(|status| {
                    status.kept += 1;
                    status.last_error = None;
                });
                self.recordings.inner.kept.notify_one();
                true
            }
            Err(KeepError::Stopping) => false,
            Err(error) => {
                tracing::error!(%subject, %error, "a recording is not kept as shares");
                self.told(|status| status.last_error = Some(format!("{}: {error}", recording.session)));
                false
            }
        }
    }

    async fn move_all(&self) {
        loop {
            if let Err(why) = self.move_due().await {
                tracing::error!(error = %why, "a recording did not leave this folder");
                self.told(|status| status.last_error = Some(why.clone()));
                tokio::time::sleep(AGAIN.0).await;
            }
            tokio::select! {
                () = self.recordings.inner.kept.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Moves what may go: first what was begun, then the oldest.
    async fn move_due(&self) -> Result<(), String> {
        let list = |state| async move {
            self.gate.kept().recordings_in(state, SOME).await.map_err(|error| error.to_string())
        };
        let mut failed = None;
        loop {
            let mut moved = 0;
            let mut due = list("moving").await?;
            if let Some(days) = self.rule.local_days {
                let old = |kept: &KeptRecord| matches!(&kept.state, KeptState::Kept { at, .. } if self.gate.now().since(*at) >= DAY * days);
                due.extend(list("kept").await?.into_iter().filter(old));
            }
            for kept in due {
                match self.move_one(&kept).await {
                    Ok(()) => moved += 1,
                    Err(why) => failed = Some(format!("{}: {why}", kept.subject)),
                }
            }
            match failed {
                Some(why) => return Err(why),
                None if moved == 0 => return Ok(()),
                None => {}
            }
        }
    }

    async fn move_one(&self, kept: &KeptRecord) -> Result<(), String> {
        let Some(session) = kept.subject.session().cloned() else { return Ok(()) };
        let permit = self.gate.move_record(&kept.object).await.map_err(|error| error.to_string())?;
        let (recordings, keep_text) = (self.recordings.clone(), self.rule.local_text);
        let gone = tokio::task::spawn_blocking(move || recordings.let_go(&session, keep_text)).await;
        gone.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        self.gate.record_moved(permit).await.map_err(|error| error.to_string())?;
        tracing::info!(subject = %kept.subject, "a recording is in the vault alone");
        Ok(())
    }

    /// Records when something waits for longer than it should, and when nothing does any more; both once.
    async fn tell(&self) {
        let mut lateness = Lateness::new(Duration::from_secs(self.rule.lagging_secs));
        loop {
            tokio::time::sleep(TELL).await;
            let status = self.recordings.kept_status();
            let what = KeptKind::SessionRecording;
            // The oldest that waits tells: others may be kept past it.
            let turn = lateness.look(Instant::now(), status.waiting, status.settled, status.lagging);
            let kind = match turn {
                Some(Turn::Late) => {
                    let last_error = self.trouble(&status);
                    EventKind::KeptLagging { what, waiting: status.waiting, last_error }
                }
                Some(Turn::Over) => EventKind::KeptRecovered { what, kept: status.settled },
                None => continue,
            };
            if let Err(refusal) = self.gate.record(&Event::new(self.gate.now(), kind)).await {
                tracing::error!(code = %refusal.code, "the state of keeping recordings could not be recorded");
                continue;
            }
            self.told(|status| status.lagging = turn == Some(Turn::Late));
        }
    }

    fn trouble(&self, status: &Status) -> String {
        let carrying = || self.keeping.status().last_error;
        status.last_error.clone().or_else(carrying).unwrap_or_else(|| "it takes too long".to_owned())
    }

    fn told(&self, change: impl FnOnce(&mut Status)) {
        self.recordings.inner.status.send_modify(change);
    }
}
