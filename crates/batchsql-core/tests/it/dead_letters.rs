//! The consumers of rows that were not written.

use std::time::Duration;

use batchsql_core::{
    BatchSql, Column, ColumnType, Date, DeadLetters, Decimal, ErrorClass, Json, OutcomeKind, PipelineConfig, Schema,
    Time, Timestamp, TimestampTz, Value,
};
use batchsql_testkit::{ScriptedSink, Step};

use crate::support::{HOUR, config, id, plain, row, settle};

fn start(config: PipelineConfig, dead_letters: DeadLetters) -> (BatchSql, ScriptedSink) {
    let sink = ScriptedSink::new();
    (BatchSql::builder(sink.clone()).config(config).dead_letters(dead_letters).start().unwrap(), sink)
}

#[tokio::test(start_paused = true)]
async fn the_channel_has_every_failed_row_and_ends_with_the_pipeline() {
    let (dead_letters, mut failed) = DeadLetters::channel();
    let (db, sink) = start(config(), dead_letters);
    sink.poison(|row| id(row) % 10 == 3);
    for id in 0..50 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    db.close(HOUR).await;
    let mut rows = Vec::new();
    while let Some(letter) = failed.recv().await {
        assert_eq!(letter.outcome().kind(), OutcomeKind::Rejected);
        assert_eq!(letter.failed_row().code(), Some("poison"));
        rows.push(id(letter.failed_row().row()));
    }
    rows.sort_unstable();
    assert_eq!(rows, [3, 13, 23, 33, 43]);
    assert!(failed.try_recv().is_none());
}

#[tokio::test(start_paused = true)]
async fn rows_in_the_channel_keep_their_room_until_they_are_taken() {
    let (dead_letters, mut failed) = DeadLetters::channel();
    let (db, sink) = start(config().buffer_size(20).flush_size(5), dead_letters);
    sink.poison(|_| true);
    for id in 0..20 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    settle().await;
    // All of them failed, and no consumer received them: the buffer is full of them.
    assert_eq!(db.balance().rejected(), 20);
    assert!(db.submit_timeout(&row(&plain(), 20), Duration::from_secs(1)).await.unwrap_err().is_full());
    let letter = failed.recv().await.unwrap();
    assert!(db.try_submit(&row(&plain(), 20)).unwrap_err().is_full(), "it is still held");
    let outcome = letter.into_outcome();
    assert_eq!(id(outcome.failure().unwrap().row()), 0);
    db.submit(&row(&plain(), 20)).await.unwrap();
    // A consumer that wants no more rows drops the receiver.
    drop(failed);
    for id in 21..100 {
        db.submit_timeout(&row(&plain(), id), Duration::from_secs(1)).await.unwrap();
    }
    assert_eq!(db.close(HOUR).await.balance.rejected(), 100);
}

