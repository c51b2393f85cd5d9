//! The pipeline as a `futures::Sink`.
#![cfg(feature = "sink")]

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use batchsql_core::{DynRow, RowSink, RowSinkError, WhenFull};
use batchsql_testkit::Step;
use futures_sink::Sink;

use crate::support::{HOUR, config, ids, pipeline, plain, row, settle};

async fn send(sink: &mut RowSink<DynRow>, row: DynRow) -> Result<(), RowSinkError> {
    poll_fn(|cx| Pin::new(&mut *sink).poll_ready(cx)).await?;
    Pin::new(sink).start_send(row)
}

async fn flush(sink: &mut RowSink<DynRow>) -> Result<(), RowSinkError> {
    poll_fn(|cx| Pin::new(&mut *sink).poll_flush(cx)).await
}

async fn close(sink: &mut RowSink<DynRow>) -> Result<(), RowSinkError> {
    poll_fn(|cx| Pin::new(&mut *sink).poll_close(cx)).await
}

#[tokio::test(start_paused = true)]
async fn rows_wait_for_capacity_and_keep_their_order() {
    let (db, sink) = pipeline(config().buffer_size(20).max_concurrency(1));
    sink.script([Step::Hang, Step::Hang]);
    let mut rows = db.row_sink();
    for id in 0..20 {
        send(&mut rows, row(&plain(), id)).await.unwrap();
    }
    // It is taken, and waits for capacity.
    send(&mut rows, row(&plain(), 20)).await.unwrap();
    assert_eq!(db.balance().accepted, 20);
    for _ in 0..3 {
        // A wait that is cancelled loses nothing.
        let next = tokio::time::timeout(Duration::from_secs(1), flush(&mut rows)).await;
        assert!(next.is_err(), "the row is not accepted yet");
    }
    sink.release(1);
    send(&mut rows, row(&plain(), 21)).await.unwrap();
    sink.release(1);
    close(&mut rows).await.unwrap();
    assert_eq!(ids(&sink.applied()), (0..22).collect::<Vec<_>>());
    assert_eq!(db.balance().in_flight(), 0);
    // The pipeline is open, and the sink can be used again.
    send(&mut rows, row(&plain(), 22)).await.unwrap();
    close(&mut rows).await.unwrap();
    assert_eq!(db.balance().written(), 23);
}

/// `forward` flushes whenever its stream has no item.
#[tokio::test(start_paused = true)]
async fn a_flush_writes_no_small_batches() {
    let (db, sink) = pipeline(config());
    let mut rows = db.row_sink();
    for id in 0..9 {
        send(&mut rows, row(&plain(), id)).await.unwrap();
        flush(&mut rows).await.unwrap();
    }
    settle().await;
    assert_eq!((sink.writes(), db.balance().accepted), (0, 9));
}

#[tokio::test(start_paused = true)]
async fn errors_are_those_of_submit_and_the_sink_goes_on() {
    let (db, sink) = pipeline(config().buffer_size(10).when_full(WhenFull::Reject));
    sink.script([Step::Hang]);
    let mut rows = db.row_sink();
    let huge = plain().row().set("id", 7_i64).unwrap().set("note", "x".repeat(64 << 20)).unwrap().finish().unwrap();
    let error = send(&mut rows, huge).await.unwrap_err();
    assert!(error.submit_error().unwrap().row_error().unwrap().is_too_large());
    for id in 0..10 {
        send(&mut rows, row(&plain(), id)).await.unwrap();
    }
    send(&mut rows, row(&plain(), 10)).await.unwrap();
    assert!(flush(&mut rows).await.unwrap_err().submit_error().unwrap().is_full());
    sink.release(1);
    close(&mut rows).await.unwrap();
    assert_eq!(db.close(HOUR).await.balance.written(), 10);
    assert!(send(&mut rows, row(&plain(), 11)).await.unwrap_err().submit_error().unwrap().is_closed());
}

/// A stream that is always ready must not keep the tasks that write from running.
#[tokio::test(start_paused = true)]
async fn a_sink_that_is_always_ready_lets_other_tasks_run() {
    let (db, sink) = pipeline(config().buffer_size(100_000));
    let mut rows = db.row_sink();
    for id in 0..2000 {
        send(&mut rows, row(&plain(), id)).await.unwrap();
    }
    assert!(sink.writes() > 0, "nothing was written meanwhile");
}
