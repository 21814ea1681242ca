//! Who holds how many shares: no institution may hold enough to read.
//!
//! The threshold protects against fewer than `k` *institutions*, not against fewer than `k`
//! folders: two backends of one house fall to one burglar, one court order, one fire.

use std::fmt;

use super::Backend;
use crate::codec::Threshold;

/// What is asked of the way shares lie at institutions, besides that none can read alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// How many shares more than `k` shall be left when any one institution is lost. Default 0:
    /// enough to read.
    pub spare: u8,
    /// What becomes of a vault where fewer would be left. Default [`IfFewer::Warn`].
    pub if_fewer: IfFewer,
}

/// What becomes of a vault that could not do without one institution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfFewer {
    /// It is made, and [`super::Vault::placement`] tells.
    Warn,
    /// It is not made.
    Refuse,
}

/// One institution that the vault could not do without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// Which.
    pub institution: String,
    /// How many shares it holds.
    pub holds: usize,
    /// How many others are left without it.
    pub left: usize,
    /// How many should be.
    pub wanted: usize,
}

/// Why shares may not lie like this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// An institution could read alone.
    #[error(
        "{institution} would hold {holds} of {n} shares of every object, and {k} suffice to read it: \
         at most {} of its backends may be named ({}); replace the others by backends of other institutions, \
         or raise k",
        k - 1, backends.join(", ")
    )]
    ReadsAlone {
        /// Which.
        institution: String,
        /// How many shares it would hold.
        holds: usize,
        /// Its backends.
        backends: Vec<String>,
        /// How many shares suffice.
        k: usize,
        /// How many there are.
        n: usize,
    },
    /// An institution could not be done without.
    #[error("{0}: name backends of more institutions, or lower k or the wished spare")]
    Short(Shortfall),
    /// A backend whose institution has no name.
    #[error("{backend} names no institution: say who runs it, for shares are counted by institution")]
    Nameless {
        /// Which.
        backend: String,
    },
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shortfall { institution, holds, left, wanted } = self;
        write!(
            f,
            "without {institution}, which holds {holds}, {left} shares would be left and {wanted} are wanted"
        )
    }
}

impl Default for Placement {
    fn default() -> Placement {
        Placement { spare: 0, if_fewer: IfFewer::Warn }
    }
}

impl Placement {
    /// Checks one share per backend. What is short but allowed to be is returned.
    pub fn check(
        &self,
        threshold: Threshold,
        backends: &[Backend],
    ) -> Result<Vec<Shortfall>, PlacementError> {
        let mut short = Vec::new();
        for Holder { institution, backends: held } in holders(backends)? {
            let (k, n, holds) = (threshold.k(), backends.len(), held.len());
            if holds >= k {
                return Err(PlacementError::ReadsAlone { institution, holds, backends: held, k, n });
            }
            let (left, wanted) = (n - holds, k + usize::from(self.spare));
            if left < wanted {
                short.push(Shortfall { institution, holds, left, wanted });
            }
        }
        match (self.if_fewer, short.first()) {
            (IfFewer::Refuse, Some(first)) => Err(PlacementError::Short(first.clone())),
            (IfFewer::Refuse, None) | (IfFewer::Warn, _) => Ok(short),
        }
    }
}

struct Holder {
    institution: String,
    backends: Vec<String>,
}

fn holders(backends: &[Backend]) -> Result<Vec<Holder>, PlacementError> {
    let mut holders: Vec<(String, Holder)> = Vec::new();
    for backend in backends {
        let (same, id) = (plain(&backend.institution), backend.id.to_string());
        if same.is_empty() {
            return Err(PlacementError::Nameless { backend: id });
        }
        match holders.iter_mut().find(|(known, _)| *known == same) {
            Some((_, holder)) => holder.backends.push(id),
            None => {
                let institution = backend.institution.trim().to_owned();
                holders.push((same, Holder { institution, backends: vec![id] }));
            }
        }
    }
    Ok(holders.into_iter().map(|(_, holder)| holder).collect())
}

/// A name without what a hand writes differently each time: case and spaces.
fn plain(institution: &str) -> String {
    institution.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}
