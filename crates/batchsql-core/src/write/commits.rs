//! Owns how many writes of a group were committed, over all lanes.
//! Must not know batches.
//!
//! It tells whose error an error is: when a row was refused, another row was committed, and then the first was refused
//! again, the row is at fault and not the table.

use std::sync::atomic::{AtomicU64, Ordering};

/// Writes of one group that put rows into the database.
#[derive(Debug, Default)]
pub(crate) struct Commits(AtomicU64);

impl Commits {
    /// Another write was committed.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// Writes committed so far.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}
