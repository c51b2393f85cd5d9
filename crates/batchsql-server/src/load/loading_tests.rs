//! Loads whose rows are refused, fail, or are stopped.

use std::path::PathBuf;
use std::time::Duration;

use batchsql::{BatchSql, ColumnType, Conflict, DynRow, DynSink, ErrorClass, PipelineConfig, Schema, ValueRef};
use batchsql_testkit::{ScriptedSink, Step};

use super::loading::Job;
use super::loading::tests::{ids, job, load_into, plain};
use super::mark::Unsaved;
use super::stop::Stopper;
use crate::exit::{Exit, Remedy};

/// A pipeline that gives rows up after one try.
fn impatient(sink: &ScriptedSink) -> BatchSql {
    let config = PipelineConfig::default().retry_for(Duration::ZERO);
    BatchSql::builder(DynSink::new(sink.clone())).config(config).start().unwrap()
}

/// A row that goes on failing is tried again alone, by this process and by a later one. A table whose rows may be written again
/// gets all of them in their order.
#[tokio::test]
async fn rows_that_have_ended_are_not_written_again() {
    let repeatable = || {
        let mut target = plain();
        let schema = Schema::builder("orders").column("id", ColumnType::I64).column("region", ColumnType::Text);
        target.schema = schema.on_conflict(Conflict::update(["id"])).build().unwrap();
        target
    };
    let one = [1, 2, 3, 4, 5].to_vec();
    for (target, expected) in [(plain(), one), (repeatable(), [1, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5].to_vec())] {
        let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
        let path = folder.path().join("a.csv");
        std::fs::write(&path, "id,region\n1,eu\n2,eu\n3,eu\n4,eu\n5,eu\n").unwrap();
        // The second one has no outcome, of all and then of those that are left.
        for step in [Step::LeaveRow(1, ErrorClass::Transient), Step::LeaveRow(0, ErrorClass::Transient)] {
            sink.script([step]);
            let job = Job { db: impatient(&sink), ..job(target.clone(), &sink, &path) };
            let failure = job.run(|_| {}).await.unwrap_err();
            assert_eq!(failure.exit, Exit::Unavailable, "{failure:?}");
        }
        let loaded = load_into(target, &sink, &path).await.unwrap();
        assert_eq!((loaded.records, loaded.rejected), (5, 0));
        assert_eq!(ids(&sink), expected);
    }
}

/// Only the rejected record is tried again. A file of rejected records that cannot be written is seen before the first row.
#[tokio::test]
async fn a_rejected_record_that_cannot_be_stored_repeats_no_row() {
    let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    let path = folder.path().join("a.csv");
    std::fs::write(&path, "id,region\n1,eu\n2,eu\n3,eu\n4,eu\n").unwrap();
    let of_rejects = folder.path().join("rejects");
    let (gone, in_the_way) = (of_rejects.clone(), folder.path().join("a.csv.batchsql-load.tmp"));
    sink.poison_as(ErrorClass::Row, move |row| {
        let is_bad = matches!(row.get("id"), Some(ValueRef::I64(3)));
        if is_bad {
            let _ = std::fs::remove_dir(&gone);
            let _ = std::fs::create_dir(&in_the_way);
        }
        is_bad
    });
    let unsaved = Unsaved::default();
    let load = || {
        let job = Job { rejects: of_rejects.join("a.ndjson"), unsaved: unsaved.clone(), ..job(plain(), &sink, &path) };
        job.run(|_| {})
    };
    let failure = load().await.unwrap_err();
    assert_eq!(failure.remedy, Remedy::FileBeside, "{failure:?}");
    assert_eq!(sink.applied().len(), 0, "the folder is not there before the first row");
    std::fs::create_dir(&of_rejects).unwrap();
    let failure = load().await.unwrap_err();
    assert!(failure.text.contains("the file of rejected records cannot be written"), "{failure:?}");
    assert_eq!(ids(&sink), [1, 2, 4]);
    // The mark could not be stored either, but this process knows it.
    std::fs::create_dir(&of_rejects).unwrap();
    std::fs::remove_dir(folder.path().join("a.csv.batchsql-load.tmp")).unwrap();
    let loaded = load().await;
    let loaded = loaded.unwrap_err();
    assert!(loaded.text.contains("the file of rejected records cannot be written"), "{loaded:?}");
    assert_eq!(ids(&sink), [1, 2, 4]);
    sink.poison_as(ErrorClass::Row, |row| matches!(row.get("id"), Some(ValueRef::I64(3))));
    std::fs::create_dir(&of_rejects).unwrap();
    std::fs::remove_dir(folder.path().join("a.csv.batchsql-load.tmp")).unwrap();
    let loaded = load().await.unwrap();
    assert_eq!((loaded.records, loaded.before, loaded.rejected), (4, 3, 1));
    assert_eq!(ids(&sink), [1, 2, 4]);
    assert_eq!(std::fs::read_to_string(of_rejects.join("a.ndjson")).unwrap().lines().count(), 1);
}

