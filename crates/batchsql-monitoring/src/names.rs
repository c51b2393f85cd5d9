//! Owns the names that a query may use: the catalogue's, those of recording rules, and those of Prometheus itself.
//! Must not know queries or files.

use std::collections::{BTreeMap, BTreeSet};

use batchsql_core::{ErrorClass, FlushReason, OutcomeKind, StopReason};
use batchsql_metrics::{Metric, MetricKind};
use strsim::levenshtein;

/// Labels that Prometheus puts on every series that it scrapes.
pub(crate) const TARGET: [&str; 2] = ["job", "instance"];

/// What Prometheus records of each scrape and of itself, as far as queries of this repository use it: name, kind, and
/// labels besides job and instance.
const PROMETHEUS: &[(&str, MetricKind, &[&str])] = &[
    ("up", MetricKind::Gauge, &[]),
    ("scrape_duration_seconds", MetricKind::Gauge, &[]),
    ("scrape_samples_scraped", MetricKind::Gauge, &[]),
    ("scrape_samples_post_metric_relabeling", MetricKind::Gauge, &[]),
    ("scrape_series_added", MetricKind::Gauge, &[]),
    ("prometheus_config_last_reload_successful", MetricKind::Gauge, &[]),
    ("prometheus_notifications_alertmanagers_discovered", MetricKind::Gauge, &[]),
    ("prometheus_notifications_dropped_total", MetricKind::Counter, &[]),
    ("prometheus_notifications_queue_length", MetricKind::Gauge, &[]),
    ("prometheus_remote_storage_queue_highest_sent_timestamp_seconds", MetricKind::Gauge, &["remote_name", "url"]),
    ("prometheus_remote_storage_samples_failed_total", MetricKind::Counter, &["remote_name", "url"]),
    ("prometheus_remote_storage_samples_pending", MetricKind::Gauge, &["remote_name", "url"]),
    ("prometheus_remote_storage_samples_total", MetricKind::Counter, &["remote_name", "url"]),
    ("prometheus_rule_evaluation_failures_total", MetricKind::Counter, &["rule_group"]),
    ("prometheus_rule_group_last_duration_seconds", MetricKind::Gauge, &["rule_group"]),
    ("prometheus_target_scrape_pool_exceeded_label_limits_total", MetricKind::Counter, &[]),
    ("prometheus_target_scrapes_exceeded_body_size_limit_total", MetricKind::Counter, &[]),
    ("prometheus_target_scrapes_exceeded_sample_limit_total", MetricKind::Counter, &[]),
    ("prometheus_tsdb_compactions_failed_total", MetricKind::Counter, &[]),
    ("prometheus_tsdb_head_series", MetricKind::Gauge, &[]),
    ("prometheus_tsdb_reloads_failures_total", MetricKind::Counter, &[]),
    ("prometheus_tsdb_storage_blocks_bytes", MetricKind::Gauge, &[]),
    ("prometheus_tsdb_wal_corruptions_total", MetricKind::Counter, &[]),
    // Of the process: the exporter has the same names as Prometheus itself.
    ("process_cpu_seconds_total", MetricKind::Counter, &[]),
    ("process_max_fds", MetricKind::Gauge, &[]),
    ("process_open_fds", MetricKind::Gauge, &[]),
    ("process_resident_memory_bytes", MetricKind::Gauge, &[]),
    ("process_start_time_seconds", MetricKind::Gauge, &[]),
    ("process_threads", MetricKind::Gauge, &[]),
    ("process_virtual_memory_bytes", MetricKind::Gauge, &[]),
    ("process_virtual_memory_max_bytes", MetricKind::Gauge, &[]),
];

/// Alerts as series: they have the labels of their rule.
const ALERTS: [&str; 2] = ["ALERTS", "ALERTS_FOR_STATE"];

/// One name that a query may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Series {
    /// What it does over time; a part of a histogram is a counter.
    pub(crate) kind: MetricKind,
    /// Its labels; `None` if unknown.
    pub(crate) labels: Option<BTreeSet<String>>,
    /// The metric of the catalogue to which it belongs.
    pub(crate) metric: Option<Metric>,
    /// Whether a recording rule makes it.
    pub(crate) recorded: bool,
}

