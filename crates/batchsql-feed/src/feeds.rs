//! Owns the partitions of a source that are fed, and a task for each.
//! Must not know what the tasks do.

use std::collections::HashMap;
use std::ops::AddAssign;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use batchsql_core::BatchSql;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;

use crate::context::{Context, Counts, Ending};
use crate::lossy::LossyCheck;
use crate::options::FeedOptions;
use crate::source::Source;
use crate::state::{PartitionState, StoppedPartition};
use crate::{at_least_once, exactly};

/// Feeds a pipeline from the partitions of a source, with a task for each.
///
/// The pipeline must give up no row for its age or its table: `retry_for` and `park_for` are `Duration::MAX`, `max_age` is
/// `None`, and `when_full` is [`WhenFull::Wait`](batchsql_core::WhenFull::Wait).
#[derive(Debug)]
pub struct Feeds<S> {
    context: Arc<Context>,
    runtime: Handle,
    running: Mutex<Running<S>>,
    has_ended: watch::Sender<bool>,
    /// `None` exactly once: then a claim refuses such settings.
    lossy: Option<LossyCheck>,
}

type Running<S> = HashMap<(String, u32), Task<S>>;

#[derive(Debug)]
struct Task<S> {
    state: Arc<PartitionState>,
    ending: watch::Sender<Ending>,
    /// Until somebody waits for its end.
    handle: Option<Aborting<S>>,
    /// It ends for good, and makes room when it has ended.
    is_given_away: bool,
    has_ended: AbortHandle,
}

impl<S> Task<S> {
    /// It was given away and has ended, although nobody waited for that.
    fn is_gone(&self) -> bool {
        self.is_given_away && self.has_ended.is_finished()
    }
}

/// A task that ends with this value: nobody else would wait for it.
#[derive(Debug)]
struct Aborting<S>(JoinHandle<S>);

impl<S> Drop for Aborting<S> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Rows since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeedCounts {
    /// Rows that were read from the source.
    pub read: u64,
    /// Rows that have ended as written, ignored or superseded, and were settled.
    pub written: u64,
    /// Rows that were written again because their outcome was not known, with later rows of their keys.
    pub written_again: u64,
    /// Rows that were missing in the source, and were accepted as lost.
    pub missing: u64,
    /// Rows in the dead letters.
    pub dead_letters: u64,
}

impl FeedCounts {
    fn of(counts: &Counts) -> Self {
        Self {
            read: counts.read.get(),
            written: counts.written.get(),
            written_again: counts.written_again.get(),
            missing: counts.missing.get(),
            dead_letters: counts.dead_letters.get(),
        }
    }
}

impl AddAssign for FeedCounts {
    fn add_assign(&mut self, other: Self) {
        self.read += other.read;
        self.written += other.written;
        self.written_again += other.written_again;
        self.missing += other.missing;
        self.dead_letters += other.dead_letters;
    }
}

/// A partition is not fed, because it is fed already, or all feeds have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotStarted {
    /// It is fed already.
    #[error("the partition is fed already; stop it first")]
    Running,
    /// All feeds have ended.
    #[error("the feeds have ended; make new ones")]
    Ended,
}

impl<S: Source> Feeds<S> {
    /// Without partitions. The tasks run on `runtime`.
    pub fn new(pipeline: BatchSql, options: FeedOptions, runtime: Handle) -> Self {
        let is_asked = options.exactly_once.is_none();
        let lossy = is_asked.then(|| LossyCheck::start(pipeline.clone(), &runtime));
        Self {
            lossy,
            context: Arc::new(Context::new(pipeline, options)),
            runtime,
            running: Mutex::default(),
            has_ended: watch::Sender::new(false),
        }
    }

    /// Feeds a partition from now on. The source may keep the state too.
    ///
    /// # Errors
    /// The partition is fed already, or [`end`](Self::end) was called.
    pub fn start(&self, state: Arc<PartitionState>, source: S) -> Result<(), NotStarted> {
        let mut running = lock(&self.running);
        if *self.has_ended.borrow() {
            return Err(NotStarted::Ended);
        }
        let name = (state.table().to_owned(), state.partition());
        if running.get(&name).is_some_and(|task| !task.is_gone()) {
            return Err(NotStarted::Running);
        }
        let (ending, is_ending) = watch::channel(Ending::No);
        let (context, of_task) = (Arc::clone(&self.context), Arc::clone(&state));
        let handle = match self.context.options.exactly_once {
            None => self.runtime.spawn(at_least_once::run(context, of_task, source, is_ending)),
            Some(_) => self.runtime.spawn(exactly::run(context, of_task, source, is_ending)),
        };
        let (is_given_away, has_ended) = (false, handle.abort_handle());
        running.insert(name, Task { state, ending, handle: Some(Aborting(handle)), is_given_away, has_ended });
        Ok(())
    }

