//! Owns what the durable intake shows of itself: stopped partitions, counts, what a close leaves.
//! Must not know how it is found out.

use std::fmt;
use std::time::{Duration, SystemTime};

use batchsql_core::{Balance, CloseReport, Health};
use batchsql_feed::StoppedPartition;
use batchsql_log::LogStats;

/// What is known at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DurableHealth {
    /// The database and its tables.
    pub pipeline: Health,
    /// Partitions that do not go on without a person.
    pub stopped: Vec<StoppedPartition>,
    /// Partitions that cannot be written now, and try again by themselves: their dead-letter file cannot be written, or the log
    /// not be read; exactly once, also because their table refuses all rows, or their rows were tried several times.
    pub waiting: Vec<StoppedPartition>,
    /// The setting of the database with which its crash may lose written rows, and what to do; such rows are no longer in the
    /// log. `None`: there is none, it is not known yet, or rows are written exactly once, which such a setting stops.
    pub lossy_setting: Option<String>,
    /// The log accepts no rows: its disk budget is used, or the disk is full or fails.
    pub log_is_full: bool,
}

impl DurableHealth {
    /// Whether rows are accepted, whatever the state of the database is. For readiness probes of producers.
    pub fn accepts_rows(&self) -> bool {
        !self.log_is_full
    }

    /// Whether rows are accepted and written, as far as is known.
    pub fn is_ready(&self) -> bool {
        self.accepts_rows() && self.stopped.is_empty() && self.waiting.is_empty() && self.pipeline.is_ready()
    }
}

/// Counts since the start.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DurableStats {
    /// The log: bytes, rows that have not ended, syncs.
    pub log: LogStats,
    /// Rows that were read from the log, and their outcomes. A row that is written again counts again.
    pub balance: Balance,
    /// When the oldest row that has not ended was stored: the time of its block. `None` if every row has ended. Just after a
    /// start, until that row is read from the log, it may be too early.
    pub oldest_unsettled: Option<SystemTime>,
    /// Rows that were stored and acknowledged since the start.
    pub acknowledged: u64,
    /// Rows that were written again because their outcome was not known, with later rows of their keys.
    pub written_again: u64,
    /// Rows that were missing in the log, and were accepted as lost.
    pub missing: u64,
    /// Rows in the dead-letter file since the start.
    pub dead_letters: u64,
}

/// What a start has found in the folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// Rows from before the start that have not ended. They are written now.
    pub rows: u64,
    /// The last process closed the log; otherwise all files were read.
    pub is_clean: bool,
    /// Bytes of a record that was being written when the process ended. None of its rows was acknowledged, unless something has cut
    /// the file since then. Below what the last close had, such a cut counts in `damaged_parts` and `missing`.
    pub torn_bytes: u64,
    /// Damaged parts of files, which are kept in `log/quarantine`. With [`SyncPolicy`](batchsql_log::SyncPolicy)
    /// `Always` none of them may be there.
    pub damaged_parts: u64,
    /// Rows that are missing.
    pub missing: u64,
}

/// The result of `close`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DurableCloseReport {
    /// The report of the pipeline. Rows in it that were purged, among them those of tables that were parked, or that are unknown
    /// are still in the log.
    pub pipeline: CloseReport,
    /// Rows that the next start writes: they have not ended, or they keep an order with an earlier row that has not.
    pub left_in_log: u64,
    /// Why the log could not be closed cleanly. The next start reads all that is in its folder; if the folder or a file of it was
    /// removed meanwhile, that start may not notice it, and the rows are lost.
    pub log_error: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// The balance with what is in the log, and the time: `3 accepted, 2 written, 1 purged + 1 in the log; closed in 0.02 s`.
impl fmt::Display for DurableCloseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.pipeline.balance)?;
        if self.left_in_log > 0 {
            write!(f, " + {} in the log", self.left_in_log)?;
        }
        if let Some(error) = &self.log_error {
            write!(f, "; the log was not closed cleanly: {error}")?;
        }
        write!(f, "; closed in {:.2} s", self.took.as_secs_f64())
    }
}

impl DurableCloseReport {
    /// True when no row is left in the log.
    pub fn is_drained(&self) -> bool {
        self.left_in_log == 0
    }
}
