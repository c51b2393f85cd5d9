//! Owns the checks of what the feeds of a source report: every value in its metric, and bounded tables.
//! Must not know a source.

use std::time::{Duration, UNIX_EPOCH};

use batchsql_core::{FeedGauges, FeedProgress, FeedTable, MetricsReporter, StopReason};
use batchsql_metrics::{Metric, MetricsOptions};

use crate::snapshot::{Seen, recorded};

fn table(name: &str, first: u64) -> FeedTable {
    let mut table = FeedTable::default();
    table.table = name.to_owned();
    (table.unsettled_messages, table.pending_messages) = (first, first + 1);
    table.oldest_unsettled = Some(UNIX_EPOCH + Duration::from_millis(1_000 * first + 500));
    (table.wanted_partitions, table.held_partitions) = (first + 2, first + 3);
    (table.unheld_partitions, table.waiting_partitions) = (first + 4, first + 5);
    table.stopped_partitions = [(StopReason::Gap, first + 6), (StopReason::Fenced, first + 7)].into();
    table
}

fn gauges(tables: &[(&str, u64)]) -> FeedGauges {
    let mut gauges = FeedGauges::default();
    (gauges.source_up, gauges.stray_messages) = (Some(true), Some(9));
    gauges.tables = tables.iter().map(|(name, first)| table(name, *first)).collect();
    gauges
}

fn progress(table: &str) -> FeedProgress {
    let mut progress = FeedProgress::default();
    progress.table = table.to_owned();
    (progress.read_rows, progress.written_rows, progress.written_again) = (21, 22, 23);
    (progress.missing_rows, progress.dead_letters, progress.takeovers) = (24, 25, 26);
    (progress.fences, progress.redelivered_messages, progress.foreign_messages) = (27, 28, 29);
    progress
}

#[test]
fn every_value_has_its_metric() {
    let (metrics, snapshotter) = recorded();
    let reporter = metrics.reporter("postgres");
    let is_of_feeds = |metric: &&Metric| metric.name().starts_with("batchsql_feed_");
    let seen = Seen::by(&snapshotter);
    assert!(Metric::ALL.iter().filter(is_of_feeds).all(|metric| !seen.has(*metric)), "there are no feeds");
    reporter.feed_gauges(&FeedGauges::default());
    assert!(!Seen::by(&snapshotter).has(Metric::FeedSourceUp), "it has not answered yet");
    assert!(!Seen::by(&snapshotter).has(Metric::FeedStrayMessages), "a source without such messages");

    reporter.feed_gauges(&gauges(&[("orders", 10)]));
    reporter.feed_progress(&progress("orders"));
    reporter.feed_progress(&progress("orders"));
    let seen = Seen::by(&snapshotter);
    let expected = [
        (Metric::FeedUnsettledMessages, 10.0),
        (Metric::FeedPendingMessages, 11.0),
        (Metric::FeedOldestUnsettledMessage, 10.5),
        (Metric::FeedWantedPartitions, 12.0),
        (Metric::FeedHeldPartitions, 13.0),
        (Metric::FeedUnheldPartitions, 14.0),
        (Metric::FeedWaitingPartitions, 15.0),
        (Metric::FeedStoppedPartitions, 33.0),
        (Metric::FeedReadRecords, 42.0),
        (Metric::FeedWrittenRecords, 44.0),
        (Metric::FeedWrittenAgain, 46.0),
        (Metric::FeedMissingRecords, 48.0),
        (Metric::FeedDeadLetters, 50.0),
        (Metric::FeedTakeovers, 52.0),
        (Metric::FeedFences, 54.0),
        (Metric::FeedRedeliveredMessages, 56.0),
        (Metric::FeedForeignMessages, 58.0),
    ];
    for (metric, value) in expected {
        assert_eq!(seen.sum(metric, &[("database", "postgres"), ("table", "orders")]), value, "{metric:?}");
    }
    let stopped = |reason| seen.sum(Metric::FeedStoppedPartitions, &[("reason", reason)]);
    assert_eq!((stopped("gap"), stopped("fenced"), stopped("row")), (16.0, 17.0, 0.0));
    assert_eq!(seen.sum(Metric::FeedSourceUp, &[("database", "postgres")]), 1.0);
    assert_eq!(seen.sum(Metric::FeedStrayMessages, &[("database", "postgres")]), 9.0);
    let count = Metric::ALL.iter().filter(is_of_feeds).count();
    assert_eq!(count, expected.len() + 2, "a metric of feeds is not checked here");

    let mut quiet = gauges(&[]);
    quiet.source_up = Some(false);
    quiet.tables.push(FeedTable::default());
    quiet.tables[0].table = "orders".to_owned();
    reporter.feed_gauges(&quiet);
    let seen = Seen::by(&snapshotter);
    assert_eq!(seen.sum(Metric::FeedSourceUp, &[]), 0.0);
    assert_eq!(seen.sum(Metric::FeedOldestUnsettledMessage, &[]), 0.0, "nothing waits");
    assert_eq!(seen.sum(Metric::FeedStoppedPartitions, &[]), 0.0, "a partition that goes on does not stay stopped");
}

/// The gauges of tables that share a label are added up, and do not overwrite each other.
#[test]
fn tables_beyond_the_limit_are_added_up() {
    let (metrics, snapshotter) = recorded();
    let reporter = metrics.options(MetricsOptions { max_tables: 2, ..Default::default() }).reporter("postgres");
    for _ in 0..2 {
        reporter.feed_gauges(&gauges(&[("a", 100), ("b", 200), ("c", 400), ("d", 300)]));
        let seen = Seen::by(&snapshotter);
        let messages = |table| seen.sum(Metric::FeedUnsettledMessages, &[("table", table)]);
        assert_eq!(["a", "b", "other"].map(messages), [100.0, 200.0, 700.0]);
        assert_eq!(seen.count(Metric::FeedUnsettledMessages, &[]), 3);
        assert_eq!(seen.sum(Metric::FeedOldestUnsettledMessage, &[("table", "other")]), 300.5, "the oldest of them");
        let stopped = &[("table", "other"), ("reason", "gap")];
        assert_eq!(seen.sum(Metric::FeedStoppedPartitions, stopped), 712.0);
    }
}
