//! Owns the events that a durable intake reports to the observers of its pipeline.
//! Must not know observers, metric names, or how rows are stored.

use std::time::{Duration, SystemTime};

/// The state of a durable intake at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DurableGauges {
    /// Bytes of the log on disk.
    pub log_bytes: u64,
    /// The limit of `log_bytes`.
    pub log_bytes_limit: u64,
    /// No row is accepted: the limit is reached, or the disk is full or fails.
    pub log_is_full: bool,
    /// When the oldest row that has not ended was stored; `None` when every row has ended. Just after a start, until that row
    /// is read from the log, it may be too early.
    pub oldest_unsettled: Option<SystemTime>,
    /// Rows from before the start that had not ended then.
    pub recovered_rows: u64,
    /// How long the start took to open and read the log.
    pub recovery: Duration,
    /// The tables that have or had rows in the log, by name, each once.
    pub tables: Vec<DurableTable>,
}

/// One table of [`DurableGauges`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DurableTable {
    /// `namespace.table`.
    pub table: String,
    /// Rows in the log that have not ended.
    pub unsettled_rows: u64,
    /// Of these, rows that were read from the log: they wait for the database or for earlier rows.
    pub read_rows: u64,
    /// Partitions that do not go on without a person.
    pub stopped_partitions: u64,
    /// Partitions that cannot be written now, and try again by themselves.
    pub waiting_partitions: u64,
}

/// What a durable intake has done since the last report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DurableProgress {
    /// Rows that were stored and acknowledged.
    pub rows: u64,
    /// The blocks that they were stored in.
    pub blocks: u64,
    /// Bytes of these blocks, without headers.
    pub bytes: u64,
    /// Writes and syncs of the disk that failed.
    pub disk_failures: u64,
    /// Damaged parts that were found in the log.
    pub quarantined_parts: u64,
    /// Bytes of these parts.
    pub quarantined_bytes: u64,
    /// Rows that were missing in the log, and were accepted as lost.
    pub missing_rows: u64,
    /// Rows that were written again because their outcome was not known, with later rows of their keys.
    pub written_again: u64,
    /// Rejected rows that were added to the dead-letter file.
    pub dead_letters: u64,
}
