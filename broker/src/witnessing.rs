//! The audit log and its witness: the comparison before the log is opened, and what follows.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use audit::{Event, EventKind, LogKey};
use gate::Gate;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use witness::{Client, News, Signed, Target};

use crate::config;

/// How long a witness may fail before that is recorded.
const PATIENCE: Duration = Duration::from_secs(30);

/// A log whose witness was asked.
pub struct Witnessing {
    client: Client,
    strict: bool,
    signed: Option<Signed>,
    /// Why the witness could not be asked at the start.
    trouble: Option<String>,
}

impl Witnessing {
    /// Compares the log in `dir` with its witness. It must not be opened after an error.
    pub async fn begin(
        witness: &config::Witness,
        dir: &Path,
        audit: &Path,
        key: &LogKey,
    ) -> anyhow::Result<Witnessing> {
        let inside = |path: &std::path::PathBuf| dir.join(path);
        let identity =
            witness.certificate.as_ref().map(inside).zip(witness.certificate_key.as_ref().map(inside));
        let target = Target {
            url: witness.url.clone(),
            key: witness.key.clone(),
            ca: witness.ca.as_ref().map(inside),
            identity,
        };
        let client = Client::new(&target).context("[witness] in config.toml cannot be used")?;
        let (signed, trouble) = match witness::at_start(&client, audit, key).await {
            Ok(signed) => (Some(signed), None),
            Err(error) if error.is_fault_of_the_log() => return Err(error.into()),
            Err(error) if witness.strict => {
                return Err(anyhow::Error::from(error).context(
                    "the broker does not start unwitnessed, as `strict` under [witness] in config.toml says",
                ));
            }
            Err(error) => {
                tracing::error!(%error, "the audit log goes on without its witness");
                (None, Some(error.to_string()))
            }
        };
        Ok(Witnessing { client, strict: witness.strict, signed, trouble })
    }

    /// Has each new checkpoint signed until the broker stops, and records how that goes.
    pub async fn run(self, gate: Gate, stopping: CancellationToken) {
        let log = gate.log().clone();
        if let Some(signed) = &self.signed {
            let (log, note) = (log.clone(), signed.note.clone());
            let kept = tokio::task::spawn_blocking(move || log.keep_witnessed(&note)).await;
            if let Ok(Err(error)) = kept {
                tracing::error!(%error, "the signature of the witness could not be kept");
            }
        }
        let known = self.signed.as_ref().map_or(0, |signed| signed.size);
        let (told, news) = mpsc::channel(8);
        let following = witness::follow(&self.client, &log, known, told);
        let telling = self.tell(&gate, known, news);
        tokio::select! {
            ((), ()) = async { tokio::join!(following, telling) } => {}
            () = stopping.cancelled() => {}
        }
    }

    /// Records when the witness fails for long and when it signs again, both once, and a refusal.
    async fn tell(&self, gate: &Gate, mut known: u64, mut news: mpsc::Receiver<News>) {
        let witness = self.client.name();
        let lagging = |known: u64, last_error: String| EventKind::WitnessLagging {
            witness: witness.to_owned(),
            lag: gate.log().durable_size().saturating_sub(known),
            last_error,
        };
        let mut alarm = Alarm::new(self.trouble.is_some());
        if let Some(trouble) = &self.trouble {
            record(gate, lagging(known, trouble.clone())).await;
        }
        loop {
            let next = match alarm.due() {
                Some(due) => timeout_at(due, news.recv()).await,
                None => Ok(news.recv().await),
            };
            match next {
                Ok(None) => return,
                Ok(Some(News::Signed(size))) => {
                    known = size;
                    if alarm.signed() {
                        record(gate, EventKind::WitnessRecovered { witness: witness.to_owned() }).await;
                    }
                }
                Ok(Some(News::Failing(error))) => {
                    tracing::warn!(%error, "the witness has not signed");
                    alarm.failing(error.to_string(), Instant::now());
                }
                Ok(Some(News::Refused(error))) => {
                    tracing::error!(%error, "the witness refuses this audit log");
                    let reason = error.to_string();
                    let kind =
                        EventKind::WitnessRefused { witness: witness.to_owned(), reason: reason.clone() };
                    record(gate, kind).await;
                    if self.strict {
                        gate.log().stop(reason);
                    }
                }
                Err(_) => record(gate, lagging(known, alarm.raise())).await,
            }
        }
    }
}

/// Whether a witness that fails is an alarm already: it may, for a while.
struct Alarm {
    raised: bool,
    /// Since when it fails, and why it failed last.
    failing: Option<(Instant, String)>,
}

impl Alarm {
    fn new(raised: bool) -> Alarm {
        Alarm { raised, failing: None }
    }

    /// When it is to be raised, if nothing is heard until then.
    fn due(&self) -> Option<Instant> {
        self.failing.as_ref().filter(|_| !self.raised).map(|(since, _)| *since + PATIENCE)
    }

    /// The witness failed, at `now`.
    fn failing(&mut self, why: String, now: Instant) {
        let since = self.failing.take().map_or(now, |(since, _)| since);
        self.failing = Some((since, why));
    }

    /// It is raised; returns why the witness failed last.
    fn raise(&mut self) -> String {
        self.raised = true;
        self.failing.as_ref().map(|(_, why)| why.clone()).unwrap_or_default()
    }

    /// The witness has signed; true if that ends an alarm.
    fn signed(&mut self) -> bool {
        self.failing = None;
        std::mem::take(&mut self.raised)
    }
}

async fn record(gate: &Gate, kind: EventKind) {
    if let Err(refusal) = gate.record(&Event::new(gate.now(), kind)).await {
        tracing::error!(code = %refusal.code, "the state of the witness could not be recorded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_witness_that_fails_is_an_alarm_once_it_has_failed_for_long() {
        let begin = Instant::now();
        let after = |secs| begin + Duration::from_secs(secs);
        let mut alarm = Alarm::new(false);
        assert_eq!(alarm.due(), None);
        alarm.failing("no connection".to_owned(), after(10));
        // Failing again neither puts it off nor hurries it.
        alarm.failing("no answer".to_owned(), after(25));
        assert_eq!(alarm.due(), Some(after(10) + PATIENCE));
        assert_eq!(alarm.raise(), "no answer");
        // Once is enough.
        alarm.failing("no answer".to_owned(), after(90));
        assert_eq!(alarm.due(), None);
        assert!(alarm.signed());
        // A failure between two signatures is none.
        alarm.failing("no connection".to_owned(), after(200));
        assert!(!alarm.signed());
        assert_eq!(alarm.due(), None);
        alarm.failing("no connection".to_owned(), after(300));
        assert_eq!(alarm.due(), Some(after(300) + PATIENCE));
    }

    #[test]
    fn one_that_could_not_be_asked_at_the_start_is_an_alarm_until_it_signs() {
        let mut alarm = Alarm::new(true);
        alarm.failing("no connection".to_owned(), Instant::now());
        assert_eq!(alarm.due(), None);
        assert!(alarm.signed());
        assert!(!alarm.signed());
    }
}
