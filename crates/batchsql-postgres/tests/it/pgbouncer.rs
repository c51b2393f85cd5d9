//! PgBouncer that has fewer connections than its clients, that is killed, or whose server comes again: each row has one outcome,
//! and the right one. The ways to write a batch are in `pooler.rs`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use batchsql_core::{BatchSql, ColumnType, Conflict, ErrorClass, OutcomeKind, PipelineConfig, Schema, Sink, Step};
use batchsql_postgres::sqlx::{Connection, Executor, PgConnection, Row};
use batchsql_postgres::{PostgresOptions, PostgresSink, Strategy};
use batchsql_testserver::{Kind, Server, unique};
use tokio::task::block_in_place;

use crate::moments::{ROWS, STANDING, TABLE, claim_again, given};
use crate::positions::{claim, numbers, sequence};
use crate::support::{HOUR, execute, outcomes_by, read, row, schema};

/// As behind a pooler that gives each transaction another session.
fn pooled(dsn: &str, connections: u32) -> PostgresOptions {
    let options: PostgresOptions = dsn.parse().unwrap();
    options.prepared_statements(false).max_connections(connections)
}

/// The same server with another database.
fn of_database(dsn: &str, database: &str) -> String {
    format!("{}/{database}", dsn.rsplit_once('/').unwrap().0)
}

async fn direct(server: &Server) -> PostgresSink {
    PostgresSink::connect(server.behind()).await.unwrap()
}

/// Waits until a condition holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !holds().await {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How many clients wait for a session of the server.
async fn waiting(server: &Server) -> i64 {
    let mut console = PgConnection::connect(&of_database(server.dsn(), "pgbouncer")).await.unwrap();
    let pools = console.fetch_all("SHOW POOLS").await.unwrap();
    let text = |row: &batchsql_postgres::sqlx::postgres::PgRow| {
        row.try_get_raw("cl_waiting").unwrap().as_str().unwrap().parse::<i64>().unwrap()
    };
    pools.iter().map(text).sum()
}

