//! Owns the builder: everything that is decided before the first row.
//! Must not know what happens to rows.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::catch_unwind;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use crate::budget::capacity::Budget;
use crate::config::{FAR, PipelineConfig, StartError};
use crate::config_policies::Isolation;
use crate::config_table::TableConfig;
use crate::dispatch::connect_gate::WaitLimits;
use crate::dispatch::dispatcher::{Dispatcher, Warned};
use crate::dispatch::state::Activity;
use crate::durable_reporter::DurableReporter;
use crate::feed_reporter::FeedReporter;
use crate::guarded_reporter::GuardedReporter;
use crate::intake::groups::Groups;
use crate::intake::headroom::Headroom;
use crate::intake::table::Intake;
use crate::outcome::consumers::{Consumers, DeadLetters};
use crate::outcome::ledger::Ledger;
use crate::outcome::outcomes::Outcome;
use crate::pipeline::handle::{BatchSql, Shared};
use crate::reporter::MetricsReporter;
use crate::write::context::PipelineContext;
use crate::write::execute::Executor;
use crate::write::sink::Sink;

/// Configures a pipeline. Made by [`BatchSql::builder`].
#[must_use = "a builder does nothing until start() is called"]
pub struct BatchSqlBuilder<S> {
    sink: S,
    config: PipelineConfig,
    tables: BTreeMap<String, TableConfig>,
    reporters: Vec<Arc<dyn MetricsReporter>>,
    dead_letters: Vec<DeadLetters>,
}

impl<S> fmt::Debug for BatchSqlBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchSqlBuilder")
            .field("config", &self.config)
            .field("tables", &self.tables)
            .finish_non_exhaustive()
    }
}

