//! Owns the partitions that a worker feeds: which ones there are, their start and end, how far they are, and what may be trimmed.
//! Must not know which of them the worker should have.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use batchsql_core::TableName;
use batchsql_feed::{Feeds, PartitionState, quoted_table, unquoted_table};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use crate::kept::Kept;
use crate::lag::Lag;
use crate::link::{Link, NoStream};
use crate::reached::{Before, Reached, Waiting};
use crate::source::{Guarantee, NatsSource, message_of};
use crate::stray::{NewStrays, StrayMessages, Strays};
use crate::subject::Subjects;
use crate::tallies::Tallies;

/// A table, quoted, and the number of a partition.
pub(crate) type Name = (String, u32);

/// How long what a partition has under way may take when it ends, without leases.
const LONGEST_END: Duration = Duration::from_secs(10);
/// Longer than any limit.
const NEVER: Duration = Duration::from_secs(2 * 365 * 24 * 60 * 60);
/// Partitions that the server is asked about in one look, the others in the next ones.
const ASKED: usize = 256;
/// Of these, questions at once.
const ASKED_AT_ONCE: usize = 16;
/// For the answers of one look.
const ASKING: Duration = Duration::from_secs(5);

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
    known: Mutex<BTreeMap<String, Table>>,
    /// Those that no worker has, as of the last look at the leases; none if they could not be looked at.
    unheld: Mutex<BTreeSet<Name>>,
    running: Mutex<BTreeMap<Name, Running>>,
    /// Messages of each subject, as of the last look.
    messages: Mutex<HashMap<Name, u64>>,
    /// Messages of no partition, as of the last look.
    strays: Mutex<Strays>,
    /// Where the questions of the next look begin.
    next_asked: AtomicUsize,
}

/// A table that the stream has or had rows of.
#[derive(Debug)]
struct Table {
    name: TableName,
    tallies: Arc<Tallies>,
}

/// A table, as the observers see it.
#[derive(Debug, Clone)]
pub(crate) struct TableStats {
    /// As a pipeline names it.
    pub(crate) shown: String,
    /// The same, quoted.
    pub(crate) table: String,
    pub(crate) tallies: Arc<Tallies>,
    pub(crate) unheld: u64,
}

/// Whether written messages are removed when a partition ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trim {
    Yes,
    /// The server does not answer.
    No,
}

