//! Owns the search for bad rows among rows whose position moves in order: what is tried next, and who is at fault. Pure: no
//! clock, no I/O.
//! Must not know databases or sources.
//!
//! Rows are tried together, and halves of what is refused, the first half first. A row that is refused alone is only a
//! suspect until another row is accepted after it: the table may be at fault. While there are suspects, rows are tried without
//! a commit, because a commit would pass the suspects. When one is accepted, the suspects are tried once more, because the
//! table may have been repaired meanwhile; those that are refused again are bad. After a commit one row only is rejected, so a table
//! that breaks during a search costs one row at most. An error that may pass rejects none then: the commit was before it began.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use batchsql_core::{ErrorClass, SinkError};

/// Rows that are tried alone before a table is blamed, or while it is.
const SAMPLES: usize = 4;

/// What is tried next.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "only for crates of this workspace")]
pub struct Try {
    /// Their numbers.
    pub rows: Range<usize>,
    /// Otherwise it is rolled back.
    pub commits: bool,
}

/// Whose fault it is when the database blames a row that is refused alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "only for crates of this workspace")]
pub enum RowErrors {
    /// Perhaps that of the table, as long as no other row is accepted.
    MayBeOfTable,
    /// That of the row: a caller counts them, and stops at a limit of its own.
    AreOfRow,
}

/// Which rows of a run are tried next.
#[derive(Debug)]
pub struct Search {
    rows: usize,
    /// Ranges to try, the next one last.
    left: Vec<Range<usize>>,
    /// Rows that are tried alone, without a commit, to see whether the table accepts any.
    samples: Vec<usize>,
    /// The last try was one of them.
    is_sample: bool,
    /// The samples were tried, and none was accepted.
    has_sampled: bool,
    /// Rows that were refused alone, in order.
    suspects: VecDeque<(usize, SinkError)>,
    /// Suspects that are tried once more, because another row was accepted.
    again: BTreeSet<usize>,
    faulty: Vec<(usize, SinkError)>,
    /// Rows were committed after one was refused, and before the next one that is refused alone.
    has_committed: bool,
    is_isolating: bool,
    /// Rows that may be refused alone before any is accepted.
    budget: usize,
    last_error: Option<SinkError>,
    row_errors: RowErrors,
}

impl Search {
    /// `budget`: how many rows may be refused alone before any is accepted. `is_blamed`: the table accepted none of the rows
    /// that were tried last, so only a few are tried.
    pub fn new(rows: usize, budget: usize, is_blamed: bool) -> Self {
        let left = std::iter::once(0..rows).filter(|rows| !rows.is_empty()).collect();
        let samples = if is_blamed { samples(0..rows) } else { Vec::new() };
        Self {
            rows,
            left,
            samples,
            is_sample: false,
            has_sampled: is_blamed,
            suspects: VecDeque::new(),
            again: BTreeSet::new(),
            faulty: Vec::new(),
            has_committed: false,
            is_isolating: false,
            budget,
            last_error: None,
            row_errors: RowErrors::MayBeOfTable,
        }
    }

    /// The same, with another judgement of rows that the database blames.
    pub fn judging(mut self, row_errors: RowErrors) -> Self {
        self.row_errors = row_errors;
        self
    }

    /// The next rows to try. It must hear how that ended.
    #[allow(clippy::should_implement_trait, reason = "an iterator would hear nothing")]
    pub fn next(&mut self) -> Option<Try> {
        self.is_sample = false;
        if let Some(row) = self.samples.pop() {
            self.is_sample = true;
            return Some(Try { rows: row..row + 1, commits: false });
        }
        if self.blames_table() {
            return None;
        }
        Some(Try { rows: self.left.pop()?, commits: self.suspects.is_empty() })
    }

    /// The rows are tried again; `halved`: in two parts, because together they may be too slow.
    pub fn put_back(&mut self, rows: Range<usize>, halved: bool) {
        match (self.is_sample, halved && rows.len() > 1) {
            (true, _) => self.samples.push(rows.start),
            (false, true) => self.split(rows),
            (false, false) => self.left.push(rows),
        }
    }

    fn split(&mut self, rows: Range<usize>) {
        let middle = rows.start + rows.len() / 2;
        self.left.push(middle..rows.end);
        self.left.push(rows.start..middle);
    }

    /// The rows were committed, or would have been: then they are tried again when the suspects are out of the way.
    pub fn accepted(&mut self, Try { rows, commits }: Try) {
        self.has_sampled = false;
        self.again.retain(|row| !rows.contains(row));
        if commits {
            self.has_committed |= self.is_isolating;
            return;
        }
        if !self.is_sample {
            self.left.push(rows);
        }
        self.samples.clear();
        self.another_was_accepted();
    }

