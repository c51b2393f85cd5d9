//! Owns the catalogue: name, kind, unit, help, labels and buckets of every metric, as pure functions.
//! Must not know recorders or who emits what.

use metrics::Unit;

/// Upper bounds in seconds for writes and waits: from a local SQLite commit to a slow database.
const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Upper bounds in seconds for work in memory.
const SHORT_SECONDS: &[f64] = &[0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.1];
/// Upper bounds in seconds for syncs of a disk: those of `batchsql_log::SYNC_BUCKETS_MICROS`, and some between them.
const SYNC_SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// Upper bounds in rows.
const ROWS: &[f64] = &[1.0, 10.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0, 20000.0];

/// What a metric does over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MetricKind {
    /// Only grows; starts again at 0 with the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}

/// A metric cannot be added without name, kind, unit, labels and help.
macro_rules! catalogue {
    ($($metric:ident: $kind:ident, $unit:ident, $name:literal, [$($label:literal),*], $help:literal;)*) => {
        /// Every metric that BatchSQL emits.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Metric {
            $(#[doc = concat!("`", $name, "`: ", $help, ".")] $metric,)*
        }

        impl Metric {
            /// Every metric, in the order of the catalogue.
            pub const ALL: &'static [Self] = &[$(Self::$metric),*];

            /// The full name, as in a query.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$metric => $name),* }
            }

            /// What it does over time.
            pub const fn kind(self) -> MetricKind {
                match self { $(Self::$metric => MetricKind::$kind),* }
            }

            /// The unit of its values.
            pub const fn unit(self) -> Unit {
                match self { $(Self::$metric => Unit::$unit),* }
            }

            /// One line of help, without a full stop.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$metric => $help),* }
            }

            /// The names of its labels. `test_case` is absent from a series that belongs to no test case.
            pub const fn labels(self) -> &'static [&'static str] {
                match self { $(Self::$metric => &[$($label),*]),* }
            }
        }
    };
}

