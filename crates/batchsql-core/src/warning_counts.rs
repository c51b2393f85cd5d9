//! Owns which of many like warnings are said: the first of each kind at once, then how many more there were.
//! Must not know what a warning is about, or how it is said.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Those of a kind are counted this long before a line has their number.
const WINDOW: Duration = Duration::from_secs(10);
/// Kinds that are counted on their own; those of further kinds are counted together.
const MOST_KINDS: usize = 100;

/// Counts warnings of kinds `K`, so that 40,000 for one reason are a few lines. For crates of the workspace.
#[derive(Debug)]
pub struct WarningCounts<K> {
    kinds: Mutex<BTreeMap<K, Count>>,
    /// The kind of all that are too many.
    others: K,
}

/// What follows from one more warning.
#[derive(Debug, PartialEq, Eq)]
pub enum Counted<K> {
    /// It is the first of its kind, and is said as it is.
    First,
    /// Nothing is said now.
    Later,
    /// So many of this kind, with this one, were not said yet.
    Due(K, u64),
}

#[derive(Debug)]
struct Count {
    /// That no line has told.
    more: u64,
    since: Instant,
}

impl<K: Ord + Clone> WarningCounts<K> {
    /// `others` is the kind of those that have too many kinds.
    pub fn new(others: K) -> Self {
        Self { kinds: Mutex::default(), others }
    }

    /// Counts `number` more of a kind.
    pub fn add(&self, kind: K, number: u64) -> Counted<K> {
        self.add_at(kind, number, Instant::now())
    }

    fn add_at(&self, kind: K, number: u64, now: Instant) -> Counted<K> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = if kinds.len() < MOST_KINDS || kinds.contains_key(&kind) { kind } else { self.others.clone() };
        let Some(count) = kinds.get_mut(&kind) else {
            kinds.insert(kind, Count { more: 0, since: now });
            return Counted::First;
        };
        count.more += number;
        if now.duration_since(count.since) < WINDOW {
            return Counted::Later;
        }
        count.since = now;
        Counted::Due(kind, std::mem::take(&mut count.more))
    }

    /// Those that no line has told. The next one of each kind is its first one.
    pub fn take(&self) -> Vec<(K, u64)> {
        let kinds = std::mem::take(&mut *self.kinds.lock().unwrap_or_else(PoisonError::into_inner));
        kinds.into_iter().map(|(kind, count)| (kind, count.more)).filter(|(_, more)| *more > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_of_a_kind_are_counted() {
        let (counts, begin) = (WarningCounts::new("others"), Instant::now());
        assert_eq!(counts.add_at("a", 7, begin), Counted::First);
        for _ in 0..40_000 {
            assert_eq!(counts.add_at("a", 1, begin), Counted::Later);
        }
        assert_eq!(counts.add_at("b", 1, begin), Counted::First);
        assert_eq!(counts.add_at("a", 3, begin + WINDOW), Counted::Due("a", 40_003));
        assert_eq!(counts.add_at("a", 1, begin + WINDOW), Counted::Later);
        assert_eq!(counts.take(), [("a", 1)]);
        assert_eq!(counts.take(), []);
        assert_eq!(counts.add_at("a", 1, begin), Counted::First);
    }

    #[test]
    fn kinds_are_bounded() {
        let (counts, now) = (WarningCounts::new(u64::MAX), Instant::now());
        for kind in 0..1000 {
            counts.add_at(kind, 1, now);
        }
        assert_eq!(counts.kinds.lock().unwrap().len(), MOST_KINDS + 1);
        assert_eq!(counts.take(), [(u64::MAX, 1000 - MOST_KINDS as u64 - 1)]);
    }
}
