//! A record back from its shares: asked of an agent, checked on the way.

use std::io::{self, Read};
use std::time::Duration;

use audit::{Log, SegmentReader};
use bytes::{Buf, Bytes};
use gate::{FetchRecord, Permit};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::time::timeout;
use wire::broker::{AgentLink, FetchReceiver, FetchSender};
use wire::message::{FetchInput, FetchOutput, OpenFetch};

use super::Keeping;

/// How long an agent may take to find the record, and then for each piece of it.
const AGENT: Duration = Duration::from_secs(60);
/// Pieces that may wait for whoever asked, and for the check of the tree.
const WAITING: usize = 4;

/// Why a record is not handed out, or no further.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// The agent will not, or cannot.
    #[error("{message} ({code})")]
    Agent {
        /// A stable word.
        code: String,
        /// A sentence.
        message: String,
    },
    /// No agent is connected, or it is gone, or does not answer.
    #[error("no agent that could hand it out is connected, or it was lost; try again in a minute")]
    Lost,
    /// The gate gave no order.
    #[error("{0}")]
    Refused(String),
    /// What came is not what was kept.
    #[error("what came back from the shares is not what was kept: {0}")]
    Differs(String),
    /// The permit ended, or the broker stops.
    #[error("{0}")]
    Ended(String),
}

/// The bytes of a record on their way from an agent. Nothing is asked for before it is wanted, but for a
/// window's worth.
pub struct Pieces {
    sender: FetchSender,
    receiver: FetchReceiver,
    /// Bytes that are still to come.
    left: u64,
    over: bool,
}

impl Pieces {
    /// Asks an agent for the record of this ticket, which has `size` bytes.
    pub async fn ask(link: &AgentLink, ticket: Vec<u8>, size: u64) -> Result<Pieces, FetchError> {
        let stream = link.open_fetch(OpenFetch { ticket }).await.map_err(|_| FetchError::Lost)?;
        let mut pieces = Pieces { sender: stream.sender, receiver: stream.receiver, left: size, over: false };
        match pieces.word().await? {
            FetchOutput::Found { size: found } if found == size => Ok(pieces),
            _ => Err(FetchError::Differs("it has another length".to_owned())),
        }
    }

    /// The next bytes; nothing after the last.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        if self.over {
            return Ok(None);
        }
        match self.word().await? {
            FetchOutput::Piece(bytes) => {
                let longer = || FetchError::Differs("it is longer".to_owned());
                self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(longer)?;
                Ok(Some(bytes))
            }
            FetchOutput::PieceEof if self.left == 0 => {
                self.over = true;
                // Whether the agent hears it or not, everything is here.
                let _ = timeout(AGENT, self.sender.send(FetchInput::Received)).await;
                Ok(None)
            }
            _ => Err(FetchError::Differs("it is shorter".to_owned())),
        }
    }

    async fn word(&mut self) -> Result<FetchOutput, FetchError> {
        match timeout(AGENT, self.receiver.next()).await {
            Ok(Ok(Some(FetchOutput::Refused(refused)))) => {
                Err(FetchError::Agent { code: refused.code, message: refused.message })
            }
            Ok(Ok(Some(word))) => Ok(word),
            _ => Err(FetchError::Lost),
        }
    }
}

impl Keeping {
    /// Has a record back. What the receiver gets last is an error, or all of it was what was kept: by
    /// its SHA-256, and of a part of the log by the tiles that this house still has. The very last piece
    /// is held back until that is certain. Dropping the receiver ends it.
    pub fn fetch(&self, permit: Permit<FetchRecord>) -> mpsc::Receiver<Result<Bytes, FetchError>> {
        let (out, pieces) = mpsc::channel(WAITING);
        let keeping = self.clone();
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = keeping.carry_back(&permit, &out) => ended,
                cause = permit.ended() => Err(FetchError::Ended(cause.message)),
                () = keeping.stopping.cancelled() => {
                    Err(FetchError::Ended("The broker is being stopped. Try again in a few minutes.".to_owned()))
                }
                () = out.closed() => return,
            };
            if let Err(error) = ended {
                tracing::error!(object = %permit.action().object, %error, "a record was not handed out");
                let _ = out.send(Err(error)).await;
            }
        });
        pieces
    }

    /// The record from the first agent that finds it: they may have other backends.
    async fn found(&self, permit: &Permit<FetchRecord>) -> Result<Pieces, FetchError> {
        let mut failed = FetchError::Lost;
        for link in self.hub.each() {
            let ticket = self.gate.fetch_ticket(permit, link.agent());
            let ticket = ticket.map_err(|refusal| FetchError::Refused(refusal.message))?;
            match Pieces::ask(&link, ticket, permit.action().file.size).await {
                Ok(pieces) => return Ok(pieces),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn carry_back(
        &self,
        permit: &Permit<FetchRecord>,
        out: &mpsc::Sender<Result<Bytes, FetchError>>,
    ) -> Result<(), FetchError> {
        let file = &permit.action().file;
        let mut pieces = self.found(permit).await?;
        let check = permit.action().subject.entries().map(|(first, count)| {
            let (checked, theirs) = mpsc::channel(WAITING);
            let log = self.gate.log().clone();
            (checked, tokio::task::spawn_blocking(move || check(&log, first, count, theirs)))
        });
        let (checked, checking) = check.unzip();
        let (mut hash, mut held) = (Sha256::new(), None::<Bytes>);
        while let Some(piece) = pieces.next().await? {
            hash.update(&piece);
            if let Some(checked) = &checked {
                // A check that has ended before its time says why at the end.
                let _ = checked.send(piece.clone()).await;
            }
            if let Some(ready) = held.replace(piece)
                && out.send(Ok(ready)).await.is_err()
            {
                return Ok(());
            }
        }
        drop(checked);
        if <[u8; 32]>::from(hash.finalize()) != file.sha256 {
            return Err(FetchError::Differs("its SHA-256 is another".to_owned()));
        }
        if let Some(checking) = checking {
            let checked = checking.await.unwrap_or_else(|died| Err(died.to_string()));
            checked.map_err(FetchError::Differs)?;
        }
        if let Some(last) = held {
            let _ = out.send(Ok(last)).await;
        }
        Ok(())
    }
}

/// Compares every entry of a segment with the tiles of this log.
fn check(log: &Log, first: u64, count: u64, pieces: mpsc::Receiver<Bytes>) -> Result<(), String> {
    let reader = log.reader();
    let mut segment = SegmentReader::open(Inlet { pieces, piece: Bytes::new() }, reader.key())
        .map_err(|fault| fault.to_string())?;
    let range = segment.header().range;
    if (range.first(), range.count()) != (first, count) {
        return Err("it is another part of the log".to_owned());
    }
    while let Some(bundle) = segment.next_bundle().map_err(|fault| fault.to_string())? {
        log.check_bundle(&bundle).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Pieces as a stream of bytes, for a thread that may block.
struct Inlet {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Inlet {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let taken = into.len().min(self.piece.len());
        into[..taken].copy_from_slice(&self.piece[..taken]);
        self.piece.advance(taken);
        Ok(taken)
    }
}
