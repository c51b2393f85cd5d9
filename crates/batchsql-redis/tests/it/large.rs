//! Values above the server's limits: only their rows are rejected, whatever the user's rights to query the limits.

use std::sync::{Arc, Mutex};

use batchsql_core::{ColumnType, Conflict, ErrorClass, Outcome, Schema, Value};
use batchsql_redis::Command;
use batchsql_testserver::{Kind, Server};

use crate::scripted::{CLOSE, node};
use crate::support::{ask_at, name, outcomes, row, sink_at};

const BIG: usize = (1 << 20) + 1;

/// A user without the right to query the limits.
async fn without_config(server: &Server) -> String {
    ask_at::<()>(server.dsn(), &["ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-config"]).await;
    server.dsn().replace("redis://", "redis://app:pw@")
}

/// Twenty small rows, a big one, twenty small ones.
fn rows(schema: &Schema) -> Vec<batchsql_core::DynRow> {
    let big = format!("canary{}", "x".repeat(BIG - 6));
    (0..41)
        .map(|n| {
            let value = if n == 20 { big.clone() } else { format!("v{n}") };
            row(schema, [Value::from("list"), value.into()])
        })
        .collect()
}

/// Only the big row is rejected; a list shows every write and every retry.
async fn only_the_big_row_is_refused(server: &Server, dsn: &str, limit: &str) {
    let schema = Schema::builder("t").column("k", ColumnType::Text).column("v", ColumnType::Text).build().unwrap();
    let sink = sink_at(dsn, "t", Command::rpush("k", "v")).await;
    let outcomes = outcomes(&sink, rows(&schema)).await;
    for (n, outcome) in outcomes.iter().enumerate() {
        let expected = if n == 20 { "rejected ERR" } else { "written" };
        assert_eq!(
            name(outcome),
            expected,
            "row {n} at {dsn}: {:?}",
            outcome.failure().and_then(|failed| failed.error())
        );
    }
    let failed = outcomes[20].failure().unwrap();
    let text = failed.error().unwrap().to_string();
    assert_eq!(failed.class(), Some(ErrorClass::Row));
    assert!(text.contains(&BIG.to_string()) && text.contains(limit) && !text.contains("canary"), "{text}");
    assert_eq!(ask_at::<i64>(server.dsn(), &["LLEN", "list"]).await, 40, "each other row once");
    ask_at::<i64>(server.dsn(), &["DEL", "list"]).await;
}

#[tokio::test]
async fn a_value_above_the_bulk_limit_is_refused_alone() {
    let server = Server::start(Kind::Redis, &["--proto-max-bulk-len", "1mb"]);
    only_the_big_row_is_refused(&server, server.dsn(), "proto-max-bulk-len").await;
    only_the_big_row_is_refused(&server, &format!("{}?protocol=2", server.dsn()), "proto-max-bulk-len").await;
    // The limit is not known: the server's error shows it.
    only_the_big_row_is_refused(&server, &without_config(&server).await, "proto-max-bulk-len").await;
    let waits = format!("{}?abandoned_writes=wait", server.dsn());
    only_the_big_row_is_refused(&server, &waits, "proto-max-bulk-len").await;
}

#[tokio::test]
async fn a_value_above_the_query_buffer_is_refused_alone() {
    let server = Server::start(Kind::Redis, &["--client-query-buffer-limit", "1mb"]);
    only_the_big_row_is_refused(&server, server.dsn(), "client-query-buffer-limit").await;
    // The server closes the connection without an error, at a command that does nothing: no row is sent and then unknown.
    let text = format!("command of {}", "RPUSH".len() + "list".len() + BIG);
    only_the_big_row_is_refused(&server, &without_config(&server).await, &text).await;
    // A smaller one is taken.
    let larger = Server::start(Kind::Redis, &["--client-query-buffer-limit", "3mb"]);
    let schema = Schema::builder("t").column("k", ColumnType::Text).column("v", ColumnType::Text).build().unwrap();
    let sink = sink_at(&without_config(&larger).await, "t", Command::rpush("k", "v")).await;
    assert!(outcomes(&sink, rows(&schema)).await.iter().all(Outcome::is_written));
    assert_eq!(ask_at::<i64>(larger.dsn(), &["LLEN", "list"]).await, 41);
}

/// Its row is refused, and the others of its batch and of its key are written.
#[tokio::test]
async fn a_value_that_closes_the_connection_each_time_holds_up_no_row() {
    for kind in [Kind::Redis, Kind::RedisCluster] {
        let server = Server::start(kind, &["--client-query-buffer-limit", "1mb"]);
        let schema = Schema::builder("t").column("k", ColumnType::Text).column("v", ColumnType::Text);
        let schema = schema.on_conflict(Conflict::replace(["k"])).build().unwrap();
        // The limits are not queried, so they are not known.
        let and = if kind == Kind::RedisCluster { '&' } else { '?' };
        let sink = sink_at(&format!("{}{and}abandoned_writes=wait", server.dsn()), "t", Command::set("k", "v")).await;
        let rows = (0..40).map(|n| {
            let value = if n == 10 { "x".repeat(BIG) } else { "v".to_owned() };
            row(&schema, [format!("key{n}").into(), value.into()])
        });
        for (n, outcome) in outcomes(&sink, rows).await.iter().enumerate() {
            let expected = if n == 10 { "rejected ERR" } else { "written" };
            assert_eq!(name(outcome), expected, "{kind:?}, row {n}: {outcome:?}");
        }
    }
}

