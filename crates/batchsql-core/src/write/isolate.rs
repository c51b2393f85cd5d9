//! Owns the search for the bad rows of a refused batch: which rows to try next.
//! Must not know databases or time: it takes verdicts and returns ranges.
//!
//! Example: batch 1 has rows 0 and 1, batch 2 has row 2, and one pull merges them. Row 1 is bad.
//!
//! ```text
//! try 0..3      refused: tries are counted from now on
//! try 0..1      committed
//! try 1..3      refused
//! try 1..2      refused alone: row 1 is rejected
//! try 2..3      committed
//! ```
//!
//! With a budget of two tries, the search would stop after 1..3, with rows 1 and 2 undecided.

use std::ops::Range;

use crate::error::SinkError;
use crate::write::sample::Sampling;

/// The result of trying a range of rows in its own transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Committed, or ended in another way: nothing is left to search.
    Ended,
    /// Refused with a row-class error: at least one of them is bad.
    Bad,
    /// Refused because of their number, or because two of them are the same row to the database.
    Inseparable,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    Try(Range<usize>),
    /// The budget is spent and rows are left: single rows are probably not the cause.
    Undecided,
    /// Rows that were tried alone were refused, and none was committed: the table is at fault, as far as this batch
    /// shows.
    AllRefused,
    Done,
}

/// Tries rows together, and halves what is refused until every bad row failed alone. Good rows keep
/// their order.
#[derive(Debug)]
pub(crate) struct Search {
    /// Ranges still to try, the next one last.
    pending: Vec<Range<usize>>,
    /// Whether a range was bad: from then on tries are counted.
    isolating: bool,
    budget: usize,
    /// Rows that one try may take.
    max_rows: usize,
    /// While single rows are tried: then `pending` has these.
    sampling: Option<Sampling>,
}

impl Search {
    /// Starts with all rows together. `budget` is the number of tries once a range was bad.
    pub(crate) fn new(rows: usize, budget: usize) -> Self {
        Self {
            pending: std::iter::once(0..rows).collect(),
            isolating: false,
            budget,
            max_rows: usize::MAX,
            sampling: None,
        }
    }

    /// The next range to try. It must be judged, or put back.
    pub(crate) fn next(&mut self) -> Next {
        if self.pending.is_empty() {
            let all_refused = self.sampling.as_ref().is_some_and(Sampling::has_refused);
            self.stop_sampling();
            match self.pending.is_empty() {
                true => return Next::Done,
                false if all_refused => return Next::AllRefused,
                // None was refused: the rest is tried as before.
                false => {}
            }
        }
        if self.is_counting() && self.budget == 0 {
            return Next::Undecided;
        }
        self.budget -= usize::from(self.is_counting());
        let Some(mut range) = self.pending.pop() else { return Next::Done };
        if range.len() > self.max_rows {
            let cut = range.start + self.max_rows;
            self.pending.push(cut..range.end);
            range.end = cut;
        }
        Next::Try(range)
    }

    /// From now on a try takes at most `rows` rows; another call may have set a lower limit.
    pub(crate) fn limit_rows(&mut self, rows: usize) {
        self.max_rows = self.max_rows.min(rows.max(1));
    }

    /// Takes back a range that could not be judged: it is tried again.
    pub(crate) fn put_back(&mut self, range: Range<usize>) {
        self.budget += usize::from(self.is_counting());
        self.pending.push(range);
    }

    /// Whether a try is counted: the few rows that are tried alone are not.
    fn is_counting(&self) -> bool {
        self.isolating && self.sampling.is_none()
    }

