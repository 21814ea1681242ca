use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use quinn::{ReadError, RecvStream, SendStream, WriteError};

use crate::machine::{Inbound, Outbound, ProtocolError, Script};
use crate::message::{Order, SessionInput};
use crate::transport::{ABANDONED, BROKEN, LinkEnd};

/// Chunks taken from the transport at once. A chunk is a packet's worth.
const CHUNKS: usize = 32;
/// How long a kill may wait behind input that the agent does not take.
const KILL_PATIENCE: Duration = Duration::from_secs(1);

/// Why a stream is of no more use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The peer left the protocol; or this side was about to.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The peer gave the stream up.
    #[error("the peer gave up")]
    Abandoned,
    /// The connection ended.
    #[error("the connection ended: {0}")]
    LinkLost(#[from] LinkEnd),
}

/// The sending half of a stream. To drop it before the last word resets the stream, which the
/// peer's [`Receiver`] sees as [`StreamError::Abandoned`].
#[derive(Debug)]
pub struct Sender<M: Script> {
    stream: SendStream,
    script: Outbound<M>,
    // What was said and is not yet with the transport. It outlives a send that was cancelled, so
    // that no half frame is left behind.
    queue: VecDeque<Bytes>,
}

impl<M: Script> Sender<M> {
    pub(crate) fn new(stream: SendStream) -> Sender<M> {
        Sender { stream, script: Outbound::new(), queue: VecDeque::new() }
    }

    /// On a stream that begins with `order`.
    pub(crate) async fn after(order: Order, stream: SendStream) -> Result<Sender<M>, StreamError> {
        let mut sender = Sender::new(stream);
        Outbound::new().say(order, &mut sender.queue)?;
        sender.flush().await?;
        Ok(sender)
    }

    /// Sends a message; waits while the peer takes no more. After the last word the stream is
    /// finished.
    ///
    /// If the future is dropped, the message is either not sent at all or sent with the next one.
    pub async fn send(&mut self, message: M) -> Result<(), StreamError> {
        self.flush().await?;
        self.script.say(message, &mut self.queue)?;
        self.flush().await
    }

    /// Completes when the peer no longer reads: it gave the stream up, the connection ended, or
    /// it has acknowledged everything up to the last word. It does not borrow the sender.
    pub fn gone(&self) -> impl Future<Output = ()> + Send + Sync + 'static {
        let stopped = self.stream.stopped();
        async move {
            let _ = stopped.await;
        }
    }

    async fn flush(&mut self) -> Result<(), StreamError> {
        while !self.queue.is_empty() {
            let written = self.stream.write_chunks(self.queue.make_contiguous()).await?;
            self.queue.drain(..written.chunks);
        }
        if self.script.is_over() {
            // It fails only where it was finished before.
            let _ = self.stream.finish();
        }
        Ok(())
    }
}

impl Sender<SessionInput> {
    /// Ends the session: says so, or if the agent does not even take that within a second, resets
    /// the stream.
    pub async fn kill(&mut self, reason: impl Into<String>) -> Result<(), StreamError> {
        self.end(SessionInput::Kill { reason: reason.into() }).await
    }

    /// Leaves the session, in the same way: what was made to go on does.
    pub async fn leave(&mut self, reason: impl Into<String>) -> Result<(), StreamError> {
        self.end(SessionInput::Leave { reason: reason.into() }).await
    }

    /// Says the last word, [`SessionInput::Kill`] or [`SessionInput::Leave`], in the same way.
    pub async fn end(&mut self, last: SessionInput) -> Result<(), StreamError> {
        match tokio::time::timeout(KILL_PATIENCE, self.send(last)).await {
            Ok(sent) => sent,
            Err(_) => {
                let _ = self.stream.reset(ABANDONED);
                Ok(())
            }
        }
    }
}

impl<M: Script> Drop for Sender<M> {
    fn drop(&mut self) {
        if !self.script.is_over() || !self.queue.is_empty() {
            // It fails only where the stream is closed already.
            let _ = self.stream.reset(ABANDONED);
        }
    }
}

/// The receiving half of a stream. To drop it tells the peer to stop sending.
#[derive(Debug)]
pub struct Receiver<M: Script> {
    stream: RecvStream,
    script: Inbound<M>,
}

impl<M: Script> Receiver<M> {
    pub(crate) fn new(stream: RecvStream) -> Receiver<M> {
        Receiver { stream, script: Inbound::new() }
    }

    /// The next message, or nothing after the last word. It may be cancelled without loss. What is
    /// not asked for stays with the peer, but for a window's worth.
    pub async fn next(&mut self) -> Result<Option<M>, StreamError> {
        loop {
            match self.script.next_message() {
                Ok(Some(message)) => return Ok(Some(message)),
                Ok(None) if self.script.is_over() => return Ok(None),
                Ok(None) => {}
                Err(error) => return Err(self.broken(error)),
            }
            let mut chunks = [const { Bytes::new() }; CHUNKS];
            match self.stream.read_chunks(&mut chunks).await? {
                Some(_) => chunks.into_iter().for_each(|chunk| self.script.push(chunk)),
                None => {
                    return match self.script.end() {
                        Ok(()) => Ok(None),
                        Err(error) => Err(self.broken(error)),
                    };
                }
            }
        }
    }

    /// Goes on with another script on the same stream.
    pub(crate) fn becomes<N: Script>(self) -> Receiver<N> {
        Receiver { stream: self.stream, script: self.script.becomes() }
    }

    fn broken(&mut self, error: ProtocolError) -> StreamError {
        let _ = self.stream.stop(BROKEN);
        error.into()
    }
}

impl From<WriteError> for StreamError {
    fn from(error: WriteError) -> StreamError {
        match error {
            WriteError::Stopped(_) | WriteError::ClosedStream => StreamError::Abandoned,
            WriteError::ConnectionLost(end) => StreamError::LinkLost(end.into()),
            WriteError::ZeroRttRejected => StreamError::Abandoned,
        }
    }
}

impl From<ReadError> for StreamError {
    fn from(error: ReadError) -> StreamError {
        match error {
            ReadError::ConnectionLost(end) => StreamError::LinkLost(end.into()),
            ReadError::Reset(_) | ReadError::ClosedStream => StreamError::Abandoned,
            ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => StreamError::Abandoned,
        }
    }
}
