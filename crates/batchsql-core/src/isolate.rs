//! Owns the search for the bad rows of a refused batch: which rows to try next.
//! Must not know databases or time: it takes verdicts and returns ranges.

use std::ops::Range;

/// What came of trying a range of rows in a transaction of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Committed: none of them is bad.
    Good,
    /// Refused with a row-class error: at least one of them is bad.
    Bad,
}

/// Halves a refused batch until every bad row failed alone. Good rows keep their order.
#[derive(Debug)]
pub(crate) struct Bisection {
    /// Ranges still to try, the next one last.
    pending: Vec<Range<usize>>,
    budget: usize,
}

impl Bisection {
    /// Starts with a batch that was refused as a whole; `budget` is the number of statements that
    /// may be spent.
    pub(crate) fn of_refused(rows: Range<usize>, budget: usize) -> Self {
        let mut bisection = Self { pending: Vec::new(), budget };
        bisection.split(rows);
        bisection
    }

    /// The next range to try; `None` when all is decided or the budget is spent.
    pub(crate) fn next(&mut self) -> Option<Range<usize>> {
        if self.budget == 0 {
            return None;
        }
        let next = self.pending.pop()?;
        self.budget -= 1;
        Some(next)
    }

    /// Takes the verdict over the range that `next` gave; true when it convicts a single row.
    pub(crate) fn judge(&mut self, range: Range<usize>, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Good => false,
            Verdict::Bad if range.len() == 1 => true,
            Verdict::Bad => {
                self.split(range);
                false
            }
        }
    }

    /// What is undecided because the budget was spent.
    pub(crate) fn rest(self) -> impl Iterator<Item = Range<usize>> {
        self.pending.into_iter().rev()
    }

    fn split(&mut self, range: Range<usize>) {
        if range.len() <= 1 {
            self.pending.push(range);
            return;
        }
        let middle = range.start + range.len() / 2;
        self.pending.push(middle..range.end);
        self.pending.push(range.start..middle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs a search over `rows` rows of which `bad` are bad: (convicted, committed, undecided, statements).
    fn search(rows: usize, bad: &[usize], budget: usize) -> (Vec<usize>, Vec<usize>, usize, usize) {
        let mut bisection = Bisection::of_refused(0..rows, budget);
        let (mut convicted, mut committed, mut statements) = (Vec::new(), Vec::new(), 0);
        while let Some(range) = bisection.next() {
            statements += 1;
            let verdict = if range.clone().any(|row| bad.contains(&row)) { Verdict::Bad } else { Verdict::Good };
            if verdict == Verdict::Good {
                committed.extend(range.clone());
            }
            if bisection.judge(range.clone(), verdict) {
                convicted.push(range.start);
            }
        }
        (convicted, committed, bisection.rest().map(|range| range.len()).sum(), statements)
    }

    #[test]
    fn one_bad_row_in_a_thousand_costs_about_twenty_statements() {
        let (convicted, committed, undecided, statements) = search(1000, &[617], usize::MAX);
        assert_eq!((convicted, committed.len(), undecided), (vec![617], 999, 0));
        assert!(statements <= 21, "{statements}");
    }

    proptest! {
        #[test]
        fn exactly_the_bad_rows_are_convicted(rows in 1usize..300, seed in proptest::collection::vec(0usize..300, 1..9)) {
            let mut bad: Vec<usize> = seed.into_iter().map(|row| row % rows).collect();
            bad.sort_unstable();
            bad.dedup();
            let (convicted, committed, undecided, _) = search(rows, &bad, usize::MAX);
            prop_assert_eq!(&convicted, &bad);
            prop_assert_eq!(undecided, 0);
            prop_assert!(committed.is_sorted());
            prop_assert_eq!(committed.len() + bad.len(), rows);
        }

        #[test]
        fn a_spent_budget_leaves_every_row_in_one_place(rows in 1usize..300, bad in 0usize..300, budget in 0usize..20) {
            let (convicted, committed, undecided, statements) = search(rows, &[bad % rows], budget);
            prop_assert!(statements <= budget);
            prop_assert_eq!(convicted.len() + committed.len() + undecided, rows);
        }
    }
}
