//! Pipes and terminals, read and written without blocking a thread.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use bytes::{Bytes, BytesMut};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::unix::AsyncFd;

use crate::descriptors::register;

/// One end of a pipe, or the master of a terminal.
#[derive(Debug)]
pub struct Pipe(AsyncFd<OwnedFd>);

impl Pipe {
    /// Takes over a descriptor, which becomes non-blocking.
    pub fn new(fd: OwnedFd) -> io::Result<Pipe> {
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Pipe(register(fd)?))
    }

    /// Takes what is there, at most `most` bytes; nothing at the end. A terminal that nobody has open
    /// any more counts as ended. It may be cancelled without loss.
    pub async fn take(&self, most: usize) -> io::Result<Bytes> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|fd| take_now(fd.get_ref(), most)) {
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Ok(Bytes::new()),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }

    /// Writes everything.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            match ready.try_io(|fd| nix::unistd::write(fd.get_ref(), bytes).map_err(io::Error::from)) {
                Ok(Ok(written)) => bytes = &bytes[written..],
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
        Ok(())
    }

    /// Gives a terminal another size; on a pipe it is an error.
    pub fn resize(&self, rows: u16, cols: u16, width_px: u16, height_px: u16) -> io::Result<()> {
        let size = libc::winsize { ws_row: rows, ws_col: cols, ws_xpixel: width_px, ws_ypixel: height_px };
        // SAFETY: the pointer is to a `winsize` that lives through the call.
        if unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

/// Reads into memory that nothing was written to before: to clear it first would cost about as much as
/// the reading itself.
fn take_now(fd: &OwnedFd, most: usize) -> io::Result<Bytes> {
    let mut bytes = BytesMut::with_capacity(most);
    let room = &mut bytes.spare_capacity_mut()[..most];
    // SAFETY: the kernel writes at most `room.len()` bytes, all of them to where `room` lies (read(2)).
    let read = unsafe { libc::read(fd.as_raw_fd(), room.as_mut_ptr().cast(), room.len()) };
    let Ok(read) = usize::try_from(read) else { return Err(io::Error::last_os_error()) };
    // A key that comes back must not hold the room of a screen.
    if read < most / 8 {
        // SAFETY: so many bytes of it the kernel has just written.
        let written = unsafe { room[..read].assume_init_ref() };
        return Ok(Bytes::copy_from_slice(written));
    }
    // SAFETY: so many bytes from its beginning the kernel has just written, and it has room for `most`.
    unsafe { bytes.set_len(read) };
    Ok(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn what_is_there_is_taken_and_no_more_than_was_asked_for() {
        let (reader, mut writer) = io::pipe().unwrap();
        let pipe = Pipe::new(reader.into()).unwrap();
        writer.write_all(b"key").unwrap();
        assert_eq!(pipe.take(1 << 16).await.unwrap(), &b"key"[..]);
        let screen: Vec<u8> = (0..20_000_u32).map(|n| n as u8).collect();
        writer.write_all(&screen).unwrap();
        assert_eq!(pipe.take(4096).await.unwrap(), &screen[..4096]);
        assert_eq!(pipe.take(1 << 16).await.unwrap(), &screen[4096..]);
        // Nothing is lost when it is left while it waits.
        let waited = tokio::time::timeout(std::time::Duration::from_millis(5), pipe.take(9)).await;
        assert!(waited.is_err());
        writer.write_all(b"end").unwrap();
        assert_eq!(pipe.take(9).await.unwrap(), &b"end"[..]);
        drop(writer);
        assert!(pipe.take(9).await.unwrap().is_empty());
    }
}
