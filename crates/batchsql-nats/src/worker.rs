//! Owns the worker: its start, the loop that keeps its partitions right, and its end.
//! Must not know how rows are read or written.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::Context;
use batchsql_core::{BatchSql, BatchSqlBuilder, CloseReport, Sink};
use batchsql_feed::key::OrderedTables;
use batchsql_feed::{FeedOptions, Feeds, Letters, Misfits, Schemas, without_ends};
use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::bad_log::BadLog;
use crate::closing::Closing;
use crate::contact::Contact;
use crate::error::NatsError;
use crate::leases::{Claiming, Leases};
use crate::letters::ForeignLetters;
use crate::link::{Link, NoStream};
use crate::monitor::{INTERVAL, Monitor};
use crate::options::{WorkerOptions, renewal};
use crate::partitions::Partitions;
use crate::reached::Before;
use crate::source::Guarantee;
use crate::stats::WorkerStats;
use crate::stream::StreamCheck;

/// A limit that is never reached; more is no moment of the clock.
const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// How often a worker without leases looks for new tables, and removes written messages.
const LOOK: Duration = Duration::from_secs(2);
/// For giving away what has ended.
const GIVING: Duration = Duration::from_secs(5);
/// For the answers of the server in one look, and for the removal of written messages.
const LOOKING: Duration = Duration::from_secs(10);

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
    /// Locked by the call that ends the worker.
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    pipeline: BatchSql,
    partitions: Partitions,
    options: WorkerOptions,
    incarnation: String,
    contact: Contact,
    monitor: Monitor,
    /// The last sequence of the stream, as of the last look.
    end: std::sync::atomic::AtomicU64,
    /// Why the worker cannot look after its partitions now.
    trouble: Mutex<Option<String>>,
    ending: watch::Sender<bool>,
    closing: Closing,
}

