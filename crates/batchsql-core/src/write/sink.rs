//! Owns the contract between the pipeline and a database driver.
//! Must not know any driver.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use crate::error::SinkError;
use crate::model::batch::Rows;
use crate::model::schema::Schema;
use crate::row::writer::ValueRules;

/// What a sink can take at once. `usize::MAX` means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Columns that one row may have, because a statement can bind no more values.
    pub max_columns: usize,
    /// Values refused at admission.
    pub values: ValueRules,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_columns: usize::MAX, values: ValueRules::default() }
    }
}

impl Limits {
    /// Sets the number of columns that one row may have.
    #[must_use]
    pub fn with_max_columns(mut self, columns: usize) -> Self {
        self.max_columns = columns;
        self
    }

    /// Sets the values refused at admission.
    #[must_use]
    pub fn with_values(mut self, values: ValueRules) -> Self {
        self.values = values;
        self
    }
}

/// What a successful write did, where rows differ from "written".
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Written {
    /// Rows, by index within the view, whose key was already there (`Conflict::Ignore`). Ascending.
    pub ignored: Vec<u32>,
    /// Rows that the database refused on their own, with the reason; every row that is not listed is durable.
    /// Ascending by index.
    pub rejected: Vec<(u32, SinkError)>,
    /// Rows without an outcome, with the reason, for databases without transactions. What becomes of them depends on
    /// the class: `Transient` and `Resource` say that the row was not written, and it is tried again, in its order
    /// among the other unfinished rows; `Unknown` says that it may be written, and it is tried again where that is
    /// harmless. Any other class rejects the row. Ascending by index.
    ///
    /// A row must not be listed here with a later row of the same key written: the repeat would put the older one over
    /// the newer one.
    pub unfinished: Vec<(u32, SinkError)>,
    /// The time in the database, where the driver knows it better than its caller, for example because
    /// the batch waited in a queue of the driver. It is what the metrics show.
    pub took: Option<Duration>,
}

impl Written {
    /// Whether the rows listed are rows of the write, each once.
    pub(crate) fn is_sound(&self, rows: usize) -> bool {
        let failed = self.rejected.iter().chain(&self.unfinished).map(|(row, _)| *row);
        let mut listed: Vec<u32> = self.ignored.iter().copied().chain(failed).collect();
        listed.sort_unstable();
        self.unfinished.is_sorted_by_key(|(row, _)| *row)
            && listed.windows(2).all(|pair| pair[0] != pair[1])
            && listed.last().is_none_or(|last| (*last as usize) < rows)
    }
}

/// The connections of a pool at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolState {
    /// Connections that are being used, also by others than the pipeline.
    pub in_use: usize,
    /// Open connections that nobody uses.
    pub idle: usize,
    /// The most connections that the pool opens.
    pub max: usize,
}

/// One attempt to write rows, seen by the pipeline and by the driver. Clones are the same attempt.
///
/// When the pipeline gives an attempt up (a timeout, the deadline of `close`), its rows end as `Unknown`
/// if they may have been sent. A driver that keeps writes in a queue of its own calls
/// [`defer`](Self::defer) first and [`begin`](Self::begin) when their turn has come: then rows that
/// were only waiting are known not to be written. Without these calls a write has begun when it is
/// called.
#[derive(Debug, Clone)]
pub struct Attempt(Arc<AttemptState>);

#[derive(Debug)]
struct AttemptState {
    stage: AtomicU8,
    atomic: bool,
}

const BEGUN: u8 = 0;
const DEFERRED: u8 = 1;
const ABANDONED: u8 = 2;

impl Attempt {
    /// An attempt, for tests of drivers and for sinks that wrap another sink.
    pub fn new(atomic: bool) -> Self {
        Self(Arc::new(AttemptState { stage: AtomicU8::new(BEGUN), atomic }))
    }

    /// Whether one refused row must refuse all of them ([`Isolation::AtomicBatch`]): then
    /// [`Written::rejected`] and [`Written::unfinished`] must stay empty.
    ///
    /// [`Isolation::AtomicBatch`]: crate::Isolation::AtomicBatch
    pub fn is_atomic(&self) -> bool {
        self.0.atomic
    }

