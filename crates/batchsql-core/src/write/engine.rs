//! Owns what is asked of a sink besides writing: connections, plans, the names and the end of sessions.
//! Must not know batches.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, timeout};

use crate::error::{ErrorClass, SinkError};
use crate::model::batch::Rows;
use crate::model::schema::{Schema, SchemaId};
use crate::outcome::outcomes::OutcomeCounts;
use crate::write::ended::{Connection, timed_out};
use crate::write::execute::Executor;
use crate::write::position::{Claim, Claimed, PartitionKey, Position, Removed, Step, StoredPosition};
use crate::write::session::{Session, SessionEnd};
use crate::write::sink::{Limits, Sink};
use crate::write::step::NoStep;

/// What the handle needs from a sink, without its type.
#[async_trait]
pub(crate) trait Engine: Send + Sync + 'static {
    fn limits(&self, schema: &Schema) -> Limits;
    async fn prepare(&self, schema: &Schema) -> Result<(), SinkError>;
    /// Gets a connection and gives it back.
    async fn check_connection(&self) -> Result<(), SinkError>;
    async fn make_durable(&self) -> Result<Option<String>, SinkError>;
    fn keeps_positions(&self) -> bool;
    async fn claim(&self, key: &PartitionKey, claim: &Claim) -> Result<Claimed, SinkError>;
    async fn advance(&self, step: &Step) -> Result<(), SinkError>;
    async fn positions(&self, source: &str) -> Result<Vec<StoredPosition>, SinkError>;
    async fn renew(&self, source: &str, owner: &str, lease: Duration) -> Result<Vec<StoredPosition>, SinkError>;
    async fn release(&self, position: &Position) -> Result<bool, SinkError>;
    async fn remove_positions(&self, source: &str, incarnation: &str, ended: &[String]) -> Result<Removed, SinkError>;
    async fn write_step(&self, rows: Rows<'_>, step: &Step, is_in_order: bool) -> Result<OutcomeCounts, NoStep>;
    /// Forgets what was prepared for schemas that are no longer used.
    fn forget(&self, schemas: &[SchemaId]);
}

/// How long one call of `end_session` may take. Then it is called again.
const END_SESSION: Duration = Duration::from_secs(5);

/// A plan, and whether it was made just now.
pub(crate) struct Prepared<P> {
    pub(crate) plan: Arc<P>,
    pub(crate) fresh: bool,
}

#[async_trait]
impl<S: Sink> Engine for Executor<S> {
    fn limits(&self, schema: &Schema) -> Limits {
        self.sink.limits(schema)
    }

    async fn prepare(&self, schema: &Schema) -> Result<(), SinkError> {
        let mut connection = self.connect().await?;
        self.plan(&mut connection.conn, schema).await.map(drop)
    }

    async fn check_connection(&self) -> Result<(), SinkError> {
        self.connect().await.map(drop)
    }

    async fn make_durable(&self) -> Result<Option<String>, SinkError> {
        match timeout(self.statement_timeout, self.sink.make_durable()).await {
            Ok(result) => result,
            Err(_) => Err(timed_out("asking for settings", self.statement_timeout, ErrorClass::Transient)),
        }
    }

    fn keeps_positions(&self) -> bool {
        self.sink.keeps_positions()
    }

    async fn claim(&self, key: &PartitionKey, claim: &Claim) -> Result<Claimed, SinkError> {
        self.claim_partition(key, claim).await
    }

    async fn advance(&self, step: &Step) -> Result<(), SinkError> {
        self.advance_step(step).await
    }

    async fn positions(&self, source: &str) -> Result<Vec<StoredPosition>, SinkError> {
        self.read_positions(source).await
    }

    async fn renew(&self, source: &str, owner: &str, lease: Duration) -> Result<Vec<StoredPosition>, SinkError> {
        self.renew_leases(source, owner, lease).await
    }

    async fn release(&self, position: &Position) -> Result<bool, SinkError> {
        self.release_lease(position).await
    }

    async fn remove_positions(&self, source: &str, incarnation: &str, ended: &[String]) -> Result<Removed, SinkError> {
        self.remove_incarnation(source, incarnation, ended).await
    }

    async fn write_step(&self, rows: Rows<'_>, step: &Step, is_in_order: bool) -> Result<OutcomeCounts, NoStep> {
        Executor::write_step(self, rows, step, is_in_order).await
    }

    fn forget(&self, schemas: &[SchemaId]) {
        self.plans.forget(schemas);
    }
}

impl<S: Sink> Executor<S> {
    /// Gets a connection.
    pub(crate) async fn acquire(self: Arc<Self>) -> Result<Connection<S::Conn>, SinkError> {
        self.connect().await
    }

    /// Ends the session of a write that was given up.
    pub(crate) async fn end_session(self: Arc<Self>, session: Session) -> Result<SessionEnd, SinkError> {
        match timeout(END_SESSION, self.sink.end_session(&session)).await {
            Ok(result) => result,
            Err(_) => Err(timed_out("ending a session", END_SESSION, ErrorClass::Transient)),
        }
    }

    pub(crate) async fn connect(&self) -> Result<Connection<S::Conn>, SinkError> {
        let begin = Instant::now();
        let connected = match timeout(self.statement_timeout, self.sink.acquire()).await {
            Ok(result) => result.map(|conn| Connection { conn, since: Instant::now(), session: None }),
            Err(_) => Err(timed_out("getting a connection", self.statement_timeout, ErrorClass::Transient)),
        };
        match &connected {
            Ok(_) => self.pipeline.health.connected(),
            Err(error) => self.pipeline.health.not_connected(error, begin),
        }
        connected
    }

    pub(crate) async fn ask_session(&self, connection: &mut Connection<S::Conn>) -> Result<(), SinkError> {
        match timeout(self.statement_timeout, self.sink.session(&mut connection.conn)).await {
            Ok(session) => connection.session = Some(session?),
            Err(_) => {
                let what = "asking for the session name";
                return Err(timed_out(what, self.statement_timeout, ErrorClass::Transient));
            }
        }
        Ok(())
    }

    pub(crate) async fn plan(&self, conn: &mut S::Conn, schema: &Schema) -> Result<Prepared<S::Plan>, SinkError> {
        if let Some(plan) = self.plans.get(schema) {
            return Ok(Prepared { plan, fresh: false });
        }
        let prepared = timeout(self.statement_timeout, self.sink.prepare(conn, schema)).await;
        let plan = match prepared {
            Ok(result) => Arc::new(result?),
            Err(_) => return Err(timed_out("checking the table", self.statement_timeout, ErrorClass::Transient)),
        };
        self.plans.insert(schema, Arc::clone(&plan));
        Ok(Prepared { plan, fresh: true })
    }
}
