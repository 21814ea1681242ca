//! A terminal in memory, and pictures of it.
//!
//! What a program in a workspace writes never reaches the terminal of somebody who watches or replays
//! it. It moves this one, and [`Picture::draw`] writes, from its cells alone, what a terminal needs to
//! look the same: text, colours, and where the cursor is. Titles, clipboards (OSC 52), files, queries
//! that a terminal answers as if its person had typed, and modes of mouse and keys have no place in a
//! cell, so they are gone, whatever new ones there may be.
//!
//! A picture fits itself to a smaller terminal: it is cut to the columns, and to the rows around the
//! cursor.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::strip::Strip;

/// The largest terminal that is kept, columns and rows.
const MOST: (u16, u16) = (512, 256);
/// The smallest: where there is room to wrap and to scroll.
const LEAST: (u16, u16) = (2, 2);

/// A terminal in memory. It takes no more of that than its size asks for, whatever is written to it.
pub struct Screen {
    strip: Strip,
    parser: vt100::Parser,
    buffer: Vec<u8>,
}

impl Screen {
    /// An empty one; sizes beyond what anybody has are brought within.
    pub fn new(cols: u16, rows: u16) -> Screen {
        let (cols, rows) = within(cols, rows);
        Screen { strip: Strip::default(), parser: vt100::Parser::new(rows, cols, 0), buffer: Vec::new() }
    }

    /// Writes to it.
    pub fn write(&mut self, bytes: &[u8]) {
        self.buffer.clear();
        self.strip.push(bytes, &mut self.buffer);
        let parser = &mut self.parser;
        let written = catch_unwind(AssertUnwindSafe(|| parser.process(&self.buffer)));
        if written.is_err() {
            // A fault in the emulator costs the picture, and not the session that is looked at.
            let (rows, cols) = self.parser.screen().size();
            self.parser = vt100::Parser::new(rows, cols, 0);
        }
    }

    /// Gives it another size.
    pub fn resize(&mut self, cols: u16, rows: u16) {
        let (cols, rows) = within(cols, rows);
        self.parser.screen_mut().set_size(rows, cols);
    }

    /// Columns and rows.
    pub fn size(&self) -> (u16, u16) {
        let (rows, cols) = self.parser.screen().size();
        (cols, rows)
    }

    /// What it shows, for a terminal of this many columns and rows.
    pub fn picture(&self, cols: u16, rows: u16) -> Picture {
        let screen = self.parser.screen();
        let (height, width) = screen.size();
        let (line, column) = screen.cursor_position();
        let shown = rows.clamp(1, height);
        let top = (line + 1).saturating_sub(shown);
        let width = cols.clamp(1, width);
        let lines = (top..top + shown).map(|row| draw_row(screen, row, width)).collect();
        let seen = !screen.hide_cursor() && column < cols;
        Picture { lines, cursor: seen.then_some((line - top, column)) }
    }

    /// The text that it shows.
    pub fn text(&self) -> String {
        self.parser.screen().contents()
    }
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("size", &self.size()).finish_non_exhaustive()
    }
}

/// A row as text and colours, from its cells, each as wide as it is there.
fn draw_row(screen: &vt100::Screen, row: u16, width: u16) -> Vec<u8> {
    let mut out = String::new();
    let mut worn = Look::default();
    let mut blanks = 0;
    let mut covered = false;
    for column in 0..width {
        let Some(cell) = screen.cell(row, column) else { break };
        if std::mem::take(&mut covered) {
            continue;
        }
        let look = Look::of(cell);
        covered = cell.is_wide()
            && column + 1 < width
            && screen.cell(row, column + 1).is_some_and(vt100::Cell::is_wide_continuation);
        // Half a wide letter, where the terminal was made narrower or is cut, is a blank.
        let half = cell.is_wide_continuation() || (cell.is_wide() && !covered);
        let letters: String =
            cell.contents().chars().filter(|letter| !half && !letter.is_control()).collect();
        if letters.is_empty() && look == Look::default() {
            // Only what follows makes a blank worth drawing.
            blanks += 1;
            continue;
        }
        if blanks > 0 {
            Look::default().put_on(&mut worn, &mut out);
            out.extend(std::iter::repeat_n(' ', std::mem::take(&mut blanks)));
        }
        look.put_on(&mut worn, &mut out);
        out.push_str(if letters.is_empty() { " " } else { &letters });
    }
    out.into_bytes()
}

/// The attributes of a cell (SGR, ECMA-48 8.3.117).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Look {
    fore: vt100::Color,
    back: vt100::Color,
    bold: bool,
    dim: bool,
    italic: bool,
    underline: bool,
    inverse: bool,
}

