//! A step at every boundary inside of its transaction, when its process is killed (`SIGKILL`). The process stands still there: its
//! database calls functions that do not return. The table has no key, so a row that is written twice is there twice.

use batchsql_core::{
    BatchSql, Claim, ClaimFrom, ColumnType, PartitionKey, Position, RowBuffer, Schema, SharedRows, Step, ValueRules,
};
use batchsql_sqlite::rusqlite::Connection;
use batchsql_sqlite::rusqlite::functions::FunctionFlags;
use batchsql_sqlite::{SqliteOptions, SqliteSink};
use batchsql_testserver::process::{self, Process, command};

use crate::support::{pipeline, read};

/// Where the process stands still.
const MOMENTS: [&str; 4] = ["before rows", "before commit", "in commit", "before answer"];

const ROWS: i64 = 3;

const TABLE: &str = "CREATE TABLE t (id INTEGER);
    CREATE TRIGGER before BEFORE INSERT ON t WHEN NEW.id = 1 BEGIN SELECT stand('before rows'); END;
    CREATE TRIGGER after AFTER INSERT ON t WHEN NEW.id = 3 BEGIN SELECT stand('before commit'); END";

fn given() -> SharedRows {
    let schema = Schema::builder("t").column("id", ColumnType::I64).build().unwrap();
    let mut rows = RowBuffer::new(&schema, ValueRules::default());
    for id in 1..=ROWS {
        rows.push(&schema.row().set("id", id).unwrap().finish().unwrap()).unwrap();
    }
    rows.into_rows()
}

/// Stands still if this is the moment, when the parent knows of it.
fn stand(at: &str, moment: &str) {
    if at == moment {
        process::tell(at);
        loop {
            std::thread::park();
        }
    }
}

/// A database whose table stands still at a moment, if it is one of its own.
async fn open(path: &str, moment: &str) -> SqliteSink {
    let sink = SqliteSink::with_options(&SqliteOptions::file(path)).unwrap();
    let moment = moment.to_owned();
    sink.call(move |conn| {
        conn.create_scalar_function("stand", 1, FunctionFlags::SQLITE_UTF8, move |call| {
            stand(call.get_raw(0).as_str()?, &moment);
            Ok(true)
        })
    })
    .await
    .unwrap();
    sink
}

async fn claim(db: &BatchSql, owner: &str) -> Position {
    let claim = Claim::of(owner).from(ClaimFrom::Anyone).or_begin_at(0);
    db.claim(&PartitionKey::new("s", "i", "t", 0), &claim).await.unwrap().position().unwrap()
}

#[tokio::test]
#[ignore = "a program, started by other tests"]
async fn step_of_a_process() {
    let Some(arguments) = process::arguments() else { return };
    let [path, moment] = &arguments[..] else { panic!("path and moment") };
    let sink = open(path, moment).await;
    let db = pipeline(&sink);
    let position = claim(&db, "a").await;
    let hooked = moment.clone();
    sink.call(move |conn| {
        // Its answer has changed between versions of rusqlite.
        let _ = conn.commit_hook(Some(move || {
            stand("in commit", &hooked);
            false
        }));
        Ok(())
    })
    .await
    .unwrap();
    db.write_step(given().rows(), &Step::new(position, ROWS)).await.unwrap();
    stand("before answer", moment);
}

#[tokio::test]
async fn a_step_whose_process_is_killed_at_any_moment_is_done_once_or_not_at_all() {
    let mut hits = Vec::new();
    for moment in MOMENTS {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        Connection::open(&path).unwrap().execute_batch(TABLE).unwrap();
        let path = path.to_str().unwrap();
        let mut process = Process::start(&mut command("moments::step_of_a_process", &[path, moment])).unwrap();
        hits.push(process.line());
        assert!(process.kill().is_empty(), "{moment}");
        let sink = open(path, "").await;
        let db = pipeline(&sink);
        let left = claim(&db, "b").await;
        let is_done = moment == "before answer";
        assert_eq!(left.sequence, if is_done { ROWS } else { 0 }, "{moment}");
        assert_eq!(read(&sink, "SELECT count(*) FROM t").await, [left.sequence.to_string()], "{moment}");
        if !is_done {
            db.write_step(given().rows(), &Step::new(left, ROWS)).await.unwrap();
        }
        assert_eq!(read(&sink, "SELECT id FROM t ORDER BY id").await, ["1", "2", "3"], "{moment}");
        assert_eq!(read(&sink, "SELECT sequence FROM batchsql_positions").await, ["3"], "{moment}");
    }
    assert_eq!(hits, MOMENTS);
}
