//! Circles between the modules of a crate.
//!
//! An arrow leads from a module to each module whose items it names, but for those it contains: a
//! module is made of its children, and they may use what it defines. A name that a module merely
//! passes on (`use`) counts for the module it comes from, so siblings may take each other's items
//! from their parent without a circle.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Crate, line, words};

type Path = Vec<String>;

/// A circle of modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circle {
    /// The modules in it.
    pub modules: Vec<String>,
    /// A sentence that names a line for each of its arrows.
    pub said: String,
}

/// Every circle.
pub fn check(code: &Crate) -> Vec<Circle> {
    let uses: BTreeMap<&Path, Vec<Use>> =
        code.modules.iter().map(|(path, module)| (path, mentioned(&module.code))).collect();
    let mut arrows: BTreeMap<&Path, BTreeMap<&Path, usize>> = BTreeMap::new();
    for (from, mentioned) in &uses {
        for mention in mentioned {
            let Some(to) = resolve(&uses, from, &mention.path, 0) else { continue };
            // `from` itself, or something in it.
            if !to.starts_with(from) {
                arrows.entry(from).or_default().entry(to).or_insert(mention.line);
            }
        }
    }
    circles(&arrows)
        .into_iter()
        .map(|circle| {
            let steps: Vec<String> = circle
                .iter()
                .zip(circle.iter().cycle().skip(1))
                .map(|(from, to)| {
                    let line = arrows.get(from).and_then(|to_lines| to_lines.get(to)).copied().unwrap_or(0);
                    format!("{} → {} ({}:{line})", shown(from), shown(to), code.modules[*from].file)
                })
                .collect();
            Circle {
                modules: circle.iter().map(|module| shown(module)).collect(),
                said: format!("{}: a circle between modules: {}", code.name, steps.join(", ")),
            }
        })
        .collect()
}

fn shown(path: &Path) -> String {
    if path.is_empty() { "the root".to_owned() } else { path.join("::") }
}

/// A path that a module's code mentions.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Use {
    path: Path,
    line: usize,
    in_use: bool,
    /// Under which name the path is known here, if it is a `use`.
    name: Option<String>,
}

/// Every path of two or more parts, and every leaf of a `use`.
fn mentioned(code: &str) -> Vec<Use> {
    let words = words(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let (offset, word) = words[at];
        if word == "use" {
            let end = words[at..].iter().position(|w| w.1 == ";").map_or(words.len(), |n| at + n);
            let mut leaves = Vec::new();
            tree(&words[at + 1..end], &[], &mut leaves);
            let line = line(code, offset);
            found.extend(leaves.into_iter().map(|(path, name)| Use {
                path,
                line,
                in_use: true,
                name: Some(name),
            }));
            at = end;
        } else if is_name(word) && words.get(at + 1).is_some_and(|w| w.1 == "::") {
            let mut path = vec![word.to_owned()];
            let mut next = at + 1;
            while words.get(next).is_some_and(|w| w.1 == "::")
                && words.get(next + 1).is_some_and(|w| is_name(w.1))
            {
                path.push(words[next + 1].1.to_owned());
                next += 2;
            }
            let line = line(code, offset);
            found.push(Use { path, line, in_use: false, name: None });
            at = next;
        } else {
            at += 1;
        }
    }
    found
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The leaves of a use tree: each whole path, with the name it goes by.
fn tree(words: &[(usize, &str)], before: &[String], out: &mut Vec<(Path, String)>) {
    let mut path = before.to_vec();
    let mut at = 0;
    while at < words.len() {
        match words[at].1 {
            "::" => {}
            "{" => {
                let mut depth = 0usize;
                let mut start = at + 1;
                for (i, (_, word)) in words.iter().enumerate().skip(at) {
                    match *word {
                        "{" => depth += 1,
                        "}" => depth -= 1,
                        _ => {}
                    }
                    if (depth == 1 && *word == ",") || depth == 0 {
                        if start < i {
                            tree(&words[start..i], &path, out);
                        }
                        start = i + 1;
                    }
                    if depth == 0 {
                        break;
                    }
                }
                return;
            }
            "as" => {
                let name = words.get(at + 1).map_or("_", |w| w.1);
                out.push((path, name.to_owned()));
                return;
            }
            // `a::{self}` is `a`; a leading `self::` is a path's beginning.
            "self" if !before.is_empty() && at == 0 => {}
            word => path.push(word.to_owned()),
        }
        at += 1;
    }
    if let Some(name) = path.last().cloned() {
        out.push((path, name));
    }
}

/// The module that a path, as `from` writes it, leads into; nothing if it leaves the crate.
fn resolve<'a>(
    uses: &BTreeMap<&'a Path, Vec<Use>>,
    from: &Path,
    path: &[String],
    depth: usize,
) -> Option<&'a Path> {
    if depth > 8 {
        return None;
    }
    let (first, mut rest) = path.split_first()?;
    let mut place: Path = match first.as_str() {
        "crate" => Vec::new(),
        "self" => from.clone(),
        "super" => {
            let mut place = from.clone();
            place.pop()?;
            while let Some((next, more)) = rest.split_first()
                && next == "super"
            {
                place.pop()?;
                rest = more;
            }
            place
        }
        name => {
            let mut child = from.clone();
            child.push(name.to_owned());
            if !uses.contains_key(&child) {
                return None;
            }
            child
        }
    };
    // Down as far as there are modules.
    while let Some((next, more)) = rest.split_first() {
        place.push(next.clone());
        if !uses.contains_key(&place) {
            place.pop();
            break;
        }
        rest = more;
    }
    let (here, mentioned) = uses.get_key_value(&place)?;
    // A name that the module itself has from elsewhere.
    if let Some(name) = rest.first() {
        let passed_on = mentioned.iter().find(|u| u.in_use && u.name.as_ref() == Some(name));
        if let Some(passed_on) = passed_on
            && passed_on.path != path
            && let Some(origin) = resolve(uses, here, &passed_on.path, depth + 1)
        {
            return Some(origin);
        }
    }
    Some(*here)
}

