//! Owns how the feeds of a source reach the observers of their pipeline.
//! Must not know when they report.

use std::fmt;

use crate::feed_events::{FeedGauges, FeedProgress};
use crate::guarded_reporter::GuardedReporter;

/// The observers of a pipeline, for the feeds of a source. Their panics are caught. From
/// [`BatchSqlBuilder::feed_reporter`](crate::BatchSqlBuilder::feed_reporter).
#[derive(Clone)]
pub struct FeedReporter(GuardedReporter);

impl FeedReporter {
    pub(crate) fn new(observers: GuardedReporter) -> Self {
        Self(observers)
    }

    /// Whether there is an observer.
    pub fn is_observed(&self) -> bool {
        !self.0.is_empty()
    }

    /// Reports the state.
    pub fn gauges(&self, gauges: &FeedGauges) {
        self.0.call(|reporter| reporter.feed_gauges(gauges));
    }

    /// Reports what the feeds of a table have done since the last call for it.
    pub fn progress(&self, progress: &FeedProgress) {
        self.0.call(|reporter| reporter.feed_progress(progress));
    }
}

impl fmt::Debug for FeedReporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedReporter").field("is_observed", &self.is_observed()).finish_non_exhaustive()
    }
}
