//! Owns which writes of a group were committed, over all lanes.
//! Must not know batches.
//!
//! It shows whether a row or the table causes an error: if a row was refused, then another write began and was
//! committed, and then the row was refused again, the row is at fault and not the table. A write that began before the
//! first refusal proves nothing: the table may have changed in between.

use std::sync::atomic::{AtomicU64, Ordering};

/// The writes of one group, numbered by their begin, and the rows that were rejected since the last commit.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    begun: AtomicU64,
    /// The last write to begin among those that were committed.
    committed: AtomicU64,
    rejected: AtomicU64,
}

impl Commits {
    /// A write begins; returns its number.
    pub(crate) fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The write with this number was committed.
    pub(crate) fn commit(&self, number: u64) {
        self.committed.fetch_max(number, Ordering::SeqCst);
        self.rejected.store(0, Ordering::SeqCst);
    }

    /// A row was rejected.
    pub(crate) fn reject(&self) {
        self.rejected.fetch_add(1, Ordering::SeqCst);
    }

    /// Rows that were rejected since the last commit.
    pub(crate) fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::SeqCst)
    }

    /// Writes that have begun so far.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    /// The number of the last write to begin among those that were committed so far.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::SeqCst)
    }
}
