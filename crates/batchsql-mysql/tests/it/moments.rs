//! A step at every boundary between the statements of its transaction, when its process is killed (`SIGKILL`) or the server ends
//! its session. The table has no key, so a row that is written twice is there twice.

use std::time::{Duration, Instant};

use batchsql_core::{BatchSql, Claim, Conflict, ErrorClass, PipelineConfig, Position, SharedRows, Step};
use batchsql_mysql::sqlx::{Executor, query_scalar};
use batchsql_testserver::AlteringProxy;
use batchsql_testserver::process::{self, Process};
use tokio::task::block_in_place;

use crate::lost_transactions::MARKED;
use crate::positions::{
    anyone, claim, claim_when_idle, durable_server, key, numbers, rows, run_for_some_seconds, two_columns,
};
use crate::support::{Database, HOUR, host_of, with_parameters};

/// Of the end of a step, but not of a claim.
const COMMIT: &str = "step_of_batchsql; COMMIT";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// The position is moved, and no row is sent.
    PositionMoved,
    /// The rows are written, and COMMIT is not sent.
    RowsWritten,
    /// All is committed, and nobody has heard of it.
    Committed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Process,
    Session,
}

const ROWS: i64 = 3;

fn given() -> SharedRows {
    rows(&two_columns(Conflict::none()), [(MARKED, 1), (2, 2), (3, 3)])
}

async fn patient(dsn: &str) -> BatchSql {
    let config = PipelineConfig::default().flush_interval(HOUR).statement_timeout(HOUR);
    let sink = batchsql_mysql::MySqlSink::connect(dsn).await.unwrap();
    BatchSql::builder(sink).config(config).start().unwrap()
}

#[tokio::test]
#[ignore = "a program, started by other tests"]
async fn step_of_a_process() {
    let Some(arguments) = process::arguments() else { return };
    let db = patient(&arguments[0]).await;
    let position = claim(&db).await;
    let written = db.write_step(given().rows(), &Step::new(position, ROWS)).await;
    process::tell(format!("it should have been killed: {written:?}"));
}

/// The session that has moved the position, committed or not.
async fn session_of_step(database: &Database) -> u64 {
    let mut dirty = database.connection().await;
    dirty.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED").await.unwrap();
    let sql = "SELECT CAST(SUBSTRING_INDEX(holder, ' ', 1) AS UNSIGNED) FROM batchsql_positions";
    query_scalar(sql).fetch_one(&mut dirty).await.unwrap()
}

/// Waits until a query has this answer.
async fn until(database: &Database, sql: &str, expected: &str) {
    let begin = Instant::now();
    while database.read(sql).await != [expected] {
        assert!(begin.elapsed() < Duration::from_secs(60), "{sql}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_ends_at_any_moment_is_done_once_or_not_at_all() {
    let server = durable_server();
    let mut hits = 0;
    for moment in [Moment::PositionMoved, Moment::RowsWritten, Moment::Committed] {
        for end in [End::Process, End::Session] {
            let about = format!("{moment:?}, the end of the {end:?}");
            let database = Database::on(server.dsn(), "CREATE TABLE t (id BIGINT, n BIGINT)", "").await;
            run_for_some_seconds(&database).await;
            let proxy = AlteringProxy::start(host_of(&database.dsn));
            match moment {
                Moment::PositionMoved => proxy.pause_before("row_mark"),
                Moment::RowsWritten => proxy.pause_before(COMMIT),
                Moment::Committed => proxy.keep_answers_to(COMMIT),
            }
            let through = database.dsn.replace(host_of(&database.dsn), &proxy.address());
            let through = with_parameters(&through, "ssl-mode=DISABLED");
            let reached = async || {
                match moment {
                    Moment::PositionMoved | Moment::RowsWritten => block_in_place(|| proxy.wait_until_paused()),
                    Moment::Committed => {
                        until(&database, "SELECT max(sequence) FROM batchsql_positions", &ROWS.to_string()).await;
                    }
                }
                assert!(proxy.has_changed(), "{about}");
            };
            let db = patient(&database.dsn).await;
            let (next, left): (BatchSql, Position) = match end {
                End::Process => {
                    // The table of positions is there before it is asked for.
                    db.claim(&key(), &anyone("before").or_begin_at(0)).await.unwrap();
                    let program = &mut process::command("moments::step_of_a_process", &[&through]);
                    let process = Process::start(program).unwrap();
                    reached().await;
                    let told = block_in_place(|| process.kill());
                    assert!(told.is_empty(), "{about}: {told:?}");
                    let left = claim_when_idle(&db, &anyone("b")).await;
                    (db, left)
                }
                End::Session => {
                    let theirs = patient(&through).await;
                    let step = Step::new(claim(&theirs).await, ROWS);
                    let writing = tokio::spawn({
                        let theirs = theirs.clone();
                        async move { theirs.write_step(given().rows(), &step).await }
                    });
                    reached().await;
                    database.run(&format!("KILL CONNECTION {}", session_of_step(&database).await)).await;
                    let refused = writing.await.unwrap().unwrap_err();
                    let is_unknown = refused.error.class() == ErrorClass::Unknown;
                    assert!(is_unknown || moment != Moment::Committed, "{about}: {refused}");
                    proxy.go_on();
                    let left = claim_when_idle(&theirs, &Claim::of("a")).await;
                    (theirs, left)
                }
            };
            hits += 1;
            // What is sent late finds no session.
            proxy.go_on();
            let is_done = moment == Moment::Committed;
            assert_eq!(left.sequence, if is_done { ROWS } else { 0 }, "{about}");
            let count = numbers(&database, "SELECT count(*) FROM t").await;
            assert_eq!(count, [left.sequence], "{about}");
            if !is_done {
                next.write_step(given().rows(), &Step::new(left, ROWS)).await.unwrap();
            }
            assert_eq!(numbers(&database, "SELECT id FROM t ORDER BY id").await, [2, 3, MARKED], "{about}");
            assert_eq!(numbers(&database, "SELECT sequence FROM batchsql_positions").await, [ROWS], "{about}");
        }
    }
    assert_eq!(hits, 6);
}
