//! Owns what the tests share: a private schema per test, and helpers to write and read it.

use std::sync::Arc;
use std::time::Duration;

use batchsql_core::{
    BatchSql, ColumnType, Conflict, DynRow, Ordering, Outcome, PipelineConfig, Schema, SharedRows, Value,
};
use batchsql_postgres::sqlx::{Connection, Executor, PgConnection, PgPool, Row, ValueRef as _};
use batchsql_postgres::{PostgresOptions, PostgresSink, Strategy};
use batchsql_testkit::{outcomes_of, receipts_of};
use batchsql_testserver::{Kind, dsn, unique};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// Every strategy that can write a table with and without a conflict rule.
pub(crate) const FOR_EVERY_RULE: [Strategy; 4] =
    [Strategy::Auto, Strategy::MultiValues, Strategy::Unnest, Strategy::Staging];

/// Statements that remove what a test has created on a server, even if it fails.
pub(crate) struct AtEnd {
    server: String,
    sql: Vec<String>,
}

/// Statements for the end of a test on the shared server. Declare it before the users of the removed objects.
pub(crate) fn at_end<const N: usize>(sql: [String; N]) -> AtEnd {
    AtEnd { server: dsn(Kind::Postgres), sql: sql.into() }
}

/// Removes a user and its rights at the end of a test.
pub(crate) fn user_until_end(user: &str) -> AtEnd {
    at_end([format!("DROP OWNED BY {user}"), format!("DROP USER {user}")])
}

impl Drop for AtEnd {
    fn drop(&mut self) {
        let (server, sql) = (std::mem::take(&mut self.server), std::mem::take(&mut self.sql));
        // On a thread, because dropping cannot wait. The test's own server may be gone.
        let _ = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let _ = tokio::time::timeout(Duration::from_secs(5), async {
                    let mut conn = PgConnection::connect(&server).await.ok()?;
                    conn.execute("SET lock_timeout = '3s'; SET client_min_messages = error").await.ok()?;
                    for sql in &sql {
                        // The others must run in any case.
                        let _ = conn.execute(&**sql).await;
                    }
                    conn.close().await.ok()
                })
                .await;
            });
        })
        .join();
    }
}

/// A DSN whose connections find their tables in a schema of the test. It is dropped with the last clone.
#[derive(Clone)]
pub(crate) struct Dsn {
    text: String,
    _made: Arc<AtEnd>,
}

impl std::ops::Deref for Dsn {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

/// A sink whose tables exist as long as this value.
pub(crate) struct TestSink {
    sink: PostgresSink,
    _dsn: Dsn,
}

impl std::ops::Deref for TestSink {
    type Target = PostgresSink;

