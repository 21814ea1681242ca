//! Counting over time, with bounded memory.
//!
//! A correlation remembers at most [`GROUPS_MAX`] groups, and of each at most as many events as its
//! threshold: when that many are there it fits, and begins anew. Whoever makes more groups than that
//! pushes out the one that was quiet for longest, of that correlation alone.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::rules::Shape;

/// The most groups of one correlation.
const GROUPS_MAX: usize = 4096;
/// When they are too many, so many go at once, so that the search for them is seldom.
const GROUPS_GO: usize = GROUPS_MAX / 8;
/// The longest value that counts as one of its own, in bytes; longer ones are cut.
const VALUE_MAX: usize = 256;
/// The most events that are shown as evidence.
const EVIDENCE_MAX: usize = 32;

/// An event that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hit {
    /// When it happened, in milliseconds.
    pub(super) at: i64,
    /// Where it stands in the log.
    pub(super) index: u64,
    /// Who did it, where that is proven.
    pub(super) who: Option<Arc<str>>,
}

/// What one correlation remembers.
#[derive(Debug, Default)]
pub(super) struct Memory {
    groups: HashMap<Vec<String>, Group>,
}

#[derive(Debug)]
struct Group {
    touched: i64,
    held: Held,
}

#[derive(Debug)]
enum Held {
    Count(VecDeque<Hit>),
    Values(HashMap<String, Hit>),
    /// The latest of each rule.
    All(Vec<Option<Hit>>),
    /// For each rule, the hits of the latest beginning that led to it in order.
    Ordered(Vec<Vec<Hit>>),
}

/// A correlation that fits: its events, and who did all of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fit {
    /// Indices, oldest first.
    pub(super) evidence: Vec<u64>,
    /// Who, if every one of them is proven to be by the same person.
    pub(super) who: Option<Arc<str>>,
}

impl Memory {
    /// One more event of the rule `number` in the group of `key`; `value` is that of the counted
    /// field, where values are counted.
    pub(super) fn hit(
        &mut self,
        shape: &Shape,
        timespan: Duration,
        key: Vec<String>,
        number: usize,
        value: Option<String>,
        hit: Hit,
    ) -> Option<Fit> {
        let timespan = i64::try_from(timespan.as_millis()).unwrap_or(i64::MAX);
        let now = hit.at;
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&key) {
            self.make_room(now, timespan);
        }
        let group = self.groups.entry(key).or_insert_with(|| Group { touched: now, held: Held::new(shape) });
        // Clocks jump: what seems to come from before counts as of now for keeping.
        group.touched = group.touched.max(now);
        let fit = group.held.add(shape, now.saturating_sub(timespan), number, value, hit);
        if fit.is_some() {
            group.held = Held::new(shape);
        }
        fit
    }

    /// How many groups are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    fn make_room(&mut self, now: i64, timespan: i64) {
        self.groups.retain(|_, group| group.touched >= now.saturating_sub(timespan));
        if self.groups.len() >= GROUPS_MAX {
            let mut times: Vec<i64> = self.groups.values().map(|group| group.touched).collect();
            let (_, limit, _) = times.select_nth_unstable(GROUPS_GO);
            let limit = *limit;
            let mut going = GROUPS_GO;
            self.groups.retain(|_, group| {
                let goes = going > 0 && group.touched <= limit;
                going -= usize::from(goes);
                !goes
            });
        }
    }
}

impl Held {
    fn new(shape: &Shape) -> Held {
        match shape {
            Shape::Count(_) => Held::Count(VecDeque::new()),
            Shape::Values(..) => Held::Values(HashMap::new()),
            Shape::All { rules, ordered: false } => Held::All(vec![None; *rules]),
            Shape::All { rules, ordered: true } => Held::Ordered(vec![Vec::new(); *rules]),
        }
    }

    fn add(
        &mut self,
        shape: &Shape,
        since: i64,
        number: usize,
        value: Option<String>,
        hit: Hit,
    ) -> Option<Fit> {
        match (self, shape) {
            (Held::Count(hits), Shape::Count(threshold)) => {
                hits.retain(|old| old.at >= since);
                hits.push_back(hit);
                (hits.len() >= *threshold).then(|| Fit::of(hits.iter()))
            }
            (Held::Values(values), Shape::Values(threshold, _)) => {
                let mut value = value?;
                if value.len() > VALUE_MAX {
                    let end = (0..=VALUE_MAX).rev().find(|end| value.is_char_boundary(*end)).unwrap_or(0);
                    value.truncate(end);
                }
                values.retain(|_, old| old.at >= since);
                values.insert(value, hit);
                (values.len() >= *threshold).then(|| Fit::of(values.values()))
            }
            (Held::All(latest), _) => {
                if let Some(slot) = latest.get_mut(number) {
                    *slot = Some(hit);
                }
                let there = |slot: &Option<Hit>| slot.as_ref().is_some_and(|hit| hit.at >= since);
                latest.iter().all(there).then(|| Fit::of(latest.iter().flatten()))
            }
            (Held::Ordered(chains), _) => {
                let mut chain = match number.checked_sub(1) {
                    None => Vec::new(),
                    Some(before) => chains.get(before).filter(|chain| !chain.is_empty())?.clone(),
                };
                if chain.first().is_some_and(|first| first.at < since) {
                    return None;
                }
                chain.push(hit);
                let last = number + 1 == chains.len();
                let fit = last.then(|| Fit::of(chain.iter()));
                *chains.get_mut(number)? = chain;
                fit
            }
            _ => None,
        }
    }
}

