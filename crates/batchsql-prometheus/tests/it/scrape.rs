//! Owns the checks of a scrape after a run: names, labels, types, and the result of promtool.
//! Must not know how the server works.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use batchsql_core::{BatchSql, ColumnType, ErrorClass, PipelineConfig, Schema};
use batchsql_prometheus::{MemoryUsage, PrometheusMetrics, TestResult};
use batchsql_testkit::{ScriptedSink, Step};
use batchsql_testserver::{Sample, samples};
use metrics::{Key, Level, Metadata};

use crate::http::get;

/// The table of the requirements document, unchanged.
const REQUIRED: [(&str, &str, &str); 12] = [
    ("batchsql_batch_execution_duration_seconds", "histogram", "database, table, status, test_case"),
    ("batchsql_batch_execution_total", "counter", "database, table, status, test_case"),
    ("batchsql_batch_size", "histogram", "database, table, test_case"),
    ("batchsql_records_processed_total", "counter", "database, table, test_case"),
    ("batchsql_test_duration_seconds", "gauge", "database, test_case"),
    ("batchsql_test_records_total", "gauge", "database, test_case, type"),
    ("batchsql_test_rps", "gauge", "database, test_case"),
    ("batchsql_test_success", "gauge", "database, test_case"),
    ("batchsql_test_data_integrity_rate", "gauge", "database, test_case"),
    ("batchsql_memory_usage_mb", "gauge", "database, test_case, type"),
    ("batchsql_gc_count", "gauge", "database, test_case"),
    ("batchsql_errors_total", "counter", "database, test_case, error_type"),
];

/// A scrape over HTTP after a run with a test case and an error.
async fn scraped() -> String {
    let metrics = PrometheusMetrics::new().unwrap();
    let address = metrics.start_server(0).await.unwrap();
    metrics.set_current_test_case("bulk \"quoted\"");
    let sink = ScriptedSink::new();
    sink.script([Step::Fail(ErrorClass::Transient), Step::Delay(Duration::from_millis(2))]);
    let config = PipelineConfig::default().flush_size(10).buffer_size(20);
    let db = BatchSql::builder(sink).config(config).metrics_reporter(metrics.reporter("scripted")).start().unwrap();
    let events = Schema::builder("events").column("id", ColumnType::I64).build().unwrap();
    for id in 0..95_i64 {
        db.submit(&events.row().set("id", id).unwrap().finish().unwrap()).await.unwrap();
    }
    let report = db.close(Duration::from_secs(10)).await;
    assert!(report.is_complete(), "{report:?}");
    metrics.record_real_time_metrics("scripted", "bulk", 1_500.0, 256.5);
    let usage =
        MemoryUsage { alloc: Some(1 << 20), total_alloc: Some(2 << 20), sys: Some(3 << 20), ..Default::default() };
    metrics.record_memory("scripted", "bulk", &MemoryUsage { current: Some(4 << 20), gc_count: Some(3), ..usage });
    let result = TestResult { total_records: 95, actual_records: 95, success: true, ..Default::default() };
    metrics.record_test_result("scripted", "bulk", &result);
    let page = get(address, "/metrics").body;
    metrics.stop_server().await.unwrap();
    page
}