    /// A row of the table was accepted, whichever: suspects have their second try.
    pub fn another_was_accepted(&mut self) {
        self.has_sampled = false;
        for (row, _) in std::mem::take(&mut self.suspects).into_iter().rev() {
            self.again.insert(row);
            self.left.push(row..row + 1);
        }
    }

    /// The rows were refused: one of them, or the table, is at fault.
    pub fn refused(&mut self, Try { rows, .. }: Try, error: SinkError) {
        self.last_error = Some(error.clone());
        if self.is_sample {
            return;
        }
        self.is_isolating = true;
        if rows.len() > 1 {
            return self.split(rows);
        }
        let row = rows.start;
        let is_again = self.again.remove(&row);
        let is_judged = self.row_errors == RowErrors::AreOfRow && is_of_row(&error);
        let is_behind_commit = std::mem::take(&mut self.has_committed) && !may_pass(&error);
        if is_again || is_judged || is_behind_commit {
            self.faulty.push((row, error));
            return;
        }
        self.suspects.push_back((row, error));
        if self.suspects.len() > self.budget && !self.has_sampled {
            self.has_sampled = true;
            self.samples = samples(row + 1..self.rows);
        }
    }

    /// The rows that are at fault: they were refused, and others were accepted. Also, if no row is left to compare them with,
    /// those of which the database says that the row is at fault, and not the table.
    pub fn take_faulty(&mut self) -> Vec<(usize, SinkError)> {
        let is_last = self.left.is_empty() && self.suspects.len() <= self.budget;
        if is_last && self.faulty.is_empty() && self.suspects.iter().all(|(_, error)| is_of_row(error)) {
            return std::mem::take(&mut self.suspects).into();
        }
        std::mem::take(&mut self.faulty)
    }

    /// Whether rows that were tried alone were refused, and none was accepted.
    pub fn blames_table(&self) -> bool {
        let is_over = self.left.is_empty() || self.suspects.len() > self.budget;
        self.samples.is_empty()
            && ((!self.suspects.is_empty() && is_over) || (self.has_sampled && !self.left.is_empty()))
    }

    /// How rows were refused last.
    pub fn last_error(&self) -> Option<&SinkError> {
        self.last_error.as_ref()
    }

    /// Why the table is at fault.
    pub fn why(&self) -> String {
        let error = self.last_error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
        format!("rows that were tried alone were refused, and none was accepted{error}")
    }
}

/// Some rows of a range, from its end to its beginning.
fn samples(rows: Range<usize>) -> Vec<usize> {
    let count = SAMPLES.min(rows.len());
    (0..count).map(|number| rows.start + (rows.len() - 1) * number / (count - 1).max(1)).rev().collect()
}

/// Whether the database has blamed a row, and not perhaps its table.
fn is_of_row(error: &SinkError) -> bool {
    matches!(error.class(), ErrorClass::Row | ErrorClass::Size | ErrorClass::Duplicate)
}

