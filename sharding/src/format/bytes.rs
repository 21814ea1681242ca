//! Fixed-width little-endian fields, written and read in order and within bounds.

use model::ObjectId;

/// Longest text of an object id that a field holds: its prefix and 63 characters, and some room.
pub(super) const NAME_FIELD: usize = 71;

#[derive(Default)]
pub(super) struct Writer(pub Vec<u8>);

impl Writer {
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A length byte and 71 bytes of text, zero-padded.
    pub(super) fn object(&mut self, object: &ObjectId) -> &mut Self {
        let text = object.as_str().as_bytes();
        let text = &text[..text.len().min(NAME_FIELD)];
        self.bytes(&[text.len() as u8]).bytes(text).zeros(NAME_FIELD - text.len())
    }

    pub(super) fn zeros(&mut self, count: usize) -> &mut Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }
}

/// Answers `None` at the first field that is not there or not well-formed.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn object(&mut self) -> Option<ObjectId> {
        let [len] = self.array()?;
        let field = self.bytes(NAME_FIELD)?;
        let (text, padding) = field.split_at_checked(usize::from(len))?;
        let object = std::str::from_utf8(text).ok()?.parse().ok()?;
        padding.iter().all(|&byte| byte == 0).then_some(object)
    }

    pub(super) fn zeros(&mut self, count: usize) -> Option<()> {
        self.bytes(count)?.iter().all(|&byte| byte == 0).then_some(())
    }
}
