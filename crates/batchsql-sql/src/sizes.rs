//! Owns which statement sizes stay prepared, and how rows are split by their bytes.
//! Must not know SQL text: it counts rows and bytes.

use std::collections::VecDeque;
use std::ops::Range;

/// Sizes up to this one are always kept: they are cheap, and frequent if few rows are submitted.
const SMALL: usize = 16;
/// The number of other sizes that are kept because they repeat, for example `flush_size`.
const REPEATED: usize = 4;

/// The row counts whose statements stay prepared. A bounded set: small sizes, powers of two, and the few sizes that
/// occurred at least twice recently.
///
/// ```
/// use batchsql_sql::KeptSizes;
/// let mut sizes = KeptSizes::default();
/// assert_eq!(sizes.split(500), [256, 128, 64, 32, 16, 4]);
/// assert_eq!(sizes.split(500), [500]);
/// ```
#[derive(Debug, Clone, Default)]
pub struct KeptSizes {
    /// Sizes that occurred once, the latest last.
    seen: VecDeque<usize>,
    /// Sizes that repeated, the most recently used last.
    repeated: VecDeque<usize>,
}

impl KeptSizes {
    /// Whether a statement of `rows` rows, which is about to be used, stays prepared.
    pub fn keeps(&mut self, rows: usize) -> bool {
        if rows <= SMALL || rows.is_power_of_two() {
            return true;
        }
        if let Some(place) = self.repeated.iter().position(|size| *size == rows) {
            self.repeated.remove(place);
            self.repeated.push_back(rows);
            return true;
        }
        let known = self.seen.iter().position(|size| *size == rows);
        let queue = match known {
            Some(place) => {
                self.seen.remove(place);
                &mut self.repeated
            }
            None => &mut self.seen,
        };
        if queue.len() == REPEATED {
            queue.pop_front();
        }
        queue.push_back(rows);
        known.is_some()
    }

    /// The sizes of kept statements that together hold `rows` rows: a single one, if this row count occurred
    /// before.
    pub fn split(&mut self, rows: usize) -> Vec<usize> {
        if self.keeps(rows) {
            return vec![rows];
        }
        let (mut sizes, mut left) = (Vec::new(), rows);
        while left > SMALL {
            let size = 1 << left.ilog2();
            sizes.push(size);
            left -= size;
        }
        sizes.extend((left > 0).then_some(left));
        sizes
    }

    /// The most sizes that are kept at one time, when no statement has more than `full` rows.
    pub fn bound(full: usize) -> usize {
        let powers = full.checked_ilog2().map_or(0, |bits| bits as usize + 1);
        SMALL.min(full) + powers.saturating_sub(SMALL.ilog2() as usize + 1) + REPEATED
    }
}

/// Splits rows into pieces of at most `max_rows` rows and `max_bytes` bytes, as few as their order allows. A single
/// row with more bytes is its own piece.
///
/// # Panics
/// When `max_rows` is 0.
pub fn pieces(bytes: impl IntoIterator<Item = usize>, max_rows: usize, max_bytes: usize) -> Vec<Range<usize>> {
    assert!(max_rows > 0, "a statement has at least one row");
    let mut pieces: Vec<Range<usize>> = Vec::new();
    let mut sum = 0_usize;
    for (row, bytes) in bytes.into_iter().enumerate() {
        sum = sum.saturating_add(bytes);
        match pieces.last_mut() {
            Some(piece) if piece.len() < max_rows && sum <= max_bytes => piece.end = row + 1,
            _ => {
                sum = bytes;
                pieces.push(row..row + 1);
            }
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_size_that_comes_again_is_kept_and_few_of_them() {
        let mut sizes = KeptSizes::default();
        assert!(!sizes.keeps(500));
        assert!(!sizes.keeps(37));
        assert!(sizes.keeps(500));
        // Many sizes that occur once do not evict it.
        assert!((600_usize..700).filter(|size| !size.is_power_of_two()).all(|size| !sizes.keeps(size)));
        assert!(sizes.keeps(500));
        for size in [701, 702, 703, 704] {
            assert!(!sizes.keeps(size) && sizes.keeps(size));
        }
        assert!(!sizes.keeps(500), "four others were used since");
    }

    #[test]
    fn rows_are_cut_by_number_and_by_bytes() {
        assert_eq!(pieces([1; 5], 2, 100), [0..2, 2..4, 4..5]);
        assert_eq!(pieces([40, 60, 1, 200, 1], 10, 100), [0..2, 2..3, 3..4, 4..5]);
        assert_eq!(pieces([], 10, 100), []);
    }

    proptest! {
        #[test]
        fn no_more_sizes_are_kept_than_the_bound(came in proptest::collection::vec(1_usize..3_000, 0..600)) {
            let mut sizes = KeptSizes::default();
            for size in &came {
                sizes.keeps(*size);
            }
            let kept = (1..3_000).filter(|size| sizes.clone().keeps(*size) && !sizes.seen.contains(size)).count();
            prop_assert!(kept <= KeptSizes::bound(3_000), "{kept}");
        }

        #[test]
        fn every_row_is_in_one_statement_that_is_kept(rows in 1_usize..5_000) {
            let mut sizes = KeptSizes::default();
            let split = sizes.split(rows);
            prop_assert_eq!(split.iter().sum::<usize>(), rows);
            prop_assert!(split.iter().all(|size| sizes.keeps(*size)));
            prop_assert_eq!(sizes.split(rows), vec![rows]);
        }

        #[test]
        fn every_row_is_in_one_piece_that_fits(
            bytes in proptest::collection::vec(0_usize..200, 0..300),
            max_rows in 1_usize..50,
        ) {
            let pieces = pieces(bytes.iter().copied(), max_rows, 150);
            prop_assert_eq!(pieces.iter().map(|p| p.len()).sum::<usize>(), bytes.len());
            let mut next = 0;
            for piece in pieces {
                prop_assert_eq!(piece.start, next);
                next = piece.end;
                let sum: usize = bytes[piece.clone()].iter().sum();
                prop_assert!(piece.len() <= max_rows && (piece.len() == 1 || sum <= 150));
            }
        }
    }
}
