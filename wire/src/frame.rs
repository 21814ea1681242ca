//! Frames: how messages lie on a stream.
//!
//! A frame is a length (`u32`, little-endian, of what follows), a tag (`u8`) and a body. What a body
//! may measure depends on its tag and is checked before a byte of it is kept, so a peer can make
//! the other side hold one frame's worth of memory per stream and no more.
//!
//! Bulk data is a stream of its own, and where its frames end says nothing: a long one is handed on in
//! parts as it arrives.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

/// Bytes before the body: the length and the tag.
pub const HEAD: usize = 5;
/// The most a body of bulk data measures, in bytes. Longer data becomes several frames.
pub const DATA_MAX: usize = 256 * 1024;
/// Longer bulk data is handed on in parts of this many bytes or more, which is what one packet of SSH
/// carries: much smaller ones would cost their receivers more than the copying that gathers them.
pub const PART: usize = 32 * 1024;
/// The most the body of an order (which carries a ticket) measures, in bytes.
pub const ORDER_MAX: usize = 2 * 1024 * 1024;
/// The most the body of what an agent says of itself measures, in bytes: it names workspaces.
pub const LOAD_MAX: usize = 128 * 1024;
/// The most any other body measures, in bytes.
pub const CONTROL_MAX: usize = 64 * 1024;

/// Below this, a body is copied behind its head instead of travelling as a buffer of its own.
const SMALL: usize = 1024;

/// Why bytes are not a frame, or a message cannot become one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A tag that this version does not know.
    #[error("unknown frame tag {0:#04x}")]
    UnknownTag(u8),
    /// A length of zero: not even a tag.
    #[error("a frame without a tag")]
    NoTag,
    /// A body longer than its tag allows.
    #[error("a {tag:?} frame of {len} bytes, {limit} are allowed")]
    TooLong {
        /// The frame's tag.
        tag: Tag,
        /// What it measures, or claims to.
        len: usize,
        /// What it may measure.
        limit: usize,
    },
    /// A body that is not what its tag says.
    #[error("the body of a {tag:?} frame is malformed")]
    Malformed {
        /// The frame's tag.
        tag: Tag,
        /// What the decoder found.
        #[source]
        source: postcard::Error,
    },
    /// Bytes left over behind a complete body.
    #[error("{extra} bytes too many in the body of a {tag:?} frame")]
    Trailing {
        /// The frame's tag.
        tag: Tag,
        /// How many.
        extra: usize,
    },
    /// A data frame without data.
    #[error("an empty {0:?} frame")]
    Empty(Tag),
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Truncated,
}

macro_rules! tags {
    ($($name:ident = $value:literal, $limit:expr;)*) => {
        /// What a frame is. Values are part of the protocol.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[expect(missing_docs, reason = "each is the message of the same name")]
        pub enum Tag { $($name = $value,)* }

        impl Tag {
            /// Every tag.
            pub const ALL: &[Tag] = &[$(Tag::$name),*];

            /// The most the body measures, in bytes.
            pub const fn limit(self) -> usize {
                match self { $(Tag::$name => $limit,)* }
            }

            /// Whether the body is bulk data, which may be handed on in parts.
            pub const fn is_bulk(self) -> bool {
                matches!(self, Tag::Stdin | Tag::Stdout | Tag::Stderr | Tag::Data | Tag::Piece)
            }
        }

        impl TryFrom<u8> for Tag {
            type Error = FrameError;

            fn try_from(value: u8) -> Result<Tag, FrameError> {
                match value {
                    $($value => Ok(Tag::$name),)*
                    other => Err(FrameError::UnknownTag(other)),
                }
            }
        }
    };
}

tags! {
    Hello = 0x01, LOAD_MAX;
    Report = 0x02, CONTROL_MAX;
    Load = 0x03, LOAD_MAX;
    Welcome = 0x11, CONTROL_MAX;
    Reject = 0x12, CONTROL_MAX;
    Ack = 0x13, CONTROL_MAX;
    Accept = 0x14, CONTROL_MAX;
    ControlOrder = 0x15, CONTROL_MAX;
    OpenSession = 0x20, ORDER_MAX;
    Stdin = 0x21, DATA_MAX;
    StdinEof = 0x22, 0;
    Resize = 0x23, CONTROL_MAX;
    Signal = 0x24, CONTROL_MAX;
    Kill = 0x25, CONTROL_MAX;
    Leave = 0x26, CONTROL_MAX;
    Opened = 0x30, CONTROL_MAX;
    SessionRefused = 0x31, CONTROL_MAX;
    Stdout = 0x32, DATA_MAX;
    Stderr = 0x33, DATA_MAX;
    Exit = 0x34, CONTROL_MAX;
    Aborted = 0x35, CONTROL_MAX;
    StdoutEof = 0x36, 0;
    OpenDeposit = 0x40, ORDER_MAX;
    Data = 0x41, DATA_MAX;
    DataEof = 0x42, 0;
    Ready = 0x50, 0;
    DepositRefused = 0x51, CONTROL_MAX;
    Progress = 0x52, CONTROL_MAX;
    Deposited = 0x53, CONTROL_MAX;
    OpenFetch = 0x60, ORDER_MAX;
    Received = 0x61, 0;
    Found = 0x70, CONTROL_MAX;
    FetchRefused = 0x71, CONTROL_MAX;
    Piece = 0x72, DATA_MAX;
    PieceEof = 0x73, 0;
}

