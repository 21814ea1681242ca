//! Takes the strings out of what is written to a terminal: operating system commands (titles,
//! clipboard, links), device control strings, privacy messages and their like (ECMA-48, 5.6). None of
//! them shows anything, they may be of any length, and a parser would have to keep them.

const ESC: u8 = 0x1b;
const CAN: u8 = 0x18;
const SUB: u8 = 0x1a;
const BEL: u8 = 0x07;

/// Where in a sequence the last byte left it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Strip {
    #[default]
    Ground,
    /// After an escape that was not passed on yet.
    Escape,
    /// Within a string; a bell ends only operating system commands.
    String { bell: bool },
}

impl Strip {
    /// Passes bytes on to `out`, without strings.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for &byte in bytes {
            *self = match (*self, byte) {
                (Strip::Ground | Strip::Escape | Strip::String { .. }, ESC) => Strip::Escape,
                (Strip::Ground, _) => {
                    out.push(byte);
                    Strip::Ground
                }
                (Strip::Escape, b']') => Strip::String { bell: true },
                (Strip::Escape, b'P' | b'X' | b'^' | b'_') => Strip::String { bell: false },
                // A control character within a sequence acts at once, and the sequence goes on.
                (Strip::Escape, 0..=0x1f | 0x7f) if byte != CAN && byte != SUB => {
                    out.push(byte);
                    Strip::Escape
                }
                (Strip::Escape, _) => {
                    out.extend_from_slice(&[ESC, byte]);
                    Strip::Ground
                }
                (Strip::String { bell: true }, BEL) | (Strip::String { .. }, CAN | SUB) => Strip::Ground,
                (string @ Strip::String { .. }, _) => string,
            };
        }
    }
}
