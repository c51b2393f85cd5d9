//! Owns how far the source of a partition is, as its worker sees it.
//! Must not know messages or positions.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How far a partition is.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    /// All messages below this one have ended.
    settled: AtomicU64,
    /// Messages behind the last one that was read, as of then.
    pending: AtomicU64,
    /// Another worker has the partition.
    is_lost: AtomicBool,
}

impl Reached {
    /// Messages below this one may be removed.
    pub(crate) fn settled(&self) -> u64 {
        self.settled.load(Ordering::Acquire)
    }

    pub(crate) fn settle(&self, message: u64) {
        self.settled.fetch_max(message, Ordering::AcqRel);
    }

    pub(crate) fn pending(&self) -> u64 {
        self.pending.load(Ordering::Relaxed)
    }

    /// A message was read, and this number is behind it.
    pub(crate) fn read(&self, pending: u64) {
        self.pending.store(pending, Ordering::Relaxed);
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }

    pub(crate) fn lose(&self) {
        self.is_lost.store(true, Ordering::Release);
    }
}
