//! What becomes of rows, with a sink that the test controls.

use std::time::Duration;

use batchsql_core::{
    BatchSql, Conflict, DatabaseState, Delivery, DynRow, ErrorClass, Expr, Ordering, OutcomeKind, Schema, TableConfig,
    ValueRef, WhenFull,
};
use batchsql_durable::{DurableExt, DurableOptions};
use batchsql_testkit::{ScriptedSink, Step};

use crate::support::{LONG, applied, config, in_table, keyed, numbers, options, plain, row, start, table, until};

#[tokio::test(flavor = "multi_thread")]
async fn stored_rows_are_written_and_settled() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    let db = start(&sink, options(dir.path())).await.unwrap();
    for id in 0..20 {
        db.submit(&row(&keyed(), id, 1)).await.unwrap();
        db.try_submit(&row(&plain(), id, 1)).await.unwrap();
    }
    let balance = db.flush().await.unwrap();
    assert_eq!((balance.written(), sink.applied().len()), (40, 40));
    assert_eq!(db.stats().log.unsettled_rows, 0);
    let report = db.close(LONG).await;
    assert!(report.is_drained() && report.log_error.is_none(), "{report:?}");
    assert!(report.to_string().starts_with("40 accepted, 40 written; closed in "), "{report}");
    assert!(db.submit(&row(&keyed(), 1, 1)).await.unwrap_err().is_closed());
    drop(db);

    let again = ScriptedSink::new();
    let db = start(&again, options(dir.path())).await.unwrap();
    assert!(db.recovered().is_clean && db.recovered().rows == 0, "{:?}", db.recovered());
    db.flush().await.unwrap();
    assert_eq!(again.applied().len(), 0, "what was settled is not written again");
}

/// One row keeps its batch from being written, and the intake is closed. Rows without a key that were written behind it, and those
/// that were rejected, do not come again.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_have_ended_behind_one_that_waits_are_left_out_after_a_close() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    let start = async || {
        let config = config().flush_size(5).max_batch_rows(5);
        let durable = BatchSql::builder(sink.clone()).config(config).durable(options(dir.path()).partitions(1));
        durable.start().await.unwrap()
    };
    // The second one is in the middle of another block, behind rows of it that are written.
    let waits = |row: &DynRow| [7, 150].contains(&numbers(row).1);
    sink.poison_as(ErrorClass::Transient, waits);
    let db = start().await;
    let rows = |ids: std::ops::Range<i64>| ids.map(|id| row(&plain(), 1, id)).collect::<Vec<_>>();
    db.submit_all(&rows(0..20)).await.unwrap();
    db.submit_all(&rows(100..200)).await.unwrap();
    until("all other batches are written", || db.stats().balance.written() >= 110).await;
    let left = db.close(Duration::ZERO).await.left_in_log;
    assert_eq!((left, left <= 10), (120 - sink.applied().len() as u64, true));
    drop(db);

    let before = sink.writes();
    let db = start().await;
    assert_eq!(db.recovered().rows, left);
    until("the row is tried again", || sink.writes() > before).await;
    assert_eq!(db.close(Duration::ZERO).await.left_in_log, 120 - sink.applied().len() as u64);
    drop(db);

    sink.poison_as(ErrorClass::Transient, |_| false);
    let db = start().await;
    db.flush().await.unwrap();
    assert_eq!((sink.applied().len(), db.stats().log.unsettled_rows), (120, 0));
    db.submit_all(&rows(300..303)).await.unwrap();
    db.flush().await.unwrap();
    let mut written: Vec<i64> = in_table(&sink, "plain").into_iter().map(|(_, version)| version).collect();
    written.sort_unstable();
    assert_eq!(written, (0..20).chain(100..200).chain(300..303).collect::<Vec<_>>());
    assert!(db.close(LONG).await.is_drained());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_wait_in_the_log_for_the_next_start() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    sink.script_acquire([Step::Fail(ErrorClass::Transient); 1000]);
    let db = start(&sink, options(dir.path())).await.unwrap();
    let rows: Vec<_> = (0..3000).map(|n| row(&keyed(), n % 100, n)).collect();
    assert_eq!(db.submit_all(&rows).await.unwrap(), 3000);
    until("the outage is noticed", || matches!(db.health().pipeline.database, DatabaseState::Unreachable { .. })).await;
    assert!(db.health().accepts_rows() && !db.health().is_ready());
    let report = db.close(Duration::ZERO).await;
    assert_eq!((report.left_in_log, report.is_drained()), (3000, false));
    assert!(report.to_string().contains(" + 3000 in the log; closed in "), "{report}");
    assert!(sink.applied().is_empty());
    drop(db);

    let sink = ScriptedSink::new();
    let db = start(&sink, options(dir.path())).await.unwrap();
    assert_eq!(db.recovered().rows, 3000);
    // Behind those of before, also of the same keys.
    db.submit(&row(&keyed(), 7, 9_999)).await.unwrap();
    db.flush().await.unwrap();
    let stored = in_table(&sink, "keyed");
    for (id, version) in stored.iter().copied() {
        assert_eq!(version, if id == 7 { 9_999 } else { 2_900 + id }, "the last version of {id}");
    }
    assert_eq!(stored.len(), 100);
    assert!(db.close(LONG).await.is_drained());
}