fn types(page: &str) -> BTreeMap<&str, &str> {
    page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

#[tokio::test]
async fn every_required_metric_has_exactly_its_labels() {
    let page = scraped().await;
    let (samples, types) = (samples(&page), types(&page));
    for (name, kind, labels) in REQUIRED {
        assert_eq!(types.get(name), Some(&kind), "{name}");
        let mut expected: BTreeSet<&str> = labels.split(", ").collect();
        let exposed = if kind == "histogram" { format!("{name}_bucket") } else { name.to_owned() };
        if kind == "histogram" {
            expected.insert("le");
        }
        let series: Vec<_> = samples.iter().filter(|sample| sample.name == exposed).collect();
        assert!(!series.is_empty(), "{name} is missing");
        for sample in series {
            let labels: BTreeSet<&str> = sample.labels.keys().map(String::as_str).collect();
            assert_eq!(labels, expected, "{name}");
        }
    }
}

#[tokio::test]
async fn the_numbers_are_those_of_the_run() {
    let samples = samples(&scraped().await);
    let check = |name: &str, labels: &[(&str, &str)], expected: f64| {
        let fits = |sample: &&Sample| {
            let has = |(label, value): &(&str, &str)| sample.labels.get(*label).is_some_and(|have| have == value);
            sample.name == name && labels.iter().all(has)
        };
        let values: Vec<f64> = samples.iter().filter(fits).map(|sample| sample.value).collect();
        assert!(!values.is_empty(), "no {name} with {labels:?}");
        assert_eq!(values.iter().sum::<f64>(), expected, "{name} {labels:?}");
    };
    check("batchsql_records_received_total", &[("table", "events")], 95.0);
    check("batchsql_records_outcome_total", &[], 95.0);
    check("batchsql_records_processed_total", &[("test_case", "bulk \\\"quoted\\\"")], 95.0);
    check("batchsql_batch_execution_total", &[("status", "success")], 10.0);
    check("batchsql_batch_execution_total", &[("status", "failure")], 1.0);
    check("batchsql_batch_execution_duration_seconds_count", &[("status", "success")], 10.0);
    check("batchsql_batch_size_sum", &[], 95.0);
    check("batchsql_batch_size_bucket", &[("le", "1")], 0.0);
    check("batchsql_batch_size_bucket", &[("le", "10")], 10.0);
    check("batchsql_batch_size_bucket", &[("le", "+Inf")], 10.0);
    check("batchsql_errors_total", &[("error_type", "transient")], 1.0);
    check("batchsql_errors_total", &[("error_type", "permission")], 0.0);
    check("batchsql_memory_usage_mb", &[("type", "sys")], 3.0);
    check("batchsql_memory_usage_bytes", &[("type", "current")], f64::from(4 << 20));
    check("batchsql_test_success", &[("test_case", "bulk")], 1.0);
    check("batchsql_gc_count", &[], 3.0);
    if cfg!(target_os = "linux") {
        assert!(samples.iter().any(|sample| sample.name == "process_resident_memory_bytes" && sample.value > 0.0));
    }
}

#[tokio::test]
async fn every_metric_is_described_and_none_is_a_summary() {
    let page = scraped().await;
    let help: BTreeSet<&str> =
        page.lines().filter_map(|line| Some(line.strip_prefix("# HELP ")?.split_once(' ')?.0)).collect();
    for (name, kind) in types(&page) {
        assert!(help.contains(name), "{name} has no help");
        assert_ne!(kind, "summary", "{name} has no buckets");
    }
}

/// The global recorder can be set once per process, so only this test sets it.
#[test]
fn the_global_recorder_is_ours_only_when_asked_for() {
    let own_counter = || {
        let metadata = Metadata::new(module_path!(), Level::INFO, None);
        metrics::with_recorder(|recorder| recorder.register_counter(&Key::from_static_name("own_total"), &metadata))
    };
    let metrics = PrometheusMetrics::new().unwrap();
    own_counter().increment(1);
    assert!(!metrics.render().contains("own_total"));
    metrics.install_global().unwrap();
    own_counter().increment(7);
    assert!(metrics.render().contains("\nown_total 7\n"), "{}", metrics.render());

    let error = PrometheusMetrics::new().unwrap().install_global().unwrap_err();
    assert!(error.is_already_installed());
    assert!(error.to_string().contains("reporter()"), "{error}");
}

#[tokio::test]
async fn promtool_objects_to_the_three_known_names_only() {
    batchsql_testserver::promtool_objects_to_the_three_known_names_only(&scraped().await);
}
