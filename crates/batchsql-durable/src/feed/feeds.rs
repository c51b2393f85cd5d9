//! Owns the partitions that have rows: their progress, and a task for each.
//! Must not know what the tasks do.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use batchsql_core::BatchSql;
use batchsql_log::{Log, TableId};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::feed::letters::Letters;
use crate::feed::stream;
use crate::health::StoppedPartition;
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
    pub(crate) is_per_table: bool,
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

/// The partitions that have or had rows.
#[derive(Debug)]
pub(crate) struct Feeds {
    pub(crate) context: Arc<Context>,
    runtime: Handle,
    streams: Mutex<HashMap<(TableId, u32), Arc<Stream>>>,
    names: Mutex<HashMap<TableId, String>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Feeds {
    pub(crate) fn new(context: Arc<Context>, runtime: Handle) -> Arc<Self> {
        Arc::new(Self { context, runtime, streams: Mutex::default(), names: Mutex::default(), tasks: Mutex::default() })
    }

    /// The name of a table, for reports.
    pub(crate) fn name_table(&self, table: TableId, name: &str) {
        lock(&self.names).entry(table).or_insert_with(|| name.to_owned());
    }

    /// Rows of a partition are in the log, up to `last`.
    pub(crate) fn appended(&self, table: TableId, partition: u32, last: u64) {
        let stream = self.stream(table, partition, 0);
        stream.appended.send_if_modified(|appended| {
            let is_later = last > *appended;
            *appended = last.max(*appended);
            is_later
        });
    }

    /// The partition, which gets its task with its first rows. `settled` is for a new one.
    pub(crate) fn stream(&self, table: TableId, partition: u32, settled: u64) -> Arc<Stream> {
        let mut streams = lock(&self.streams);
        if let Some(stream) = streams.get(&(table, partition)) {
            return Arc::clone(stream);
        }
        let stream = Arc::new(Stream {
            table,
            table_name: lock(&self.names).get(&table).cloned().unwrap_or_default(),
            partition,
            appended: watch::Sender::new(settled),
            settled: AtomicU64::new(settled),
            stopped: Mutex::default(),
        });
        streams.insert((table, partition), Arc::clone(&stream));
        drop(streams);
        let task = stream::run(Arc::clone(&self.context), Arc::clone(&stream));
        lock(&self.tasks).spawn_on(task, &self.runtime);
        stream
    }

    pub(crate) fn all(&self) -> Vec<Arc<Stream>> {
        lock(&self.streams).values().cloned().collect()
    }

    pub(crate) fn stopped(&self) -> Vec<StoppedPartition> {
        let mut stopped: Vec<_> = self.all().iter().filter_map(|stream| stream.stopped()).collect();
        stopped.sort_unstable_by(|a, b| (&a.table, a.partition).cmp(&(&b.table, b.partition)));
        stopped
    }

    /// Ends all tasks, after the pipeline was closed.
    pub(crate) async fn end(&self) {
        self.context.is_ending.send_replace(true);
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "the feed of a partition has ended early; its rows stay in the log");
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