impl Fit {
    fn of<'a>(hits: impl Iterator<Item = &'a Hit>) -> Fit {
        let hits: Vec<&Hit> = hits.collect();
        let mut evidence: Vec<u64> = hits.iter().map(|hit| hit.index).collect();
        evidence.sort_unstable();
        evidence.dedup();
        evidence.drain(..evidence.len().saturating_sub(EVIDENCE_MAX));
        let who = hits.first().and_then(|hit| hit.who.clone());
        let who = who.filter(|who| hits.iter().all(|hit| hit.who.as_ref() == Some(who)));
        Fit { evidence, who }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn hit(at: i64, index: u64, who: Option<&str>) -> Hit {
        Hit { at, index, who: who.map(Arc::from) }
    }

    fn key(name: &str) -> Vec<String> {
        vec![name.to_owned()]
    }

    #[test]
    fn events_are_counted_within_their_time_and_group() {
        let mut memory = Memory::default();
        let shape = Shape::Count(3);
        let mut add = |at, index, name: &str| {
            memory.hit(&shape, MINUTE, key(name), 0, None, hit(at, index, Some("u:a")))
        };
        assert_eq!(add(0, 1, "a"), None);
        assert_eq!(add(30_000, 2, "a"), None);
        assert_eq!(add(40_000, 3, "b"), None);
        // The first is too long ago.
        assert_eq!(add(61_000, 4, "a"), None);
        let fit = add(62_000, 5, "a").unwrap();
        assert_eq!((fit.evidence, fit.who.as_deref()), (vec![2, 4, 5], Some("u:a")));
        // It begins anew.
        assert_eq!(add(63_000, 6, "a"), None);
    }

    #[test]
    fn who_did_it_is_known_only_if_one_person_did_all() {
        for (second, who) in [(Some("u:a"), Some("u:a")), (Some("u:b"), None), (None, None)] {
            let mut memory = Memory::default();
            let shape = Shape::Count(2);
            memory.hit(&shape, MINUTE, key("x"), 0, None, hit(0, 1, Some("u:a")));
            let fit = memory.hit(&shape, MINUTE, key("x"), 0, None, hit(1, 2, second)).unwrap();
            assert_eq!(fit.who.as_deref(), who);
        }
    }

    #[test]
    fn only_different_values_count() {
        let mut memory = Memory::default();
        let shape = Shape::Values(2, vec!["f".to_owned()]);
        let mut add = |at, index, value: Option<&str>| {
            memory.hit(&shape, MINUTE, key("x"), 0, value.map(str::to_owned), hit(at, index, None))
        };
        for n in 0..10_000 {
            assert_eq!(add(n, 1, Some("same")), None);
        }
        assert_eq!(add(1, 2, None), None);
        assert_eq!(add(10_001, 3, Some("other")).unwrap().evidence, [1, 3]);
    }

    #[test]
    fn one_of_each_in_any_order_or_in_theirs() {
        let run = |ordered, numbers: &[usize]| {
            let mut memory = Memory::default();
            let shape = Shape::All { rules: 3, ordered };
            let mut fits = 0;
            for (at, number) in numbers.iter().enumerate() {
                let hit = hit(at as i64 * 1000, at as u64, None);
                fits += usize::from(memory.hit(&shape, MINUTE, key("x"), *number, None, hit).is_some());
            }
            fits
        };
        assert_eq!(run(false, &[2, 0, 1]), 1);
        assert_eq!(run(false, &[2, 0, 0]), 0);
        assert_eq!(run(true, &[2, 0, 1]), 0);
        assert_eq!(run(true, &[2, 0, 1, 1, 0, 2]), 1);
        // An early beginning does not hide a later one.
        let mut memory = Memory::default();
        let shape = Shape::All { rules: 2, ordered: true };
        let mut add =
            |at, number| memory.hit(&shape, MINUTE, key("x"), number, None, hit(at, at as u64, None));
        assert_eq!(add(0, 0), None);
        assert_eq!(add(61_000, 1), None);
        assert_eq!(add(62_000, 0), None);
        assert_eq!(add(63_000, 1).unwrap().evidence, [62_000, 63_000]);
    }

    #[test]
    fn memory_is_bounded_and_the_quietest_group_goes_first() {
        let mut memory = Memory::default();
        let shape = Shape::Count(2);
        for n in 0..50_000 {
            // Somebody who comes again and again is not pushed out by strangers.
            let name = if n % 100 == 0 { "often".to_owned() } else { format!("{n}") };
            if n % 100 == 0 {
                memory.groups.remove(&key("often"));
            }
            memory.hit(&shape, MINUTE, vec![name], 0, None, hit(n, 1, None));
            assert!(memory.len() <= GROUPS_MAX);
        }
        assert!(memory.groups.contains_key(&key("often")));
    }
}