impl<S: Sink> BatchSqlBuilder<S> {
    /// Sets the sizes, times and limits; the default is [`PipelineConfig::default`].
    pub fn config(mut self, config: PipelineConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets the settings of one table, by `name` or `namespace.name`, in place of those that
    /// [`config`](Self::config) has for it. They take the place of the pipeline's settings for that table. A name that is
    /// never used is no error.
    ///
    /// ```
    /// # use batchsql_core::{BatchSqlBuilder, Sink};
    /// use batchsql_core::{Ordering, TableConfig};
    /// use std::time::Duration;
    /// # fn example(builder: BatchSqlBuilder<impl Sink>) {
    /// builder
    ///     .table("orders", TableConfig::default().flush_size(50).flush_interval(Duration::from_millis(5)))
    ///     .table("audit.events", TableConfig::default().flush_size(5_000).ordering(Ordering::PerTable));
    /// # }
    /// ```
    pub fn table(mut self, name: impl Into<String>, table: TableConfig) -> Self {
        self.tables.insert(name.into(), table);
        self
    }

    /// The settings that the pipeline will have, with those of each [`table`](Self::table).
    pub fn settings(&self) -> PipelineConfig {
        let mut settings = self.config.clone();
        settings.tables.extend(self.tables.clone());
        settings
    }

    /// The sink that the pipeline will write to.
    pub fn sink(&self) -> &S {
        &self.sink
    }

    /// Adds an observer. There may be several: each gets every event, in the order in which they were added, and a panic
    /// in one does not keep the others from it. The [`context`](MetricsReporter::context) of a batch is that of the
    /// first one that has one. Without an observer nothing is reported.
    pub fn metrics_reporter(mut self, reporter: impl MetricsReporter) -> Self {
        self.reporters.push(Arc::new(reporter));
        self
    }

    /// The observers that were added so far, for a durable intake in front of this pipeline, which has events of its own.
    pub fn durable_reporter(&self) -> DurableReporter {
        DurableReporter::new(GuardedReporter::new(self.reporters.clone()))
    }

    /// The observers that were added so far, for feeds that write rows of a source with this pipeline, which have events of
    /// their own.
    pub fn feed_reporter(&self) -> FeedReporter {
        FeedReporter::new(GuardedReporter::new(self.reporters.clone()))
    }

    /// Calls back with every row that ends as rejected, expired, purged or unknown, whether it has a
    /// receipt or not.
    ///
    /// The callback runs on the pipeline's tasks before the row's capacity is given back: it must not
    /// block, and while it runs it slows the pipeline down. A panic in it is caught and logged.
    pub fn on_failed_row(mut self, callback: impl Fn(&Outcome) + Send + Sync + 'static) -> Self {
        self.dead_letters.push(DeadLetters::callback(callback));
        self
    }

    /// Adds a consumer of failed rows: a callback, a channel or a file. There may be several.
    pub fn dead_letters(mut self, consumer: DeadLetters) -> Self {
        self.dead_letters.push(consumer);
        self
    }

    /// Validates the configuration and starts the pipeline on the current Tokio runtime. The database
    /// is not contacted before the first row, or [`BatchSql::prepare`]. The runtime needs its time driver
    /// (`enable_time` or `enable_all`; `#[tokio::main]` has it).
    ///
    /// # Errors
    /// A setting that is invalid or that this sink does not support, a call from outside a Tokio runtime, or a runtime
    /// without a timer.
    pub fn start(self) -> Result<BatchSql, StartError> {
        let Self { sink, mut config, tables, reporters, dead_letters } = self;
        config.tables.extend(tables);
        config.validate()?;
        let concurrency = sink.max_concurrency().unwrap_or(usize::MAX).min(config.max_concurrency).max(1);
        let efficient_batch_rows = sink.efficient_batch_rows();
        let largest = config.largest_batch(efficient_batch_rows, concurrency);
        if config.isolation == Isolation::AtomicBatch && largest > 1 && !sink.is_atomic() {
            let text = "cannot undo a part of a batch, so isolation cannot be AtomicBatch; use Isolation::Bisect, \
                        or set flush_size to 1, also that of each table";
            return Err(StartError::new(format!("{} {text}", sink.name())));
        }
        let runtime = Handle::try_current()
            .map_err(|_| StartError::new("there is no Tokio runtime here; call start() from within one"))?;
        check_timer()?;
        let consumers = Consumers::start(dead_letters)
            .map_err(|error| StartError::new(format!("the thread of the dead-letter file cannot start: {error}")))?;
        let budget = Budget::new(config.buffer_size, config.buffer_bytes);
        let ledger = Ledger::new(budget, consumers);
        let pipeline = Arc::new(PipelineContext::new(ledger, GuardedReporter::new(reporters)));
        let (messages, received) = mpsc::unbounded_channel();
        let (end, ended) = watch::channel(false);
        let (close_at, closes_at) = watch::channel(None);
        let executor = Arc::new(Executor::new(sink, Arc::clone(&pipeline), &config));
        let activity = Arc::new(Activity::default());
        let intake = Arc::new(Intake {
            pipeline: Arc::clone(&pipeline),
            closed: AtomicBool::new(false),
            flush_bytes: config.batch_bytes(concurrency),
            headroom: Headroom::new(config.buffer_bytes / HEADROOM),
        });
        let groups = Arc::new(Groups::new());
        let dispatcher = Dispatcher {
            executor: Arc::clone(&executor),
            messages: received,
            close_at: closes_at,
            pipeline: Arc::clone(&pipeline),
            intake: Arc::clone(&intake),
            activity: Arc::clone(&activity),
            groups: Arc::clone(&groups),
            concurrency,
            limits: WaitLimits {
                retry_times: config.retry_times(),
                has_max_age: config.has_max_age(),
                park_for: config.park_for.min(FAR),
            },
            when_full: config.when_full,
            warned: Warned::default(),
        };
        let books = Arc::clone(&pipeline);
        runtime.spawn(async move {
            // Dropped at the end, also by a panic: `ended` then shows it.
            let _end = end;
            dispatcher.run().await;
            books.ledger.finish().await;
            _end.send_replace(true);
        });
        Ok(BatchSql(Arc::new(Shared {
            engine: executor,
            groups,
            intake,
            pipeline,
            messages,
            activity,
            config,
            concurrency,
            efficient_batch_rows,
            runtime,
            ended,
            closing_since: OnceLock::new(),
            close_at,
            report: std::sync::Mutex::default(),
            together: std::sync::RwLock::default(),
        })))
    }
}

/// Open batches may reserve one part in this many of the byte budget before their rows arrive.
const HEADROOM: usize = 8;

/// Tokio has no function to check for a timer. Using a missing timer panics.
fn check_timer() -> Result<(), StartError> {
    let timer = catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO)));
    timer.map_err(|_| {
        let text = "this Tokio runtime has no timer; build it with enable_time() or enable_all()";
        StartError::new(text)
    })
}

impl BatchSql {
    /// Starts the configuration of a pipeline that writes to `sink`.
    pub fn builder<S: Sink>(sink: S) -> BatchSqlBuilder<S> {
        let config = PipelineConfig::default();
        BatchSqlBuilder { sink, config, tables: BTreeMap::new(), reporters: Vec::new(), dead_letters: Vec::new() }
    }
}