/// With a higher limit the load goes on.
#[tokio::test]
async fn a_load_with_too_many_rejected_records_repeats_no_row() {
    let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    let path = folder.path().join("a.csv");
    std::fs::write(&path, "id,region\n1,eu\n2,eu\nx,eu\n4,eu\n").unwrap();
    sink.poison_as(ErrorClass::Row, |row| matches!(row.get("id"), Some(ValueRef::I64(2))));
    let load = |most_rejects| Job { most_rejects, ..job(plain(), &sink, &path) }.run(|_| {});
    for _ in 0..3 {
        let failure = load(1).await.unwrap_err();
        assert!(failure.text.contains("2 records were rejected, which is more than 1"), "{failure:?}");
        assert_eq!(ids(&sink), [1, 4]);
    }
    let loaded = load(2).await.unwrap();
    assert_eq!((loaded.records, loaded.rejected), (4, 2));
    assert_eq!(ids(&sink), [1, 4]);
    assert_eq!(std::fs::read_to_string(path.with_extension("rejects")).unwrap().lines().count(), 2);
}

/// What is being written when the load is stopped would be written again by the next one.
#[tokio::test]
async fn a_stop_finishes_what_is_being_written() {
    const RECORDS: i64 = 50_000;
    let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    let path = folder.path().join("a.csv");
    let lines: String = (1..=RECORDS).map(|id| format!("{id},eu\n")).collect();
    std::fs::write(&path, format!("id,region\n{lines}")).unwrap();
    for hangs in 1..=3 {
        let stopper = Stopper::new();
        sink.script([Step::Hang]);
        let (job, tries) = (Job { stop: stopper.watched(), ..job(plain(), &sink, &path) }, sink.writes());
        let loading = tokio::spawn(job.run(|_| {}));
        while sink.writes() == tries {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stopper.stop();
        sink.release(1);
        let failure = loading.await.unwrap().unwrap_err();
        assert!(failure.text.contains("it was stopped"), "{failure:?}");
        let written = ids(&sink).len() as i64;
        assert!(0 < written && written < RECORDS, "{hangs}: {written}");
    }
    load_into(plain(), &sink, &path).await.unwrap();
    assert_eq!(ids(&sink), (1..=RECORDS).collect::<Vec<_>>());
}

fn file(folder: &tempfile::TempDir, records: std::ops::RangeInclusive<i64>) -> PathBuf {
    let path = folder.path().join("a.csv");
    let lines: String = records.map(|id| format!("{id},eu\n")).collect();
    std::fs::write(&path, format!("id,region\n{lines}")).unwrap();
    path
}

fn is_in(of: &'static [i64]) -> impl Fn(&DynRow) -> bool {
    move |row| matches!(row.get("id"), Some(ValueRef::I64(id)) if of.contains(&id))
}

/// The rows behind it show that the table accepts rows, wherever the load begins.
#[tokio::test]
async fn a_bad_record_that_comes_first_is_rejected_alone() {
    // A stripe has 20,000 records.
    for (class, bad, last) in [
        (ErrorClass::Schema, &[1, 2, 20_001], 20_010),
        (ErrorClass::Permission, &[1, 2, 4], 9),
        (ErrorClass::Size, &[1, 2, 9], 9),
    ] {
        let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
        sink.keep_positions();
        sink.poison_as(class, is_in(bad));
        let path = file(&folder, 1..=last);
        let load = |most_rejects| Job { most_rejects, ..job(plain(), &sink, &path) }.run(|_| {});
        let failure = load(2).await.unwrap_err();
        assert!(failure.text.contains("3 records were rejected, which is more than 2"), "{failure:?}");
        let loaded = load(3).await.unwrap();
        assert_eq!((loaded.records, loaded.rejected), (last as u64, 3), "{class:?}");
        assert_eq!(ids(&sink), (1..=last).filter(|id| !bad.contains(id)).collect::<Vec<_>>());
    }
    // The database says that it is the row.
    for class in [ErrorClass::Row, ErrorClass::Size] {
        let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
        sink.keep_positions();
        sink.poison_as(class, |_| true);
        assert_eq!(load_into(plain(), &sink, &file(&folder, 1..=3)).await.unwrap().rejected, 3);
    }
}

/// Behind rows that were written, a few are at fault also if the table accepts none behind them: by the same run, and by one that
/// was killed just before them. More of them are the table's fault.
#[tokio::test]
async fn bad_records_that_come_last_are_rejected_alone() {
    let check = async |class, bad: &'static [i64], last: i64, ends_before: bool| {
        let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
        sink.keep_positions();
        let path = file(&folder, 1..=last);
        let good: Vec<i64> = (1..=last).filter(|id| !bad.contains(id)).collect();
        if ends_before {
            sink.poison_as(ErrorClass::Transient, is_in(bad));
            let job = Job { db: impatient(&sink), ..job(plain(), &sink, &path) };
            job.run(|_| {}).await.unwrap_err();
            assert_eq!(ids(&sink), good);
        }
        sink.poison_as(class, is_in(bad));
        let loaded = load_into(plain(), &sink, &path).await?;
        assert_eq!((loaded.records, loaded.rejected), (last as u64, bad.len() as u64));
        assert_eq!(ids(&sink), good);
        Ok::<_, crate::exit::Failure>(())
    };
    check(ErrorClass::Permission, &[8, 9], 9, false).await.unwrap();
    check(ErrorClass::Permission, &[8, 9], 9, true).await.unwrap();
    // A stripe has 20,000 records.
    check(ErrorClass::Schema, &[19_999, 20_000], 20_010, false).await.unwrap();
    // The first one is at fault, as others are written just before it.
    check(ErrorClass::Schema, &[6, 7, 8, 9], 9, false).await.unwrap();
    let failure = check(ErrorClass::Schema, &[5, 6, 7, 8, 9], 9, false).await.unwrap_err();
    assert!(failure.text.contains("the table cannot be written"), "{failure:?}");
}