/// Every name that a query may use.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    series: BTreeMap<String, Series>,
    /// From the scrape configurations; empty allows any.
    jobs: BTreeSet<String>,
    /// From the rules; empty allows any.
    alerts: BTreeSet<String>,
}

impl Names {
    /// The names of the catalogue and of Prometheus.
    pub(crate) fn new() -> Self {
        let mut names = Self::default();
        for metric in Metric::ALL {
            let series = |kind, more: &[&str]| Series {
                kind,
                labels: Some(with_target(metric.labels().iter().chain(more))),
                metric: Some(*metric),
                recorded: false,
            };
            let name = metric.name();
            match metric.kind() {
                MetricKind::Histogram => {
                    names.series.insert(format!("{name}_bucket"), series(MetricKind::Counter, &["le"]));
                    names.series.insert(format!("{name}_sum"), series(MetricKind::Counter, &[]));
                    names.series.insert(format!("{name}_count"), series(MetricKind::Counter, &[]));
                }
                kind => {
                    names.series.insert(name.to_owned(), series(kind, &[]));
                }
            }
        }
        for (name, kind, labels) in PROMETHEUS {
            let labels = Some(with_target(labels.iter()));
            names.series.insert((*name).to_owned(), Series { kind: *kind, labels, metric: None, recorded: false });
        }
        for name in ALERTS {
            let series = Series { kind: MetricKind::Gauge, labels: None, metric: None, recorded: false };
            names.series.insert(name.to_owned(), series);
        }
        names
    }

    /// Adds the series of a recording rule.
    pub(crate) fn record(&mut self, name: &str, labels: Option<BTreeSet<String>>) {
        self.series.insert(name.to_owned(), Series { kind: MetricKind::Gauge, labels, metric: None, recorded: true });
    }

    /// Adds the names of jobs and alerts.
    pub(crate) fn know(&mut self, jobs: impl IntoIterator<Item = String>, alerts: impl IntoIterator<Item = String>) {
        self.jobs.extend(jobs);
        self.alerts.extend(alerts);
    }

    /// The values of a label of a series, if they are a closed set.
    pub(crate) fn values<'a>(&'a self, name: &str, series: &Series, label: &str) -> Option<Vec<&'a str>> {
        let known = |set: &'a BTreeSet<String>| (!set.is_empty()).then(|| set.iter().map(String::as_str).collect());
        match label {
            "job" => known(&self.jobs),
            "alertname" => known(&self.alerts),
            "alertstate" => ALERTS.contains(&name).then(|| vec!["pending", "firing"]),
            _ => values(series.metric?, label),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Series> {
        self.series.get(name)
    }

    /// What to write instead of an unknown name.
    pub(crate) fn advice(&self, name: &str) -> String {
        if Metric::ALL.iter().any(|metric| metric.name() == name) {
            return format!("a histogram has no series of its own name; use {name}_bucket, {name}_sum or {name}_count");
        }
        let nearest = self.series.keys().min_by_key(|known| levenshtein(known, name)).expect("there are names");
        if levenshtein(nearest, name) <= name.len() / 4 {
            format!("did you mean {nearest}?")
        } else {
            "use a name of crates/batchsql-metrics/src/catalogue.rs, or of a recording rule".to_owned()
        }
    }
}

fn with_target<'a>(labels: impl Iterator<Item = &'a &'a str>) -> BTreeSet<String> {
    labels.chain(&TARGET).map(|label| (*label).to_owned()).collect()
}