/// Whether the same row may be accepted later, for a reason that has nothing to do with it, like a lock.
fn may_pass(error: &SinkError) -> bool {
    matches!(error.class(), ErrorClass::Transient | ErrorClass::Unknown | ErrorClass::Resource)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A caller with a limit of its own needs no other row to see whose fault it is; errors that may be the table's do.
    #[test]
    fn errors_of_rows_can_be_those_of_the_row() {
        for (class, faulty) in [(ErrorClass::Row, 9), (ErrorClass::Size, 9), (ErrorClass::Schema, 0)] {
            let search = Search::new(9, 2, false).judging(RowErrors::AreOfRow);
            let (passed, is_blamed) = run(9, class, search, |_, _| true);
            assert_eq!((passed.len(), is_blamed), (faulty, faulty == 0), "{class:?}");
        }
    }

    /// Runs a search over rows. `is_bad(row, tries)` says whether a row is refused after so many tries. Returns committed and
    /// faulty rows in the order in which the position passed them, and whether the table was blamed.
    fn run(
        rows: usize,
        class: ErrorClass,
        mut search: Search,
        is_bad: impl Fn(usize, usize) -> bool,
    ) -> (Vec<(usize, bool)>, bool) {
        let mut passed: Vec<(usize, bool)> = Vec::new();
        let mut tries = 0;
        while let Some(next) = search.next() {
            assert!(tries <= 12 * rows + 12, "the search ends");
            let is_good = !next.rows.clone().any(|row| is_bad(row, tries));
            tries += 1;
            if is_good {
                passed.extend(next.rows.clone().filter(|_| next.commits).map(|row| (row, true)));
                search.accepted(next);
            } else {
                search.refused(next, SinkError::new(class, "no"));
            }
            passed.extend(search.take_faulty().into_iter().map(|(row, _)| (row, false)));
        }
        (passed, search.blames_table())
    }

    fn bad(bad: &[bool], class: ErrorClass, budget: usize) -> (Vec<(usize, bool)>, bool) {
        run(bad.len(), class, Search::new(bad.len(), budget, false), |row, _| bad[row])
    }

    #[test]
    fn a_row_is_at_fault_only_if_another_one_is_accepted() {
        let schema = ErrorClass::Schema;
        assert_eq!(bad(&[true, false], schema, 9), (vec![(0, false), (1, true)], false));
        assert_eq!(bad(&[false, true], schema, 9), (vec![(0, true), (1, false)], false));
        assert_eq!(bad(&[true, true], schema, 9), (vec![], true));
        assert_eq!(bad(&[true], schema, 9), (vec![], true), "it may be the table");
        assert_eq!(bad(&[true], ErrorClass::Row, 9), (vec![(0, false)], false), "the database says that it is the row");
        assert_eq!(bad(&[true; 3], ErrorClass::Row, 9).0.len(), 3);
        assert_eq!(bad(&[true; 10], ErrorClass::Row, 9), (vec![], true), "so many bad rows are the table's fault");
        assert_eq!(bad(&[true], ErrorClass::Row, 0), (vec![], true), "rows before it have used the budget");
    }

    /// A row that was committed before says nothing: the row behind it may be locked.
    #[test]
    fn an_error_that_may_pass_needs_a_row_that_is_accepted_behind_it() {
        for class in [ErrorClass::Transient, ErrorClass::Unknown, ErrorClass::Resource] {
            assert_eq!(bad(&[false, true], class, 9), (vec![(0, true)], true), "{class:?}");
            assert_eq!(bad(&[false, true, false], class, 9).0, [(0, true), (1, false), (2, true)], "{class:?}");
        }
    }

    #[test]
    fn a_good_row_behind_many_bad_ones_is_found() {
        let mut rows = [true; 100];
        rows[99] = false;
        let (passed, blamed) = bad(&rows, ErrorClass::Row, 5);
        assert_eq!((passed.len(), passed[99], blamed), (100, (99, true), false));
    }

    /// The table breaks after a faulty row was found: no other row is rejected for it.
    #[test]
    fn a_table_that_breaks_during_a_search_costs_nothing() {
        for breaks_at in 1..30 {
            let search = Search::new(64, 9, false);
            let is_bad = |row: usize, tries: usize| row == 20 || tries >= breaks_at;
            let (passed, blamed) = run(64, ErrorClass::Row, search, is_bad);
            let faulty: Vec<_> = passed.iter().filter(|(row, was_written)| !was_written && *row != 20).collect();
            assert!(faulty.len() <= 1, "{breaks_at}: {faulty:?}");
            assert!(blamed || passed.len() == 64, "{breaks_at}");
        }
    }

    #[test]
    fn a_table_that_is_repaired_during_a_search_costs_nothing() {
        let (passed, blamed) = run(64, ErrorClass::Row, Search::new(64, 99, false), |_, tries| tries < 20);
        assert!(passed.iter().all(|(_, was_written)| *was_written) && passed.len() == 64 && !blamed, "{passed:?}");
    }

    #[test]
    fn a_blamed_table_is_tried_with_a_few_rows() {
        let mut search = Search::new(1_000, 9, true);
        let mut tries = Vec::new();
        while let Some(next) = search.next() {
            tries.push(next.rows.start);
            search.refused(next, SinkError::new(ErrorClass::Schema, "no"));
        }
        assert_eq!((tries, search.blames_table()), (vec![0, 333, 666, 999], true));
        let (passed, blamed) = run(1_000, ErrorClass::Schema, Search::new(1_000, 9, true), |_, _| false);
        assert_eq!((passed.len(), blamed), (1_000, false));
    }

    proptest! {
        /// The position passes the rows in order, each once, and the bad ones only as dead letters.
        #[test]
        fn rows_are_passed_in_order(rows in prop::collection::vec(any::<bool>(), 1..60), budget in 1_usize..70) {
            let (passed, blamed) = bad(&rows, ErrorClass::Row, budget);
            for (expected, (row, was_written)) in passed.iter().enumerate() {
                prop_assert_eq!(*row, expected);
                prop_assert_eq!(*was_written, !rows[*row]);
            }
            prop_assert!(blamed || passed.len() == rows.len());
            prop_assert!(!blamed || passed.len() < rows.len());
        }

        /// A table that accepts some rows is not blamed while the budget lasts, except for what is behind the last of them.
        #[test]
        fn a_table_is_blamed_only_if_nothing_is_accepted(rows in prop::collection::vec(any::<bool>(), 1..40)) {
            let (passed, blamed) = bad(&rows, ErrorClass::Schema, rows.len());
            let last_good = rows.iter().rposition(|bad| !bad).map_or(0, |row| row + 1);
            prop_assert!(passed.len() >= last_good);
            prop_assert!(!blamed || last_good < rows.len());
        }
    }
}
