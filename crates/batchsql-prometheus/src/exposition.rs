//! Owns the recorder, its upkeep, and the text of a scrape.
//! Must not know HTTP or pipelines.

use std::sync::Arc;
use std::time::Duration;

use batchsql_metrics::Metric;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use metrics_process::Collector;

use crate::error::PrometheusError;
use crate::upkeep::Upkeep;

/// Interval at which observations are moved into their buckets; until then each one takes memory.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// A recorder with its upkeep thread: the thread runs as long as the recorder exists.
pub(crate) struct KeptRecorder {
    recorder: PrometheusRecorder,
    _upkeep: Upkeep,
}

/// The recorder, and the rendering of its text.
pub(crate) struct Exposition {
    recorder: Arc<KeptRecorder>,
    handle: PrometheusHandle,
    process: Collector,
}

impl Exposition {
    /// # Errors
    /// The thread for the upkeep cannot be started.
    pub(crate) fn new() -> Result<Self, PrometheusError> {
        let mut builder = PrometheusBuilder::new();
        for metric in Metric::ALL.iter().filter(|metric| !metric.buckets().is_empty()) {
            // Without buckets the exporter renders summaries, and every percentile query is empty.
            let name = Matcher::Full(metric.name().to_owned());
            builder = builder.set_buckets_for_metric(name, metric.buckets()).expect("there is at least one bucket");
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        let kept = handle.clone();
        let upkeep = Upkeep::start(UPKEEP_INTERVAL, move || kept.run_upkeep())?;
        let recorder = Arc::new(KeptRecorder { recorder, _upkeep: upkeep });
        let process = Collector::default();
        // The collector uses the default recorder of its thread.
        metrics::with_local_recorder(&recorder, || process.describe());
        Ok(Self { recorder, handle, process })
    }

    pub(crate) fn recorder(&self) -> Arc<KeptRecorder> {
        Arc::clone(&self.recorder)
    }

    /// Every metric in the text format, version 0.0.4.
    pub(crate) fn render(&self) -> String {
        metrics::with_local_recorder(&self.recorder, || self.process.collect());
        self.handle.render()
    }
}

impl Recorder for KeptRecorder {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.recorder.describe_counter(name, unit, help);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.recorder.describe_gauge(name, unit, help);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.recorder.describe_histogram(name, unit, help);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.recorder.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.recorder.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.recorder.register_histogram(key, metadata)
    }
}
