//! Owns which rows of a partition were read and have not been settled, and which of them are written again. Pure: no clock,
//! no I/O.
//! Must not know sources or the pipeline. Sequences rise, and may have holes between blocks.

use std::collections::HashSet;
use std::ops::{Range, RangeInclusive};

use batchsql_core::Queue;

/// The blocks of one partition between the last settled row and the last one that was read.
#[derive(Debug)]
pub(crate) struct Window<B> {
    held: Queue<Held<B>>,
    in_flight: usize,
    failed: usize,
}

#[derive(Debug)]
struct Held<B> {
    /// The sequence of the first row.
    first: u64,
    /// Sequences, of rows or of what needs no write.
    count: u64,
    /// Rows at the front that are settled.
    settled: usize,
    /// `None`: what needs no write.
    block: Option<B>,
    states: States,
}

/// The states of the rows of a block. Most blocks have only one.
#[derive(Debug)]
enum States {
    All(State),
    Each(Vec<State>),
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

/// Rows at the front that have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settled {
    /// The first sequence.
    pub(crate) first: u64,
    /// The last one.
    pub(crate) last: u64,
    /// How many of the rows were written, ignored or superseded.
    pub(crate) written: u64,
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

/// Rows of a block, by their numbers in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// The sequence of the first row of the block.
    pub(crate) block: u64,
    pub(crate) rows: Vec<u32>,
}

impl States {
    fn get(&self, row: usize) -> State {
        match self {
            Self::All(state) => *state,
            Self::Each(states) => states[row],
        }
    }

    fn each(&mut self, count: usize) -> &mut Vec<State> {
        if let Self::All(state) = *self {
            *self = Self::Each(vec![state; count]);
        }
        match self {
            Self::Each(states) => states,
            Self::All(_) => unreachable!("it has just been changed"),
        }
    }
}

impl<B> Held<B> {
    fn rows(&self) -> Range<usize> {
        self.settled..usize::try_from(self.count).unwrap_or(usize::MAX)
    }
}

impl<B> Default for Window<B> {
    fn default() -> Self {
        Self { held: Queue::new(), in_flight: 0, failed: 0 }
    }
}

impl<B> Window<B> {
    /// Adds a block of `count` rows, which are about to be submitted, but for the first `settled` of them.
    pub(crate) fn push(&mut self, first: u64, count: usize, settled: usize, block: B) {
        debug_assert!(self.is_behind(first), "blocks are read in order");
        self.in_flight += count - settled;
        let (block, states) = (Some(block), States::All(State::InFlight));
        self.held.push_back(Held { first, count: count as u64, settled, block, states });
    }

    /// What needs no write: it is missing and was accepted as lost, or its source has dealt with it.
    pub(crate) fn push_gap(&mut self, first: u64, last: u64) {
        debug_assert!(self.is_behind(first), "gaps are read in order");
        let count = last - first + 1;
        self.held.push_back(Held { first, count, settled: 0, block: None, states: States::All(State::Gone) });
    }

    fn is_behind(&self, first: u64) -> bool {
        self.held.back().is_none_or(|last| last.first + last.count <= first)
    }

    /// Rows of a block have their outcome.
    pub(crate) fn end(&mut self, block: u64, rows: Range<usize>, end: End) {
        let Some(index) = self.index(block) else { return };
        let held = &mut self.held[index];
        let state = match end {
            End::Written => State::Ended,
            End::Rejected => State::Gone,
            End::Failed => State::Failed,
        };
        let mut ended = rows.len();
        if rows == held.rows() && matches!(held.states, States::All(State::InFlight)) {
            held.states = States::All(state);
        } else {
            let count = held.rows().end;
            let states = held.states.each(count);
            ended = 0;
            for known in states[rows].iter_mut().filter(|known| **known == State::InFlight) {
                *known = state;
                ended += 1;
            }
        }
        self.in_flight -= ended;
        if end == End::Failed {
            self.failed += ended;
        }
    }

