//! Broken connections and abandoned writes: the outcome depends on what was sent.

use std::time::Duration;

use batchsql_core::{Attempt, BatchSql, Conflict, ErrorClass, OutcomeKind, PipelineConfig, Sink};
use batchsql_postgres::sqlx::{Connection, Executor, PgConnection};
use batchsql_postgres::{PostgresOptions, PostgresSink, Strategy};
use batchsql_testserver::unique;

use crate::proxy::{COMMIT, Cut, commits, through_proxy};
use crate::support::{HOUR, batch_of, fresh_dsn, outcomes_by, read, row, schema, skip, with_parameter, with_strategy};

fn start(sink: &PostgresSink) -> BatchSql {
    let config = PipelineConfig::default().flush_interval(HOUR);
    BatchSql::builder(sink.clone()).config(config).start().unwrap()
}

#[tokio::test]
async fn a_link_that_breaks_before_the_rows_are_sent_costs_nothing() {
    for (strategy, part) in
        [(Strategy::Unnest, &b"INSERT INTO"[..]), (Strategy::Copy, b"COPY "), (Strategy::Staging, b"CREATE TEMP")]
    {
        let (sink, proxy, direct) = through_proxy(Cut::Before(part), strategy).await;
        let db = start(&sink);
        let schema = schema(Conflict::none());
        db.prepare(&schema).await.unwrap();
        proxy.arm();
        let outcomes = outcomes_by(&db, (0..50).map(|id| row(&schema, id, "a"))).await;
        assert!(
            proxy.has_cut() && outcomes.iter().all(batchsql_core::Outcome::is_written),
            "{strategy:?} {outcomes:?}"
        );
        assert_eq!(read(&direct, "SELECT count(*), count(DISTINCT id) FROM t").await, ["50|50"], "{strategy:?}");
    }
}

#[tokio::test]
async fn plain_rows_whose_reply_is_lost_end_as_unknown_and_are_not_repeated() {
    for strategy in [Strategy::Unnest, Strategy::MultiValues, Strategy::Copy, Strategy::Staging] {
        let (sink, proxy, direct) = through_proxy(Cut::After(commits(strategy)), strategy).await;
        let db = start(&sink);
        let schema = schema(Conflict::none());
        db.prepare(&schema).await.unwrap();
        proxy.arm();
        let outcomes = outcomes_by(&db, (0..64).map(|id| row(&schema, id, "a"))).await;
        assert!(proxy.has_cut(), "{strategy:?}");
        assert!(outcomes.iter().all(|o| o.kind() == OutcomeKind::Unknown), "{strategy:?} {outcomes:?}");
        assert_eq!(read(&direct, "SELECT count(*), count(DISTINCT id) FROM t").await, ["64|64"], "{strategy:?}");
    }
}

#[tokio::test]
async fn rows_with_a_rule_whose_reply_is_lost_are_repeated() {
    for strategy in [Strategy::Unnest, Strategy::MultiValues, Strategy::Staging] {
        let (sink, proxy, direct) = through_proxy(Cut::After(commits(strategy)), strategy).await;
        let db = start(&sink);
        let schema = schema(Conflict::replace(["id"]));
        db.prepare(&schema).await.unwrap();
        proxy.arm();
        let outcomes = outcomes_by(&db, (0..64).map(|id| row(&schema, id, "a"))).await;
        assert!(
            proxy.has_cut() && outcomes.iter().all(batchsql_core::Outcome::is_written),
            "{strategy:?} {outcomes:?}"
        );
        assert_eq!(read(&direct, "SELECT count(*), count(DISTINCT id) FROM t").await, ["64|64"], "{strategy:?}");
    }
}

