//! Reads a crate's modules as text: comments, literals and test code taken out.
//!
//! It is a scan, not a compiler. What it does not understand (`#[path]`, code made by macros, other
//! configurations) it does not see.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The modules of one compilation target that are compiled outside tests.
#[derive(Debug, Default)]
pub struct Crate {
    /// The target's main file, relative to the repository's root.
    pub name: String,
    /// By path from the crate's root, which itself is the empty path.
    pub modules: BTreeMap<Vec<String>, Module>,
}

/// A module in a file of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// The file, relative to the repository's root.
    pub file: String,
    /// Its code with the same number of lines, without comments, literals and test code.
    pub code: String,
}

impl Crate {
    /// Reads the target whose main file is `main`.
    pub fn read(root: &Path, main: &Path) -> Result<Crate> {
        let shown =
            |file: &Path| file.strip_prefix(root).unwrap_or(file).to_string_lossy().replace('\\', "/");
        let mut modules = BTreeMap::new();
        let folder = main.parent().context("a source file without a folder")?;
        let mut todo = vec![(Vec::new(), main.to_owned(), folder.to_owned())];
        while let Some((path, file, folder)) = todo.pop() {
            let text =
                fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let code = bare(&text);
            for name in declared(&code) {
                let flat = folder.join(format!("{name}.rs"));
                let nested = folder.join(&name).join("mod.rs");
                let found: Option<PathBuf> = [flat, nested].into_iter().find(|f| f.is_file());
                if let Some(found) = found {
                    let mut path: Vec<String> = path.clone();
                    path.push(name.clone());
                    todo.push((path, found, folder.join(&name)));
                }
            }
            modules.insert(path, Module { file: shown(&file), code });
        }
        Ok(Crate { name: shown(main), modules })
    }
}

/// Names of modules declared to lie in files of their own.
fn declared(code: &str) -> Vec<String> {
    let words = words(code);
    let pairs = words.windows(3).filter(|w| w[0].1 == "mod" && w[2].1 == ";");
    pairs.map(|w| w[1].1.to_owned()).collect()
}

/// The code's identifiers, and its other characters one by one, each with its byte offset; blanks
/// left out, but `::` kept together.
pub fn words(code: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut rest = code.char_indices().peekable();
    while let Some((at, c)) = rest.next() {
        if c.is_alphanumeric() || c == '_' {
            let mut end = at + c.len_utf8();
            while let Some(&(next, c)) = rest.peek() {
                if !(c.is_alphanumeric() || c == '_') {
                    break;
                }
                end = next + c.len_utf8();
                rest.next();
            }
            words.push((at, &code[at..end]));
        } else if c == ':' && code[at..].starts_with("::") {
            rest.next();
            words.push((at, "::"));
        } else if !c.is_whitespace() {
            words.push((at, &code[at..at + c.len_utf8()]));
        }
    }
    words
}

/// The line of a byte offset, from 1.
pub fn line(code: &str, offset: usize) -> usize {
    code[..offset].matches('\n').count() + 1
}

/// `text` without comments, literals and test code; every line break stays.
pub fn bare(text: &str) -> String {
    without_tests(&without_words(text))
}

/// Blanks comments and the inside of string and character literals.
fn without_words(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(len) = literal(rest, out.as_bytes().last().copied()) {
            len
        } else {
            let len = rest.chars().next().map_or(1, char::len_utf8);
            out.push_str(&rest[..len]);
            at += len;
            continue;
        };
        blank(&rest[..skip], &mut out);
        at += skip;
    }
    out
}

