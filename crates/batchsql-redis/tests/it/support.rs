//! Owns what the tests share: pipelines over a sink, helpers to write rows and to read their outcomes.

use std::time::Duration;

use batchsql_core::{BatchSql, DynRow, Ordering, Outcome, PipelineConfig, Row, Schema, Value};
use batchsql_redis::{Command, RedisOptions, RedisSink};
use batchsql_testkit::{outcomes_of, receipts_of};
use batchsql_testserver::{Kind, dsn};
use redis::FromRedisValue;
use redis::aio::MultiplexedConnection;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A unique name of a test, the prefix of its keys and users. They are removed when it is dropped, however the
/// test ends.
#[derive(Debug)]
pub(crate) struct Name(String);

pub(crate) fn unique(prefix: &str) -> Name {
    Name(batchsql_testserver::unique(prefix))
}

impl std::ops::Deref for Name {
    type Target = String;

    fn deref(&self) -> &String {
        &self.0
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // A second panic would hide the reason of the first.
        let _ = self.remove();
    }
}

impl Name {
    fn remove(&self) -> redis::RedisResult<()> {
        let mut conn = redis::Client::open(dsn(Kind::Redis))?.get_connection()?;
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg(&["MATCH", &format!("{self}*"), "COUNT", "1000"]);
            let (next, keys): (u64, Vec<Vec<u8>>) = scan.query(&mut conn)?;
            if !keys.is_empty() {
                redis::cmd("UNLINK").arg(keys).exec(&mut conn)?;
            }
            if next == 0 {
                return redis::cmd("ACL").arg(&["DELUSER", &self.0]).exec(&mut conn);
            }
            cursor = next;
        }
    }
}

#[tokio::test]
async fn keys_and_users_go_with_their_name() {
    let name = unique("gone");
    let key = format!("{name}:key");
    ask::<()>(&["SET", &key, "v"]).await;
    ask::<()>(&["ACL", "SETUSER", &name]).await;
    let failing = tokio::spawn(async move {
        let _name = name;
        std::panic::resume_unwind(Box::new("a test that fails"));
    });
    assert!(failing.await.is_err());
    assert_eq!(ask::<i64>(&["EXISTS", &key]).await, 0);
    let users: Vec<String> = ask(&["ACL", "USERS"]).await;
    assert!(!users.iter().any(|user| key.starts_with(user)), "{users:?}");
}

/// A sink on the shared server that writes rows of `table` with `command`.
pub(crate) async fn sink(table: &str, command: impl Into<Command>) -> RedisSink {
    sink_at(&dsn(Kind::Redis), table, command).await
}

pub(crate) async fn sink_at(dsn: &str, table: &str, command: impl Into<Command>) -> RedisSink {
    let options: RedisOptions = dsn.parse().unwrap();
    RedisSink::with_options(&options.command(table, command)).await.unwrap()
}

/// One batch at a time, in order, and permanent errors are reported soon.
pub(crate) fn config() -> PipelineConfig {
    PipelineConfig::default()
        .flush_interval(HOUR)
        .flush_size(1_000)
        .ordering(Ordering::PerTable)
        .park_for(Duration::ZERO)
        .retry_for(Duration::ZERO)
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
    let receipts = receipts_of(&db, rows).await;
    db.close(HOUR).await;
    outcomes_of(receipts).await
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

/// A connection for checks.
pub(crate) async fn looker(dsn: &str) -> MultiplexedConnection {
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(60)));
    redis::Client::open(dsn).unwrap().get_multiplexed_async_connection_with_config(&config).await.unwrap()
}

/// The answer of the shared server.
pub(crate) async fn ask<T: FromRedisValue>(words: &[&str]) -> T {
    ask_at(&dsn(Kind::Redis), words).await
}

pub(crate) async fn ask_at<T: FromRedisValue>(dsn: &str, words: &[&str]) -> T {
    let mut command = redis::Cmd::new();
    command.arg(words);
    command.query_async(&mut looker(dsn).await).await.unwrap()
}