/// Whether the attempt without a reply or another writer wrote them is not asked: rows that another writer stored before may
/// be equal too.
#[tokio::test]
async fn rows_under_ignore_whose_reply_is_lost_end_as_ignored() {
    for strategy in [Strategy::Unnest, Strategy::MultiValues, Strategy::Staging] {
        let (sink, proxy, direct) = through_proxy(Cut::After(commits(strategy)), strategy).await;
        let db = start(&sink);
        let schema = schema(Conflict::ignore(["id"]));
        db.prepare(&schema).await.unwrap();
        proxy.arm();
        let outcomes = outcomes_by(&db, (0..64).map(|id| row(&schema, id, "a"))).await;
        assert!(proxy.has_cut(), "{strategy:?}");
        assert!(outcomes.iter().all(|o| o.kind() == OutcomeKind::Ignored), "{strategy:?} {outcomes:?}");
        assert_eq!(read(&direct, "SELECT count(*), count(DISTINCT id) FROM t").await, ["64|64"], "{strategy:?}");
    }
}

#[tokio::test]
async fn a_commit_that_never_arrived_is_unknown_too() {
    let (sink, proxy, direct) = through_proxy(Cut::Before(COMMIT), Strategy::Staging).await;
    let db = start(&sink);
    let schema = schema(Conflict::none());
    db.prepare(&schema).await.unwrap();
    proxy.arm();
    let outcomes = outcomes_by(&db, (0..10).map(|id| row(&schema, id, "a"))).await;
    assert!(proxy.has_cut() && outcomes.iter().all(|outcome| outcome.kind() == OutcomeKind::Unknown), "{outcomes:?}");
    assert_eq!(read(&direct, "SELECT count(*) FROM t").await, ["0"]);
}

#[tokio::test]
async fn connections_that_the_server_ends_are_replaced_and_no_row_is_lost() {
    let name = unique("ended");
    let dsn = fresh_dsn("CREATE TABLE t (id bigint, note text)").await;
    let sink = PostgresSink::connect(&with_parameter(&dsn, &format!("application_name={name}"))).await.unwrap();
    let admin = PostgresSink::connect(&dsn).await.unwrap();
    let db = start(&sink);
    let schema = schema(Conflict::none());
    for round in 0..5_i64 {
        for id in 0..10 {
            db.submit(&row(&schema, round * 10 + id, "a")).await.unwrap();
        }
        assert_eq!(db.flush().await.unwrap().written(), (round as u64 + 1) * 10);
        let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{name}'");
        assert!(!read(&admin, &end).await.is_empty());
    }
    assert!(db.close(HOUR).await.is_complete());
    assert_eq!(read(&admin, "SELECT count(*), count(DISTINCT id) FROM t").await, ["50|50"]);
}

/// Starts a write, and abandons it when the server waits for a lock in it.
async fn give_up_at_a_lock(write: impl Future, admin: &PostgresSink, application: &str) {
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{application}' AND wait_event_type = 'Lock'"
    );
    let waits = async {
        while read(admin, &waiting).await != ["1"] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = write => panic!("it does not wait for the lock"),
        waits = tokio::time::timeout(Duration::from_secs(60), waits) => waits.expect("it waits for the lock"),
    }
}

