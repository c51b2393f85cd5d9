//! How a pipeline ends.

use std::time::Duration;

use batchsql_core::{BatchSql, DynSink, ErrorClass, Isolation, OutcomeKind, PipelineConfig};
use batchsql_testkit::{NullSink, ScriptedSink, Step};
use tokio::time::Instant;

use crate::support::{HOUR, Recorder, config, ids, pipeline, plain, row, settle};

#[tokio::test(start_paused = true)]
async fn close_writes_everything_that_was_accepted() {
    let (db, sink) = pipeline(config());
    sink.script([Step::Delay(Duration::from_secs(2)), Step::Fail(ErrorClass::Transient)]);
    for id in 0..33 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    let report = db.close(Duration::from_secs(60)).await;
    assert!(report.is_complete());
    assert_eq!((report.balance.accepted, report.balance.written()), (33, 33));
    let mut written = ids(&sink.applied());
    written.sort_unstable();
    assert_eq!(written, (0..33).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn after_close_rows_are_refused_and_the_report_stays_the_same() {
    let (db, sink) = pipeline(config());
    db.submit(&row(&plain(), 1)).await.unwrap();
    let clone = db.clone();
    let (first, second) = tokio::join!(db.close(HOUR), clone.close(HOUR));
    assert_eq!(first.balance, second.balance);
    assert!(db.submit(&row(&plain(), 2)).await.unwrap_err().is_closed());
    assert!(db.try_submit(&row(&plain(), 2)).unwrap_err().is_closed());
    assert!(db.submit_tracked(&row(&plain(), 2)).await.unwrap_err().is_closed());
    assert!(clone.submit_all([row(&plain(), 2)]).await.unwrap_err().submit_error().is_closed());
    assert_eq!(db.flush().await.unwrap().written(), 1);
    assert_eq!(db.close(Duration::ZERO).await.balance.written(), 1);
    assert_eq!(sink.applied().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn close_wakes_submitters_that_wait_for_room() {
    let (db, sink) = pipeline(config().buffer_size(10));
    sink.script([Step::Delay(Duration::from_secs(1))]);
    for id in 0..10 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    let waiting = tokio::spawn({
        let db = db.clone();
        async move { db.submit(&row(&plain(), 10)).await }
    });
    settle().await;
    let report = db.close(HOUR).await;
    assert!(waiting.await.unwrap().unwrap_err().is_closed());
    assert_eq!((report.balance.accepted, report.balance.written()), (10, 10));
}

#[tokio::test(start_paused = true)]
async fn past_the_deadline_rows_are_reported_and_never_guessed() {
    let (db, sink) = pipeline(config().max_concurrency(1).statement_timeout(HOUR));
    sink.script([Step::Apply, Step::Hang]);
    let mut receipts = Vec::new();
    for id in 0..35 {
        receipts.push(db.submit_tracked(&row(&plain(), id)).await.unwrap());
    }
    let begin = Instant::now();
    let report = db.close(Duration::from_secs(3)).await;
    assert_eq!(begin.elapsed(), Duration::from_secs(3));
    let balance = report.balance;
    assert_eq!((balance.accepted, balance.written(), balance.in_flight()), (35, 10, 0));
    assert_eq!(balance.outcomes.get(OutcomeKind::Unknown), 10, "the batch that was being written");
    assert_eq!(balance.outcomes.get(OutcomeKind::Purged), 15, "the batches that were never sent");
    assert!(!report.is_complete());
    let mut unwritten: Vec<i64> =
        report.unwritten.iter().map(|outcome| crate::support::id(outcome.failure().unwrap().row())).collect();
    unwritten.sort_unstable();
    assert_eq!(unwritten, (10..35).collect::<Vec<_>>());
    for outcome in &report.unwritten {
        let error = outcome.failure().unwrap().error().expect("every failure has its reason").to_string();
        assert!(error.contains("the time for the end (close, drain_for) was over"), "{error}");
    }
    assert_eq!(report.unwritten.iter().filter(|outcome| outcome.kind() == OutcomeKind::Unknown).count(), 10);
    for receipt in receipts {
        receipt.await;
    }
}

/// As after a second signal.
#[tokio::test(start_paused = true)]
async fn the_earliest_deadline_of_all_calls_holds() {
    let (db, sink) = pipeline(config().max_concurrency(1).statement_timeout(HOUR));
    sink.script([Step::Hang]);
    for id in 0..35 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    let begin = Instant::now();
    // It is cancelled, and its deadline is still that of the pipeline.
    assert!(tokio::time::timeout(Duration::from_secs(1), db.close(HOUR)).await.is_err());
    let (long, short) = tokio::join!(db.close(HOUR * 2), db.close(Duration::from_secs(2)));
    assert_eq!(begin.elapsed(), Duration::from_secs(3), "a second after the first call, and two more");
    let balance = &short.balance;
    assert!(balance.unknown() > 0 && balance.purged() > 0, "{balance}");
    assert_eq!((balance.accepted, balance.unknown() + balance.purged(), balance.in_flight()), (35, 35, 0));
    assert_eq!(short.unwritten.len(), 35);
    assert_eq!(long.balance, short.balance);
}

#[tokio::test(start_paused = true)]
async fn a_later_deadline_does_not_extend_an_earlier_one() {
    let (db, sink) = pipeline(config().statement_timeout(HOUR));
    sink.script([Step::Hang]);
    db.submit(&row(&plain(), 1)).await.unwrap();
    let begin = Instant::now();
    let (first, second) = tokio::join!(db.close(Duration::from_secs(3)), db.close(HOUR));
    assert_eq!((begin.elapsed(), first.balance.unknown(), second.balance.unknown()), (Duration::from_secs(3), 1, 1));
}

#[tokio::test(start_paused = true)]
async fn close_cuts_backoff_short() {
    let (db, sink) = pipeline(config().retry_for(HOUR));
    sink.script([Step::Fail(ErrorClass::Resource); 12]);
    for id in 0..10 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    // Now the delays are seconds long.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let begin = Instant::now();
    let report = db.close(HOUR).await;
    assert!(report.is_complete());
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_close_goes_on() {
    let (db, sink) = pipeline(config());
    sink.script([Step::Delay(Duration::from_secs(5))]);
    db.submit(&row(&plain(), 1)).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(1), db.close(HOUR)).await.is_err());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(sink.applied().len(), 1);
    assert_eq!(db.close(HOUR).await.balance.written(), 1);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_drains_in_the_background() {
    let (db, sink) = pipeline(config());
    for id in 0..15 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    let receipt = db.submit_tracked(&row(&plain(), 15)).await.unwrap();
    drop(db.clone());
    drop(db);
    assert!(receipt.await.is_written());
    settle().await;
    assert_eq!(sink.applied().len(), 16);
}

#[tokio::test(start_paused = true)]
async fn the_last_gauges_are_those_of_an_empty_pipeline() {
    let recorder = Recorder::default();
    let db =
        BatchSql::builder(ScriptedSink::new()).config(config()).metrics_reporter(recorder.clone()).start().unwrap();
    for id in 0..95 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    db.close(HOUR).await;
    let recorded = recorder.0.lock().unwrap();
    let gauges = recorded.gauges.unwrap();
    assert_eq!((gauges.buffer_rows, gauges.buffer_bytes, gauges.inflight_batches), (0, 0, 0));
    assert_eq!((gauges.buffer_rows_limit, gauges.concurrency_limit), (100, 8));
    assert!(gauges.oldest_row.is_none() && gauges.last_success.is_some());
    assert_eq!((recorded.received, recorded.resolved), (95, 95));
    assert!(recorded.executed.iter().all(|(_, ok)| *ok));
}

#[tokio::test(start_paused = true)]
async fn a_due_batch_survives_a_panic_before_it_is_taken() {
    let config = config().flush_interval(Duration::from_millis(10));
    let (db, sink) = pipeline(config);
    sink.script_acquire([Step::Panic]);
    let receipt = db.submit_tracked(&row(&plain(), 1)).await.unwrap();
    let outcome = tokio::time::timeout(Duration::from_secs(1), receipt).await;
    assert!(outcome.expect("the batch never ends").is_written());
}

/// A sink that reports more rows than it got.
struct Confused;

impl batchsql_core::Sink for Confused {
    type Conn = ();
    type Plan = ();

    fn name(&self) -> &'static str {
        "confused"
    }

    async fn acquire(&self) -> Result<(), batchsql_core::SinkError> {
        Ok(())
    }

    async fn prepare(&self, (): &mut (), _: &batchsql_core::Schema) -> Result<(), batchsql_core::SinkError> {
        Ok(())
    }

    async fn write(
        &self,
        (): &mut (),
        (): &(),
        _: batchsql_core::Rows<'_>,
        _: &batchsql_core::Attempt,
    ) -> Result<batchsql_core::Written, batchsql_core::SinkError> {
        let mut written = batchsql_core::Written::default();
        written.ignored = vec![0, 0, 7000];
        Ok(written)
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_tells_nonsense_cannot_break_the_books() {
    let db = BatchSql::builder(Confused).config(config()).start().unwrap();
    for id in 0..15 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    let balance = db.close(HOUR).await.balance;
    assert_eq!((balance.in_flight(), balance.outcomes.get(OutcomeKind::Unknown)), (0, 15));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_row_that_fills_its_batch_is_never_lost_to_a_close() {
    for round in 0..300 {
        let (db, sink) = pipeline(config().flush_size(1));
        let submitter = tokio::spawn({
            let db = db.clone();
            let schema = crate::support::table(&format!("t{round}"), batchsql_core::Conflict::none());
            async move { db.submit(&row(&schema, 1)).await.is_ok() }
        });
        let report = db.close(HOUR).await;
        let accepted = u64::from(submitter.await.unwrap());
        assert_eq!((report.balance.accepted, report.balance.written()), (accepted, accepted));
        assert_eq!(sink.applied().len() as u64, accepted);
    }
}

#[test]
fn start_outside_a_runtime_is_an_error() {
    let error = BatchSql::builder(NullSink).start().unwrap_err();
    assert!(error.to_string().contains("Tokio runtime"), "{error}");
}

#[tokio::test]
async fn start_refuses_a_configuration_that_cannot_work() {
    let config = PipelineConfig::default().flush_size(0);
    let error = BatchSql::builder(NullSink).config(config).start().unwrap_err();
    assert!(error.to_string().contains("flush_size is 0"), "{error}");
}

#[tokio::test]
async fn start_refuses_atomic_batches_where_the_sink_cannot_undo_them() {
    let sink = ScriptedSink::new();
    let start = |flush_size, isolation, sink: &ScriptedSink| {
        let config = PipelineConfig::default().flush_size(flush_size).isolation(isolation);
        // A sink that is chosen at run time gives the same error.
        let chosen = BatchSql::builder(DynSink::new(sink.clone())).config(config.clone()).start();
        let started = BatchSql::builder(sink.clone()).config(config).start();
        assert_eq!(started.as_ref().err(), chosen.as_ref().err());
        started.err().map(|error| error.to_string())
    };
    assert_eq!(start(500, Isolation::AtomicBatch, &sink), None);
    sink.never_undo();
    let error = start(500, Isolation::AtomicBatch, &sink).unwrap();
    assert!(error.contains("scripted cannot undo") && error.contains("Isolation::Bisect"), "{error}");
    assert_eq!(start(1, Isolation::AtomicBatch, &sink), None);
    assert_eq!(start(500, Isolation::default(), &sink), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_between_many_producers_and_close() {
    for round in 0..20 {
        let (db, sink) = pipeline(config().buffer_size(64).flush_size(8).flush_interval(Duration::from_millis(1)));
        let producers: Vec<_> = (0..8)
            .map(|producer| {
                let db = db.clone();
                tokio::spawn(async move {
                    let mut accepted = Vec::new();
                    for n in 0.. {
                        let id = producer * 1_000_000 + n;
                        match db.submit(&row(&plain(), id)).await {
                            Ok(()) => accepted.push(id),
                            Err(error) => {
                                assert!(error.is_closed(), "{error}");
                                break;
                            }
                        }
                    }
                    accepted
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(5 + round)).await;
        let report = db.close(HOUR).await;
        let mut written = ids(&sink.applied());
        let mut accepted = Vec::new();
        for producer in producers {
            accepted.extend(producer.await.unwrap());
        }
        written.sort_unstable();
        accepted.sort_unstable();
        assert_eq!(written, accepted);
        assert_eq!(report.balance.accepted, accepted.len() as u64);
        assert!(report.is_complete());
    }
}

#[test]
fn receipts_resolve_when_the_runtime_ends_before_the_pipeline() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (db, receipt) = runtime.block_on(async {
        let (db, _) = pipeline(config());
        let receipt = db.submit_tracked(&row(&plain(), 1)).await.unwrap();
        (db, receipt)
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    assert_eq!(receipt.try_outcome().expect("the receipt hangs").kind(), OutcomeKind::Purged);
    assert!(db.try_submit(&row(&plain(), 2)).unwrap_err().is_closed());
    assert_eq!((db.balance().accepted, db.balance().in_flight()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_panic_before_the_write_is_told_as_the_reason() {
    for (step_of, expected) in [("prepare", OutcomeKind::Purged), ("write", OutcomeKind::Unknown)] {
        let (db, sink) = pipeline(config());
        match step_of {
            "prepare" => sink.script_prepare([Step::Panic]),
            _ => sink.script([Step::Panic]),
        }
        let mut receipts = Vec::new();
        for id in 0..10 {
            receipts.push(db.submit_tracked(&row(&plain(), id)).await.unwrap());
        }
        for receipt in receipts {
            let outcome = receipt.await;
            assert_eq!(outcome.kind(), expected, "{step_of}");
            assert!(outcome.failure().unwrap().error().unwrap().to_string().contains("panicked"), "{step_of}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_connecting_costs_no_row() {
    let (db, sink) = pipeline(config());
    sink.script_acquire([Step::Panic; 3]);
    for receipt in crate::support::receipts(&db, &plain(), 0..10).await {
        assert!(receipt.await.is_written());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_of_close_holds_under_instant_failures() {
    let config = config().flush_size(1).buffer_size(20_000).retry_for(HOUR);
    let (db, sink) = pipeline(config);
    sink.break_table("t", batchsql_core::ErrorClass::Transient);
    for id in 0..20_000 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    let begin = std::time::Instant::now();
    let report = db.close(Duration::from_millis(300)).await;
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert_eq!(report.balance.purged(), 20_000);
}

#[tokio::test(start_paused = true)]
async fn rows_that_were_not_sent_have_no_reason_of_rows_that_were() {
    let (db, sink) = pipeline(config());
    // Split in two; the first half hangs until the deadline.
    sink.script([Step::Fail(batchsql_core::ErrorClass::Size), Step::Hang]);
    let mut receipts = Vec::new();
    for id in 0..10 {
        receipts.push(db.submit_tracked(&row(&plain(), id)).await.unwrap());
    }
    settle().await;
    let balance = db.close(Duration::from_secs(1)).await.balance;
    assert_eq!((balance.unknown(), balance.purged()), (5, 5));
    for receipt in receipts {
        let outcome = receipt.await;
        let error = outcome.failure().unwrap().error().unwrap().to_string();
        let expected = if outcome.kind() == OutcomeKind::Purged { "before it was sent" } else { "after it was sent" };
        assert!(error.contains(expected), "{outcome}");
    }
}

#[test]
fn a_runtime_without_a_timer_is_an_error_of_start() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let error = runtime.block_on(async { BatchSql::builder(ScriptedSink::new()).start().unwrap_err() });
    assert!(error.to_string().contains("enable_time()"), "{error}");
}

#[test]
fn a_caller_outside_of_any_runtime_may_wait_for_a_limited_time() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (db, sink) = {
        let _guard = runtime.enter();
        pipeline(config().buffer_size(10))
    };
    sink.script([Step::Hang]);
    let outside = block_on_this_thread(async {
        for id in 0..10 {
            db.submit(&row(&plain(), id)).await.unwrap();
        }
        db.submit_timeout(&row(&plain(), 10), Duration::from_millis(20)).await
    });
    assert!(outside.unwrap_err().is_full());
}

/// Runs a future on this thread, without a runtime.
fn block_on_this_thread<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_panics_when_asked_for_its_pool_costs_no_row() {
    let db = BatchSql::builder(NoPool).config(config()).start().unwrap();
    for round in 0..3 {
        for receipt in crate::support::receipts(&db, &plain(), round * 10..round * 10 + 10).await {
            assert!(receipt.await.is_written());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(db.close(HOUR).await.is_complete());
}

struct NoPool;

impl batchsql_core::Sink for NoPool {
    type Conn = ();
    type Plan = ();

    fn name(&self) -> &'static str {
        "no pool"
    }

    fn pool(&self) -> Option<batchsql_core::PoolState> {
        panic!("there is no pool to ask");
    }

    async fn acquire(&self) -> Result<(), batchsql_core::SinkError> {
        Ok(())
    }

    async fn prepare(&self, (): &mut (), _: &batchsql_core::Schema) -> Result<(), batchsql_core::SinkError> {
        Ok(())
    }

    async fn write(
        &self,
        (): &mut (),
        (): &(),
        _: batchsql_core::Rows<'_>,
        _: &batchsql_core::Attempt,
    ) -> Result<batchsql_core::Written, batchsql_core::SinkError> {
        Ok(batchsql_core::Written::default())
    }
}

#[tokio::test(start_paused = true)]
async fn a_signal_closes_the_pipeline_and_only_the_signal() {
    let (db, sink) = pipeline(config());
    db.submit(&row(&plain(), 1)).await.unwrap();
    let cancelled = tokio::time::timeout(Duration::from_secs(1), db.close_on(std::future::pending::<()>(), HOUR));
    assert!(cancelled.await.is_err());
    db.submit(&row(&plain(), 2)).await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let closing = tokio::spawn({
        let db = db.clone();
        async move { db.close_on(stopped, HOUR).await }
    });
    settle().await;
    assert!(!closing.is_finished());
    stop.send(()).unwrap();
    assert_eq!(closing.await.unwrap().balance.written(), 2);
    assert_eq!(sink.applied().len(), 2);
    // It was closed by another call: there is no signal to wait for.
    let again = db.close_on(std::future::pending::<()>(), HOUR);
    assert_eq!(tokio::time::timeout(HOUR, again).await.unwrap().balance.written(), 2);
}
