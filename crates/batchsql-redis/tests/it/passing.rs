//! Unlisted errors: a transient one is retried, a permanent one affects only its own row.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use batchsql_core::{BatchSql, ColumnType, Conflict, Schema};
use batchsql_redis::{Command, RedisSink};

use crate::scripted::node;
use crate::support::{HOUR, config, name, row, sink_at};
use batchsql_testkit::{outcomes_of, receipts_of};

/// A server that answers writes of `key` with these errors, one after the other, and accepts everything else.
async fn failing(key: &'static str, errors: &'static [&'static str]) -> (String, Arc<Mutex<HashMap<String, usize>>>) {
    let seen: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let counts = Arc::clone(&seen);
    let port = node(move |words| {
        let Some(asked) = words.get(1).filter(|_| ["SET", "RPUSH", "eval"].contains(&words[0].as_str())) else {
            return "+OK\r\n".to_owned();
        };
        let mut counts = counts.lock().unwrap();
        let count = counts.entry(asked.clone()).or_default();
        *count += 1;
        match errors.get(*count - 1) {
            Some(error) if asked == key => format!("-{error}\r\n"),
            _ => "+OK\r\n".to_owned(),
        }
    });
    (format!("redis://127.0.0.1:{}?protocol=2&abandoned_writes=wait", port.await), seen)
}

async fn written(sink: RedisSink, schema: &Schema, retry_for: Duration) -> Vec<String> {
    let db = BatchSql::builder(sink).config(config().retry_for(retry_for)).start().unwrap();
    let receipts = receipts_of(&db, ["a", "b", "c"].map(|k| row(schema, [k.into(), "v".into()]))).await;
    db.close(HOUR).await;
    outcomes_of(receipts).await.iter().map(name).collect()
}

fn schema(conflict: Conflict) -> Schema {
    let schema = Schema::builder("t").column("k", ColumnType::Text).column("v", ColumnType::Text);
    schema.on_conflict(conflict).build().unwrap()
}

#[tokio::test]
async fn what_a_proxy_says_in_passing_is_waited_for() {
    // Envoy, Twemproxy, Codis, and an unknown error.
    const ERRORS: &[&str] = &[
        "upstream failure",
        "no upstream host",
        "ERR Connection refused",
        "ERR Connection timed out",
        "ERR handle response, backend conn reset",
        "SOMETHING new",
        "ERR words that nobody knows",
        "BUSYLOADING shard",
    ];
    let (dsn, seen) = failing("b", ERRORS).await;
    let sink = sink_at(&dsn, "t", Command::set("k", "v")).await;
    assert_eq!(written(sink, &schema(Conflict::replace(["k"])), HOUR).await, ["written"; 3]);
    let seen = seen.lock().unwrap();
    assert_eq!((seen["a"], seen["b"], seen["c"]), (1, ERRORS.len() + 1, 1), "its neighbours are written once");
}

#[tokio::test]
async fn an_error_that_stays_costs_its_own_row() {
    // For `retry_for`, which is zero here.
    let (dsn, seen) = failing("b", &["SOMETHING new"; 100]).await;
    let sink = sink_at(&dsn, "t", Command::set("k", "v")).await;
    let outcomes = written(sink, &schema(Conflict::replace(["k"])), Duration::ZERO).await;
    assert_eq!(outcomes, ["written", "expired SOMETHING", "written"]);
    assert_eq!(seen.lock().unwrap()["a"], 1);
    // Errors about the command itself are not retried.
    for error in [
        "ERR wrong number of arguments for 'set' command",
        "ERR unknown command 'SET', with args beginning with: 'b'",
        "ERR syntax error",
        "NOSCRIPT No matching script.",
        "WRONGTYPE Operation against a key",
    ] {
        let errors: &'static [&'static str] = Box::leak(Box::new([error]));
        let (dsn, seen) = failing("b", errors).await;
        let sink = sink_at(&dsn, "t", Command::set("k", "v")).await;
        let outcomes = written(sink, &schema(Conflict::replace(["k"])), HOUR).await;
        let code = error.split(' ').next().unwrap();
        assert_eq!(outcomes, ["written", &format!("rejected {code}"), "written"], "{error}");
        assert_eq!(seen.lock().unwrap()["b"], 1, "{error}");
    }
}

#[tokio::test]
async fn what_may_have_been_executed_is_not_repeated_where_that_does_harm() {
    let (dsn, seen) = failing("b", &["ERR Connection timed out"]).await;
    let sink = sink_at(&dsn, "t", Command::rpush("k", "v")).await;
    assert_eq!(written(sink, &schema(Conflict::none()), HOUR).await[1].split(' ').next(), Some("unknown"));
    assert_eq!(seen.lock().unwrap()["b"], 1);
    // An error that means a rejection is harmless.
    let (dsn, seen) = failing("b", &["no upstream host"]).await;
    let sink = sink_at(&dsn, "t", Command::rpush("k", "v")).await;
    assert_eq!(written(sink, &schema(Conflict::none()), HOUR).await, ["written"; 3]);
    assert_eq!(seen.lock().unwrap()["b"], 2);
}

#[tokio::test]
async fn a_script_that_failed_is_not_run_again() {
    let server = batchsql_testserver::Server::start(batchsql_testserver::Kind::Redis, &[]);
    let sink = sink_at(server.dsn(), "t", Command::raw("EVAL")).await;
    let schema = Schema::builder("t").column("k", ColumnType::Text).column("v", ColumnType::I64).build().unwrap();
    let script = "redis.call('INCR', 'runs'); return redis.error_reply('MYERR of the script')";
    let db = BatchSql::builder(sink).config(config().retry_for(HOUR)).start().unwrap();
    let receipts = receipts_of(&db, [row(&schema, [script.into(), 0_i64.into()])]).await;
    db.close(HOUR).await;
    assert_eq!(outcomes_of(receipts).await.iter().map(name).collect::<Vec<_>>(), ["rejected MYERR"]);
    assert_eq!(crate::support::ask_at::<i64>(server.dsn(), &["GET", "runs"]).await, 1);
}

#[tokio::test]
async fn a_word_of_the_row_says_whether_it_is_a_script() {
    let schema = Schema::builder("t").column("word", ColumnType::Text).column("k", ColumnType::Text).build().unwrap();
    for (word, expected) in [("eval", "rejected SOMETHING"), ("SET", "written")] {
        let (dsn, _) = failing("b", &["SOMETHING new"]).await;
        let sink = sink_at(&dsn, "t", Command::raw_from_row()).await;
        let db = BatchSql::builder(sink).config(config().retry_for(HOUR)).start().unwrap();
        let receipts = receipts_of(&db, [row(&schema, [word.into(), "b".into()])]).await;
        db.close(HOUR).await;
        assert_eq!(outcomes_of(receipts).await.iter().map(name).collect::<Vec<_>>(), [expected], "{word}");
    }
}