    /// Removes the rows at the front that have ended.
    pub(crate) fn settle(&mut self) -> Option<Settled> {
        let mut settled: Option<Settled> = None;
        while let Some(front) = self.held.front_mut() {
            let has_ended = |state: State| matches!(state, State::Ended | State::Gone);
            let rows = front.rows();
            let ended = match &front.states {
                States::All(state) if has_ended(*state) => rows.end,
                States::All(_) => rows.start,
                States::Each(states) => {
                    let not = states[rows.clone()].iter().position(|state| !has_ended(*state));
                    not.map_or(rows.end, |row| rows.start + row)
                }
            };
            if ended == rows.start && !rows.is_empty() {
                break;
            }
            let written = match &front.states {
                States::All(State::Ended) => ended - rows.start,
                States::All(_) => 0,
                States::Each(states) => {
                    states[rows.start..ended].iter().filter(|state| **state == State::Ended).count()
                }
            };
            let (first, last) = (front.first + rows.start as u64, front.first + ended as u64 - 1);
            let before = settled.unwrap_or(Settled { first, last, written: 0 });
            settled = Some(Settled { last, written: before.written + written as u64, ..before });
            front.settled = ended;
            if ended < rows.end {
                break;
            }
            self.held.pop_front();
        }
        settled
    }

    /// Rows that have ended behind one that has not, of the blocks that this holds for. What needs no write is not among them.
    pub(crate) fn ended_behind(&self, counts: impl Fn(&B) -> bool) -> Vec<RangeInclusive<u64>> {
        let mut ended: Vec<RangeInclusive<u64>> = Vec::new();
        for held in self.held.iter().filter(|held| held.block.as_ref().is_some_and(&counts)) {
            let has_ended = |row: &usize| matches!(held.states.get(*row), State::Ended | State::Gone);
            for sequence in held.rows().filter(has_ended).map(|row| held.first + row as u64) {
                match ended.last_mut() {
                    Some(last) if *last.end() + 1 == sequence => *last = *last.start()..=sequence,
                    _ => ended.push(sequence..=sequence),
                }
            }
        }
        ended
    }