    /// Ends one partition and returns its source, for example to give the partition to another worker. Nothing more is read;
    /// what is under way has until `limit` to end, and what has ended is settled. `None`: the partition is not fed, or `limit`
    /// was over. Then the source is dropped, and rows that the pipeline has are still written, perhaps after rows of another
    /// worker: at least once, give a partition away only after a source was returned. Exactly once, the claim of the next
    /// worker ends what is under way. The partition can be [started](Self::start) again when the call has returned.
    ///
    /// # Cancel safety
    /// Dropping it is as if the limit were over. The partition can be started again when its task has ended, which is soon.
    pub async fn stop(&self, table: &str, partition: u32, limit: Duration) -> Option<S> {
        let name = (table.to_owned(), partition);
        let mut handle = {
            let mut running = lock(&self.running);
            let task = running.get_mut(&name)?;
            let handle = task.handle.take()?;
            task.is_given_away = true;
            task.ending.send_replace(Ending::Finish);
            handle
        };
        let ended = match timeout(limit, &mut handle.0).await {
            Ok(ended) => ended.inspect_err(report).ok(),
            Err(_) => {
                handle.0.abort();
                // So that nothing is settled after this call. It was aborted, or has just ended.
                let _ = (&mut handle.0).await;
                None
            }
        };
        // Not before: two tasks of one partition would write it.
        lock(&self.running).remove(&name);
        self.context.progress.send_replace(());
        ended
    }

    /// Ends all partitions, after the pipeline was closed: the tasks take the last outcomes, settle, and end.
    ///
    /// # Cancel safety
    /// Tasks that have not ended are dropped.
    pub async fn end(&self) {
        let handles: Vec<Aborting<S>> = {
            let mut running = lock(&self.running);
            self.has_ended.send_replace(true);
            running.values().for_each(|task| {
                task.ending.send_replace(Ending::Now);
            });
            running.values_mut().filter_map(|task| task.handle.take()).collect()
        };
        for mut handle in handles {
            let _ = (&mut handle.0).await.inspect_err(report);
        }
        if let Some(lossy) = &self.lossy {
            lossy.end().await;
        }
        self.context.progress.send_replace(());
    }
}

impl<S> Feeds<S> {
    /// Counts since the start.
    pub fn counts(&self) -> FeedCounts {
        let mut sum = FeedCounts::default();
        self.context.counts().values().for_each(|counts| sum += FeedCounts::of(counts));
        sum
    }

    /// The same for each table, by its name as in [`PartitionState::table`].
    pub fn table_counts(&self) -> Vec<(String, FeedCounts)> {
        self.context.counts().iter().map(|(table, counts)| (table.clone(), FeedCounts::of(counts))).collect()
    }

    /// The states of the partitions that are fed, in no order.
    pub fn states(&self) -> Vec<Arc<PartitionState>> {
        let running = lock(&self.running);
        running.values().filter(|task| !task.is_gone()).map(|task| Arc::clone(&task.state)).collect()
    }

    /// Partitions that do not go on without a person, by table and number.
    pub fn stopped(&self) -> Vec<StoppedPartition> {
        self.with_reason(PartitionState::stopped)
    }

    /// Partitions that cannot be written now, and try again by themselves, by table and number.
    pub fn waiting(&self) -> Vec<StoppedPartition> {
        self.with_reason(PartitionState::waiting)
    }

    /// The setting of the database that may lose rows it has confirmed, and what to do. `None`: there is none, the database has
    /// not answered yet, or rows are written exactly once, which such a setting stops.
    pub fn lossy_setting(&self) -> Option<String> {
        self.lossy.as_ref()?.found()
    }

    /// Changes whenever a partition has settled rows, or has stopped.
    pub fn progress(&self) -> watch::Receiver<()> {
        self.context.progress.subscribe()
    }

    /// Becomes true when [`end`](Self::end) is called.
    pub fn ending(&self) -> watch::Receiver<bool> {
        self.has_ended.subscribe()
    }

    fn with_reason(&self, reason: impl Fn(&PartitionState) -> Option<StoppedPartition>) -> Vec<StoppedPartition> {
        let mut partitions: Vec<_> = self.states().iter().filter_map(|state| reason(state)).collect();
        partitions.sort_unstable_by(|a, b| (&a.table, a.partition).cmp(&(&b.table, b.partition)));
        partitions
    }
}

fn report(error: &tokio::task::JoinError) {
    tracing::error!(%error, "the feed of a partition has ended early; its rows stay in the source");
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
