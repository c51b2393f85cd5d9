//! Owns the front of the pipeline: the builder, and the handle that callers submit rows to.
//! Must not know how batches are written.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering as Atomic};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::config::PipelineConfig;
use crate::dead_letter::DeadLetter;
use crate::dispatch::{Activity, Dispatcher, Message};
use crate::error::{RowError, SinkError, StartError, SubmitAllError, SubmitError};
use crate::execute::{Engine, Executor};
use crate::group::{Intake, Table};
use crate::ledger::{Balance, Ledger};
use crate::queue::{Budget, Refusal, Reservation};
use crate::receipt::{FailedRow, Outcome, Receipt};
use crate::reporter::{FlushReason, GuardedReporter, MetricsReporter, NoopReporter};
use crate::row::{Row, TypedRow};
use crate::schema::Schema;
use crate::sink::Sink;
use crate::tables::Tables;

/// Longer than any process runs, and short enough to be added to the current time.
const FAR: Duration = Duration::from_secs(10 * 365 * 86_400);

/// `submit_all` reserves room for this many rows at once.
const CHUNK_ROWS: usize = 64;

/// The batch writer: many tasks submit rows, batches reach the database, every row has an outcome.
///
/// Cloning is cheap and every clone writes to the same pipeline. When the last clone is dropped
/// without [`close`](Self::close), the pipeline drains in the background and warns; rows that are not
/// written when the runtime ends are lost.
#[derive(Clone)]
pub struct BatchSql(Arc<Shared>);

struct Shared {
    engine: Arc<dyn Engine>,
    tables: Arc<Tables>,
    intake: Intake,
    activity: Arc<Activity>,
    config: PipelineConfig,
    concurrency: usize,
    /// `true` once the dispatcher has ended and everything has its outcome.
    ended: watch::Receiver<bool>,
    /// When `close` was first called.
    closing_since: OnceLock<Instant>,
    report: std::sync::Mutex<Option<CloseReport>>,
}

/// Configures a pipeline. Made by [`BatchSql::builder`].
#[must_use = "a builder does nothing until start() is called"]
pub struct BatchSqlBuilder<S> {
    sink: S,
    config: PipelineConfig,
    reporter: Arc<dyn MetricsReporter>,
    dead_letter: Option<DeadLetter>,
}

impl<S> fmt::Debug for BatchSqlBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchSqlBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What `close` found when it was done.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CloseReport {
    /// Every row since the start and what became of it; nothing is in flight any more.
    pub balance: Balance,
    /// The rows that were given up since `close` was called, with their reasons. Earlier ones went to
    /// their receipts and to [`on_failed_row`](BatchSqlBuilder::on_failed_row).
    pub unwritten: Vec<FailedRow>,
    /// How long draining took.
    pub took: Duration,
}

impl CloseReport {
    /// True when no row since the start of the pipeline failed: each was written, `Ignored` or
    /// `Superseded`. A row that was rejected and submitted again, mended, still counts as failed; look
    /// at [`unwritten`](Self::unwritten) for what this call had to give up.
    pub fn is_complete(&self) -> bool {
        self.balance.failed() == 0 && self.balance.in_flight() == 0
    }
}

/// The dispatcher ended by a defect before everything had an outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline ended before everything was written; the receipts tell which rows")]
pub struct FlushError(());