    /// Says that nothing has been sent, and nothing will be before [`begin`](Self::begin).
    pub fn defer(&self) {
        // An attempt that was given up meanwhile stays so.
        let _ = self.0.stage.compare_exchange(BEGUN, DEFERRED, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Says that the rows are about to be sent. `false`: the pipeline has given the attempt up, and
    /// nothing of it may be written.
    #[must_use = "an attempt that was given up must not be written"]
    pub fn begin(&self) -> bool {
        match self.0.stage.compare_exchange(DEFERRED, BEGUN, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(stage) => stage == BEGUN,
        }
    }

    /// Gives the attempt up; true when nothing was sent and nothing will be.
    pub(crate) fn abandon(&self) -> bool {
        self.0.stage.swap(ABANDONED, Ordering::AcqRel) == DEFERRED
    }
}

/// A database driver.
///
/// The pipeline calls [`acquire`](Sink::acquire), then [`prepare`](Sink::prepare) once per schema,
/// then [`write`](Sink::write). It may drop any of these futures (timeout, shutdown): a driver must
/// then leave no transaction open. A connection is given back by dropping it.
pub trait Sink: Send + Sync + 'static {
    /// A connection, held for one batch, or for batches that follow each other without a pause (at most a second).
    type Conn: Send;
    /// What is prepared once per schema: SQL text, column types, the chosen strategy.
    type Plan: Send + Sync + 'static;

    /// The database's name in metrics and logs, for example `sqlite`.
    fn name(&self) -> &'static str;

    /// The limits for rows of this schema.
    fn limits(&self, schema: &Schema) -> Limits {
        let _ = schema;
        Limits::default()
    }

    /// How many batches can be written at once, usually the size of the connection pool; `None`
    /// when the sink has no limit of its own.
    fn max_concurrency(&self) -> Option<usize> {
        None
    }

    /// Whether writing the same rows again is harmless, so that a batch whose commit got lost may be
    /// repeated. The default: every conflict rule except none.
    fn is_repeatable(&self, schema: &Schema) -> bool {
        !schema.key_columns().is_empty()
    }

    /// Whether rows are to be sorted by key inside a batch, so that several writers lock the rows of a table in
    /// one order and do not wait for each other in a circle. Rows with equal keys keep their order. Default: no.
    fn sorts_by_key(&self) -> bool {
        false
    }

    /// Whether a batch can be undone as a whole, so that [`Isolation::AtomicBatch`](crate::Isolation::AtomicBatch)
    /// can be kept. A pipeline with this setting does not start otherwise, unless its `flush_size` is 1. Default:
    /// yes.
    fn is_atomic(&self) -> bool {
        true
    }

    /// The connections of the sink's pool at this moment, for the metrics; `None` where there is no pool.
    fn pool(&self) -> Option<PoolState> {
        None
    }

    /// Gets a connection.
    fn acquire(&self) -> impl Future<Output = Result<Self::Conn, SinkError>> + Send;

    /// Prepares the writing of one schema: checks table and columns, chooses the statement.
    fn prepare(
        &self,
        conn: &mut Self::Conn,
        schema: &Schema,
    ) -> impl Future<Output = Result<Self::Plan, SinkError>> + Send;

    /// Writes the rows in one transaction, in their order. Without transactions, each row has its own outcome.
    ///
    /// `Ok`: the transaction is committed; every row that is not listed in the result is durable.
    /// `Err`: no row is durable, unless the class is [`Unknown`](crate::ErrorClass::Unknown).
    /// `attempt` says whether single rows may be refused, and takes part in the decision whether a
    /// write that is given up has begun.
    fn write(
        &self,
        conn: &mut Self::Conn,
        plan: &Self::Plan,
        rows: Rows<'_>,
        attempt: &Attempt,
    ) -> impl Future<Output = Result<Written, SinkError>> + Send;
}

type BoxConn = Box<dyn std::any::Any + Send>;
type BoxPlan = Box<dyn std::any::Any + Send + Sync>;

/// The object-safe form of [`Sink`], for a driver chosen at run time. It costs one box per batch.
#[async_trait]
trait ErasedSink: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    fn limits(&self, schema: &Schema) -> Limits;
    fn max_concurrency(&self) -> Option<usize>;
    fn is_repeatable(&self, schema: &Schema) -> bool;
    fn sorts_by_key(&self) -> bool;
    fn is_atomic(&self) -> bool;
    fn pool(&self) -> Option<PoolState>;
    async fn acquire(&self) -> Result<BoxConn, SinkError>;
    async fn prepare(&self, conn: &mut BoxConn, schema: &Schema) -> Result<BoxPlan, SinkError>;
    async fn write(
        &self,
        conn: &mut BoxConn,
        plan: &BoxPlan,
        rows: Rows<'_>,
        attempt: &Attempt,
    ) -> Result<Written, SinkError>;
}

