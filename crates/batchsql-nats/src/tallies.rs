//! Owns counts of what happens to the partitions and messages of a table, since the start of the worker.
//! Must not know who counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of one table.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    /// Partitions whose last owner had not given them away.
    pub(crate) takeovers: Tally,
    /// Partitions that another worker has claimed meanwhile.
    pub(crate) fences: Tally,
    /// Messages that were delivered more than once, to this worker or to others.
    pub(crate) redelivered: Tally,
    /// Messages of another format.
    pub(crate) foreign: Tally,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Tally(AtomicU64);

impl Tally {
    pub(crate) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