    fn deref(&self) -> &PostgresSink {
        &self.sink
    }
}

/// The shared server's DSN for a schema of this test, after running `sql` there.
pub(crate) async fn fresh_dsn(sql: &str) -> Dsn {
    prepared_dsn(&dsn(Kind::Postgres), sql).await
}

/// A DSN whose connections find their tables in a new schema, after running `sql` there.
pub(crate) async fn prepared_dsn(server: &str, sql: &str) -> Dsn {
    let namespace = unique("t");
    let drop = format!("DROP SCHEMA IF EXISTS {namespace} CASCADE");
    let made = AtEnd { server: server.to_owned(), sql: vec![drop] };
    let text = joined(server, &format!("options[search_path]={namespace}"));
    let mut conn = PgConnection::connect(&text).await.unwrap();
    conn.execute(&*format!("CREATE SCHEMA {namespace}; {sql}")).await.unwrap();
    conn.close().await.unwrap();
    Dsn { text, _made: Arc::new(made) }
}

pub(crate) fn with_parameter(dsn: &Dsn, parameter: &str) -> Dsn {
    Dsn { text: joined(dsn, parameter), ..dsn.clone() }
}

fn joined(dsn: &str, parameter: &str) -> String {
    format!("{dsn}{}{parameter}", if dsn.contains('?') { '&' } else { '?' })
}

/// A sink with its own tables.
pub(crate) async fn fresh(sql: &str) -> TestSink {
    sink_of(&fresh_dsn(sql).await).await
}

pub(crate) async fn sink_of(dsn: &Dsn) -> TestSink {
    TestSink { sink: PostgresSink::connect(dsn).await.unwrap(), _dsn: dsn.clone() }
}

/// The same with a strategy.
pub(crate) async fn with_strategy(dsn: &Dsn, strategy: Strategy) -> TestSink {
    let options: PostgresOptions = dsn.parse().unwrap();
    let sink = PostgresSink::with_options(&options.strategy(strategy)).await.unwrap();
    TestSink { sink, _dsn: dsn.clone() }
}

/// A pipeline whose batches are written in order, so that outcomes are deterministic.
pub(crate) fn pipeline(sink: &PostgresSink) -> BatchSql {
    let config = PipelineConfig::default().flush_interval(HOUR).ordering(Ordering::PerTable);
    BatchSql::builder(sink.clone()).config(config).start().unwrap()
}

/// A pipeline that sends one row of each key of a batch, if the rule allows it, and one batch at a time.
pub(crate) fn coalescing(sink: &PostgresSink) -> BatchSql {
    let config = PipelineConfig::default().flush_interval(HOUR).max_concurrency(1);
    BatchSql::builder(sink.clone()).config(config).start().unwrap()
}

/// `id` and `note` of table `t`.
pub(crate) fn schema(conflict: Conflict) -> Schema {
    Schema::builder("t")
        .column("id", ColumnType::I64)
        .nullable("note", ColumnType::Text)
        .on_conflict(conflict)
        .build()
        .unwrap()
}

pub(crate) fn row(schema: &Schema, id: i64, note: impl Into<Value>) -> DynRow {
    schema.row().set("id", id).unwrap().set("note", note).unwrap().finish().unwrap()
}

pub(crate) fn values(schema: &Schema, values: impl IntoIterator<Item = Value>) -> DynRow {
    schema.row().set_all(values).unwrap().finish().unwrap()
}

/// Writes the rows in one batch; their outcomes by name.
pub(crate) async fn write(sink: &PostgresSink, rows: impl IntoIterator<Item = DynRow>) -> Vec<&'static str> {
    outcomes(sink, rows).await.iter().map(|outcome| outcome.kind().name()).collect()
}

/// Writes the rows in one batch.
pub(crate) async fn outcomes(sink: &PostgresSink, rows: impl IntoIterator<Item = DynRow>) -> Vec<Outcome> {
    outcomes_by(&pipeline(sink), rows).await
}

/// Writes the rows through a pipeline, and closes it.
pub(crate) async fn outcomes_by(db: &BatchSql, rows: impl IntoIterator<Item = DynRow>) -> Vec<Outcome> {
    let receipts = receipts_of(db, rows).await;
    db.close(HOUR).await;
    outcomes_of(receipts).await
}

/// Advances the paused clock at once for every waiting task, in a test on one thread.
pub(crate) async fn skip(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

pub(crate) async fn execute(pool: &PgPool, sql: &str) {
    pool.execute(sql).await.unwrap();
}

/// Every row of a query as text, its columns joined by `|`.
pub(crate) async fn read(sink: &PostgresSink, sql: &str) -> Vec<String> {
    // A simple query: the server returns text.
    let rows = sink.pg_pool().fetch_all(sql).await.unwrap();
    let text = |row: &batchsql_postgres::sqlx::postgres::PgRow, index: usize| {
        let value = row.try_get_raw(index).unwrap();
        if value.is_null() { "NULL".to_owned() } else { value.as_str().unwrap().to_owned() }
    };
    rows.iter().map(|row| (0..row.len()).map(|index| text(row, index)).collect::<Vec<_>>().join("|")).collect()
}

/// A batch of `id` and `note`, to be written without a pipeline that retries.
pub(crate) async fn batch_of(schema: &Schema, ids: std::ops::Range<i64>) -> SharedRows {
    batchsql_testkit::batch_of(ids.map(|id| row(schema, id, "new"))).await
}
