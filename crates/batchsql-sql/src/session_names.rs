//! Owns the list of the names of a pool's sessions: a connection that was in use just before is found again without a round
//! trip.
//! Must not know how a session is named, what its mark is, or what the name is for.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Names of sessions, found by a mark that a driver reads from a connection. It is equal only for the same connection.
#[derive(Debug)]
pub struct SessionNames<M, N> {
    /// Those that were used last are at the end.
    known: Mutex<VecDeque<(M, N)>>,
    /// Pools do not report closed connections, so the oldest names are dropped.
    capacity: usize,
}

impl<M: PartialEq, N: Clone> SessionNames<M, N> {
    /// For a pool of this many connections. Keeps at most twice as many names.
    pub fn of(connections: u32) -> Self {
        let capacity = usize::try_from(connections).unwrap_or(usize::MAX).saturating_mul(2);
        Self { known: Mutex::default(), capacity }
    }

    /// Whether no name is kept.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The name of the session with a mark, if it is kept.
    pub fn find(&self, mark: &M) -> Option<N> {
        let mut known = self.lock();
        let place = known.iter().position(|(other, _)| other == mark)?;
        let entry = known.remove(place)?;
        let name = entry.1.clone();
        known.push_back(entry);
        Some(name)
    }

    /// Keeps the name of the session with a mark, in place of an earlier one.
    pub fn keep(&self, mark: M, name: N) {
        let mut known = self.lock();
        known.retain(|(other, _)| *other != mark);
        if known.len() >= self.capacity {
            known.pop_front();
        }
        known.push_back((mark, name));
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(M, N)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_that_was_not_used_for_longest_is_dropped() {
        let names = SessionNames::of(1);
        assert!(names.is_empty());
        assert_eq!(names.find(&1), None);
        names.keep(1, "a");
        names.keep(2, "b");
        assert!(!names.is_empty());
        assert_eq!(names.find(&1), Some("a"));
        names.keep(3, "c");
        assert_eq!([1, 2, 3].map(|mark| names.find(&mark)), [Some("a"), None, Some("c")]);
        names.keep(1, "d");
        assert_eq!([1, 3].map(|mark| names.find(&mark)), [Some("d"), Some("c")], "it replaces its own name only");
    }
}