const OWN_TYPE: &str = "a DynSink hands its own connections and plans back to itself";

#[async_trait]
impl<S: Sink> ErasedSink for S {
    fn name(&self) -> &'static str {
        Sink::name(self)
    }

    fn limits(&self, schema: &Schema) -> Limits {
        Sink::limits(self, schema)
    }

    fn max_concurrency(&self) -> Option<usize> {
        Sink::max_concurrency(self)
    }

    fn is_repeatable(&self, schema: &Schema) -> bool {
        Sink::is_repeatable(self, schema)
    }

    fn sorts_by_key(&self) -> bool {
        Sink::sorts_by_key(self)
    }

    fn is_atomic(&self) -> bool {
        Sink::is_atomic(self)
    }

    fn pool(&self) -> Option<PoolState> {
        Sink::pool(self)
    }

    async fn acquire(&self) -> Result<BoxConn, SinkError> {
        Ok(Box::new(Sink::acquire(self).await?))
    }

    async fn prepare(&self, conn: &mut BoxConn, schema: &Schema) -> Result<BoxPlan, SinkError> {
        let conn = conn.downcast_mut::<S::Conn>().expect(OWN_TYPE);
        Ok(Box::new(Sink::prepare(self, conn, schema).await?))
    }

    async fn write(
        &self,
        conn: &mut BoxConn,
        plan: &BoxPlan,
        rows: Rows<'_>,
        attempt: &Attempt,
    ) -> Result<Written, SinkError> {
        let conn = conn.downcast_mut::<S::Conn>().expect(OWN_TYPE);
        let plan = plan.downcast_ref::<S::Plan>().expect(OWN_TYPE);
        Sink::write(self, conn, plan, rows, attempt).await
    }
}

/// Any sink behind one type, so that the database can be chosen at run time.
#[derive(Clone)]
pub struct DynSink(Arc<dyn ErasedSink>);

impl DynSink {
    /// Wraps a sink.
    pub fn new<S: Sink>(sink: S) -> Self {
        Self(Arc::new(sink))
    }
}

impl std::fmt::Debug for DynSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DynSink").field(&self.0.name()).finish()
    }
}

impl Sink for DynSink {
    type Conn = BoxConn;
    type Plan = BoxPlan;

    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn limits(&self, schema: &Schema) -> Limits {
        self.0.limits(schema)
    }

    fn max_concurrency(&self) -> Option<usize> {
        self.0.max_concurrency()
    }

    fn is_repeatable(&self, schema: &Schema) -> bool {
        self.0.is_repeatable(schema)
    }

    fn sorts_by_key(&self) -> bool {
        self.0.sorts_by_key()
    }

    fn is_atomic(&self) -> bool {
        self.0.is_atomic()
    }

    fn pool(&self) -> Option<PoolState> {
        self.0.pool()
    }

    async fn acquire(&self) -> Result<BoxConn, SinkError> {
        self.0.acquire().await
    }

    async fn prepare(&self, conn: &mut BoxConn, schema: &Schema) -> Result<BoxPlan, SinkError> {
        self.0.prepare(conn, schema).await
    }

    async fn write(
        &self,
        conn: &mut BoxConn,
        plan: &BoxPlan,
        rows: Rows<'_>,
        attempt: &Attempt,
    ) -> Result<Written, SinkError> {
        self.0.write(conn, plan, rows, attempt).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorClass;

    #[test]
    fn a_sink_may_list_each_row_of_a_write_once() {
        let check = |ignored: &[u32], rejected: &[u32], unfinished: &[u32], sound| {
            let error = SinkError::new(ErrorClass::Row, "bad");
            let failed = |rows: &[u32]| rows.iter().map(|row| (*row, error.clone())).collect();
            let written = Written {
                ignored: ignored.to_vec(),
                rejected: failed(rejected),
                unfinished: failed(unfinished),
                ..Written::default()
            };
            assert_eq!(written.is_sound(3), sound, "{ignored:?} {rejected:?} {unfinished:?}");
        };
        check(&[], &[], &[], true);
        check(&[0], &[1], &[2], true);
        check(&[3], &[], &[], false);
        check(&[], &[3], &[], false);
        check(&[], &[], &[3], false);
        check(&[1, 1], &[], &[], false);
        check(&[1], &[1], &[], false);
        check(&[], &[1], &[1], false);
        check(&[], &[], &[2, 1], false);
    }
}