/// A trigger may raise the code of a deadlock for one row.
#[tokio::test]
async fn a_record_that_goes_on_with_a_transient_error_is_rejected_alone() {
    for (class, bad) in [(ErrorClass::Transient, &[1][..]), (ErrorClass::Unknown, &[7, 8, 300])] {
        let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
        sink.keep_positions();
        sink.poison_as(class, is_in(bad));
        let path = file(&folder, 1..=400);
        let config = PipelineConfig::default().retry_for(Duration::from_millis(60));
        let db = BatchSql::builder(DynSink::new(sink.clone())).config(config).start().unwrap();
        let loaded = Job { db, ..job(plain(), &sink, &path) }.run(|_| {}).await.unwrap();
        assert_eq!((loaded.records, loaded.rejected), (400, bad.len() as u64), "{class:?}");
        assert_eq!(ids(&sink), (1..=400).filter(|id| !bad.contains(id)).collect::<Vec<_>>());
    }
}

/// The last rows may be locked, and a full disk may have room for some rows: the records are good.
#[tokio::test]
async fn an_error_that_may_pass_rejects_no_record_without_a_proof() {
    for (class, refused) in [
        (ErrorClass::Transient, &[400][..]),
        (ErrorClass::Unknown, &[399, 400]),
        (ErrorClass::Resource, &[199, 200]),
        (ErrorClass::Resource, &[1]),
    ] {
        let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
        sink.keep_positions();
        sink.poison_as(class, is_in(refused));
        let path = file(&folder, 1..=400);
        let config = PipelineConfig::default().retry_for(Duration::from_millis(60));
        let db = BatchSql::builder(DynSink::new(sink.clone())).config(config).start().unwrap();
        let failure = Job { db, ..job(plain(), &sink, &path) }.run(|_| {}).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Unavailable, "{class:?}: {failure:?}");
        assert!(!path.with_extension("rejects").exists(), "{class:?}");
        sink.poison_as(class, |_| false);
        assert_eq!(load_into(plain(), &sink, &path).await.unwrap().rejected, 0);
        assert_eq!(ids(&sink), (1..=400).collect::<Vec<_>>());
    }
}

/// It ends the command, and nothing is lost.
#[tokio::test]
async fn a_table_that_accepts_no_row_rejects_no_record() {
    for (class, exit) in [
        (ErrorClass::Schema, Exit::Failed),
        (ErrorClass::Transient, Exit::Unavailable),
        (ErrorClass::Resource, Exit::Unavailable),
    ] {
        let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
        sink.keep_positions();
        sink.poison_as(class, |_| true);
        let path = file(&folder, 1..=400);
        let load = || {
            let config = PipelineConfig::default().retry_for(Duration::from_millis(60));
            let db = BatchSql::builder(DynSink::new(sink.clone())).config(config).start().unwrap();
            Job { db, ..job(plain(), &sink, &path) }.run(|_| {})
        };
        let failure = load().await.unwrap_err();
        assert_eq!(failure.exit, exit, "{failure:?}");
        assert!(sink.writes() < 400, "{class:?}: {} writes", sink.writes());
        assert!(!path.with_extension("rejects").exists());
        // Behind the rows that were written, too.
        sink.poison_as(class, |row| matches!(row.get("id"), Some(ValueRef::I64(id)) if id > 30));
        assert_eq!(load().await.unwrap_err().exit, exit);
        sink.poison_as(class, |_| false);
        let loaded = load().await.unwrap();
        assert_eq!((loaded.records, loaded.rejected), (400, 0), "{class:?}");
        assert_eq!(ids(&sink), (1..=400).collect::<Vec<_>>());
    }
}
