//! Owns a sink around another one, for defects on purpose and for counts: all but its writes is the other one's.
//! Must not know a database.

use std::time::Duration;

use batchsql::{
    Attempt, Claim, Claimed, Limits, PartitionKey, PoolState, Position, Removed, Rows, Schema, Session, SessionEnd,
    Sink, SinkError, Step, StoredPosition, TableName, TableSchema, Written,
};

/// How rows are written to a sink.
pub(crate) trait Writing<S: Sink>: Send + Sync + 'static {
    /// In place of [`Sink::write`].
    fn write(
        &self,
        sink: &S,
        conn: &mut S::Conn,
        plan: &S::Plan,
        rows: Rows<'_>,
        attempt: &Attempt,
    ) -> impl Future<Output = Result<Written, SinkError>> + Send;
}

/// A sink with another way of writing.
#[derive(Debug, Clone)]
pub(crate) struct Forwarding<S, W> {
    pub(crate) sink: S,
    pub(crate) writing: W,
}

impl<S: Sink, W: Writing<S>> Sink for Forwarding<S, W> {
    type Conn = S::Conn;
    type Plan = S::Plan;

    fn name(&self) -> &'static str {
        self.sink.name()
    }

    fn limits(&self, schema: &Schema) -> Limits {
        self.sink.limits(schema)
    }

    fn max_concurrency(&self) -> Option<usize> {
        self.sink.max_concurrency()
    }

    fn is_repeatable(&self, schema: &Schema) -> bool {
        self.sink.is_repeatable(schema)
    }

    fn sorts_by_key(&self) -> bool {
        self.sink.sorts_by_key()
    }

    fn efficient_batch_rows(&self) -> usize {
        self.sink.efficient_batch_rows()
    }

    fn is_atomic(&self) -> bool {
        self.sink.is_atomic()
    }

    fn pool(&self) -> Option<PoolState> {
        self.sink.pool()
    }

    fn late_write_limit(&self) -> Option<Duration> {
        self.sink.late_write_limit()
    }

    async fn session(&self, conn: &mut S::Conn) -> Result<Option<Session>, SinkError> {
        self.sink.session(conn).await
    }

    fn known_session(&self, conn: &S::Conn) -> Option<Session> {
        self.sink.known_session(conn)
    }

    async fn end_session(&self, session: &Session) -> Result<SessionEnd, SinkError> {
        self.sink.end_session(session).await
    }

    async fn is_working(&self, session: &Session) -> Result<Option<bool>, SinkError> {
        self.sink.is_working(session).await
    }

    async fn read_schema(&self, table: &TableName) -> Result<TableSchema, SinkError> {
        self.sink.read_schema(table).await
    }

    async fn find_table(&self, table: &TableName) -> Result<TableName, SinkError> {
        self.sink.find_table(table).await
    }

    async fn make_durable(&self) -> Result<Option<String>, SinkError> {
        self.sink.make_durable().await
    }

    fn keeps_positions(&self) -> bool {
        self.sink.keeps_positions()
    }

    async fn claim(&self, conn: &mut S::Conn, key: &PartitionKey, claim: &Claim) -> Result<Claimed, SinkError> {
        self.sink.claim(conn, key, claim).await
    }

    async fn advance(&self, conn: &mut S::Conn, step: &Step) -> Result<(), SinkError> {
        self.sink.advance(conn, step).await
    }

    async fn positions(&self, conn: &mut S::Conn, source: &str) -> Result<Vec<StoredPosition>, SinkError> {
        self.sink.positions(conn, source).await
    }

    async fn renew(
        &self,
        conn: &mut S::Conn,
        source: &str,
        owner: &str,
        lease: Duration,
    ) -> Result<Vec<StoredPosition>, SinkError> {
        self.sink.renew(conn, source, owner, lease).await
    }

    async fn release(&self, conn: &mut S::Conn, position: &Position) -> Result<bool, SinkError> {
        self.sink.release(conn, position).await
    }

    async fn remove_positions(
        &self,
        conn: &mut S::Conn,
        source: &str,
        incarnation: &str,
        ended_owners: &[String],
    ) -> Result<Removed, SinkError> {
        self.sink.remove_positions(conn, source, incarnation, ended_owners).await
    }

    async fn acquire(&self) -> Result<S::Conn, SinkError> {
        self.sink.acquire().await
    }

    async fn prepare(&self, conn: &mut S::Conn, schema: &Schema) -> Result<S::Plan, SinkError> {
        self.sink.prepare(conn, schema).await
    }

    async fn write(
        &self,
        conn: &mut S::Conn,
        plan: &S::Plan,
        rows: Rows<'_>,
        attempt: &Attempt,
    ) -> Result<Written, SinkError> {
        self.writing.write(&self.sink, conn, plan, rows, attempt).await
    }

    async fn find_written(&self, conn: &mut S::Conn, plan: &S::Plan, rows: Rows<'_>) -> Result<Vec<u32>, SinkError> {
        self.sink.find_written(conn, plan, rows).await
    }
}

#[cfg(test)]
mod tests {
    /// The names of the functions of a block of Rust text: from a line that begins with `begin` to its closing brace.
    fn functions<'a>(text: &'a str, begin: &str) -> Vec<&'a str> {
        let block = text.lines().skip_while(|line| !line.starts_with(begin)).take_while(|line| *line != "}");
        let name = |line: &'a str| {
            let line = line.strip_prefix("    ")?;
            let rest = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
            rest.split(['(', '<']).next()
        };
        block.filter_map(name).collect()
    }

    /// A method with a default would be forgotten without an error: a sink that keeps positions would keep none.
    #[test]
    fn every_method_of_a_sink_is_forwarded() {
        let mut all = functions(include_str!("../../batchsql-core/src/write/sink.rs"), "pub trait Sink");
        assert!(all.len() > 20 && all.contains(&"find_written") && all.contains(&"known_session"), "{all:?}");
        all.sort_unstable();
        for (text, begin) in [
            (include_str!("forwarding.rs"), "impl<S: Sink, W: Writing<S>> Sink for Forwarding<S, W>"),
            (include_str!("../../batchsql-core/src/write/dyn_sink.rs"), "impl Sink for DynSink"),
        ] {
            let mut forwarded = functions(text, begin);
            forwarded.sort_unstable();
            assert_eq!(forwarded, all, "{begin}");
        }
    }

    /// Each method must call the one of its name.
    #[test]
    fn every_method_forwards_to_its_own() {
        let text = include_str!("forwarding.rs");
        for name in functions(text, "impl<S: Sink, W: Writing<S>> Sink for Forwarding<S, W>") {
            let owner = if name == "write" { "writing" } else { "sink" };
            assert!(text.contains(&format!("        self.{owner}.{name}(")), "{name}");
        }
    }
}
