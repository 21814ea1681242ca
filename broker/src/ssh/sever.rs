//! A connection that can be cut from outside, whatever its protocol is waiting for.
//!
//! The SSH machine may be stuck writing to a client that does not read. A disconnect message would
//! queue behind the stuck bytes; cutting the stream below the machine always works.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Cuts one connection; copies cut the same one.
#[derive(Debug, Clone, Default)]
pub struct Knife(CancellationToken);

impl Knife {
    /// A knife for a connection still to come.
    pub fn new() -> Knife {
        Knife::default()
    }

    /// Cuts: every read and write of the connection fails from now on.
    pub fn cut(&self) {
        self.0.cancel();
    }

    /// Whether the connection is cut.
    pub fn is_cut(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Cuts after `delay`, unless the connection is gone by then.
    pub fn cut_after(&self, delay: std::time::Duration, gone: CancellationToken) {
        let knife = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(delay) => knife.cut(),
                () = gone.cancelled() => {}
            }
        });
    }

    /// The connection over `stream` that this knife cuts.
    pub fn guard<S>(&self, stream: S) -> Severable<S> {
        Severable { stream, cut: Box::pin(self.0.clone().cancelled_owned()), knife: self.clone() }
    }
}

/// A stream under a [`Knife`].
#[derive(Debug)]
pub struct Severable<S> {
    stream: S,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    knife: Knife,
}

impl<S> Severable<S> {
    /// Fails when cut; otherwise has the task woken by the cut.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        // A finished future must not be polled again, so the flag is asked first.
        if self.knife.is_cut() || self.cut.as_mut().poll(cx).is_ready() {
            Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was cut"))
        } else {
            Ok(())
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Severable<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Severable<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_cut_wakes_a_stuck_writer_and_a_stuck_reader() {
        let (near, _far) = tokio::io::duplex(16);
        let knife = Knife::new();
        let (mut reader, mut writer) = tokio::io::split(knife.guard(near));
        let stuck = tokio::spawn(async move {
            tokio::join!(async { reader.read_u8().await.map(|_| ()) }, async {
                writer.write_all(&[0; 4096]).await
            })
        });
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        assert!(!stuck.is_finished());
        knife.cut();
        let (read, wrote) = stuck.await.unwrap();
        assert!(read.is_err() && wrote.is_err());
    }
}