/// A frame with its body not yet looked into; or of bulk data, a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub tag: Tag,
    /// Its body, at most [`Tag::limit`] bytes.
    pub body: Bytes,
}

impl Frame {
    /// The body as bulk data, which is never empty.
    pub fn data(self) -> Result<Bytes, FrameError> {
        if self.body.is_empty() { Err(FrameError::Empty(self.tag)) } else { Ok(self.body) }
    }

    /// The body as a control message, which fills it.
    pub fn control<T: DeserializeOwned>(&self) -> Result<T, FrameError> {
        let tag = self.tag;
        match postcard::take_from_bytes(&self.body) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(FrameError::Trailing { tag, extra: rest.len() }),
            Err(source) => Err(FrameError::Malformed { tag, source }),
        }
    }
}

/// Appends `data` to `out` as frames of at most [`DATA_MAX`] each, without copying more than a few
/// bytes; no data, no frame.
pub fn put_data(tag: Tag, mut data: Bytes, out: &mut VecDeque<Bytes>) {
    while !data.is_empty() {
        let body = data.split_to(data.len().min(DATA_MAX));
        put(tag, body, out);
    }
}

/// Appends a control message to `out`. Nothing is appended on an error.
pub fn put_control(tag: Tag, message: &impl Serialize, out: &mut VecDeque<Bytes>) -> Result<(), FrameError> {
    let body = postcard::to_stdvec(message).map_err(|source| FrameError::Malformed { tag, source })?;
    let (len, limit) = (body.len(), tag.limit());
    if len > limit {
        return Err(FrameError::TooLong { tag, len, limit });
    }
    put(tag, body.into(), out);
    Ok(())
}

fn put(tag: Tag, body: Bytes, out: &mut VecDeque<Bytes>) {
    // Every limit is far below u32::MAX.
    let length = (body.len() as u32 + 1).to_le_bytes();
    let copied = if body.len() <= SMALL { body.len() } else { 0 };
    let mut head = BytesMut::with_capacity(HEAD + copied);
    head.extend_from_slice(&length);
    head.extend_from_slice(&[tag as u8]);
    head.extend_from_slice(&body[..copied]);
    out.push_back(head.freeze());
    if copied < body.len() {
        out.push_back(body);
    }
}

/// Finds the frames in a stream, however it was cut into chunks.
#[derive(Debug, Default)]
pub struct Decoder {
    chunks: VecDeque<Bytes>,
    // A frame, or part of one, that did not arrive in one chunk; what does never comes here.
    partial: BytesMut,
    // The bulk frame whose parts are being handed on, and the bytes of it that are still to be.
    under_way: Option<(Tag, usize)>,
}

