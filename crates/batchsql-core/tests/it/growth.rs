//! Batches that grow while they wait, and the limits of their growth.

use std::time::Duration;

use batchsql_core::{BatchSql, BeyondBudget, Conflict, ErrorClass, Isolation, OutcomeKind, PipelineConfig, WhenFull};
use batchsql_testkit::{ScriptedSink, Step};

use crate::support::{FAR, HOUR, config, ids, plain, receipts, row, settle, table};

fn growing(config: PipelineConfig) -> (BatchSql, ScriptedSink) {
    let sink = ScriptedSink::new();
    sink.grow_batches();
    (BatchSql::builder(sink.clone()).config(config).start().unwrap(), sink)
}

fn sizes(sink: &ScriptedSink) -> Vec<usize> {
    sink.batches().iter().map(Vec::len).collect()
}

#[tokio::test(start_paused = true)]
async fn a_batch_grows_while_it_waits_for_a_permit() {
    let (db, sink) = growing(config().buffer_size(1000).max_concurrency(1));
    // This makes the limit of the table known.
    receipts(&db, &plain(), 0..10).await.pop().unwrap().await;
    sink.script([Step::Hang]);
    let first = receipts(&db, &plain(), 10..20).await;
    settle().await;
    let more = receipts(&db, &plain(), 20..75).await;
    settle().await;
    sink.release(1);
    for receipt in first.into_iter().chain(more) {
        assert!(receipt.await.is_written());
    }
    assert_eq!(sizes(&sink), [10, 10, 55], "the waiting rows are one batch, with the rows that were not ready");
    assert_eq!(ids(&sink.applied()), (0..75).collect::<Vec<i64>>(), "in the order of submission");
}

