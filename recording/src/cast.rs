//! asciicast v3 (<https://docs.asciinema.org/manual/asciicast/v3/>): a header, then an event a line
//! with the time since the one before.
//!
//! Times are kept in whole milliseconds of the session and differences are taken between those, so
//! that rounding never adds up.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// The longest line that is read, in bytes.
pub const LINE_MAX: usize = 1 << 20;
/// The longest interval that is read, in seconds: a year.
const INTERVAL_MAX: f64 = 366.0 * 86_400.0;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Always 3.
    pub version: u8,
    /// The terminal.
    pub term: Term,
    /// When it began, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    /// The command, where it is not an interactive shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What it is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

/// The terminal at the beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
    /// `TERM`, such as `xterm-256color`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// What happened at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Written to the terminal.
    Output(String),
    /// Typed by the person.
    Input(String),
    /// The terminal has another size: columns, rows.
    Resize(u16, u16),
    /// Something to find again.
    Marker(String),
    /// The command ended with this status.
    Exit(i32),
}

/// An event with when it happened, in milliseconds since the beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    /// When.
    pub millis: u64,
    /// What.
    pub event: Event,
}

/// Writes a recording, line by line.
#[derive(Debug, Default)]
pub struct Writer {
    last: u64,
    output: Utf8,
    input: Utf8,
}

impl Writer {
    /// The writer and the first line.
    pub fn begin(header: &Header) -> (Writer, String) {
        // Strings and numbers alone: it cannot fail.
        let mut line = serde_json::to_string(header).unwrap_or_default();
        line.push('\n');
        (Writer::default(), line)
    }

    /// Bytes written to the terminal, to `lines`. A character that is cut off waits for its rest;
    /// what is no UTF-8 becomes U+FFFD.
    pub fn output(&mut self, millis: u64, bytes: &[u8], lines: &mut String) {
        let text = self.output.push(bytes);
        self.text(millis, 'o', &text, lines);
    }

    /// Bytes that the person typed, to `lines`.
    pub fn input(&mut self, millis: u64, bytes: &[u8], lines: &mut String) {
        let text = self.input.push(bytes);
        self.text(millis, 'i', &text, lines);
    }

    /// Another size of the terminal.
    pub fn resize(&mut self, millis: u64, cols: u16, rows: u16, lines: &mut String) {
        self.line(millis, 'r', &format!("{cols}x{rows}"), lines);
    }

    /// Something to find again.
    pub fn marker(&mut self, millis: u64, label: &str, lines: &mut String) {
        self.line(millis, 'm', label, lines);
    }

    /// The end: what was cut off, and the status if there is one.
    pub fn exit(&mut self, millis: u64, status: Option<i32>, lines: &mut String) {
        for (code, text) in [('o', self.output.end()), ('i', self.input.end())] {
            self.text(millis, code, text, lines);
        }
        if let Some(status) = status {
            self.line(millis, 'x', &status.to_string(), lines);
        }
    }

    fn text(&mut self, millis: u64, code: char, text: &str, lines: &mut String) {
        if !text.is_empty() {
            self.line(millis, code, text, lines);
        }
    }

    fn line(&mut self, millis: u64, code: char, data: &str, lines: &mut String) {
        // A clock that is set back adds nothing.
        let since = millis.saturating_sub(self.last);
        self.last = self.last.max(millis);
        // Writing to a string cannot fail.
        let _ = write!(lines, "[{}.{:03}, \"{code}\", ", since / 1000, since % 1000);
        quote(data, lines);
        lines.push_str("]\n");
    }
}

/// Appends text as a JSON string (RFC 8259, section 7). Every byte that a terminal shows in a recorded
/// session comes through here, most of them as they are.
fn quote(text: &str, out: &mut String) {
    out.reserve(text.len() + 2);
    out.push('"');
    let bytes = text.as_bytes();
    let mut done = 0;
    while let Some(at) = next_special(bytes, done) {
        out.push_str(&text[done..at]);
        out.push_str(match bytes[at] {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            control => CONTROLS[usize::from(control & 0x1f)],
        });
        done = at + 1;
    }
    out.push_str(&text[done..]);
    out.push('"');
}

/// Where the next byte is that cannot stand in a string as it is.
fn next_special(bytes: &[u8], from: usize) -> Option<usize> {
    let special = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    let mut at = from;
    // Without a way out of the middle, so that a whole vector is looked at in a few instructions.
    for block in bytes[from..].chunks(32) {
        if block.iter().fold(false, |found, byte| found | special(*byte)) {
            return block.iter().position(|byte| special(*byte)).map(|within| at + within);
        }
        at += block.len();
    }
    None
}

