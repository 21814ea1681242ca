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
        let mut alarmed = self.trouble.is_some();
        if let Some(trouble) = &self.trouble {
            record(gate, lagging(known, trouble.clone())).await;
        }
        let mut failing: Option<(Instant, String)> = None;
        loop {
            let due = failing.as_ref().filter(|_| !alarmed).map(|(since, _)| *since + PATIENCE);
            let next = match due {
                Some(due) => timeout_at(due, news.recv()).await,
                None => Ok(news.recv().await),
            };
            match next {
                Ok(None) => return,
                Ok(Some(News::Signed(size))) => {
                    known = size;
                    failing = None;
                    if std::mem::take(&mut alarmed) {
                        record(gate, EventKind::WitnessRecovered { witness: witness.to_owned() }).await;
                    }
                }
                Ok(Some(News::Failing(error))) => {
                    tracing::warn!(%error, "the witness has not signed");
                    let since = failing.take().map_or_else(Instant::now, |(since, _)| since);
                    failing = Some((since, error.to_string()));
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
                Err(_) => {
                    alarmed = true;
                    let why = failing.as_ref().map(|(_, why)| why.clone()).unwrap_or_default();
                    record(gate, lagging(known, why)).await;
                }
            }
        }
    }
}

async fn record(gate: &Gate, kind: EventKind) {
    if let Err(refusal) = gate.record(&Event::new(gate.now(), kind)).await {
        tracing::error!(code = %refusal.code, "the state of the witness could not be recorded");
    }
}
