//! Owns what all feeds use, and how far each partition is.
//! Must not know the tasks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use batchsql_core::BatchSql;
use batchsql_log::{Log, TableId};
use tokio::sync::watch;

use crate::feed::claimed::ExactlyOnce;
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
    /// `None`: at least once.
    pub(crate) exactly_once: Option<Arc<ExactlyOnce>>,
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
    pub(crate) acknowledged: Count,
    pub(crate) written_again: Count,
    pub(crate) missing: Count,
    pub(crate) dead_letters: Count,
}

/// Rows.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, rows: u64) {
        self.0.fetch_add(rows, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
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
    /// The last row that was read from the log.
    read: AtomicU64,
    /// Rows up to this one had ended before the start. Only counts use it: whether a row is submitted depends on `settled`.
    base: AtomicU64,
    /// When the first row that is not settled was stored, in milliseconds since 1970. Without such a row it says nothing.
    oldest: AtomicU64,
    recovered: AtomicU64,
    /// Why it does not go on without a person.
    stopped: Mutex<Option<String>>,
    /// Why it does not go on now. It tries again.
    waits: Mutex<Option<String>>,
}

impl Stream {
    /// The last row that was in the log before the first one of this process.
    pub(crate) fn recovered(&self) -> u64 {
        self.recovered.load(Ordering::Acquire)
    }

    /// Without rows.
    pub(crate) fn new(table: TableId, table_name: String, partition: u32) -> Self {
        let (appended, settled, read) = (watch::Sender::default(), AtomicU64::default(), AtomicU64::default());
        let (base, oldest, recovered) = (AtomicU64::default(), AtomicU64::default(), AtomicU64::default());
        let stopped = Mutex::default();
        Self {
            table,
            table_name,
            partition,
            appended,
            settled,
            read,
            base,
            oldest,
            recovered,
            stopped,
            waits: Mutex::default(),
        }
    }

    /// Its first row of this process is `first`. When the log was opened, it had rows up to `ended`, and none of them waited.
    pub(crate) fn begin_at(&self, first: u64, ended: u64) {
        self.base.store(first - 1, Ordering::Relaxed);
        self.recovered.store(ended, Ordering::Release);
        self.settled.store(ended, Ordering::Release);
    }

    /// With rows from before the start, none of them before `oldest`.
    pub(crate) fn resume(&self, settled: u64, last: u64, oldest: SystemTime) {
        self.settled.store(settled, Ordering::Release);
        self.recovered.store(last, Ordering::Release);
        self.waits_since(oldest);
        self.appended.send_replace(last);
    }

    /// Rows are in the log, up to `last`.
    pub(crate) fn append(&self, last: u64) {
        self.appended.send_if_modified(|appended| {
            let is_later = last > *appended;
            if is_later && self.settled() >= *appended {
                // Nothing waited, so these rows are the oldest.
                self.waits_since(SystemTime::now());
            }
            *appended = last.max(*appended);
            is_later
        });
    }

    /// When the first row that is not settled was stored.
    pub(crate) fn waits_since(&self, time: SystemTime) {
        let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        self.oldest.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When the first row that is not settled was stored; `None` if all are settled.
    pub(crate) fn oldest_unsettled(&self) -> Option<SystemTime> {
        let waits = self.settled() < *self.appended.borrow();
        waits.then(|| UNIX_EPOCH + Duration::from_millis(self.oldest.load(Ordering::Relaxed)))
    }

    /// The row was read from the log.
    pub(crate) fn has_read(&self, sequence: u64) {
        self.read.fetch_max(sequence, Ordering::Relaxed);
    }

    /// Rows that are in the log and not settled, and how many of them were read.
    pub(crate) fn lag(&self) -> (u64, u64) {
        // What is settled first: it may grow meanwhile, and is never above the others.
        let settled = self.settled().max(self.base.load(Ordering::Relaxed));
        let appended = *self.appended.borrow();
        (appended.saturating_sub(settled), self.read.load(Ordering::Relaxed).saturating_sub(settled))
    }

    pub(crate) fn settled(&self) -> u64 {
        self.settled.load(Ordering::Acquire)
    }

    pub(crate) fn stop(&self, reason: Option<String>) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    pub(crate) fn stopped(&self) -> Option<StoppedPartition> {
        self.with_reason(&self.stopped)
    }

    pub(crate) fn wait(&self, reason: Option<String>) {
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    pub(crate) fn waiting(&self) -> Option<StoppedPartition> {
        self.with_reason(&self.waits)
    }

    fn with_reason(&self, reason: &Mutex<Option<String>>) -> Option<StoppedPartition> {
        let reason = reason.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(StoppedPartition { table: self.table_name.clone(), partition: self.partition, reason })
    }
}
