//! Owns the search for the bad rows of a refused batch: which rows to try next.
//! Must not know databases or time: it takes verdicts and returns ranges.

use std::ops::Range;

use crate::write::sample::Sampling;

/// What came of trying a range of rows in a transaction of its own.
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
    /// The budget is spent and rows are left: it is not a matter of single rows.
    Undecided,
    /// Every row that was tried alone was refused, and none was committed: the table is at fault, as far as this batch
    /// can tell.
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
            let has_sampled = self.sampling.is_some();
            self.stop_sampling();
            return if has_sampled && !self.pending.is_empty() { Next::AllRefused } else { Next::Done };
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

    /// From now on a try takes at most `rows` rows; others than this one may have set a lower limit.
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

    /// Takes back a range that was refused by an error that may be the table's, and tries rows alone that `choose`
    /// takes from all that is left. A range of one row was tried alone already.
    pub(crate) fn sample(&mut self, range: Range<usize>, choose: impl FnOnce(&[Range<usize>]) -> Vec<usize>) {
        debug_assert!(self.sampling.is_none(), "rows are sampled once at a time");
        let refused = (range.len() == 1).then_some(range.start);
        self.pending.push(range);
        self.begin_sampling(refused, choose);
    }

    /// Tries rows alone that `choose` takes from all that is left.
    pub(crate) fn begin_sampling(
        &mut self,
        refused: Option<usize>,
        choose: impl FnOnce(&[Range<usize>]) -> Vec<usize>,
    ) {
        let rows: Vec<Range<usize>> = std::mem::take(&mut self.pending).into_iter().rev().collect();
        let samples = choose(&rows);
        self.pending = samples.into_iter().filter(|row| Some(*row) != refused).map(|row| row..row + 1).rev().collect();
        self.sampling = Some(Sampling::new(rows, refused));
    }

    /// The row that was tried alone was refused by an error that may be the table's.
    pub(crate) fn sample_refused(&mut self, row: usize) {
        if let Some(sampling) = &mut self.sampling {
            sampling.refused(row);
        }
    }

    /// A row that was tried alone was committed and judged, so the table is not at fault. What is left is tried as
    /// before. Rows that were refused are at fault: they are tried alone once more, but for those that cannot come after
    /// the row that was committed. These are returned to be rejected.
    pub(crate) fn sample_committed(&mut self, is_overtaken: impl Fn(usize) -> bool) -> Vec<usize> {
        let Some(mut sampling) = self.sampling.take() else { return Vec::new() };
        let refused = sampling.take_refused();
        self.pending = sampling.rest(&refused);
        self.pending.reverse();
        let (overtaken, again): (Vec<usize>, Vec<usize>) = refused.into_iter().partition(|row| is_overtaken(*row));
        self.pending.extend(again.into_iter().rev().map(|row| row..row + 1));
        overtaken
    }

    /// Puts what was being tried alone back among what is left.
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

    /// What is left, in order.
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
