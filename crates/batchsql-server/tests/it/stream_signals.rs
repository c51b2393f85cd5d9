//! What the second signal does to a worker: rows are cut off, and its partitions are given away nevertheless.

use batchsql_testserver::{Kind, dsn, unique};
use rustix::process::Signal;
use sqlx::{Connection as _, PgConnection};

use crate::program::until;
use crate::streams::{Cluster, put_and_wait, runtime};

/// Rows of a message.
const ROWS: usize = 10;
/// Messages before the table is locked, and behind that.
const MESSAGES: usize = 8;

/// Each step of the worker waits for a table that is locked, and holds its position meanwhile.
#[test]
fn a_second_signal_gives_the_partitions_away_too() {
    let (dsn_of_db, table, runtime) = (dsn(Kind::Postgres), unique("orders"), runtime());
    let mut connections =
        [(); 2].map(|()| runtime.block_on(async { PgConnection::connect(&dsn_of_db).await.unwrap() }));
    let [connection, locking] = &mut connections;
    let execute = |connection: &mut PgConnection, sql: &str| {
        runtime.block_on(async { sqlx::raw_sql(sql).execute(connection).await.unwrap() });
    };
    let number = |connection: &mut PgConnection, sql: &str| -> i64 {
        runtime.block_on(async { sqlx::query_scalar(sql).fetch_one(connection).await.unwrap() })
    };
    execute(connection, &format!("CREATE TABLE {table} (id BIGINT NOT NULL, note TEXT)"));
    let cluster = Cluster::of_postgres(&dsn(Kind::Nats), &dsn_of_db, &table);
    let [one, two] = ["one", "two"].map(unique);
    // Nothing ends by itself while this test runs.
    let config = |name: &str| {
        let config = cluster.worker(&format!("worker = \"{name}\"\nlease = \"1h\""));
        let config = config.replace("statement_timeout = \"2s\"", "statement_timeout = \"30m\"");
        // Declared: the catalogue would wait for the lock.
        let columns =
            "columns = [{ name = \"id\", type = \"i64\" }, { name = \"note\", type = \"text\", nullable = true }]\n";
        config.replace("[[sources]]", &format!("{columns}[[sources]]")) + "[run]\ndrain_for = \"1h\"\n"
    };
    let held_by = |name: &str| {
        format!("SELECT count(*) FROM batchsql_positions WHERE session = '{name}' AND lease > now() AND sequence > 0")
    };
    let rows = format!("SELECT count(*) FROM {table}");

    let front = cluster.start("front.toml", &cluster.front(""));
    // Rows without a key are in any partition: each message is in the next one.
    let put = |messages: std::ops::Range<usize>| {
        for message in messages {
            put_and_wait(front.address(), "written", message * ROWS..(message + 1) * ROWS);
        }
    };
    put(0..MESSAGES);
    let mut worker = cluster.start("a.toml", &config(&one));
    until(|| number(connection, &rows) as usize == MESSAGES * ROWS, || "rows are missing".to_owned());
    execute(locking, &format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"));
    put(MESSAGES..2 * MESSAGES);
    let waiting =
        format!("SELECT count(DISTINCT pid) FROM pg_locks WHERE relation = '{table}'::regclass AND NOT granted");
    until(|| number(connection, &waiting) > 1, || "no step waits for the table".to_owned());

    worker.signal(Signal::TERM);
    worker.wait_for("no more rows are accepted");
    worker.signal(Signal::INT);
    worker.wait_for("ended:");
    let (code, log) = worker.wait();
    assert_eq!(code, 0, "{log}");
    assert_eq!(number(connection, &held_by(&one)), 0, "{log}");

    // Another one has the partitions before the table can be written again: an hour would be too long for this test.
    let other = cluster.start("b.toml", &config(&two));
    until(|| number(connection, &held_by(&two)) == 4, || "the partitions have no worker".to_owned());
    execute(locking, "ROLLBACK");
    until(|| number(connection, &rows) as usize >= 2 * MESSAGES * ROWS, || "rows are missing".to_owned());
    for program in [front, other] {
        let (code, log) = program.stop();
        assert_eq!(code, 0, "{log}");
    }
    let ids = format!("SELECT count(DISTINCT id) FROM {table}");
    assert_eq!([rows, ids].map(|sql| number(connection, &sql)), [(2 * MESSAGES * ROWS) as i64; 2]);
    execute(connection, &format!("DROP TABLE {table}"));
}
