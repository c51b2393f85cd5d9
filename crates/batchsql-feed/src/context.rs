//! Owns what all partitions of a source use.
//! Must not know the tasks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use batchsql_core::BatchSql;
use tokio::sync::{Semaphore, watch};

use crate::options::FeedOptions;

/// What all partitions use.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) pipeline: BatchSql,
    pub(crate) options: FeedOptions,
    /// By table, quoted.
    counts: Mutex<BTreeMap<String, Arc<Counts>>>,
    /// Changes whenever a partition has settled rows or stopped.
    pub(crate) progress: watch::Sender<()>,
    /// Steps that are under way at once.
    pub(crate) steps: Semaphore,
    /// Claims that are under way at once. They do not wait for steps: a claim may end the session that steps wait for.
    pub(crate) claims: Semaphore,
    /// Bytes of rows that wait in partitions which are written exactly once.
    waiting: AtomicUsize,
}

impl Context {
    pub(crate) fn new(pipeline: BatchSql, options: FeedOptions) -> Self {
        // One connection is left for claims, where there are more than two.
        let connections = pipeline.max_steps().min(Semaphore::MAX_PERMITS);
        let steps = Semaphore::new(if connections > 2 { connections - 1 } else { connections });
        let (counts, progress) = (Mutex::default(), watch::Sender::new(()));
        Self { pipeline, options, counts, progress, steps, claims: Semaphore::new(1), waiting: AtomicUsize::new(0) }
    }

    /// Half of the buffer is for rows that wait exactly once, the other half for the steps, which copy them.
    fn half_of_buffer(&self) -> usize {
        (self.pipeline.config().buffer_bytes / 2).max(1)
    }

    /// Bytes of the rows that a step takes, but for one row that has more.
    pub(crate) fn step_bytes(&self) -> usize {
        self.half_of_buffer().div_ceil(self.pipeline.max_steps().max(1))
    }

    /// Whether the partitions together hold as many bytes as may wait.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= self.half_of_buffer()
    }

    /// So many bytes wait in a partition now, where there were `before`.
    pub(crate) fn waits(&self, before: usize, now: usize) {
        if now >= before {
            self.waiting.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.waiting.fetch_sub(before - now, Ordering::Relaxed);
        }
    }

    /// The counts of a table, which all of its partitions share.
    pub(crate) fn counts_of(&self, table: &str) -> Arc<Counts> {
        let mut counts = self.counts();
        if let Some(known) = counts.get(table) {
            return Arc::clone(known);
        }
        Arc::clone(counts.entry(table.to_owned()).or_default())
    }

    /// The counts of all tables that were fed since the start.
    pub(crate) fn counts(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Counts>>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts of a table since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) read: Count,
    pub(crate) written: Count,
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

/// Whether the task of a partition goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    No,
    /// What is under way is finished, and nothing is begun.
    Finish,
    /// The pipeline is closed: nothing is waited for.
    Now,
}
