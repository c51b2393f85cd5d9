//! Owns which rows of a partition were read and have not been settled, and which of them are written again. Pure: no clock,
//! no I/O.
//! Must not know sources or the pipeline. Sequences rise, and may have holes.

use std::collections::{HashSet, VecDeque};

/// The rows of one partition between the last settled one and the last one that was read.
#[derive(Debug)]
pub(crate) struct Window<R> {
    held: VecDeque<Held<R>>,
    in_flight: usize,
    failed: usize,
}

#[derive(Debug)]
struct Held<R> {
    first: u64,
    /// The same as `first` for a row; a gap has several sequences.
    last: u64,
    row: Option<R>,
    key: Option<Vec<u8>>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    InFlight,
    /// It may be in the table.
    Ended,
    /// It is in the dead letters, or needs no write.
    Gone,
    /// It is not known whether it is in the table, or it is not.
    Failed,
}

/// How a row ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It was written, ignored or superseded.
    Written,
    /// It was refused, and is durable in the dead letters.
    Rejected,
    /// Anything else: it must be written again.
    Failed,
}

impl<R> Default for Window<R> {
    fn default() -> Self {
        Self { held: VecDeque::new(), in_flight: 0, failed: 0 }
    }
}

impl<R> Window<R> {
    /// Adds the next row, which is about to be submitted. Rows without a key have no order.
    pub(crate) fn push(&mut self, sequence: u64, row: R, key: Option<Vec<u8>>) {
        debug_assert!(self.held.back().is_none_or(|last| last.last < sequence), "rows are read in order");
        self.in_flight += 1;
        self.held.push_back(Held { first: sequence, last: sequence, row: Some(row), key, state: State::InFlight });
    }

    /// What needs no write: it is missing and was accepted as lost, or its source has dealt with it.
    pub(crate) fn push_gap(&mut self, first: u64, last: u64) {
        self.held.push_back(Held { first, last, row: None, key: None, state: State::Gone });
    }

    /// The row has its outcome.
    pub(crate) fn end(&mut self, sequence: u64, end: End) {
        let Some(index) = self.index(sequence) else { return };
        let held = &mut self.held[index];
        if held.state != State::InFlight {
            return;
        }
        held.state = match end {
            End::Written => State::Ended,
            End::Rejected => State::Gone,
            End::Failed => State::Failed,
        };
        self.in_flight -= 1;
        self.failed += usize::from(end == End::Failed);
    }

    /// Removes the rows at the front that have ended: their first and last sequence.
    pub(crate) fn settle(&mut self) -> Option<(u64, u64)> {
        let mut settled = None;
        while let Some(front) = self.held.front()
            && matches!(front.state, State::Ended | State::Gone)
        {
            settled = Some((settled.map_or(front.first, |(first, _)| first), front.last));
            self.held.pop_front();
        }
        settled
    }

    /// Whether rows must be written again.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed > 0
    }

    /// The rows that are submitted again, in this order; they are in flight then. They are the failed ones, and later rows of
    /// their keys that may be in the table, because they would be overwritten. Only while no row is in flight: an earlier
    /// version of a key could still be on its way.
    pub(crate) fn write_again(&mut self) -> Vec<u64> {
        if self.in_flight > 0 {
            return Vec::new();
        }
        let (mut keys, mut again) = (HashSet::new(), Vec::new());
        for held in &mut self.held {
            let is_repeated = match held.state {
                State::Failed => true,
                State::Ended => held.key.as_ref().is_some_and(|key| keys.contains(key)),
                State::InFlight | State::Gone => false,
            };
            if !is_repeated {
                continue;
            }
            if held.state == State::Failed {
                keys.extend(held.key.clone());
            }
            held.state = State::InFlight;
            again.push(held.first);
        }
        self.failed = 0;
        self.in_flight = again.len();
        again
    }

    /// A row that was pushed and is not settled.
    pub(crate) fn row(&self, sequence: u64) -> Option<&R> {
        self.index(sequence).and_then(|index| self.held[index].row.as_ref())
    }

    fn index(&self, sequence: u64) -> Option<usize> {
        self.held.binary_search_by_key(&sequence, |held| held.first).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn window(keys: &[Option<u8>]) -> Window<()> {
        let mut window = Window::default();
        for (sequence, key) in (1..).zip(keys) {
            window.push(sequence, (), key.map(|key| vec![key]));
        }
        window
    }

    #[test]
    fn only_the_front_is_settled() {
        let mut window = window(&[Some(1), Some(2), Some(3)]);
        window.end(2, End::Written);
        assert_eq!(window.settle(), None);
        window.end(1, End::Rejected);
        assert_eq!(window.settle(), Some((1, 2)));
        window.end(3, End::Failed);
        assert_eq!(window.settle(), None, "a row that is not known to be written is never settled");
        assert!(window.has_failed());
    }

    #[test]
    fn later_rows_of_a_failed_key_are_written_again_too() {
        let mut window = window(&[Some(1), Some(2), Some(1), Some(1), Some(2)]);
        window.end(1, End::Failed);
        window.end(2, End::Written);
        window.end(3, End::Rejected);
        window.end(4, End::Written);
        assert_eq!(window.write_again(), [] as [u64; 0], "row 5 is in flight");
        window.end(5, End::Written);
        assert_eq!(window.write_again(), [1, 4]);
        assert!(!window.has_failed());
        window.end(1, End::Written);
        assert_eq!(window.settle(), Some((1, 3)));
        window.end(4, End::Written);
        assert_eq!(window.settle(), Some((4, 5)));
    }

    #[test]
    fn rows_without_a_key_are_written_again_alone() {
        let mut window = window(&[None, None, None]);
        window.end(1, End::Written);
        window.end(2, End::Failed);
        window.end(3, End::Written);
        assert_eq!(window.write_again(), [2]);
    }

    #[test]
    fn a_gap_is_settled_in_its_turn() {
        let mut window = window(&[Some(1)]);
        window.push_gap(2, 9);
        window.push(10, (), Some(vec![1]));
        assert_eq!(window.settle(), None);
        window.end(1, End::Written);
        assert_eq!(window.settle(), Some((1, 9)));
    }

    proptest! {
        /// Whatever fails: each row is settled once, after it ended, and the last write of each key is its last row.
        #[test]
        fn the_last_row_of_a_key_is_written_last(
            keys in prop::collection::vec(0_u8..4, 1..30),
            fates in prop::collection::vec(0_u8..3, 200),
        ) {
            let mut window = window(&keys.iter().map(|key| Some(*key)).collect::<Vec<_>>());
            let mut fates = fates.into_iter();
            let mut table: BTreeMap<u8, u64> = BTreeMap::new();
            let mut wave: Vec<u64> = (1..=keys.len() as u64).collect();
            let mut settled = 0;
            while !wave.is_empty() {
                for sequence in wave {
                    // 0: written; 1: unknown, and written; 2: unknown, and not written.
                    let fate = fates.next().unwrap_or(0);
                    if fate < 2 {
                        table.insert(keys[sequence as usize - 1], sequence);
                    }
                    window.end(sequence, if fate == 0 { End::Written } else { End::Failed });
                }
                if let Some((first, last)) = window.settle() {
                    prop_assert_eq!(first, settled + 1);
                    settled = last;
                }
                wave = window.write_again();
            }
            prop_assert_eq!(settled, keys.len() as u64);
            for (key, last) in table {
                let expected = keys.iter().rposition(|known| *known == key).unwrap() as u64 + 1;
                prop_assert_eq!(last, expected, "key {}", key);
            }
        }
    }
}