#[tokio::test(start_paused = true)]
async fn several_consumers_see_the_same_rows() {
    let (first, mut first_rows) = DeadLetters::channel();
    let (second, mut second_rows) = DeadLetters::channel();
    let sink = ScriptedSink::new();
    let called = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let builder = BatchSql::builder(sink.clone()).config(config()).dead_letters(first).dead_letters(second);
    let db = builder
        .on_failed_row({
            let called = std::sync::Arc::clone(&called);
            move |_| {
                called.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        })
        .start()
        .unwrap();
    sink.poison(|row| id(row) == 7);
    let receipt = {
        let mut receipts = Vec::new();
        for id in 0..10 {
            receipts.push(db.submit_tracked(&row(&plain(), id)).await.unwrap());
        }
        receipts.remove(7)
    };
    let report = db.close(HOUR).await;
    assert_eq!(report.balance.rejected(), 1);
    assert_eq!(id(first_rows.recv().await.unwrap().failed_row().row()), 7);
    assert_eq!(id(second_rows.recv().await.unwrap().failed_row().row()), 7);
    assert!(first_rows.recv().await.is_none() && second_rows.recv().await.is_none());
    assert_eq!(called.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert_eq!(receipt.await.kind(), OutcomeKind::Rejected);
}

#[tokio::test(start_paused = true)]
async fn rows_that_fail_while_closing_are_in_the_report_and_in_the_channel() {
    let (dead_letters, mut failed) = DeadLetters::channel();
    let (db, sink) = start(config(), dead_letters);
    sink.script([Step::Hang; 10]);
    for id in 0..30 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    let report = db.close(Duration::from_secs(1)).await;
    assert_eq!(report.unwritten.len(), 30);
    let mut received = 0;
    while let Some(letter) = failed.recv().await {
        assert!(matches!(letter.outcome().kind(), OutcomeKind::Unknown | OutcomeKind::Purged));
        received += 1;
    }
    assert_eq!(received, 30);
}

/// A file in its own folder, which is removed with it.
fn file() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("failed.ndjson");
    (folder, path)
}

fn lines(path: &std::path::Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn the_file_has_one_line_per_row_when_close_returns() {
    let (_folder, path) = file();
    for round in 0..2 {
        let (db, sink) = start(config(), DeadLetters::file(&path).unwrap());
        sink.poison(|row| id(row) % 2 == 1);
        for id in 0..1000 {
            db.submit(&row(&plain(), id)).await.unwrap();
        }
        let balance = db.close(HOUR).await.balance;
        assert_eq!(balance.rejected(), 500);
        let lines = lines(&path);
        assert_eq!(lines.len(), 500 * (round + 1), "it is appended to");
        let mut ids: Vec<i64> = lines[500 * round..].iter().map(|line| line["row"]["id"].as_i64().unwrap()).collect();
        ids.sort_unstable();
        assert!(ids.iter().copied().eq((0..1000).filter(|id| id % 2 == 1)));
        assert_eq!(lines[0]["outcome"], "rejected");
        assert_eq!(lines[0]["table"], "t");
        assert_eq!((&lines[0]["class"], &lines[0]["code"]), (&"row".into(), &"poison".into()));
        assert_eq!(lines[0]["types"]["id"], "i64");
        assert!(lines[0]["attempts"].as_u64().unwrap() > 1);
        assert!(lines[0]["time"].as_str().unwrap().starts_with("20"));
    }
}

#[tokio::test]
async fn the_file_shows_every_type_without_loss() {
    let values: Vec<(&str, ColumnType, Value, serde_json::Value)> = vec![
        ("bool", ColumnType::Bool, true.into(), true.into()),
        ("i16", ColumnType::I16, i16::MIN.into(), i16::MIN.into()),
        ("i32", ColumnType::I32, i32::MAX.into(), i32::MAX.into()),
        ("i64", ColumnType::I64, i64::MIN.into(), i64::MIN.into()),
        ("u64", ColumnType::U64, u64::MAX.into(), u64::MAX.into()),
        ("f64", ColumnType::F64, 0.1.into(), 0.1.into()),
        ("nan", ColumnType::F64, f64::NAN.into(), "NaN".into()),
        ("inf", ColumnType::F64, f64::NEG_INFINITY.into(), "-inf".into()),
        ("decimal", ColumnType::Decimal, "0.10".parse::<Decimal>().unwrap().into(), "0.10".into()),
        ("text", ColumnType::Text, "a\n\"b\"".into(), "a\n\"b\"".into()),
        ("bytes", ColumnType::Bytes, Value::Bytes([0, 255].into()), "\\x00ff".into()),
        ("uuid", ColumnType::Uuid, Value::Uuid([0x11; 16]), "11111111-1111-1111-1111-111111111111".into()),
        ("json", ColumnType::Json, "{\n \"a\": 1}".parse::<Json>().unwrap().into(), serde_json::json!({"a": 1})),
        ("date", ColumnType::Date, Date::from_ymd(2026, 11, 23).unwrap().into(), "2026-11-23".into()),
        ("time", ColumnType::Time, Time::MIN.into(), Time::MIN.to_string().into()),
        ("timestamp", ColumnType::Timestamp, Timestamp::MIN.into(), "0001-01-01T00:00:00.000000".into()),
        ("timestamptz", ColumnType::TimestampTz, TimestampTz::MIN.into(), "0001-01-01T00:00:00.000000Z".into()),
        ("null", ColumnType::Text, Value::Null, serde_json::Value::Null),
    ];
    let builder = values.iter().fold(Schema::builder("all"), |builder, (name, ty, ..)| builder.nullable(*name, *ty));
    let schema = builder.nullable("left out", ColumnType::I64).build().unwrap();
    let row = values.iter().fold(schema.row(), |row, (name, _, value, _)| row.set(name, value.clone()).unwrap());
    let (_folder, path) = file();
    let (db, sink) = start(config(), DeadLetters::file(&path).unwrap());
    sink.script([Step::Fail(ErrorClass::Row)]);
    db.submit(&row.finish().unwrap()).await.unwrap();
    db.close(HOUR).await;
    let line = lines(&path).remove(0);
    for (name, ty, _, expected) in &values {
        assert_eq!(&line["row"][name], expected, "{name}");
        assert_eq!(line["types"][name], ty.name(), "{name}");
    }
    assert_eq!(line["row"].as_object().unwrap().len(), schema.columns().len() - 1);
    assert!(!schema.columns().iter().map(Column::name).all(|name| line["row"].get(name).is_some()));
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_at_once() {
    let (folder, _) = file();
    let error = DeadLetters::file(folder.path()).unwrap_err().to_string();
    assert!(error.contains(&*folder.path().display().to_string()), "{error}");
    assert!(DeadLetters::file(folder.path().join("no such folder/failed.ndjson")).is_err());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_file_that_cannot_be_written_holds_close_up_for_a_while_only() {
    // Every write to it fails, as on a full disk.
    let (db, sink) = start(config(), DeadLetters::file("/dev/full").unwrap());
    sink.script([Step::Fail(ErrorClass::Row)]);
    db.submit(&row(&plain(), 1)).await.unwrap();
    let begin = std::time::Instant::now();
    let report = db.close(HOUR).await;
    assert_eq!((report.balance.rejected(), report.unwritten.len(), report.lost_letters), (1, 1, 1));
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_mends_rows_needs_no_other_room() {
    let (dead_letters, mut failed) = DeadLetters::channel();
    let (db, sink) = start(config().buffer_size(20).flush_size(5), dead_letters);
    // Every row is bad at first.
    sink.poison(|row| id(row) < 1000);
    let mender = tokio::spawn({
        let db = db.downgrade();
        async move {
            while let Some(letter) = failed.recv().await {
                let row = letter.failed_row().row();
                let mended = row.edit().set("id", id(row) + 1000).unwrap().finish().unwrap();
                let Some(db) = db.upgrade() else { return };
                db.resubmit(letter, &mended).unwrap();
            }
        }
    });
    for id in 0..500 {
        tokio::time::timeout(HOUR, db.submit(&row(&plain(), id))).await.expect("the submitters deadlock").unwrap();
    }
    while db.balance().written() < 500 {
        tokio::time::timeout(HOUR, db.flush()).await.unwrap().unwrap();
        settle().await;
    }
    let balance = db.close(HOUR).await.balance;
    assert_eq!((balance.accepted, balance.rejected(), balance.written()), (1000, 500, 500));
    mender.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_row_that_needs_more_room_than_there_is_leaves_the_letter() {
    let (dead_letters, mut failed) = DeadLetters::channel();
    let config = config().buffer_bytes(1000).flush_bytes(1000).flush_size(1);
    let (db, sink) = start(config, dead_letters);
    sink.poison(|row| id(row) == 1);
    db.submit(&row(&plain(), 1)).await.unwrap();
    let letter = failed.recv().await.unwrap();
    let small = letter.failed_row().row().edit().set("id", 2_i64).unwrap().finish().unwrap();
    let large = small.edit().set("note", "x".repeat(980)).unwrap().finish().unwrap();
    sink.script([Step::Hang]);
    db.submit(&plain().row().set("id", 3_i64).unwrap().set("note", "y".repeat(100)).unwrap().finish().unwrap())
        .await
        .unwrap();
    let refused = db.resubmit(letter, &large).unwrap_err();
    assert!(refused.submit_error().is_full(), "{refused}");
    db.resubmit(refused.into_letter(), &small).unwrap();
    sink.release(1);
    let balance = db.close(HOUR).await.balance;
    assert_eq!((balance.written(), balance.rejected()), (2, 1));
    assert_eq!(db.balance().in_flight(), 0);
    assert!(db.downgrade().upgrade().is_some());
}

#[tokio::test(start_paused = true)]
async fn the_file_is_complete_also_when_the_clock_is_paused() {
    let (_folder, path) = file();
    let (db, sink) = start(config(), DeadLetters::file(&path).unwrap());
    sink.poison(|_| true);
    for id in 0..200 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    db.close(HOUR).await;
    assert_eq!(lines(&path).len(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_letter_of_another_pipeline_takes_no_room_with_it() {
    let (dead_letters, mut failed) = DeadLetters::channel();
    let (first, sink) = start(config().buffer_size(20), dead_letters);
    sink.poison(|_| true);
    let (second, _) = crate::support::pipeline(config().buffer_size(20));
    for id in 0..20 {
        first.submit(&row(&plain(), id)).await.unwrap();
    }
    first.flush().await.unwrap();
    for _ in 0..20 {
        let letter = failed.recv().await.unwrap();
        let again = letter.failed_row().row().clone();
        second.resubmit(letter, &again).unwrap();
    }
    assert_eq!(second.flush().await.unwrap().written(), 20);
    first.submit_timeout(&row(&plain(), 99), Duration::from_secs(1)).await.unwrap();
    second.try_submit(&row(&plain(), 100)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_another_consumer_has_too_uses_room_of_its_own() {
    let (one, mut first) = DeadLetters::channel();
    let (two, mut second) = DeadLetters::channel();
    let sink = ScriptedSink::new();
    let builder = BatchSql::builder(sink.clone()).config(config().buffer_size(10));
    let db = builder.dead_letters(one).dead_letters(two).start().unwrap();
    sink.poison(|row| id(row) < 10);
    for id in 0..10 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    db.flush().await.unwrap();
    let refused = db.resubmit(first.recv().await.unwrap(), &row(&plain(), 10)).unwrap_err();
    assert!(refused.submit_error().is_full());
    drop(second.recv().await.unwrap());
    db.resubmit(refused.into_letter(), &row(&plain(), 10)).unwrap();
    assert_eq!(db.flush().await.unwrap().written(), 1);
}

#[tokio::test(start_paused = true)]
async fn failed_rows_count_with_the_memory_that_they_take() {
    // Ten booleans take ten bytes in a batch, and some hundred bytes as an owned row.
    let mut schema = batchsql_core::Schema::builder("t");
    for column in 0..10 {
        schema = schema.column(format!("c{column}"), batchsql_core::ColumnType::Bool);
    }
    let schema = schema.build().unwrap();
    let row = || schema.row().set_all((0..10).map(|_| true.into())).unwrap().finish().unwrap();
    let (dead_letters, mut letters) = DeadLetters::channel();
    let sink = ScriptedSink::new();
    sink.poison(|_| true);
    let config = config()
        .buffer_bytes(100_000)
        .flush_bytes(100_000)
        .buffer_size(100_000)
        .flush_size(10)
        .when_full(batchsql_core::WhenFull::Reject);
    let db = BatchSql::builder(sink).config(config).dead_letters(dead_letters).start().unwrap();
    let mut failed = 0;
    while db.submit(&row()).await.is_ok() {
        failed += 1;
        if failed % 10 == 0 {
            db.flush().await.unwrap();
        }
        assert!(failed < 1000, "a thousand failed rows take more than 100,000 bytes");
    }
    assert!(failed > 100, "{failed}");
    // The capacity that they held is released.
    while let Some(letter) = letters.try_recv() {
        drop(letter);
    }
    db.submit(&row()).await.unwrap();
}

#[test]
fn a_consumer_on_a_thread_ends_when_the_runtime_has_ended() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (dead_letters, mut letters) = DeadLetters::channel();
    let db = runtime.block_on(async {
        let sink = ScriptedSink::new();
        sink.script([Step::Hang; 3]);
        let config = config().flush_size(1);
        let db = BatchSql::builder(sink).config(config).dead_letters(dead_letters).start().unwrap();
        for id in 0..3 {
            db.submit(&crate::support::row(&crate::support::plain(), id)).await.unwrap();
        }
        db
    });
    let consumer = std::thread::spawn(move || {
        let mut received = 0;
        while let Some(letter) = letters.blocking_recv() {
            received += 1;
            drop(letter);
        }
        received
    });
    runtime.shutdown_background();
    assert_eq!(consumer.join().unwrap(), 3, "each row that was given up is a letter, and then the channel ends");
    drop(db);
}
