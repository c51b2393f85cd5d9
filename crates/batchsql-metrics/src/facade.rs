//! Owns the entry point: the recorder, the options and the current test case.
//! Must not know events of a pipeline; `reporter` does.

use std::fmt;
use std::sync::Arc;

use metrics::{Recorder, SharedString};

use crate::catalogue::Metric;
use crate::current_test_case::CurrentTestCase;
use crate::emit::Emitter;
use crate::options::MetricsOptions;
use crate::reporter::Reporter;

/// Emits the metrics of pipelines and tests to a recorder of the [`metrics`] crate. Cheap to clone;
/// clones share the current test case.
#[derive(Clone)]
pub struct Metrics {
    pub(crate) emitter: Emitter,
    options: MetricsOptions,
    pub(crate) current: Arc<CurrentTestCase>,
}

impl Metrics {
    /// Emits to the global recorder. Install it first: handles that were registered before it emit
    /// nothing, and they are kept.
    pub fn new() -> Self {
        Self::start(Emitter::Global)
    }

    /// Emits to this recorder instead of the global one.
    pub fn with_recorder(recorder: Arc<dyn Recorder + Send + Sync>) -> Self {
        Self::start(Emitter::Injected(recorder))
    }

    fn start(emitter: Emitter) -> Self {
        emitter.describe_all();
        let version = SharedString::const_str(env!("CARGO_PKG_VERSION"));
        emitter.gauge(Metric::BuildInfo, [Some(version)]).set(1.0);
        Self { emitter, options: MetricsOptions::default(), current: Arc::default() }
    }

    /// Sets the limits for reporters made from now on.
    #[must_use]
    pub fn options(mut self, options: MetricsOptions) -> Self {
        self.options = options;
        self
    }

    /// An observer for one pipeline. `database` is the value of that label, for example `postgres`.
    /// Give each pipeline a name of its own: with the same name, counters add up and gauges
    /// overwrite each other.
    pub fn reporter(&self, database: impl Into<String>) -> Reporter {
        Reporter::new(&self.emitter, database.into().into(), self.options, Arc::clone(&self.current))
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("options", &self.options).field("test_case", &self.current.get()).finish()
    }
}
