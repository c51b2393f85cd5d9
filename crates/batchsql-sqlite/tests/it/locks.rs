//! Other writers: locks held by a connection or a process, and two processes that write at once.

use std::path::Path;
use std::time::{Duration, Instant};

use batchsql_core::{BatchSql, Conflict, ErrorClass, Outcome, OutcomeKind, PipelineConfig, Sink};
use batchsql_sqlite::rusqlite::{Connection, ffi};
use batchsql_sqlite::{SqliteOptions, SqliteSink, Synchronous};

use crate::numbered::{BATCH, create, file, ids, note, numbered, pipeline, plain, submit};
use crate::support::{HOUR, read, row, schema};
use batchsql_testserver::process::{self, Process, command};

const ROWS: i64 = 6 * BATCH as i64;
const SHORT: Duration = Duration::from_millis(20);

/// Each kind of lock with each journal. Without WAL, an exclusive lock blocks readers too, so that not even
/// the table definition can be read.
const LOCKS: [(&str, &str); 4] = [
    ("WAL", "BEGIN IMMEDIATE"),
    ("WAL", "BEGIN EXCLUSIVE"),
    ("DELETE", "BEGIN IMMEDIATE"),
    ("DELETE", "BEGIN EXCLUSIVE"),
];

/// A sink whose attempts are short, with the given journal mode.
fn sink(path: &Path, journal: &str) -> SqliteSink {
    let conn = Connection::open(path).unwrap();
    conn.busy_timeout(SHORT).unwrap();
    let mode: String = conn.query_row(&format!("PRAGMA journal_mode={journal}"), [], |row| row.get(0)).unwrap();
    assert!(mode.eq_ignore_ascii_case(journal));
    SqliteSink::from_connection(conn).unwrap()
}

