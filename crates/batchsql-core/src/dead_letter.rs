//! Owns the way out for rows that were not written and that nobody holds a receipt for.
//! Must not know why they failed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::receipt::Outcome;

/// Takes every row that ends without being written.
#[derive(Clone)]
pub(crate) struct DeadLetter(Arc<dyn Fn(&Outcome) + Send + Sync>);

impl DeadLetter {
    pub(crate) fn new(callback: impl Fn(&Outcome) + Send + Sync + 'static) -> Self {
        Self(Arc::new(callback))
    }

    /// Hands over one outcome; a panic of the callback is caught and logged.
    pub(crate) fn send(&self, outcome: &Outcome) {
        if catch_unwind(AssertUnwindSafe(|| (self.0)(outcome))).is_err() {
            tracing::error!(outcome = outcome.kind().name(), "the failed-row callback panicked");
        }
    }
}