/// A reply is lost for a plain insert, which the pipeline itself never repeats; and for rows of a key, where later rows
/// must come last.
#[tokio::test(flavor = "multi_thread")]
async fn rows_with_an_unknown_outcome_are_written_again() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    sink.script([Step::LoseReply, Step::Fail(ErrorClass::Unknown)]);
    let db = start(&sink, options(dir.path())).await.unwrap();
    db.submit(&row(&plain(), 1, 1)).await.unwrap();
    db.flush().await.unwrap();
    assert_eq!(applied(&sink), [(1, 1), (1, 1)], "applied with a lost reply, then not applied, then applied");
    assert_eq!(db.stats().written_again, 2);
    assert_eq!(db.stats().balance.outcomes.get(OutcomeKind::Unknown), 2);
    assert!(db.close(LONG).await.is_drained());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transient_error_never_ends_a_row() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    sink.script([Step::Fail(ErrorClass::Transient); 3]);
    // The pipeline alone would give it up at once.
    let config = config().retry_for(Duration::ZERO).park_for(Duration::ZERO);
    let db = BatchSql::builder(sink.clone()).config(config).durable(options(dir.path())).start().await.unwrap();
    db.submit(&row(&keyed(), 1, 1)).await.unwrap();
    let balance = db.flush().await.unwrap();
    assert_eq!((balance.written(), balance.failed()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_row_is_in_the_dead_letters_before_it_is_settled() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    sink.poison(|row| row.get("id") == Some(ValueRef::I64(3)));
    let letters = dir.path().join("bad").join("rows.ndjson");
    assert!(start(&sink, options(dir.path()).dead_letters(&letters)).await.is_err(), "its folder is missing");
    std::fs::create_dir(dir.path().join("bad")).unwrap();
    let db = start(&sink, options(dir.path()).dead_letters(&letters)).await.unwrap();
    // While the file cannot be written, the partition waits.
    std::fs::remove_dir_all(dir.path().join("bad")).unwrap();
    for id in 0..10 {
        db.submit(&row(&keyed(), id, 1)).await.unwrap();
    }
    until("the other rows are written", || sink.applied().len() == 9).await;
    until("its outcome is known", || db.stats().balance.rejected() == 1).await;
    assert!(db.stats().log.unsettled_rows > 0 && db.stats().dead_letters == 0);
    std::fs::create_dir(dir.path().join("bad")).unwrap();
    db.flush().await.unwrap();
    assert_eq!((db.stats().log.unsettled_rows, db.stats().dead_letters), (0, 1));
    let lines = std::fs::read_to_string(&letters).unwrap();
    let line = lines.lines().find(|line| !line.is_empty()).unwrap();
    let letter: batchsql_core::DeadLetterLine = line.parse().unwrap();
    assert_eq!(numbers(&letter.row(&keyed()).unwrap()), (3, 1));
    assert!(line.contains("\"id\":\"") && line.contains(":\\\"keyed\\\":"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_repeated_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let add = || Conflict::update(["id"]).set("version", Expr::add());
    let refused = async |options: DurableOptions, config| {
        let builder = BatchSql::builder(ScriptedSink::new()).config(config).durable(options);
        builder.start().await.unwrap_err().to_string()
    };
    let message = refused(options(dir.path()), config().when_full(WhenFull::DropOldest)).await;
    assert!(message.contains("WhenFull::Wait"), "{message}");
    let message = refused(options(dir.path()), config().delivery(Delivery::NeverRepeat)).await;
    assert!(message.contains("AtMostOnce"), "{message}");
    let message = refused(options(dir.path()).schema(&table("t", add())), config()).await;
    assert!(message.contains("may_add_twice"), "{message}");
    let db = start(&ScriptedSink::new(), options(dir.path())).await.unwrap();
    let error = db.submit(&row(&table("t", add()), 1, 1)).await.unwrap_err();
    assert!(error.to_string().contains("may_add_twice"), "{error}");
    db.submit(&row(&table("t", add().may_add_twice()), 1, 1)).await.unwrap();
    let second = start(&ScriptedSink::new(), options(dir.path())).await.unwrap_err();
    assert!(second.is_locked(), "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_submitters_share_blocks() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    let db = start(&sink, options(dir.path())).await.unwrap();
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let db = db.clone();
            tokio::spawn(async move {
                for n in 0..50 {
                    db.submit(&row(&plain(), task, n)).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let stats = db.stats();
    assert!(stats.log.appended_blocks < 3200 / 4, "{} blocks for 3,200 rows", stats.log.appended_blocks);
    db.flush().await.unwrap();
    assert_eq!(sink.applied().len(), 3200);
    // A lone submitter: one sync for each row, and no timer.
    let before = db.stats().log.syncs.count;
    for n in 0..10 {
        db.submit(&row(&plain(), 99, n)).await.unwrap();
    }
    let syncs = db.stats().log.syncs.count - before;
    assert!((10..=20).contains(&syncs), "{syncs} syncs, one for each row and some for what was settled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_log_refuses_or_waits_and_loses_nothing() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    sink.break_table("keyed", ErrorClass::Schema);
    let small = || options(dir.path()).segment_bytes(16 << 10).disk_bytes(96 << 10);
    let db = start(&sink, small()).await.unwrap();
    let mut stored = 0;
    let refused = loop {
        let rows: Vec<_> = (0..50).map(|n| row(&keyed(), n, stored as i64 + n)).collect();
        let mut failed = None;
        for row in &rows {
            match db.try_submit(row).await {
                Ok(()) => stored += 1,
                Err(error) => failed = Some(error),
            }
            if failed.is_some() {
                break;
            }
        }
        if let Some(error) = failed {
            break error;
        }
    };
    assert!(refused.is_full(), "{refused}");
    assert!(!db.health().accepts_rows(), "{:?}", db.health());
    // A submit waits for space, and can be cancelled.
    let waiting = tokio::time::timeout(Duration::from_millis(20), db.submit(&row(&keyed(), 1, 1_000_000))).await;
    assert!(waiting.is_err());
    let waiting: Vec<_> = (0..30)
        .map(|n| {
            let db = db.clone();
            tokio::spawn(async move { db.submit(&row(&keyed(), 1_000 + n, n)).await })
        })
        .collect();
    let large = {
        let db = db.clone();
        tokio::spawn(async move { db.submit_all((0..300).map(|_| row(&keyed(), 2, 2_000_000))).await })
    };
    sink.mend_table("keyed");
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    assert_eq!(large.await.unwrap().unwrap(), 300);
    db.flush().await.unwrap();
    assert_eq!(in_table(&sink, "keyed").iter().filter(|row| row.0 >= 1_000).count(), 30);
    assert!(in_table(&sink, "keyed").contains(&(2, 2_000_000)));
    assert_eq!(db.stats().log.unsettled_rows, 0);
    assert!(stored > 100, "{stored} rows");
}

/// Rows of other partitions have space before the row that is refused: whoever submits the rest must know them.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_refused_in_the_middle_says_what_is_stored() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    sink.break_table("keyed", ErrorClass::Schema);
    let small = options(dir.path()).segment_bytes(16 << 10).disk_bytes(96 << 10);
    let builder = BatchSql::builder(sink.clone()).config(config().when_full(WhenFull::Reject));
    let db = builder.durable(small).start().await.unwrap();
    let mut begin = 0;
    let (rows, error) = loop {
        let rows: Vec<_> = (begin..begin + 1000).map(|id| row(&keyed(), id, 1)).collect();
        begin += 1000;
        if let Err(error) = db.submit_all(&rows).await {
            break (rows, error);
        }
    };
    assert!(error.submit_error().is_full() && !error.stored_behind().is_empty(), "{error:?}");
    assert!(error.stored_behind().iter().all(|number| *number > error.accepted()), "{error:?}");
    sink.mend_table("keyed");
    db.flush().await.unwrap();
    let rest = rows.iter().enumerate().skip(error.accepted());
    for (_, row) in rest.filter(|(number, _)| !error.stored_behind().contains(number)) {
        while let Err(error) = db.submit(row).await {
            assert!(error.is_full(), "{error}");
        }
    }
    db.flush().await.unwrap();
    let mut ids: Vec<i64> = applied(&sink).into_iter().map(|(id, _)| id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..begin).collect::<Vec<_>>(), "each row once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_fits_no_segment_is_refused_at_once() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    let db = start(&sink, options(dir.path()).segment_bytes(16 << 10)).await.unwrap();
    let notes = Schema::builder("notes").column("text", batchsql_core::ColumnType::Text).build().unwrap();
    let note = |length: usize| notes.row().set("text", "x".repeat(length)).unwrap().finish().unwrap();
    let error = db.submit(&note(10_000)).await.unwrap_err();
    assert!(error.to_string().contains("segment_bytes"), "{error}");
    let error = db.submit_all([note(10), note(10_000)]).await.unwrap_err();
    assert_eq!(error.accepted(), 1);
    db.flush().await.unwrap();
    assert_eq!(sink.applied().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_handle_keeps_what_it_has_stored() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    sink.script([Step::Hang]);
    let db = start(&sink, options(dir.path())).await.unwrap();
    db.submit(&row(&keyed(), 1, 1)).await.unwrap();
    until("it is being written", || sink.writes() == 1).await;
    drop(db);
    let again = ScriptedSink::new();
    let db = loop {
        match start(&again, options(dir.path())).await {
            Ok(db) => break db,
            Err(error) => assert!(error.is_locked(), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    db.flush().await.unwrap();
    assert_eq!(applied(&again), [(1, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_parked_table_wait_while_others_are_written() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    sink.break_table("keyed", ErrorClass::Schema);
    let db = start(&sink, options(dir.path()).segment_bytes(32 << 10).disk_bytes(4 << 20)).await.unwrap();
    for n in 0..5 {
        db.submit(&row(&keyed(), n, 1)).await.unwrap();
    }
    until("the table is parked", || !db.health().pipeline.parked.is_empty()).await;
    // Segments of the other table are removed although the first one has rows of the parked table.
    let mut written = 0;
    until_async("rows are set aside", async || {
        let rows: Vec<_> = (0..500).map(|n| row(&plain(), n, 1)).collect();
        written += db.submit_all(&rows).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        db.stats().log.side_segments > 0
    })
    .await;
    sink.mend_table("keyed");
    db.flush().await.unwrap();
    assert_eq!(sink.tables().rows("keyed").len(), 5);
    assert_eq!(sink.applied().len(), written + 5);
}

/// As [`until`], for conditions that submit.
async fn until_async(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < LONG, "it takes too long until {what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn per_table_order_is_kept_over_partitions() {
    let of_one = TableConfig::default().ordering(Ordering::PerTable);
    let of_all = config().ordering(Ordering::PerTable);
    for (config, table) in [(of_all, TableConfig::default()), (config(), of_one)] {
        let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
        let builder = BatchSql::builder(sink.clone()).config(config).table("keyed", table);
        let db = builder.durable(options(dir.path())).start().await.unwrap();
        let rows: Vec<_> = (0..500).map(|n| row(&keyed(), n, 0)).collect();
        db.submit_all(&rows).await.unwrap();
        db.flush().await.unwrap();
        assert_eq!(applied(&sink), (0..500).map(|n| (n, 0)).collect::<Vec<_>>());
    }
}

/// As after a second signal: what waits stays in the log, and the log is closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_close_shortens_the_first_one() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    sink.script_acquire([Step::Hang; 1000]);
    let config = config().statement_timeout(60 * LONG);
    let db = BatchSql::builder(sink.clone()).config(config).durable(options(dir.path())).start().await.unwrap();
    let rows: Vec<_> = (0..300).map(|id| row(&keyed(), id, 1)).collect();
    db.submit_all(&rows).await.unwrap();
    // They begin in this order.
    let both = async { tokio::join!(db.close(60 * LONG), db.close(Duration::from_millis(1))) };
    let (first, second) = tokio::time::timeout(LONG, both).await.expect("the earlier deadline holds");
    assert_eq!(first.left_in_log, 300);
    assert_eq!((second.left_in_log, &second.log_error), (300, &None));
    drop(db);
    let again = start(&ScriptedSink::new(), options(dir.path())).await.unwrap();
    assert!(again.recovered().is_clean && again.recovered().rows == 300, "{:?}", again.recovered());
}

#[test]
fn an_intake_whose_runtime_has_ended_can_be_closed() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    sink.script([Step::Hang]);
    let (first, second) = (runtime(), runtime());
    let db = first.block_on(async {
        let db = start(&sink, options(dir.path())).await.unwrap();
        db.submit(&row(&keyed(), 1, 1)).await.unwrap();
        until("it is being written", || sink.writes() == 1).await;
        db
    });
    first.shutdown_background();
    let report = second.block_on(async { tokio::time::timeout(LONG, db.close(LONG)).await.unwrap() });
    assert_eq!((report.left_in_log, report.log_error), (1, None));
    second.block_on(async {
        let again = ScriptedSink::new();
        start(&again, options(dir.path())).await.unwrap().flush().await.unwrap();
        assert_eq!(applied(&again), [(1, 1)]);
    });
}

/// The ends that a pipeline has for old rows do not apply, also those of a table.
#[tokio::test(flavor = "multi_thread")]
async fn no_row_expires() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    sink.script(std::iter::repeat_n(Step::Fail(ErrorClass::Transient), 5));
    let impatient = TableConfig::default().retry_for(Duration::ZERO).max_age(Duration::from_nanos(1));
    let builder = BatchSql::builder(sink.clone()).config(config().max_age(Duration::from_nanos(1)));
    let db = builder.table("keyed", impatient).durable(options(dir.path())).start().await.unwrap();
    db.submit(&row(&keyed(), 1, 1)).await.unwrap();
    let balance = db.flush().await.unwrap();
    assert_eq!((balance.written(), balance.failed()), (1, 0));
    assert_eq!(db.stats().written_again, 0);
}

/// An upsert and a delete of one key are of two schemas, and stay in order.
#[tokio::test(flavor = "multi_thread")]
async fn deletes_keep_their_order_with_upserts() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    sink.script([Step::LoseReply, Step::Fail(ErrorClass::Transient)]);
    let db = start(&sink, options(dir.path())).await.unwrap();
    for id in 0..40 {
        let row = row(&keyed(), id, 1);
        db.submit(&row).await.unwrap();
        if id % 2 == 0 {
            db.submit(&batchsql_core::Delete::of(&row).unwrap()).await.unwrap();
        }
    }
    db.flush().await.unwrap();
    let mut left: Vec<i64> = in_table(&sink, "keyed").iter().map(|row| row.0).collect();
    left.sort_unstable();
    assert_eq!(left, (0..40).filter(|id| id % 2 == 1).collect::<Vec<_>>());
}