/// One circle for each set of modules that all reach each other: a shortest one through the
/// first of them.
fn circles<'a>(arrows: &BTreeMap<&'a Path, BTreeMap<&'a Path, usize>>) -> Vec<Vec<&'a Path>> {
    let mut found: Vec<Vec<&Path>> = Vec::new();
    let mut in_circle: BTreeSet<&Path> = BTreeSet::new();
    for &start in arrows.keys() {
        if in_circle.contains(start) {
            continue;
        }
        if let Some(circle) = shortest(arrows, start) {
            in_circle.extend(circle.iter().copied());
            found.push(circle);
        }
    }
    found
}

fn shortest<'a>(
    arrows: &BTreeMap<&'a Path, BTreeMap<&'a Path, usize>>,
    start: &'a Path,
) -> Option<Vec<&'a Path>> {
    let mut ways = vec![vec![start]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for &next in arrows.get(way.last()?).into_iter().flat_map(BTreeMap::keys) {
                if next == start {
                    return Some(way);
                }
                if seen.insert(next) {
                    let mut way = way.clone();
                    way.push(next);
                    longer.push(way);
                }
            }
        }
        ways = longer;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Module, bare};

    fn found(modules: &[(&str, &str)]) -> Vec<String> {
        let modules = modules.iter().map(|(path, text)| {
            let path: Path = path.split("::").filter(|p| !p.is_empty()).map(str::to_owned).collect();
            let file = format!("{}.rs", path.join("/"));
            (path, Module { file, code: bare(text) })
        });
        let code = Crate { name: "lib.rs".to_owned(), modules: modules.collect() };
        check(&code).into_iter().map(|circle| circle.said).collect()
    }

    #[test]
    fn a_circle_of_siblings_is_found_however_it_is_written() {
        for (a, b) in [
            ("use crate::b::B;", "use crate::a::A;"),
            ("use super::b;", "fn f() { super::a::go() }"),
            ("fn f() { crate::b::go() }", "use crate::{a::A, c::C};"),
            ("use super::b::{self, B};", "use crate::a as other;"),
        ] {
            let found = found(&[("", "mod a; mod b; mod c;"), ("a", a), ("b", b), ("c", "")]);
            assert_eq!(found.len(), 1, "{a} {b}: {found:?}");
            assert!(found[0].contains("a → b (a.rs:1), b → a (b.rs:1)"), "{found:?}");
        }
    }

    #[test]
    fn a_longer_circle_and_one_through_a_parent_are_found() {
        let long = found(&[
            ("", "mod a; mod b; mod c;"),
            ("a", "use crate::b::B;"),
            ("b", "use crate::c::C;"),
            ("c", "use crate::a::A;"),
        ]);
        assert!(long.len() == 1 && long[0].contains("c → a"), "{long:?}");
        let above = found(&[
            ("", "mod a; mod d;"),
            ("a", "mod c; pub struct S; use crate::d::D;"),
            ("a::c", "use super::S;"),
            ("d", "use crate::a::c::C;"),
        ]);
        assert!(above.len() == 1 && above[0].contains("a::c → a"), "{above:?}");
    }

    #[test]
    fn a_parent_may_present_its_children() {
        let facade = found(&[
            ("", "mod a;"),
            ("a", "mod b; mod c; pub use b::{B, Error}; use c::C; fn f(_: C) {}"),
            ("a::b", "pub struct B; pub enum Error {}"),
            ("a::c", "use super::{B, Error}; use super::b; pub struct C;"),
        ]);
        assert_eq!(facade, Vec::<String>::new());
        let made_of = found(&[
            ("", "mod a;"),
            ("a", "mod b; pub enum Error {} fn f() { b::go() }"),
            ("a::b", "use super::Error;"),
        ]);
        assert_eq!(made_of, Vec::<String>::new());
    }

    #[test]
    fn other_crates_tests_and_one_way_streets_are_no_circles() {
        let clean = found(&[
            ("", "mod a; mod b;"),
            ("a", "use std::b::X; use b2::a::Y; #[cfg(test)] mod tests { use crate::b::B; }"),
            ("b", "use crate::a::{A, self}; fn f() { super::a::go(); a2::b::c() }"),
        ]);
        assert_eq!(clean, Vec::<String>::new());
    }
}