/// The values of a label of a metric, if they are a closed set.
fn values(metric: Metric, label: &str) -> Option<Vec<&'static str>> {
    let classes = || ErrorClass::ALL.iter().map(|class| class.name()).collect();
    Some(match (label, metric) {
        ("status", _) => vec!["success", "failure"],
        ("outcome", _) => OutcomeKind::ALL.iter().map(|kind| kind.name()).collect(),
        ("error_type", _) => classes(),
        ("reason", Metric::Flushes) => FlushReason::ALL.iter().map(|reason| reason.name()).collect(),
        ("reason", Metric::Retries | Metric::RecordsRejected) => classes(),
        ("reason", Metric::SubmitRefused) => vec!["closed", "full", "invalid"],
        ("reason", Metric::FeedStoppedPartitions) => StopReason::ALL.iter().map(|reason| reason.name()).collect(),
        ("reason", Metric::TableParks) => vec!["schema", "permission", "row", "internal"],
        ("type", Metric::TestRecords) => vec!["submitted", "actual"],
        ("type", _) => vec!["alloc", "total_alloc", "sys", "current"],
        ("state", _) => vec!["in_use", "idle", "max"],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use batchsql_core::{
        BatchInfo, DurableGauges, DurableTable, FeedGauges, FeedTable, MetricsReporter, PipelineGauges, PoolState,
    };
    use batchsql_metrics::{MemoryUsage, Metrics, TestResult};
    use metrics_util::debugging::DebuggingRecorder;

    use super::*;

    /// Every series that a pipeline and a test can have, registered the same way.
    fn registered() -> Vec<(String, BTreeMap<String, String>)> {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let metrics = Metrics::with_recorder(Arc::new(recorder));
        let reporter = metrics.reporter("d").test_case("t");
        let context = reporter.context();
        let batch = BatchInfo { table: "t", context: context.as_ref(), rows: 1, bytes: 1 };
        reporter.batch_not_sent(&batch, ErrorClass::Transient);
        let mut gauges = PipelineGauges::default();
        gauges.pool = Some(PoolState::default());
        gauges.database_up = Some(true);
        reporter.gauges(&gauges);
        let mut durable = DurableGauges::default();
        durable.tables.push(DurableTable::default());
        reporter.durable_gauges(&durable);
        let mut feeds = FeedGauges::default();
        (feeds.source_up, feeds.stray_messages) = (Some(true), Some(0));
        feeds.tables.push(FeedTable::default());
        reporter.feed_gauges(&feeds);
        metrics.record_test_result("d", "t", &TestResult { rps_valid: true, ..Default::default() });
        let one = Some(1);
        let memory = MemoryUsage { alloc: one, total_alloc: one, sys: one, current: one, gc_count: one };
        metrics.record_memory("d", "t", &memory);
        let snapshot = snapshotter.snapshot().into_vec();
        let series = snapshot.into_iter().map(|(key, ..)| {
            let labels = key.key().labels().map(|label| (label.key().to_owned(), label.value().to_owned()));
            (key.key().name().to_owned(), labels.collect())
        });
        series.collect()
    }

    /// Compares the closed sets with the registered series, so that an added or removed value is found.
    #[test]
    fn the_closed_sets_are_those_that_a_reporter_registers() {
        let registered = registered();
        for metric in Metric::ALL {
            let series: Vec<_> = registered.iter().filter(|(name, _)| name == metric.name()).collect();
            assert!(!series.is_empty(), "{} is not registered here", metric.name());
            for label in metric.labels() {
                let has: BTreeSet<_> = series.iter().filter_map(|(_, labels)| labels.get(*label)).collect();
                match values(*metric, label) {
                    Some(values) => {
                        let known: BTreeSet<_> = values.iter().map(|value| (*value).to_owned()).collect();
                        assert_eq!(has, known.iter().collect(), "{} {label}", metric.name());
                    }
                    None => assert!(has.len() <= 1, "{} {label} is a closed set: {has:?}", metric.name()),
                }
            }
        }
    }

    #[test]
    fn a_histogram_has_three_names_and_not_its_own() {
        let names = Names::new();
        assert!(names.get("batchsql_batch_size").is_none());
        let labels = |name: &str| names.get(name).unwrap().labels.clone().unwrap();
        assert!(labels("batchsql_batch_size_bucket").contains("le"));
        assert!(!labels("batchsql_batch_size_sum").contains("le"));
        assert!(labels("batchsql_batch_size_count").contains("instance"));
        assert!(names.advice("batchsql_batch_size").contains("batchsql_batch_size_bucket"));
    }

    #[test]
    fn a_slip_of_the_pen_gets_the_right_name() {
        let names = Names::new();
        assert_eq!(names.advice("batchsql_eror_total"), "did you mean batchsql_errors_total?");
        assert!(names.advice("go_gc_duration_seconds").contains("catalogue.rs"));
    }
}