impl Decoder {
    /// Takes the next bytes of the stream. To hold no more than it must, the caller pushes only
    /// after [`Decoder::next_frame`] has returned nothing.
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.chunks.push_back(chunk);
        }
    }

    /// The next frame, or nothing until more is pushed. After an error the stream is lost: there
    /// is no telling where the next frame begins.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some((tag, left)) = self.under_way {
            return Ok(self.next_part(tag, left));
        }
        // A head is copied; a body that lies behind it whole is not.
        if !self.gather(HEAD) {
            return Ok(None);
        }
        let (tag, body) = head(&self.partial)?;
        if tag.is_bulk() && body > PART {
            self.partial.clear();
            return Ok(self.next_part(tag, body));
        }
        if self.partial.len() == HEAD
            && let Some(body) = self.whole(body)
        {
            self.partial.clear();
            return Ok(Some(Frame { tag, body }));
        }
        if !self.gather(HEAD + body) {
            return Ok(None);
        }
        let body = self.partial.split().freeze().split_off(HEAD);
        Ok(Some(Frame { tag, body }))
    }

    /// The stream ended here: fine between frames only.
    pub fn end(&self) -> Result<(), FrameError> {
        let between = self.under_way.is_none() && self.partial.is_empty() && self.chunks.is_empty();
        if between { Ok(()) } else { Err(FrameError::Truncated) }
    }

    /// How many bytes are held.
    pub fn held(&self) -> usize {
        self.partial.len() + self.chunks.iter().map(Bytes::len).sum::<usize>()
    }

    /// The next part of a bulk frame of which `left` bytes are still to be handed on.
    fn next_part(&mut self, tag: Tag, left: usize) -> Option<Frame> {
        self.under_way = Some((tag, left));
        let least = left.min(PART);
        let there = self.chunks.front().map_or(0, Bytes::len);
        let body = if self.partial.is_empty() && there >= least {
            self.whole(there.min(left))?
        } else if self.gather(least) {
            self.partial.split().freeze()
        } else {
            return None;
        };
        let left = left - body.len();
        self.under_way = (left > 0).then_some((tag, left));
        Some(Frame { tag, body })
    }

    /// The next `want` bytes, if they lie in one chunk.
    fn whole(&mut self, want: usize) -> Option<Bytes> {
        if want == 0 {
            return Some(Bytes::new());
        }
        let chunk = self.chunks.front_mut().filter(|chunk| chunk.len() >= want)?;
        let body = chunk.split_to(want);
        if chunk.is_empty() {
            self.chunks.pop_front();
        }
        Some(body)
    }

    /// Moves chunks into the partial frame until it has `want` bytes; whether it has.
    fn gather(&mut self, want: usize) -> bool {
        self.partial.reserve(want.saturating_sub(self.partial.len()));
        while self.partial.len() < want {
            let Some(chunk) = self.chunks.front_mut() else { return false };
            let part = chunk.split_to(chunk.len().min(want - self.partial.len()));
            self.partial.extend_from_slice(&part);
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
        }
        true
    }
}