/// What stands for each control character.
#[rustfmt::skip]
const CONTROLS: [&str; 32] = [
    "\\u0000", "\\u0001", "\\u0002", "\\u0003", "\\u0004", "\\u0005", "\\u0006", "\\u0007",
    "\\b",     "\\t",     "\\n",     "\\u000b", "\\f",     "\\r",     "\\u000e", "\\u000f",
    "\\u0010", "\\u0011", "\\u0012", "\\u0013", "\\u0014", "\\u0015", "\\u0016", "\\u0017",
    "\\u0018", "\\u0019", "\\u001a", "\\u001b", "\\u001c", "\\u001d", "\\u001e", "\\u001f",
];

/// Text from bytes that may be cut anywhere.
#[derive(Debug, Default)]
struct Utf8 {
    held: Vec<u8>,
}

impl Utf8 {
    fn push(&mut self, bytes: &[u8]) -> String {
        let joined;
        let mut rest = if self.held.is_empty() {
            bytes
        } else {
            joined = [&self.held[..], bytes].concat();
            self.held.clear();
            &joined
        };
        let mut text = String::with_capacity(rest.len());
        loop {
            match std::str::from_utf8(rest) {
                Ok(good) => {
                    text.push_str(good);
                    return text;
                }
                Err(error) => {
                    let (good, bad) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(good));
                    match error.error_len() {
                        Some(len) => {
                            text.push('\u{fffd}');
                            rest = &bad[len..];
                        }
                        None => {
                            self.held.extend_from_slice(bad);
                            return text;
                        }
                    }
                }
            }
        }
    }

    fn end(&mut self) -> &'static str {
        let cut_off = !self.held.is_empty();
        self.held.clear();
        if cut_off { "\u{fffd}" } else { "" }
    }
}

/// Why a recording cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CastError {
    /// The first line is no header of this version.
    #[error("line 1 of the recording is no asciicast v3 header: {0}")]
    Header(String),
    /// A line is no event.
    #[error("line {line} of the recording is no event: {reason}")]
    Event {
        /// Which.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A line is longer than any that is written.
    #[error("line {0} of the recording is longer than {LINE_MAX} bytes")]
    Long(u64),
}

/// Reads a recording, in pieces of any size; holds at most one line back.
#[derive(Debug, Default)]
pub struct Reader {
    held: Vec<u8>,
    lines: u64,
    header: Option<Header>,
    millis: u64,
}

impl Reader {
    /// A reader that has seen nothing.
    pub fn new() -> Reader {
        Reader::default()
    }

