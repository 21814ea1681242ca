//! Attempts to connect, the same ones told together.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::SessionId;
use model::observed::{Attempt, Observation, Transport};

use super::address::Address;
use super::processes::Actor;

/// Attempts that are told apart at once; further ones are only counted.
const KINDS: usize = 64;
/// How long the same attempts are counted before they are told.
const AGAIN: Duration = Duration::from_secs(10);

type Kind = (Option<SessionId>, Option<String>, Address);

#[derive(Debug)]
struct Seen {
    by: Actor,
    protocol: Transport,
    count: u64,
    told: Option<Instant>,
    last: Instant,
}

/// The attempts of one workspace.
#[derive(Debug, Default)]
pub struct Attempts {
    kinds: BTreeMap<Kind, Seen>,
}

impl Attempts {
    /// Counts an attempt; says whether there is room to tell of it.
    pub fn note(
        &mut self,
        session: Option<SessionId>,
        by: Actor,
        to: Address,
        protocol: Transport,
        now: Instant,
    ) -> bool {
        let kind = (session, by.program.clone(), to);
        if !self.kinds.contains_key(&kind) && self.kinds.len() >= KINDS {
            return false;
        }
        let fresh = || Seen { by: by.clone(), protocol, count: 0, told: None, last: now };
        let seen = self.kinds.entry(kind).or_insert_with(fresh);
        (seen.by, seen.protocol, seen.last) = (by, protocol, now);
        seen.count += 1;
        true
    }

    /// What is to be told now: the first of each kind, and then how many came since, now and then.
    pub fn due(&mut self, now: Instant) -> Vec<(Option<SessionId>, Observation)> {
        let mut told = Vec::new();
        for (kind, seen) in &mut self.kinds {
            if seen.count > 0 && seen.told.is_none_or(|at| now.duration_since(at) >= AGAIN) {
                told.push(observation(kind, seen));
                (seen.count, seen.told) = (0, Some(now));
            }
        }
        self.kinds.retain(|_, seen| seen.count > 0 || now.duration_since(seen.last) < AGAIN);
        told
    }

    /// All that was not told yet, and there will be no more.
    pub fn rest(&mut self) -> Vec<(Option<SessionId>, Observation)> {
        let kinds = std::mem::take(&mut self.kinds);
        kinds.iter().filter(|(_, seen)| seen.count > 0).map(|(kind, seen)| observation(kind, seen)).collect()
    }
}

fn observation((session, _, to): &Kind, seen: &Seen) -> (Option<SessionId>, Observation) {
    let Actor { pid, uid, program } = seen.by.clone();
    let what = Attempt {
        family: to.family,
        protocol: seen.protocol,
        address: to.name.clone(),
        port: to.port,
        pid,
        uid,
        program,
        count: seen.count,
        outcome: to.outcome,
    };
    (session.clone(), Observation::Connection(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::address::parse;

    #[test]
    fn the_same_attempts_are_told_together() {
        let (mut attempts, start) = (Attempts::default(), Instant::now());
        let by = |pid| Actor { pid, uid: 1000, program: Some("/usr/bin/curl".to_owned()) };
        let to = |port: u8| parse(&[2, 0, 0, port, 203, 0, 113, 9]).unwrap();
        for pid in 0..5 {
            assert!(attempts.note(None, by(pid), to(80), Transport::Tcp, start));
        }
        let told = attempts.due(start);
        assert!(matches!(told[..], [(None, Observation::Connection(Attempt { count: 5, .. }))]), "{told:?}");
        attempts.note(None, by(9), to(80), Transport::Tcp, start);
        assert!(attempts.due(start).is_empty());
        let told = attempts.due(start + AGAIN);
        assert!(matches!(&told[..], [(None, Observation::Connection(Attempt { count: 1, pid: 9, .. }))]));
        let room =
            (0..=255).filter(|port| attempts.note(None, by(1), to(*port), Transport::Tcp, start)).count();
        assert_eq!(room, KINDS);
        assert!(attempts.rest().len() <= KINDS);
    }
}
