//! Owns the checks of what tests record about themselves.
//! Must not know pipelines.

use std::time::Duration;

use batchsql_metrics::{MemoryUsage, Metric, TestResult};

use crate::snapshot::{Seen, recorded};

const LABELS: &[(&str, &str)] = &[("database", "mysql"), ("test_case", "soak")];

#[test]
fn a_test_result_shows_all_its_numbers() {
    let (metrics, snapshotter) = recorded();
    let result = TestResult {
        duration: Duration::from_millis(2_500),
        total_records: 1_000,
        actual_records: 990,
        data_integrity_rate: 99.0,
        records_per_second: 396.0,
        rps_valid: true,
        success: false,
        ..Default::default()
    };
    metrics.record_test_result("mysql", "soak", &result);
    let seen = Seen::by(&snapshotter);
    assert_eq!(seen.sum(Metric::TestDuration, LABELS), 2.5);
    assert_eq!(seen.sum(Metric::TestRecords, &[LABELS, &[("type", "submitted")]].concat()), 1_000.0);
    assert_eq!(seen.sum(Metric::TestRecords, &[LABELS, &[("type", "actual")]].concat()), 990.0);
    assert_eq!(seen.sum(Metric::TestRps, LABELS), 396.0);
    assert_eq!(seen.sum(Metric::TestSuccess, LABELS), 0.0);
    assert_eq!(seen.sum(Metric::TestDataIntegrityRate, LABELS), 99.0);
    assert!(seen.sum(Metric::TestLastCompletion, LABELS) > 1.7e9);
}

#[test]
fn a_rate_that_means_nothing_is_not_recorded() {
    let (metrics, snapshotter) = recorded();
    metrics.record_test_result("mysql", "soak", &TestResult { records_per_second: 9.0, ..Default::default() });
    assert_eq!(Seen::by(&snapshotter).count(Metric::TestRps, &[]), 0);
}

#[test]
fn live_metrics_and_memory() {
    let (metrics, snapshotter) = recorded();
    metrics.record_real_time_metrics("mysql", "soak", 1_500.0, 256.5);
    let usage = MemoryUsage { alloc: Some(3 << 20), sys: Some(1 << 19), ..Default::default() };
    metrics.record_memory("mysql", "soak", &usage);
    let seen = Seen::by(&snapshotter);
    assert_eq!(seen.sum(Metric::TestRps, LABELS), 1_500.0);
    assert_eq!(seen.sum(Metric::MemoryUsageMb, &[LABELS, &[("type", "current")]].concat()), 256.5);
    assert_eq!(seen.sum(Metric::MemoryUsageMb, &[LABELS, &[("type", "alloc")]].concat()), 3.0);
    assert_eq!(seen.sum(Metric::MemoryUsageMb, &[LABELS, &[("type", "sys")]].concat()), 0.5);
    assert_eq!(seen.sum(Metric::MemoryUsageBytes, &[LABELS, &[("type", "alloc")]].concat()), f64::from(3 << 20));
    assert_eq!(seen.count(Metric::MemoryUsageMb, &[("type", "total_alloc")]), 0, "not measured");
    assert_eq!(seen.count(Metric::GcCount, &[]), 0, "not measured");

    metrics.record_memory("mysql", "soak", &MemoryUsage { gc_count: Some(4), ..Default::default() });
    assert_eq!(Seen::by(&snapshotter).sum(Metric::GcCount, LABELS), 4.0);
}