#[tokio::test]
async fn a_write_that_is_given_up_closes_its_connection_and_leaves_no_transaction() {
    for strategy in [Strategy::Unnest, Strategy::Staging, Strategy::MultiValues] {
        let name = unique("given_up");
        let dsn = fresh_dsn("CREATE TABLE t (id bigint PRIMARY KEY, note text); INSERT INTO t VALUES (3, 'old')").await;
        let options: PostgresOptions = with_parameter(&dsn, &format!("application_name={name}")).parse().unwrap();
        let sink = PostgresSink::with_options(&options.strategy(strategy).max_connections(1)).await.unwrap();
        let admin = PostgresSink::connect(&dsn).await.unwrap();
        let mut locker = PgConnection::connect_with(&admin.pg_pool().connect_options()).await.unwrap();
        locker.execute("BEGIN; UPDATE t SET note = 'locked' WHERE id = 3").await.unwrap();
        let schema = schema(Conflict::replace(["id"]));
        let batch = batch_of(&schema, 0..10).await;
        let mut conn = sink.acquire().await.unwrap();
        let plan = sink.prepare(&mut conn, &schema).await.unwrap();
        let attempt = Attempt::new(false);
        let write = sink.write(&mut conn, &plan, batch.rows(), &attempt);
        give_up_at_a_lock(write, &admin, &name).await;
        // The connection is unusable and reports it.
        let error = sink.write(&mut conn, &plan, batch.rows(), &attempt).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Transient, "{strategy:?}: {error}");
        drop(conn);
        assert_eq!(Sink::pool(&sink).unwrap().in_use, 0, "{strategy:?}");
        // The abandoned statement ends with the lock, and does not affect the next batch.
        let next = tokio::spawn({
            let (sink, batch) = (sink.clone(), batch.clone());
            async move {
                let mut conn = sink.acquire().await.unwrap();
                sink.write(&mut conn, &plan, batch.rows(), &Attempt::new(false)).await.unwrap();
            }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        locker.execute("COMMIT").await.unwrap();
        next.await.unwrap();
        assert_eq!(read(&admin, "SELECT count(*) FROM t WHERE note = 'new'").await, ["10"], "{strategy:?}");
        let open = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' AND state LIKE 'idle in trans%'"
        );
        assert_eq!(read(&admin, &open).await, ["0"], "{strategy:?}");
    }
}

/// Writes that are abandoned at many points in time, and later batches on the same pool.
#[tokio::test(flavor = "multi_thread")]
async fn giving_up_a_write_never_touches_the_batches_after_it() {
    for strategy in [Strategy::Unnest, Strategy::Copy, Strategy::Staging] {
        let dsn =
            fresh_dsn("CREATE TABLE t (id bigint, note text); CREATE TABLE given_up (id bigint, note text)").await;
        let options: PostgresOptions = dsn.parse().unwrap();
        let sink = PostgresSink::with_options(&options.strategy(strategy).max_connections(2)).await.unwrap();
        let schema = schema(Conflict::none());
        let batch = batch_of(&schema, 0..300).await;
        let mut conn = sink.acquire().await.unwrap();
        let plan = sink.prepare(&mut conn, &schema).await.unwrap();
        let to_other = batchsql_core::Schema::builder("given_up")
            .column("id", batchsql_core::ColumnType::I64)
            .nullable("note", batchsql_core::ColumnType::Text)
            .build()
            .unwrap();
        let other = sink.prepare(&mut conn, &to_other).await.unwrap();
        drop(conn);
        let mut given_up = 0;
        for moment in 0..40_u32 {
            let mut conn = sink.acquire().await.unwrap();
            let attempt = Attempt::new(false);
            let write = sink.write(&mut conn, &other, batch.rows(), &attempt);
            // Polled a few times, then dropped: before any reply, and later.
            let (polls, time) = if moment < 20 { (moment, Duration::ZERO) } else { (0, SHORT * (moment - 20)) };
            tokio::select! {
                biased;
                result = write => drop(result.unwrap()),
                () = spin(polls, time) => given_up += 1,
            }
            drop(conn);
            let mut conn = sink.acquire().await.unwrap();
            sink.write(&mut conn, &plan, batch.rows(), &attempt).await.unwrap();
        }
        // The number depends on the machine.
        assert!(given_up > 0, "none of 40 was given up, {strategy:?}");
        assert_eq!(read(&sink, "SELECT count(*) FROM t").await, ["12000"], "{strategy:?}");
        // Whole batches only.
        assert_eq!(read(&sink, "SELECT count(*) % 300 FROM given_up").await, ["0"], "{strategy:?}");
    }
}

/// Shorter than the resolution of the timer.
const SHORT: Duration = Duration::from_micros(200);

/// Waits for this many polls and this long, without the timer, whose ticks are a millisecond long.
async fn spin(polls: u32, time: Duration) {
    let begin = std::time::Instant::now();
    let mut polled = 0;
    while polled < polls || begin.elapsed() < time {
        polled += 1;
        tokio::task::yield_now().await;
    }
}

