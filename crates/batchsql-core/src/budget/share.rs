//! Owns what one table holds of the budget in batches that are ready or being written.
//! Must not know tables or batches.

use std::sync::Arc;

use crate::budget::sync::{AtomicUsize, Ordering};

/// Rows and bytes of one table that are ready to be written, or being written.
#[derive(Debug, Default)]
pub(crate) struct Share {
    rows: AtomicUsize,
    bytes: AtomicUsize,
}

impl Share {
    pub(crate) fn rows(&self) -> usize {
        self.rows.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Counts a batch until the guard is released.
    pub(crate) fn hold(self: &Arc<Self>, rows: usize, bytes: usize) -> ShareHold {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        ShareHold { share: Arc::clone(self), rows, bytes }
    }
}

/// What one batch holds of its table's share. Release it before its rows and bytes return to the budget.
#[derive(Debug)]
pub(crate) struct ShareHold {
    share: Arc<Share>,
    rows: usize,
    bytes: usize,
}

impl ShareHold {
    /// Takes over what another batch of the same table holds.
    pub(crate) fn absorb(&mut self, other: &mut Self) {
        self.rows += std::mem::take(&mut other.rows);
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Releases it now.
    pub(crate) fn release(&mut self) {
        self.share.rows.fetch_sub(std::mem::take(&mut self.rows), Ordering::Relaxed);
        self.share.bytes.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for ShareHold {
    fn drop(&mut self) {
        self.release();
    }
}
