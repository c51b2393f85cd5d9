//! What callers learn about the buffer before they have a row.

use std::time::Duration;

use batchsql_core::{Conflict, WhenFull};
use batchsql_testkit::Step;

use crate::support::{HOUR, config, pipeline, plain, row, settle, table};

fn percent(db: &batchsql_core::BatchSql) -> u32 {
    (db.pressure() * 100.0).round() as u32
}

#[tokio::test(start_paused = true)]
async fn pressure_is_the_fuller_of_rows_and_bytes() {
    let (db, sink) = pipeline(config().buffer_size(20).buffer_bytes(1000).flush_bytes(1000));
    sink.script([Step::Hang, Step::Hang]);
    assert_eq!(percent(&db), 0);
    for id in 0..5 {
        db.try_submit(&row(&plain(), id)).unwrap();
    }
    assert_eq!(percent(&db), 25, "5 of 20 rows");
    let long = plain().row().set("id", 9_i64).unwrap().set("note", "x".repeat(800)).unwrap().finish().unwrap();
    db.try_submit(&long).unwrap();
    assert!((80..=99).contains(&percent(&db)), "bytes count: {}", percent(&db));
    sink.release(2);
    db.flush().await.unwrap();
    assert_eq!(percent(&db), 0);
}

#[tokio::test(start_paused = true)]
async fn failed_rows_beyond_the_limit_are_full_and_no_more() {
    let (letters, failed) = batchsql_core::DeadLetters::channel();
    let sink = batchsql_testkit::ScriptedSink::new();
    sink.poison(|_| true);
    let config = config().buffer_bytes(100).flush_bytes(100).flush_size(1);
    let db = batchsql_core::BatchSql::builder(sink).config(config).dead_letters(letters).start().unwrap();
    db.submit(&row(&plain(), 1)).await.unwrap();
    db.flush().await.unwrap();
    assert_eq!(percent(&db), 100);
    drop(failed);
    assert_eq!(percent(&db), 0);
}

#[tokio::test(start_paused = true)]
async fn ready_returns_when_a_row_fits_and_holds_nothing() {
    let (db, sink) = pipeline(config().buffer_size(10));
    db.ready().await.unwrap();
    sink.script([Step::Hang]);
    for id in 0..10 {
        db.try_submit(&row(&plain(), id)).unwrap();
    }
    // A cancelled wait leaves the line.
    for _ in 0..20 {
        assert!(tokio::time::timeout(Duration::from_millis(1), db.ready()).await.is_err());
    }
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let db = db.clone();
            tokio::spawn(async move { db.ready().await })
        })
        .collect();
    settle().await;
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    sink.release(1);
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    for id in 0..10 {
        db.try_submit(&row(&plain(), id)).unwrap();
    }
    assert!(db.try_submit(&row(&plain(), 10)).unwrap_err().is_full());
}

/// Nothing is in flight and `flush_interval` is an hour: the wait itself makes the open batches leave.
#[tokio::test(start_paused = true)]
async fn ready_asks_for_the_capacity_of_open_batches() {
    let (db, _) = pipeline(config().buffer_size(10));
    let (a, b) = (table("a", Conflict::none()), table("b", Conflict::none()));
    for id in 0..10 {
        db.try_submit(&row(if id % 2 == 0 { &a } else { &b }, id)).unwrap();
    }
    tokio::time::timeout(Duration::from_secs(1), db.ready()).await.expect("nobody asks for capacity").unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_huge_row_does_not_delay_ready() {
    let (db, sink) = pipeline(config().buffer_bytes(10_000).flush_bytes(10_000).flush_size(1));
    sink.script([Step::Hang]);
    let huge = plain().row().set("id", 9_i64).unwrap().set("note", "x".repeat(9_000)).unwrap().finish().unwrap();
    db.try_submit(&huge).unwrap();
    tokio::time::timeout(Duration::from_secs(1), db.ready()).await.expect("waits for the huge row").unwrap();
    sink.release(1);
}

#[tokio::test(start_paused = true)]
async fn ready_ends_with_the_pipeline_and_never_drops_rows() {
    for when_full in [WhenFull::Wait, WhenFull::DropOldest] {
        let (db, sink) = pipeline(config().buffer_size(10).when_full(when_full).flush_size(5));
        sink.script([Step::Hang; 10]);
        for id in 0..10 {
            db.try_submit(&row(&plain(), id)).unwrap();
        }
        let ready = tokio::time::timeout(Duration::from_secs(1), db.ready()).await;
        assert_eq!(ready.is_ok(), when_full == WhenFull::DropOldest);
        let closing = db.clone();
        let closed = tokio::spawn(async move { closing.close(HOUR).await });
        settle().await;
        assert!(db.ready().await.unwrap_err().is_closed());
        sink.release(10);
        assert_eq!(closed.await.unwrap().balance.written(), 10);
    }
}
