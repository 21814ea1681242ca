//! What a workspace writes to a terminal: drawn anew it is text, colours and places, and nothing else;
//! its lines are text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use recording::lines::Lines;
use recording::screen::Screen;

/// Whether every escape is one of those that a picture is drawn with.
fn harmless(drawn: &[u8]) -> bool {
    let mut text = std::str::from_utf8(drawn).expect("UTF-8");
    while let Some(at) = text.find(|c: char| c.is_control()) {
        let Some(sequence) = text[at..].strip_prefix("\x1b[") else { return false };
        let Some(end) = sequence.find(|c: char| ('@'..='~').contains(&c)) else { return false };
        let (parameters, rest) = sequence.split_at(end);
        let fits = match rest.as_bytes()[0] {
            b'm' | b'H' | b'K' | b'J' => parameters.bytes().all(|c| c.is_ascii_digit() || c == b';'),
            b'h' | b'l' => parameters == "?25",
            _ => false,
        };
        if !fits {
            return false;
        }
        text = &rest[1..];
    }
    true
}

fuzz_target!(|data: &[u8]| {
    let [cols, rows, cut, data @ ..] = data else { return };
    let (mut cols, rows) = (u16::from(*cols), u16::from(*rows));
    let mut screen = Screen::new(cols, rows);
    let mut lines = Lines::default();
    let mut before = None;
    for piece in data.chunks(usize::from(*cut) + 1) {
        screen.write(piece);
        let picture = screen.picture(cols, rows);
        assert!(harmless(&picture.draw(before.as_ref())));
        assert!(harmless(&picture.draw(None)));
        before = Some(picture);
        for line in lines.push(0, piece) {
            assert!(!line.text.chars().any(char::is_control));
        }
        if piece.first() == Some(&b'R') {
            cols = u16::from(*piece.last().unwrap_or(&0));
            screen.resize(cols, rows);
        }
    }
});