#[tokio::test(start_paused = true)]
async fn no_batch_is_larger_than_max_batch_rows_or_flush_bytes() {
    let check = async |change: fn(&mut PipelineConfig), most: usize| {
        let mut config = config().buffer_size(1000).max_concurrency(1);
        change(&mut config);
        let (db, sink) = growing(config);
        receipts(&db, &plain(), 0..10).await.pop().unwrap().await;
        sink.script([Step::Hang]);
        let all = receipts(&db, &plain(), 10..300).await;
        settle().await;
        sink.release(1);
        for receipt in all {
            assert!(receipt.await.is_written());
        }
        let largest = sizes(&sink).into_iter().max().unwrap();
        assert!(largest <= most && largest > most / 2, "{largest} rows, at most {most}");
    };
    check(|_| {}, 290).await;
    check(|c| c.max_batch_rows = Some(40), 40).await;
    check(|c| c.max_batch_rows = Some(10), 10).await;
    // A row takes 14 bytes: 8, a flag, 4 and a letter.
    check(|c| c.flush_bytes = 50 * 14, 50).await;
    // All batches in flight have half of the bytes at most.
    check(|c| (c.buffer_bytes, c.flush_bytes) = (100_000, 100_000), 290).await;
    // Batches that are being written cannot be dropped: a quarter of the buffer.
    check(|c| (c.when_full, c.buffer_size) = (WhenFull::DropOldest, 400), 100).await;
    check(|c| c.isolation = Isolation::AtomicBatch, 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_wants_small_batches_gets_few_of_rows_with_equal_keys() {
    let sink = ScriptedSink::new();
    let config = config().buffer_size(1000).max_concurrency(1);
    let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
    let schema = table("t", Conflict::update(["id"]));
    let submit = async |rows: i64, keys: i64| {
        let mut all = Vec::new();
        for n in 0..rows {
            all.push(db.submit_tracked(&row(&schema, n % keys)).await.unwrap());
        }
        settle().await;
        all
    };
    // Ten rows of two keys are sent as two.
    let mut all = submit(10, 2).await;
    sink.script([Step::Hang]);
    all.extend(submit(10, 2).await);
    // 50 rows are taken, because they were five times as many as were sent; then the other 70.
    all.extend(submit(120, 2).await);
    sink.release(1);
    let mut kinds = Vec::new();
    for receipt in all {
        kinds.push(receipt.await.kind());
    }
    assert_eq!(sizes(&sink), [2; 4]);
    for end in [10, 20, 70, 140] {
        assert_eq!(kinds[end - 3..end], [OutcomeKind::Superseded, OutcomeKind::Written, OutcomeKind::Written]);
    }
    assert_eq!(kinds.iter().filter(|kind| **kind == OutcomeKind::Superseded).count(), 132);
    // Different keys again: no statement is larger than flush_size.
    sink.script([Step::Hang]);
    let mut all = submit(10, 10).await;
    all.extend(submit(200, 200).await);
    sink.release(1);
    for receipt in all {
        assert!(receipt.await.failure().is_none());
    }
    let sizes = &sizes(&sink)[4..];
    assert!(sizes.iter().all(|rows| *rows <= 10) && sizes.iter().sum::<usize>() >= 200, "{sizes:?}");
}

#[tokio::test(start_paused = true)]
async fn permits_that_are_free_share_what_waits() {
    let (db, sink) = growing(config().buffer_size(1000).max_concurrency(4));
    receipts(&db, &plain(), 0..10).await.pop().unwrap().await;
    sink.script([Step::Hang; 4]);
    // Accepted without a pause: the dispatcher sees all of them at once.
    let all = receipts(&db, &plain(), 10..410).await;
    settle().await;
    sink.release(4);
    for receipt in all {
        assert!(receipt.await.is_written());
    }
    let grown = sizes(&sink);
    // Four permits are free when the dispatcher runs: each takes its part.
    let (least, most) = (grown[1..5].iter().min().unwrap(), grown[1..5].iter().max().unwrap());
    assert!(*least > 10 && most - least <= 10, "{grown:?}");
}

#[tokio::test(start_paused = true)]
async fn writes_that_end_one_after_another_share_what_waits() {
    let (db, sink) = growing(config().buffer_size(1000).max_concurrency(4));
    receipts(&db, &plain(), 0..10).await.pop().unwrap().await;
    sink.script([Step::Hang; 8]);
    // Four small batches take the four permits, then rows wait.
    let mut all = Vec::new();
    for start in [10, 20, 30, 40] {
        all.extend(receipts(&db, &plain(), start..start + 10).await);
        settle().await;
    }
    all.extend(receipts(&db, &plain(), 50..450).await);
    settle().await;
    for _ in 0..8 {
        sink.release(1);
        settle().await;
    }
    for receipt in all {
        assert!(receipt.await.is_written());
    }
    // The first of them must not take all: each permit takes about a quarter of 400.
    let grown = &sizes(&sink)[5..];
    assert!(grown.len() >= 4 && grown[..4].iter().all(|rows| (80..=120).contains(rows)), "{:?}", sizes(&sink));
}

#[tokio::test(start_paused = true)]
async fn a_table_that_waits_keeps_the_batches_of_others_small() {
    let (db, sink) = growing(config().buffer_size(1000).max_concurrency(1));
    let (a, b) = (table("a", Conflict::none()), table("b", Conflict::none()));
    receipts(&db, &a, 0..10).await.pop().unwrap().await;
    receipts(&db, &b, 0..10).await.pop().unwrap().await;
    sink.script([Step::Hang]);
    receipts(&db, &a, 10..20).await;
    settle().await;
    let mut all = receipts(&db, &a, 20..120).await;
    all.extend(receipts(&db, &b, 10..110).await);
    settle().await;
    sink.release(1);
    for receipt in all {
        assert!(receipt.await.is_written());
    }
    // While both wait, they take turns with batches of flush_size; the last one to wait may grow.
    assert!(sizes(&sink)[3..15].iter().all(|rows| *rows <= 10), "{:?}", sizes(&sink));
}

#[tokio::test(start_paused = true)]
async fn merged_batches_tell_every_receipt_its_own_outcome() {
    let (db, sink) = growing(config().buffer_size(1000).max_concurrency(1));
    receipts(&db, &plain(), 0..10).await.pop().unwrap().await;
    sink.script([Step::Hang]);
    receipts(&db, &plain(), 10..20).await;
    settle().await;
    sink.poison(|row| crate::support::id(row) % 13 == 0);
    let all = receipts(&db, &plain(), 20..95).await;
    // Some are not tracked.
    for id in 95..100 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    let more = receipts(&db, &plain(), 100..120).await;
    settle().await;
    sink.release(1);
    for (id, receipt) in (20..95).chain(100..120).zip(all.into_iter().chain(more)) {
        let outcome = receipt.await;
        let expected = if id % 13 == 0 { OutcomeKind::Rejected } else { OutcomeKind::Written };
        assert_eq!(outcome.kind(), expected, "row {id}");
        if let Some(failed) = outcome.failure() {
            assert_eq!(crate::support::id(failed.row()), id);
        }
    }
    let balance = db.flush().await.unwrap();
    assert_eq!(
        (balance.accepted, balance.in_flight(), balance.rejected()),
        (120, 0, 9),
        "13 is in the batch that was being written"
    );
}

#[tokio::test(start_paused = true)]
async fn a_large_batch_with_two_percent_bad_rows_rejects_no_good_one() {
    let config = config().buffer_size(20_000).flush_size(500).max_concurrency(1);
    let (db, sink) = growing(config.retry_for(HOUR));
    receipts(&db, &plain(), 0..500).await.pop().unwrap().await;
    sink.script([Step::Hang]);
    receipts(&db, &plain(), 500..1000).await;
    settle().await;
    sink.poison(|row| crate::support::id(row) % 50 == 49 && crate::support::id(row) > 1000);
    let all = receipts(&db, &plain(), 1000..6000).await;
    settle().await;
    sink.release(1);
    for (id, receipt) in (1000..6000).zip(all) {
        assert_eq!(receipt.await.is_written(), id % 50 != 49, "row {id}");
    }
    assert!(sizes(&sink).len() > 3, "one batch of 5,000 was searched");
}

#[tokio::test(start_paused = true)]
async fn beyond_its_budget_a_batch_waits_and_goes_on_later() {
    let isolation = Isolation::Bisect { max_statements: 6, beyond: BeyondBudget::default() };
    let (db, sink) = growing(config().isolation(isolation).park_for(HOUR));
    sink.poison(|row| crate::support::id(row) % 3 == 0);
    for (id, receipt) in (0..10).zip(receipts(&db, &plain(), 0..10).await) {
        assert_eq!(receipt.await.is_written(), id % 3 != 0, "row {id}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_took_too_long_comes_back_in_halves() {
    // Each row takes 15 ms, as with a slow trigger: a batch of 1,000 does not end within the timeout.
    let sink = PerRow::default();
    let config = config()
        .buffer_size(10_000)
        .flush_size(50)
        .max_concurrency(1)
        .statement_timeout(Duration::from_secs(6))
        .retry_for(HOUR);
    let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
    let schema = table("t", Conflict::update(["id"]));
    let mut all = Vec::new();
    for id in 0..4000 {
        all.push(db.submit_tracked(&row(&schema, id * FAR)).await.unwrap());
    }
    let _ = db.flush().await.unwrap();
    for receipt in all {
        assert!(receipt.await.is_written());
    }
    let sizes = sink.0.lock().unwrap().clone();
    // The first batch is small, and shows how long a row takes: a quarter of the timeout are 100 rows.
    assert!(sizes[0] <= 50 && sizes.iter().all(|rows| *rows <= 100), "{sizes:?}");
    // The server becomes slower: what times out is halved, and so is what comes after it.
    *sink.1.lock().unwrap() = Duration::from_millis(100);
    sink.0.lock().unwrap().clear();
    let mut all = Vec::new();
    for id in 0..400 {
        all.push(db.submit_tracked(&row(&schema, id * FAR)).await.unwrap());
    }
    let _ = db.flush().await.unwrap();
    for receipt in all {
        assert!(receipt.await.is_written());
    }
    let sizes = sink.0.lock().unwrap().clone();
    assert!(sizes.iter().filter(|rows| **rows > 60).count() <= 1, "{sizes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_table_too_slow_for_flush_size_gets_smaller_batches() {
    // 500 rows take 7.5 s, 333 the whole timeout: a quarter of it are 83.
    let sink = PerRow::default();
    let config = config()
        .buffer_size(10_000)
        .flush_size(500)
        .max_concurrency(1)
        .statement_timeout(Duration::from_secs(5))
        .retry_for(HOUR);
    let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
    let schema = table("t", Conflict::update(["id"]));
    for id in 0..5000 {
        db.submit(&row(&schema, id * FAR)).await.unwrap();
    }
    assert_eq!(db.flush().await.unwrap().written(), 5000);
    let sizes = sink.0.lock().unwrap().clone();
    let timeouts = sizes.iter().filter(|rows| **rows > 333).count();
    assert!(timeouts <= 2, "{timeouts} of {} writes took too long: {sizes:?}", sizes.len());
}

#[tokio::test(start_paused = true)]
async fn closing_rejects_no_good_row_because_many_are_bad() {
    let isolation = Isolation::Bisect { max_statements: 4, beyond: BeyondBudget::Park };
    let (db, sink) = growing(config().isolation(isolation).flush_size(40));
    sink.poison(|row| crate::support::id(row) % 3 == 0);
    let all = receipts(&db, &plain(), 0..40).await;
    let report = db.close(HOUR).await;
    for (id, receipt) in (0..40).zip(all) {
        assert_eq!(receipt.await.is_written(), id % 3 != 0, "row {id}");
    }
    assert_eq!(report.balance.in_flight(), 0);
}

/// Takes a fixed time per row, and records the sizes of its writes.
#[derive(Clone)]
struct PerRow(std::sync::Arc<std::sync::Mutex<Vec<usize>>>, std::sync::Arc<std::sync::Mutex<Duration>>);

impl Default for PerRow {
    fn default() -> Self {
        Self(Default::default(), std::sync::Arc::new(std::sync::Mutex::new(Duration::from_millis(15))))
    }
}

impl batchsql_core::Sink for PerRow {
    type Conn = ();
    type Plan = ();

    fn name(&self) -> &'static str {
        "per row"
    }

    fn late_write_limit(&self) -> Option<Duration> {
        Some(Duration::ZERO)
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
        rows: batchsql_core::Rows<'_>,
        _: &batchsql_core::Attempt,
    ) -> Result<batchsql_core::Written, batchsql_core::SinkError> {
        self.0.lock().unwrap().push(rows.len());
        let per_row = *self.1.lock().unwrap();
        tokio::time::sleep(per_row * u32::try_from(rows.len()).unwrap()).await;
        Ok(batchsql_core::Written::default())
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_are_ready_count_in_the_fair_share() {
    // One table fills its lanes with batches that are ready while the database is unreachable.
    let (db, sink) = growing(config().buffer_size(1000).retry_for(HOUR));
    let (stuck, fast) = (table("stuck", Conflict::update(["id"])), table("fast", Conflict::none()));
    db.submit(&row(&fast, 0)).await.unwrap();
    sink.break_table("stuck", ErrorClass::Transient);
    let flood = tokio::spawn({
        let db = db.clone();
        async move {
            for id in 0..2000 {
                let _ = db.submit(&row(&stuck, id * FAR)).await;
            }
        }
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    for id in 1..300 {
        db.submit_timeout(&row(&fast, id), Duration::from_secs(1)).await.unwrap();
    }
    assert!(!flood.is_finished());
}
