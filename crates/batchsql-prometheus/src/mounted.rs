//! Owns the count of endpoints that servers of the application serve.
//! Must not know HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the endpoints that exist. Clones share the count.
#[derive(Clone, Default)]
pub(crate) struct Mounts(Arc<AtomicUsize>);

/// One endpoint, until it is dropped.
pub(crate) struct Mounted(Mounts);

impl Mounts {
    /// One more endpoint.
    pub(crate) fn mount(&self) -> Mounted {
        self.0.fetch_add(1, Ordering::AcqRel);
        Mounted(self.clone())
    }

    /// Whether an endpoint exists.
    pub(crate) fn is_any(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}