impl<S: Sink> BatchSqlBuilder<S> {
    /// Sets the sizes, times and limits; the default is [`PipelineConfig::default`].
    pub fn config(mut self, config: PipelineConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets the observer; the default reports nothing.
    pub fn metrics_reporter(mut self, reporter: impl MetricsReporter) -> Self {
        self.reporter = Arc::new(reporter);
        self
    }

    /// Calls back with every row that ends as rejected, expired, purged or unknown, whether it has a
    /// receipt or not.
    ///
    /// The callback runs on the pipeline's tasks before the row's room is given back: it must not
    /// block, and while it runs it slows the pipeline down. A panic in it is caught and logged.
    pub fn on_failed_row(mut self, callback: impl Fn(&Outcome) + Send + Sync + 'static) -> Self {
        self.dead_letter = Some(DeadLetter::new(callback));
        self
    }

    /// Validates the configuration and starts the pipeline on the current Tokio runtime. The database
    /// is not contacted before the first row, or [`BatchSql::prepare`]. The runtime needs its time driver
    /// (`enable_time` or `enable_all`; `#[tokio::main]` has it).
    ///
    /// # Errors
    /// A setting that cannot work, or a call from outside a Tokio runtime.
    pub fn start(self) -> Result<BatchSql, StartError> {
        let Self { sink, config, reporter, dead_letter } = self;
        config.validate()?;
        let runtime = Handle::try_current()
            .map_err(|_| StartError::new("there is no Tokio runtime here; call start() from within one"))?;
        let concurrency = sink.max_concurrency().unwrap_or(usize::MAX).min(config.max_concurrency).max(1);
        let budget = Budget::new(config.buffer_size, config.buffer_bytes);
        let ledger = Arc::new(Ledger::new(budget, GuardedReporter::new(reporter), dead_letter));
        let (sender, messages) = mpsc::unbounded_channel();
        let (draining, drains) = watch::channel(false);
        let (end, ended) = watch::channel(false);
        let executor = Arc::new(Executor {
            sink,
            ledger: Arc::clone(&ledger),
            draining: drains,
            retry_for: config.retry_for,
            statement_timeout: config.statement_timeout,
            isolation_budget: config.isolation_budget,
            plans: RwLock::default(),
        });
        let activity = Arc::new(Activity::default());
        let tables = Arc::new(Tables::new());
        let dispatcher = Dispatcher {
            tables: Arc::clone(&tables),
            writer: Arc::clone(&executor),
            messages,
            ledger: Arc::clone(&ledger),
            activity: Arc::clone(&activity),
            draining,
            concurrency,
            flush_interval: config.flush_interval.min(FAR),
        };
        runtime.spawn(async move {
            // Dropped at the end, also by a panic: then `ended` says so.
            let _end = end;
            dispatcher.run().await;
            _end.send_replace(true);
        });
        let intake = Intake {
            messages: sender,
            ledger,
            closed: AtomicBool::new(false),
            flush_size: config.flush_size,
            flush_bytes: config.flush_bytes,
        };
        Ok(BatchSql(Arc::new(Shared {
            engine: executor,
            tables,
            intake,
            activity,
            config,
            concurrency,
            ended,
            closing_since: OnceLock::new(),
            report: std::sync::Mutex::default(),
        })))
    }
}

impl BatchSql {
    /// Starts the configuration of a pipeline that writes to `sink`.
    pub fn builder<S: Sink>(sink: S) -> BatchSqlBuilder<S> {
        BatchSqlBuilder { sink, config: PipelineConfig::default(), reporter: Arc::new(NoopReporter), dead_letter: None }
    }

    /// Checks now that the table of `schema` can be written: it exists and has the columns. Without
    /// this call the first batch finds out.
    ///
    /// # Errors
    /// What the driver found, for example a missing column.
    pub async fn prepare(&self, schema: &Schema) -> Result<(), SinkError> {
        self.0.engine.prepare(schema).await
    }

    /// [`prepare`](Self::prepare) for a row type.
    ///
    /// # Errors
    /// What the driver found, for example a missing column.
    pub async fn prepare_for<R: TypedRow>(&self) -> Result<(), SinkError> {
        self.prepare(R::type_schema()).await
    }

    /// Accepts a row, waiting for room when the buffer is full.
    ///
    /// # Errors
    /// The row does not fit its table or can never fit the buffer, or the pipeline is closed.
    ///
    /// # Cancel safety
    /// Cancelled means not accepted: the only wait is the one for room.
    pub async fn submit<R: Row + ?Sized>(&self, row: &R) -> Result<(), SubmitError> {
        self.accept(row, false).await.map(drop)
    }

