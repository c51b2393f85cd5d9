//! Owns how the durable intake of a pipeline reaches the pipeline's observers.
//! Must not know when it reports.

use std::fmt;
use std::time::Duration;

use crate::durable_events::{DurableGauges, DurableProgress};
use crate::guarded_reporter::GuardedReporter;

/// The observers of a pipeline, for its durable intake. Their panics are caught. From
/// [`BatchSqlBuilder::durable_reporter`](crate::BatchSqlBuilder::durable_reporter).
#[derive(Clone)]
pub struct DurableReporter(GuardedReporter);

impl DurableReporter {
    pub(crate) fn new(observers: GuardedReporter) -> Self {
        Self(observers)
    }

    /// Whether there is an observer.
    pub fn is_observed(&self) -> bool {
        !self.0.is_empty()
    }

    /// Reports the state.
    pub fn gauges(&self, gauges: &DurableGauges) {
        self.0.call(|reporter| reporter.durable_gauges(gauges));
    }

    /// Reports what was done since the last call.
    pub fn progress(&self, progress: &DurableProgress) {
        self.0.call(|reporter| reporter.durable_progress(progress));
    }

    /// Reports one sync of the log.
    pub fn synced(&self, took: Duration) {
        self.0.call(|reporter| reporter.durable_synced(took));
    }
}

impl fmt::Debug for DurableReporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableReporter").field("is_observed", &self.is_observed()).finish_non_exhaustive()
    }
}
