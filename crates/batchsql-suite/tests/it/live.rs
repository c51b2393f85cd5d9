//! Owns the checks of what Prometheus sees while the suite runs.
//! Must not know how metrics are recorded.

use std::collections::BTreeSet;

use batchsql_testserver::{Sample, promtool_objects_to_the_three_known_names_only, samples};

use crate::support::{Answer, Suite, eventually, get};

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

fn value(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let fits = |sample: &&Sample| {
        sample.name == name && labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|v| v == value))
    };
    let found: Vec<f64> = samples.iter().filter(fits).map(|sample| sample.value).collect();
    (!found.is_empty()).then(|| found.iter().sum())
}

/// One case has ended, and the next one is writing.
fn well_under_way(answer: &Answer) -> bool {
    let samples = samples(&answer.body);
    value(&samples, "batchsql_test_success", &[("test_case", "high_throughput")]).is_some()
        && value(&samples, "batchsql_records_processed_total", &[("test_case", "long_duration")])
            .is_some_and(|n| n > 0.0)
        && value(&samples, "batchsql_memory_usage_mb", &[("test_case", "long_duration")]).is_some()
}

/// One run for everything, because a run takes time.
#[test]
fn a_scrape_during_a_run_has_every_required_metric() {
    let cases = ["--case", "high_throughput", "--case", "long_duration"];
    let mut running = Suite::new(&cases).args(&["--workers", "2", "--records-per-worker", "15000"]).start();
    let address = running.address();
    assert!(address.ip().is_loopback(), "{address}");
    let health = get(address, "/health");
    assert_eq!(health.status, 200, "{health:?}");
    let answer =
        eventually("a scrape with the result of a case", || Some(get(address, "/metrics")).filter(well_under_way));
    assert!(running.is_running(), "the scrape must happen during the run");

    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    has_every_required_metric(&answer.body);
    has_the_numbers_of_the_run(&samples(&answer.body));
    promtool_objects_to_the_three_known_names_only(&answer.body);
    running.wait().expect_code(0);
    assert!(std::net::TcpStream::connect(address).is_err(), "the endpoint is still open after the run");
}

fn has_every_required_metric(page: &str) {
    let samples = samples(page);
    for (name, kind, labels) in REQUIRED {
        assert!(page.lines().any(|line| line == format!("# TYPE {name} {kind}")), "{name} is not a {kind}");
        assert!(page.lines().any(|line| line.starts_with(&format!("# HELP {name} "))), "{name} has no help");
        let mut expected: BTreeSet<&str> = labels.split(", ").collect();
        let mut exposed = name.to_owned();
        if kind == "histogram" {
            expected.insert("le");
            exposed += "_bucket";
        }
        let series: Vec<_> = samples.iter().filter(|sample| sample.name == exposed).collect();
        assert!(!series.is_empty(), "{name} has no series");
        for sample in series {
            let labels: BTreeSet<&str> = sample.labels.keys().map(String::as_str).collect();
            assert_eq!(labels, expected, "{sample:?}");
            assert_eq!(sample.labels["database"], "sqlite", "{sample:?}");
            let case = &*sample.labels["test_case"];
            assert!(["high_throughput", "long_duration"].contains(&case), "{sample:?}");
        }
    }
}

fn has_the_numbers_of_the_run(samples: &[Sample]) {
    let first = ("test_case", "high_throughput");
    let check = |name: &str, labels: &[(&str, &str)], expected: f64| {
        assert_eq!(value(samples, name, labels), Some(expected), "{name} {labels:?}");
    };
    check("batchsql_records_processed_total", &[first, ("table", "batchsql_suite_events")], 30_000.0);
    check("batchsql_batch_size_sum", &[first], 30_000.0);
    check("batchsql_batch_execution_total", &[first, ("status", "failure")], 0.0);
    check("batchsql_test_records_total", &[first, ("type", "submitted")], 30_000.0);
    check("batchsql_test_records_total", &[first, ("type", "actual")], 30_000.0);
    check("batchsql_test_success", &[first], 1.0);
    check("batchsql_test_data_integrity_rate", &[first], 100.0);
    check("batchsql_errors_total", &[], 0.0);
    for (name, labels) in [
        ("batchsql_test_duration_seconds", vec![first]),
        ("batchsql_test_rps", vec![first]),
        ("batchsql_memory_usage_mb", vec![first, ("type", "alloc")]),
        ("batchsql_memory_usage_mb", vec![first, ("type", "total_alloc")]),
        ("batchsql_memory_usage_mb", vec![first, ("type", "sys")]),
        ("batchsql_memory_usage_mb", vec![first, ("type", "current")]),
    ] {
        assert!(value(samples, name, &labels).is_some_and(|value| value > 0.0), "{name} {labels:?}");
    }
}