    /// Accepts a row and returns a receipt that resolves to its outcome.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    ///
    /// # Cancel safety
    /// As [`submit`](Self::submit).
    pub async fn submit_tracked<R: Row + ?Sized>(&self, row: &R) -> Result<Receipt, SubmitError> {
        let receipt = self.accept(row, true).await?;
        Ok(receipt.expect("a tracked row has a receipt"))
    }

    /// Accepts a row only if there is room now.
    ///
    /// # Errors
    /// As [`submit`](Self::submit), and [`is_full`](SubmitError::is_full) when there is no room.
    pub fn try_submit<R: Row + ?Sized>(&self, row: &R) -> Result<(), SubmitError> {
        let accepted = self.admit(row).and_then(|(table, bytes)| {
            let mut reservation = self.try_reserve(1, bytes)?;
            self.push(table, row, bytes, false, &mut reservation).map(drop)
        });
        accepted.inspect_err(|error| self.refused(row, error))
    }

    /// Accepts a row, waiting for room at most `limit`.
    ///
    /// # Errors
    /// As [`submit`](Self::submit), and [`is_full`](SubmitError::is_full) when time ran out.
    ///
    /// # Cancel safety
    /// As [`submit`](Self::submit).
    pub async fn submit_timeout<R: Row + ?Sized>(&self, row: &R, limit: Duration) -> Result<(), SubmitError> {
        match tokio::time::timeout(limit, self.submit(row)).await {
            Ok(result) => result,
            Err(_) => Err(SubmitError::full()).inspect_err(|error| self.refused(row, error)),
        }
    }

    /// Accepts many rows in their order, waiting for room as needed; returns how many.
    ///
    /// # Errors
    /// The first row that is not accepted ends the call;
    /// [`accepted`](SubmitAllError::accepted) rows before it were accepted.
    ///
    /// # Cancel safety
    /// Rows that were accepted before the cancellation stay accepted; use
    /// [`submit`](Self::submit) where the caller must know how many.
    pub async fn submit_all<I>(&self, rows: I) -> Result<usize, SubmitAllError>
    where
        I: IntoIterator,
        I::Item: Row,
    {
        // A chunk never asks for more than a part of the budget, so that others get their turn.
        let max_rows = (self.0.config.buffer_size / 4).clamp(1, CHUNK_ROWS);
        let max_bytes = self.0.config.buffer_bytes / 4;
        let mut chunk = Vec::with_capacity(max_rows);
        let (mut bytes, mut accepted) = (0, 0);
        for row in rows {
            let row_bytes = match self.row_bytes(&row).inspect_err(|error| self.refused(&row, error)) {
                Ok(row_bytes) => row_bytes,
                Err(source) => {
                    self.accept_chunk(&mut chunk, bytes, &mut accepted).await?;
                    return Err(SubmitAllError { accepted, source });
                }
            };
            if chunk.len() == max_rows || (!chunk.is_empty() && bytes + row_bytes > max_bytes) {
                self.accept_chunk(&mut chunk, std::mem::take(&mut bytes), &mut accepted).await?;
            }
            bytes += row_bytes;
            chunk.push((row, row_bytes));
        }
        self.accept_chunk(&mut chunk, bytes, &mut accepted).await?;
        Ok(accepted)
    }

    /// Writes everything that was accepted before this call, and returns the balance once all of it
    /// has an outcome.
    ///
    /// # Errors
    /// Only after a defect of the pipeline itself; failed rows are in the balance.
    ///
    /// # Cancel safety
    /// Cancelling stops the wait, not the writing.
    pub async fn flush(&self) -> Result<Balance, FlushError> {
        let (done, flushed) = oneshot::channel();
        if self.0.intake.messages.send(Message::Flush(done)).is_ok() && flushed.await.is_ok() {
            return Ok(self.balance());
        }
        // The pipeline is closing or closed: then everything ends with it.
        if self.ended().await { Ok(self.balance()) } else { Err(FlushError(())) }
    }