/// A server or a proxy that restarts while a size is tried: it closes connections, and then does not answer for a while.
#[tokio::test]
async fn connections_that_are_closed_for_another_reason_reject_no_row() {
    // So many connections are closed at the size before one is closed at another command.
    for closed_at_size in [1, 2] {
        let trials = Arc::new(Mutex::new(0));
        let is_closed_at_ping = Arc::new(Mutex::new(false));
        let (tried, pinged) = (Arc::clone(&trials), Arc::clone(&is_closed_at_ping));
        let port = node(move |words| match words[0].as_str() {
            "ECHO" => {
                let mut tried = tried.lock().unwrap();
                *tried += 1;
                let is_closed = *tried <= closed_at_size || !*pinged.lock().unwrap();
                if is_closed { CLOSE.to_owned() } else { "-ERR wrong number of arguments\r\n".to_owned() }
            }
            "PING" if *tried.lock().unwrap() == closed_at_size && !*pinged.lock().unwrap() => {
                *pinged.lock().unwrap() = true;
                CLOSE.to_owned()
            }
            "PING" => "+PONG\r\n".to_owned(),
            _ => "+OK\r\n".to_owned(),
        })
        .await;
        let schema = Schema::builder("t").column("k", ColumnType::Text).column("v", ColumnType::Text);
        let schema = schema.on_conflict(Conflict::replace(["k"])).build().unwrap();
        let dsn = format!("redis://127.0.0.1:{port}?protocol=2&abandoned_writes=wait");
        let sink = sink_at(&dsn, "t", Command::set("k", "v")).await;
        let rows =
            || [("big", "x".repeat(BIG)), ("small", "v".to_owned())].map(|(k, v)| row(&schema, [k.into(), v.into()]));
        // Rows are not retried here.
        let refused = outcomes(&sink, rows()).await;
        assert!(*is_closed_at_ping.lock().unwrap(), "{closed_at_size}");
        for outcome in &refused {
            assert_eq!(
                outcome.failure().unwrap().class(),
                Some(ErrorClass::Transient),
                "{closed_at_size}: {outcome:?}"
            );
        }
        assert_eq!(refused.iter().map(name).collect::<Vec<_>>(), ["expired"; 2], "{closed_at_size}");
        assert_eq!(*trials.lock().unwrap(), closed_at_size);
        assert!(outcomes(&sink, rows()).await.iter().all(Outcome::is_written), "{closed_at_size}");
    }
}

#[tokio::test]
async fn a_limit_that_was_raised_is_seen_by_connections_that_are_older() {
    let server = Server::start(Kind::Redis, &["--proto-max-bulk-len", "1mb"]);
    let schema = Schema::builder("t").column("k", ColumnType::Text).column("v", ColumnType::Text);
    let schema = schema.on_conflict(Conflict::replace(["k"])).build().unwrap();
    let sink = sink_at(server.dsn(), "t", Command::set("k", "v")).await;
    let big = || row(&schema, ["k".into(), "x".repeat(BIG).into()]);
    assert_eq!(name(&outcomes(&sink, [big()]).await[0]), "rejected ERR");
    ask_at::<()>(server.dsn(), &["CONFIG", "SET", "proto-max-bulk-len", "2mb"]).await;
    assert_eq!(name(&outcomes(&sink, [big()]).await[0]), "written");
    // And a lowered limit: the server reports it.
    ask_at::<()>(server.dsn(), &["CONFIG", "SET", "proto-max-bulk-len", "1mb"]).await;
    let rows = [("a", "1".to_owned()), ("k", "x".repeat(BIG)), ("b", "2".to_owned())];
    let outcomes = outcomes(&sink, rows.map(|(k, v)| row(&schema, [k.into(), v.into()]))).await;
    assert_eq!(outcomes.iter().map(name).collect::<Vec<_>>(), ["written", "rejected ERR", "written"]);
}

#[tokio::test]
async fn nodes_of_a_cluster_refuse_only_the_large_row() {
    let server = Server::start(Kind::RedisCluster, &["--proto-max-bulk-len", "1mb"]);
    let schema = Schema::builder("t").column("k", ColumnType::Text).column("v", ColumnType::Text).build().unwrap();
    for parameter in ["", "&abandoned_writes=wait"] {
        let sink = sink_at(&format!("{}{parameter}", server.dsn()), "t", Command::set("k", "v")).await;
        let rows = (0..60).map(|n| {
            let value = if n % 20 == 10 { "x".repeat(BIG) } else { "v".to_owned() };
            row(&schema, [format!("key{n}").into(), value.into()])
        });
        for (n, outcome) in outcomes(&sink, rows).await.iter().enumerate() {
            let expected = if n % 20 == 10 { "rejected ERR" } else { "written" };
            assert_eq!(name(outcome), expected, "row {n} {parameter}: {outcome:?}");
        }
    }
}
