//! A deposit: ciphertext in, shares out, and the plaintext only ever in memory in between.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use certs::ticket::Order;
use intake::crypt4gh::{Decryptor, SecretKey};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{mpsc, watch};
use wire::agent::{DepositReceiver, DepositSender, DepositStream};
use wire::message::{DepositInput, DepositOutput, OpenDeposit, Refused};
use zeroize::Zeroizing;

use super::session::chain;
use super::{KEEPING, Service, full, refused};

/// Decrypted pieces that may wait to be split; each is at most about as large as a message.
const WAITING: usize = 2;
/// How long the depositor may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// How often progress is told.
const PROGRESS: Duration = Duration::from_millis(200);
/// How long the broker may take to hear the last word.
const FAREWELL: Duration = Duration::from_secs(5);

impl Service {
    pub(super) async fn deposit(&self, open: OpenDeposit, stream: DepositStream, has_place: bool) {
        let DepositStream { mut sender, receiver } = stream;
        let gone = sender.gone();
        let last = tokio::select! {
            last = self.take_in(&open, &mut sender, receiver, has_place) => last,
            // Nobody is left to be told; what was written is garbage that no root names.
            () = gone => return,
        };
        let last = last.unwrap_or_else(DepositOutput::Refused);
        let _ = tokio::time::timeout(FAREWELL, sender.send(last)).await;
    }

    async fn take_in(
        &self,
        open: &OpenDeposit,
        sender: &mut DepositSender,
        receiver: DepositReceiver,
        has_place: bool,
    ) -> Result<DepositOutput, Refused> {
        // Each kind has a key of its own: what people bring cannot be passed off as a record of the house.
        let (object, key) = match self.open(&open.ticket)?.order {
            Order::Deposit(order) => (order.object, self.intake.clone()),
            Order::Keep(order) => (order.object, self.intake.derived(KEEPING)),
            Order::Session(_) | Order::Fetch(_) | Order::Workspace(_) => {
                return Err(refused(
                    "ticket.other_order",
                    "The gate's order is not one for a deposit. Try again.",
                ));
            }
        };
        if !has_place {
            return Err(full());
        }
        let vault = self.workspaces.storage().depositing().map_err(|error| {
            tracing::error!(%error, "no deposits with these backends");
            refused("deposit.backends", "This host cannot take deposits. Tell the operators.")
        })?;
        sender.send(DepositOutput::Ready).await.map_err(|_| abandoned())?;

        let (pieces, plain) = mpsc::channel(WAITING);
        let (taken, progress) = watch::channel(0);
        let plain = Plain { pieces: plain, piece: Zeroizing::default(), at: 0, ended: false };
        let entropy = &*self.entropy;
        let storing = vault.deposit(&object, plain, entropy, |bytes| {
            let _ = taken.send(bytes);
        });
        let feeding = decrypt(key, receiver, pieces);
        let telling = tell(sender, progress);
        tokio::pin!(storing, feeding, telling);
        let mut fed = false;
        let stored = loop {
            tokio::select! {
                stored = &mut storing => break stored,
                // A deposit that cannot be decrypted says so, whatever became of its first part.
                result = &mut feeding, if !fed => {
                    result?;
                    fed = true;
                }
                () = &mut telling => return Err(abandoned()),
            }
        };
        match stored {
            Ok(done) => {
                if object.is_kept() {
                    // Records are sent again under the same name: what attempts that died left goes now.
                    // What is whole stays, also if nobody heard of it: only a root can tell.
                    for left in vault.unfinished(&object).await {
                        tracing::info!(%object, "what an earlier attempt left is removed");
                        vault.abandon(&object, left.set).await;
                    }
                }
                tracing::info!(%object, size = done.size, "a deposit is complete");
                Ok(DepositOutput::Deposited { size: done.size, root: done.root })
            }
            Err(error) => {
                tracing::error!(%object, error = %chain(&error), "a deposit failed");
                Err(refused("deposit.failed", format!("The file was not stored: {error}.")))
            }
        }
    }
}

/// Decrypts until the end that the broker announces. Only then does the other side see an end.
async fn decrypt(
    key: SecretKey,
    mut receiver: DepositReceiver,
    pieces: mpsc::Sender<Piece>,
) -> Result<(), Refused> {
    let mut decryptor = Decryptor::new(key);
    loop {
        let input = match tokio::time::timeout(SILENCE, receiver.next()).await {
            Ok(Ok(Some(input))) => input,
            Ok(Ok(None) | Err(_)) => return Err(abandoned()),
            Err(_) => {
                return Err(refused(
                    "deposit.silent",
                    format!("Nothing came for {} s. Deposit the file again.", SILENCE.as_secs()),
                ));
            }
        };
        let (plain, last) = match input {
            DepositInput::Data(bytes) => (decryptor.push(&bytes), false),
            DepositInput::DataEof => (decryptor.finish(), true),
        };
        let plain = plain.map_err(|error| {
            refused(
                "deposit.crypt4gh",
                format!("The file cannot be decrypted: {error}. Encrypt it to this agent's intake key."),
            )
        })?;
        if !plain.is_empty() && pieces.send(Piece::Plain(plain)).await.is_err() {
            // The vault gave up, and says why itself.
            return Ok(());
        }
        if last {
            let _ = pieces.send(Piece::End).await;
            return Ok(());
        }
    }
}

fn abandoned() -> Refused {
    refused("deposit.abandoned", "The deposit was given up before the file was complete.")
}

/// Tells progress until the broker is gone.
async fn tell(sender: &mut DepositSender, mut progress: watch::Receiver<u64>) {
    while progress.changed().await.is_ok() {
        let bytes = *progress.borrow_and_update();
        if sender.send(DepositOutput::Progress { bytes }).await.is_err() {
            return;
        }
        tokio::time::sleep(PROGRESS).await;
    }
    std::future::pending().await
}

enum Piece {
    Plain(Zeroizing<Vec<u8>>),
    End,
}

/// Decrypted pieces as a stream of bytes. A stream that ends without [`Piece::End`] is an error,
/// so that nothing cut short is ever taken for a whole file.
struct Plain {
    pieces: mpsc::Receiver<Piece>,
    piece: Zeroizing<Vec<u8>>,
    at: usize,
    ended: bool,
}

impl AsyncRead for Plain {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.at == this.piece.len() && !this.ended {
            match ready!(this.pieces.poll_recv(context)) {
                Some(Piece::Plain(piece)) => (this.piece, this.at) = (piece, 0),
                Some(Piece::End) => this.ended = true,
                None => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            }
        }
        let take = into.remaining().min(this.piece.len() - this.at);
        into.put_slice(&this.piece[this.at..this.at + take]);
        this.at += take;
        Poll::Ready(Ok(()))
    }
}