fn blank(text: &str, out: &mut String) {
    // Something stays in the place of a literal, so that words do not grow together.
    out.extend(text.bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }));
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of the string or character literal that begins here, if one does.
fn literal(rest: &str, before: Option<u8>) -> Option<usize> {
    let in_word = before.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !in_word {
        // r"…", r#"…"#, br"…", and so on.
        let raw =
            rest.strip_prefix("br").or_else(|| rest.strip_prefix("cr")).or_else(|| rest.strip_prefix('r'));
        if let Some(raw) = raw {
            let hashes = raw.bytes().take_while(|&b| b == b'#').count();
            if raw[hashes..].starts_with('"') {
                let end = format!("\"{}", "#".repeat(hashes));
                let start = rest.len() - raw.len() + hashes + 1;
                return Some(rest[start..].find(&end).map_or(rest.len(), |found| start + found + end.len()));
            }
        }
    }
    if rest.starts_with('"') {
        return Some(quoted(rest, '"'));
    }
    if let Some(inside) = rest.strip_prefix('\'') {
        // 'a' is a character, 'a is a lifetime.
        let mut chars = inside.chars();
        let first = chars.next()?;
        if first == '\\' || chars.next() == Some('\'') {
            return Some(quoted(rest, '\''));
        }
    }
    None
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return at + 1;
        }
    }
    rest.len()
}

/// Blanks every item under `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some((from, to)) = test_item(&out) {
        let mut blanked = String::with_capacity(to - from);
        blank(&out[from..to], &mut blanked);
        out.replace_range(from..to, &blanked);
    }
    out
}

/// From the attribute to the end of the item below it.
fn test_item(code: &str) -> Option<(usize, usize)> {
    let words = words(code);
    let attribute = ["#", "[", "cfg", "(", "test", ")", "]"];
    let found =
        words.windows(attribute.len()).position(|w| w.iter().zip(attribute).all(|((_, a), b)| *a == b))?;
    let from = words[found].0;
    let mut depth = 0usize;
    let mut in_braces = false;
    for &(at, word) in &words[found + attribute.len()..] {
        match word {
            "(" | "[" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            "{" => {
                depth += 1;
                in_braces = true;
            }
            "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 && in_braces {
                    return Some((from, at + 1));
                }
            }
            // A use tree in braces ends with a semicolon behind them; leaving it is harmless.
            ";" if depth == 0 => return Some((from, at + 1)),
            _ => {}
        }
    }
    Some((from, code.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_lines_stay() {
        let text = "let a = \"std::fs \\\" x\"; // std::fs\n/* std::fs\n/* x */ */ let b = r#\"std::fs \" \"#;\nlet c: &'static str = 'x'; let d = '\\''; fs::read()";
        let bare = bare(text);
        assert_eq!(bare.matches("fs").count(), 1, "{bare}");
        assert!(bare.contains("fs::read()") && bare.contains("&'static str"));
        assert_eq!(bare.lines().count(), text.lines().count());
    }

    #[test]
    fn test_code_is_blanked() {
        let text = "fn a() {}\n#[cfg(test)]\nuse x::y;\n#[cfg(test)]\n#[allow(x)]\nmod tests { fn b() { if x { y() } } }\n#[cfg(test)]\nmod more;\nfn c() {}";
        let words: Vec<String> = words(&bare(text)).into_iter().map(|(_, w)| w.to_owned()).collect();
        assert_eq!(words.concat(), "fna(){}fnc(){}");
        assert_eq!(line(text, text.find("fn c").unwrap()), 9);
    }

    #[test]
    fn modules_are_found_in_both_places_and_test_modules_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let file = dir.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write("src/lib.rs", "pub mod a;\nmod b;\n#[cfg(test)]\nmod t;\nmod inline { fn x() {} }");
        write("src/a.rs", "mod c;");
        write("src/a/c.rs", "");
        write("src/b/mod.rs", "mod d;");
        write("src/b/d.rs", "");
        write("src/t.rs", "mod never;");
        let read = Crate::read(dir.path(), &dir.path().join("src/lib.rs")).unwrap();
        let names: Vec<String> = read.modules.keys().map(|path| path.join("::")).collect();
        assert_eq!(names, ["", "a", "a::c", "b", "b::d"]);
    }
}
