//! A step at every boundary inside of its transaction, when its process is killed (`SIGKILL`) or the server ends its session. The
//! server itself stands still there: functions of the table wait for a lock that the test has. The table has no key, so a row that
//! is written twice is there twice.

use std::time::{Duration, Instant};

use batchsql_core::{BatchSql, Conflict, ErrorClass, PipelineConfig, Position, SharedRows, Step};
use batchsql_postgres::sqlx::{Connection, Executor, PgConnection};
use batchsql_postgres::{PostgresOptions, PostgresSink, Strategy};
use batchsql_testserver::process::{self, Process};
use batchsql_testserver::{AlteringProxy, unique};
use tokio::task::block_in_place;

use crate::lost_transactions::{COMMIT, MARKED};
use crate::positions::{anyone, claim, key, numbers, one_column, rows, sequence};
use crate::support::{HOUR, TestSink, execute, fresh_dsn, read, sink_of, with_parameter};

/// `CHECK` is tried for each row before it is written; triggers of a statement run behind its rows, deferred ones in COMMIT.
pub(crate) const TABLE: &str = "CREATE TABLE standing (moment text);
    CREATE FUNCTION stand(at text) RETURNS boolean LANGUAGE plpgsql AS '
        BEGIN
            IF EXISTS (SELECT FROM standing WHERE moment = at) THEN
                PERFORM pg_advisory_xact_lock(hashtext(current_schema()));
            END IF;
            RETURN true;
        END';
    CREATE TABLE t (id bigint CHECK (stand('rows')));
    CREATE FUNCTION stands() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM stand(tg_argv[0]); RETURN NULL; END';
    CREATE TRIGGER written AFTER INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION stands('written');
    CREATE CONSTRAINT TRIGGER committing AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION stands('commit')";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// The position is moved, and no row is written.
    BeforeRows,
    /// The rows are written, and not committed.
    BeforeCommit,
    InCommit,
    /// All is committed, and nobody has heard of it.
    BeforeAnswer,
}

