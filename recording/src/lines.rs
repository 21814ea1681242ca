//! The text of a terminal as a person saw it, line by line, for searching.
//!
//! What was typed over, rubbed out or erased is not there any more; what escape sequences said is not
//! there at all. Programs that paint the whole screen are read as they paint: each piece of text at a
//! place of its own is a line.

use serde::{Deserialize, Serialize};

use crate::strip::Strip;

/// The longest line, in characters; the rest of a longer one is the next.
const LINE_MAX: usize = 2048;

/// One line of text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When it began, in milliseconds of the session.
    #[serde(rename = "t")]
    pub millis: u64,
    /// What it says.
    #[serde(rename = "l")]
    pub text: String,
}

/// Reads lines out of what is written to a terminal.
#[derive(Default)]
pub struct Lines {
    strip: Strip,
    parser: vte::Parser,
    page: Page,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("held", &self.page.row.len()).finish_non_exhaustive()
    }
}

impl Lines {
    /// Takes what was written at an instant; gives the lines that ended.
    pub fn push(&mut self, millis: u64, bytes: &[u8]) -> Vec<Line> {
        self.page.now = millis;
        self.buffer.clear();
        self.strip.push(bytes, &mut self.buffer);
        self.parser.advance(&mut self.page, &self.buffer);
        std::mem::take(&mut self.page.done)
    }

    /// The line that had no end.
    pub fn end(&mut self) -> Vec<Line> {
        self.page.commit();
        std::mem::take(&mut self.page.done)
    }
}

/// One row, as far as it is written, and the lines that are done.
#[derive(Default)]
struct Page {
    now: u64,
    begun: u64,
    row: Vec<char>,
    column: usize,
    done: Vec<Line>,
}

impl Page {
    fn commit(&mut self) {
        let text: String = self.row.iter().collect();
        let text = text.trim_end();
        if !text.is_empty() {
            self.done.push(Line { millis: self.begun, text: text.to_owned() });
        }
        self.row.clear();
        self.column = 0;
    }

    fn to(&mut self, column: usize) {
        self.column = column.min(LINE_MAX - 1);
    }
}

impl vte::Perform for Page {
    fn print(&mut self, letter: char) {
        if letter.is_control() {
            return;
        }
        if self.row.is_empty() {
            self.begun = self.now;
        }
        if self.row.len() <= self.column {
            self.row.resize(self.column, ' ');
            self.row.push(letter);
        } else {
            self.row[self.column] = letter;
        }
        self.column += 1;
        if self.column >= LINE_MAX {
            self.commit();
        }
    }

    fn execute(&mut self, control: u8) {
        match control {
            b'\n' | 0x0b | 0x0c => {
                let column = self.column;
                self.commit();
                // In a raw terminal a line feed alone goes straight down.
                self.to(if column == 0 { 0 } else { column });
            }
            b'\r' => self.column = 0,
            0x08 => self.column = self.column.saturating_sub(1),
            b'\t' => self.to((self.column / 8 + 1) * 8),
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, params: &vte::Params, intermediates: &[u8], _: bool, action: char) {
        if !intermediates.is_empty() {
            return;
        }
        let first = params.iter().next().and_then(|p| p.first()).copied().unwrap_or(0);
        let count = usize::from(first.max(1));
        match action {
            'C' => self.to(self.column.saturating_add(count)),
            'D' => self.column = self.column.saturating_sub(count),
            'G' | '`' => self.to(count - 1),
            'K' => match first {
                0 => self.row.truncate(self.column),
                1 => {
                    let end = self.row.len().min(self.column + 1);
                    self.row[..end].fill(' ');
                }
                _ => self.row.clear(),
            },
            'P' => {
                let end = self.row.len().min(self.column.saturating_add(count));
                self.row.drain(self.column.min(end)..end);
            }
            'X' => {
                let end = self.row.len().min(self.column.saturating_add(count));
                self.row[self.column.min(end)..end].fill(' ');
            }
            '@' => {
                let (at, room) = (self.column.min(self.row.len()), LINE_MAX.saturating_sub(self.row.len()));
                self.row.splice(at..at, std::iter::repeat_n(' ', count.min(room)));
            }
            'H' | 'f' | 'A' | 'B' | 'E' | 'F' | 'J' | 'd' | 'L' | 'M' | 'S' | 'T' => self.commit(),
            _ => {}
        }
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], _: bool, byte: u8) {
        if intermediates.is_empty() && matches!(byte, b'c' | b'D' | b'E' | b'M' | b'8') {
            self.commit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<String> {
        let mut lines = Lines::default();
        let mut all = lines.push(0, text.as_bytes());
        all.extend(lines.end());
        all.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn lines_say_what_a_person_saw() {
        for (written, seen) in [
            ("one\r\ntwo\r\n", &["one", "two"][..]),
            ("\u{1b}[1;31mred\u{1b}[0m \u{1b}]0;title\u{7}研究\r\n", &["red 研究"]),
            ("10%\r20%\r\u{1b}[Kdone\r\n", &["done"]),
            ("typo\u{8}\u{8}\u{8}ext\r\n", &["text"]),
            ("ls -x\u{8}\u{1b}[K-l\r\n", &["ls --l"]),
            ("abc\u{1b}[2D\u{1b}[P|\r\n", &["a|"]),
            ("ac\u{8}\u{1b}[@b\r\n", &["abc"]),
            ("a\tb", &["a       b"]),
            ("\u{1b}[2J\u{1b}[1;1Htop\u{1b}[24;1Hbottom", &["top", "bottom"]),
            ("\u{1b}P hidden \u{1b}\\shown", &["shown"]),
            ("\r\n\r\n   \r\n", &[]),
        ] {
            assert_eq!(read(written), seen, "{written:?}");
        }
    }

    #[test]
    fn a_line_has_the_time_at_which_it_began() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(10, b"$ sam"), []);
        let line = Line { millis: 10, text: "$ samtools view".to_owned() };
        assert_eq!(lines.push(900, b"tools view\r\nx"), std::slice::from_ref(&line));
        assert_eq!(serde_json::to_string(&line).unwrap(), r#"{"t":10,"l":"$ samtools view"}"#);
        assert_eq!(lines.end()[0].millis, 900);
    }

    proptest! {
        #[test]
        fn nothing_breaks_it_and_it_holds_little(pieces in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..50),
                "\u{1b}\\[[0-9;]{0,6}[@-~]".prop_map(String::into_bytes),
                "x{0,3000}".prop_map(String::into_bytes),
            ], 0..30,
        )) {
            let mut lines = Lines::default();
            for piece in pieces {
                for line in lines.push(1, &piece) {
                    prop_assert!(line.text.chars().count() <= LINE_MAX);
                    prop_assert!(!line.text.chars().any(|c| c.is_control()), "{:?}", line.text);
                }
                prop_assert!(lines.page.row.len() <= LINE_MAX);
            }
        }
    }
}
