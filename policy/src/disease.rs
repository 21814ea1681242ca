//! Diseases and what they fall under: a small, checked-in part of Mondo, or a table of one's own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

/// The most bytes a table may have.
const TABLE_MAX: usize = 16 << 20;

/// The most ancestors that a disease may have; Mondo stays below a hundred.
const ANCESTORS_MAX: usize = 1_000;

/// An identifier of the Mondo disease ontology: `MONDO:` and seven digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MondoId(u32);

/// Why a text is not a [`MondoId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a disease is MONDO: and seven digits")]
pub struct MondoIdError;

impl FromStr for MondoId {
    type Err = MondoIdError;

    fn from_str(text: &str) -> Result<Self, MondoIdError> {
        let digits = text.strip_prefix("MONDO:").ok_or(MondoIdError)?;
        if digits.len() == 7 && digits.bytes().all(|c| c.is_ascii_digit()) {
            digits.parse().map(MondoId).map_err(|_| MondoIdError)
        } else {
            Err(MondoIdError)
        }
    }
}

impl fmt::Display for MondoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MONDO:{:07}", self.0)
    }
}

/// A table of diseases, each with its name and its direct parents.
#[derive(Debug, Clone, Default)]
pub struct Diseases {
    entries: BTreeMap<MondoId, Disease>,
}

#[derive(Debug, Clone)]
struct Disease {
    name: String,
    parents: Vec<MondoId>,
    /// Everything that it falls under.
    ancestors: BTreeSet<MondoId>,
}

/// Why a text is not a table of diseases.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Longer than any such table.
    #[error("the table of diseases is longer than {TABLE_MAX} bytes")]
    TooLong,
    /// A line that is not `id TAB name TAB parents`.
    #[error("line {0} of the table of diseases is not: id, tab, name, tab, parents between commas")]
    Line(usize),
    /// An identifier on two lines.
    #[error("{0} stands twice in the table of diseases")]
    Twice(MondoId),
    /// A parent without a line of its own.
    #[error("{child} falls under {parent}, which has no line in the table of diseases")]
    Parent {
        /// The disease.
        child: MondoId,
        /// The parent that is missing.
        parent: MondoId,
    },
    /// A disease with more ancestors than any has.
    #[error("{0} has more than {ANCESTORS_MAX} ancestors in the table of diseases")]
    TooDeep(MondoId),
    /// A disease that falls under itself.
    #[error("{0} falls under itself in the table of diseases")]
    Circle(MondoId),
}

impl Diseases {
    /// The table that comes with the product: cancers, heart and nervous system.
    pub fn builtin() -> &'static Diseases {
        static BUILTIN: LazyLock<Diseases> = LazyLock::new(|| {
            // A test reads the same text, so that a table that does not parse is never built in;
            // if it were, an empty table sends every disease to people.
            Diseases::parse(include_str!("../data/diseases.tsv")).unwrap_or_default()
        });
        &BUILTIN
    }

    /// Reads a table: per line an identifier, a name and the parents (between commas, none for a
    /// root), with tabs between; lines that begin with `#` are remarks.
    pub fn parse(text: &str) -> Result<Diseases, TableError> {
        if text.len() > TABLE_MAX {
            return Err(TableError::TooLong);
        }
        let mut entries = BTreeMap::new();
        for (i, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = |_| TableError::Line(i + 1);
            let mut fields = line.split('\t');
            let (Some(id), Some(name), Some(parents), None) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            else {
                return Err(TableError::Line(i + 1));
            };
            let id = id.parse().map_err(bad)?;
            let parents = parents
                .split(',')
                .filter(|p| !p.is_empty())
                .map(|p| p.parse().map_err(bad))
                .collect::<Result<Vec<MondoId>, _>>()?;
            let disease = Disease { name: name.to_owned(), parents, ancestors: BTreeSet::new() };
            if entries.insert(id, disease).is_some() {
                return Err(TableError::Twice(id));
            }
        }
        let mut table = Diseases { entries };
        let walk = |id: &MondoId| Ok((*id, table.walk_up(id)?));
        let all: Vec<(MondoId, BTreeSet<MondoId>)> =
            table.entries.keys().map(walk).collect::<Result<_, TableError>>()?;
        for (id, ancestors) in all {
            if let Some(disease) = table.entries.get_mut(&id) {
                disease.ancestors = ancestors;
            }
        }
        table.check()?;
        Ok(table)
    }

    /// The name of a disease, if it is in the table.
    pub fn name(&self, disease: &MondoId) -> Option<&str> {
        self.entries.get(disease).map(|found| found.name.as_str())
    }

    /// Every disease of the table, in order.
    pub fn ids(&self) -> impl Iterator<Item = MondoId> {
        self.entries.keys().copied()
    }

    /// Whether `disease` is `other` or falls under it; `None` if the table cannot tell.
    pub fn is_under(&self, disease: &MondoId, other: &MondoId) -> Option<bool> {
        if disease == other {
            return Some(true);
        }
        let found = self.entries.get(disease)?;
        self.entries.contains_key(other).then(|| found.ancestors.contains(other))
    }

    fn walk_up(&self, disease: &MondoId) -> Result<BTreeSet<MondoId>, TableError> {
        let mut seen = BTreeSet::new();
        let mut open = vec![*disease];
        while let Some(next) = open.pop() {
            for parent in self.entries.get(&next).map_or(&[][..], |found| &found.parents) {
                if seen.insert(*parent) {
                    open.push(*parent);
                }
            }
            if seen.len() > ANCESTORS_MAX {
                return Err(TableError::TooDeep(*disease));
            }
        }
        Ok(seen)
    }

    fn check(&self) -> Result<(), TableError> {
        for (child, found) in &self.entries {
            if let Some(parent) = found.parents.iter().find(|p| !self.entries.contains_key(p)) {
                return Err(TableError::Parent { child: *child, parent: *parent });
            }
            if found.ancestors.contains(child) {
                return Err(TableError::Circle(*child));
            }
        }
        Ok(())
    }
}
