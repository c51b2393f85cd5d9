//! Owns the handle that callers hold: cloning, preparing, the balance.
//! Must not know how batches are written.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::config::PipelineConfig;
use crate::config_table::TableSettings;
use crate::dispatch::state::Activity;
use crate::error::SinkError;
use crate::intake::groups::{Found, Groups};
use crate::intake::message::Message;
use crate::intake::table::{Intake, Table};
use crate::model::schema::Schema;
use crate::outcome::ledger::Balance;
use crate::pipeline::error::SubmitError;
use crate::pipeline::report::CloseReport;
use crate::row::error::RowError;
use crate::row::traits::{Row, TypedRow};
use crate::write::context::PipelineContext;
use crate::write::engine::Engine;
use crate::write::health::Health;
use crate::write::sink::Limits;

/// The batch writer: many tasks submit rows, batches reach the database, every row has an outcome.
///
/// Cloning is cheap and every clone writes to the same pipeline. When the last clone is dropped
/// without [`close`](Self::close), the pipeline drains in the background and warns; rows that are not
/// written when the runtime ends are lost.
#[derive(Clone)]
pub struct BatchSql(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) groups: Arc<Groups>,
    pub(crate) intake: Arc<Intake>,
    pub(crate) pipeline: Arc<PipelineContext>,
    pub(crate) messages: mpsc::UnboundedSender<Message>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) config: PipelineConfig,
    pub(crate) concurrency: usize,
    /// Of the sink.
    pub(crate) efficient_batch_rows: usize,
    /// The runtime of the pipeline: callers may be outside of it.
    pub(crate) runtime: Handle,
    /// `true` once the dispatcher has ended and everything has its outcome.
    pub(crate) ended: watch::Receiver<bool>,
    /// When `close` was first called.
    pub(crate) closing_since: OnceLock<Instant>,
    /// The earliest deadline of all calls of `close`.
    pub(crate) close_at: watch::Sender<Option<Instant>>,
    pub(crate) report: std::sync::Mutex<Option<CloseReport>>,
    /// Shared while rows are accepted together, exclusive while the pipeline closes.
    pub(crate) together: std::sync::RwLock<()>,
}

/// A handle that does not keep the pipeline open, for tasks that live as long as it, such as consumers of
/// dead letters. Made by [`BatchSql::downgrade`].
#[derive(Clone)]
pub struct WeakBatchSql(Weak<Shared>);

impl WeakBatchSql {
    /// The pipeline, while any other handle is left.
    pub fn upgrade(&self) -> Option<BatchSql> {
        self.0.upgrade().map(BatchSql)
    }
}

impl fmt::Debug for WeakBatchSql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakBatchSql").finish_non_exhaustive()
    }
}

impl BatchSql {
    /// A handle that does not keep the pipeline open.
    pub fn downgrade(&self) -> WeakBatchSql {
        WeakBatchSql(Arc::downgrade(&self.0))
    }

    /// Checks now that the table of `schema` can be written: it exists and has the columns. Without this call, the
    /// first batch checks it.
    ///
    /// # Errors
    /// What the driver found, for example a missing column. PostgreSQL, MySQL and SQLite report all problems of the table in
    /// one error, of which the message shows at most 20. Raw SQL of a rule is checked only when there are no others.
    pub async fn prepare(&self, schema: &Schema) -> Result<(), SinkError> {
        // A known table gets its share of the buffer before it has a row. If the group cannot be created, the sink
        // returns the reason.
        let _ = self.group(schema);
        self.0.engine.prepare(schema).await
    }

    /// [`prepare`](Self::prepare) for a row type.
    ///
    /// # Errors
    /// What the driver found, for example a missing column.
    ///
    /// # Panics
    /// The declaration of the row type is invalid, for example `add` for a text; also every other first use of the type panics.
    pub async fn prepare_for<R: TypedRow>(&self) -> Result<(), SinkError> {
        self.prepare(R::type_schema()).await
    }

    /// The known state of the database at this moment: whether it can be reached, and which tables cannot be written,
    /// since when and why. For readiness probes; it does not contact the database. The state of an idle pipeline is
    /// that of its last write: [`check_connection`](Self::check_connection) checks it now. A receipt may have its
    /// outcome shortly before a table is no longer parked here; [`flush`](Self::flush) waits for both.
    ///
    /// ```
    /// # use batchsql_core::BatchSql;
    /// # fn probe(db: &BatchSql) -> u16 {
    /// let health = db.health();
    /// for table in &health.parked {
    ///     println!("{} cannot be written: {}", table.table, table.error);
    /// }
    /// if health.is_ready() { 200 } else { 503 }
    /// # }
    /// ```
    pub fn health(&self) -> Health {
        self.0.pipeline.health.get()
    }

