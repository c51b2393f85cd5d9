//! Owns the rows that are tried alone to find out whose error an error is: that of the table, or of one row.
//! Must not know databases, time or the rows themselves: it takes numbers of rows.
//!
//! Example with rows 0 to 99 of which 40 is bad, with an error that speaks of the table:
//!
//! ```text
//! 0..100 is refused        rows 0, 25, 50 and 75 are to be tried alone
//! row 0 is committed       the table can be written: 1..100 is tried, and halved as for a row error
//! ```
//!
//! If 0, 25, 50 and 75 are all refused, the table is at fault as far as anyone can tell. If 0 is refused and 25 is
//! committed, row 0 is tried alone once more and then rejected: the table may have been repaired in between.

use std::ops::Range;

/// Rows that are tried alone, at most, before the table is held to be at fault.
pub(crate) const SAMPLES: usize = 4;

/// Rows that are being tried alone.
#[derive(Debug)]
pub(crate) struct Sampling {
    /// All rows that had no outcome when it began, in order.
    rows: Vec<Range<usize>>,
    /// Rows that were refused.
    refused: Vec<usize>,
    /// Rows that have their outcome.
    ended: Vec<usize>,
}

impl Sampling {
    pub(crate) fn new(rows: Vec<Range<usize>>, refused: Option<usize>) -> Self {
        Self { rows, refused: refused.into_iter().collect(), ended: Vec::new() }
    }

    pub(crate) fn refused(&mut self, row: usize) {
        self.refused.push(row);
    }

    pub(crate) fn ended(&mut self, row: usize) {
        self.ended.push(row);
    }

    /// The rows that were refused.
    pub(crate) fn take_refused(&mut self) -> Vec<usize> {
        let mut refused = std::mem::take(&mut self.refused);
        refused.sort_unstable();
        refused
    }

    /// The rows without an outcome, but for `others`, in order.
    pub(crate) fn rest(self, others: &[usize]) -> Vec<Range<usize>> {
        let mut holes: Vec<usize> = self.ended.iter().chain(others).copied().collect();
        holes.sort_unstable();
        let mut rest = Vec::new();
        for range in self.rows {
            let mut start = range.start;
            for hole in holes.iter().copied().filter(|hole| range.contains(hole)) {
                if start < hole {
                    rest.push(start..hole);
                }
                start = hole + 1;
            }
            if start < range.end {
                rest.push(start..range.end);
            }
        }
        rest
    }
}

/// Rows that may be tried alone.
pub(crate) struct Candidates {
    pub(crate) rows: Vec<usize>,
    /// Whether each may be tried only after those before it were refused: a later row must not be overtaken by an
    /// earlier one with its key, or by any where all rows keep their order.
    pub(crate) in_turn: bool,
}

impl Candidates {
    /// Rows to try: far from each other where they may be, because bad rows often come together.
    pub(crate) fn choose(&self) -> Vec<usize> {
        let most = SAMPLES.min(self.rows.len());
        match self.in_turn {
            true => self.rows[..most].to_vec(),
            false => (0..most).map(|sample| self.rows[sample * self.rows.len() / most]).collect(),
        }
    }

    /// The row that probes a parked table: another one each time where they need no turn.
    pub(crate) fn choose_probe(&self, probe: usize) -> Vec<usize> {
        if self.in_turn || self.rows.is_empty() {
            return self.choose();
        }
        // Steps of about the golden ratio soon come near every row.
        let step = (self.rows.len() * 5 / 8).max(1);
        vec![self.rows[probe.wrapping_mul(step) % self.rows.len()]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_has_no_row_twice() {
        let mut sampling = Sampling::new(vec![2..10, 12..14], Some(2));
        sampling.refused(5);
        sampling.ended(9);
        sampling.ended(12);
        let refused = sampling.take_refused();
        assert_eq!(refused, [2, 5]);
        assert_eq!(sampling.rest(&refused), [3..5, 6..9, 13..14]);
    }

    #[test]
    fn samples_lie_apart_unless_they_need_their_turn() {
        let choose = |rows: std::ops::Range<usize>, in_turn| Candidates { rows: rows.collect(), in_turn }.choose();
        assert_eq!(choose(10..110, false), [10, 35, 60, 85]);
        assert_eq!(choose(10..110, true), [10, 11, 12, 13]);
        assert_eq!(choose(10..12, false), [10, 11]);
        assert!(choose(0..0, false).is_empty());
    }

    #[test]
    fn each_probe_takes_another_row() {
        for count in 1..40 {
            let candidates = Candidates { rows: (0..count).collect(), in_turn: false };
            let probes: std::collections::HashSet<usize> =
                (0..4).map(|probe| candidates.choose_probe(probe)[0]).collect();
            assert!(probes.len() >= count.min(2), "{count}: {probes:?}");
        }
        assert_eq!(Candidates { rows: vec![3, 4, 5], in_turn: true }.choose_probe(7), [3, 4, 5]);
    }
}
