//! Whether one session more fits into what a study gives.

use model::{StudyId, WorkspaceName};

use crate::denial::Denial;
use crate::limits::{Limit, StudyLimits};

/// What a person has in a study at the time of a request for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Workspaces, that of the request not counted unless they have it already.
    pub workspaces: u64,
    /// Whether they have that of the request already.
    pub known: bool,
    /// Sessions that go on.
    pub sessions: u64,
    /// Whether that of the request counts.
    pub counts: bool,
}

impl StudyLimits {
    /// Whether one session more fits.
    pub fn admits(&self, study: &StudyId, name: &WorkspaceName, usage: &Usage) -> Result<(), Denial> {
        let over = |limit: Limit, have: u64| Denial::OverLimit {
            study: study.clone(),
            limit,
            most: self.get(limit),
            have,
            workspace: name.clone(),
        };
        if !usage.known && usage.workspaces >= self.workspaces {
            return Err(over(Limit::Workspaces, usage.workspaces));
        }
        if usage.counts && usage.sessions >= self.sessions {
            return Err(over(Limit::Sessions, usage.sessions));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(usage: Usage) -> Result<(), (Limit, u64, u64)> {
        let limits = StudyLimits { workspaces: 2, sessions: 3, ..StudyLimits::default() };
        let study = StudyId::from_name("brca").unwrap();
        limits.admits(&study, &WorkspaceName::default(), &usage).map_err(|denial| match denial {
            Denial::OverLimit { limit, most, have, .. } => (limit, most, have),
            other => panic!("{other}"),
        })
    }

    #[test]
    fn the_last_one_that_fits_is_let_in_and_the_next_is_not() {
        let usage = |workspaces, known, sessions, counts| Usage { workspaces, known, sessions, counts };
        assert_eq!(asked(usage(1, false, 2, true)), Ok(()));
        assert_eq!(asked(usage(2, false, 0, true)), Err((Limit::Workspaces, 2, 2)));
        assert_eq!(asked(usage(2, true, 2, true)), Ok(()));
        assert_eq!(asked(usage(2, true, 3, true)), Err((Limit::Sessions, 3, 3)));
        assert_eq!(asked(usage(2, true, 3, false)), Ok(()), "a forwarded port does not count");
    }
}
