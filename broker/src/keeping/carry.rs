//! One attempt at keeping a record: out of its source, encrypted, to the agent, and back for comparison.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gate::{Gate, KeepRecord, Permit, Refusal};
use intake::crypt4gh::{Encryptor, PublicKey};
use model::Entropy;
use sha2::{Digest, Sha256};
use store::KeptFile;
use tokio::sync::mpsc;
use tokio::time::timeout;
use wire::broker::AgentLink;
use wire::message::{DepositInput, DepositOutput, OpenDeposit};
use zeroize::Zeroizing;

use super::fetch::{FetchError, Pieces};
use super::{Source, SourceError};

/// Encrypted pieces that may wait for the agent.
const WAITING: usize = 4;
/// The largest of them.
const PIECE: usize = 128 << 10;
/// How long an agent may take to be ready, to take a piece, and to make the shares durable at the end.
const AGENT: Duration = Duration::from_secs(120);

/// How long an agent that takes no more may take to say why.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// The source is broken.
    #[error("{0}")]
    Source(String),
    /// The gate gave no order.
    #[error("{0}")]
    Refused(Refusal),
    /// No key for this attempt.
    #[error("no randomness: {0}")]
    Entropy(#[from] model::EntropyError),
    /// The agent will not, or cannot.
    #[error("{message} ({code})")]
    Agent {
        /// A stable word.
        code: String,
        /// A sentence.
        message: String,
    },
    /// The agent is gone, or does not answer.
    #[error("the agent was lost")]
    Lost,
    /// It could not be read back.
    #[error("it could not be read back: {0}")]
    ReadBack(#[from] FetchError),
    /// What was read back is something else.
    #[error("what was read back is not what was kept")]
    Differs,
}

/// Deposits a record once and reads it back. What is returned was compared.
pub async fn attempt(
    gate: &Gate,
    link: &AgentLink,
    permit: &Permit<KeepRecord>,
    source: Arc<dyn Source>,
    entropy: &dyn Entropy,
) -> Result<KeptFile, AttemptError> {
    let encryptor = Encryptor::new(&PublicKey::from_bytes(link.hello().keeping_key), entropy)?;
    let ticket = gate.keep_ticket(permit, link.agent()).map_err(AttemptError::Refused)?;
    let stream = link.open_deposit(OpenDeposit { ticket }).await.map_err(|_| AttemptError::Lost)?;
    let (mut sender, mut receiver) = (stream.sender, stream.receiver);
    match timeout(AGENT, receiver.next()).await {
        Ok(Ok(Some(DepositOutput::Ready))) => {}
        Ok(Ok(Some(DepositOutput::Refused(refused)))) => return Err(agent(refused)),
        _ => return Err(AttemptError::Lost),
    }
    let (pieces_in, mut pieces) = mpsc::channel(WAITING);
    let writing = tokio::task::spawn_blocking(move || {
        let mut outlet = Outlet::new(encryptor, pieces_in)?;
        let content_root = source.write_to(&mut outlet)?;
        outlet.finish(content_root)
    });
    let forward = async {
        while let Some(piece) = pieces.recv().await {
            let sent = timeout(AGENT, sender.send(DepositInput::Data(piece))).await;
            if !matches!(sent, Ok(Ok(()))) {
                return Ok(None);
            }
        }
        // The pieces have ended because all was written, or because it could not be.
        let written = match writing.await {
            Ok(written) => written,
            Err(died) => Err(SourceError::Broken(died.to_string())),
        };
        match written {
            Ok(written) => match timeout(AGENT, sender.send(DepositInput::DataEof)).await {
                Ok(Ok(())) => Ok(Some(written)),
                _ => Ok(None),
            },
            Err(SourceError::NotTaken) => Ok(None),
            // The stream ends without its last word: the agent keeps nothing.
            Err(SourceError::Broken(why)) => Err(AttemptError::Source(why)),
        }
    };
    let listen = async {
        loop {
            match receiver.next().await {
                Ok(Some(DepositOutput::Progress { .. })) => {}
                Ok(Some(DepositOutput::Deposited { size, root })) => return Ok((size, root)),
                Ok(Some(DepositOutput::Refused(refused))) => return Err(agent(refused)),
                Ok(Some(DepositOutput::Ready) | None) | Err(_) => return Err(AttemptError::Lost),
            }
        }
    };
    tokio::pin!(listen);
    let sent = tokio::select! {
        // An end before everything was sent says why.
        ended = &mut listen => return Err(ended.err().unwrap_or(AttemptError::Differs)),
        sent = forward => sent?,
    };
    let patience = if sent.is_some() { AGENT } else { LAST_WORD };
    let deposited = timeout(patience, listen).await.unwrap_or(Err(AttemptError::Lost))?;
    let written = sent.ok_or(AttemptError::Lost)?;
    let (size, manifest_root) = deposited;
    if size != written.size {
        return Err(AttemptError::Differs);
    }
    let ticket = gate.read_back_ticket(permit, link.agent(), size, manifest_root);
    let mut back = Pieces::ask(link, ticket.map_err(AttemptError::Refused)?, size).await?;
    let mut hash = Sha256::new();
    while let Some(piece) = back.next().await? {
        hash.update(&piece);
    }
    if <[u8; 32]>::from(hash.finalize()) != written.sha256 {
        return Err(AttemptError::Differs);
    }
    Ok(KeptFile { size, sha256: written.sha256, content_root: written.content_root, manifest_root })
}

fn agent(refused: wire::message::Refused) -> AttemptError {
    AttemptError::Agent { code: refused.code, message: refused.message }
}

/// What was written.
struct Written {
    size: u64,
    sha256: [u8; 32],
    content_root: Option<[u8; 32]>,
}

/// Takes a record in the clear, and gives it on encrypted. It waits while the agent takes nothing.
struct Outlet {
    encryptor: Encryptor,
    pieces: mpsc::Sender<Bytes>,
    hash: Sha256,
    size: u64,
    /// Written and not encrypted yet.
    held: Zeroizing<Vec<u8>>,
}

impl Outlet {
    fn new(encryptor: Encryptor, pieces: mpsc::Sender<Bytes>) -> Result<Outlet, SourceError> {
        send(&pieces, Bytes::copy_from_slice(encryptor.header()))?;
        let held = Zeroizing::new(Vec::with_capacity(PIECE));
        Ok(Outlet { encryptor, pieces, hash: Sha256::new(), size: 0, held })
    }

    fn encrypt(&mut self) -> Result<(), SourceError> {
        let encrypted = self.encryptor.push(&self.held);
        self.held.clear();
        send(&self.pieces, encrypted.into())
    }

    fn finish(mut self, content_root: Option<[u8; 32]>) -> Result<Written, SourceError> {
        self.encrypt()?;
        let Outlet { encryptor, pieces, hash, size, .. } = self;
        send(&pieces, encryptor.finish().into())?;
        Ok(Written { size, sha256: hash.finalize().into(), content_root })
    }
}

fn send(pieces: &mpsc::Sender<Bytes>, mut bytes: Bytes) -> Result<(), SourceError> {
    while !bytes.is_empty() {
        let piece = bytes.split_to(bytes.len().min(PIECE));
        pieces.blocking_send(piece).map_err(|_| SourceError::NotTaken)?;
    }
    Ok(())
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.held.len());
        self.held.extend_from_slice(&bytes[..taken]);
        self.hash.update(&bytes[..taken]);
        self.size += taken as u64;
        if self.held.len() == PIECE {
            self.encrypt().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