    /// Refuses new rows, writes everything that was accepted, and reports. After `deadline` what was
    /// not yet sent ends as `Purged`, what is being written as `Unknown`; both are in the report.
    ///
    /// Every call, from any clone, gets the same report; the deadline of the first one holds. When it
    /// returns, every row counted as written is in the database.
    ///
    /// # Cancel safety
    /// Cancelling stops the wait, not the closing.
    pub async fn close(&self, deadline: Duration) -> CloseReport {
        self.0.intake.closed.store(true, Atomic::SeqCst);
        let begin = *self.0.closing_since.get_or_init(|| {
            let begin = Instant::now();
            self.0.intake.ledger.begin_closing();
            self.0.intake.ledger.budget.close();
            // `send` fails only when the dispatcher has already ended.
            let _ = self.0.intake.messages.send(Message::Close { deadline: begin + deadline.min(FAR) });
            begin
        });
        self.ended().await;
        let mut report = self.0.report.lock().unwrap_or_else(PoisonError::into_inner);
        report
            .get_or_insert_with(|| CloseReport {
                balance: self.balance(),
                unwritten: self.0.intake.ledger.take_unwritten(),
                took: begin.elapsed(),
            })
            .clone()
    }

    /// The balance at this moment.
    pub fn balance(&self) -> Balance {
        // Outcomes first: a row that is accepted in between may be missing, but never counts twice.
        let outcomes = self.0.intake.ledger.outcomes();
        let accepted = self.0.tables.all().iter().map(|table| table.accepted()).sum();
        Balance { accepted, outcomes }
    }

    /// The settings as they were given; a sink may lower `max_concurrency`.
    pub fn config(&self) -> &PipelineConfig {
        &self.0.config
    }

    /// True once the dispatcher has ended in order. If it ended by a defect, nobody will write what is
    /// still in the lanes: it ends here.
    async fn ended(&self) -> bool {
        let in_order = self.0.ended.clone().wait_for(|ended| *ended).await.is_ok();
        if !in_order {
            for table in self.0.tables.all() {
                for lane in 0..table.lane_count() {
                    drop(table.take_all(lane, FlushReason::Drain, &self.0.intake.ledger));
                }
            }
        }
        in_order
    }

    async fn accept<R: Row + ?Sized>(&self, row: &R, tracked: bool) -> Result<Option<Receipt>, SubmitError> {
        let accepted = async {
            let (table, bytes) = self.admit(row)?;
            let mut reservation = match self.try_reserve(1, bytes) {
                Err(error) if error.is_full() => self.wait_for_room(table, 1, bytes).await?,
                other => other?,
            };
            self.push(table, row, bytes, tracked, &mut reservation)
        };
        accepted.await.inspect_err(|error| self.refused(row, error))
    }

    /// Accepts the rows of a chunk with one reservation, and empties it.
    async fn accept_chunk<R: Row>(
        &self,
        chunk: &mut Vec<(R, usize)>,
        bytes: usize,
        accepted: &mut usize,
    ) -> Result<(), SubmitAllError> {
        let mut pushed = 0;
        let result = self.push_chunk(chunk, bytes, &mut pushed).await;
        *accepted += pushed;
        if let (Err(error), Some((row, _))) = (&result, chunk.get(pushed)) {
            self.refused(row, error);
        }
        chunk.clear();
        result.map_err(|source| SubmitAllError { accepted: *accepted, source })
    }

    async fn push_chunk<R: Row>(
        &self,
        chunk: &[(R, usize)],
        bytes: usize,
        pushed: &mut usize,
    ) -> Result<(), SubmitError> {
        let Some((first, _)) = chunk.first() else { return Ok(()) };
        let mut table = self.table(first.schema())?;
        let mut reservation = match self.try_reserve(chunk.len(), bytes) {
            Err(error) if error.is_full() => self.wait_for_room(table, chunk.len(), bytes).await?,
            other => other?,
        };
        for (row, bytes) in chunk {
            if table.schema() != row.schema() {
                table = self.table(row.schema())?;
            }
            self.push(table, row, *bytes, false, &mut reservation)?;
            *pushed += 1;
        }
        Ok(())
    }

