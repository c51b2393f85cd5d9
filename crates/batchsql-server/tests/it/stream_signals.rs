//! What the second signal does to a worker: rows are cut off, and its partitions are given away nevertheless, also when a step of it
//! waits in the database and holds its position.

use std::ops::Range;

use batchsql_testserver::{Kind, Server, dsn, unique};
use rustix::process::Signal;
use sqlx::{Connection as _, MySqlConnection, PgConnection};
use tokio::runtime::Runtime;

use crate::program::until;
use crate::streams::{Cluster, put_and_wait, runtime};

/// Rows of a message.
const ROWS: usize = 10;
/// Messages before the table is locked, and behind that.
const MESSAGES: usize = 8;
/// Declared: the catalogue would wait for the lock.
const COLUMNS: &str =
    "columns = [{ name = \"id\", type = \"i64\" }, { name = \"note\", type = \"text\", nullable = true }]\n";

/// A connection of the test.
enum Session {
    Postgres(PgConnection),
    MySql(MySqlConnection),
}

impl Session {
    fn new(runtime: &Runtime, dsn: &str) -> Self {
        runtime.block_on(async {
            match dsn.starts_with("mysql") {
                true => Self::MySql(MySqlConnection::connect(dsn).await.unwrap()),
                false => Self::Postgres(PgConnection::connect(dsn).await.unwrap()),
            }
        })
    }

    fn execute(&mut self, runtime: &Runtime, sql: &str) {
        runtime.block_on(async {
            match self {
                Self::Postgres(connection) => drop(sqlx::raw_sql(sql).execute(connection).await.unwrap()),
                Self::MySql(connection) => drop(sqlx::raw_sql(sql).execute(connection).await.unwrap()),
            }
        });
    }

    fn number(&mut self, runtime: &Runtime, sql: &str) -> usize {
        let number: i64 = runtime.block_on(async {
            match self {
                Self::Postgres(connection) => sqlx::query_scalar(sql).fetch_one(connection).await.unwrap(),
                Self::MySql(connection) => sqlx::query_scalar(sql).fetch_one(connection).await.unwrap(),
            }
        });
        number as usize
    }
}

/// A worker gets two signals while its steps wait for a lock. `lines` are of the table, `lock` holds its rows back, and `waiting` counts
/// steps that wait. `second` are the ids that wait; `all` rows are there at the end.
fn check(dsn_of_db: &str, lines: &str, create: &str, lock: &str, waiting: &str, second: Range<usize>, all: usize) {
    let (table, runtime) = (unique("orders"), runtime());
    let of_table = |sql: &str| sql.replace("TABLE_NAME", &table);
    let [mut session, mut locking] = [(); 2].map(|()| Session::new(&runtime, dsn_of_db));
    session.execute(&runtime, &of_table(create));
    let cluster = Cluster::of_database(&dsn(Kind::Nats), dsn_of_db, &table).with_columns(lines);
    let [one, two] = ["one", "two"].map(unique);
    // Nothing ends by itself while this test runs.
    let config = |name: &str| {
        let config = cluster.worker(&format!("worker = \"{name}\"\nlease = \"1h\""));
        config.replace("statement_timeout = \"2s\"", "statement_timeout = \"30m\"") + "[run]\ndrain_for = \"1h\"\n"
    };
    // Those of partitions; a seat has no rows.
    let held_by = |name: &str| {
        format!(
            "SELECT count(*) FROM batchsql_positions WHERE session = '{name}' AND lease IS NOT NULL AND sequence > 0"
        )
    };
    let rows = of_table("SELECT count(*) FROM TABLE_NAME");

    let front = cluster.start("front.toml", &cluster.front(""));
    let put = |ids: Range<usize>| {
        for first in ids.step_by(ROWS) {
            put_and_wait(front.address(), "written", first..first + ROWS);
        }
    };
    put(0..MESSAGES * ROWS);
    let mut worker = cluster.start("a.toml", &config(&one));
    until(|| session.number(&runtime, &rows) == MESSAGES * ROWS, || "rows are missing".to_owned());
    locking.execute(&runtime, &of_table(lock));
    put(second);
    until(|| session.number(&runtime, &of_table(waiting)) > 1, || "no step waits".to_owned());

    worker.signal(Signal::TERM);
    worker.wait_for("no more rows are accepted");
    worker.signal(Signal::INT);
    worker.wait_for("ended:");
    let (code, log) = worker.wait();
    assert_eq!((code, session.number(&runtime, &held_by(&one))), (0, 0), "{log}");

    // Another one has the partitions before the rows can be written: an hour would be too long for this test.
    let other = cluster.start("b.toml", &config(&two));
    until(|| session.number(&runtime, &held_by(&two)) == 4, || "the partitions have no worker".to_owned());
    locking.execute(&runtime, "ROLLBACK");
    let again = of_table("SELECT count(*) FROM TABLE_NAME WHERE note <> 'first'");
    until(|| session.number(&runtime, &again) >= all, || "rows are missing".to_owned());
    for program in [front, other] {
        let (code, log) = program.stop();
        assert_eq!(code, 0, "{log}");
    }
    let ids = of_table("SELECT count(DISTINCT id) FROM TABLE_NAME");
    assert_eq!([rows, ids].map(|sql| session.number(&runtime, &sql)), [all; 2]);
    session.execute(&runtime, &of_table("DROP TABLE TABLE_NAME"));
}

#[test]
fn a_second_signal_gives_the_partitions_away_too() {
    check(
        &dsn(Kind::Postgres),
        COLUMNS,
        "CREATE TABLE TABLE_NAME (id BIGINT NOT NULL, note TEXT)",
        "BEGIN; LOCK TABLE TABLE_NAME IN ACCESS EXCLUSIVE MODE",
        "SELECT count(DISTINCT pid) FROM pg_locks WHERE relation = 'TABLE_NAME'::regclass AND NOT granted",
        // Rows without a key are in any partition: each message is in the next one.
        MESSAGES * ROWS..2 * MESSAGES * ROWS,
        2 * MESSAGES * ROWS,
    );
}

/// The server does not notice that the client of a step is gone that waits for a row.
#[test]
fn a_second_signal_ends_steps_that_wait_for_a_row() {
    // The shared one loses what it has committed when it crashes, so it is refused.
    let server = Server::start(Kind::MySql, &["--innodb-flush-log-at-trx-commit=1"]);
    check(
        server.dsn(),
        &format!("rule = \"update\"\nkey = [\"id\"]\n{COLUMNS}"),
        "CREATE TABLE TABLE_NAME (id BIGINT PRIMARY KEY, note VARCHAR(100))",
        "UPDATE TABLE_NAME SET note = 'first'; BEGIN; SELECT count(*) FROM TABLE_NAME FOR UPDATE",
        "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT' AND trx_query LIKE '%TABLE_NAME%'",
        0..MESSAGES * ROWS,
        MESSAGES * ROWS,
    );
}
