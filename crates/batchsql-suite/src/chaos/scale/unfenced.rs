//! Owns a sink with a defect on purpose, around a real one: the epoch of a position is not tested.
//! Must not know a database.

use batchsql::{
    Attempt, Claim, Claimed, DynSink, Limits, PartitionKey, Position, Rows, Schema, Sink, SinkError, Step,
    StoredPosition, Written,
};

/// A step of a worker that has lost its partition is written nevertheless.
#[derive(Debug, Clone)]
pub(super) struct Unfenced(pub(super) DynSink);

impl Sink for Unfenced {
    type Conn = <DynSink as Sink>::Conn;
    type Plan = <DynSink as Sink>::Plan;

    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn limits(&self, schema: &Schema) -> Limits {
        self.0.limits(schema)
    }

    fn max_concurrency(&self) -> Option<usize> {
        self.0.max_concurrency()
    }

    async fn make_durable(&self) -> Result<Option<String>, SinkError> {
        self.0.make_durable().await
    }

    fn keeps_positions(&self) -> bool {
        self.0.keeps_positions()
    }

    async fn claim(&self, conn: &mut Self::Conn, key: &PartitionKey, claim: &Claim) -> Result<Claimed, SinkError> {
        self.0.claim(conn, key, claim).await
    }

    async fn advance(&self, conn: &mut Self::Conn, step: &Step) -> Result<(), SinkError> {
        self.0.advance(conn, step).await
    }

    async fn positions(&self, conn: &mut Self::Conn, source: &str) -> Result<Vec<StoredPosition>, SinkError> {
        self.0.positions(conn, source).await
    }

    async fn renew(
        &self,
        conn: &mut Self::Conn,
        source: &str,
        owner: &str,
        lease: std::time::Duration,
    ) -> Result<Vec<StoredPosition>, SinkError> {
        self.0.renew(conn, source, owner, lease).await
    }

    async fn release(&self, conn: &mut Self::Conn, position: &Position) -> Result<bool, SinkError> {
        self.0.release(conn, position).await
    }

    async fn acquire(&self) -> Result<Self::Conn, SinkError> {
        self.0.acquire().await
    }

    async fn prepare(&self, conn: &mut Self::Conn, schema: &Schema) -> Result<Self::Plan, SinkError> {
        self.0.prepare(conn, schema).await
    }

    async fn write(
        &self,
        conn: &mut Self::Conn,
        plan: &Self::Plan,
        rows: Rows<'_>,
        attempt: &Attempt,
    ) -> Result<Written, SinkError> {
        let written = self.0.write(conn, plan, rows, attempt).await;
        let commits = attempt.step().is_some_and(|step| step.commits);
        match written {
            Err(error) if commits && error.is_fenced() => {
                // What the first one has done is not known to be over.
                let mut other = self.0.acquire().await?;
                self.0.write(&mut other, plan, rows, &Attempt::new(true)).await
            }
            written => written,
        }
    }
}
