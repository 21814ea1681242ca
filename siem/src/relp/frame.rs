//! Frames: `transaction SP command SP length [SP data] LF`.

/// The most data an answer may have. Real ones have some hundred bytes.
pub const ANSWER_MAX: usize = 8192;
/// What a head may have: nine digits, 32 letters, nine digits, and blanks.
const HEAD_MAX: usize = 9 + 1 + COMMAND_MAX + 1 + 9;
const COMMAND_MAX: usize = 32;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Which transaction it belongs to.
    pub transaction: u32,
    /// What it is: letters only.
    pub command: String,
    /// What it carries.
    pub data: Vec<u8>,
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The head is not as it should be.
    #[error("the collector sent something that is not RELP")]
    Malformed,
    /// More data than any answer needs.
    #[error("the collector sent an answer of {0} bytes, more than {ANSWER_MAX}")]
    TooLong(u32),
}

/// Finds frames in a stream. It holds at most one.
#[derive(Debug, Default)]
pub struct Decoder {
    held: Vec<u8>,
    failed: Option<FrameError>,
}

impl Decoder {
    /// The next frame, taken from what is held and then from `bytes`, which is moved on. None: more
    /// bytes are needed. After an error there are no more frames.
    pub fn next_frame(&mut self, bytes: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        loop {
            match parse(&self.held) {
                Ok(Parsed::Whole(frame)) => {
                    self.held.clear();
                    return Ok(Some(frame));
                }
                Ok(Parsed::Needs(count)) => {
                    let Some((taken, rest)) = bytes.split_at_checked(count.min(bytes.len())) else {
                        return Ok(None);
                    };
                    if taken.is_empty() {
                        return Ok(None);
                    }
                    self.held.extend_from_slice(taken);
                    *bytes = rest;
                }
                Err(error) => {
                    self.failed = Some(error);
                    return Err(error);
                }
            }
        }
    }

    /// Bytes held of an unfinished frame.
    pub fn held(&self) -> usize {
        self.held.len()
    }
}

enum Parsed {
    Whole(Frame),
    /// At least so many bytes are missing.
    Needs(usize),
}

fn parse(held: &[u8]) -> Result<Parsed, FrameError> {
    // A byte at a time while the head is not complete: it is short, and nothing is taken too much.
    let Some((transaction, rest)) = number(held)? else { return Ok(Parsed::Needs(1)) };
    let Some(rest) = after_blank(rest)? else { return Ok(Parsed::Needs(1)) };
    let letters = rest.iter().take_while(|b| b.is_ascii_alphabetic()).count();
    if letters > COMMAND_MAX || (letters == 0 && !rest.is_empty()) {
        return Err(FrameError::Malformed);
    }
    let (command, rest) = rest.split_at(letters);
    let Some(rest) = after_blank(rest)? else { return Ok(Parsed::Needs(1)) };
    let Some((len, rest)) = number(rest)? else { return Ok(Parsed::Needs(1)) };
    let size = len as usize;
    if size > ANSWER_MAX {
        return Err(FrameError::TooLong(len));
    }
    // librelp sends no data as "0 LF", others as "0 SP LF".
    let data = match rest {
        [b'\n'] if size == 0 => &rest[..0],
        [b' ', data @ ..] => data,
        _ => return Err(FrameError::Malformed),
    };
    if size == 0 && rest == b"\n" {
        return whole(transaction, command, data);
    }
    match data.len().cmp(&(size + 1)) {
        std::cmp::Ordering::Less => Ok(Parsed::Needs(size + 1 - data.len())),
        std::cmp::Ordering::Equal if data[size] == b'\n' => whole(transaction, command, &data[..size]),
        _ => Err(FrameError::Malformed),
    }
}

fn whole(transaction: u32, command: &[u8], data: &[u8]) -> Result<Parsed, FrameError> {
    let command = String::from_utf8_lossy(command).into_owned();
    Ok(Parsed::Whole(Frame { transaction, command, data: data.to_vec() }))
}

/// One to nine digits that end before something else; None while they may go on.
fn number(bytes: &[u8]) -> Result<Option<(u32, &[u8])>, FrameError> {
    let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits > 9 || (digits == 0 && !bytes.is_empty()) {
        return Err(FrameError::Malformed);
    }
    debug_assert!(bytes.len() <= HEAD_MAX + 2 + ANSWER_MAX);
    if digits == bytes.len() {
        return Ok(None);
    }
    let (digits, rest) = bytes.split_at(digits);
    let value = digits.iter().fold(0_u32, |value, digit| value * 10 + u32::from(digit - b'0'));
    Ok(Some((value, rest)))
}

fn after_blank(bytes: &[u8]) -> Result<Option<&[u8]>, FrameError> {
    match bytes {
        [] => Ok(None),
        [b' ', rest @ ..] => Ok(Some(rest)),
        _ => Err(FrameError::Malformed),
    }
}