    /// Takes the verdict over the range that `next` gave; true when it rejects a single row.
    pub(crate) fn judge(&mut self, range: Range<usize>, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Ended => {
                self.ended(range);
                false
            }
            Verdict::Bad | Verdict::Inseparable if range.len() <= 1 => {
                self.ended(range);
                true
            }
            Verdict::Bad | Verdict::Inseparable => {
                self.isolating |= verdict == Verdict::Bad;
                let middle = range.start + range.len() / 2;
                self.pending.push(middle..range.end);
                self.pending.push(range.start..middle);
                false
            }
        }
    }

    fn ended(&mut self, range: Range<usize>) {
        if let Some(sampling) = &mut self.sampling {
            range.for_each(|row| sampling.ended(row));
        }
    }

    /// Whether single rows are being tried.
    pub(crate) fn is_sampling(&self) -> bool {
        self.sampling.is_some()
    }

    /// Tries single rows that `choose` selects from all remaining rows. `refused` is a range that was refused with an
    /// error that the table may have caused; a range of one row was already tried alone.
    pub(crate) fn sample(
        &mut self,
        refused: Option<(Range<usize>, &SinkError)>,
        choose: impl FnOnce(&[Range<usize>]) -> Vec<usize>,
    ) {
        debug_assert!(self.sampling.is_none(), "rows are sampled once at a time");
        let mut alone = None;
        if let Some((range, error)) = refused {
            alone = (range.len() == 1).then(|| (range.start, error.clone()));
            self.pending.push(range);
        }
        let rows: Vec<Range<usize>> = std::mem::take(&mut self.pending).into_iter().rev().collect();
        let is_new = |row: &usize| alone.as_ref().is_none_or(|(alone, _)| alone != row);
        self.pending = choose(&rows).into_iter().filter(is_new).map(|row| row..row + 1).rev().collect();
        let mut sampling = Sampling::new(rows);
        if let Some((row, error)) = alone {
            sampling.refused(row, error);
        }
        self.sampling = Some(sampling);
    }

    /// The row that was tried alone was refused with an error that the table may have caused.
    pub(crate) fn sample_refused(&mut self, row: usize, error: SinkError) {
        if let Some(sampling) = &mut self.sampling {
            sampling.refused(row, error);
        }
    }

    /// A row that was tried alone was committed and judged, so the table is not at fault. The remaining rows are tried
    /// as before. Refused rows are at fault: they are tried alone once more, except for those that must not be written
    /// after the committed row. These are returned, to be rejected.
    pub(crate) fn sample_committed(&mut self, is_overtaken: &dyn Fn(usize) -> bool) -> Vec<(usize, SinkError)> {
        let Some(mut sampling) = self.sampling.take() else { return Vec::new() };
        let refused = sampling.take_refused();
        let rows: Vec<usize> = refused.iter().map(|(row, _)| *row).collect();
        self.pending = sampling.rest(&rows);
        self.pending.reverse();
        let (overtaken, again): (Vec<_>, Vec<_>) = refused.into_iter().partition(|(row, _)| is_overtaken(*row));
        self.pending.extend(again.into_iter().rev().map(|(row, _)| row..row + 1));
        overtaken
    }

    /// Takes refused rows from those that are being tried alone; they have their outcome.
    pub(crate) fn take_refused(&mut self, is_taken: &dyn Fn(usize) -> bool) -> Vec<(usize, SinkError)> {
        let Some(sampling) = &mut self.sampling else { return Vec::new() };
        let (taken, left): (Vec<_>, Vec<_>) = sampling.take_refused().into_iter().partition(|(row, _)| is_taken(*row));
        left.into_iter().for_each(|(row, error)| sampling.refused(row, error));
        taken.iter().for_each(|(row, _)| sampling.ended(*row));
        taken
    }

    /// Other batches have shown that the table is not at fault, while `range` was tried alone: it is judged next, and
    /// the remaining rows are tried as before.
    pub(crate) fn stop_sampling_but(&mut self, range: &Range<usize>) {
        if let Some(sampling) = &mut self.sampling {
            range.clone().for_each(|row| sampling.ended(row));
            self.sample_committed(&|_| false);
        }
    }

    /// Puts the rows that were being tried alone back to the remaining rows.
    fn stop_sampling(&mut self) {
        if let Some(sampling) = self.sampling.take() {
            self.pending = sampling.rest(&[]);
            self.pending.reverse();
        }
    }

    /// Whether a range was bad so far.
    pub(crate) fn is_isolating(&self) -> bool {
        self.isolating
    }

    /// The remaining rows, in order.
    pub(crate) fn take_rest(&mut self) -> impl Iterator<Item = Range<usize>> + use<> {
        self.stop_sampling();
        std::mem::take(&mut self.pending).into_iter().rev()
    }

    /// Starts over with `rows` rows. If a range was bad before, tries are still counted, and the budget is
    /// what is left of it.
    pub(crate) fn next_round(&mut self, rows: usize) {
        self.pending = std::iter::once(0..rows).collect();
        self.sampling = None;
    }

    /// Grants a new budget for what is left.
    pub(crate) fn renew(&mut self, budget: usize) {
        self.budget = budget;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Default, PartialEq)]
    struct Found {
        rejected: Vec<usize>,
        committed: Vec<usize>,
        undecided: usize,
        tries: usize,
    }

    /// Runs a search over `rows` rows of which `bad` are bad, where a try takes at most `most` rows.
    fn search(rows: usize, bad: &[usize], budget: usize, most: usize) -> Found {
        let mut search = Search::new(rows, budget);
        let mut found = Found::default();
        loop {
            let range = match search.next() {
                Next::Try(range) => range,
                Next::Undecided => {
                    found.undecided = search.take_rest().map(|range| range.len()).sum();
                    continue;
                }
                Next::AllRefused => unreachable!("nothing is sampled here"),
                Next::Done => return found,
            };
            found.tries += 1;
            let verdict = if range.len() > most {
                Verdict::Inseparable
            } else if range.clone().any(|row| bad.contains(&row)) {
                Verdict::Bad
            } else {
                found.committed.extend(range.clone());
                Verdict::Ended
            };
            if search.judge(range.clone(), verdict) {
                found.rejected.push(range.start);
            }
        }
    }

    #[test]
    fn one_bad_row_in_a_thousand_costs_about_twenty_statements() {
        let found = search(1000, &[617], usize::MAX, usize::MAX);
        assert_eq!((found.rejected, found.committed.len(), found.undecided), (vec![617], 999, 0));
        assert!(found.tries <= 21, "{}", found.tries);
    }

    #[test]
    fn splitting_because_of_size_is_not_in_the_budget() {
        let found = search(1000, &[], 1, 3);
        assert_eq!((found.committed.len(), found.undecided), (1000, 0));
    }

    #[test]
    fn a_range_that_is_put_back_costs_nothing() {
        let mut search = Search::new(2, 2);
        assert!(!search.judge(0..2, Verdict::Bad));
        search.take_rest().for_each(drop);
        let mut search = Search::new(2, 2);
        assert_eq!(search.next(), Next::Try(0..2));
        search.judge(0..2, Verdict::Bad);
        for _ in 0..10 {
            assert_eq!(search.next(), Next::Try(0..1));
            search.put_back(0..1);
        }
        assert_eq!(search.next(), Next::Try(0..1));
        assert_eq!(search.next(), Next::Try(1..2));
        assert_eq!(search.next(), Next::Done);
    }

    proptest! {
        #[test]
        fn exactly_the_bad_rows_are_rejected(
            rows in 1usize..300,
            seed in proptest::collection::vec(0usize..300, 1..9),
            most in 1usize..300,
        ) {
            let mut bad: Vec<usize> = seed.into_iter().map(|row| row % rows).collect();
            bad.sort_unstable();
            bad.dedup();
            let found = search(rows, &bad, usize::MAX, most);
            prop_assert_eq!(&found.rejected, &bad);
            prop_assert_eq!(found.undecided, 0);
            prop_assert!(found.committed.is_sorted());
            prop_assert_eq!(found.committed.len() + bad.len(), rows);
        }

        #[test]
        fn a_spent_budget_leaves_every_row_in_one_place(rows in 1usize..300, bad in 0usize..300, budget in 0usize..20) {
            let found = search(rows, &[bad % rows], budget, usize::MAX);
            prop_assert!(found.tries <= budget + 1);
            prop_assert_eq!(found.rejected.len() + found.committed.len() + found.undecided, rows);
        }
    }
}
