//! Owns the checks of what a durable intake reports: every value in its metric, and bounded tables.
//! Must not know a log.

use std::time::{Duration, UNIX_EPOCH};

use batchsql_core::{DurableGauges, DurableProgress, DurableTable, MetricsReporter};
use batchsql_metrics::{Metric, MetricsOptions};

use crate::snapshot::{Seen, recorded};

fn table(name: &str, rows: u64) -> DurableTable {
    let mut table = DurableTable::default();
    (table.table, table.unsettled_rows, table.read_rows) = (name.to_owned(), rows, rows / 10);
    (table.stopped_partitions, table.waiting_partitions) = (rows / 100, rows / 50);
    table
}

fn gauges() -> DurableGauges {
    let mut gauges = DurableGauges::default();
    (gauges.log_bytes, gauges.log_bytes_limit, gauges.log_is_full) = (11, 12, true);
    gauges.oldest_unsettled = Some(UNIX_EPOCH + Duration::from_millis(13_500));
    (gauges.recovered_rows, gauges.recovery) = (14, Duration::from_millis(1_500));
    gauges.tables = vec![table("a", 100), table("b", 200), table("c", 300), table("d", 400)];
    gauges
}

fn progress() -> DurableProgress {
    let mut progress = DurableProgress::default();
    (progress.rows, progress.blocks, progress.bytes, progress.disk_failures) = (21, 22, 23, 24);
    (progress.quarantined_parts, progress.quarantined_bytes, progress.missing_rows) = (25, 26, 27);
    (progress.written_again, progress.dead_letters) = (28, 29);
    progress
}

#[test]
fn every_value_has_its_metric() {
    let (metrics, snapshotter) = recorded();
    let reporter = metrics.reporter("sqlite");
    let is_durable = |metric: &&Metric| metric.name().starts_with("batchsql_durable_");
    let seen = Seen::by(&snapshotter);
    assert!(Metric::ALL.iter().filter(is_durable).all(|metric| !seen.has(*metric)), "there is no durable intake");

    reporter.durable_gauges(&gauges());
    reporter.durable_progress(&progress());
    reporter.durable_progress(&progress());
    reporter.durable_synced(Duration::from_millis(2));
    let seen = Seen::by(&snapshotter);
    let expected = [
        (Metric::DurableLogBytes, 11.0),
        (Metric::DurableLogBytesLimit, 12.0),
        (Metric::DurableLogFull, 1.0),
        (Metric::DurableOldestUnsettledRecord, 13.5),
        (Metric::DurableRecoveredRecords, 14.0),
        (Metric::DurableRecovery, 1.5),
        (Metric::DurableUnsettledRecords, 1_000.0),
        (Metric::DurableReadRecords, 100.0),
        (Metric::DurableStoppedPartitions, 10.0),
        (Metric::DurableWaitingPartitions, 20.0),
        (Metric::DurableAcknowledgedRecords, 42.0),
        (Metric::DurableAcknowledgedBlocks, 44.0),
        (Metric::DurableAcknowledgedBytes, 46.0),
        (Metric::DurableDiskFailures, 48.0),
        (Metric::DurableQuarantinedParts, 50.0),
        (Metric::DurableQuarantinedBytes, 52.0),
        (Metric::DurableMissingRecords, 54.0),
        (Metric::DurableWrittenAgain, 56.0),
        (Metric::DurableDeadLetters, 58.0),
    ];
    for (metric, value) in expected {
        assert_eq!(seen.sum(metric, &[("database", "sqlite")]), value, "{metric:?}");
    }
    assert_eq!(seen.observed(Metric::DurableSync, &[("database", "sqlite")]), [0.002]);
    let count = Metric::ALL.iter().filter(is_durable).count();
    assert_eq!(count, expected.len() + 1, "a durable metric is not checked here");

    reporter.durable_gauges(&DurableGauges::default());
    let seen = Seen::by(&snapshotter);
    assert_eq!(seen.sum(Metric::DurableOldestUnsettledRecord, &[]), 0.0, "nothing waits");
    assert_eq!(seen.sum(Metric::DurableLogFull, &[]), 0.0);
}

/// The gauges of tables that share a label are added up, and do not overwrite each other.
#[test]
fn tables_beyond_the_limit_are_added_up() {
    let (metrics, snapshotter) = recorded();
    let reporter = metrics.options(MetricsOptions { max_tables: 2, ..Default::default() }).reporter("sqlite");
    for _ in 0..2 {
        reporter.durable_gauges(&gauges());
        let seen = Seen::by(&snapshotter);
        let rows = |table| seen.sum(Metric::DurableUnsettledRecords, &[("table", table)]);
        assert_eq!(["a", "b", "other"].map(rows), [100.0, 200.0, 700.0]);
        assert_eq!(seen.count(Metric::DurableUnsettledRecords, &[]), 3);
        assert_eq!(seen.sum(Metric::DurableStoppedPartitions, &[("table", "other")]), 7.0);
    }
}
