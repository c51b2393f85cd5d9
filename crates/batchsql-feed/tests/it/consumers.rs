//! Rejected rows and the dead-letter consumers of the pipeline.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use batchsql_core::{DeadLetters, DynRow, ErrorClass, OutcomeKind, ValueRef};
use batchsql_feed::FeedOptions;

use crate::source::{Fed, Memory};

fn exactly(options: FeedOptions) -> FeedOptions {
    options.exactly_once("test")
}

fn id(row: &DynRow) -> i64 {
    match row.get("id") {
        Some(ValueRef::I64(id)) => id,
        other => panic!("{other:?}"),
    }
}

/// The rows that the callback of the pipeline got, of these rows of which some are refused.
async fn called_back(
    options: impl FnOnce(FeedOptions) -> FeedOptions,
    class: ErrorClass,
    rows: Range<i64>,
    bad: Range<i64>,
) -> Vec<i64> {
    let got: Arc<Mutex<Vec<i64>>> = Arc::default();
    let seen = Arc::clone(&got);
    let fed = Fed::with(options, |builder| {
        builder.on_failed_row(move |outcome| {
            assert_eq!(outcome.kind(), OutcomeKind::Rejected);
            seen.lock().unwrap().push(id(outcome.failure().expect("it has its row").row()));
        })
    });
    fed.sink.poison_as(class, move |row| bad.contains(&id(row)));
    let source = Memory::default();
    let count = rows.end - rows.start;
    source.block(1, rows);
    let state = fed.start(0, 0, &source);
    fed.until("all has ended", || state.settled() == count as u64).await;
    assert_eq!(fed.letters().lines().count(), got.lock().unwrap().len(), "each is in the file too");
    fed.end().await;
    let called = got.lock().unwrap();
    called.clone()
}

#[tokio::test(start_paused = true)]
async fn rejected_rows_reach_the_callback_of_the_pipeline() {
    let at_least_once = called_back(|options| options, ErrorClass::Row, 0..4, 1..2).await;
    assert_eq!(at_least_once, [1], "at least once");
    // Found in halves, because a row behind it is accepted.
    assert_eq!(called_back(exactly, ErrorClass::Schema, 0..8, 3..4).await, [3], "found by the search");
    // No row is there to compare it with: its code says that the row is at fault.
    assert_eq!(called_back(exactly, ErrorClass::Row, 7..8, 7..8).await, [7], "rejected alone");
    assert_eq!(called_back(exactly, ErrorClass::Row, 0..3, 1..3).await, [1, 2], "the last ones");
}

/// A consumer that does not read bounds how many rows are rejected, as it bounds a batch.
#[tokio::test(start_paused = true)]
async fn rejected_rows_of_a_step_count_in_the_buffer_until_they_are_received() {
    let (letters, mut failed) = DeadLetters::channel();
    let fed = Fed::with(exactly, |builder| {
        let config = builder.settings().buffer_size(2).flush_size(1);
        builder.config(config).dead_letters(letters)
    });
    fed.sink.poison_as(ErrorClass::Row, |row| id(row) < 3);
    let source = Memory::default();
    source.block(1, 0..4);
    let state = fed.start(0, 0, &source);
    let row = |letter: &batchsql_core::DeadLetter| id(letter.failed_row().row());
    let (first, second) = (failed.recv().await.unwrap(), failed.recv().await.unwrap());
    assert_eq!((row(&first), row(&second)), (0, 1));
    // The clock stands still while anything is going on.
    let third = tokio::time::timeout(Duration::from_secs(600), failed.recv()).await;
    assert!(third.is_err() && state.settled() < 4, "two rows fill the buffer: {third:?}");
    drop(first);
    assert_eq!(row(&failed.recv().await.unwrap()), 2);
    drop(second);
    fed.until("all has ended", || state.settled() == 4).await;
    assert_eq!(fed.pipeline.balance().in_flight(), 0);
    fed.end().await;
    assert!(failed.recv().await.is_none());
}

/// A consumer that never reads does not keep the pipeline from closing.
#[tokio::test(start_paused = true)]
async fn a_consumer_that_does_not_read_does_not_hold_up_the_end() {
    let (letters, mut failed) = DeadLetters::channel();
    let fed = Fed::with(exactly, |builder| {
        let config = builder.settings().buffer_size(1).flush_size(1);
        builder.config(config).dead_letters(letters)
    });
    fed.sink.poison_as(ErrorClass::Row, |row| id(row) < 3);
    let source = Memory::default();
    source.block(1, 0..4);
    fed.start(0, 0, &source);
    let first = failed.recv().await.unwrap();
    fed.end().await;
    assert_eq!(id(first.failed_row().row()), 0);
}
