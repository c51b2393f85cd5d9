//! Rows that stay in the folder after they were written: for how long, that they can be exported, and that they never keep new
//! rows out.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use batchsql_core::{BatchSql, DeadLetterLine, ErrorClass, ValueRef};
use batchsql_durable::tools::IntakeFolder;
use batchsql_durable::{DurableExt, DurableOptions};
use batchsql_testkit::ScriptedSink;

use crate::disk::Disk;
use crate::support::{LONG, config, in_table, numbers, options, plain, row, start, until};

const HOUR: Duration = Duration::from_secs(3_600);

const SEGMENT_BYTES: u64 = 16 << 10;

fn keeping(folder: &Path, disk: &Disk) -> DurableOptions {
    options(folder).partitions(2).segment_bytes(SEGMENT_BYTES).keep_for(HOUR).file_system(Arc::new(disk.clone()))
}

/// The ids of the rows that an export has, each once.
fn exported(folder: &Path, all: bool) -> BTreeSet<i64> {
    let (mut text, folder) = (Vec::new(), IntakeFolder::lock(folder).unwrap());
    let export = if all { folder.export_all(&mut text) } else { folder.export(&mut text) }.unwrap();
    let text = String::from_utf8(text).unwrap();
    let ids = text.lines().map(|line| {
        let row = line.parse::<DeadLetterLine>().unwrap().row(&plain()).unwrap();
        match row.get("id") {
            Some(ValueRef::I64(id)) => id,
            other => panic!("{other:?}"),
        }
    });
    let ids: BTreeSet<i64> = ids.collect();
    assert_eq!(ids.len() as u64, export.rows, "each row is there once");
    ids
}

/// Otherwise a replay of the export writes the others twice.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_written_behind_one_that_waits_are_not_exported_as_waiting() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    sink.poison_as(ErrorClass::Transient, |row| numbers(row).0 == 7);
    let config = config().flush_size(5).max_batch_rows(5);
    let durable = BatchSql::builder(sink.clone()).config(config).durable(options(dir.path()).partitions(1));
    let db = durable.start().await.unwrap();
    let rows: Vec<_> = (0..20).map(|id| row(&plain(), id, 0)).collect();
    db.submit_all(&rows).await.unwrap();
    until("all other batches are written", || db.stats().balance.written() >= 15).await;
    let left = db.close(Duration::ZERO).await.left_in_log;
    drop(db);
    let written: BTreeSet<i64> = sink.applied().iter().map(|row| numbers(row).0).collect();
    let waiting: BTreeSet<i64> = (0..20).filter(|id| !written.contains(id)).collect();
    assert_eq!((left, waiting.contains(&7)), (waiting.len() as u64, true));
    assert_eq!(exported(dir.path(), false), waiting);
    let found = IntakeFolder::lock(dir.path()).unwrap().inspect().unwrap().recovery.partitions;
    assert_eq!(found.iter().map(|state| state.unsettled).collect::<Vec<_>>(), [left]);
    assert_eq!(exported(dir.path(), true), (0..20).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn written_rows_can_be_exported_until_their_time_is_over() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let sink = ScriptedSink::new();
    let db = start(&sink, keeping(dir.path(), &disk)).await.unwrap();
    for block in 0..40 {
        db.submit_all((0..50).map(|id| row(&plain(), block * 50 + id, 0))).await.unwrap();
    }
    db.flush().await.unwrap();
    assert_eq!(in_table(&sink, "plain").len(), 2_000);
    assert!(db.close(LONG).await.is_drained());
    drop(db);
    assert_eq!(exported(dir.path(), false), BTreeSet::new(), "none waits");
    assert_eq!(exported(dir.path(), true), (0..2_000).collect());

    // The next process does not write them again, and still has them.
    let sink = ScriptedSink::new();
    let db = start(&sink, keeping(dir.path(), &disk)).await.unwrap();
    assert_eq!(db.recovered().rows, 0);
    db.submit(&row(&plain(), 2_000, 0)).await.unwrap();
    db.flush().await.unwrap();
    assert_eq!(in_table(&sink, "plain"), [(2_000, 0)]);
    db.close(LONG).await;
    drop(db);
    assert_eq!(exported(dir.path(), true), (0..=2_000).collect());

    disk.pass(HOUR + Duration::from_secs(1));
    let db = start(&ScriptedSink::new(), keeping(dir.path(), &disk)).await.unwrap();
    db.submit(&row(&plain(), 2_001, 0)).await.unwrap();
    db.flush().await.unwrap();
    until("the files of before are gone", || db.stats().log.segments == 1).await;
    db.close(LONG).await;
    drop(db);
    assert_eq!(exported(dir.path(), true), [2_001].into());
}

/// The disk budget goes before the time: new rows are accepted at once, and the oldest of the kept ones make place.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_kept_never_keep_new_ones_out() {
    const DISK_BYTES: u64 = 4 * SEGMENT_BYTES;
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let sink = ScriptedSink::new();
    let db = start(&sink, keeping(dir.path(), &disk).disk_bytes(DISK_BYTES)).await.unwrap();
    for block in 0..100 {
        db.submit_all((0..100).map(|id| row(&plain(), block * 100 + id, 0))).await.unwrap();
        db.flush().await.unwrap();
        let stats = db.stats();
        assert!(stats.log.bytes <= DISK_BYTES, "{} bytes", stats.log.bytes);
    }
    assert!(db.stats().log.trimmed > 0);
    db.close(LONG).await;
    drop(db);
    assert_eq!(in_table(&sink, "plain").len(), 10_000);
    let kept = exported(dir.path(), true);
    assert!((500..10_000).contains(&kept.len()), "{}", kept.len());
    assert!(kept.contains(&9_999) && !kept.contains(&0));
    let inspected = IntakeFolder::lock(dir.path()).unwrap().inspect().unwrap();
    let bytes: u64 = inspected.files.iter().map(|file| file.bytes).sum();
    assert!(bytes <= DISK_BYTES, "{bytes} bytes");
}
