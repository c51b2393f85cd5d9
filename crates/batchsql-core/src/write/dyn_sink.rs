//! Owns the form of a sink whose database is chosen at run time.
//! Must not know any driver.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::SinkError;
use crate::model::batch::Rows;
use crate::model::schema::Schema;
use crate::model::table_name::TableName;
use crate::model::table_schema::TableSchema;
use crate::pipeline_events::PoolState;
use crate::write::attempt::Attempt;
use crate::write::position::{Claim, Claimed, PartitionKey, Position, Removed, Step, StoredPosition};
use crate::write::session::{Session, SessionEnd};
use crate::write::sink::{Limits, Sink, Written};

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
    fn efficient_batch_rows(&self) -> usize;
    fn is_atomic(&self) -> bool;
    fn pool(&self) -> Option<PoolState>;
    fn late_write_limit(&self) -> Option<Duration>;
    async fn session(&self, conn: &mut BoxConn) -> Result<Option<Session>, SinkError>;
    fn known_session(&self, conn: &BoxConn) -> Option<Session>;
    async fn end_session(&self, session: &Session) -> Result<SessionEnd, SinkError>;
    async fn is_working(&self, session: &Session) -> Result<Option<bool>, SinkError>;
    async fn read_schema(&self, table: &TableName) -> Result<TableSchema, SinkError>;
    async fn find_table(&self, table: &TableName) -> Result<TableName, SinkError>;
    async fn make_durable(&self) -> Result<Option<String>, SinkError>;
    fn keeps_positions(&self) -> bool;
    async fn claim(&self, conn: &mut BoxConn, key: &PartitionKey, claim: &Claim) -> Result<Claimed, SinkError>;
    async fn advance(&self, conn: &mut BoxConn, step: &Step) -> Result<(), SinkError>;
    async fn positions(&self, conn: &mut BoxConn, source: &str) -> Result<Vec<StoredPosition>, SinkError>;
    async fn renew(
        &self,
        conn: &mut BoxConn,
        source: &str,
        owner: &str,
        lease: Duration,
    ) -> Result<Vec<StoredPosition>, SinkError>;
    async fn release(&self, conn: &mut BoxConn, position: &Position) -> Result<bool, SinkError>;
    async fn remove_positions(
        &self,
        conn: &mut BoxConn,
        source: &str,
        incarnation: &str,
        ended_owners: &[String],
    ) -> Result<Removed, SinkError>;
    async fn acquire(&self) -> Result<BoxConn, SinkError>;
    async fn prepare(&self, conn: &mut BoxConn, schema: &Schema) -> Result<BoxPlan, SinkError>;
    async fn write(
        &self,
        conn: &mut BoxConn,
        plan: &BoxPlan,
        rows: Rows<'_>,
        attempt: &Attempt,
    ) -> Result<Written, SinkError>;
    async fn find_written(&self, conn: &mut BoxConn, plan: &BoxPlan, rows: Rows<'_>) -> Result<Vec<u32>, SinkError>;
}

