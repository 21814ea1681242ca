//! The connection below TLS, watched: how much was written, and how much of it the other side has.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A TCP connection that counts what is written into it.
pub(crate) struct Counted {
    stream: TcpStream,
    written: Arc<AtomicU64>,
}

/// Tells how far the other side's TCP is. It keeps the socket open while it lives.
pub(crate) struct Progress {
    socket: OwnedFd,
    written: Arc<AtomicU64>,
}

impl Counted {
    pub(crate) fn new(stream: TcpStream) -> io::Result<(Counted, Progress)> {
        let written = Arc::new(AtomicU64::new(0));
        let socket = stream.as_fd().try_clone_to_owned()?;
        Ok((Counted { stream, written: Arc::clone(&written) }, Progress { socket, written }))
    }
}

impl Progress {
    /// Bytes handed to the system so far.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Bytes that the other side's TCP has acknowledged.
    pub(crate) fn acknowledged(&self) -> io::Result<u64> {
        let written = self.written();
        let mut waiting: libc::c_int = 0;
        // SAFETY: the descriptor is open for as long as `self` lives, and TIOCOUTQ (which is
        // SIOCOUTQ for sockets) writes one int to the address given.
        let answer = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut waiting) };
        if answer < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(written.saturating_sub(u64::try_from(waiting).unwrap_or(0)))
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.written.fetch_add(count as u64, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
