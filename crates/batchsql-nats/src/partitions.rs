//! Owns the partitions that a worker feeds: which ones there are, their start and end, and what may be trimmed.
//! Must not know which of them the worker should have.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use batchsql_core::TableName;
use batchsql_feed::{Feeds, PartitionState, quoted_table};
use futures_util::StreamExt as _;
use tokio::time::Instant;

use crate::link::Link;
use crate::reached::Reached;
use crate::source::{Guarantee, NatsSource, message_of};
use crate::subject::Subjects;

/// A table, quoted, and the number of a partition.
pub(crate) type Name = (String, u32);

/// How long what a partition has under way may take when it ends, without leases.
const LONGEST_END: Duration = Duration::from_secs(10);

/// The partitions of a worker.
#[derive(Debug)]
pub(crate) struct Partitions {
    pub(crate) link: Arc<Link>,
    subjects: Subjects,
    number: u32,
    /// `namespace.table`; `None` for all.
    tables: Option<Vec<String>>,
    pub(crate) feeds: Feeds<NatsSource>,
    guarantee: Guarantee,
    keep_for: Option<Duration>,
    /// How long what a partition has under way may take when the partition ends.
    end: Duration,
    known: Mutex<BTreeMap<String, TableName>>,
    running: Mutex<BTreeMap<Name, Running>>,
}

/// One partition that is fed.
#[derive(Debug)]
struct Running {
    subject: String,
    state: Arc<PartitionState>,
    reached: Arc<Reached>,
    /// What was settled when, while it is kept.
    kept: VecDeque<(Instant, u64)>,
    trimmed: u64,
}

/// A partition as its worker sees it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PartitionStats {
    /// The table, quoted: `"events"`, `"audit"."events"`.
    pub table: String,
    /// The number of the partition.
    pub partition: u32,
    /// All messages up to this sequence of the stream are written.
    pub written: u64,
    /// The last message of the stream minus `written`. Messages of other partitions are between.
    pub behind: u64,
    /// Messages of the partition that were not delivered yet, when the last one was.
    pub pending: u64,
    /// When the oldest message was published that was read and is not written.
    pub oldest: Option<SystemTime>,
}

impl Partitions {
    pub(crate) fn new(
        link: Arc<Link>,
        subjects: Subjects,
        number: u32,
        tables: Option<Vec<String>>,
        feeds: Feeds<NatsSource>,
        guarantee: Guarantee,
        keep_for: Option<Duration>,
    ) -> Self {
        // Leases must be renewed meanwhile.
        let end = match &guarantee {
            Guarantee::ExactlyOnce { lease, .. } => *lease / 3,
            Guarantee::AtLeastOnce => LONGEST_END,
        };
        Self {
            link,
            subjects,
            number,
            tables,
            feeds,
            guarantee,
            keep_for,
            end,
            known: Mutex::default(),
            running: Mutex::default(),
        }
    }

    /// Looks which tables the stream has. A table stays known when its messages are gone.
    ///
    /// # Errors
    /// The server does not answer.
    pub(crate) async fn look_for_tables(&self) -> Result<(), String> {
        let filter = self.subjects.all();
        let mut subjects = self.link.stream.info_with_subjects(filter).await.map_err(|error| error.to_string())?;
        while let Some(subject) = subjects.next().await {
            let (subject, _) = subject.map_err(|error| error.to_string())?;
            let Some((table, _)) = self.subjects.parse(&subject) else {
                continue;
            };
            if self.is_meant(&table) {
                lock(&self.known).entry(quoted_table(&table)).or_insert(table);
            }
        }
        Ok(())
    }

    /// Whether it is one of the tables of this worker.
    pub(crate) fn is_meant(&self, table: &TableName) -> bool {
        self.tables.as_ref().is_none_or(|tables| tables.contains(&table.to_string()))
    }

    /// All partitions of all tables, in the same order for all workers.
    pub(crate) fn all(&self) -> Vec<Name> {
        let known = lock(&self.known);
        known.keys().flat_map(|table| (0..self.number).map(|partition| (table.clone(), partition))).collect()
    }

    /// Feeds a partition from now on, unless it is fed already.
    pub(crate) fn start(&self, name: &Name) {
        let Some(table) = lock(&self.known).get(&name.0).cloned() else { return };
        let mut running = lock(&self.running);
        if running.contains_key(name) {
            return;
        }
        let subject = self.subjects.of(&table, name.1);
        let (state, reached) = (Arc::new(PartitionState::new(&*name.0, name.1, 0)), Arc::default());
        let source = NatsSource::new(
            Arc::clone(&self.link),
            subject.clone(),
            table,
            self.guarantee.clone(),
            Arc::clone(&reached),
        );
        match self.feeds.start(Arc::clone(&state), source) {
            Ok(()) => {
                let kept = VecDeque::new();
                running.insert(name.clone(), Running { subject, state, reached, kept, trimmed: 0 });
            }
            Err(error) => tracing::warn!(%error, table = name.0, partition = name.1, "a partition was not started"),
        }
    }

