//! Owns what all feeds use, and how far each partition is.
//! Must not know the tasks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use batchsql_core::BatchSql;
use batchsql_log::{Log, TableId};
use tokio::sync::watch;

use crate::feed::letters::Letters;
use crate::health::StoppedPartition;
use crate::key::OrderedTables;
use crate::schemas::Schemas;

/// What all feeds use.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) log: Log,
    pub(crate) pipeline: BatchSql,
    pub(crate) schemas: Arc<Schemas>,
    pub(crate) letters: Arc<Letters>,
    /// The folder of the log, in the ids of dead letters.
    pub(crate) source: String,
    pub(crate) ordered: OrderedTables,
    pub(crate) accepts_gaps: bool,
    /// For tests.
    pub(crate) settles_early: bool,
    pub(crate) counts: Counts,
    /// Changes whenever a partition has settled rows or stopped.
    pub(crate) progress: watch::Sender<()>,
    /// True when the pipeline is closed: feeds take the last outcomes, and end.
    pub(crate) is_ending: watch::Sender<bool>,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) written_again: AtomicU64,
    pub(crate) missing: AtomicU64,
    pub(crate) dead_letters: AtomicU64,
}

impl Counts {
    pub(crate) fn add(count: &AtomicU64, rows: usize) {
        count.fetch_add(rows as u64, Ordering::Relaxed);
    }
}

/// How far one partition is.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) table: TableId,
    pub(crate) table_name: String,
    pub(crate) partition: u32,
    /// The last row that is in the log.
    pub(crate) appended: watch::Sender<u64>,
    /// All rows up to this one have ended.
    pub(crate) settled: AtomicU64,
    /// Why it does not go on.
    stopped: Mutex<Option<String>>,
}

impl Stream {
    /// All rows up to `settled` have ended, and no others are known yet.
    pub(crate) fn new(table: TableId, table_name: String, partition: u32, settled: u64) -> Self {
        let appended = watch::Sender::new(settled);
        Self { table, table_name, partition, appended, settled: AtomicU64::new(settled), stopped: Mutex::default() }
    }

    pub(crate) fn settled(&self) -> u64 {
        self.settled.load(Ordering::Acquire)
    }

    pub(crate) fn stop(&self, reason: Option<String>) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    pub(crate) fn stopped(&self) -> Option<StoppedPartition> {
        let reason = self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(StoppedPartition { table: self.table_name.clone(), partition: self.partition, reason })
    }
}