    /// The row's table and the room it needs.
    #[inline]
    fn admit<R: Row + ?Sized>(&self, row: &R) -> Result<(&Arc<Table>, usize), SubmitError> {
        Ok((self.table(row.schema())?, self.row_bytes(row)?))
    }

    /// The room that a row needs.
    #[inline]
    fn row_bytes<R: Row + ?Sized>(&self, row: &R) -> Result<usize, SubmitError> {
        let (schema, limit) = (row.schema(), self.0.config.buffer_bytes);
        let bytes = schema.fixed_row_len() + row.variable_len();
        if bytes > limit { Err(RowError::too_large(schema, bytes, limit).into()) } else { Ok(bytes) }
    }

    #[inline]
    fn table(&self, schema: &Schema) -> Result<&Arc<Table>, SubmitError> {
        match self.0.tables.get(schema) {
            Some(table) => Ok(table),
            None => self.new_table(schema),
        }
    }

    #[cold]
    fn new_table(&self, schema: &Schema) -> Result<&Arc<Table>, SubmitError> {
        let limits = self.0.engine.limits(schema);
        if schema.columns().len() > limits.max_columns {
            return Err(RowError::too_wide(schema, limits.max_columns).into());
        }
        let make = |number| Table::new(schema.clone(), limits, &self.0.config, self.0.concurrency, number);
        Ok(self.0.tables.get_or_insert(schema, make))
    }

    #[inline]
    fn try_reserve(&self, rows: usize, bytes: usize) -> Result<Reservation<'_>, SubmitError> {
        self.0.intake.ledger.budget.try_reserve(rows, bytes).map_err(submit_error)
    }

    async fn wait_for_room(&self, table: &Table, rows: usize, bytes: usize) -> Result<Reservation<'_>, SubmitError> {
        let ledger = &self.0.intake.ledger;
        let _reported = ReportedWait { ledger, table: table.schema(), begin: Instant::now() };
        let ask = || {
            if !self.0.activity.is_busy() {
                // If the dispatcher is gone, the budget is closed and the wait ends at once.
                let _ = self.0.intake.messages.send(Message::Pressure);
            }
        };
        ledger.budget.reserve(rows, bytes, ask).await.map_err(submit_error)
    }

    #[inline]
    fn push<R: Row + ?Sized>(
        &self,
        table: &Arc<Table>,
        row: &R,
        bytes: usize,
        tracked: bool,
        reservation: &mut Reservation<'_>,
    ) -> Result<Option<Receipt>, SubmitError> {
        table.push(&self.0.intake, row, bytes, tracked, reservation)
    }

    #[cold]
    fn refused<R: Row + ?Sized>(&self, row: &R, error: &SubmitError) {
        let table = row.schema().table_display();
        self.0.intake.ledger.reporter.call(|reporter| reporter.row_refused(table, error.reason()));
    }
}

/// Reports a wait for room when it ends, also when it ends by cancellation.
struct ReportedWait<'a> {
    ledger: &'a Ledger,
    table: &'a Schema,
    begin: Instant,
}

impl Drop for ReportedWait<'_> {
    fn drop(&mut self) {
        let waited = self.begin.elapsed();
        self.ledger.reporter.call(|reporter| reporter.submit_waited(self.table.table_display(), waited));
    }
}

fn submit_error(refusal: Refusal) -> SubmitError {
    match refusal {
        Refusal::Full => SubmitError::full(),
        Refusal::Closed => SubmitError::closed(),
    }
}

impl fmt::Debug for BatchSql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchSql").field("config", &self.0.config).finish_non_exhaustive()
    }
}