fn lock(path: &Path, begin: &str) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(&format!("{begin}; INSERT INTO t VALUES (-1, 'other')")).unwrap();
    conn
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_wait_for_a_lock_of_another_connection() {
    for (journal, begin) in LOCKS {
        let (_dir, path) = file();
        let sink = sink(&path, journal);
        let other = lock(&path, begin);
        let db = pipeline(&sink, HOUR);
        let tracked = submit(&db, &plain(), 0..ROWS).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(tracked.resolved(), 0, "{journal}, {begin}");
        other.execute_batch("COMMIT").unwrap();
        let outcomes = tracked.outcomes().await;
        outcomes.assert_all(OutcomeKind::Written);
        outcomes.assert_honest(&format!("{journal}, {begin} for 300 ms"), &path, db.close(HOUR).await.balance);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_expire_when_a_lock_outlasts_their_retries_and_later_rows_are_written() {
    const RETRY_FOR: Duration = Duration::from_secs(1);
    for (journal, begin) in LOCKS {
        let (_dir, path) = file();
        let sink = sink(&path, journal);
        let db = pipeline(&sink, RETRY_FOR);
        let other = lock(&path, begin);
        let begun = Instant::now();
        let mut outcomes = submit(&db, &plain(), 0..ROWS).await.outcomes().await;
        assert!(begun.elapsed() >= RETRY_FOR, "{journal}, {begin}: given up after {:?}", begun.elapsed());
        outcomes.assert_all(OutcomeKind::Expired);
        outcomes.assert_failures(ErrorClass::Transient, ffi::SQLITE_BUSY);
        // If readers are blocked, the table was never read and nothing was sent. Otherwise the first batch was
        // sent; the rows behind it expire with it.
        assert_eq!(outcomes.most_attempts() > 1, (journal, begin) != ("DELETE", "BEGIN EXCLUSIVE"));
        other.execute_batch("COMMIT").unwrap();
        let later = submit(&db, &plain(), ROWS..ROWS + 70).await.outcomes().await;
        later.assert_all(OutcomeKind::Written);
        outcomes.extend(later);
        outcomes.assert_honest(&format!("{journal}, {begin} beyond retry_for"), &path, db.close(HOUR).await.balance);
    }
}

#[test]
#[ignore = "a program, started by other tests"]
fn holder() {
    let Some(arguments) = process::arguments() else { return };
    let [path, begin] = &arguments[..] else { panic!("path and BEGIN") };
    let conn = lock(Path::new(path), begin);
    process::tell("locked");
    process::wait_for_go();
    conn.execute_batch("COMMIT").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_wait_for_a_lock_of_another_process_also_when_it_is_killed() {
    for (begin, killed) in [("BEGIN IMMEDIATE", false), ("BEGIN EXCLUSIVE", false), ("BEGIN IMMEDIATE", true)] {
        let (_dir, path) = file();
        let mut holder = Process::start(&mut command("locks::holder", &[path.to_str().unwrap(), begin])).unwrap();
        assert_eq!(holder.line(), "locked");
        let sink = sink(&path, "WAL");
        let db = pipeline(&sink, HOUR);
        let tracked = submit(&db, &plain(), 0..ROWS).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(tracked.resolved(), 0, "{begin}");
        if killed {
            holder.kill()
        } else {
            holder.finish()
        };
        let outcomes = tracked.outcomes().await;
        outcomes.assert_all(OutcomeKind::Written);
        let what = format!("{begin} of a process for 300 ms, killed: {killed}");
        outcomes.assert_honest(&what, &path, db.close(HOUR).await.balance);
        let others: i64 = Connection::open(&path)
            .unwrap()
            .query_row("SELECT count(*) FROM t WHERE id < 0", [], |row| row.get(0))
            .unwrap();
        assert_eq!(others, i64::from(!killed), "the other process's row");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_expire_when_another_process_keeps_its_lock() {
    let (_dir, path) = file();
    let arguments = [path.to_str().unwrap(), "BEGIN EXCLUSIVE"];
    let mut holder = Process::start(&mut command("locks::holder", &arguments)).unwrap();
    assert_eq!(holder.line(), "locked");
    let sink = sink(&path, "WAL");
    let db = pipeline(&sink, Duration::from_millis(250));
    let mut outcomes = submit(&db, &plain(), 0..ROWS).await.outcomes().await;
    outcomes.assert_all(OutcomeKind::Expired);
    outcomes.assert_failures(ErrorClass::Transient, ffi::SQLITE_BUSY);
    holder.finish();
    let later = submit(&db, &plain(), ROWS..ROWS + 70).await.outcomes().await;
    later.assert_all(OutcomeKind::Written);
    outcomes.extend(later);
    outcomes.assert_honest("lock of a process beyond retry_for", &path, db.close(HOUR).await.balance);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a program, started by other tests"]
async fn writer() {
    let Some(arguments) = process::arguments() else { return };
    let [path, first, rows, busy_ms] = &arguments[..] else { panic!("path, first, rows, busy_ms") };
    let (first, rows): (i64, i64) = (first.parse().unwrap(), rows.parse().unwrap());
    let options = SqliteOptions::file(path)
        .synchronous(Synchronous::Full)
        .busy_timeout(Duration::from_millis(busy_ms.parse().unwrap()));
    let sink = SqliteSink::with_options(&options).unwrap();
    let db = pipeline(&sink, HOUR);
    let schema = plain();
    process::tell("ready");
    process::wait_for_go();
    let mut receipts = Vec::new();
    for id in first..first + rows {
        receipts.push((id, db.submit_tracked(&numbered(&schema, id)).await.unwrap()));
        if id % 250 == 0 {
            // SQLite's lock is not fair: without a pause the first holder would keep it.
            db.flush().await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let balance = db.close(HOUR).await.balance;
    assert_eq!(balance.accepted, rows as u64);
    for (id, receipt) in receipts {
        match receipt.await {
            Outcome::Written => process::tell(id),
            other => panic!("row {id}: {other:?}"),
        }
    }
}

#[test]
fn two_processes_write_to_one_file_at_once() {
    const EACH: i64 = 4_000;
    let (_dir, path) = file();
    // One waits in SQLite for the lock, the other one uses the pipeline's retries.
    let mut writers = [("0", "5000"), ("4000", "20")].map(|(first, busy_ms)| {
        let arguments = [path.to_str().unwrap(), first, "4000", busy_ms];
        Process::start(&mut command("locks::writer", &arguments)).unwrap()
    });
    for writer in &mut writers {
        assert_eq!(writer.line(), "ready");
    }
    writers.iter_mut().for_each(Process::go);
    let mut told: Vec<i64> = Vec::new();
    for writer in writers {
        let lines = writer.finish();
        assert_eq!(lines.len() as i64, EACH);
        told.extend(lines.iter().map(|id| id.parse::<i64>().unwrap()));
    }
    told.sort_unstable();
    assert_eq!(ids(&path), told);
    assert_eq!(told, (0..2 * EACH).collect::<Vec<_>>());
    // They did write at once.
    let conn = Connection::open(&path).unwrap();
    let turns: i64 = conn
        .query_row(
            "SELECT count(*) FROM (SELECT id < 4000 AS one, lag(id < 4000) OVER (ORDER BY rowid) AS before FROM t) WHERE one <> before",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert!(turns > 1, "the processes wrote one after the other");
    println!("two processes: {EACH} rows each, all written once, {turns} turns");
}

#[test]
fn a_row_that_is_there_twice_is_seen() {
    let (_dir, path) = file();
    let conn = Connection::open(&path).unwrap();
    for id in [1, 2, 1] {
        conn.execute("INSERT INTO t VALUES (?1, ?2)", (id, note(id))).unwrap();
    }
    assert_eq!(ids(&path), [1, 1, 2]);
    let other = path.with_extension("other");
    create(&other);
    assert!(ids(&other).is_empty());
}

/// If it did not end before the next write, the older row would be written later, when the lock is released.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_given_up_behind_a_lock_ends_before_a_newer_one_begins() {
    for (journal, begin) in LOCKS {
        let (_dir, path) = file();
        let conn = Connection::open(&path).unwrap();
        // The writer waits for the lock, longer than the pipeline waits for the writer.
        conn.busy_timeout(HOUR).unwrap();
        let _: String = conn.query_row(&format!("PRAGMA journal_mode={journal}"), [], |row| row.get(0)).unwrap();
        conn.execute_batch("CREATE UNIQUE INDEX t_id ON t (id)").unwrap();
        let sink = SqliteSink::from_connection(conn).unwrap();
        assert_eq!(sink.late_write_limit(), Some(Duration::ZERO));
        let config = PipelineConfig::default()
            .flush_interval(Duration::from_millis(1))
            .statement_timeout(Duration::from_millis(300))
            .retry_for(Duration::ZERO);
        let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
        let schema = schema(Conflict::update(["id"]));
        db.prepare(&schema).await.unwrap();
        let other = lock(&path, begin);
        let old = db.submit_tracked(&row(&schema, 1, "old")).await.unwrap();
        let old = old.await;
        assert!(matches!(old, Outcome::Expired(_)), "{journal}, {begin}: {old:?}");
        other.execute_batch("COMMIT").unwrap();
        // The lock may still be seen by the first attempts.
        let new = loop {
            let new = db.submit_tracked(&row(&schema, 1, "new")).await.unwrap();
            match new.await {
                Outcome::Expired(_) => {}
                new => break new,
            }
        };
        assert!(new.is_written(), "{journal}, {begin}: {new:?}");
        assert_eq!(read(&sink, "SELECT note FROM t WHERE id = 1").await, ["new"], "{journal}, {begin}");
        db.close(HOUR).await;
    }
}