    /// The header, once it was read.
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// Takes bytes; gives the events that became whole. Comments and kinds of event that are not
    /// known are left out, as the format asks.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<Vec<At>, CastError> {
        let mut events = Vec::new();
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let (line, rest) = bytes.split_at(end);
            bytes = &rest[1..];
            if self.held.is_empty() {
                self.take(line, &mut events)?;
            } else {
                self.hold(line)?;
                let line = std::mem::take(&mut self.held);
                self.take(&line, &mut events)?;
            }
        }
        self.hold(bytes)?;
        Ok(events)
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), CastError> {
        if self.held.len() + bytes.len() > LINE_MAX {
            return Err(CastError::Long(self.lines + 1));
        }
        self.held.extend_from_slice(bytes);
        Ok(())
    }

    fn take(&mut self, line: &[u8], events: &mut Vec<At>) -> Result<(), CastError> {
        self.lines += 1;
        if line.len() > LINE_MAX {
            return Err(CastError::Long(self.lines));
        }
        if self.header.is_none() {
            let bad = |reason: String| CastError::Header(reason);
            let header: Header = serde_json::from_slice(line).map_err(|e| bad(e.to_string()))?;
            if header.version != 3 {
                return Err(bad(format!("it is version {}", header.version)));
            }
            self.header = Some(header);
            return Ok(());
        }
        if line.first() == Some(&b'#') || line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let bad = |reason: String| CastError::Event { line: self.lines, reason };
        let (interval, code, data): (f64, String, String) =
            serde_json::from_slice(line).map_err(|e| bad(e.to_string()))?;
        if !(0.0..=INTERVAL_MAX).contains(&interval) {
            return Err(bad(format!("the interval {interval} is out of range")));
        }
        // In range, so the cast cuts nothing off but fractions that rounding has dealt with.
        self.millis = self.millis.saturating_add((interval * 1000.0).round() as u64);
        let event = match code.as_str() {
            "o" => Event::Output(data),
            "i" => Event::Input(data),
            "m" => Event::Marker(data),
            "r" => {
                let size = data.split_once('x').and_then(|(c, r)| Some((c.parse().ok()?, r.parse().ok()?)));
                let (cols, rows) = size.ok_or_else(|| bad(format!("{data:?} is no size")))?;
                Event::Resize(cols, rows)
            }
            "x" => Event::Exit(data.parse().map_err(|_| bad(format!("{data:?} is no exit status")))?),
            _ => return Ok(()),
        };
        events.push(At { millis: self.millis, event });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            version: 3,
            term: Term { cols: 80, rows: 24, kind: Some("xterm-256color".to_owned()) },
            timestamp: Some(1_504_467_315),
            command: None,
            title: None,
        }
    }

    fn read(text: &str) -> Result<Vec<At>, CastError> {
        Reader::new().push(text.as_bytes())
    }

    #[test]
    fn a_recording_reads_as_the_format_is_published() {
        let (mut writer, mut text) = Writer::begin(&header());
        writer.output(248, "Hello \u{1b}[32m世界\r\n".as_bytes(), &mut text);
        writer.input(1249, b"q", &mut text);
        writer.resize(2000, 90, 30, &mut text);
        writer.marker(2000, "here", &mut text);
        writer.exit(3001, Some(0), &mut text);
        assert_eq!(
            text,
            "{\"version\":3,\"term\":{\"cols\":80,\"rows\":24,\"type\":\"xterm-256color\"},\"timestamp\":1504467315}\n\
             [0.248, \"o\", \"Hello \\u001b[32m世界\\r\\n\"]\n[1.001, \"i\", \"q\"]\n[0.751, \"r\", \"90x30\"]\n\
             [0.000, \"m\", \"here\"]\n[1.001, \"x\", \"0\"]\n"
        );
        let events = read(&text).unwrap();
        assert_eq!(events.len(), 5);
        assert_eq!(events[4], At { millis: 3001, event: Event::Exit(0) });
    }

    #[test]
    fn a_character_that_is_cut_waits_for_its_rest() {
        let (mut writer, mut text) = Writer::begin(&header());
        let bytes = "研究".as_bytes();
        for byte in bytes {
            writer.output(5, std::slice::from_ref(byte), &mut text);
        }
        writer.output(5, &[0xff, b'a', 0xe7], &mut text);
        writer.exit(9, None, &mut text);
        let shown: String = read(&text)
            .unwrap()
            .into_iter()
            .map(|at| match at.event {
                Event::Output(text) => text,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(shown, "研究\u{fffd}a\u{fffd}");
    }

    #[test]
    fn a_clock_that_is_set_back_does_no_harm() {
        let (mut writer, mut text) = Writer::begin(&header());
        for at in [5000, 100, 5001] {
            writer.output(at, b"x", &mut text);
        }
        let times: Vec<u64> = read(&text).unwrap().iter().map(|at| at.millis).collect();
        assert_eq!(times, [5000, 5000, 5001]);
    }

    #[test]
    fn what_is_no_recording_is_refused_with_its_line() {
        let good = Writer::begin(&header()).1;
        for (bad, words) in [
            ("{}\n".to_owned(), "line 1"),
            ("{\"version\":2,\"term\":{\"cols\":1,\"rows\":1}}\n".to_owned(), "version 2"),
            (format!("{good}[-1, \"o\", \"\"]\n"), "line 2"),
            (format!("{good}[1e300, \"o\", \"\"]\n"), "out of range"),
            (format!("{good}# all is well\n[0, \"r\", \"80\"]\n"), "line 3"),
            (format!("{good}[0, \"x\", \"no\"]\n"), "exit status"),
            (format!("{good}\"{}", "x".repeat(LINE_MAX)), "longer"),
            (format!("{good}[0, \"o\"]\n"), "line 2"),
        ] {
            let error = read(&bad).unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
        assert_eq!(read(&format!("{good}\n[0, \"z\", \"new\"]\n")).unwrap(), []);
    }

    proptest! {
        #[test]
        fn strings_are_quoted_as_json_quotes_them(text in ".*", noise in prop::collection::vec(0_u8..128, 0..200)) {
            let noise: String = noise.into_iter().map(char::from).collect();
            for text in [&text, &noise, &format!("{text}{noise}")] {
                let mut quoted = String::new();
                quote(text, &mut quoted);
                prop_assert_eq!(quoted, serde_json::to_string(text).unwrap());
            }
        }

        #[test]
        fn any_pieces_of_output_come_back_in_order(
            pieces in proptest::collection::vec((0u64..10_000, proptest::collection::vec(any::<u8>(), 0..40)), 0..20),
            cut in 1usize..50,
        ) {
            let (mut writer, mut text) = Writer::begin(&header());
            let mut all = Vec::new();
            let mut at = 0;
            for (wait, piece) in &pieces {
                at += wait;
                writer.output(at, piece, &mut text);
                all.extend_from_slice(piece);
            }
            writer.exit(at, Some(1), &mut text);
            let mut reader = Reader::new();
            let mut shown = String::new();
            for piece in text.as_bytes().chunks(cut) {
                for at in reader.push(piece).unwrap() {
                    if let Event::Output(text) = at.event {
                        shown.push_str(&text);
                    }
                }
            }
            prop_assert_eq!(reader.millis, at);
            prop_assert_eq!(shown, String::from_utf8_lossy(&all).into_owned());
        }

        #[test]
        fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..400), whole in any::<bool>()) {
            let mut reader = Reader::new();
            if whole {
                reader.push(Writer::begin(&header()).1.as_bytes()).unwrap();
            }
            let _ = reader.push(&bytes);
        }
    }
}