catalogue! {
    // Required: exactly these names and labels.
    BatchExecutionDuration: Histogram, Seconds, "batchsql_batch_execution_duration_seconds",
        ["database", "table", "status", "test_case"],
        "Time from statement to confirmed commit of one attempt to write a batch or a part of it";
    BatchExecution: Counter, Count, "batchsql_batch_execution_total",
        ["database", "table", "status", "test_case"],
        "Attempts to write a batch or a part of it, by status success or failure";
    BatchSize: Histogram, Count, "batchsql_batch_size", ["database", "table", "test_case"],
        "Rows per sealed batch";
    RecordsProcessed: Counter, Count, "batchsql_records_processed_total", ["database", "table", "test_case"],
        "Rows committed to the database";
    TestDuration: Gauge, Seconds, "batchsql_test_duration_seconds", ["database", "test_case"],
        "Duration of the test";
    TestRecords: Gauge, Count, "batchsql_test_records_total", ["database", "test_case", "type"],
        "Rows of the test, by type submitted or actual (found in the database)";
    TestRps: Gauge, CountPerSecond, "batchsql_test_rps", ["database", "test_case"],
        "Rows per second: live during the test, over the whole test at its end";
    TestSuccess: Gauge, Count, "batchsql_test_success", ["database", "test_case"],
        "1 if the test passed, 0 if it failed";
    TestDataIntegrityRate: Gauge, Percent, "batchsql_test_data_integrity_rate", ["database", "test_case"],
        "Share of the expected rows that are in the database, in percent from 0 to 100";
    MemoryUsageMb: Gauge, Mebibytes, "batchsql_memory_usage_mb", ["database", "test_case", "type"],
        "Memory in MiB, by type alloc, total_alloc, sys or current";
    GcCount: Gauge, Count, "batchsql_gc_count", ["database", "test_case"],
        "Purge sweeps of the allocator, where it reports them";
    Errors: Counter, Count, "batchsql_errors_total", ["database", "test_case", "error_type"],
        "Failed attempts, by class of error; rejected rows of a written batch are in batchsql_records_rejected_total";

    // Rows.
    RecordsReceived: Counter, Count, "batchsql_records_received_total", ["database", "table"],
        "Rows accepted, counted when their batch is sealed";
    RecordsOutcome: Counter, Count, "batchsql_records_outcome_total", ["database", "table", "outcome"],
        "Rows by outcome; the sum over all outcomes is the number of rows received";
    RecordsRejected: Counter, Count, "batchsql_records_rejected_total", ["database", "table", "reason"],
        "Rows that the database rejected, by class of error";
    SubmitRefused: Counter, Count, "batchsql_submit_refused_total", ["database", "reason"],
        "Rows not accepted, by reason closed, full or invalid";

    // Batches.
    Flushes: Counter, Count, "batchsql_flushes_total", ["database", "reason"],
        "Sealed batches, by the reason for sealing";
    Retries: Counter, Count, "batchsql_retries_total", ["database", "reason"],
        "Retries of batches, by class of error";
    Isolations: Counter, Count, "batchsql_isolations_total", ["database", "table"],
        "Rejected batches that were split to find their bad rows";
    QueueWait: Histogram, Seconds, "batchsql_queue_wait_seconds", ["database", "table"],
        "Time from the first row of a batch to the start of its write";
    EnqueueWait: Histogram, Seconds, "batchsql_enqueue_wait_seconds", ["database"],
        "Time that submits waited for capacity when the buffer was full";
    TableParks: Counter, Count, "batchsql_table_parks_total", ["database", "table", "reason"],
        "Times a table was parked, by class of error schema, permission, row or internal";
    BatchAssemble: Histogram, Seconds, "batchsql_batch_assemble_seconds", ["database", "table"],
        "Time to prepare a batch for its statement";

    // The state of a pipeline.
    BufferRecords: Gauge, Count, "batchsql_buffer_records", ["database"],
        "Rows in the buffer: waiting or being written";
    BufferRecordsLimit: Gauge, Count, "batchsql_buffer_records_limit", ["database"],
        "Capacity of the buffer in rows; when it is full, submits wait";
    BufferBytes: Gauge, Bytes, "batchsql_buffer_bytes", ["database"],
        "Bytes of the rows in the buffer";
    BufferBytesLimit: Gauge, Bytes, "batchsql_buffer_bytes_limit", ["database"],
        "Capacity of the buffer in bytes; when it is full, submits wait";
    InflightBatches: Gauge, Count, "batchsql_inflight_batches", ["database"],
        "Batches being written";
    ConcurrencyLimit: Gauge, Count, "batchsql_concurrency_limit", ["database"],
        "Batches that may be written at the same time";
    ParkedTables: Gauge, Count, "batchsql_parked_tables", ["database"],
        "Tables that cannot be written at present; their rows wait";
    TableParkedSince: Gauge, Seconds, "batchsql_table_parked_since_timestamp_seconds", ["database", "table"],
        "Unix time since which a table cannot be written; 0 while it can";
    DatabaseUp: Gauge, Count, "batchsql_database_up", ["database"],
        "1 if the last request for a connection succeeded, 0 if it failed; no series before the first request";
    PoolConnections: Gauge, Count, "batchsql_pool_connections", ["database", "state"],
        "Connections of the sink's pool, by state in_use, idle or max (the limit)";
    OldestBufferedRecord: Gauge, Seconds, "batchsql_oldest_buffered_record_timestamp_seconds", ["database"],
        "Unix time at which the oldest waiting row was submitted; 0 if no row waits";
    LastSuccess: Gauge, Seconds, "batchsql_last_success_timestamp_seconds", ["database"],
        "Unix time of the last committed batch; 0 before the first";

    // A durable intake; no series without one.
    DurableLogBytes: Gauge, Bytes, "batchsql_durable_log_bytes", ["database"],
        "Bytes of the log of the durable intake on disk";
    DurableLogBytesLimit: Gauge, Bytes, "batchsql_durable_log_bytes_limit", ["database"],
        "The most bytes that the log may have";
    DurableLogFull: Gauge, Count, "batchsql_durable_log_full", ["database"],
        "1 while the log accepts no rows: its limit is reached, or the disk is full or fails; otherwise 0";
    DurableUnsettledRecords: Gauge, Count, "batchsql_durable_unsettled_records", ["database", "table"],
        "Rows in the log that have not ended";
    DurableReadRecords: Gauge, Count, "batchsql_durable_read_records", ["database", "table"],
        "Rows of these that were read from the log: they wait for the database or for earlier rows";
    DurableOldestUnsettledRecord: Gauge, Seconds, "batchsql_durable_oldest_unsettled_record_timestamp_seconds",
        ["database"],
        "Unix time at which the oldest row that has not ended was stored; 0 if every row has ended";
    DurableStoppedPartitions: Gauge, Count, "batchsql_durable_stopped_partitions", ["database", "table"],
        "Partitions that do not go on without a person; their rows stay in the log";
    DurableWaitingPartitions: Gauge, Count, "batchsql_durable_waiting_partitions", ["database", "table"],
        "Partitions that cannot be written now, and try again by themselves; their rows stay in the log";
    DurableSync: Histogram, Seconds, "batchsql_durable_sync_seconds", ["database"],
        "Time of one sync of the log to disk";
    DurableAcknowledgedRecords: Counter, Count, "batchsql_durable_acknowledged_records_total", ["database"],
        "Rows that were stored in the log and acknowledged";
    DurableAcknowledgedBlocks: Counter, Count, "batchsql_durable_acknowledged_blocks_total", ["database"],
        "Blocks in which these rows were stored";
    DurableAcknowledgedBytes: Counter, Bytes, "batchsql_durable_acknowledged_bytes_total", ["database"],
        "Bytes of these blocks, without headers";
    DurableDiskFailures: Counter, Count, "batchsql_durable_disk_failures_total", ["database"],
        "Writes and syncs of the log that failed";
    DurableQuarantinedParts: Counter, Count, "batchsql_durable_quarantined_parts_total", ["database"],
        "Damaged parts that were found in the log, at the start and later";
    DurableQuarantinedBytes: Counter, Bytes, "batchsql_durable_quarantined_bytes_total", ["database"],
        "Bytes of these parts";
    DurableMissingRecords: Counter, Count, "batchsql_durable_missing_records_total", ["database"],
        "Rows that were missing in the log and accepted as lost";
    DurableWrittenAgain: Counter, Count, "batchsql_durable_written_again_records_total", ["database"],
        "Rows that were written again because their outcome was not known, with later rows of their keys";
    DurableDeadLetters: Counter, Count, "batchsql_durable_dead_letters_total", ["database"],
        "Rejected rows that were added to the dead-letter file of the durable intake";
    DurableRecoveredRecords: Gauge, Count, "batchsql_durable_recovered_records", ["database"],
        "Rows from before the start that had not ended then";
    DurableRecovery: Gauge, Seconds, "batchsql_durable_recovery_seconds", ["database"],
        "How long the start took to open and read the log";

    // Feeds of a source, for example workers on a stream; no series without one.
    FeedSourceUp: Gauge, Count, "batchsql_feed_source_up", ["database"],
        "1 if the source of the feeds (the stream) has answered the last request, otherwise 0";
    FeedStrayMessages: Gauge, Count, "batchsql_feed_stray_messages", ["database"],
        "Messages of the stream that are of no partition, so that no process reads them; every process reports the same";
    FeedUnsettledMessages: Gauge, Count, "batchsql_feed_unsettled_messages", ["database", "table"],
        "Messages between the position and the end of the stream";
    FeedPendingMessages: Gauge, Count, "batchsql_feed_pending_messages", ["database", "table"],
        "Messages of these that were not delivered yet";
    FeedOldestUnsettledMessage: Gauge, Seconds, "batchsql_feed_oldest_unsettled_message_timestamp_seconds",
        ["database", "table"],
        "Unix time at which the oldest message that is not settled was stored; 0 if there is none";
    FeedWantedPartitions: Gauge, Count, "batchsql_feed_wanted_partitions", ["database", "table"],
        "Partitions that the process is to feed";
    FeedHeldPartitions: Gauge, Count, "batchsql_feed_held_partitions", ["database", "table"],
        "Partitions that the process has claimed, or reads together with others";
    FeedUnheldPartitions: Gauge, Count, "batchsql_feed_unheld_partitions", ["database", "table"],
        "Partitions that no process has; every process reports the same";
    FeedWaitingPartitions: Gauge, Count, "batchsql_feed_waiting_partitions", ["database", "table"],
        "Partitions that cannot be written now, and try again by themselves";
    FeedStoppedPartitions: Gauge, Count, "batchsql_feed_stopped_partitions", ["database", "table", "reason"],
        "Partitions that do not go on without a person, by reason; their rows stay in the stream";
    FeedReadRecords: Counter, Count, "batchsql_feed_read_records_total", ["database", "table"],
        "Rows that were read from the source";
    FeedWrittenRecords: Counter, Count, "batchsql_feed_written_records_total", ["database", "table"],
        "Rows that have ended as written, ignored or superseded, and were settled";
    FeedWrittenAgain: Counter, Count, "batchsql_feed_written_again_records_total", ["database", "table"],
        "Rows that were written again because their outcome was not known, with later rows of their keys";
    FeedMissingRecords: Counter, Count, "batchsql_feed_missing_records_total", ["database", "table"],
        "Rows or messages that were missing in the source and accepted as lost";
    FeedDeadLetters: Counter, Count, "batchsql_feed_dead_letters_total", ["database", "table"],
        "Rejected rows that were added to the dead-letter file of the feeds";
    FeedTakeovers: Counter, Count, "batchsql_feed_takeovers_total", ["database", "table"],
        "Partitions that were taken over because the lease of another process had ended";
    FeedFences: Counter, Count, "batchsql_feed_fences_total", ["database", "table"],
        "Partitions that another process has claimed while this one had them";
    FeedRedeliveredMessages: Counter, Count, "batchsql_feed_redelivered_messages_total", ["database", "table"],
        "Messages that were delivered again and dropped";
    FeedForeignMessages: Counter, Count, "batchsql_feed_foreign_messages_total", ["database", "table"],
        "Messages of another format that were written to their file";

    // The process and its tests.
    MemoryUsageBytes: Gauge, Bytes, "batchsql_memory_usage_bytes", ["database", "test_case", "type"],
        "Memory in bytes, by type alloc, total_alloc, sys or current";
    TestLastCompletion: Gauge, Seconds, "batchsql_test_last_completion_timestamp_seconds", ["database", "test_case"],
        "Unix time at which the result of the test was recorded";
    BuildInfo: Gauge, Count, "batchsql_build_info", ["version"],
        "Always 1; the label holds the version of BatchSQL";
}

