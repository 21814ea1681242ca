//! Content of files on its way out: read into the answers that wait, or handed on by the kernel.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, splice};
use wire::sftp::{CONTENT_HEAD, PACKET_MAX, kind};

/// Answers that wait to be written. What it grows to once it keeps, so that no answer has to clear the
/// room that its content is read into.
#[derive(Default)]
pub struct Out {
    bytes: Vec<u8>,
    held: usize,
}

impl Out {
    pub fn held(&self) -> &[u8] {
        &self.bytes[..self.held]
    }

    /// Writes what is held, which is held no more then.
    pub fn write_to(&mut self, mut output: impl io::Write) -> io::Result<()> {
        output.write_all(self.held())?;
        self.held = 0;
        Ok(())
    }

    /// Room for so many bytes more. They count once they are [`kept`](Out::keep).
    pub fn room(&mut self, length: usize) -> &mut [u8] {
        let end = self.held + length;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.held..end]
    }

    pub fn keep(&mut self, length: usize) {
        self.held += length;
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.keep(bytes.len());
    }
}

/// Content that was asked for.
pub struct Wanted {
    pub file: Rc<File>,
    pub offset: u64,
    pub length: usize,
}

impl Wanted {
    /// Reads it, as far as it goes: how much.
    pub fn read(&self, content: &mut [u8]) -> io::Result<usize> {
        let mut read = 0;
        while read < self.length {
            match self.file.read_at(&mut content[read..], self.offset.saturating_add(read as u64)) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if read > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }
}

/// What stands before content: length, type, number of the request, length of the content. No content is
/// longer than [`CONTENT_MAX`](super::CONTENT_MAX).
pub fn content_head(id: u32, content: usize) -> [u8; CONTENT_HEAD] {
    let mut head = [0; CONTENT_HEAD];
    head[..4].copy_from_slice(&(content as u32 + 9).to_be_bytes());
    head[4] = kind::DATA;
    head[5..9].copy_from_slice(&id.to_be_bytes());
    head[9..].copy_from_slice(&(content as u32).to_be_bytes());
    head
}

/// A pipe of our own between a file and the output: how much the file gives is known before its length is
/// sent, and what cannot be read is an answer and not an end.
pub struct Passage {
    inlet: io::PipeWriter,
    outlet: io::PipeReader,
}

impl Passage {
    /// One that the content of any answer fits into, or none.
    pub fn open() -> Option<Passage> {
        let (outlet, inlet) = io::pipe().ok()?;
        // A piece that does not begin with a page touches one page more.
        let room = fcntl(&inlet, FcntlArg::F_SETPIPE_SZ(2 * PACKET_MAX as i32)).ok()?;
        (room as usize > PACKET_MAX).then_some(Passage { inlet, outlet })
    }

    /// Takes content in, as far as it goes: how much.
    pub fn fill(&self, wanted: &Wanted) -> Result<usize, Errno> {
        let mut at = i64::try_from(wanted.offset).map_err(|_| Errno::EOVERFLOW)?;
        let mut taken = 0;
        while taken < wanted.length {
            let left = wanted.length - taken;
            match splice(
                &*wanted.file,
                Some(&mut at),
                &self.inlet,
                None,
                left,
                SpliceFFlags::SPLICE_F_NONBLOCK,
            ) {
                Ok(0) => break,
                Ok(more) => taken += more,
                Err(Errno::EINTR) => {}
                Err(_) if taken > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(taken)
    }

    /// Gives out what was taken in.
    pub fn empty(&self, mut left: usize, output: &File) -> io::Result<()> {
        while left > 0 {
            match splice(&self.outlet, None, output, None, left, SpliceFFlags::empty()) {
                Ok(0) => return Err(io::ErrorKind::BrokenPipe.into()),
                Ok(given) => left -= given,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn file(content: &[u8]) -> Rc<File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        Rc::new(file)
    }

    #[test]
    fn what_the_kernel_hands_on_is_what_is_read() {
        let bytes: Vec<u8> = (0..600_000_u32).map(|n| (n ^ (n >> 8)) as u8).collect();
        let file = file(&bytes);
        let passage = Passage::open().unwrap();
        // Beginnings that are no page's, the largest answer, the end and what lies behind it.
        for (offset, length) in
            [(0, 16 << 10), (4095, 255 << 10), (1, PACKET_MAX), (599_999, 20_000), (600_000, 9), (1 << 40, 9)]
        {
            let wanted = Wanted { file: Rc::clone(&file), offset, length };
            let mut read = vec![0; length];
            let there = wanted.read(&mut read).unwrap();
            assert_eq!(passage.fill(&wanted), Ok(there), "{offset} {length}");
            let (mut outlet, output) = io::pipe().unwrap();
            let reading = std::thread::spawn(move || {
                let mut got = Vec::new();
                outlet.read_to_end(&mut got).map(|_| got)
            });
            passage.empty(there, &File::from(std::os::fd::OwnedFd::from(output))).unwrap();
            assert!(reading.join().unwrap().unwrap() == read[..there], "{offset} {length}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_before_anything_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        let file = Rc::new(File::create(dir.path().join("only written")).unwrap());
        let wanted = Wanted { file, offset: 0, length: 100 };
        assert_eq!(Passage::open().unwrap().fill(&wanted), Err(Errno::EBADF));
        assert!(wanted.read(&mut [0; 100]).is_err());
    }

    #[test]
    fn answers_wait_in_room_that_was_used_before() {
        let mut out = Out::default();
        out.push(b"first");
        out.room(9)[..3].copy_from_slice(b"abc");
        out.keep(3);
        assert_eq!(out.held(), b"firstabc");
        let mut written = Vec::new();
        out.write_to(&mut written).unwrap();
        assert_eq!(written, b"firstabc");
        assert_eq!(out.held(), b"");
        out.push(b"x");
        assert_eq!(out.held(), b"x");
    }
}