impl Look {
    fn of(cell: &vt100::Cell) -> Look {
        Look {
            fore: cell.fgcolor(),
            back: cell.bgcolor(),
            bold: cell.bold(),
            dim: cell.dim(),
            italic: cell.italic(),
            underline: cell.underline(),
            inverse: cell.inverse(),
        }
    }

    fn put_on(self, worn: &mut Look, out: &mut String) {
        if self == *worn {
            return;
        }
        *worn = self;
        out.push_str("\x1b[0");
        let flags = [(self.bold, 1), (self.dim, 2), (self.italic, 3), (self.underline, 4), (self.inverse, 7)];
        for (_, number) in flags.into_iter().filter(|(on, _)| *on) {
            out.push_str(&format!(";{number}"));
        }
        for (color, plane) in [(self.fore, 3), (self.back, 4)] {
            match color {
                vt100::Color::Default => {}
                vt100::Color::Idx(index) => out.push_str(&format!(";{plane}8;5;{index}")),
                vt100::Color::Rgb(r, g, b) => out.push_str(&format!(";{plane}8;2;{r};{g};{b}")),
            }
        }
        out.push('m');
    }
}

fn within(cols: u16, rows: u16) -> (u16, u16) {
    (cols.clamp(LEAST.0, MOST.0), rows.clamp(LEAST.1, MOST.1))
}

/// What a terminal shows at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    lines: Vec<Vec<u8>>,
    /// Row and column, if it is to be seen.
    cursor: Option<(u16, u16)>,
}

