//! Owns the rows that are tried alone to find out whether the table or one row causes an error.
//! Must not know databases, time or the rows themselves: it takes numbers of rows.
//!
//! Example with rows 0 to 99 of which 40 is bad, with an error about the table:
//!
//! ```text
//! 0..100 is refused        rows 3, 31, 62 and 90 are to be tried alone: one of each quarter
//! row 3 is committed       the table can be written: 0..3 and 4..100 are tried, and halved as for a row error
//! ```
//!
//! If all four are refused, the table is assumed to be at fault. If 3 is refused and 31 is committed, row 3 is tried
//! alone once more and then rejected: the table may have been repaired in between. If it must not be written behind row 31, it is
//! rejected at once.

use std::ops::Range;

use crate::error::SinkError;

/// The most rows that are tried alone before the table is assumed to be at fault.
pub(crate) const SAMPLES: usize = 4;

/// The most rows that most probes of a parked table try, and the most that any of them tries.
const WIDE_PROBE: usize = 64;
pub(crate) const WIDEST_PROBE: usize = 4_096;

/// Rows that are being tried alone.
#[derive(Debug)]
pub(crate) struct Sampling {
    /// All rows that had no outcome when it began, in order.
    rows: Vec<Range<usize>>,
    /// Rows that were refused, with the errors.
    refused: Vec<(usize, SinkError)>,
    /// Rows that have their outcome.
    ended: Vec<usize>,
}

impl Sampling {
    pub(crate) fn new(rows: Vec<Range<usize>>) -> Self {
        Self { rows, refused: Vec::new(), ended: Vec::new() }
    }

    pub(crate) fn refused(&mut self, row: usize, error: SinkError) {
        self.refused.push((row, error));
    }

    pub(crate) fn ended(&mut self, row: usize) {
        self.ended.push(row);
    }

    /// Whether rows were refused.
    pub(crate) fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// The rows that were refused, in order, with the errors.
    pub(crate) fn take_refused(&mut self) -> Vec<(usize, SinkError)> {
        let mut refused = std::mem::take(&mut self.refused);
        refused.sort_unstable_by_key(|(row, _)| *row);
        refused
    }

    /// The rows without an outcome, except for `others`, in order.
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
    /// Whether each may be tried only after those before it were refused: an earlier row must not be written after a
    /// later one with its key, or after any later row if all rows keep their order.
    pub(crate) in_turn: bool,
}

impl Candidates {
    /// At most `most` rows to try. If they need no order, one at random from each part of the batch: bad rows often
    /// come together, or at regular distances.
    pub(crate) fn choose(&self, most: usize) -> Vec<usize> {
        let most = most.min(self.rows.len());
        if self.in_turn {
            return self.rows[..most].to_vec();
        }
        let start = |part: usize| part * self.rows.len() / most;
        (0..most).map(|part| self.rows[fastrand::usize(start(part)..start(part + 1))]).collect()
    }

    /// The rows of a probe of a parked table: one at random. If they need their order, the first one; every fourth time
    /// more of them, because the first rows may all be bad: an increasing number, then 64, every second time of these 128, every
    /// fourth time 256, and so on up to 4,096. So the load stays low, and good rows are found behind many bad ones.
    pub(crate) fn choose_probe(&self, probe: usize) -> Vec<usize> {
        let is_wide = self.in_turn && probe % SAMPLES == SAMPLES - 1;
        let number = probe / SAMPLES;
        let most = match SAMPLES << number.min(8) {
            _ if !is_wide => 1,
            // Of the numbers 0 to 3.
            rows if rows < WIDE_PROBE => rows,
            _ => (WIDE_PROBE << (number - 3).trailing_zeros().min(8)).min(WIDEST_PROBE),
        };
        self.choose(most)
    }

    /// The rows of a probe after which the batch is given up: `most` rows, or more if the probe tries more in any case.
    pub(crate) fn choose_last_probe(&self, probe: usize, most: usize) -> Vec<usize> {
        let rows = self.choose_probe(probe);
        if rows.len() < most { self.choose(most) } else { rows }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::error::ErrorClass;

    #[test]
    fn what_is_left_has_no_row_twice() {
        let error = || SinkError::new(ErrorClass::Schema, "no");
        let mut sampling = Sampling::new(vec![2..10, 12..14]);
        sampling.refused(5, error());
        sampling.refused(2, error());
        sampling.ended(9);
        sampling.ended(12);
        let refused: Vec<usize> = sampling.take_refused().into_iter().map(|(row, _)| row).collect();
        assert_eq!(refused, [2, 5]);
        assert_eq!(sampling.rest(&refused), [3..5, 6..9, 13..14]);
    }

    #[test]
    fn samples_come_from_each_part_unless_they_need_their_turn() {
        let candidates = |rows: Range<usize>, in_turn| Candidates { rows: rows.collect(), in_turn };
        let chosen = candidates(100..200, false).choose(SAMPLES);
        let parts: Vec<usize> = chosen.iter().map(|row| (row - 100) / 25).collect();
        assert_eq!(parts, [0, 1, 2, 3], "{chosen:?}");
        assert_eq!(candidates(10..110, true).choose(SAMPLES), [10, 11, 12, 13]);
        assert_eq!(candidates(10..12, false).choose(SAMPLES), [10, 11]);
        assert!(candidates(0..0, false).choose(SAMPLES).is_empty());
    }

    #[test]
    fn probes_come_to_good_rows_wherever_the_bad_ones_are() {
        for count in [8, 400, 1_000] {
            for period in [2, 5, 25] {
                let candidates = Candidates { rows: (0..count).collect(), in_turn: false };
                let good = |row: &usize| !row.is_multiple_of(period);
                assert!((0..200).any(|probe| candidates.choose_probe(probe).iter().any(good)), "{count} {period}");
                let few: HashSet<usize> = (0..200).flat_map(|probe| candidates.choose_probe(probe)).collect();
                assert!(few.len() > count.min(40) / 2, "{count}: {}", few.len());
            }
        }
        let in_turn = Candidates { rows: (0..1_000).collect(), in_turn: true };
        let tried = |probe| in_turn.choose_probe(probe).len();
        assert_eq!([tried(0), tried(2), tried(3), tried(4), tried(7), tried(400_003)], [1, 1, 4, 1, 8, 64]);
        let wide = (0..12).map(|number| tried(4 * number + 3)).collect::<Vec<_>>();
        assert_eq!(wide, [4, 8, 16, 32, 64, 128, 64, 256, 64, 128, 64, 512]);
    }
}
