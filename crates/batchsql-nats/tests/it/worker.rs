//! Workers that write what was published, alone and together.

use std::time::Duration;

use batchsql_core::{BatchSql, ColumnType, Conflict, Expr, Schema};
use batchsql_mysql::MySqlSink;
use batchsql_mysql::sqlx::{self, Connection as _, MySqlConnection};
use batchsql_nats::{NatsSink, Worker};
use batchsql_redis::RedisSink;
use batchsql_testserver::{Kind, Server, dsn, unique};

use crate::support::{
    LIMIT, Target, connect, context, keyed, last, lines, plain, publish, publisher, row, stream, until, worker_config,
};

fn all(range: std::ops::Range<i64>) -> Vec<i64> {
    range.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_written_exactly_once_although_a_worker_is_dropped() {
    let (context, options, target) = (context().await, stream(4), Target::new().await);
    options.create(&context).await.unwrap();
    let schema = plain("plain");
    let publishing = publish(&context, &options, &schema, 0..600);
    let working = async {
        for _ in 0..3 {
            let before = target.ids("plain").await.len();
            let worker = target.worker(&context, target.options(&options).exactly_once()).await;
            until("some rows are written", async || target.ids("plain").await.len() >= (before + 50).min(500)).await;
            // Without `close`: what is under way is given up, and its leases stay.
            drop(worker);
        }
    };
    tokio::join!(publishing, working);
    let worker = target.worker(&context, target.options(&options).exactly_once()).await;
    target.has("plain", &all(0..600)).await;
    let stats = worker.stats();
    assert!(stats.stopped.is_empty(), "{stats:?}");
    let messages = async || context.get_stream(options.name()).await.unwrap().cached_info().state.messages;
    until("only the last message of each partition is left", async || messages().await <= 4).await;
    assert!(worker.close(Duration::MAX).await.is_complete());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_the_partitions_and_one_takes_over() {
    let (context, options, target) = (context().await, stream(8), Target::new().await);
    options.create(&context).await.unwrap();
    publish(&context, &options, &keyed("keyed"), 0..100).await;
    let one = target.worker(&context, target.options(&options).exactly_once()).await;
    until("one has all", async || one.stats().partitions.len() == 8).await;
    let two = target.worker(&context, target.options(&options).exactly_once()).await;
    until("each has half", async || (one.stats().partitions.len(), two.stats().partitions.len()) == (4, 4)).await;
    publish(&context, &options, &keyed("keyed"), 100..300).await;
    target.has("keyed", &all(0..300)).await;
    // With `close` the other one need not wait for the leases.
    one.close(LIMIT).await;
    until("two has all", async || two.stats().partitions.len() == 8).await;
    publish(&context, &options, &keyed("keyed"), 300..400).await;
    target.has("keyed", &all(0..400)).await;
    let stats = two.stats();
    assert!(stats.stopped.is_empty() && stats.trouble.is_none(), "{stats:?}");
    two.close(LIMIT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_least_once_workers_share_messages_and_one_takes_over() {
    let (context, options, target) = (context().await, stream(4), Target::new().await);
    options.create(&context).await.unwrap();
    let own = || target.options(&options).ack_wait(Duration::from_secs(1));
    let one = target.worker(&context, own()).await;
    let two = target.worker(&context, own()).await;
    publish(&context, &options, &keyed("keyed"), 0..200).await;
    drop(one);
    publish(&context, &options, &keyed("keyed"), 200..400).await;
    target.has("keyed", &all(0..400)).await;
    assert!(two.close(LIMIT).await.is_complete());
}

/// The table is locked, so a worker holds a message for longer than the server waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_takes_long_is_not_given_to_another_worker() {
    let (context, options, target) = (context().await, stream(1), Target::new().await);
    options.create(&context).await.unwrap();
    target.execute("ALTER TABLE plain RENAME TO away").await;
    let own = || target.options(&options).ack_wait(Duration::from_secs(1));
    let one = target.worker(&context, own()).await;
    publish(&context, &options, &plain("plain"), 0..10).await;
    until("it is read", async || one.stats().oldest().is_some()).await;
    let two = target.worker(&context, own()).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(two.stats().counts.read, 0);
    target.execute("ALTER TABLE away RENAME TO plain").await;
    target.has("plain", &all(0..10)).await;
    one.close(LIMIT).await;
    two.close(LIMIT).await;
    assert_eq!(target.ids("plain").await, all(0..10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_row_is_a_dead_letter_and_the_others_are_written() {
    for is_exact in [false, true] {
        let (context, options, target) = (context().await, stream(2), Target::new().await);
        options.create(&context).await.unwrap();
        target
            .execute("CREATE TRIGGER no BEFORE INSERT ON plain WHEN NEW.id = 13 BEGIN SELECT RAISE(ABORT, 'no'); END")
            .await;
        let own = target.options(&options);
        let worker = target.worker(&context, if is_exact { own.exactly_once() } else { own }).await;
        publish(&context, &options, &plain("plain"), 0..30).await;
        let expected: Vec<i64> = (0..30).filter(|id| *id != 13).collect();
        target.has("plain", &expected).await;
        until("the letter is there", async || lines(&target.path("dead-letters.ndjson")).len() == 1).await;
        let letters = lines(&target.path("dead-letters.ndjson"));
        assert!(letters[0].contains("\"id\":13"), "{letters:?}");
        worker.close(LIMIT).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_server_loses_nothing() {
    for is_exact in [false, true] {
        let mut server = Server::start(Kind::Nats, &[]);
        let (context, options, target) = (connect(server.dsn()).await, stream(2), Target::new().await);
        options.create(&context).await.unwrap();
        let own = target.options(&options).ack_wait(Duration::from_secs(2));
        let worker = target.worker(&context, if is_exact { own.exactly_once() } else { own }).await;
        let db = publisher(&context, &options).await;
        let schema = keyed("keyed");
        for round in 0..4_i64 {
            let rows: Vec<_> = (round * 50..(round + 1) * 50).map(|id| row(&schema, id, "x")).collect();
            // Submitting does nothing until it is waited for. Some rows are in the stream when the server ends, some are not.
            let db = db.clone();
            let submitted = tokio::spawn(async move {
                for chunk in rows.chunks(5) {
                    let outcomes = db.submit_all_tracked(chunk).await.unwrap();
                    assert!(outcomes.is_complete(), "{outcomes:?}");
                }
            });
            let before = last(&context, &options).await;
            until("some are stored", async || last(&context, &options).await > before).await;
            if round % 2 == 0 {
                server.stop()
            } else {
                server.kill()
            };
            server.start_again();
            submitted.await.unwrap();
        }
        target.has("keyed", &all(0..200)).await;
        let stats = worker.stats();
        assert!(stats.stopped.is_empty(), "{stats:?}");
        assert!(db.close(LIMIT).await.is_complete());
        worker.close(LIMIT).await;
    }
}

/// One stream, two databases: each gets every row.
#[tokio::test(flavor = "multi_thread")]
async fn workers_of_two_sources_write_two_databases() {
    for is_exact in [false, true] {
        let (context, options) = (context().await, stream(2));
        options.create(&context).await.unwrap();
        let targets = [Target::new().await, Target::new().await];
        let mut workers = Vec::new();
        for (target, source) in targets.iter().zip(["one", "two"]) {
            let own = target.options(&options).source(source).keep_for(None);
            workers.push(target.worker(&context, if is_exact { own.exactly_once() } else { own }).await);
        }
        publish(&context, &options, &plain("plain"), 0..100).await;
        for target in &targets {
            target.has("plain", &all(0..100)).await;
        }
        for worker in workers {
            worker.close(LIMIT).await;
        }
    }
}

/// Workers of one source that leave out different tables say so; with a source each, all is written.
#[tokio::test(flavor = "multi_thread")]
async fn workers_with_different_tables_have_different_sources() {
    let (context, options, target) = (context().await, stream(4), Target::new().await);
    options.create(&context).await.unwrap();
    publish(&context, &options, &plain("plain"), 0..100).await;
    publish(&context, &options, &keyed("keyed"), 0..100).await;
    let own = |table: &str| target.options(&options).exactly_once().tables([table]);
    let one = target.worker(&context, own("plain")).await;
    let two = target.worker(&context, own("keyed")).await;
    for (worker, other) in [(&one, "keyed"), (&two, "plain")] {
        let trouble = async || worker.stats().trouble.unwrap_or_default();
        let says = async || trouble().await.contains(&format!("table {other}, which this one leaves out"));
        until("it says so", says).await;
    }
    one.close(LIMIT).await;
    two.close(LIMIT).await;

    let (options, target) = (stream(4), Target::new().await);
    options.create(&context).await.unwrap();
    publish(&context, &options, &plain("plain"), 0..100).await;
    publish(&context, &options, &keyed("keyed"), 0..100).await;
    let own = |table: &str| target.options(&options).exactly_once().tables([table]);
    let one = target.worker(&context, own("plain").source("plain of rows")).await;
    let two = target.worker(&context, own("keyed").source("keyed of rows")).await;
    publish(&context, &options, &keyed("keyed"), 100..300).await;
    target.has("keyed", &all(0..300)).await;
    target.has("plain", &all(0..100)).await;
    for worker in [one, two] {
        let stats = worker.stats();
        assert!(stats.partitions.len() == 4 && stats.trouble.is_none(), "{stats:?}");
        worker.close(LIMIT).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_waits_for_a_server_that_is_unreachable() {
    let mut server = Server::start(Kind::Nats, &[]);
    let (context, options, target) = (connect(server.dsn()).await, stream(2), Target::new().await);
    options.create(&context).await.unwrap();
    publish(&context, &options, &plain("plain"), 0..50).await;
    server.stop();
    let starting = target.worker(&context, target.options(&options).exactly_once());
    let started = tokio::join!(starting, async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        server.start_again();
    });
    target.has("plain", &all(0..50)).await;
    started.0.close(LIMIT).await;
}

/// A stream that is full refuses messages, so the publisher waits until a worker has made space.
#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_waits_while_the_stream_is_full() {
    let (context, options, target) = (context().await, stream(1).max_bytes(100_000), Target::new().await);
    options.create(&context).await.unwrap();
    let db = publisher(&context, &options).await;
    let (schema, note) = (plain("plain"), "x".repeat(1_000));
    let rows: Vec<_> = (0..300).map(|id| row(&schema, id, &note)).collect();
    let submitted = async {
        for chunk in rows.chunks(20) {
            db.submit_all(chunk).await.unwrap();
            db.flush().await.unwrap();
        }
    };
    let worked = async {
        let bytes = async || context.get_stream(options.name()).await.unwrap().cached_info().state.bytes;
        until("the stream is full", async || bytes().await > 70_000).await;
        let worker = target.worker(&context, target.options(&options).exactly_once()).await;
        target.has("plain", &all(0..300)).await;
        worker
    };
    let ((), worker) = tokio::join!(submitted, worked);
    assert!(db.close(LIMIT).await.is_complete());
    worker.close(LIMIT).await;
}

/// A rule that adds up would count a row again.
#[tokio::test(flavor = "multi_thread")]
async fn counters_are_written_exactly_once_only() {
    let (context, options, target) = (context().await, stream(1), Target::new().await);
    options.create(&context).await.unwrap();
    target.execute("CREATE TABLE counters (id INTEGER PRIMARY KEY, n INTEGER)").await;
    let schema = Schema::builder("counters").column("id", ColumnType::I64).column("n", ColumnType::I64);
    let schema = schema.on_conflict(Conflict::update(["id"]).set("n", Expr::add())).build().unwrap();
    let db = publisher(&context, &options).await;
    for _ in 0..5 {
        let one = schema.row().set("id", 1_i64).unwrap().set("n", 1_i64).unwrap().finish().unwrap();
        db.submit(&one).await.unwrap();
        db.flush().await.unwrap();
    }
    assert!(db.close(LIMIT).await.is_complete());
    let worker = target.worker(&context, target.options(&options).ack_wait(Duration::from_secs(1))).await;
    until("the partition stops", async || !worker.stats().stopped.is_empty()).await;
    assert!(worker.stats().stopped[0].reason.contains("may_add_twice"), "{:?}", worker.stats());
    worker.close(LIMIT).await;
    let worker = target.worker(&context, target.options(&options).exactly_once()).await;
    let sum = async || {
        let read = |conn: &mut batchsql_sqlite::rusqlite::Connection| {
            conn.query_row("SELECT coalesce(sum(n), 0) FROM counters", [], |row| row.get::<_, i64>(0))
        };
        target.sink().call(read).await.unwrap()
    };
    until("all are counted", async || sum().await == 5).await;
    worker.close(LIMIT).await;
    assert_eq!(sum().await, 5);
}

/// The first line of the answer to a command.
fn redis(command: &str) -> String {
    use std::io::{BufRead, BufReader, Write};

    let dsn = dsn(Kind::Redis);
    let address = dsn.trim_start_matches("redis://").split(['/', '?']).next().unwrap().to_owned();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_written_at_least_once_and_not_exactly_once() {
    let (context, options, target) = (context().await, stream(4), Target::new().await);
    options.create(&context).await.unwrap();
    let table = unique("nats");
    let schema = keyed(&table);
    publish(&context, &options, &schema, 0..100).await;
    let builder = || async { BatchSql::builder(RedisSink::connect(&dsn(Kind::Redis)).await.unwrap()) };
    let own = target.options(&options).exactly_once();
    let refused = Worker::start(context.clone(), builder().await, own).await.unwrap_err();
    assert!(refused.to_string().contains("redis keeps no positions"), "{refused}");
    let worker = Worker::start(context.clone(), builder().await, target.options(&options)).await.unwrap();
    // The answer to KEYS begins with the number of keys.
    let begin = || redis(&format!("KEYS {table}*"));
    until("all are written", async || begin() == "*100").await;
    worker.close(LIMIT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_is_written_exactly_once() {
    let (context, options, target) = (context().await, stream(2), Target::new().await);
    options.create(&context).await.unwrap();
    let name = unique("nats");
    // The shared server does not wait for the disk, which is refused.
    let own = Server::start(Kind::MySql, &["--innodb-flush-log-at-trx-commit=1"]);
    let shared = own.dsn().to_owned();
    let mut admin = MySqlConnection::connect(&shared).await.unwrap();
    sqlx::raw_sql(&format!("CREATE DATABASE {name}")).execute(&mut admin).await.unwrap();
    sqlx::raw_sql(&format!("CREATE TABLE {name}.plain (id bigint, note text)")).execute(&mut admin).await.unwrap();
    let (server, _) = shared.rsplit_once('/').unwrap();
    let database = format!("{server}/{name}");
    publish(&context, &options, &plain("plain"), 0..100).await;
    for round in 0..2 {
        let builder = BatchSql::builder(MySqlSink::connect(&database).await.unwrap()).config(worker_config());
        let worker = Worker::start(context.clone(), builder, target.options(&options).exactly_once()).await.unwrap();
        let query = format!("SELECT count(*), count(DISTINCT id) FROM {name}.plain");
        let expected = 100 * (round + 1);
        let mut count = async || sqlx::query_as::<_, (i64, i64)>(&query).fetch_one(&mut admin).await.unwrap();
        until("all are written", async || count().await.0 >= expected).await;
        assert_eq!(count().await, (expected, expected));
        // Dropped, not closed: the next one takes over.
        drop(worker);
        publish(&context, &options, &plain("plain"), expected..expected + 100).await;
    }
}

/// A copy of the folder of a publisher does not know who has claimed its partitions since.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_went_on_elsewhere_publishes_nothing() {
    use batchsql_durable::{DurableExt, DurableOptions};

    let (context, options, target) = (context().await, stream(2), Target::new().await);
    options.create(&context).await.unwrap();
    let open = async |folder: &str| {
        let log = DurableOptions::new(target.path(folder)).partitions(2).min_free_bytes(0).exactly_once("log");
        let sink = NatsSink::new(context.clone(), &options).await.unwrap();
        BatchSql::builder(sink).durable(log).start().await.unwrap()
    };
    let schema = keyed("keyed");
    let submit = async |db: &batchsql_durable::DurableBatchSql, ids: std::ops::Range<i64>| {
        for id in ids {
            db.submit(&row(&schema, id, "x")).await.unwrap();
        }
    };
    let db = open("intake").await;
    submit(&db, 0..20).await;
    db.flush().await.unwrap();
    db.close(LIMIT).await;
    let copied = std::process::Command::new("cp").arg("-r").args([target.path("intake"), target.path("copy")]).status();
    assert!(copied.unwrap().success());
    let db = open("intake").await;
    submit(&db, 20..40).await;
    db.flush().await.unwrap();
    db.close(LIMIT).await;

    let copy = open("copy").await;
    submit(&copy, 100..120).await;
    until("it stops", async || copy.health().stopped.len() == 2).await;
    assert!(copy.health().stopped[0].reason.contains("another process has claimed it"), "{:?}", copy.health().stopped);
    copy.close(Duration::from_millis(100)).await;
    let worker = target.worker(&context, target.options(&options).exactly_once()).await;
    target.has("keyed", &all(0..40)).await;
    worker.close(LIMIT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_tells_how_far_it_is() {
    let (context, options, target) = (context().await, stream(1), Target::new().await);
    options.create(&context).await.unwrap();
    publish(&context, &options, &plain("plain"), 0..30).await;
    let end = context.get_stream(options.name()).await.unwrap().cached_info().state.last_sequence;
    target.execute("ALTER TABLE plain RENAME TO away").await;
    // One message at a time: the others are pending.
    let worker = target.worker(&context, target.options(&options)).await;
    until("a message is read", async || worker.stats().oldest().is_some()).await;
    let stats = worker.stats();
    assert_eq!((stats.pending(), stats.partitions[0].written, stats.partitions[0].behind), (end - 1, 0, end));
    assert!(stats.oldest().unwrap() <= std::time::SystemTime::now());
    target.execute("ALTER TABLE away RENAME TO plain").await;
    target.has("plain", &all(0..30)).await;
    until("it has written all", async || worker.stats().partitions[0].behind == 0).await;
    let stats = worker.stats();
    assert_eq!((stats.pending(), stats.partitions[0].written, stats.oldest()), (0, end, None));
    worker.close(LIMIT).await;
}

/// Requests to a server that is unreachable wait for longer than a lease.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_keeps_its_leases_while_nats_is_unreachable() {
    let mut server = Server::start(Kind::Nats, &[]);
    let (context, options, target) = (connect(server.dsn()).await, stream(2), Target::new().await);
    options.create(&context).await.unwrap();
    publish(&context, &options, &plain("plain"), 0..20).await;
    let worker = target.worker(&context, target.options(&options).exactly_once().source("s")).await;
    target.has("plain", &all(0..20)).await;
    until("it has its partitions", async || worker.stats().partitions.len() == 2).await;
    let held = async || {
        let stored = worker.pipeline().positions("s").await.unwrap();
        stored.iter().filter(|stored| stored.holder().is_some()).count()
    };
    until("it has its leases", async || held().await == 3).await;
    server.stop();
    let begin = std::time::Instant::now();
    while begin.elapsed() < Duration::from_secs(6) {
        assert_eq!(held().await, 3, "two partitions and a seat");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.start_again();
    publish(&context, &options, &plain("plain"), 20..40).await;
    target.has("plain", &all(0..40)).await;
    worker.close(LIMIT).await;
}