    /// Ends a partition. What is under way may end before.
    pub(crate) async fn stop(&self, name: &Name) {
        self.stop_within(name, self.end).await;
    }

    /// The same; what is under way has until the limit to end.
    pub(crate) async fn stop_within(&self, name: &Name, limit: Duration) {
        let is_stopped = self.stopped().contains(name);
        let source = self.feeds.stop(&name.0, name.1, limit).await;
        if !is_stopped {
            self.trim_where(|other| other == name).await;
        }
        lock(&self.running).remove(name);
        if let Some(source) = source {
            source.give_back().await;
        }
    }

    /// Those that are fed.
    pub(crate) fn running(&self) -> Vec<Name> {
        lock(&self.running).keys().cloned().collect()
    }

    /// Those of which another worker has been found to be the owner.
    pub(crate) fn lost(&self) -> Vec<Name> {
        let running = lock(&self.running);
        running.iter().filter(|(_, running)| running.reached.is_lost()).map(|(name, _)| name.clone()).collect()
    }

    /// Whether another worker has been found to be the owner.
    pub(crate) fn is_lost(&self, table: &str, partition: u32) -> bool {
        lock(&self.running).get(&(table.to_owned(), partition)).is_some_and(|running| running.reached.is_lost())
    }

    pub(crate) fn stats(&self, end: u64) -> Vec<PartitionStats> {
        let running = lock(&self.running);
        let stats = running.iter().map(|((table, partition), Running { state, reached, .. })| {
            let written = message_of(state.settled());
            PartitionStats {
                table: table.clone(),
                partition: *partition,
                written,
                behind: end.saturating_sub(written),
                pending: reached.pending(),
                oldest: (state.read() > state.settled()).then(|| state.oldest()),
            }
        });
        stats.collect()
    }

    /// Removes messages that were written `keep_for` ago.
    pub(crate) async fn trim(&self) {
        let stopped = self.stopped();
        self.trim_where(|name| !stopped.contains(name)).await;
    }

    /// Those that do not go on. Their numbers may be of a stream that was made anew, or restored from a backup.
    fn stopped(&self) -> BTreeSet<Name> {
        self.feeds.stopped().into_iter().map(|stopped| (stopped.table, stopped.partition)).collect()
    }

    async fn trim_where(&self, is_meant: impl Fn(&Name) -> bool) {
        let Some(keep_for) = self.keep_for else { return };
        let now = Instant::now();
        let due: Vec<(Name, String, u64)> = {
            let mut running = lock(&self.running);
            let due = running.iter_mut().filter(|(name, _)| is_meant(name)).filter_map(|(name, running)| {
                let below = running.due(now, keep_for)?;
                Some((name.clone(), running.subject.clone(), below))
            });
            due.collect()
        };
        for (name, subject, below) in due {
            match self.link.trim(&subject, below).await {
                Ok(_) => {
                    if let Some(running) = lock(&self.running).get_mut(&name) {
                        running.trimmed = below;
                    }
                }
                Err(error) => tracing::warn!(error, subject, "written messages cannot be removed; trying again"),
            }
        }
    }
}

impl Running {
    /// Below which message may be removed, if that is more than before. The settled message itself stays.
    fn due(&mut self, now: Instant, keep_for: Duration) -> Option<u64> {
        let settled = self.reached.settled();
        // A hundred marks, however long messages are kept.
        let is_new = self.kept.back().is_none_or(|(time, mark)| *mark < settled && now - *time >= keep_for / 100);
        if is_new && settled > self.trimmed {
            self.kept.push_back((now, settled));
        }
        let mut below = None;
        while let Some((time, mark)) = self.kept.front()
            && now - *time >= keep_for
        {
            below = Some(*mark);
            self.kept.pop_front();
        }
        below.filter(|below| *below > self.trimmed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn messages_are_removed_when_they_were_kept_long_enough() {
        let reached = Arc::new(Reached::default());
        let mut running = Running {
            subject: "s".to_owned(),
            state: Arc::new(PartitionState::new("t", 0, 0)),
            reached: Arc::clone(&reached),
            kept: VecDeque::new(),
            trimmed: 0,
        };
        let keep = Duration::from_secs(100);
        assert_eq!(running.due(Instant::now(), keep), None);
        reached.settle(5);
        assert_eq!(running.due(Instant::now(), keep), None);
        tokio::time::advance(Duration::from_secs(50)).await;
        reached.settle(9);
        assert_eq!(running.due(Instant::now(), keep), None);
        tokio::time::advance(Duration::from_secs(50)).await;
        assert_eq!(running.due(Instant::now(), keep), Some(5));
        running.trimmed = 5;
        tokio::time::advance(Duration::from_secs(50)).await;
        assert_eq!(running.due(Instant::now(), keep), Some(9));
        running.trimmed = 9;
        tokio::time::advance(Duration::from_secs(500)).await;
        assert_eq!(running.due(Instant::now(), keep), None);
        // Without a time to keep them, at once.
        reached.settle(12);
        assert_eq!(running.due(Instant::now(), Duration::ZERO), Some(12));
    }
}