impl Moment {
    /// As the functions of the table know it.
    fn name(self) -> Option<&'static str> {
        match self {
            Self::BeforeRows => Some("rows"),
            Self::BeforeCommit => Some("written"),
            Self::InCommit => Some("commit"),
            Self::BeforeAnswer => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Process,
    Session,
}

pub(crate) const ROWS: i64 = 3;

pub(crate) fn given() -> SharedRows {
    rows(&one_column(Conflict::none()), [(MARKED, 0), (2, 0), (3, 0)])
}

/// One statement in autocommit with its position, or a transaction.
async fn patient(dsn: &str, way: &str) -> BatchSql {
    let options: PostgresOptions = dsn.parse().unwrap();
    let strategy = if way == "copy" { Strategy::Copy } else { Strategy::Unnest };
    let sink = PostgresSink::with_options(&options.strategy(strategy)).await.unwrap();
    let config = PipelineConfig::default().flush_interval(HOUR).statement_timeout(HOUR);
    BatchSql::builder(sink).config(config).start().unwrap()
}

#[tokio::test]
#[ignore = "a program, started by other tests"]
async fn step_of_a_process() {
    let Some(arguments) = process::arguments() else { return };
    let [dsn, way] = &arguments[..] else { panic!("DSN and way") };
    let db = patient(dsn, way).await;
    let position = claim(&db).await;
    let written = db.write_step(given().rows(), &Step::new(position, ROWS)).await;
    process::tell(format!("it should have been killed: {written:?}"));
}

/// Waits until a query has this answer.
async fn until(sink: &TestSink, sql: &str, expected: &str) {
    let begin = Instant::now();
    while read(sink, sql).await != [expected] {
        assert!(begin.elapsed() < Duration::from_secs(60), "{sql}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Claims the partition when connections that have ended are gone from the pool.
pub(crate) async fn claim_again(db: &BatchSql, owner: &str) -> Position {
    let begin = Instant::now();
    loop {
        match db.claim(&key(), &anyone(owner)).await {
            Err(error) if error.class() == ErrorClass::Transient => {
                assert!(begin.elapsed() < Duration::from_secs(60), "{error}");
            }
            claimed => return claimed.unwrap().position().unwrap(),
        }
    }
}

const SESSIONS: &str = "FROM pg_stat_activity WHERE application_name";

/// The sessions that stand still.
pub(crate) const STANDING: &str = "FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objsubid = 1
    AND (classid::bigint << 32 | objid::bigint) = hashtext(current_schema())";

#[tokio::test(flavor = "multi_thread")]
async fn a_step_whose_process_is_killed_at_any_moment_is_done_once_or_not_at_all() {
    at_any_moment(End::Process).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_whose_session_ends_at_any_moment_is_done_once_or_not_at_all() {
    at_any_moment(End::Session).await;
}

async fn at_any_moment(end: End) {
    let mut hits = 0;
    for moment in [Moment::BeforeRows, Moment::BeforeCommit, Moment::InCommit, Moment::BeforeAnswer] {
        for way in ["statement", "copy"] {
            let about = format!("{moment:?}, {way}, the end of the {end:?}");
            let dsn = fresh_dsn(TABLE).await;
            let sink = sink_of(&dsn).await;
            let db = patient(&dsn, way).await;
            let mut locking = PgConnection::connect(&dsn).await.unwrap();
            locking.execute("SELECT pg_advisory_lock(hashtext(current_schema()))").await.unwrap();
            let options = (*sink.pg_pool().connect_options()).clone();
            let host = format!("{}:{}", options.get_host(), options.get_port());
            let proxy = AlteringProxy::start(&host);
            assert!(dsn.contains(&host), "{host}");
            let name = unique("moment");
            let through = with_parameter(&dsn, &format!("sslmode=disable&application_name={name}"));
            let through = through.replace(&host, &proxy.address());
            match moment.name() {
                Some(name) => execute(sink.pg_pool(), &format!("INSERT INTO standing VALUES ('{name}')")).await,
                None => proxy.keep_answers_to(if way == "copy" { COMMIT } else { "row_mark" }),
            }
            let reached = async || match moment {
                Moment::BeforeAnswer => {
                    until(&sink, "SELECT max(sequence) FROM batchsql_positions", &ROWS.to_string()).await;
                    assert!(proxy.has_changed(), "{about}");
                }
                _ => until(&sink, &format!("SELECT count(*) {STANDING}"), "1").await,
            };
            let (next, owner) = match end {
                End::Process => {
                    // The table of positions is there before it is asked for.
                    db.claim(&key(), &anyone("before").or_begin_at(0)).await.unwrap();
                    let program = &mut process::command("moments::step_of_a_process", &[&through, way]);
                    let process = Process::start(program).unwrap();
                    reached().await;
                    let told = block_in_place(|| process.kill());
                    assert!(told.is_empty(), "{about}: {told:?}");
                    (db, "b")
                }
                End::Session => {
                    let theirs = patient(&through, way).await;
                    let step = Step::new(claim(&theirs).await, ROWS);
                    let writing = tokio::spawn({
                        let theirs = theirs.clone();
                        async move { theirs.write_step(given().rows(), &step).await }
                    });
                    reached().await;
                    let ended = format!("SELECT count(pg_terminate_backend(pid)) > 0 {SESSIONS} = '{name}'");
                    assert_eq!(read(&sink, &ended).await, ["t"], "{about}");
                    let refused = writing.await.unwrap().unwrap_err();
                    let is_unknown = refused.error.class() == ErrorClass::Unknown;
                    assert!(is_unknown || moment != Moment::BeforeAnswer, "{about}: {refused}");
                    (theirs, "a")
                }
            };
            hits += 1;
            let left = claim_again(&next, owner).await;
            locking.close().await.unwrap();
            execute(sink.pg_pool(), "TRUNCATE standing").await;
            let is_done = moment == Moment::BeforeAnswer;
            assert_eq!(left.sequence, if is_done { ROWS } else { 0 }, "{about}");
            assert_eq!(numbers(&sink, "SELECT count(*) FROM t").await, [left.sequence], "{about}");
            if !is_done {
                next.write_step(given().rows(), &Step::new(left, ROWS)).await.unwrap();
            }
            assert_eq!(numbers(&sink, "SELECT id FROM t ORDER BY id").await, [2, 3, MARKED], "{about}");
            assert_eq!(sequence(&sink).await, ROWS, "{about}");
        }
    }
    assert_eq!(hits, 8);
}