#[tokio::test]
async fn more_lanes_than_the_pooler_has_sessions_take_turns() {
    let server = Server::start(Kind::PgBouncer, &["default_pool_size=2"]);
    let admin = direct(&server).await;
    execute(admin.pg_pool(), "CREATE TABLE t (id bigint, note text)").await;
    for strategy in [Strategy::Copy, Strategy::Unnest, Strategy::MultiValues, Strategy::Staging] {
        let sink = PostgresSink::with_options(&pooled(server.dsn(), 8).strategy(strategy)).await.unwrap();
        execute(admin.pg_pool(), "TRUNCATE t").await;
        let schema = schema(Conflict::none());
        let mut locking = PgConnection::connect(server.behind()).await.unwrap();
        locking.execute("BEGIN; LOCK TABLE t IN SHARE MODE").await.unwrap();
        let db = BatchSql::builder(sink).config(PipelineConfig::default().flush_size(50)).start().unwrap();
        let writing = tokio::spawn(async move { outcomes_by(&db, (0..400).map(|id| row(&schema, id, "a"))).await });
        let blocked = "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND NOT granted";
        until("both sessions wait for the lock", async || numbers(&admin, blocked).await == [2]).await;
        until("lanes wait for a session", async || waiting(&server).await > 0).await;
        locking.close().await.unwrap();
        let outcomes = writing.await.unwrap();
        assert!(outcomes.iter().all(|outcome| outcome.is_written()), "{strategy:?} {:?}", outcomes[0]);
        assert_eq!(read(&admin, "SELECT count(*), count(DISTINCT id) FROM t").await, ["400|400"], "{strategy:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_whose_pooler_is_killed_is_done_once_or_not_at_all() {
    let mut server = Server::start(Kind::PgBouncer, &[]);
    for moment in ["written", "commit"] {
        for strategy in [Strategy::Unnest, Strategy::Copy] {
            let about = format!("{moment} {strategy:?}");
            let database = unique("killed");
            execute(direct(&server).await.pg_pool(), &format!("CREATE DATABASE {database}")).await;
            let admin = PostgresSink::connect(&of_database(server.behind(), &database)).await.unwrap();
            execute(admin.pg_pool(), TABLE).await;
            let options = pooled(&of_database(server.dsn(), &database), 4).strategy(strategy);
            let sink = PostgresSink::with_options(&options).await.unwrap();
            let config = PipelineConfig::default().flush_interval(HOUR).statement_timeout(HOUR);
            let db = BatchSql::builder(sink).config(config).start().unwrap();
            let step = Step::new(claim(&db).await, ROWS);
            execute(admin.pg_pool(), &format!("INSERT INTO standing VALUES ('{moment}')")).await;
            let mut locking = PgConnection::connect(&of_database(server.behind(), &database)).await.unwrap();
            locking.execute("SELECT pg_advisory_lock(hashtext(current_schema()))").await.unwrap();
            let writing = tokio::spawn({
                let db = db.clone();
                async move { db.write_step(given().rows(), &step).await }
            });
            let standing = format!("SELECT count(*) {STANDING}");
            until(&format!("{about}: it stands still"), async || numbers(&admin, &standing).await == [1]).await;
            block_in_place(|| server.kill());
            let refused = writing.await.unwrap().unwrap_err();
            // Only a COMMIT that was sent can be done.
            let expected = if moment == "commit" { ErrorClass::Unknown } else { ErrorClass::Transient };
            assert_eq!(refused.error.class(), expected, "{about}: {refused}");
            locking.close().await.unwrap();
            execute(admin.pg_pool(), "TRUNCATE standing").await;
            block_in_place(|| server.start_again());
            let left = claim_again(&db, "a").await;
            assert_eq!(left.sequence, if moment == "commit" { ROWS } else { 0 }, "{about}");
            assert_eq!(numbers(&admin, "SELECT count(*) FROM t").await, [left.sequence], "{about}");
            if left.sequence == 0 {
                db.write_step(given().rows(), &Step::new(left, ROWS)).await.unwrap();
            }
            assert_eq!(numbers(&admin, "SELECT count(DISTINCT id) FROM t").await, [ROWS], "{about}");
            assert_eq!((numbers(&admin, "SELECT count(*) FROM t").await, sequence(&admin).await), (vec![ROWS], ROWS));
            db.close(HOUR).await;
        }
    }
}

/// `bigint` and nothing else.
fn ids(table: &str, rule: Conflict) -> Schema {
    Schema::builder(table).column("id", ColumnType::I64).on_conflict(rule).build().unwrap()
}

/// A commit of `plain` waits while a test has the lock.
const LOADED: &str = "CREATE TABLE plain (id bigint); CREATE TABLE keyed (id bigint PRIMARY KEY);
    CREATE FUNCTION waits() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN new; END';
    CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON plain DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION waits()";

/// Kills the pooler when the server has committed rows and the pooler has not passed the answer on.
async fn kill_with_answers(server: &mut Server, admin: &PostgresSink) {
    let mut locking = PgConnection::connect(server.behind()).await.unwrap();
    locking.execute("SELECT pg_advisory_lock(1)").await.unwrap();
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    until("a commit waits", async || numbers(admin, waiting).await[0] > 0).await;
    block_in_place(|| server.pause());
    locking.close().await.unwrap();
    let active = "SELECT count(*) FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND state = 'active' AND pid <> pg_backend_pid()";
    until("it is committed", async || numbers(admin, active).await == [0]).await;
    block_in_place(|| server.kill());
}

/// Rows of a table without a key are not repeated where that could write them twice. Those of a table with a key are.
#[tokio::test(flavor = "multi_thread")]
async fn each_outcome_is_right_when_pooler_and_server_come_again_under_load() {
    // It tries again at once to reach a server that was away, in place of after 15 s.
    let mut server = Server::start(Kind::PgBouncer, &["default_pool_size=2", "server_login_retry=1"]);
    execute(direct(&server).await.pg_pool(), LOADED).await;
    let sink = PostgresSink::with_options(&pooled(server.dsn(), 8)).await.unwrap();
    let config = PipelineConfig::default().flush_size(20).flush_interval(Duration::from_millis(5)).retry_for(HOUR);
    let db = BatchSql::builder(sink).config(config).start().unwrap();
    let has_enough = Arc::new(AtomicBool::new(false));
    let submitting = tokio::spawn({
        let (db, has_enough) = (db.clone(), Arc::clone(&has_enough));
        async move {
            let tables = [ids("plain", Conflict::none()), ids("keyed", Conflict::ignore(["id"]))];
            let mut receipts = Vec::new();
            for id in 0.. {
                if has_enough.load(Ordering::SeqCst) {
                    break;
                }
                for schema in &tables {
                    let row = schema.row().set("id", id).unwrap().finish().unwrap();
                    receipts.push((id, schema.action(), db.submit_tracked(&row).await.unwrap()));
                }
                // Neither faster than the pooler, nor more rows than are looked at in a moment.
                if id % 20 == 0 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
            receipts
        }
    });
    let count = "SELECT (SELECT count(*) FROM plain) + (SELECT count(*) FROM keyed)";
    for disturbance in ["answers", "server", "stop"] {
        let admin = direct(&server).await;
        let before = numbers(&admin, count).await[0];
        until("rows are written", async || numbers(&admin, count).await[0] > before + 200).await;
        if disturbance == "answers" {
            kill_with_answers(&mut server, &admin).await;
        }
        drop(admin);
        block_in_place(|| match disturbance {
            "answers" => server.start_again(),
            "stop" => {
                server.stop();
                server.start_again();
            }
            _ => {
                server.stop_behind();
                server.start_behind_again();
            }
        });
    }
    let admin = direct(&server).await;
    let before = numbers(&admin, count).await[0];
    until("rows are written in the end", async || numbers(&admin, count).await[0] > before + 200).await;
    has_enough.store(true, Ordering::SeqCst);
    let receipts = submitting.await.unwrap();
    db.close(HOUR).await;
    let there = async |table: &str| {
        let mut there = HashMap::new();
        for id in numbers(&admin, &format!("SELECT id FROM {table}")).await {
            *there.entry(id).or_insert(0) += 1;
        }
        there
    };
    let (plain, keyed) = (there("plain").await, there("keyed").await);
    let mut lost = 0;
    for (id, action, receipt) in receipts {
        let outcome = receipt.await;
        let is_plain = action == batchsql_core::Action::Insert;
        let times = (if is_plain { &plain } else { &keyed }).get(&id).copied().unwrap_or(0);
        match outcome.kind() {
            OutcomeKind::Written => assert_eq!(times, 1, "{id} {action:?}"),
            // The first attempt wrote it, and its reply was lost.
            OutcomeKind::Ignored if !is_plain => assert_eq!(times, 1, "{id}"),
            OutcomeKind::Unknown if is_plain => {
                assert!(times <= 1, "{id}: {times}");
                lost += times;
            }
            _ => panic!("{id} {action:?}: {outcome:?}"),
        }
    }
    assert!(lost > 0, "no row was committed without an answer");
}

/// Each client has its session until it leaves, so all is as without a pooler, but for startup parameters.
#[tokio::test]
async fn in_session_mode_statements_are_named_and_sessions_are_known() {
    let settings = ["pool_mode=session", "ignore_startup_parameters=extra_float_digits,options"];
    let server = Server::start(Kind::PgBouncer, &settings);
    let sink = PostgresSink::connect(server.dsn()).await.unwrap();
    execute(sink.pg_pool(), "CREATE TABLE t (id bigint PRIMARY KEY, note text)").await;
    let schema = schema(Conflict::replace(["id"]));
    let db = BatchSql::builder(sink.clone()).start().unwrap();
    let outcomes = outcomes_by(&db, (0..1_000).map(|id| row(&schema, id, "a"))).await;
    assert!(outcomes.iter().all(|outcome| outcome.is_written()), "{:?}", outcomes[0]);
    assert_eq!(read(&sink, "SELECT count(*) FROM t").await, ["1000"]);
    let mut conn = sink.acquire().await.unwrap();
    assert!(sink.session(&mut conn).await.unwrap().is_some());
}

#[tokio::test]
async fn a_login_and_a_parameter_that_the_pooler_refuses_are_told_with_what_to_do() {
    let server = Server::start(Kind::PgBouncer, &[]);
    let (user, address) = server.dsn().split_once('@').unwrap();
    let other = format!("{}:wrong@{address}", user.rsplit_once(':').unwrap().0);
    let refused = PostgresSink::with_options(&pooled(&other, 1)).await.unwrap_err().to_string();
    assert!(refused.contains("check user and password") && refused.contains("08P01"), "{refused}");
    let dsn = format!("{}?options[search_path]=s", server.dsn());
    let refused = PostgresSink::with_options(&pooled(&dsn, 1)).await.unwrap_err().to_string();
    assert!(refused.contains("ignore_startup_parameters"), "{refused}");
}

/// It allows no transaction, so only some writes would succeed.
#[tokio::test]
async fn a_pooler_in_statement_mode_is_refused() {
    let server = Server::start(Kind::PgBouncer, &["pool_mode=statement"]);
    let refused = PostgresSink::with_options(&pooled(server.dsn(), 1)).await.unwrap_err().to_string();
    assert!(refused.contains("pool_mode = transaction"), "{refused}");
}