impl Metric {
    /// The upper bounds of its buckets, ascending, without infinity; empty unless it is a histogram.
    pub const fn buckets(self) -> &'static [f64] {
        match self {
            Self::BatchSize => ROWS,
            Self::BatchAssemble => SHORT_SECONDS,
            Self::DurableSync => SYNC_SECONDS,
            _ => match self.kind() {
                MetricKind::Histogram => SECONDS,
                MetricKind::Counter | MetricKind::Gauge => &[],
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        // Required names, although they break the rules.
        let excused = ["batchsql_memory_usage_mb", "batchsql_test_records_total", "batchsql_gc_count"];
        let mut seen = HashSet::new();
        for metric in Metric::ALL {
            let name = metric.name();
            assert!(seen.insert(name), "{name} is there twice");
            assert!(name.starts_with("batchsql_") && !name.contains("__"), "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            if !excused.contains(&name) {
                assert_eq!(name.ends_with("_total"), metric.kind() == MetricKind::Counter, "{name}");
                let unit = name.trim_end_matches("_total").trim_end_matches("_limit");
                assert_eq!(unit.ends_with("_seconds"), metric.unit() == Unit::Seconds, "{name}");
                assert_eq!(unit.ends_with("_bytes"), metric.unit() == Unit::Bytes, "{name}");
            }
        }
    }

    #[test]
    fn help_is_one_line() {
        for metric in Metric::ALL {
            let help = metric.help();
            assert!(!help.is_empty() && !help.contains(['\n', '\\']) && !help.ends_with('.'), "{help:?}");
        }
    }

    #[test]
    fn buckets_belong_to_histograms_and_ascend() {
        for metric in Metric::ALL {
            let buckets = metric.buckets();
            assert_eq!(buckets.is_empty(), metric.kind() != MetricKind::Histogram, "{}", metric.name());
            assert!(buckets.is_sorted_by(|a, b| a < b), "{}", metric.name());
        }
    }
}
