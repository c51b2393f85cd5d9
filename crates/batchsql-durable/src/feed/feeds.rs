//! Owns the partitions that have rows, and a task for each.
//! Must not know what the tasks do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use batchsql_log::TableId;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::feed::context::{Context, Stream};
use crate::feed::{exactly, stream};
use crate::health::StoppedPartition;

/// The partitions that have or had rows.
#[derive(Debug)]
pub(crate) struct Feeds {
    pub(crate) context: Arc<Context>,
    runtime: Handle,
    streams: Mutex<HashMap<(TableId, u32), Arc<Stream>>>,
    names: Mutex<HashMap<TableId, String>>,
    /// Of partitions without rows at the start.
    ended: Mutex<HashMap<(TableId, u32), u64>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Feeds {
    pub(crate) fn new(context: Arc<Context>, runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            context,
            runtime,
            streams: Mutex::default(),
            names: Mutex::default(),
            ended: Mutex::default(),
            tasks: Mutex::default(),
        })
    }

    /// The name of a table, for reports.
    pub(crate) fn name_table(&self, table: TableId, name: &str) {
        lock(&self.names).entry(table).or_insert_with(|| name.to_owned());
    }

    /// Rows of a partition are in the log, from `first` to `last`.
    pub(crate) fn appended(&self, table: TableId, partition: u32, first: u64, last: u64) {
        let ended = || lock(&self.ended).get(&(table, partition)).copied().unwrap_or(0);
        self.stream(table, partition, |stream| stream.begin_at(first, ended())).append(last);
    }

    /// All rows of a partition had ended when the log was opened, up to this one.
    pub(crate) fn had_ended(&self, table: TableId, partition: u32, last: u64) {
        lock(&self.ended).insert((table, partition), last);
    }

    /// Rows behind `settled` were in the log before the start, up to `last`, and none of them before `oldest`.
    pub(crate) fn resume(&self, table: TableId, partition: u32, settled: u64, last: u64, oldest: SystemTime) {
        self.stream(table, partition, |stream| stream.resume(settled, last, oldest));
    }

    /// The partition, which gets its task with its first rows. A new one is prepared before its task runs.
    fn stream(&self, table: TableId, partition: u32, prepare: impl FnOnce(&Stream)) -> Arc<Stream> {
        let mut streams = lock(&self.streams);
        if let Some(stream) = streams.get(&(table, partition)) {
            return Arc::clone(stream);
        }
        let name = lock(&self.names).get(&table).cloned().unwrap_or_default();
        let stream = Stream::new(table, name, partition);
        prepare(&stream);
        let stream = Arc::new(stream);
        streams.insert((table, partition), Arc::clone(&stream));
        drop(streams);
        let (context, of_task) = (Arc::clone(&self.context), Arc::clone(&stream));
        let mut tasks = lock(&self.tasks);
        match &self.context.exactly_once {
            None => tasks.spawn_on(stream::run(context, of_task), &self.runtime),
            Some(shared) => tasks.spawn_on(exactly::run(context, of_task, Arc::clone(shared)), &self.runtime),
        };
        drop(tasks);
        stream
    }

    pub(crate) fn all(&self) -> Vec<Arc<Stream>> {
        lock(&self.streams).values().cloned().collect()
    }

    /// When the oldest row that is not settled was stored.
    pub(crate) fn oldest_unsettled(&self) -> Option<SystemTime> {
        self.all().iter().filter_map(|stream| stream.oldest_unsettled()).min()
    }

    pub(crate) fn stopped(&self) -> Vec<StoppedPartition> {
        sorted(self.all().iter().filter_map(|stream| stream.stopped()).collect())
    }

    /// Partitions that try again by themselves.
    pub(crate) fn waiting(&self) -> Vec<StoppedPartition> {
        sorted(self.all().iter().filter_map(|stream| stream.waiting()).collect())
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

fn sorted(mut partitions: Vec<StoppedPartition>) -> Vec<StoppedPartition> {
    partitions.sort_unstable_by(|a, b| (&a.table, a.partition).cmp(&(&b.table, b.partition)));
    partitions
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