/// The tag of the frame that begins here, and what its body measures. `bytes` holds [`HEAD`] or more.
fn head(bytes: &[u8]) -> Result<(Tag, usize), FrameError> {
    let [a, b, c, d, tag, ..] = *bytes else { return Err(FrameError::Truncated) };
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    let body = length.checked_sub(1).ok_or(FrameError::NoTag)?;
    let tag = Tag::try_from(tag)?;
    if body > tag.limit() {
        return Err(FrameError::TooLong { tag, len: body, limit: tag.limit() });
    }
    Ok((tag, body))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(chunks: impl IntoIterator<Item = Bytes>) -> Result<Vec<Frame>, FrameError> {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for chunk in chunks {
            decoder.push(chunk);
            while let Some(frame) = decoder.next_frame()? {
                frames.push(frame);
            }
            assert!(decoder.held() <= HEAD + ORDER_MAX);
        }
        decoder.end()?;
        Ok(frames)
    }

    /// Bulk data that follows on each other is one.
    fn joined(frames: Vec<Frame>) -> Vec<(Tag, Vec<u8>)> {
        let mut all: Vec<(Tag, Vec<u8>)> = Vec::new();
        for frame in frames {
            match all.last_mut() {
                Some((tag, body)) if *tag == frame.tag && tag.is_bulk() => {
                    body.extend_from_slice(&frame.body)
                }
                _ => all.push((frame.tag, frame.body.to_vec())),
            }
        }
        all
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_the_body_arrives() {
        for &tag in Tag::ALL {
            let mut bytes = (tag.limit() as u32 + 2).to_le_bytes().to_vec();
            bytes.push(tag as u8);
            assert!(matches!(decode([bytes.into()]), Err(FrameError::TooLong { .. })), "{tag:?}");
        }
        assert_eq!(decode([Bytes::from_static(&[0, 0, 0, 0, 0x21])]), Err(FrameError::NoTag));
        assert_eq!(decode([Bytes::from_static(&[1, 0, 0, 0, 0xff])]), Err(FrameError::UnknownTag(0xff)));
        assert_eq!(decode([Bytes::from_static(&[9, 0, 0, 0, 0x21, 1])]), Err(FrameError::Truncated));
    }

    #[test]
    fn long_data_becomes_several_frames_that_share_its_memory() {
        let data = Bytes::from(vec![7; 2 * DATA_MAX + 10]);
        let mut out = VecDeque::new();
        put_data(Tag::Stdout, data.clone(), &mut out);
        let sizes: Vec<usize> = out.iter().map(Bytes::len).collect();
        assert_eq!(sizes, [HEAD, DATA_MAX, HEAD, DATA_MAX, HEAD + 10]);
        assert_eq!(out[1].as_ptr(), data.as_ptr());
        let frames = decode(out).unwrap();
        assert_eq!(frames.iter().map(|f| f.body.len()).sum::<usize>(), data.len());
    }

    #[test]
    fn a_frame_that_arrives_whole_is_not_copied() {
        let mut out = VecDeque::new();
        put_data(Tag::Stdin, Bytes::from_static(b"ls\n"), &mut out);
        let chunk = out.pop_front().unwrap();
        let mut decoder = Decoder::default();
        decoder.push(chunk.clone());
        let frame = decoder.next_frame().unwrap().unwrap();
        assert_eq!(frame.body.as_ptr(), chunk[HEAD..].as_ptr());
    }

    #[test]
    fn long_data_is_handed_on_as_it_arrives() {
        let mut out = VecDeque::new();
        put_data(Tag::Stdout, vec![7; DATA_MAX].into(), &mut out);
        let mut stream = Bytes::from(out.iter().flatten().copied().collect::<Vec<u8>>());
        let mut decoder = Decoder::default();
        let mut next = |chunk: Bytes| {
            decoder.push(chunk);
            decoder.next_frame().unwrap().map(|frame| frame.body)
        };
        // Little is gathered, much passes as it is.
        assert_eq!(next(stream.split_to(HEAD + PART - 1)), None);
        assert_eq!(next(stream.split_to(1)).unwrap().len(), PART);
        let large = stream.split_to(2 * PART - 1);
        let part = next(large.clone()).unwrap();
        assert_eq!((part.as_ptr(), part.len()), (large.as_ptr(), large.len()));
        assert_eq!(next(stream.split_to(10)), None);
        let rest = next(stream.split_to(stream.len())).unwrap();
        assert_eq!(rest.len(), PART);
        assert_eq!(decoder.end(), Err(FrameError::Truncated));
        assert_eq!(decoder.next_frame().unwrap().unwrap().body.len(), DATA_MAX - 4 * PART + 1);
        assert_eq!(decoder.next_frame(), Ok(None));
        assert_eq!(decoder.end(), Ok(()));
    }

    #[test]
    fn a_control_message_too_long_is_refused_by_its_sender() {
        let mut out = VecDeque::new();
        let error = put_control(Tag::Kill, &"x".repeat(CONTROL_MAX), &mut out).unwrap_err();
        assert!(matches!(error, FrameError::TooLong { tag: Tag::Kill, .. }));
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_frames(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..3000), 0..8),
            cuts in prop::collection::vec(1usize..700, 1..40),
        ) {
            let mut out = VecDeque::new();
            for body in &bodies {
                put_data(Tag::Data, body.clone().into(), &mut out);
            }
            let stream: Vec<u8> = out.iter().flatten().copied().collect();
            let mut rest = Bytes::from(stream);
            let mut cuts = cuts.iter().cycle();
            let chunks = std::iter::from_fn(|| {
                let n = (*cuts.next()?).min(rest.len());
                (n > 0).then(|| rest.split_to(n))
            });
            let frames = decode(chunks).unwrap();
            let back: Vec<Vec<u8>> = frames.into_iter().map(|f| f.body.to_vec()).collect();
            prop_assert_eq!(back, bodies);
        }

        #[test]
        fn long_data_is_the_same_however_it_was_cut(
            bodies in prop::collection::vec((0..5_usize, 1..DATA_MAX), 1..5),
            cuts in prop::collection::vec(1..3 * PART, 1..40),
        ) {
            let bulk = [Tag::Stdin, Tag::Stdout, Tag::Stderr, Tag::Data, Tag::Piece];
            let mut out = VecDeque::new();
            for (at, &(tag, length)) in bodies.iter().enumerate() {
                let body: Vec<u8> = (0..length).map(|n| (n * 7 + n / 251 + at) as u8).collect();
                put_data(bulk[tag], body.into(), &mut out);
            }
            let frames = decode(out.clone()).unwrap();
            let mut rest = Bytes::from(out.iter().flatten().copied().collect::<Vec<u8>>());
            let mut cuts = cuts.iter().cycle();
            let chunks = std::iter::from_fn(|| {
                let n = (*cuts.next()?).min(rest.len());
                (n > 0).then(|| rest.split_to(n))
            });
            prop_assert_eq!(joined(decode(chunks).unwrap()), joined(frames));
        }

        #[test]
        fn hostile_bytes_never_panic_nor_pile_up(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..20),
        ) {
            let _ = decode(chunks.into_iter().map(Bytes::from));
        }
    }
}
