//! JSON that other programs publish to a stream: rows as those of requests, and a clear end for everything else.

use std::fmt::Write as _;
use std::io::Write as _;

use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use batchsql_testserver::{Kind, dsn, unique};
use bytes::Bytes;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};

use crate::program::until;
use crate::streams::{Cluster, put_and_wait, runtime};

/// Publishes to partition 1 of the table, and returns when it is stored.
async fn send(context: &Context, cluster: &Cluster, table: &str, coding: Option<&str>, payload: impl Into<Bytes>) {
    let mut headers = HeaderMap::new();
    headers.insert("Content-Encoding", coding.unwrap_or("identity"));
    let subject = format!("{}.{table}.1", cluster.stream_name());
    context.publish_with_headers(subject, headers, payload.into()).await.unwrap().await.unwrap();
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn lines(ids: std::ops::Range<usize>) -> String {
    ids.fold(String::new(), |mut lines, id| {
        writeln!(lines, "{{\"orderId\":{id}}}").unwrap();
        lines
    })
}

/// What is in the file of messages that are not written.
pub(crate) fn letters(cluster: &Cluster) -> Vec<Value> {
    let text = std::fs::read_to_string(cluster.place.path("letters.foreign")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `more` is of the source.
pub(crate) fn worker(cluster: &Cluster, more: &str) -> String {
    let config = cluster.worker(&format!("format = \"json\"\ndecompressed = \"4MiB\"\n{more}"));
    config.replace(
        "[[tables]]\nname = \"orders\"\n",
        "[[tables]]\nname = \"orders\"\nfields = { orderId = \"id\" }\ndefaults = { note = \"-\" }\nunknown_fields = \"ignore\"\n",
    )
}

#[test]
fn messages_of_others_are_rows_beside_those_of_a_front() {
    for guarantee in ["exactly_once", "at_least_once"] {
        let (cluster, runtime) = (Cluster::of_sqlite(&dsn(Kind::Nats)), runtime());
        let front = cluster.start("front.toml", &cluster.front(""));
        put_and_wait(front.address(), "written", 0..10);
        let context = runtime.block_on(cluster.context());
        runtime.block_on(async {
            let send = async |coding: Option<&str>, payload: Bytes| {
                send(&context, &cluster, "orders", coding, payload).await;
            };
            send(None, "{\"orderId\": 10, \"note\": \"one\", \"color\": \"red\"}".into()).await;
            send(None, "[{\"orderId\":11},{\"id\":12,\"note\":\"two\"}]".into()).await;
            send(None, format!("{}\n{{\"orderId\":\"secret\"}}\n\n{}", lines(13..14), lines(14..16)).into()).await;
            send(Some("gzip"), gzip(lines(16..100_016).as_bytes()).into()).await;
            // What is no row ends too, and stops nothing.
            send(None, "PING".into()).await;
            send(None, Bytes::new()).await;
            send(None, (&b"\xff\xfe\x00"[..]).into()).await;
            send(Some("gzip"), gzip(&b"{\"orderId\":1}\n".repeat(1 << 20)).into()).await;
            send(Some("gzip"), "{\"orderId\":1}".into()).await;
            send(Some("br"), "{\"orderId\":1}".into()).await;
            send(None, "{\"orderId\":100016,\"note\":\"é\"}".into()).await;
        });
        put_and_wait(front.address(), "written", 100_017..100_027);
        let config = worker(&cluster, &format!("guarantee = \"{guarantee}\""));
        let program = cluster.start("a.toml", &config);
        let all = 100_027;
        let count = || cluster.place.number("SELECT count(*) FROM orders");
        until(|| count() >= all, || format!("{} rows", count()));
        until(|| letters(&cluster).len() >= 7, || format!("{} letters", letters(&cluster).len()));
        // The rest of the memory is that of an ordinary worker.
        let peak = program.peak_memory();
        assert!(peak < 512 << 20, "{peak} bytes");
        let (code, log) = program.stop();
        assert_eq!(code, 1, "a row is in the dead letters: {log}");
        assert!(!log.contains("secret") && !log.contains("stopped"), "{log}");
        assert!(cluster.ids().into_iter().eq(0..all), "{} rows", count());
        let note = |id: i64| {
            let db = cluster.place.sql("");
            let note: String = db.query_row("SELECT note FROM orders WHERE id = ?1", [id], |row| row.get(0)).unwrap();
            note
        };
        assert_eq!([5, 10, 11, 12, 13, 100_016].map(note), ["n5", "one", "-", "two", "-", "é"]);

        let letters = letters(&cluster);
        let reasons: Vec<&str> = letters.iter().map(|letter| letter["reason"].as_str().unwrap()).collect();
        let expected = ["column", "no JSON", "empty", "no JSON", "more than 4194304 bytes", "not gzip", "`br`"];
        assert!(reasons.len() == 7 && reasons.iter().zip(expected).all(|(is, part)| is.contains(part)), "{reasons:?}");
        assert!(!reasons.concat().contains("secret"), "{reasons:?}");
        // The bad line, by its message and number.
        assert_eq!(letters[0]["line"], 3);
        let id = format!("{}:3", letters[0]["sequence"]);
        assert!(letters[0]["id"].as_str().unwrap().ends_with(&id), "{}", letters[0]["id"]);

        // Nothing comes again, and what is new is written.
        let program = cluster.start("a.toml", &config);
        runtime.block_on(send(&context, &cluster, "orders", None, lines(100_027..100_030)));
        until(|| count() >= all + 3, || format!("{} rows", count()));
        assert_eq!((front.stop().0, program.stop().0), (0, 0));
        assert!(cluster.ids().into_iter().eq(0..all + 3), "{} rows", count());
    }
}

/// Without `format = "json"` they are kept, as ever.
#[test]
fn messages_of_others_are_kept_aside_by_default() {
    let (cluster, runtime) = (Cluster::of_sqlite(&dsn(Kind::Nats)), runtime());
    let front = cluster.start("front.toml", &cluster.front(""));
    put_and_wait(front.address(), "written", 0..10);
    let context = runtime.block_on(cluster.context());
    for _ in 0..3 {
        runtime.block_on(send(&context, &cluster, "orders", None, "{\"id\": 10}"));
    }
    let program = cluster.start("a.toml", &cluster.worker(""));
    until(|| letters(&cluster).len() == 3, || "they are not kept".to_owned());
    put_and_wait(front.address(), "written", 11..20);
    until(|| cluster.ids().len() == 19, || format!("{} rows", cluster.ids().len()));
    let (front, (code, log)) = (front.stop().0, program.stop());
    assert_eq!((front, code), (0, 1), "a message is not written: {log}");
    let line = log.lines().find(|line| line.contains("a message is not of this format")).unwrap_or_default();
    let subject = format!("{}.orders.1", cluster.stream_name());
    assert!([&*subject, "it has no header", "letters.foreign"].iter().all(|part| line.contains(part)), "{log}");
    assert_eq!(log.matches("a message is not of this format").count(), 1, "{log}");
    let more = log.lines().find(|line| line.contains("more messages are not of this format")).unwrap_or_default();
    assert!(more.contains("count=2") && more.contains("table=\"orders\""), "{log}");
    let reason = letters(&cluster)[0]["reason"].to_string();
    assert!(reason.contains("format = ") && reason.contains("json"), "{reason}");
}

/// A trigger holds one row of a message back, so that the worker is killed behind rows that are committed and before others.
#[test]
fn a_worker_that_is_killed_in_a_message_goes_on_in_it() {
    const ROWS: usize = 60_000;
    let (dsn_of_db, table, runtime) = (dsn(Kind::Postgres), unique("orders"), runtime());
    let mut connections =
        [(); 2].map(|()| runtime.block_on(async { PgConnection::connect(&dsn_of_db).await.unwrap() }));
    let [connection, holding] = &mut connections;
    let execute = |connection: &mut PgConnection, sql: &str| {
        runtime.block_on(async { sqlx::raw_sql(sql).execute(connection).await.unwrap() });
    };
    let number = |connection: &mut PgConnection, sql: &str| -> i64 {
        runtime.block_on(async { sqlx::query_scalar(sql).fetch_one(connection).await.unwrap() })
    };
    execute(
        connection,
        &format!(
            "CREATE TABLE {table} (id BIGINT NOT NULL, note TEXT); \
             CREATE FUNCTION {table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF NEW.id = {} THEN PERFORM pg_advisory_xact_lock(hashtext('{table}')); END IF; RETURN NEW; END $$; \
             CREATE TRIGGER held BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {table}()",
            ROWS - 1
        ),
    );
    execute(holding, &format!("SELECT pg_advisory_lock(hashtext('{table}'))"));
    let cluster = Cluster::of_database(&dsn(Kind::Nats), &dsn_of_db, &table);
    // The stream is made by a worker.
    let config = worker(&cluster, "worker = \"one\"\nlease = \"1h\"");
    let config = config.replace("statement_timeout = \"2s\"", "statement_timeout = \"30m\"");
    let program = cluster.start("a.toml", &config);
    let context = runtime.block_on(cluster.context());
    let message = gzip(format!("{}no row\n{}", lines(0..30_000), lines(30_000..ROWS)).as_bytes());
    runtime.block_on(send(&context, &cluster, &table, Some("gzip"), message));
    let waiting = format!(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
         AND objid::bigint = (hashtext('{table}')::bigint & 4294967295)"
    );
    until(|| number(connection, &waiting) > 0, || "no step waits for its row".to_owned());
    let rows = format!("SELECT count(*) FROM {table}");
    let before = number(connection, &rows) as usize;
    assert!(before > 30_000 && before < ROWS, "{before} rows are committed before the kill");
    program.kill();

    let program = cluster.start("a.toml", &config);
    execute(holding, &format!("SELECT pg_advisory_unlock(hashtext('{table}'))"));
    until(|| number(connection, &rows) as usize >= ROWS, || "rows are missing".to_owned());
    let (code, log) = program.stop();
    let ids = format!("SELECT count(DISTINCT id) FROM {table}");
    assert_eq!([rows, ids].map(|sql| number(connection, &sql) as usize), [ROWS; 2], "{log}");
    // The bad line was passed before the kill.
    assert_eq!((code, letters(&cluster).len()), (0, 1), "{log}");
    execute(connection, &format!("DROP TABLE {table}; DROP FUNCTION {table}()"));
}

/// At least once a message is acknowledged after its last row has ended, so all of it comes again.
#[test]
fn at_least_once_a_killed_worker_loses_no_row_of_a_message() {
    const ROWS: usize = 30_000;
    let (cluster, runtime) = (Cluster::of_sqlite(&dsn(Kind::Nats)), runtime());
    let config = worker(&cluster, "guarantee = \"at_least_once\"\nack_wait = \"1s\"");
    let program = cluster.start("a.toml", &config);
    let context = runtime.block_on(cluster.context());
    runtime.block_on(async {
        for part in 0..3 {
            let part = lines(part * ROWS / 3..(part + 1) * ROWS / 3);
            send(&context, &cluster, "orders", Some("gzip"), gzip(part.as_bytes())).await;
        }
    });
    let different = || cluster.place.number("SELECT count(DISTINCT id) FROM orders") as usize;
    until(|| different() > 0, || "no row is written".to_owned());
    program.kill();
    let program = cluster.start("a.toml", &config);
    until(|| different() == ROWS, || format!("{} rows", different()));
    assert_eq!(program.stop().0, 0);
}
