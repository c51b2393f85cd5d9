//! Owns the settings of one table for its batches, and how many rows one write of it may carry at this time.
//! Must not know lanes or databases: callers pass the results of writes.
//!
//! A batch grows while it waits. That must not make slow writes slower: a write should take at most a quarter of
//! `statement_timeout`. Example with `flush_size` 500, `max_batch_rows` 10,000 and a timeout of 30 s:
//!
//! - At first a write carries 500 rows. They took 20 ms: 10,000 rows would take 0.4 s, so the limit becomes 10,000.
//! - The table gets a trigger that takes 15 ms a row. 10,000 rows time out: the limit becomes 5,000, then 2,500, then
//!   1,250. Those take 18.75 s, more than 7.5 s: the limit becomes 500.
//!
//! Where rows with equal keys become one, the limit is about the rows that are sent. Example with `max_batch_rows` 500: 500
//! rows of 100 keys were sent as 100 rows. So the next batch takes 2,500 rows. These are 100 keys too, and the batch after
//! it takes 10,000 rows.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::config_table::TableSettings;

/// A row that was sent as it is.
const ONE: usize = 256;

/// The limit of one table.
#[derive(Debug)]
pub(crate) struct BatchLimit {
    pub(crate) settings: TableSettings,
    rows: AtomicUsize,
    /// For each lane, the rows of its last batch for each row that was sent, in parts of [`ONE`].
    coalesced: Box<[AtomicUsize]>,
    /// The time that a write should take at most.
    target: Duration,
}

impl BatchLimit {
    pub(crate) fn new(settings: TableSettings, lanes: usize) -> Self {
        Self {
            settings,
            rows: AtomicUsize::new(settings.flush_size),
            coalesced: (0..lanes).map(|_| AtomicUsize::new(ONE)).collect(),
            target: settings.statement_timeout / 4,
        }
    }

    /// Rows that one write may carry.
    pub(crate) fn rows(&self) -> usize {
        self.rows.load(Ordering::Relaxed)
    }

    /// Rows that a batch of a lane may take, so that it probably sends at most `sent` rows.
    pub(crate) fn rows_for(&self, lane: usize, sent: usize) -> usize {
        let rows = sent.saturating_mul(self.coalesced[lane].load(Ordering::Relaxed)) / ONE;
        rows.min(self.settings.max_coalesced_rows).max(sent)
    }

    /// A batch of a lane has `rows` rows, and is about to be sent as `sent` rows.
    pub(crate) fn coalesced(&self, lane: usize, rows: usize, sent: usize) {
        self.coalesced[lane].store(rows.saturating_mul(ONE) / sent.max(1), Ordering::Relaxed);
    }

    /// A write of `rows` rows succeeded.
    pub(crate) fn succeeded(&self, rows: usize, took: Duration) {
        let fits = self.target.as_nanos().saturating_mul(rows as u128) / took.as_nanos().max(1);
        let fits = usize::try_from(fits).unwrap_or(usize::MAX).clamp(1, self.settings.max_batch_rows);
        // A few rows do not show the speed of many: most of their time may be the round trip. They can raise the limit,
        // and lower it only when they were slow themselves.
        let is_slow = took > self.target / 2;
        if is_slow {
            self.rows.fetch_min(fits, Ordering::Relaxed);
        } else {
            self.rows.fetch_max(fits, Ordering::Relaxed);
        }
    }

    /// A write of `rows` rows took longer than `statement_timeout`.
    pub(crate) fn timed_out(&self, rows: usize) {
        self.rows.fetch_min((rows / 2).max(1), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PipelineConfig;
    use crate::config_policies::{Coalesce, Isolation, WhenFull};

    #[test]
    fn the_limit_follows_what_writes_take() {
        let limit = BatchLimit::new(PipelineConfig::default().of_table("t", 10_000, 8), 1);
        assert_eq!(limit.rows(), 500, "nothing is known yet");
        limit.succeeded(1, Duration::from_millis(50));
        assert_eq!(limit.rows(), 500, "one row and a round trip do not raise it");
        limit.succeeded(500, Duration::from_millis(20));
        assert_eq!(limit.rows(), 10_000);
        limit.succeeded(1, Duration::from_millis(50));
        assert_eq!(limit.rows(), 10_000, "a small batch does not lower the limit");
        for expected in [5_000, 2_500, 1_250] {
            limit.timed_out(limit.rows());
            assert_eq!(limit.rows(), expected);
        }
        limit.succeeded(1_250, Duration::from_millis(18_750));
        assert_eq!(limit.rows(), 500);
        limit.succeeded(500, Duration::from_millis(7_500));
        assert_eq!(limit.rows(), 500, "a quarter of the timeout");
        // Slower still: 500 rows time out, 250 take 12.5 s.
        limit.timed_out(500);
        limit.succeeded(250, Duration::from_millis(12_500));
        assert_eq!(limit.rows(), 150, "also below flush_size");
        limit.succeeded(150, Duration::from_millis(7_500));
        limit.succeeded(1, Duration::from_millis(60));
        assert_eq!(limit.rows(), 150, "one row and a round trip do not raise it");
        limit.timed_out(1);
        assert_eq!(limit.rows(), 1);
        limit.succeeded(1, Duration::from_millis(1));
        assert_eq!(limit.rows(), 7_500);
    }

    #[test]
    fn a_batch_takes_as_many_rows_as_become_one_statement() {
        let check = |config: PipelineConfig, coalesced: &[(usize, usize)], expected: &[usize]| {
            let limit = BatchLimit::new(config.of_table("t", 0, 8), 2);
            assert_eq!(limit.rows_for(1, 500), 500, "nothing is known yet");
            for ((rows, sent), expected) in coalesced.iter().zip(expected) {
                limit.coalesced(1, *rows, *sent);
                assert_eq!(limit.rows_for(1, 500), *expected, "{rows} rows became {sent}");
            }
            assert_eq!(limit.rows_for(0, 500), 500, "another lane");
        };
        let default = PipelineConfig::default;
        let hot = [(500, 100), (2_500, 100), (10_000, 10_000), (500, 400), (300, 1)];
        check(default(), &hot, &[2_500, 10_000, 500, 625, 10_000]);
        check(default().max_batch_rows(2_000), &hot, &[2_000, 2_000, 500, 625, 2_000]);
        check(default().max_batch_rows(500), &hot, &[500; 5]);
        check(default().coalesce(Coalesce::Off), &hot, &[500; 5]);
        check(default().isolation(Isolation::AtomicBatch), &hot, &[500; 5]);
        check(default().when_full(WhenFull::DropOldest), &hot, &[1_250, 1_250, 500, 625, 1_250]);
    }
}