impl Picture {
    /// What makes a terminal that shows `before` show this one; one that shows anything, if that is
    /// not known. Nothing if they are the same.
    pub fn draw(&self, before: Option<&Picture>) -> Vec<u8> {
        let mut out = Vec::new();
        let known = before.filter(|before| before.lines.len() == self.lines.len());
        if known == Some(self) {
            return out;
        }
        out.extend_from_slice(b"\x1b[?25l\x1b[m");
        if known.is_none() {
            out.extend_from_slice(b"\x1b[H\x1b[2J");
        }
        for (at, line) in self.lines.iter().enumerate() {
            if known.is_none_or(|before| before.lines[at] != *line) {
                out.extend_from_slice(format!("\x1b[{};1H\x1b[m\x1b[2K", at + 1).as_bytes());
                out.extend_from_slice(line);
                out.extend_from_slice(b"\x1b[m");
            }
        }
        if let Some((row, column)) = self.cursor {
            out.extend_from_slice(format!("\x1b[{};{}H\x1b[?25h", row + 1, column + 1).as_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether `bytes` are text, colours, and moves of the cursor, and nothing else.
    fn is_harmless(bytes: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            if letter != '\u{1b}' {
                if letter.is_control() {
                    return Err(format!("{letter:?} in {text:?}"));
                }
                continue;
            }
            if letters.next() != Some('[') {
                return Err(format!("an escape that is no CSI in {text:?}"));
            }
            let mut sequence = String::new();
            for letter in letters.by_ref() {
                sequence.push(letter);
                if ('@'..='~').contains(&letter) {
                    break;
                }
            }
            let good = match sequence.chars().last() {
                Some('m' | 'H' | 'K' | 'J') => !sequence.starts_with(['?', '>', '<', '=']),
                Some('h' | 'l') => sequence.starts_with("?25"),
                _ => false,
            };
            if !good {
                return Err(format!("{sequence:?} in {text:?}"));
            }
        }
        Ok(())
    }

    fn shown(screen: &Screen) -> Vec<u8> {
        screen.picture(512, 256).draw(None)
    }

    #[test]
    fn what_would_reach_beyond_the_screen_is_gone() {
        for hostile in [
            "\u{1b}]0;title\u{7}",
            "\u{1b}]52;c;ZXZpbA==\u{7}",
            "\u{1b}]52;c;ZXZpbA==\u{1b}\\",
            "\u{1b}]8;;file:///etc/passwd\u{1b}\\link\u{1b}]8;;\u{1b}\\",
            "\u{1b}]1337;File=inline=1:AAAA\u{7}",
            "\u{1b}]50;?\u{7}",
            "\u{1b}P$q\"p\u{1b}\\",
            "\u{1b}P+q544e\u{1b}\\",
            "\u{1b}_Gi=31,a=q;AAAA\u{1b}\\",
            "\u{1b}^secret\u{1b}\\",
            "\u{1b}X123\u{1b}\\",
            "\u{1b}[c\u{1b}[>c\u{1b}[=c\u{1b}[5n\u{1b}[6n\u{1b}[?6n\u{1b}Z",
            "\u{1b}[21t\u{1b}[18t\u{1b}[8;500;500t",
            "\u{1b}[?1000h\u{1b}[?1006h\u{1b}[?2004h\u{1b}[?1049h\u{1b}=\u{1b}[?1h",
            "\u{1b}[5i\u{1b}[4i",
            "\u{1b}#8\u{1b}c\u{1b}(0\u{e}\u{f}\u{5}\u{11}\u{13}",
            "\u{9d}52;c;ZXZpbA==\u{9c}\u{9b}6n\u{90}x\u{9c}",
            "\u{1b}\n]52;c;ZXZpbA==\u{7}",
            "\u{1b}\u{1b}]52;c;ZXZpbA==\u{7}",
        ] {
            let mut screen = Screen::new(80, 24);
            screen.write(b"before ");
            screen.write(hostile.as_bytes());
            screen.write(b"after");
            let drawn = shown(&screen);
            is_harmless(&drawn).unwrap();
            let text = String::from_utf8(drawn).unwrap();
            assert!(text.contains("after"), "{hostile:?}: {text:?}");
            for secret in ["52;", "ZXZp", "passwd", "1337", "secret"] {
                // One that the terminal prints as plain letters harms nobody.
                assert!(!text.contains(secret) || hostile.starts_with('\u{9d}'), "{hostile:?}: {text:?}");
            }
        }
    }

    #[test]
    fn a_string_that_never_ends_costs_nothing() {
        let mut screen = Screen::new(80, 24);
        screen.write(b"\x1b]52;c;");
        let piece = vec![b'A'; 1 << 20];
        for _ in 0..64 {
            screen.write(&piece);
        }
        assert!(screen.buffer.capacity() <= 2 << 20);
        screen.write(b"\x07ok");
        assert!(screen.text().contains("ok"));
    }

    #[test]
    fn a_picture_fits_a_smaller_terminal_and_follows_the_cursor() {
        let mut screen = Screen::new(200, 50);
        for line in 0..60 {
            screen.write(format!("line {line} {}\r\n", "x".repeat(150)).as_bytes());
        }
        let picture = screen.picture(20, 5);
        assert_eq!(picture.lines.len(), 5);
        let text = String::from_utf8(picture.draw(None)).unwrap();
        assert!(text.contains("line 59 xxxxxxxxxxxx") && !text.contains("xxxxxxxxxxxxx"), "{text:?}");
        assert_eq!(picture.cursor, Some((4, 0)));
    }

    #[test]
    fn only_what_changed_is_drawn_again() {
        let mut screen = Screen::new(80, 24);
        screen.write("\u{1b}[31m研究\u{1b}[m one\r\ntwo".as_bytes());
        let first = screen.picture(80, 24);
        assert_eq!(first.draw(Some(&first)), b"");
        screen.write(b"!");
        let second = screen.picture(80, 24);
        let change = String::from_utf8(second.draw(Some(&first))).unwrap();
        assert!(change.contains("two!") && !change.contains("one"), "{change:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn drawn_anew_it_looks_the_same_and_nothing_hostile_comes_through(
            pieces in proptest::collection::vec(
                prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..30),
                    "\\PC{0,20}".prop_map(String::into_bytes),
                    "\u{1b}[\\[\\]P_^X()#=>c78MDEHZ][?0-9;]{0,8}[a-zA-Z@`]".prop_map(String::into_bytes),
                    "\u{1b}\\[[?>]?[0-9;:]{0,9}[@-~]".prop_map(String::into_bytes),
                ],
                0..20,
            ),
            sizes in proptest::collection::vec((0u16..30, 0u16..12), 1..4),
        ) {
            let mut screen = Screen::new(sizes[0].0, sizes[0].1);
            for (i, piece) in pieces.iter().enumerate() {
                screen.write(piece);
                let (cols, rows) = sizes[i % sizes.len()];
                if i % 5 == 4 {
                    screen.resize(cols, rows);
                }
                is_harmless(&screen.picture(cols, rows).draw(None)).unwrap();
            }
            let drawn = shown(&screen);
            is_harmless(&drawn).unwrap();
            let (cols, rows) = screen.size();
            let mut other = Screen::new(cols, rows);
            other.write(&drawn);
            prop_assert_eq!(other.picture(cols, rows).lines, screen.picture(cols, rows).lines);
        }
    }
}
