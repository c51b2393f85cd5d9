//! Owns the view of what a recorder recorded.
//! Must not know pipelines.

use std::collections::BTreeMap;
use std::sync::Arc;

use batchsql_metrics::{Metric, Metrics};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

/// A facade and the snapshotter of its recorder.
pub(crate) fn recorded() -> (Metrics, Snapshotter) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    (Metrics::with_recorder(Arc::new(recorder)), snapshotter)
}

/// Everything that was recorded until now.
pub(crate) struct Seen(Vec<(String, BTreeMap<String, String>, DebugValue)>);

impl Seen {
    pub(crate) fn by(snapshotter: &Snapshotter) -> Self {
        let series = snapshotter.snapshot().into_vec().into_iter().map(|(key, _, _, value)| {
            let labels = key.key().labels().map(|label| (label.key().to_owned(), label.value().to_owned()));
            (key.key().name().to_owned(), labels.collect(), value)
        });
        Self(series.collect())
    }

    /// The series of a metric that have all of these labels.
    fn find<'a>(&'a self, metric: Metric, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a DebugValue> {
        self.0.iter().filter_map(move |(name, have, value)| {
            let fits = labels.iter().all(|(label, value)| have.get(*label).is_some_and(|have| have == value));
            (name == metric.name() && fits).then_some(value)
        })
    }

    /// Whether there is a series of a metric.
    pub(crate) fn has(&self, metric: Metric) -> bool {
        self.find(metric, &[]).next().is_some()
    }

    /// The sum over the series with these labels; panics when there is none.
    pub(crate) fn sum(&self, metric: Metric, labels: &[(&str, &str)]) -> f64 {
        assert!(self.find(metric, labels).count() > 0, "no series of {metric:?} with {labels:?}");
        let value = |value: &DebugValue| match value {
            DebugValue::Counter(value) => *value as f64,
            DebugValue::Gauge(value) => value.0,
            DebugValue::Histogram(_) => panic!("{metric:?} is a histogram"),
        };
        self.find(metric, labels).map(value).sum()
    }

    /// The observations over the series with these labels.
    pub(crate) fn observed(&self, metric: Metric, labels: &[(&str, &str)]) -> Vec<f64> {
        let values = |value: &DebugValue| match value {
            DebugValue::Histogram(values) => values.iter().map(|value| value.0).collect::<Vec<_>>(),
            _ => panic!("{metric:?} is not a histogram"),
        };
        self.find(metric, labels).flat_map(values).collect()
    }

    /// How many series there are.
    pub(crate) fn count(&self, metric: Metric, labels: &[(&str, &str)]) -> usize {
        self.find(metric, labels).count()
    }

    /// The names of the labels of every series of a metric.
    pub(crate) fn label_names(&self, metric: Metric) -> Vec<Vec<&str>> {
        let of_metric = self.0.iter().filter(|(name, ..)| name == metric.name());
        of_metric.map(|(_, labels, _)| labels.keys().map(String::as_str).collect()).collect()
    }
}
