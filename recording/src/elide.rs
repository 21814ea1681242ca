//! How much of a flood of output is kept.
//!
//! A person reads some kilobytes a minute; `cat genome.vcf` sends hundreds of megabytes. Within each
//! minute the first output is kept, as long as what is written of it takes less than a limit; what comes
//! beyond is left out of the recording, counted and hashed, so that a copy from elsewhere can still be
//! proved to be what was shown. It is what is written that counts: a zero byte becomes six.

use sha2::{Digest, Sha256};

/// The length of a window, in milliseconds.
const WINDOW: u64 = 60_000;

/// Bytes that were left out, in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elided {
    /// How many.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: [u8; 32],
}

impl Elided {
    /// As the marker in a recording says it.
    pub fn label(&self) -> String {
        let hash: String = self.sha256.iter().map(|b| format!("{b:02x}")).collect();
        format!("sekisho: {} bytes of output left out here, SHA-256 {hash}", self.bytes)
    }
}

impl Elided {
    /// How many bytes a marker in a recording says were left out, if it says that.
    pub fn bytes_in(label: &str) -> Option<u64> {
        let (number, rest) = label.strip_prefix("sekisho: ")?.split_once(' ')?;
        rest.starts_with("bytes of output left out here, ").then(|| number.parse().ok())?
    }
}

/// Keeps up to a limit in each minute.
#[derive(Debug)]
pub struct Elider {
    limit: Option<u64>,
    window: Option<u64>,
    kept: u64,
    open: Option<(u64, Sha256)>,
}

impl Elider {
    /// Keeps output until what is written of it in a minute takes `limit` bytes; all of it if there is no
    /// limit. Whoever writes it says how much that was, with [`Elider::wrote`].
    pub fn new(limit: Option<u64>) -> Elider {
        Elider { limit, window: None, kept: 0, open: None }
    }

    /// Takes output at an instant, in milliseconds: what was left out before it and ended here, and
    /// the part of it that is kept.
    pub fn take<'a>(&mut self, millis: u64, data: &'a [u8]) -> (Option<Elided>, &'a [u8]) {
        let Some(limit) = self.limit else { return (None, data) };
        let mut ended = None;
        let begun = *self.window.get_or_insert(millis);
        if millis.saturating_sub(begun) >= WINDOW {
            self.window = Some(millis);
            self.kept = 0;
            ended = self.end();
        }
        let room = usize::try_from(limit.saturating_sub(self.kept)).unwrap_or(usize::MAX);
        let (kept, left) = data.split_at(data.len().min(room));
        if !left.is_empty() {
            let (bytes, hash) = self.open.get_or_insert_with(|| (0, Sha256::new()));
            *bytes += left.len() as u64;
            hash.update(left);
        }
        (ended, kept)
    }

    /// What was kept of the last output took so many bytes.
    pub fn wrote(&mut self, bytes: usize) {
        self.kept = self.kept.saturating_add(bytes as u64);
    }

    /// What has been left out and is not told yet.
    pub fn end(&mut self) -> Option<Elided> {
        let (bytes, hash) = self.open.take()?;
        Some(Elided { bytes, sha256: hash.finalize().into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_limit_is_counted_and_hashed_until_the_minute_is_over() {
        let mut elider = Elider::new(Some(10));
        assert_eq!(elider.take(5, b"12345"), (None, &b"12345"[..]));
        elider.wrote(5);
        assert_eq!(elider.take(9, b"6789abc"), (None, &b"6789a"[..]));
        elider.wrote(5);
        assert_eq!(elider.take(59_000, b"def"), (None, &b""[..]));
        elider.wrote(0);
        let (left, kept) = elider.take(60_005, b"new");
        elider.wrote(3);
        let left = left.unwrap();
        assert_eq!((left.bytes, kept), (5, &b"new"[..]));
        assert_eq!(left.sha256, <[u8; 32]>::from(Sha256::digest(b"bcdef")));
        assert_eq!(Elided::bytes_in(&left.label()), Some(5));
        assert_eq!(Elided::bytes_in("sekisho: 5 apples"), None);
        assert_eq!(elider.end(), None);
        // Seven fit by their number; written down they took more than there was.
        assert_eq!(elider.take(60_006, b"0123456789").1.len(), 7);
        elider.wrote(42);
        assert_eq!(elider.take(60_007, b"x").1, b"");
        assert_eq!(elider.end().unwrap().bytes, 4);
    }

    #[test]
    fn without_a_limit_everything_is_kept() {
        let mut elider = Elider::new(None);
        let data = vec![7; 1 << 20];
        for at in 0..100 {
            assert_eq!(elider.take(at, &data), (None, &data[..]));
        }
    }
}
