//! Owns the number of rows per statement, in a bounded set of shapes.
//! Must not know SQL text: it counts rows and placeholders.

/// The most rows of `columns` values that fit into `max_binds` placeholders, at most `preferred`.
/// `None` when not even one row fits.
pub fn rows_per_statement(columns: usize, max_binds: usize, preferred: usize) -> Option<usize> {
    let fit = max_binds.checked_div(columns)?;
    (fit > 0).then(|| fit.min(preferred.max(1)))
}

/// Splits rows into statements of few different sizes, so that a cache of prepared statements stays small: as
/// many full statements as possible, the rest in powers of two.
///
/// ```
/// use batchsql_sql::Shapes;
/// let shapes = Shapes::new(100);
/// assert_eq!(shapes.split(237).collect::<Vec<_>>(), [100, 100, 32, 4, 1]);
/// assert_eq!(shapes.sizes().collect::<Vec<_>>(), [100, 64, 32, 16, 8, 4, 2, 1]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shapes {
    full: usize,
}

impl Shapes {
    /// Statements of at most `full` rows.
    ///
    /// # Panics
    /// When `full` is 0.
    pub fn new(full: usize) -> Self {
        assert!(full > 0, "a statement has at least one row");
        Self { full }
    }

    /// Every size that [`split`](Self::split) may return, largest first.
    pub fn sizes(self) -> impl Iterator<Item = usize> {
        let powers = (0..usize::BITS).map(|bit| 1 << bit).take_while(move |size| *size < self.full);
        std::iter::once(self.full).chain(powers.collect::<Vec<_>>().into_iter().rev())
    }

    /// The sizes of the statements that together hold `rows` rows.
    pub fn split(self, rows: usize) -> impl Iterator<Item = usize> {
        let mut left = rows;
        std::iter::from_fn(move || {
            let size = match left {
                0 => return None,
                left if left >= self.full => self.full,
                left => 1 << left.ilog2(),
            };
            left -= size;
            Some(size)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn limits_decide() {
        assert_eq!(rows_per_statement(7, 32_766, 100), Some(100));
        assert_eq!(rows_per_statement(2_000, 32_766, 100), Some(16));
        assert_eq!(rows_per_statement(32_766, 32_766, 100), Some(1));
        assert_eq!(rows_per_statement(32_767, 32_766, 100), None);
        assert_eq!(rows_per_statement(0, 10, 100), None);
    }

    proptest! {
        #[test]
        fn every_row_is_in_one_statement_of_a_known_size(full in 1usize..5_000, rows in 0usize..20_000) {
            let shapes = Shapes::new(full);
            let sizes: Vec<usize> = shapes.sizes().collect();
            let split: Vec<usize> = shapes.split(rows).collect();
            prop_assert_eq!(split.iter().sum::<usize>(), rows);
            prop_assert!(split.iter().all(|size| sizes.contains(size)));
            prop_assert!(sizes.iter().all(|size| *size <= full));
            prop_assert!(split.len() <= rows / full + sizes.len());
        }
    }
}
