//! Owns a sink whose stream is opened later: with a log, rows are accepted while NATS is unreachable at the start.
//! Must not know how a stream is opened.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use batchsql::nats::{NatsConn, NatsPlan, NatsSink};
use batchsql::{Attempt, Claim, Claimed, ErrorClass, PartitionKey, Rows, Schema, Sink, SinkError, Step, Written};

/// A [`NatsSink`], from the moment that it is there. Until then there are no connections.
#[derive(Debug, Clone)]
pub(crate) struct OpeningSink {
    opened: Arc<OnceLock<NatsSink>>,
    partitions: u32,
}

impl OpeningSink {
    pub(crate) fn new(partitions: u32) -> Self {
        Self { opened: Arc::default(), partitions }
    }

    /// From now on it writes.
    pub(crate) fn open(&self, sink: NatsSink) {
        // A second one would be of the same stream.
        let _ = self.opened.set(sink);
    }

    fn sink(&self) -> Result<&NatsSink, SinkError> {
        let unreachable = || SinkError::new(ErrorClass::Transient, "NATS has not answered since the start");
        self.opened.get().ok_or_else(unreachable)
    }
}

/// What is asked before there is a connection is as that of a [`NatsSink`].
impl Sink for OpeningSink {
    type Conn = NatsConn;
    type Plan = NatsPlan;

    fn name(&self) -> &'static str {
        "nats"
    }

    fn max_concurrency(&self) -> Option<usize> {
        Some((self.partitions as usize).clamp(2, 16))
    }

    fn is_atomic(&self) -> bool {
        false
    }

    fn late_write_limit(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    fn keeps_positions(&self) -> bool {
        true
    }

    async fn claim(&self, conn: &mut NatsConn, key: &PartitionKey, claim: &Claim) -> Result<Claimed, SinkError> {
        self.sink()?.claim(conn, key, claim).await
    }

    async fn advance(&self, conn: &mut NatsConn, step: &Step) -> Result<(), SinkError> {
        self.sink()?.advance(conn, step).await
    }

    async fn acquire(&self) -> Result<NatsConn, SinkError> {
        self.sink()?.acquire().await
    }

    async fn prepare(&self, conn: &mut NatsConn, schema: &Schema) -> Result<NatsPlan, SinkError> {
        self.sink()?.prepare(conn, schema).await
    }

    async fn write(
        &self,
        conn: &mut NatsConn,
        plan: &NatsPlan,
        rows: Rows<'_>,
        attempt: &Attempt,
    ) -> Result<Written, SinkError> {
        self.sink()?.write(conn, plan, rows, attempt).await
    }
}
