//! What the lower floors may not touch: wall time, randomness, sockets, files.

use crate::rooms::{AMBIENT, MAY_OPEN_FILES, PURE};
use crate::source::{Crate, Module, line, words};

/// A path or name that pure code does not mention, and what to do instead.
struct Ban {
    path: &'static [&'static str],
    instead: &'static str,
    files: bool,
}

const fn ban(path: &'static [&'static str], instead: &'static str) -> Ban {
    Ban { path, instead, files: false }
}

const CLOCK: &str = "take a model::Clock";
const ENTROPY: &str = "take a model::Entropy";
const DRIVER: &str = "take bytes; sockets belong to a driver on a higher floor";
const PROGRAM: &str = "take it as a parameter; the program reads it";
const FILES: &str = "take bytes; the caller opens files";

const BANS: &[Ban] = &[
    ban(&["SystemTime", "now"], CLOCK),
    ban(&["Timestamp", "now"], CLOCK),
    ban(&["Zoned", "now"], CLOCK),
    ban(&["SystemClock"], CLOCK),
    ban(&["ambient"], "only programs construct the ambient clock and randomness"),
    ban(&["OsRng"], ENTROPY),
    ban(&["SysRng"], ENTROPY),
    ban(&["OsEntropy"], ENTROPY),
    ban(&["thread_rng"], ENTROPY),
    ban(&["getrandom"], ENTROPY),
    ban(&["SystemRandom"], ENTROPY),
    ban(&["tokio", "net"], DRIVER),
    ban(&["TcpStream"], DRIVER),
    ban(&["TcpListener"], DRIVER),
    ban(&["UdpSocket"], DRIVER),
    ban(&["UnixStream"], DRIVER),
    ban(&["UnixListener"], DRIVER),
    ban(&["std", "env"], PROGRAM),
    ban(&["std", "process"], PROGRAM),
    Ban { path: &["std", "fs"], instead: FILES, files: true },
    Ban { path: &["tokio", "fs"], instead: FILES, files: true },
    Ban { path: &["File", "open"], instead: FILES, files: true },
];

/// Every mention of what a pure module may not touch.
pub fn check(code: &Crate) -> Vec<String> {
    let pure = code.modules.values().filter(|module| PURE.iter().any(|p| under(&module.file, p)));
    pure.filter(|module| module.file != AMBIENT).flat_map(mentions).collect()
}

/// Whether `file` is the module at `place`, or below it: `a/b` covers `a/b.rs` and `a/b/…`.
fn under(file: &str, place: &str) -> bool {
    file.strip_prefix(place).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

fn mentions(module: &Module) -> Vec<String> {
    let opens_files = MAY_OPEN_FILES.iter().any(|(place, _)| under(&module.file, place));
    let words = words(&module.code);
    let mut found = Vec::new();
    for ban in BANS.iter().filter(|ban| !(ban.files && opens_files)) {
        for at in 0..words.len() {
            // The declaration of the module itself is no use of it.
            let declared = at > 0 && words[at - 1].1 == "mod";
            if !declared && mentioned(&words[at..], ban.path) {
                let line = line(&module.code, words[at].0);
                found.push(format!("{}:{line}: {}: {}", module.file, ban.path.join("::"), ban.instead));
            }
        }
    }
    found
}

/// Whether the words begin with this path, written out or as a tree (`std::{fs, io}`).
fn mentioned(words: &[(usize, &str)], path: &[&str]) -> bool {
    let Some(((_, first), rest)) = words.split_first() else { return false };
    let [name, more @ ..] = path else { return false };
    if first != name {
        return false;
    }
    if more.is_empty() {
        return true;
    }
    match rest {
        [(_, "::"), (_, "{"), tree @ ..] => {
            let mut depth = 0usize;
            for (at, (_, word)) in tree.iter().enumerate() {
                match *word {
                    "{" => depth += 1,
                    "}" if depth == 0 => return false,
                    "}" => depth -= 1,
                    _ => {}
                }
                let begins = at == 0 || tree[at - 1].1 == ",";
                if depth == 0 && begins && mentioned(&tree[at..], more) {
                    return true;
                }
            }
            false
        }
        [(_, "::"), rest @ ..] => mentioned(rest, more),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::bare;

    fn found(file: &str, text: &str) -> Vec<String> {
        let module = Module { file: file.to_owned(), code: bare(text) };
        check(&Crate { name: file.to_owned(), modules: [(Vec::new(), module)].into() })
    }

    #[test]
    fn every_ban_is_found_in_pure_rooms() {
        for ban in BANS {
            let text = format!("fn f() {{\n    {}(1);\n}}", ban.path.join("::"));
            let found = found("certs/src/x.rs", &text);
            assert_eq!(found.len(), 1, "{:?}: {found:?}", ban.path);
            assert!(found[0].starts_with("certs/src/x.rs:2: "), "{found:?}");
        }
    }

    #[test]
    fn trees_are_looked_into() {
        assert_eq!(found("policy/src/x.rs", "use std::{collections::BTreeMap, fs};").len(), 1);
        assert_eq!(found("policy/src/x.rs", "use std::{collections::{fs, x}, io};").len(), 0);
        assert_eq!(found("policy/src/x.rs", "use std::fs::{self, File};").len(), 1);
    }

    #[test]
    fn what_is_allowed_is_not_reported() {
        assert_eq!(found("broker/src/x.rs", "std::fs::read(); SystemTime::now();"), Vec::<String>::new());
        assert_eq!(found("wire/src/agent/dial.rs", "tokio::net::lookup_host()"), Vec::<String>::new());
        assert_eq!(found("audit/src/wal.rs", "use std::fs::File;"), Vec::<String>::new());
        assert_eq!(found("model/src/ambient.rs", "SystemTime::now()"), Vec::<String>::new());
        assert_eq!(found("model/src/lib.rs", "pub mod ambient;"), Vec::<String>::new());
        assert_eq!(
            found("certs/src/x.rs", "// SystemTime::now()\n#[cfg(test)]\nmod t { use OsEntropy; }").len(),
            0
        );
        assert_eq!(found("certs/src/x.rs", "Instant::now(); std::net::IpAddr"), Vec::<String>::new());
        assert_eq!(found("wire/src/machine.rs", "OsRng").len(), 1);
        assert_eq!(found("wire/src/machine/script.rs", "OsRng").len(), 1);
    }
}
