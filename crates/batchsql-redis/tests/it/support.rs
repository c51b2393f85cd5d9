//! Owns what the tests share: pipelines over a sink, short ways to write rows and to read what became of them.

use std::time::Duration;

use batchsql_core::{BatchSql, DynRow, Ordering, Outcome, PipelineConfig, Receipt, Row, Schema, Value};
use batchsql_redis::{Command, RedisOptions, RedisSink};
use batchsql_testserver::{Kind, dsn};
use redis::FromRedisValue;
use redis::aio::MultiplexedConnection;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A sink on the shared server that writes rows of `table` with `command`.
pub(crate) async fn sink(table: &str, command: impl Into<Command>) -> RedisSink {
    sink_at(&dsn(Kind::Redis), table, command).await
}

pub(crate) async fn sink_at(dsn: &str, table: &str, command: impl Into<Command>) -> RedisSink {
    let options: RedisOptions = dsn.parse().unwrap();
    RedisSink::with_options(&options.command(table, command)).await.unwrap()
}

/// One batch at a time, in order, and errors that last come out soon.
pub(crate) fn config() -> PipelineConfig {
    PipelineConfig {
        flush_interval: HOUR,
        flush_size: 1_000,
        ordering: Ordering::PerTable,
        park_for: Duration::ZERO,
        retry_for: Duration::ZERO,
        ..PipelineConfig::default()
    }
}

pub(crate) fn pipeline(sink: &RedisSink) -> BatchSql {
    BatchSql::builder(sink.clone()).config(config()).start().unwrap()
}

pub(crate) fn row<const N: usize>(schema: &Schema, values: [Value; N]) -> DynRow {
    schema.row().set_all(values).unwrap().finish().unwrap()
}

/// Writes the rows in one batch.
pub(crate) async fn outcomes<R: Row>(sink: &RedisSink, rows: impl IntoIterator<Item = R>) -> Vec<Outcome> {
    let db = pipeline(sink);
    let receipts = submit(&db, rows).await;
    db.close(HOUR).await;
    ended(receipts).await
}

pub(crate) async fn submit<R: Row>(db: &BatchSql, rows: impl IntoIterator<Item = R>) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for row in rows {
        receipts.push(db.submit_tracked(&row).await.unwrap());
    }
    receipts
}

pub(crate) async fn ended(receipts: Vec<Receipt>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for receipt in receipts {
        outcomes.push(receipt.await);
    }
    outcomes
}

/// Writes the rows in one batch; their outcomes by name, with the code of the error.
pub(crate) async fn write<R: Row>(sink: &RedisSink, rows: impl IntoIterator<Item = R>) -> Vec<String> {
    outcomes(sink, rows).await.iter().map(name).collect()
}

pub(crate) fn name(outcome: &Outcome) -> String {
    match outcome.failure().and_then(|failed| failed.code()) {
        Some(code) => format!("{} {code}", outcome.kind().name()),
        None => outcome.kind().name().to_owned(),
    }
}

/// A connection to look with.
pub(crate) async fn looker(dsn: &str) -> MultiplexedConnection {
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(20)));
    redis::Client::open(dsn).unwrap().get_multiplexed_async_connection_with_config(&config).await.unwrap()
}

/// What the shared server answers.
pub(crate) async fn ask<T: FromRedisValue>(words: &[&str]) -> T {
    ask_at(&dsn(Kind::Redis), words).await
}

pub(crate) async fn ask_at<T: FromRedisValue>(dsn: &str, words: &[&str]) -> T {
    let mut command = redis::Cmd::new();
    command.arg(words);
    command.query_async(&mut looker(dsn).await).await.unwrap()
}