const OWN_TYPE: &str = "a DynSink gets only its own connections and plans";

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

    fn efficient_batch_rows(&self) -> usize {
        Sink::efficient_batch_rows(self)
    }

    fn is_atomic(&self) -> bool {
        Sink::is_atomic(self)
    }

    fn pool(&self) -> Option<PoolState> {
        Sink::pool(self)
    }

    fn late_write_limit(&self) -> Option<Duration> {
        Sink::late_write_limit(self)
    }

    async fn session(&self, conn: &mut BoxConn) -> Result<Option<Session>, SinkError> {
        let conn = conn.downcast_mut::<S::Conn>().expect(OWN_TYPE);
        Sink::session(self, conn).await
    }

    fn known_session(&self, conn: &BoxConn) -> Option<Session> {
        Sink::known_session(self, conn.downcast_ref::<S::Conn>().expect(OWN_TYPE))
    }

    async fn end_session(&self, session: &Session) -> Result<SessionEnd, SinkError> {
        Sink::end_session(self, session).await
    }

    async fn is_working(&self, session: &Session) -> Result<Option<bool>, SinkError> {
        Sink::is_working(self, session).await
    }

    async fn read_schema(&self, table: &TableName) -> Result<TableSchema, SinkError> {
        Sink::read_schema(self, table).await
    }

    async fn find_table(&self, table: &TableName) -> Result<TableName, SinkError> {
        Sink::find_table(self, table).await
    }

    async fn make_durable(&self) -> Result<Option<String>, SinkError> {
        Sink::make_durable(self).await
    }

    fn keeps_positions(&self) -> bool {
        Sink::keeps_positions(self)
    }

    async fn claim(&self, conn: &mut BoxConn, key: &PartitionKey, claim: &Claim) -> Result<Claimed, SinkError> {
        let conn = conn.downcast_mut::<S::Conn>().expect(OWN_TYPE);
        Sink::claim(self, conn, key, claim).await
    }

    async fn advance(&self, conn: &mut BoxConn, step: &Step) -> Result<(), SinkError> {
        let conn = conn.downcast_mut::<S::Conn>().expect(OWN_TYPE);
        Sink::advance(self, conn, step).await
    }

    async fn positions(&self, conn: &mut BoxConn, source: &str) -> Result<Vec<StoredPosition>, SinkError> {
        let conn = conn.downcast_mut::<S::Conn>().expect(OWN_TYPE);
        Sink::positions(self, conn, source).await
    }

    async fn renew(
        &self,
        conn: &mut BoxConn,
        source: &str,
        owner: &str,
        lease: Duration,
    ) -> Result<Vec<StoredPosition>, SinkError> {
        let conn = conn.downcast_mut::<S::Conn>().expect(OWN_TYPE);
        Sink::renew(self, conn, source, owner, lease).await
    }

    async fn release(&self, conn: &mut BoxConn, position: &Position) -> Result<bool, SinkError> {
        let conn = conn.downcast_mut::<S::Conn>().expect(OWN_TYPE);
        Sink::release(self, conn, position).await
    }

    async fn remove_positions(
        &self,
        conn: &mut BoxConn,
        source: &str,
        incarnation: &str,
        ended_owners: &[String],
    ) -> Result<Removed, SinkError> {
        let conn = conn.downcast_mut::<S::Conn>().expect(OWN_TYPE);
        Sink::remove_positions(self, conn, source, incarnation, ended_owners).await
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

    async fn find_written(&self, conn: &mut BoxConn, plan: &BoxPlan, rows: Rows<'_>) -> Result<Vec<u32>, SinkError> {
        let conn = conn.downcast_mut::<S::Conn>().expect(OWN_TYPE);
        let plan = plan.downcast_ref::<S::Plan>().expect(OWN_TYPE);
        Sink::find_written(self, conn, plan, rows).await
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

    fn efficient_batch_rows(&self) -> usize {
        self.0.efficient_batch_rows()
    }

    fn is_atomic(&self) -> bool {
        self.0.is_atomic()
    }

    fn pool(&self) -> Option<PoolState> {
        self.0.pool()
    }

    fn late_write_limit(&self) -> Option<Duration> {
        self.0.late_write_limit()
    }

    async fn session(&self, conn: &mut BoxConn) -> Result<Option<Session>, SinkError> {
        self.0.session(conn).await
    }

    fn known_session(&self, conn: &BoxConn) -> Option<Session> {
        self.0.known_session(conn)
    }

    async fn end_session(&self, session: &Session) -> Result<SessionEnd, SinkError> {
        self.0.end_session(session).await
    }

    async fn is_working(&self, session: &Session) -> Result<Option<bool>, SinkError> {
        self.0.is_working(session).await
    }

    async fn read_schema(&self, table: &TableName) -> Result<TableSchema, SinkError> {
        self.0.read_schema(table).await
    }

    async fn find_table(&self, table: &TableName) -> Result<TableName, SinkError> {
        self.0.find_table(table).await
    }

    async fn make_durable(&self) -> Result<Option<String>, SinkError> {
        self.0.make_durable().await
    }

    fn keeps_positions(&self) -> bool {
        self.0.keeps_positions()
    }

    async fn claim(&self, conn: &mut BoxConn, key: &PartitionKey, claim: &Claim) -> Result<Claimed, SinkError> {
        self.0.claim(conn, key, claim).await
    }

    async fn advance(&self, conn: &mut BoxConn, step: &Step) -> Result<(), SinkError> {
        self.0.advance(conn, step).await
    }

    async fn positions(&self, conn: &mut BoxConn, source: &str) -> Result<Vec<StoredPosition>, SinkError> {
        self.0.positions(conn, source).await
    }

    async fn renew(
        &self,
        conn: &mut BoxConn,
        source: &str,
        owner: &str,
        lease: Duration,
    ) -> Result<Vec<StoredPosition>, SinkError> {
        self.0.renew(conn, source, owner, lease).await
    }

    async fn release(&self, conn: &mut BoxConn, position: &Position) -> Result<bool, SinkError> {
        self.0.release(conn, position).await
    }

    async fn remove_positions(
        &self,
        conn: &mut BoxConn,
        source: &str,
        incarnation: &str,
        ended_owners: &[String],
    ) -> Result<Removed, SinkError> {
        self.0.remove_positions(conn, source, incarnation, ended_owners).await
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

    async fn find_written(&self, conn: &mut BoxConn, plan: &BoxPlan, rows: Rows<'_>) -> Result<Vec<u32>, SinkError> {
        self.0.find_written(conn, plan, rows).await
    }
}
