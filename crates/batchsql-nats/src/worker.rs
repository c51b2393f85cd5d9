//! Owns the worker: its start, the loop that keeps its partitions right, and its end.
//! Must not know how rows are read or written.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_nats::jetstream::Context;
use batchsql_core::{BatchSql, BatchSqlBuilder, CloseReport, PartitionKey, Position, Sink, StoredPosition, share_out};
use batchsql_feed::key::OrderedTables;
use batchsql_feed::{FeedCounts, FeedOptions, Feeds, Letters, Schemas, StoppedPartition, without_ends};
use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::error::NatsError;
use crate::letters::ForeignLetters;
use crate::link::Link;
use crate::options::{WorkerOptions, renewal};
use crate::partitions::{Name, PartitionStats, Partitions};
use crate::source::Guarantee;
use crate::stream::StreamCheck;
use crate::subject::table_of_quoted;

/// How often a worker without leases looks for new tables, and removes written messages.
const LOOK: Duration = Duration::from_secs(2);
/// For giving away what has ended.
const GIVING: Duration = Duration::from_secs(5);

/// Reads a stream, and writes its rows to a database. Any number of workers on any machines share the partitions.
///
/// ```no_run
/// use std::time::Duration;
///
/// use batchsql_core::BatchSql;
/// use batchsql_nats::{StreamOptions, Worker, WorkerOptions};
/// use batchsql_sqlite::SqliteSink;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let context = async_nats::jetstream::new(async_nats::connect("nats://127.0.0.1").await?);
/// let options = WorkerOptions::new(StreamOptions::new("rows"), "dead-letters.ndjson").exactly_once();
/// let builder = BatchSql::builder(SqliteSink::open("sqlite:target.db")?);
/// let worker = Worker::start(context, builder, options).await?;
/// // ... until it is time to end:
/// worker.close(Duration::from_secs(30)).await;
/// # Ok(())
/// # }
/// ```
///
/// A worker that is dropped without [`close`](Self::close) leaves nothing undone: what was not written is written by another
/// one, after its lease or `ack_wait`.
pub struct Worker {
    inner: Arc<Inner>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    pipeline: BatchSql,
    partitions: Partitions,
    options: WorkerOptions,
    incarnation: String,
    /// The last sequence of the stream, as of the last look.
    end: std::sync::atomic::AtomicU64,
    /// Why the worker cannot look after its partitions now.
    trouble: Mutex<Option<String>>,
    ending: watch::Sender<bool>,
}

/// What a worker does, at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkerStats {
    /// The partitions that this worker has, by table and number.
    pub partitions: Vec<PartitionStats>,
    /// Partitions that do not go on without a person.
    pub stopped: Vec<StoppedPartition>,
    /// Partitions that cannot be written now, and try again by themselves.
    pub waiting: Vec<StoppedPartition>,
    /// Rows since the start.
    pub counts: FeedCounts,
    /// Why the worker cannot look after its partitions now, if so: the server or the database does not answer.
    pub trouble: Option<String>,
}

impl WorkerStats {
    /// When the oldest message was published that was read and is not written.
    pub fn oldest(&self) -> Option<SystemTime> {
        self.partitions.iter().filter_map(|partition| partition.oldest).min()
    }

    /// Messages that were not delivered yet, as far as this worker knows.
    pub fn pending(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.pending).sum()
    }
}

impl Worker {
    /// Starts a worker. While the NATS server does not answer, it waits. Of the settings of the pipeline, `retry_for`, `max_age`,
    /// `park_for` and `when_full` do not apply: rows wait in the stream for as long as it takes.
    ///
    /// # Errors
    /// The options are wrong, the stream has settings with which rows would be lost, the dead-letter file cannot be opened, the
    /// database keeps no positions (exactly once), or the pipeline does not start.
    ///
    /// # Cancel safety
    /// Nothing was read.
    pub async fn start<S: Sink>(
        context: Context,
        builder: BatchSqlBuilder<S>,
        options: WorkerOptions,
    ) -> Result<Self, NatsError> {
        options.check()?;
        let sink = builder.sink();
        if options.exactly_once && !sink.keeps_positions() {
            let name = sink.name();
            return Err(NatsError::new(format!(
                "{name} keeps no positions, so rows cannot be written exactly once; leave out exactly_once, and use a rule with a key"
            )));
        }
        options.validate(&builder.settings())?;
        let StreamCheck { incarnation, warnings, .. } = options.stream.check_waiting(&context, "a worker").await?;
        for warning in warnings {
            tracing::warn!(stream = options.stream.name(), warning, "a setting of the stream");
        }
        let name = options.stream.name().to_owned();
        let stream = context.get_stream_no_info(&name).await;
        let stream = stream.map_err(|error| NatsError::new(format!("the stream {name} cannot be used: {error}")))?;
        let letters = open_letters(&options).await?;
        let settings = builder.settings();
        let ordered = OrderedTables::of(&settings);
        let pipeline = without_ends(builder, settings).start();
        let pipeline = pipeline.map_err(|error| NatsError::new(format!("the pipeline does not start: {error}")))?;
        let schemas = Arc::new(Schemas::new(options.schemas.clone(), "WorkerOptions::schema"));
        let link = Arc::new(Link {
            stream,
            name,
            incarnation: incarnation.clone(),
            foreign: ForeignLetters::new(options.foreign_path()),
            schemas: Arc::clone(&schemas),
            ack_wait: options.ack_wait,
            source: options.source.clone(),
        });
        let mut feed = FeedOptions::new(&*incarnation, Arc::new(letters), schemas, ordered);
        feed = feed.accept_gaps(options.accept_gaps).called("the stream");
        let guarantee = if options.exactly_once {
            feed = feed.exactly_once(&*options.source);
            Guarantee::ExactlyOnce { owner: options.owner.clone(), lease: options.lease }
        } else {
            Guarantee::AtLeastOnce
        };
        let partitions = Partitions::new(
            link,
            options.stream.subjects(),
            options.stream.partitions,
            options.tables.clone(),
            Feeds::new(pipeline.clone(), feed, Handle::current()),
            guarantee,
            options.keep_for,
        );
        let inner = Arc::new(Inner {
            pipeline,
            partitions,
            options,
            incarnation,
            end: Default::default(),
            trouble: Mutex::default(),
            ending: watch::Sender::new(false),
        });
        let task = tokio::spawn(Arc::clone(&inner).run());
        Ok(Self { inner, task: Mutex::new(Some(task)) })
    }

