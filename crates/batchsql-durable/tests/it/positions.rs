//! Positions of old logs in the database, and consumers of rows that are rejected in a step.

use std::path::Path;
use std::sync::{Arc, Mutex};

use batchsql_core::{BatchSql, Removed};
use batchsql_durable::{DurableExt, DurableOptions};
use batchsql_testkit::ScriptedSink;

use crate::support::{LONG, applied, config, numbers, options, plain, row, start, until};

fn exact(folder: &Path) -> DurableOptions {
    options(folder).partitions(1).exactly_once("test")
}

fn sink() -> ScriptedSink {
    let sink = ScriptedSink::new();
    sink.keep_positions();
    sink
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_of_a_log_that_is_gone_are_removed_and_no_others() {
    let (old, new, sink) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), sink());
    let db = start(&sink, exact(old.path())).await.unwrap();
    db.submit(&row(&plain(), 1, 1)).await.unwrap();
    db.flush().await.unwrap();
    let gone = db.incarnation();
    db.close(LONG).await;
    let db = start(&sink, exact(new.path())).await.unwrap();
    db.submit(&row(&plain(), 1, 2)).await.unwrap();
    db.flush().await.unwrap();
    let stored = db.positions().await.unwrap();
    assert_eq!(stored.len(), 2);
    let owners: Vec<String> = stored.iter().map(|stored| stored.owner.clone().unwrap()).collect();
    assert!(db.remove_positions(&db.incarnation(), &owners).await.is_err(), "they are in use");
    let kept = db.remove_positions(&gone, &[]).await.unwrap();
    assert!(matches!(kept, Removed::Claimed { .. }), "its owner may live: {kept:?}");
    assert_eq!(db.remove_positions(&gone, &owners).await.unwrap(), Removed::Positions(1));
    db.submit(&row(&plain(), 1, 3)).await.unwrap();
    db.flush().await.unwrap();
    db.close(LONG).await;
    // The folder is there nevertheless: it does not begin anew.
    let db = start(&sink, exact(old.path())).await.unwrap();
    db.submit(&row(&plain(), 1, 4)).await.unwrap();
    until("the partition has stopped", || !db.health().stopped.is_empty()).await;
    assert!(db.health().stopped[0].reason.contains("has no position"), "{:?}", db.health().stopped);
    db.close(LONG).await;
    assert_eq!(applied(&sink), [(1, 1), (1, 2), (1, 3)]);
    // At least once there are none.
    let other = tempfile::tempdir().unwrap();
    let db = start(&sink, options(other.path())).await.unwrap();
    assert_eq!(db.positions().await.unwrap(), []);
    db.close(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_rejected_in_a_step_reaches_the_callback() {
    let (folder, sink) = (tempfile::tempdir().unwrap(), sink());
    sink.poison(|row| numbers(row).1 == 2);
    let got: Arc<Mutex<Vec<i64>>> = Arc::default();
    let seen = Arc::clone(&got);
    let builder = BatchSql::builder(sink.clone()).config(config());
    let builder = builder.on_failed_row(move |outcome| {
        seen.lock().unwrap().push(numbers(outcome.failure().expect("it has its row").row()).1);
    });
    let db = builder.durable(exact(folder.path())).start().await.unwrap();
    db.submit_all((0..4).map(|version| row(&plain(), 1, version))).await.unwrap();
    db.flush().await.unwrap();
    let report = db.close(LONG).await;
    assert_eq!((got.lock().unwrap().clone(), applied(&sink).len(), report.left_in_log), (vec![2], 3, 0));
}
