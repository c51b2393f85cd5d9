//! Owns the partitions of the log that have rows, each of which is fed.
//! Must not know what the feeds do.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use batchsql_feed::{Feeds, PartitionState};
use batchsql_log::TableId;

use crate::feed::recent::{Recent, RecentBlock};
use crate::feed::source::{FromLog, LogSource};
use crate::feed::stream::Stream;

/// The partitions that have or had rows.
#[derive(Debug)]
pub(crate) struct Partitions {
    pub(crate) feeds: Feeds<LogSource>,
    from: Arc<FromLog>,
    /// Rows that each partition keeps in memory until its feed takes them.
    recent_bytes: usize,
    streams: Mutex<HashMap<(TableId, u32), Arc<Stream>>>,
    names: Mutex<HashMap<TableId, String>>,
    /// Of partitions without rows at the start.
    ended: Mutex<HashMap<(TableId, u32), u64>>,
}

impl Partitions {
    pub(crate) fn new(feeds: Feeds<LogSource>, from: FromLog, recent_bytes: usize) -> Arc<Self> {
        let (streams, names, ended) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Self { feeds, from: Arc::new(from), recent_bytes, streams, names, ended })
    }

    /// The name of a table, for reports.
    pub(crate) fn name_table(&self, table: TableId, name: &str) {
        lock(&self.names).entry(table).or_insert_with(|| name.to_owned());
    }

    /// Rows of a partition are in the log.
    pub(crate) fn appended(&self, table: TableId, partition: u32, block: RecentBlock) {
        let (first, last) = (block.first, block.last());
        let stream = self.stream(table, partition, |name| {
            let ended = lock(&self.ended).get(&(table, partition)).copied().unwrap_or(0);
            let state = PartitionState::new(name, partition, ended);
            Stream::begin_at(table, state, first, ended, Recent::new(self.recent_bytes))
        });
        stream.recent.push(block);
        stream.append(last);
    }

    /// All rows of a partition had ended when the log was opened, up to this one.
    pub(crate) fn had_ended(&self, table: TableId, partition: u32, last: u64) {
        lock(&self.ended).insert((table, partition), last);
    }

    /// Rows behind `settled` were in the log before the start, up to `last`, and none of them before `oldest`. Those of `behind` have
    /// ended.
    pub(crate) fn resume(
        &self,
        table: TableId,
        partition: u32,
        (settled, behind): (u64, Vec<RangeInclusive<u64>>),
        last: u64,
        oldest: SystemTime,
    ) {
        self.stream(table, partition, |name| {
            let state = PartitionState::new(name, partition, settled);
            state.waits_since(oldest);
            Stream::resume(table, state, last, behind, Recent::new(self.recent_bytes))
        });
    }

    /// The partition, which is fed from its first rows on.
    fn stream(&self, table: TableId, partition: u32, new: impl FnOnce(&str) -> Stream) -> Arc<Stream> {
        let mut streams = lock(&self.streams);
        if let Some(stream) = streams.get(&(table, partition)) {
            return Arc::clone(stream);
        }
        let stream = Arc::new(new(lock(&self.names).get(&table).map_or("", String::as_str)));
        streams.insert((table, partition), Arc::clone(&stream));
        drop(streams);
        let source = LogSource::new(Arc::clone(&self.from), Arc::clone(&stream));
        if let Err(error) = self.feeds.start(Arc::clone(&stream.state), source) {
            // The intake is closed: the next start writes these rows.
            tracing::debug!(%error, "a partition is not fed");
        }
        stream
    }

    pub(crate) fn all(&self) -> Vec<Arc<Stream>> {
        lock(&self.streams).values().cloned().collect()
    }

    /// When the oldest row that is not settled was stored.
    pub(crate) fn oldest_unsettled(&self) -> Option<SystemTime> {
        self.all().iter().filter_map(|stream| stream.oldest_unsettled()).min()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
