//! Owns the search for bad rows among rows whose position moves in order: what is tried next, and who is at fault. Pure: no
//! clock, no I/O.
//! Must not know databases or the log.
//!
//! Rows are tried together, and halves of what is refused, the first half first. A row that is refused alone is only a
//! suspect until another row is accepted: the table may be at fault. While there are suspects, the next rows are tried without
//! a commit, because a commit would pass the suspects.

use std::collections::VecDeque;
use std::ops::Range;

use batchsql_core::{ErrorClass, SinkError};

/// Which rows of a run are tried next.
#[derive(Debug)]
pub(crate) struct Search {
    /// Ranges to try, the next one last.
    left: Vec<Range<usize>>,
    /// Rows that were refused alone, in order.
    suspects: VecDeque<(usize, SinkError)>,
    /// A row was accepted after one was refused.
    has_accepted: bool,
    is_isolating: bool,
    /// Rows that may be refused alone before any is accepted.
    budget: usize,
}

impl Search {
    pub(crate) fn new(rows: usize, budget: usize) -> Self {
        let left = std::iter::once(0..rows).filter(|rows| !rows.is_empty()).collect();
        Self { left, suspects: VecDeque::new(), has_accepted: false, is_isolating: false, budget }
    }

    /// The next rows to try, and whether to commit them. Then it must hear how that ended.
    pub(crate) fn next(&mut self) -> Option<(Range<usize>, bool)> {
        Some((self.left.pop()?, self.suspects.is_empty()))
    }

    pub(crate) fn put_back(&mut self, range: Range<usize>) {
        self.left.push(range);
    }

    /// The rows were committed.
    pub(crate) fn committed(&mut self, _: Range<usize>) {
        self.has_accepted |= self.is_isolating;
    }

    /// The rows would be accepted, and were rolled back: they are tried again when the suspects are out of the way.
    pub(crate) fn accepted(&mut self, range: Range<usize>) {
        self.has_accepted = true;
        self.left.push(range);
    }

    pub(crate) fn refused(&mut self, range: Range<usize>, error: SinkError) {
        self.is_isolating = true;
        if range.len() == 1 {
            self.suspects.push_back((range.start, error));
            return;
        }
        let middle = range.start + range.len() / 2;
        self.left.push(middle..range.end);
        self.left.push(range.start..middle);
    }

    /// Suspects that are at fault: another row was accepted; or no row is left to compare them with, and the database has
    /// blamed the row, not the table.
    pub(crate) fn take_guilty(&mut self) -> Vec<(usize, SinkError)> {
        let is_last = self.left.is_empty() && self.suspects.iter().all(|(_, error)| is_of_row(error));
        if self.has_accepted || (is_last && self.suspects.len() <= self.budget) {
            return std::mem::take(&mut self.suspects).into();
        }
        Vec::new()
    }

    /// Why the table is at fault, if it is: rows that were tried alone were refused, and none was accepted.
    pub(crate) fn blames_table(&self) -> Option<String> {
        let (_, error) = self.suspects.back()?;
        let rows = self.suspects.len();
        let is_over = self.left.is_empty() || rows > self.budget;
        is_over.then(|| format!("{rows} rows were tried alone and refused, and none was accepted: {error}"))
    }
}

/// Whether the database has blamed a row, and not perhaps its table.
fn is_of_row(error: &SinkError) -> bool {
    matches!(error.class(), ErrorClass::Row | ErrorClass::Size | ErrorClass::Duplicate)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs a search over rows, each good or bad. Returns committed and guilty rows in the order in which the position
    /// passed them, and whether the table was blamed.
    fn run(bad: &[bool], class: ErrorClass, budget: usize) -> (Vec<(usize, bool)>, bool) {
        let mut search = Search::new(bad.len(), budget);
        let mut passed: Vec<(usize, bool)> = Vec::new();
        let mut tries = 0;
        while let Some((range, commits)) = search.next() {
            tries += 1;
            assert!(tries <= 8 * bad.len() + 1, "the search ends");
            let is_good = !bad[range.clone()].iter().any(|bad| *bad);
            match (is_good, commits) {
                (true, true) => {
                    passed.extend(range.clone().map(|row| (row, true)));
                    search.committed(range);
                }
                (true, false) => search.accepted(range),
                (false, _) => search.refused(range, SinkError::new(class, "no")),
            }
            passed.extend(search.take_guilty().into_iter().map(|(row, _)| (row, false)));
            if search.blames_table().is_some() {
                return (passed, true);
            }
        }
        (passed, false)
    }

    #[test]
    fn a_row_is_at_fault_only_if_another_one_is_accepted() {
        let schema = ErrorClass::Schema;
        assert_eq!(run(&[true, false], schema, 9), (vec![(0, false), (1, true)], false));
        assert_eq!(run(&[false, true], schema, 9), (vec![(0, true), (1, false)], false));
        assert_eq!(run(&[true, true], schema, 9), (vec![], true));
        assert_eq!(run(&[true], schema, 9), (vec![], true), "it may be the table");
        assert_eq!(run(&[true], ErrorClass::Row, 9), (vec![(0, false)], false), "the database says that it is the row");
        assert_eq!(run(&[true; 3], ErrorClass::Row, 9).0.len(), 3);
        assert_eq!(run(&[true; 10], ErrorClass::Row, 9), (vec![], true), "so many bad rows are the table's fault");
    }

    proptest! {
        /// The position passes the rows in order, each once, and the bad ones only as dead letters.
        #[test]
        fn rows_are_passed_in_order(bad in prop::collection::vec(any::<bool>(), 1..60), budget in 1_usize..70) {
            let (passed, blamed) = run(&bad, ErrorClass::Row, budget);
            for (expected, (row, was_written)) in passed.iter().enumerate() {
                prop_assert_eq!(*row, expected);
                prop_assert_eq!(*was_written, !bad[*row]);
            }
            prop_assert!(blamed || passed.len() == bad.len());
            prop_assert!(!blamed || passed.len() < bad.len());
        }

        /// A table that accepts some rows is not blamed while the budget lasts.
        #[test]
        fn a_table_is_blamed_only_if_nothing_is_accepted(bad in prop::collection::vec(any::<bool>(), 1..40)) {
            let (_, blamed) = run(&bad, ErrorClass::Schema, bad.len());
            prop_assert_eq!(blamed, bad.iter().all(|bad| *bad));
        }
    }
}
