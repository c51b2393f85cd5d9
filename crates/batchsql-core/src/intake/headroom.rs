//! Owns the memory that open batches may reserve before their rows arrive.
//! Must not know batches.
//!
//! A batch fills faster if its columns start with the capacity that the last batch of its lane needed. That capacity is
//! not in the byte budget, and there may be thousands of open batches: 500 tables with 4 lanes and 5 text columns would
//! take 160 MB. So one limit applies to the whole pipeline. A batch that gets no headroom starts small and grows with
//! its rows.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of capacity that open batches may still take.
#[derive(Debug)]
pub(crate) struct Headroom(AtomicUsize);

impl Headroom {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    /// Takes bytes if they are available.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let take = |left: usize| left.checked_sub(bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// Gives back what was taken.
    pub(crate) fn give_back(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}
