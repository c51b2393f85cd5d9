//! Owns the registration with a recorder: descriptions, and handles with exactly the labels of the catalogue.
//! Must not know pipelines or which values are recorded.

use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, SharedString};

use crate::catalogue::{Metric, MetricKind};

static METADATA: Metadata<'static> = Metadata::new("batchsql", Level::INFO, Some(module_path!()));

/// A recorder that threads may share.
pub(crate) type SharedRecorder = Arc<dyn Recorder + Send + Sync>;

/// The recorder that handles are registered with.
#[derive(Clone)]
pub(crate) enum Emitter {
    /// The recorder that the process, or the thread, has when a handle is registered.
    Global,
    Injected(SharedRecorder),
}

impl Emitter {
    /// Passes name, unit and help of every metric to the recorder.
    pub(crate) fn describe_all(&self) {
        self.with(|recorder| {
            for metric in Metric::ALL {
                let name = KeyName::from_const_str(metric.name());
                let (unit, help) = (Some(metric.unit()), SharedString::const_str(metric.help()));
                match metric.kind() {
                    MetricKind::Counter => recorder.describe_counter(name, unit, help),
                    MetricKind::Gauge => recorder.describe_gauge(name, unit, help),
                    MetricKind::Histogram => recorder.describe_histogram(name, unit, help),
                }
            }
        });
    }

    /// A counter that starts at 0. `values` are the values of the metric's labels, in order.
    pub(crate) fn counter<const N: usize>(&self, metric: Metric, values: [Option<SharedString>; N]) -> Counter {
        debug_assert_eq!(metric.kind(), MetricKind::Counter, "{metric:?}");
        self.with(|recorder| recorder.register_counter(&key(metric, values), &METADATA))
    }

    /// A gauge. `values` are the values of the metric's labels, in order.
    pub(crate) fn gauge<const N: usize>(&self, metric: Metric, values: [Option<SharedString>; N]) -> Gauge {
        debug_assert_eq!(metric.kind(), MetricKind::Gauge, "{metric:?}");
        self.with(|recorder| recorder.register_gauge(&key(metric, values), &METADATA))
    }

    /// A histogram. `values` are the values of the metric's labels, in order.
    pub(crate) fn histogram<const N: usize>(&self, metric: Metric, values: [Option<SharedString>; N]) -> Histogram {
        debug_assert_eq!(metric.kind(), MetricKind::Histogram, "{metric:?}");
        self.with(|recorder| recorder.register_histogram(&key(metric, values), &METADATA))
    }

    fn with<T>(&self, job: impl FnOnce(&dyn Recorder) -> T) -> T {
        match self {
            Self::Global => metrics::with_recorder(job),
            Self::Injected(recorder) => job(&**recorder),
        }
    }
}

/// Pairs the catalogue's label names with values; a label without a value is left out.
fn key<const N: usize>(metric: Metric, values: [Option<SharedString>; N]) -> Key {
    debug_assert_eq!(metric.labels().len(), N, "{metric:?}");
    let pairs = metric.labels().iter().zip(values);
    let labels: Vec<Label> = pairs.filter_map(|(name, value)| Some(Label::new(*name, value?))).collect();
    Key::from_parts(metric.name(), labels)
}