    /// What the worker does now.
    pub fn stats(&self) -> WorkerStats {
        let Inner { partitions, end, trouble, .. } = &*self.inner;
        let mut stopped = partitions.feeds.stopped();
        // They are another worker's, and end.
        stopped.retain(|stopped| !partitions.is_lost(&stopped.table, stopped.partition));
        WorkerStats {
            partitions: partitions.stats(end.load(std::sync::atomic::Ordering::Relaxed)),
            stopped,
            waiting: partitions.feeds.waiting(),
            counts: partitions.feeds.counts(),
            trouble: trouble.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// The pipeline that writes the rows, for its own figures.
    pub fn pipeline(&self) -> &BatchSql {
        &self.inner.pipeline
    }

    /// Ends the worker: what is under way is written, as far as the limit allows, and the partitions are given to the other
    /// workers at once. Another call returns after the first one.
    ///
    /// # Cancel safety
    /// The worker ends without giving its partitions away, which others get when its leases are over.
    pub async fn close(&self, limit: Duration) -> CloseReport {
        self.inner.ending.send_replace(true);
        let end = tokio::time::Instant::now() + limit;
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut task) = task {
            let _ = timeout(limit, &mut task).await;
            task.abort();
        }
        let Inner { partitions, options, pipeline, .. } = &*self.inner;
        let names = partitions.running();
        let left = end.saturating_duration_since(tokio::time::Instant::now());
        let stops = names.iter().map(|name| partitions.stop_within(name, left));
        let _ = timeout(left + GIVING, join_all(stops)).await;
        if options.exactly_once {
            let released = timeout(GIVING, self.inner.release_all()).await;
            if !matches!(released, Ok(Ok(()))) {
                tracing::warn!(
                    "the leases of this worker were not given back; others get its partitions when they are over"
                );
            }
        }
        let report = pipeline.close(end.saturating_duration_since(tokio::time::Instant::now())).await;
        partitions.feeds.end().await;
        report
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

impl Inner {
    async fn run(self: Arc<Self>) {
        tokio::select! {
            () = self.turns() => {}
            () = self.renew_always(), if self.options.exactly_once => {}
        }
    }

    /// Keeps the leases while a turn waits for NATS. What has failed is said by the next turn.
    async fn renew_always(&self) {
        let WorkerOptions { source, owner, lease, .. } = &self.options;
        loop {
            sleep(*lease / 3).await;
            if let Err(error) = self.pipeline.renew(source, owner, *lease).await {
                tracing::debug!(%error, "leases were not renewed; trying again");
            }
        }
    }

    async fn turns(&self) {
        let mut ending = self.ending.subscribe();
        let every = if self.options.exactly_once { renewal(self.options.lease) } else { LOOK };
        while !*ending.borrow() {
            let turn = tokio::select! {
                turn = self.turn() => turn,
                _ = ending.wait_for(|is_ending| *is_ending) => return,
            };
            if let Err(text) = &turn {
                tracing::warn!(text, "a worker cannot look after its partitions now; trying again");
            }
            *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = turn.err();
            tokio::select! {
                () = sleep(every) => {}
                _ = ending.wait_for(|is_ending| *is_ending) => {}
            }
        }
    }

    /// One look at the stream and the leases.
    async fn turn(&self) -> Result<(), String> {
        if self.options.exactly_once {
            // A worker without a seat gets no partitions.
            self.renew().await?;
        }
        let looked = self.look().await;
        let stored = if self.options.exactly_once {
            self.share().await?
        } else {
            self.partitions.all().iter().for_each(|name| self.partitions.start(name));
            Vec::new()
        };
        looked?;
        self.partitions.trim().await;
        self.refuse_other_tables(&stored)
    }

    /// Partitions are shared out as if each worker could have any of them. So those of a table that some workers leave out may
    /// have no worker at all.
    fn refuse_other_tables(&self, stored: &[StoredPosition]) -> Result<(), String> {
        let WorkerOptions { source, owner, .. } = &self.options;
        let of_others = stored.iter().filter(|stored| {
            let is_partition = !stored.key.is_seat() && stored.key.incarnation == self.incarnation;
            is_partition && stored.holder().is_some_and(|holder| holder != owner)
        });
        let mut tables = of_others.map(|stored| table_of_quoted(&stored.key.table));
        match tables.find(|table| !self.partitions.is_meant(table)) {
            None => Ok(()),
            Some(table) => Err(format!(
                "another worker of source {source} has partitions of table {table}, which this one leaves out, so some partitions \
                 may have no worker; give all workers of a source the same WorkerOptions::tables, or workers with other tables \
                 another WorkerOptions::source"
            )),
        }
    }

    async fn look(&self) -> Result<(), String> {
        let info = self.partitions.link.info().await.map_err(|why| why.to_string())?;
        self.end.store(info.state.last_sequence, std::sync::atomic::Ordering::Relaxed);
        self.partitions.look_for_tables().await
    }

    async fn renew(&self) -> Result<(), String> {
        let WorkerOptions { source, owner, lease, .. } = &self.options;
        let held = self.pipeline.renew(source, owner, *lease).await.map_err(|error| error.to_string())?;
        if !held.iter().any(|stored| stored.key.is_seat()) {
            self.pipeline.take_seat(source, owner, *lease).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Starts partitions that this worker is to have, and gives others away. Returns what the table of positions has.
    async fn share(&self) -> Result<Vec<StoredPosition>, String> {
        let lost = self.partitions.lost();
        join_all(lost.iter().map(|name| self.partitions.stop(name))).await;
        let WorkerOptions { source, owner, .. } = &self.options;
        let stored = self.pipeline.positions(source).await.map_err(|error| error.to_string())?;
        let all: Vec<PartitionKey> = self.partitions.all().into_iter().map(|name| self.key(name)).collect();
        let share = share_out(owner, &all, &stored);
        let given = share.release.iter().map(async |key| {
            self.partitions.stop(&(key.table.clone(), key.partition)).await;
            if let Some(position) = find(&stored, key) {
                self.release(&position, key).await;
            }
        });
        join_all(given).await;
        for key in share.claim {
            self.partitions.start(&(key.table, key.partition));
        }
        // Those of which it has the lease, but which it does not feed: a claim whose answer came late.
        for stored in stored.iter().filter(|stored| stored.holder() == Some(owner) && !stored.key.is_seat()) {
            let is_released = share.release.contains(&stored.key);
            if stored.key.incarnation == self.incarnation && !is_released {
                self.partitions.start(&(stored.key.table.clone(), stored.key.partition));
            }
        }
        Ok(stored)
    }

    /// Gives a partition that has ended to the others. The claim may have been repeated since the position was read.
    async fn release(&self, position: &Position, key: &PartitionKey) {
        match self.pipeline.release(position).await {
            Ok(true) => {}
            Ok(false) => tracing::debug!(partition = %key, "another worker has the partition already"),
            Err(error) => {
                tracing::warn!(%error, partition = %key, "a partition was not given away; its lease ends by itself")
            }
        }
    }

    async fn release_all(&self) -> Result<(), String> {
        let WorkerOptions { source, owner, .. } = &self.options;
        let stored = self.pipeline.positions(source).await.map_err(|error| error.to_string())?;
        for stored in stored.iter().filter(|stored| stored.owner.as_deref() == Some(owner)) {
            self.release(&stored.position, &stored.key).await;
        }
        Ok(())
    }

    fn key(&self, (table, partition): Name) -> PartitionKey {
        PartitionKey::new(&*self.options.source, &*self.incarnation, table, partition)
    }
}

fn find(stored: &[StoredPosition], key: &PartitionKey) -> Option<Position> {
    stored.iter().find(|stored| stored.key == *key).map(|stored| stored.position)
}

/// Opens the file, where blocking is allowed.
async fn open_letters(options: &WorkerOptions) -> Result<Letters, NatsError> {
    let path = options.dead_letters.clone();
    let shown = path.display().to_string();
    let opened = tokio::task::spawn_blocking(move || Letters::open(&path)).await;
    let failed =
        |error: &dyn fmt::Display| NatsError::new(format!("the dead-letter file {shown} cannot be opened: {error}"));
    match opened {
        Ok(Ok(letters)) => Ok(letters),
        Ok(Err(error)) => Err(failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}