/// One partition that is fed.
#[derive(Debug)]
struct Running {
    subject: String,
    state: Arc<PartitionState>,
    reached: Arc<Reached>,
    lag: Arc<Lag>,
    kept: Kept,
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
    /// Messages of the partition that are not written, as of the last look at the stream or the last message: the distance to its
    /// end.
    pub unsettled: u64,
    /// Of these, messages that were not delivered yet.
    pub pending: u64,
    /// When the oldest message was published that is not written; `None` if there is none, or if it is not known yet.
    pub oldest: Option<SystemTime>,
    /// Whether rows may be written: exactly once, this worker has claimed the partition; at least once, always.
    pub is_held: bool,
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
            unheld: Mutex::default(),
            running: Mutex::default(),
            messages: Mutex::default(),
            strays: Mutex::default(),
            next_asked: AtomicUsize::new(0),
        }
    }

    /// Looks which tables the stream has. A table stays known when its messages are gone.
    ///
    /// # Errors
    /// The server does not answer.
    pub(crate) async fn look_for_tables(&self) -> Result<(), NoStream> {
        let unreachable = |error: &dyn std::error::Error| NoStream::Unreachable(error.to_string());
        let filter = self.subjects.all();
        let mut subjects = self.link.stream.info_with_subjects(filter).await.map_err(|error| unreachable(&error))?;
        let (mut messages, mut strays, mut unnamed) = (HashMap::new(), StrayMessages::default(), 0);
        while let Some(subject) = subjects.next().await {
            let (subject, count) = subject.map_err(|error| unreachable(&error))?;
            let partition = self.subjects.parse(&subject).filter(|(_, partition)| *partition < self.number);
            let Some((name, partition)) = partition else {
                if self.subjects.table(&subject).is_none_or(|table| self.is_meant(&table)) {
                    unnamed += u64::from(!lock(&self.strays).has_named(&subject));
                    strays.add(subject, count as u64);
                }
                continue;
            };
            if self.is_meant(&name) {
                let table = quoted_table(&name);
                messages.insert((table.clone(), partition), count as u64);
                let new = || Table { name, tallies: Arc::default() };
                lock(&self.known).entry(table).or_insert_with(new);
            }
        }
        *lock(&self.messages) = messages;
        let last = self.number - 1;
        let NewStrays { named, more } = lock(&self.strays).take(strays, unnamed);
        for subject in named {
            tracing::warn!(
                stream = self.link.name,
                subject,
                "messages of this subject are written by no worker, as it is of no partition: they are 0 to {last}; the messages stay in \
                 the stream; correct who publishes them, publish them again, and remove them"
            );
        }
        if let Some(more) = more {
            tracing::warn!(
                stream = self.link.name,
                "{more} more subjects are of no partition either, and are not named here"
            );
        }
        Ok(())
    }

    /// Messages of no partition, as of the last look.
    pub(crate) fn strays(&self) -> StrayMessages {
        lock(&self.strays).found()
    }

    /// Asks the server how far partitions are behind. What it does not answer is asked again.
    pub(crate) async fn ask_for_lag(&self) {
        let asked: Vec<_> = {
            let running = lock(&self.running);
            let first = self.next_asked.load(Ordering::Relaxed) % running.len().max(1);
            self.next_asked.store(first + ASKED, Ordering::Relaxed);
            let turned = running.iter().skip(first).chain(running.iter().take(first)).take(ASKED);
            let messages = lock(&self.messages);
            let asked = turned.map(|(name, Running { subject, state, reached, lag, .. })| {
                let of = (Arc::clone(state), Arc::clone(reached), Arc::clone(lag));
                (subject.clone(), of, messages.get(name).copied().unwrap_or(0))
            });
            asked.collect()
        };
        let answers = async {
            for some in asked.chunks(ASKED_AT_ONCE) {
                let questions = some.iter().map(async |(subject, (state, reached, lag), messages)| {
                    lag.ask(&self.link, subject, &self.guarantee, (state, reached), *messages).await;
                });
                join_all(questions).await;
            }
        };
        let _ = timeout(ASKING, answers).await;
    }

    /// Messages of another format that were set aside since the start.
    pub(crate) fn foreign_messages(&self) -> u64 {
        lock(&self.known).values().map(|table| table.tallies.foreign.get()).sum()
    }

    /// The tables that the stream has or had rows of.
    pub(crate) fn tables(&self) -> Vec<TableStats> {
        // It may have claimed some since the look.
        let held = self.held();
        let unheld: Vec<Name> = lock(&self.unheld).difference(&held).cloned().collect();
        let known = lock(&self.known);
        let tables = known.iter().map(|(table, Table { tallies, .. })| TableStats {
            shown: unquoted_table(table),
            table: table.clone(),
            tallies: Arc::clone(tallies),
            unheld: unheld.iter().filter(|(of, _)| of == table).count() as u64,
        });
        tables.collect()
    }

    /// These partitions have no worker.
    pub(crate) fn are_unheld(&self, names: impl IntoIterator<Item = Name>) {
        *lock(&self.unheld) = names.into_iter().collect();
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
    pub(crate) fn start(&self, name: &Name, before: Before) {
        let Some((table, tallies)) =
            lock(&self.known).get(&name.0).map(|table| (table.name.clone(), Arc::clone(&table.tallies)))
        else {
            return;
        };
        let mut running = lock(&self.running);
        if running.contains_key(name) {
            return;
        }
        let subject = self.subjects.of(&table, name.1);
        let (state, reached) =
            (Arc::new(PartitionState::new(&*name.0, name.1, 0)), Arc::new(Reached::new(tallies, before)));
        let source = NatsSource::new(
            Arc::clone(&self.link),
            subject.clone(),
            table,
            self.guarantee.clone(),
            Arc::clone(&reached),
        );
        match self.feeds.start(Arc::clone(&state), source) {
            Ok(()) => {
                let kept = Kept::default();
                let lag = Arc::default();
                running.insert(name.clone(), Running { subject, state, reached, lag, kept });
            }
            Err(error) => tracing::warn!(%error, table = name.0, partition = name.1, "a partition was not started"),
        }
    }

    /// Ends a partition. What is under way may end before.
    pub(crate) async fn stop(&self, name: &Name) {
        self.end(name, self.end, Trim::Yes).await;
    }

    /// The same while the server does not answer: written messages stay in the stream.
    pub(crate) async fn stop_without_server(&self, name: &Name) {
        self.end(name, self.end, Trim::No).await;
    }

    /// The same; what is under way has until `over` completes.
    ///
    /// # Cancel safety
    /// What is under way is cut off.
    pub(crate) async fn stop_until(&self, name: &Name, over: impl Future<Output = ()>) {
        let is_stopped = self.stopped().contains(name);
        let source = tokio::select! {
            source = self.feeds.stop(&name.0, name.1, NEVER) => source,
            // Its task ends with the call.
            () = over => None,
        };
        self.give_back(name, source, is_stopped, Trim::Yes).await;
    }

    async fn end(&self, name: &Name, limit: Duration, trim: Trim) {
        let is_stopped = self.stopped().contains(name);
        let source = self.feeds.stop(&name.0, name.1, limit).await;
        self.give_back(name, source, is_stopped, trim).await;
    }

    /// Its task has ended, with its source if that was in time.
    async fn give_back(&self, name: &Name, source: Option<NatsSource>, is_stopped: bool, trim: Trim) {
        if !is_stopped && trim == Trim::Yes {
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

    /// Those that this worker has claimed.
    pub(crate) fn held(&self) -> BTreeSet<Name> {
        let running = lock(&self.running);
        running.iter().filter(|(_, running)| running.state.is_held()).map(|(name, _)| name.clone()).collect()
    }

    /// Another worker is the owner, as the table of positions says.
    pub(crate) fn lose(&self, name: &Name) {
        if let Some(Running { reached, .. }) = lock(&self.running).get(name) {
            reached.lose(true);
        }
    }

    /// Whether another worker has been found to be the owner.
    pub(crate) fn is_lost(&self, table: &str, partition: u32) -> bool {
        lock(&self.running).get(&(table.to_owned(), partition)).is_some_and(|running| running.reached.is_lost())
    }

    pub(crate) fn stats(&self, end: u64) -> Vec<PartitionStats> {
        let running = lock(&self.running);
        let stats = running.iter().map(|((table, partition), Running { state, reached, lag, .. })| {
            let written = message_of(state.settled());
            let Waiting { pending, unsettled } = reached.waiting();
            PartitionStats {
                table: table.clone(),
                partition: *partition,
                written,
                behind: end.saturating_sub(written),
                unsettled,
                pending,
                oldest: lag.oldest(state),
                is_held: state.is_held() && !reached.is_lost(),
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
                let below = running.kept.due(now, keep_for, running.reached.settled())?;
                Some((name.clone(), running.subject.clone(), below))
            });
            due.collect()
        };
        for (name, subject, below) in due {
            match self.link.trim(&subject, below).await {
                Ok(_) => {
                    if let Some(running) = lock(&self.running).get_mut(&name) {
                        running.kept.is_removed(below);
                    }
                }
                Err(error) => tracing::warn!(error, subject, "written messages cannot be removed; trying again"),
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
