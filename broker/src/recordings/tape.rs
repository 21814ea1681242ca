//! One file that a recording is written to, and what is known of what is in it.

use std::fs::File;
use std::io::{self, Write};

use intake::crypt4gh::PublicKey;
use model::Entropy;
use recording::sealed::{CHUNK, Sealer};
use sha2::{Digest, Sha256};

/// Bytes of room that a tape keeps on which little happens.
const IDLE: usize = 1 << 10;

/// A file that grows. Its counts and hashes are of what was written without a fault.
pub(super) struct Tape {
    file: File,
    sealer: Sealer,
    held: Vec<u8>,
    pub(super) bytes: u64,
    pub(super) stored: u64,
    sha256: Sha256,
    stored_sha256: Sha256,
}

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tape").field("bytes", &self.bytes).field("held", &self.held.len()).finish()
    }
}

impl Tape {
    /// An empty one, whose beginning is on the disk.
    pub(super) fn begin(file: File, reader: &PublicKey, entropy: &dyn Entropy) -> io::Result<Tape> {
        let (sealer, start) = Sealer::begin(reader, entropy).map_err(io::Error::other)?;
        let mut tape = Tape {
            file,
            sealer,
            held: Vec::new(),
            bytes: 0,
            stored: 0,
            sha256: Sha256::new(),
            stored_sha256: Sha256::new(),
        };
        tape.write(&start)?;
        Ok(tape)
    }

    /// Takes plain bytes; writes the chunks that became whole.
    pub(super) fn put(&mut self, mut plain: &[u8]) -> io::Result<()> {
        while self.held.len() + plain.len() >= CHUNK {
            let (head, rest) = plain.split_at(CHUNK - self.held.len());
            self.held.extend_from_slice(head);
            plain = rest;
            self.seal(false)?;
        }
        self.held.extend_from_slice(plain);
        Ok(())
    }

    /// Writes what is held, and has it on the disk.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if !self.held.is_empty() {
            self.seal(false)?;
        }
        // Most terminals say little: their tapes are not to hold the room of a busy one.
        self.held.shrink_to(IDLE);
        self.file.sync_data()
    }

    /// Writes the end.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.seal(true)?;
        self.file.sync_all()
    }

    /// The hashes of what was put in and of what is on the disk.
    pub(super) fn hashes(&self) -> ([u8; 32], [u8; 32]) {
        (self.sha256.clone().finalize().into(), self.stored_sha256.clone().finalize().into())
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        let mut sealed = Vec::with_capacity(self.held.len() + 32);
        self.sealer.seal(&self.held, last, &mut sealed);
        self.write(&sealed)?;
        self.bytes += self.held.len() as u64;
        self.sha256.update(&self.held);
        self.held.clear();
        Ok(())
    }

    fn write(&mut self, sealed: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(sealed) {
            // Part of it may be there. What was whole before stays whole.
            let _ = self.file.set_len(self.stored);
            return Err(error);
        }
        self.stored += sealed.len() as u64;
        self.stored_sha256.update(sealed);
        Ok(())
    }
}
