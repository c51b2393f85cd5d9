//! SIGKILL during a run: every row that a receipt reported as written is in the file, whenever the writer is
//! killed.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use batchsql_core::{BatchSql, Outcome, PipelineConfig, Receipt};
use batchsql_sqlite::rusqlite::Connection;
use batchsql_sqlite::{SqliteOptions, SqliteSink, Synchronous};
use tokio::sync::mpsc;

use crate::numbered::{create, file, note, numbered, plain};
use crate::support::HOUR;
use batchsql_testserver::Kills;
use batchsql_testserver::process::{self, Process, command};

/// Kills of a normal run; `BATCHSQL_KILLS` asks for more.
const KILLS: u64 = 30;
/// Numbers of one round; no writer lives long enough to use them up.
const ROUND: i64 = 1_000_000;
const PRODUCERS: i64 = 3;

/// Small batches and small checkpoints, so that kills occur at every stage of both.
async fn start(path: &str, flush_size: usize, flush_interval: Duration) -> BatchSql {
    let sink = SqliteSink::with_options(&SqliteOptions::file(path).synchronous(Synchronous::Full)).unwrap();
    sink.call(|conn| conn.query_row("PRAGMA wal_autocheckpoint=60", [], |_| Ok(()))).await.unwrap();
    let config = PipelineConfig::default().buffer_size(2_000).flush_size(flush_size).flush_interval(flush_interval);
    BatchSql::builder(sink).config(config).start().unwrap()
}

/// Submits rows from `first` on without end, and prints the number of each one whose receipt reports it as
/// written.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a program, started by other tests"]
async fn writer() {
    let Some(arguments) = process::arguments() else { return };
    let [path, first] = &arguments[..] else { panic!("path and first") };
    let first: i64 = first.parse().unwrap();
    let db = start(path, 40, Duration::from_millis(2)).await;
    process::tell("ready");
    let (send, mut receipts) = mpsc::unbounded_channel::<(i64, Receipt)>();
    for producer in 0..PRODUCERS {
        let (db, send) = (db.clone(), send.clone());
        tokio::spawn(async move {
            let schema = plain();
            for id in (first + producer..first + ROUND).step_by(PRODUCERS as usize) {
                let receipt = db.submit_tracked(&numbered(&schema, id)).await.unwrap();
                send.send((id, receipt)).unwrap();
            }
        });
    }
    drop(send);
    while let Some((id, receipt)) = receipts.recv().await {
        match receipt.await {
            Outcome::Written => process::tell(id),
            other => panic!("row {id}: {other:?}"),
        }
    }
}

/// Prints numbers as soon as their rows are accepted; the test must detect this.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a program, started by other tests"]
async fn liar() {
    let Some(arguments) = process::arguments() else { return };
    let db = start(&arguments[0], 1_000, HOUR).await;
    for id in 0..100 {
        db.submit(&numbered(&plain(), id)).await.unwrap();
        process::tell(id);
    }
    process::tell("end");
    process::wait_for_go();
}

/// The problems of the file, given the printed numbers, ascending.
fn complaints(path: &Path, told: &[i64]) -> Vec<String> {
    let conn = Connection::open(path).unwrap();
    let mut complaints = Vec::new();
    let sound: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    if sound != "ok" {
        complaints.push(format!("integrity_check: {sound}"));
    }
    let mut times: HashMap<i64, u32> = HashMap::new();
    let mut statement = conn.prepare("SELECT id, note FROM t NOT INDEXED").unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let id: i64 = row.get(0).unwrap();
        *times.entry(id).or_default() += 1;
        if row.get_ref(1).unwrap().as_str() != Ok(&note(id)) {
            complaints.push(format!("row {id} has another text"));
        }
    }
    complaints.extend(times.iter().filter(|(_, n)| **n > 1).map(|(id, n)| format!("row {id} is there {n} times")));
    complaints.extend(told.iter().filter(|id| !times.contains_key(id)).map(|id| format!("row {id} is not there")));
    complaints
}

#[test]
fn what_was_told_as_written_survives_a_kill() {
    let mut kills = Kills::of_run(KILLS);
    let Kills { count, seed, .. } = kills;
    let (_dir, path) = file();
    let mut told: Vec<i64> = Vec::new();
    let begun = Instant::now();
    for round in 0..count {
        let first = round as i64 * ROUND;
        let arguments = [path.to_str().unwrap(), &first.to_string()];
        let mut writer = command("kill::writer", &arguments);
        // Most writers are killed while they write, some while they open the file and recover it: after
        // no line, after "ready", or after the first row.
        let lines = kills.kill(&mut writer, &[0, 1, 1, 2, 2, 2], Duration::from_millis(90), |_| ());
        told.extend(lines.iter().filter(|line| *line != "ready").map(|id| id.parse::<i64>().unwrap()));
        // Checking the file recovers it. So not every round checks it: the next writer must also find
        // unrecovered files.
        if kills.random.below(3) == 0 || round + 1 == count {
            let complaints = complaints(&path, &told);
            assert!(complaints.is_empty(), "seed {seed}, round {round}: {complaints:#?}");
        }
    }
    let conn = Connection::open(&path).unwrap();
    let rows: i64 = conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    println!("{count} kills in {:?}: {} rows told as written, {rows} in the file", begun.elapsed(), told.len());
    // Otherwise the kills came before any row was written.
    assert!(told.len() as u64 > 10 * count, "{} rows were told in {count} rounds", told.len());
}

#[test]
fn a_writer_that_tells_too_early_is_caught() {
    let (_dir, path) = file();
    let mut liar = Process::start(&mut command("kill::liar", &[path.to_str().unwrap()])).unwrap();
    let told: Vec<i64> = std::iter::from_fn(|| liar.line().parse().ok()).collect();
    liar.kill();
    assert_eq!((told.len(), complaints(&path, &told).len()), (100, 100));
}

#[test]
fn rows_that_are_there_twice_or_changed_are_complained_about() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("by_hand.db");
    create(&path);
    let conn = Connection::open(&path).unwrap();
    for (id, text) in [(1, note(1)), (2, note(2)), (2, note(2)), (3, note(4))] {
        conn.execute("INSERT INTO t VALUES (?1, ?2)", (id, text)).unwrap();
    }
    assert_eq!(complaints(&path, &[1, 2]), ["row 3 has another text", "row 2 is there 2 times"]);
    assert_eq!(complaints(&path, &[7]).last().unwrap(), "row 7 is not there");
}