impl Worker {
    /// Starts a worker. While the NATS server does not answer, it waits. Of the settings of the pipeline, `retry_for`, `max_age`,
    /// `park_for` and `when_full` do not apply: rows wait in the stream for as long as it takes.
    /// Nor does `BeyondBudget::Reject` in `isolation`: a table that refuses all rows is parked.
    ///
    /// A row that can never be written as it is, is rejected with the reason: it has a column that its schema in
    /// [`WorkerOptions::schema`] lacks, `NULL` where that allows none, more bytes than `buffer_bytes`, or the sink refuses it
    /// before it is sent. After `max_statements` of `isolation` (default 256) such rows of a partition without one that the table accepts,
    /// the partition stops and the rest of its rows stays in the stream, until the worker is started with a schema that fits.
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
        let monitor = Monitor::new(builder.feed_reporter());
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
            bad_log: BadLog::new(),
            schemas: Arc::clone(&schemas),
            format: options.format.clone(),
            pipeline: pipeline.clone(),
            ack_wait: options.ack_wait,
            source: options.source.clone(),
        });
        let mut feed = FeedOptions::new(&*incarnation, Arc::new(letters), schemas, ordered);
        // The rows are of other programs, which may have another schema: one of them must not stop the others. Many rows without
        // one that is written show that the schema of this worker is wrong, and stop their partition.
        feed = feed
            .accept_gaps(options.accept_gaps)
            .accept_gaps_option("WorkerOptions::accept_gaps")
            .misfits(Misfits::Reject)
            .called("the stream");
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
        let contact = Contact::new(options.exactly_once.then_some(options.release_after), 2 * LOOKING);
        let inner = Arc::new(Inner {
            pipeline,
            partitions,
            options,
            incarnation,
            contact,
            monitor,
            end: Default::default(),
            trouble: Mutex::default(),
            ending: watch::Sender::new(false),
            closing: Closing::default(),
        });
        let task = tokio::spawn(Arc::clone(&inner).run());
        Ok(Self { inner, task: tokio::sync::Mutex::new(Some(task)) })
    }

    /// What the worker does now.
    pub fn stats(&self) -> WorkerStats {
        self.inner.stats()
    }

    /// The pipeline that writes the rows, for its own figures.
    pub fn pipeline(&self) -> &BatchSql {
        &self.inner.pipeline
    }

    /// Ends the worker: what is under way is written, as far as the limit allows, and the partitions are given to the other
    /// workers at once. What the limit has cut off is not waited for, and its partitions are given away too.
    ///
    /// Every call returns when the worker has ended. The earliest limit of all calls holds: a second call can shorten the first
    /// one, for example after a second signal, and never extends it. Giving the partitions away may take up to 10 seconds more,
    /// if NATS or the database does not answer.
    ///
    /// # Cancel safety
    /// What is under way is cut off, and the partitions may not be given away: call it again, or others get them when its leases
    /// are over.
    pub async fn close(&self, limit: Duration) -> CloseReport {
        let Inner { partitions, options, pipeline, closing, ending, .. } = &*self.inner;
        closing.ends_within(limit.min(FAR));
        ending.send_replace(true);
        let mut running = self.task.lock().await;
        if let Some(task) = &mut *running {
            let ended = tokio::select! {
                ended = &mut *task => ended,
                () = closing.is_over_for(Duration::ZERO) => {
                    task.abort();
                    // So that nothing of it is left when this returns.
                    task.await
                }
            };
            *running = None;
            if ended.is_err_and(|error| error.is_panic()) {
                tracing::error!(
                    "the task of a worker has panicked, which is a defect; its partitions end nevertheless"
                );
            }
        }
        let names = partitions.running();
        let stops = names.iter().map(|name| partitions.stop_until(name, closing.is_over_for(Duration::ZERO)));
        tokio::select! {
            _ = join_all(stops) => {}
            () = closing.is_over_for(GIVING) => {}
        }
        if options.exactly_once {
            let released = timeout(GIVING, self.inner.leases().release_all()).await;
            let no_answer = || Err(format!("the database has not answered within {GIVING:?}"));
            if let Err(reason) = released.unwrap_or_else(|_| no_answer()) {
                tracing::warn!(
                    reason,
                    "leases of this worker were not given back; others get its partitions when they are over"
                );
            }
        }
        let cut_off = async {
            closing.is_over_for(Duration::ZERO).await;
            pipeline.close(Duration::ZERO).await
        };
        let report = tokio::select! {
            report = pipeline.close(closing.left()) => report,
            report = cut_off => report,
        };
        partitions.feeds.end().await;
        let link = &partitions.link;
        link.bad_log.end(&link.foreign.path().display().to_string());
        self.inner.report();
        report
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut() {
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
            () = self.report_always() => {}
        }
    }

    /// Keeps the leases while a turn waits for NATS. What has failed is said by the next turn.
    async fn renew_always(&self) {
        let WorkerOptions { source, owner, lease, .. } = &self.options;
        loop {
            sleep(*lease / 3).await;
            if self.contact.is_gone() {
                continue;
            }
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
        let was_gone = self.contact.is_gone();
        let renewing = async {
            // Otherwise others are to have its partitions until the stream answers.
            if self.options.exactly_once && !was_gone { self.leases().renew().await } else { Ok(()) }
        };
        // The stream is looked at whatever the database does: only an unreachable stream is a reason to give partitions away.
        let (renewed, looked) = tokio::join!(renewing, self.look());
        match looked {
            Err(NoStream::Unreachable(text)) => {
                return self.is_unreachable(text, renewed).await;
            }
            Err(NoStream::MadeAnew(text)) => {
                renewed?;
                if self.options.exactly_once {
                    self.leases().share(Claiming::Yes).await?;
                }
                return Err(text);
            }
            Ok(()) => {}
        }
        renewed?;
        if was_gone {
            tracing::warn!("NATS answers again; this worker takes partitions again");
            self.leases().renew().await?;
        }
        let shared = if self.options.exactly_once {
            self.leases().share(Claiming::Yes).await
        } else {
            self.partitions.all().iter().for_each(|name| self.partitions.start(name, Before::Free));
            Ok(())
        };
        // What is not removed now is removed later.
        let _ = timeout(LOOKING, self.partitions.trim()).await;
        self.partitions.ask_for_lag().await;
        shared
    }

    /// The stream did not answer. A worker that cannot read its partitions keeps them for a bounded time only.
    async fn is_unreachable(&self, text: String, renewed: Result<(), String>) -> Result<(), String> {
        if self.contact.is_gone() {
            let names = self.partitions.running();
            join_all(names.iter().map(|name| self.partitions.stop_without_server(name))).await;
            // It does not look any more who has which.
            self.partitions.are_unheld([]);
            let limit = self.options.release_after;
            return Err(match self.leases().release_all().await {
                Ok(()) => {
                    format!(
                        "{text}; its partitions were given to other workers, because NATS was unreachable for {limit:?}"
                    )
                }
                Err(error) => {
                    format!("{text}; its partitions were not given away ({error}), and its leases end by themselves")
                }
            });
        }
        if let Err(error) = renewed {
            return Err(format!("{text}; {error}"));
        }
        if self.options.exactly_once {
            self.leases().share(Claiming::No).await?;
        }
        Err(text)
    }

    async fn look(&self) -> Result<(), NoStream> {
        let began = Instant::now();
        let looked = match timeout(LOOKING, self.look_at_stream()).await {
            Ok(looked) => looked,
            Err(_) => Err(NoStream::Unreachable(format!("NATS has not shown the stream within {LOOKING:?}"))),
        };
        match &looked {
            Err(NoStream::Unreachable(_)) => {
                self.contact.is_unreachable(began);
            }
            Ok(()) | Err(NoStream::MadeAnew(_)) => self.contact.answers(),
        }
        looked
    }

    async fn look_at_stream(&self) -> Result<(), NoStream> {
        let info = self.partitions.link.info().await?;
        self.end.store(info.state.last_sequence, std::sync::atomic::Ordering::Relaxed);
        self.partitions.look_for_tables().await
    }

    fn leases(&self) -> Leases<'_> {
        let Self { pipeline, partitions, options, incarnation, .. } = self;
        Leases { pipeline, partitions, options, incarnation }
    }

    fn stats(&self) -> WorkerStats {
        let Self { partitions, end, trouble, .. } = self;
        let mut stopped = partitions.feeds.stopped();
        // They are another worker's, and end.
        stopped.retain(|stopped| !partitions.is_lost(&stopped.table, stopped.partition));
        WorkerStats {
            partitions: partitions.stats(end.load(std::sync::atomic::Ordering::Relaxed)),
            stopped,
            waiting: partitions.feeds.waiting(),
            counts: partitions.feeds.counts(),
            trouble: trouble.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            lossy_setting: partitions.feeds.lossy_setting(),
            stray: partitions.strays(),
            foreign_messages: partitions.foreign_messages(),
        }
    }

    /// Reports to the observers each second. Without observers it never returns.
    async fn report_always(&self) {
        if !self.monitor.is_observed() {
            return std::future::pending().await;
        }
        loop {
            self.report();
            sleep(INTERVAL).await;
        }
    }

    fn report(&self) {
        if self.monitor.is_observed() {
            let (tables, counts) = (self.partitions.tables(), self.partitions.feeds.table_counts());
            self.monitor.report(self.contact.is_up(), &self.stats(), &tables, &counts);
        }
    }
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
