//! Owns the partitions that have rows, and a task for each.
//! Must not know what the tasks do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use batchsql_log::TableId;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::feed::context::{Context, Stream};
use crate::feed::stream;
use crate::health::StoppedPartition;

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
        let name = lock(&self.names).get(&table).cloned().unwrap_or_default();
        let stream = Arc::new(Stream::new(table, name, partition, settled));
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