    /// Whether rows must be written again.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed > 0
    }

    /// The rows that are submitted again, in this order; they are in flight then. They are the failed ones, and later rows of
    /// their keys that may be in the table, because they would be overwritten. Only while no row is in flight: an earlier
    /// version of a key could still be on its way. Rows without a key have no order.
    pub(crate) fn write_again(&mut self, key: impl Fn(&B, usize) -> Option<Vec<u8>>) -> Vec<Part> {
        if self.in_flight > 0 {
            return Vec::new();
        }
        let (mut keys, mut again) = (HashSet::new(), Vec::new());
        for held in self.held.iter_mut() {
            let Some(block) = &held.block else { continue };
            if keys.is_empty() && matches!(held.states, States::All(State::Ended | State::Gone)) {
                continue;
            }
            let mut part = Vec::new();
            for row in held.rows() {
                let state = held.states.get(row);
                let is_repeated = match state {
                    State::Failed => true,
                    State::Ended => !keys.is_empty() && key(block, row).is_some_and(|key| keys.contains(&key)),
                    State::InFlight | State::Gone => false,
                };
                if is_repeated {
                    if state == State::Failed {
                        keys.extend(key(block, row));
                    }
                    part.push(u32::try_from(row).expect("a block has at most MAX_ROWS rows"));
                }
            }
            if part.is_empty() {
                continue;
            }
            self.in_flight += part.len();
            if part.len() == held.rows().len() {
                held.states = States::All(State::InFlight);
            } else {
                let count = held.rows().end;
                let states = held.states.each(count);
                part.iter().for_each(|row| states[*row as usize] = State::InFlight);
            }
            again.push(Part { block: held.first, rows: part });
        }
        self.failed = 0;
        again
    }

    /// The block with this first row, if it is not settled.
    pub(crate) fn block(&self, first: u64) -> Option<&B> {
        self.index(first).and_then(|index| self.held[index].block.as_ref())
    }

    fn index(&self, first: u64) -> Option<usize> {
        self.held.binary_search_by_key(&first, |held| held.first).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The keys of the rows of a block.
    type Keys = Vec<Option<u8>>;

    /// Numbers of rows as sequences of blocks and rows in them.
    struct Rows {
        window: Window<Keys>,
        /// Of each row: its block, and its number in it.
        places: Vec<(u64, usize)>,
    }

    impl Rows {
        /// Blocks of these rows, with a hole between any two.
        fn new(blocks: &[&[Option<u8>]]) -> Self {
            let (mut window, mut places, mut first) = (Window::default(), Vec::new(), 1);
            for keys in blocks {
                window.push(first, keys.len(), 0, keys.to_vec());
                places.extend((0..keys.len()).map(|row| (first, row)));
                first += keys.len() as u64 + 100;
            }
            Self { window, places }
        }

        fn end(&mut self, number: usize, end: End) {
            let (block, row) = self.places[number - 1];
            self.window.end(block, row..row + 1, end);
        }

        fn number(&self, block: u64, row: usize) -> usize {
            self.places.iter().position(|place| *place == (block, row)).unwrap() + 1
        }

        /// The numbers of the first and last row that are settled.
        fn settle(&mut self) -> Option<(usize, usize)> {
            let Settled { first, last, .. } = self.window.settle()?;
            let number = |sequence: u64| {
                let of = |(block, row): &(u64, usize)| block + *row as u64 == sequence;
                self.places.iter().position(of).unwrap() + 1
            };
            Some((number(first), number(last)))
        }

        fn write_again(&mut self) -> Vec<usize> {
            let again = self.window.write_again(|keys, row| keys[row].map(|key| vec![key]));
            let numbers = |part: &Part| -> Vec<usize> {
                part.rows.iter().map(|row| self.number(part.block, *row as usize)).collect()
            };
            again.iter().flat_map(numbers).collect()
        }
    }

    #[test]
    fn only_the_front_is_settled() {
        let mut rows = Rows::new(&[&[Some(1), Some(2)], &[Some(3)]]);
        rows.end(2, End::Written);
        assert_eq!(rows.settle(), None);
        rows.end(1, End::Rejected);
        assert_eq!(rows.settle(), Some((1, 2)));
        rows.end(3, End::Failed);
        assert_eq!(rows.settle(), None, "a row that is not known to be written is never settled");
        assert!(rows.window.has_failed());
    }

    #[test]
    fn a_block_is_settled_in_parts() {
        let mut rows = Rows::new(&[&[None, None, None], &[None]]);
        rows.end(1, End::Written);
        assert_eq!(rows.settle(), Some((1, 1)));
        assert_eq!(rows.settle(), None);
        rows.window.end(1, 1..3, End::Written);
        rows.end(4, End::Written);
        assert_eq!(rows.settle(), Some((2, 4)));
        // What was settled before it was read is not in flight.
        let mut window = Window::default();
        window.push(1, 3, 2, vec![Some(1); 3]);
        assert!(window.write_again(|_, _| None).is_empty());
        window.end(1, 2..3, End::Failed);
        let again = window.write_again(|keys, row| keys[row].map(|key| vec![key]));
        assert_eq!(again, [Part { block: 1, rows: vec![2] }]);
        window.end(1, 2..3, End::Written);
        assert_eq!(window.settle(), Some(Settled { first: 3, last: 3, written: 1 }));
    }

    #[test]
    fn later_rows_of_a_failed_key_are_written_again_too() {
        for blocks in [
            &[&[Some(1), Some(2), Some(1), Some(1), Some(2)][..]][..],
            &[&[Some(1), Some(2)], &[Some(1)], &[Some(1), Some(2)]],
        ] {
            let mut rows = Rows::new(blocks);
            rows.end(1, End::Failed);
            rows.end(2, End::Written);
            rows.end(3, End::Rejected);
            rows.end(4, End::Written);
            assert_eq!(rows.write_again(), [] as [usize; 0], "row 5 is in flight");
            rows.end(5, End::Written);
            assert_eq!(rows.write_again(), [1, 4]);
            assert!(!rows.window.has_failed());
            rows.end(1, End::Written);
            assert_eq!(rows.settle(), Some((1, 3)));
            rows.end(4, End::Written);
            assert_eq!(rows.settle(), Some((4, 5)));
        }
    }

    #[test]
    fn rows_without_a_key_are_written_again_alone() {
        let mut rows = Rows::new(&[&[None, None, None]]);
        rows.end(1, End::Written);
        rows.end(2, End::Failed);
        rows.end(3, End::Written);
        assert_eq!(rows.write_again(), [2]);
    }

    #[test]
    fn rows_that_have_ended_behind_another_are_known() {
        let mut rows = Rows::new(&[&[None, None, None, None], &[Some(1)], &[None, None]]);
        rows.window.push_gap(1_000, 1_009);
        (1..=7).filter(|row| ![2, 6].contains(row)).for_each(|row| rows.end(row, End::Written));
        rows.end(6, End::Rejected);
        let without_key = |keys: &Keys| keys[0].is_none();
        assert_eq!(rows.settle(), Some((1, 1)));
        assert_eq!(rows.window.ended_behind(without_key), [3..=4, 206..=207]);
        rows.end(2, End::Failed);
        assert_eq!(rows.window.ended_behind(without_key), [3..=4, 206..=207]);
    }

    #[test]
    fn a_gap_is_settled_in_its_turn() {
        let mut window = Window::default();
        window.push(1, 1, 0, ());
        window.push_gap(2, 9);
        window.push(10, 1, 0, ());
        assert_eq!(window.settle(), None);
        window.end(1, 0..1, End::Written);
        assert_eq!(window.settle(), Some(Settled { first: 1, last: 9, written: 1 }));
    }

    #[test]
    fn rows_that_were_written_are_counted_when_they_are_settled() {
        let mut window = Window::default();
        window.push(1, 4, 1, ());
        window.push(5, 2, 0, ());
        window.push_gap(7, 8);
        window.end(1, 1..2, End::Written);
        window.end(1, 2..3, End::Rejected);
        assert_eq!(window.settle(), Some(Settled { first: 2, last: 3, written: 1 }));
        window.end(1, 3..4, End::Written);
        window.end(5, 0..2, End::Written);
        assert_eq!(window.settle(), Some(Settled { first: 4, last: 8, written: 3 }));
    }

    proptest! {
        /// Whatever fails: each row is settled once, after it ended, and the last write of each key is its last row.
        #[test]
        fn the_last_row_of_a_key_is_written_last(
            blocks in prop::collection::vec(prop::collection::vec(0_u8..4, 1..8), 1..8),
            fates in prop::collection::vec(0_u8..3, 400),
        ) {
            let blocks: Vec<Keys> = blocks.iter().map(|keys| keys.iter().map(|key| Some(*key)).collect()).collect();
            let mut rows = Rows::new(&blocks.iter().map(|keys| &**keys).collect::<Vec<_>>());
            let keys: Vec<u8> = blocks.iter().flatten().flatten().copied().collect();
            let mut fates = fates.into_iter();
            let mut table: BTreeMap<u8, usize> = BTreeMap::new();
            let mut wave: Vec<usize> = (1..=keys.len()).collect();
            let mut settled = 0;
            while !wave.is_empty() {
                for number in wave {
                    // 0: written; 1: unknown, and written; 2: unknown, and not written.
                    let fate = fates.next().unwrap_or(0);
                    if fate < 2 {
                        table.insert(keys[number - 1], number);
                    }
                    rows.end(number, if fate == 0 { End::Written } else { End::Failed });
                }
                if let Some((first, last)) = rows.settle() {
                    prop_assert_eq!(first, settled + 1);
                    settled = last;
                }
                wave = rows.write_again();
            }
            prop_assert_eq!(settled, keys.len());
            for (key, last) in table {
                let expected = keys.iter().rposition(|known| *known == key).unwrap() + 1;
                prop_assert_eq!(last, expected, "key {}", key);
            }
        }
    }
}
