//! When batches are written, and which.

use std::time::Duration;

use batchsql_core::{BatchSql, Coalesce, Conflict, FlushReason, Ordering};
use batchsql_testkit::{ScriptedSink, Step};
use tokio::time::Instant;

use crate::support::{HOUR, Recorder, config, id, ids, pipeline, plain, row, settle, table};

#[tokio::test(start_paused = true)]
async fn a_batch_is_written_when_it_has_flush_size_rows() {
    let (db, sink) = pipeline(config());
    for id in 0..25 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    settle().await;
    assert_eq!(sink.batches().iter().map(Vec::len).collect::<Vec<_>>(), [10, 10]);
    assert_eq!(db.balance().in_flight(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_written_when_it_has_flush_bytes() {
    let bytes = plain().fixed_row_len() + 1;
    let (db, sink) = pipeline(config().flush_bytes(3 * bytes));
    for id in 0..7 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    settle().await;
    assert_eq!(sink.batches().iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_written_when_its_oldest_row_is_flush_interval_old() {
    let (db, sink) = pipeline(config().flush_interval(Duration::from_millis(100)));
    let begin = Instant::now();
    let receipt = db.submit_tracked(&row(&plain(), 1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(60)).await;
    db.submit(&row(&plain(), 2)).await.unwrap();
    assert!(receipt.await.is_written());
    assert_eq!(begin.elapsed(), Duration::from_millis(100));
    assert_eq!(ids(&sink.applied()), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn an_interval_of_zero_writes_as_soon_as_it_can() {
    let (db, _sink) = pipeline(config().flush_interval(Duration::ZERO));
    let begin = Instant::now();
    assert!(db.submit_tracked(&row(&plain(), 1)).await.unwrap().await.is_written());
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_interval_without_end_means_by_size_only() {
    let (db, sink) = pipeline(config().flush_interval(Duration::MAX));
    for id in 0..15 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    assert_eq!(sink.applied().len(), 10);
    assert!(db.close(Duration::MAX).await.is_complete());
    assert_eq!(sink.applied().len(), 15);
}

#[tokio::test(start_paused = true)]
async fn a_due_batch_keeps_filling_until_it_can_start() {
    let (db, sink) = pipeline(config().flush_interval(Duration::from_millis(10)).max_concurrency(1));
    sink.script([Step::Hang]);
    for id in 0..10 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    db.submit(&row(&plain(), 10)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    db.submit(&row(&plain(), 11)).await.unwrap();
    sink.release(1);
    db.flush().await.unwrap();
    assert_eq!(sink.batches().iter().map(Vec::len).collect::<Vec<_>>(), [10, 2]);
}

#[tokio::test(start_paused = true)]
async fn flush_returns_when_everything_before_it_has_an_outcome() {
    let (db, sink) = pipeline(config());
    sink.script([Step::Delay(Duration::from_secs(5)), Step::Delay(Duration::from_secs(3))]);
    for id in 0..13 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    let begin = Instant::now();
    let balance = db.flush().await.unwrap();
    assert_eq!((balance.accepted, balance.written(), balance.in_flight()), (13, 13, 0));
    assert_eq!(begin.elapsed(), Duration::from_secs(5));
    assert_eq!(sink.applied().len(), 13);
}

#[tokio::test(start_paused = true)]
async fn tables_have_their_own_batches_and_share_the_concurrency_limit() {
    let recorder = Recorder::default();
    let sink = ScriptedSink::new();
    sink.script([Step::Delay(Duration::from_secs(1)); 20]);
    let config = config().max_concurrency(3);
    let db = BatchSql::builder(sink.clone()).config(config).metrics_reporter(recorder.clone()).start().unwrap();
    let tables: Vec<_> = (0..5).map(|n| table(&format!("t{n}"), Conflict::none())).collect();
    for id in 0..40 {
        for schema in &tables[..2] {
            db.submit(&row(schema, id)).await.unwrap();
        }
    }
    let begin = Instant::now();
    assert_eq!(db.flush().await.unwrap().written(), 80);
    // Eight full batches, three at once: three rounds.
    assert_eq!(begin.elapsed(), Duration::from_secs(3));
    assert_eq!(recorder.0.lock().unwrap().max_in_flight, 3);
    assert!(sink.batches().iter().all(|batch| {
        batch.windows(2).all(|pair| batchsql_core::Row::schema(&pair[0]) == batchsql_core::Row::schema(&pair[1]))
    }));
}

#[tokio::test(start_paused = true)]
async fn one_busy_table_does_not_keep_another_waiting() {
    let (db, sink) = pipeline(config().max_concurrency(1));
    sink.script([Step::Delay(Duration::from_secs(1)); 9]);
    let (busy, rare) = (table("busy", Conflict::none()), table("rare", Conflict::none()));
    for id in 0..80 {
        db.submit(&row(&busy, id)).await.unwrap();
    }
    for id in 0..10 {
        db.submit(&row(&rare, id)).await.unwrap();
    }
    db.flush().await.unwrap();
    let place = sink.batches().iter().position(|batch| batchsql_core::Row::schema(&batch[0]) == &rare).unwrap();
    assert!(place <= 2, "the rare table was written as batch {place}");
}

#[tokio::test(start_paused = true)]
async fn rows_with_equal_keys_keep_their_order_through_retries() {
    use batchsql_core::ErrorClass::Transient;
    let (db, sink) = pipeline(config().flush_size(4).coalesce(Coalesce::Off));
    let schema = table("t", Conflict::update(["id"]));
    sink.script([Step::Fail(Transient), Step::Apply, Step::Fail(Transient), Step::Fail(Transient), Step::Apply]);
    for version in 0..90 {
        let note = format!("{version}");
        let row = schema.row().set("id", version % 7).unwrap().set("note", note).unwrap().finish().unwrap();
        db.submit(&row).await.unwrap();
    }
    assert_eq!(db.flush().await.unwrap().written(), 90);
    for key in 0..7 {
        let applied = sink.applied();
        let versions = applied.iter().filter(|row| id(row) == key).map(|row| match row.get("note") {
            Some(batchsql_core::ValueRef::Text(note)) => note.parse::<i64>().unwrap(),
            other => panic!("{other:?}"),
        });
        let versions: Vec<i64> = versions.collect();
        assert!(versions.is_sorted(), "key {key}: {versions:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn per_table_order_keeps_plain_inserts_in_order() {
    let (db, sink) = pipeline(config().ordering(Ordering::PerTable));
    sink.script([Step::Fail(batchsql_core::ErrorClass::Transient), Step::Delay(Duration::from_secs(1))]);
    for id in 0..50 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    db.flush().await.unwrap();
    assert_eq!(ids(&sink.applied()), (0..50).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn rows_without_a_column_have_a_statement_of_their_own() {
    let (db, sink) = pipeline(config());
    let schema = plain();
    db.submit(&row(&schema, 1)).await.unwrap();
    db.submit(&schema.row().set("id", 2_i64).unwrap().finish().unwrap()).await.unwrap();
    assert_eq!(db.flush().await.unwrap().written(), 2);
    let mut columns: Vec<usize> =
        sink.batches().iter().map(|b| batchsql_core::Row::schema(&b[0]).columns().len()).collect();
    columns.sort_unstable();
    assert_eq!(columns, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn the_reason_of_each_flush_is_reported() {
    let recorder = Recorder::default();
    let config = config().flush_bytes(5 * (plain().fixed_row_len() + 1)).flush_interval(Duration::from_secs(1));
    let (small, sink) = (config.clone().flush_size(2), ScriptedSink::new());
    for config in [config, small] {
        let db = BatchSql::builder(sink.clone()).config(config).metrics_reporter(recorder.clone()).start().unwrap();
        for id in 0..10 {
            db.submit(&row(&plain(), id)).await.unwrap();
        }
        db.submit(&row(&plain(), 10)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        db.submit(&row(&plain(), 11)).await.unwrap();
        db.flush().await.unwrap();
        db.submit(&row(&plain(), 12)).await.unwrap();
        db.close(HOUR).await;
    }
    use FlushReason::{Bytes, Drain, Explicit, Interval, Rows};
    let sealed = recorder.0.lock().unwrap().sealed.clone();
    assert_eq!(sealed[..5], [(5, Bytes), (5, Bytes), (1, Interval), (1, Explicit), (1, Drain)]);
    assert_eq!(
        sealed[5..],
        [(2, Rows), (2, Rows), (2, Rows), (2, Rows), (2, Rows), (1, Interval), (1, Explicit), (1, Drain)]
    );
}

#[tokio::test(start_paused = true)]
async fn the_context_of_a_batch_is_the_one_of_its_sealing() {
    let recorder = Recorder::default();
    let sink = ScriptedSink::new();
    sink.script([Step::Delay(Duration::from_secs(1))]);
    let db = BatchSql::builder(sink).config(config()).metrics_reporter(recorder.clone()).start().unwrap();
    recorder.0.lock().unwrap().context = Some("first".into());
    for id in 0..10 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    recorder.0.lock().unwrap().context = Some("second".into());
    db.submit(&row(&plain(), 10)).await.unwrap();
    db.flush().await.unwrap();
    let mut contexts = recorder.0.lock().unwrap().contexts.clone();
    contexts.sort();
    assert_eq!(contexts, [Some("first".to_owned()), Some("second".to_owned())]);
}