    /// Gets a connection and returns it, to check whether the database can be reached now. It takes at most
    /// `statement_timeout`, and waits if all connections of the pool are in use.
    ///
    /// # Errors
    /// No connection can be established: the error of the driver.
    ///
    /// # Cancel safety
    /// Dropping it is safe.
    pub async fn check_connection(&self) -> Result<(), SinkError> {
        self.0.engine.check_connection().await
    }

    /// Asks the database which of its settings may lose what it has confirmed in a crash of the server, and returns one with what
    /// to do; `None` if there is none, or if nothing is known. SQLite: it sets `synchronous` of its connection to `FULL` if that
    /// is lower. The other databases are only asked. It takes at most `statement_timeout`.
    ///
    /// # Errors
    /// The database cannot be asked.
    ///
    /// # Cancel safety
    /// Dropping it is safe.
    pub async fn make_durable(&self) -> Result<Option<String>, SinkError> {
        self.0.engine.make_durable().await
    }

    /// The balance at this moment.
    pub fn balance(&self) -> Balance {
        // Outcomes first: a row that is accepted in between may be missing, but never counts twice.
        let outcomes = self.0.pipeline.ledger.outcomes();
        let accepted = self.0.groups.accepted() + self.0.pipeline.ledger.accepted_ended();
        Balance { accepted, outcomes }
    }

    /// The settings as they were given; a sink may lower `max_concurrency`.
    pub fn config(&self) -> &PipelineConfig {
        &self.0.config
    }

    /// The row's group with its table, and the bytes that it needs.
    #[inline]
    pub(crate) fn admit<R: Row + ?Sized>(&self, row: &R) -> Result<(Found, usize), SubmitError> {
        Ok((self.group(row.schema())?, self.row_bytes(row)?))
    }

    /// The bytes that a row needs.
    #[inline]
    pub(crate) fn row_bytes<R: Row + ?Sized>(&self, row: &R) -> Result<usize, RowError> {
        let (schema, limit) = (row.schema(), self.0.config.buffer_bytes);
        let bytes = schema.fixed_row_len() + row.variable_len();
        if bytes > limit { Err(RowError::too_large(schema, bytes, limit)) } else { Ok(bytes) }
    }

    #[inline]
    pub(crate) fn group(&self, schema: &Schema) -> Result<Found, SubmitError> {
        match self.0.groups.get(schema) {
            Some(group) => Ok(group),
            None => self.new_group(schema),
        }
    }

    #[cold]
    fn new_group(&self, schema: &Schema) -> Result<Found, SubmitError> {
        let limits = self.limits(schema)?;
        let settings = self.settings_of(schema);
        let make_table = |number| Table::new(number, schema, settings, self.0.concurrency, &self.0.intake);
        let added = self.0.groups.get_or_insert(schema, limits, settings.is_in_order(), make_table);
        if added.tables > 1 {
            self.0.pipeline.ledger.budget.share_fairly();
        }
        self.0.engine.forget(&added.retired);
        Ok(Found::from(added.known))
    }

    /// The settings of the table of a schema.
    pub(crate) fn settings_of(&self, schema: &Schema) -> TableSettings {
        let Shared { config, concurrency, efficient_batch_rows, .. } = &*self.0;
        config.of_table(schema.table_display(), *efficient_batch_rows, *concurrency)
    }

    /// The limits for rows of a schema that has no group.
    pub(crate) fn limits(&self, schema: &Schema) -> Result<Limits, RowError> {
        let limits = self.0.engine.limits(schema);
        let is_too_wide = schema.columns().len() > limits.max_columns;
        if is_too_wide { Err(RowError::too_wide(schema, limits.max_columns)) } else { Ok(limits) }
    }

    #[cold]
    pub(crate) fn report_refused<R: Row + ?Sized>(&self, row: &R, error: &SubmitError) {
        let table = row.schema().table_display();
        self.0.pipeline.reporter.call(|reporter| reporter.row_refused(table, error.reason()));
    }
}

impl fmt::Debug for BatchSql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = self.0.groups.count();
        f.debug_struct("BatchSql").field("groups", &groups).field("config", &self.0.config).finish_non_exhaustive()
    }
}
