//! The log and its witness over time.

use std::path::Path;
use std::time::Duration;

use audit::{Log, LogKey, Reader};
use tokio::sync::mpsc;

use crate::check::{CheckError, Signed, Source, check};
use crate::client::Client;

/// How often a new checkpoint is looked for.
const EVERY: Duration = Duration::from_millis(500);
/// The pauses after a witness that does not answer, from the first to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What there is to tell about a witness.
#[derive(Debug)]
pub enum News {
    /// It has signed the checkpoint of this size.
    Signed(u64),
    /// It has not, for this reason; it will be asked again.
    Failing(CheckError),
    /// It never will: the log is not the one it knows. Nobody is asked any more.
    Refused(CheckError),
}

/// Compares the log in `dir` with its witness, before it is opened, and changes nothing. A folder
/// without a log counts as one without entries.
pub async fn at_start(client: &Client, dir: &Path, key: &LogKey) -> Result<Signed, CheckError> {
    if !dir.join("checkpoint").exists() {
        let note = key.empty_checkpoint();
        return check(client, 0, Source::Nothing(&note)).await;
    }
    let reader = Reader::open(dir)?;
    // What is kept here only saves a question: the witness knows best.
    let known = reader.witnessed().ok().flatten().map_or(0, |(checkpoint, _)| checkpoint.size);
    check(client, known, Source::Folder(&reader)).await
}

/// Has each new checkpoint of the log signed, and keeps the last one that was beside the log's own.
/// Of checkpoints that follow each other faster than the witness answers only the last is shown. It
/// ends when the log is not the one that the witness knows, or when nobody hears the news any more.
pub async fn follow(client: &Client, log: &Log, mut known: u64, news: mpsc::Sender<News>) {
    let mut pause = PAUSES.0;
    loop {
        tokio::time::sleep(EVERY).await;
        if news.is_closed() {
            return;
        }
        if log.checkpoint_size() == known {
            continue;
        }
        let told = match check(client, known, Source::Running(log)).await {
            Ok(signed) => {
                known = signed.size;
                let (log, note) = (log.clone(), signed.note);
                let kept = tokio::task::spawn_blocking(move || log.keep_witnessed(&note)).await;
                if let Ok(Err(error)) = kept {
                    tracing::error!(%error, "the signature of the witness could not be kept");
                }
                pause = PAUSES.0;
                News::Signed(known)
            }
            Err(error) if error.is_fault_of_the_log() => {
                let _ = news.send(News::Refused(error)).await;
                return;
            }
            Err(error) => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
                News::Failing(error)
            }
        };
        if news.send(told).await.is_err() {
            return;
        }
    }
}