/// Until the COMMIT, or the end of a COPY, nothing can be durable, so the rows are retried.
#[tokio::test]
async fn a_timeout_before_the_commit_is_not_unknown() {
    for strategy in [Strategy::Staging, Strategy::Copy] {
        let name = unique("timeout");
        let dsn = fresh_dsn("CREATE TABLE t (id bigint UNIQUE, note text)").await;
        let admin = PostgresSink::connect(&dsn).await.unwrap();
        let sink = with_strategy(&with_parameter(&dsn, &format!("application_name={name}")), strategy).await;
        let mut locker = PgConnection::connect_with(&admin.pg_pool().connect_options()).await.unwrap();
        let schema = schema(Conflict::none());
        // Time is skipped: nothing else takes this long.
        let statement_timeout = Duration::from_secs(600);
        let config =
            PipelineConfig::default().flush_interval(HOUR).statement_timeout(statement_timeout).retry_for(HOUR);
        let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
        db.prepare(&schema).await.unwrap();
        // COPY waits before it asks for data, the merge of the staging table at its first row.
        let lock = if strategy == Strategy::Copy { "BEGIN; LOCK t" } else { "BEGIN; INSERT INTO t VALUES (3)" };
        locker.execute(lock).await.unwrap();
        let write = tokio::spawn({
            let db = db.clone();
            async move { outcomes_by(&db, (0..5).map(|id| row(&schema, id, "a"))).await }
        });
        let waiting =
            format!("SELECT pid FROM pg_stat_activity WHERE application_name = '{name}' AND wait_event_type = 'Lock'");
        let waits = async |given_up: &[String]| loop {
            let mut pids = read(&admin, &waiting).await;
            pids.retain(|pid| !given_up.contains(pid));
            if !pids.is_empty() {
                return pids;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let given_up = waits(&[]).await;
        skip(statement_timeout).await;
        // It is retried on another connection.
        waits(&given_up).await;
        assert_eq!((db.balance().in_flight(), db.balance().failed()), (5, 0), "{strategy:?}");
        locker.execute("ROLLBACK").await.unwrap();
        let outcomes = write.await.unwrap();
        assert!(outcomes.iter().all(batchsql_core::Outcome::is_written), "{strategy:?} {outcomes:?}");
        assert_eq!(read(&sink, "SELECT count(*) FROM t").await, ["5"], "{strategy:?}");
    }
}

/// PostgreSQL 14 and later.
#[tokio::test]
async fn the_server_notices_that_a_write_was_given_up() {
    let name = unique("gone");
    let dsn = fresh_dsn("CREATE TABLE t (id bigint PRIMARY KEY, note text)").await;
    let admin = PostgresSink::connect(&dsn).await.unwrap();
    if read(&admin, "SELECT current_setting('client_connection_check_interval', true)").await == ["NULL"] {
        return;
    }
    let sink = PostgresSink::connect(&with_parameter(&dsn, &format!("application_name={name}"))).await.unwrap();
    let schema = schema(Conflict::none());
    let batch = batch_of(&schema, 0..10).await;
    let mut conn = sink.acquire().await.unwrap();
    let plan = sink.prepare(&mut conn, &schema).await.unwrap();
    let mut locker = PgConnection::connect_with(&admin.pg_pool().connect_options()).await.unwrap();
    locker.execute("BEGIN; LOCK t").await.unwrap();
    let attempt = Attempt::new(false);
    let write = sink.write(&mut conn, &plan, batch.rows(), &attempt);
    give_up_at_a_lock(write, &admin, &name).await;
    drop(conn);
    // The lock is still held.
    let waiting =
        format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' AND state = 'active'");
    assert_eq!(read(&admin, &waiting).await, ["1"]);
    let begin = std::time::Instant::now();
    while read(&admin, &waiting).await != ["0"] {
        assert!(begin.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
