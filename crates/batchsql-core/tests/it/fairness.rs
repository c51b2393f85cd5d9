//! Who gets capacity and permits when they are short, and what happens to unused groups.

use std::time::Duration;

use batchsql_core::{BatchSql, ColumnType, Conflict, DeadLetters, ErrorClass, OutcomeKind, Schema, WhenFull};
use batchsql_testkit::{ScriptedSink, Step};
use tokio::time::Instant;

use crate::support::{HOUR, config, id, ids, pipeline, plain, row, settle, table};

#[tokio::test(start_paused = true)]
async fn reject_refuses_at_once() {
    let (db, sink) = pipeline(config().buffer_size(10).when_full(WhenFull::Reject));
    sink.script([Step::Hang]);
    for id in 0..10 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    let begin = Instant::now();
    assert!(db.submit(&row(&plain(), 10)).await.unwrap_err().is_full());
    assert!(db.submit_tracked(&row(&plain(), 10)).await.unwrap_err().is_full());
    let many = db.submit_all((10..20).map(|id| row(&plain(), id))).await.unwrap_err();
    assert!(many.submit_error().is_full() && many.accepted() == 0);
    assert_eq!(begin.elapsed(), Duration::ZERO);
    sink.release(1);
    assert_eq!(db.flush().await.unwrap().written(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_wait_has_its_limit() {
    let when_full = WhenFull::WaitAtMost(Duration::from_secs(3));
    let (db, sink) = pipeline(config().buffer_size(10).when_full(when_full));
    sink.script([Step::Hang]);
    for id in 0..10 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    let begin = Instant::now();
    assert!(db.submit(&row(&plain(), 10)).await.unwrap_err().is_full());
    assert_eq!(begin.elapsed(), Duration::from_secs(3));
    let waiting = tokio::spawn({
        let db = db.clone();
        async move { db.submit(&row(&plain(), 10)).await }
    });
    settle().await;
    sink.release(1);
    waiting.await.unwrap().unwrap();
    assert_eq!(db.flush().await.unwrap().written(), 11);
}

#[tokio::test(start_paused = true)]
async fn drop_oldest_gives_up_the_oldest_rows_that_are_not_being_written() {
    let when_full = WhenFull::DropOldest;
    let config = config().buffer_size(50).when_full(when_full).max_concurrency(1);
    let (db, sink) = pipeline(config);
    sink.script([Step::Hang]);
    let mut receipts = Vec::new();
    for id in 0..200 {
        let row = row(&plain(), id);
        let receipt = tokio::time::timeout(Duration::from_secs(1), db.submit_tracked(&row)).await;
        receipts.push(receipt.expect("drop-oldest never waits for the database").unwrap());
        // Give the first batch the time to begin.
        settle().await;
    }
    sink.release(1);
    let balance = db.flush().await.unwrap();
    assert_eq!((balance.accepted, balance.in_flight()), (200, 0));
    let kept = ids(&sink.applied());
    assert_eq!(kept[..10], (0..10).collect::<Vec<i64>>(), "what is being written is not given up");
    assert_eq!(kept[10..], (160..200).collect::<Vec<i64>>(), "the newest rows remain");
    assert_eq!(balance.purged(), 150);
    for (wanted, receipt) in (0..200).zip(receipts) {
        let outcome = receipt.await;
        assert_eq!(outcome.is_written(), kept.contains(&wanted), "row {wanted}");
        if let Some(failed) = outcome.failure() {
            assert_eq!((outcome.kind(), id(failed.row()), failed.attempts()), (OutcomeKind::Purged, wanted, 0));
            assert!(failed.error().unwrap().to_string().contains("DropOldest"));
            assert!(outcome.to_string().starts_with("purged row of t, never tried: the buffer was full"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn drop_oldest_also_takes_open_and_resting_batches() {
    let when_full = WhenFull::DropOldest;
    let (db, sink) = pipeline(config().buffer_size(12).when_full(when_full).retry_for(HOUR));
    sink.script([Step::Fail(ErrorClass::Resource); 4]);
    for id in 0..12 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    for id in 12..60 {
        tokio::time::timeout(Duration::from_millis(100), db.submit(&row(&plain(), id))).await.unwrap().unwrap();
    }
    let balance = db.flush().await.unwrap();
    assert_eq!(balance.in_flight(), 0);
    assert_eq!(balance.written() + balance.purged(), 60);
    assert!(ids(&sink.applied()).contains(&59));
}

#[tokio::test(start_paused = true)]
async fn a_table_that_cannot_be_written_leaves_room_to_the_others() {
    let (db, sink) = pipeline(config().buffer_size(1000).park_for(HOUR));
    let (stuck, fast) = (table("stuck", Conflict::none()), table("fast", Conflict::none()));
    db.submit(&row(&fast, 0)).await.unwrap();
    sink.break_table("stuck", ErrorClass::Schema);
    let flood = tokio::spawn({
        let db = db.clone();
        async move {
            for id in 0..2000 {
                db.submit(&row(&stuck, id)).await.unwrap();
            }
        }
    });
    settle().await;
    for id in 1..5000 {
        let submit = db.submit_timeout(&row(&fast, id), Duration::from_secs(1)).await;
        submit.unwrap_or_else(|error| panic!("row {id}: {error}"));
    }
    assert!(!flood.is_finished());
    sink.mend_table("stuck");
    flood.await.unwrap();
    assert_eq!(db.flush().await.unwrap().written(), 7000);
}

#[tokio::test(start_paused = true)]
async fn three_stuck_tables_still_leave_room() {
    let (db, sink) = pipeline(config().buffer_size(1000).park_for(HOUR));
    let names = ["stuck 1", "stuck 2", "stuck 3"];
    let fast = table("fast", Conflict::none());
    db.submit(&row(&fast, 0)).await.unwrap();
    for name in names {
        sink.break_table(name, ErrorClass::Schema);
        let db = db.clone();
        tokio::spawn(async move {
            for id in 0..2000 {
                let _ = db.submit(&row(&table(name, Conflict::none()), id)).await;
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    for id in 1..1000 {
        db.submit_timeout(&row(&fast, id), Duration::from_secs(1)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn one_table_alone_may_use_the_whole_buffer() {
    let (db, sink) = pipeline(config().buffer_size(100));
    sink.script([Step::Hang; 10]);
    for id in 0..100 {
        db.try_submit(&row(&plain(), id)).unwrap();
    }
    assert!(db.try_submit(&row(&plain(), 100)).unwrap_err().is_full());
    sink.release(10);
    db.flush().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_table_leaves_a_permit_to_the_others() {
    let (db, sink) = pipeline(config().buffer_size(10_000).flush_interval(Duration::from_millis(10)));
    let (slow, fast) = (table("slow", Conflict::none()), table("fast", Conflict::none()));
    sink.slow_table("slow", Duration::from_secs(10));
    for id in 0..800 {
        db.submit(&row(&slow, id)).await.unwrap();
    }
    db.submit(&row(&fast, 0)).await.unwrap();
    // The first batches of a table that is not yet known to be slow may take every permit.
    tokio::time::sleep(Duration::from_secs(10)).await;
    for id in 1..100 {
        let begin = Instant::now();
        let receipt = db.submit_tracked(&row(&fast, id)).await.unwrap();
        assert!(receipt.await.is_written());
        assert!(begin.elapsed() < Duration::from_millis(20), "row {id} took {:?}", begin.elapsed());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(db.balance().in_flight() > 0, "the slow table still has rows");
    db.close(HOUR).await;
}

#[tokio::test(start_paused = true)]
async fn retries_hold_no_permit() {
    let (db, sink) = pipeline(config().retry_for(HOUR).max_concurrency(2).buffer_size(1000));
    let (locked, sound) = (table("locked", Conflict::none()), table("sound", Conflict::none()));
    db.submit(&row(&sound, 0)).await.unwrap();
    sink.break_table("locked", ErrorClass::Transient);
    for id in 0..200 {
        db.submit(&row(&locked, id)).await.unwrap();
    }
    for id in 1..100 {
        db.submit(&row(&sound, id)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(db.balance().written(), 100);
    sink.mend_table("locked");
    assert_eq!(db.flush().await.unwrap().written(), 300);
}

#[tokio::test(start_paused = true)]
async fn groups_that_nobody_uses_are_forgotten_and_come_back() {
    let (db, sink) = pipeline(config().flush_size(1));
    let schema =
        |tenant: usize| Schema::builder(format!("tenant {tenant}")).column("id", ColumnType::I64).build().unwrap();
    let row = |tenant: usize| schema(tenant).row().set("id", tenant as i64).unwrap().finish().unwrap();
    // One tenant stays active, thousands are used once.
    let steady = schema(usize::MAX);
    for tenant in 0..5000 {
        db.submit(&row(tenant)).await.unwrap();
        db.submit(&steady.row().set("id", 1_i64).unwrap().finish().unwrap()).await.unwrap();
        if tenant % 50 == 0 {
            db.flush().await.unwrap();
        }
    }
    db.flush().await.unwrap();
    let known = format!("{db:?}");
    let groups: usize = known.split("groups: ").nth(1).unwrap().split([',', ' ']).next().unwrap().parse().unwrap();
    assert!(groups < 1100, "{groups} groups are kept");
    // The active tenant was prepared once, although thousands of groups were removed.
    assert_eq!(sink.prepares(), 5001);
    db.submit(&row(0)).await.unwrap();
    let balance = db.flush().await.unwrap();
    assert_eq!((balance.accepted, balance.written()), (10_001, 10_001));
    assert_eq!(sink.prepares(), 5002, "a forgotten table is checked again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_row_is_lost_while_groups_are_forgotten() {
    let (db, sink) = pipeline(config().flush_size(3).flush_interval(Duration::from_millis(1)));
    let tasks: Vec<_> = (0..4)
        .map(|task| {
            let db = db.clone();
            tokio::spawn(async move {
                for round in 0..3000_usize {
                    let tenant = (round * 7 + task * 31) % 1500;
                    let schema = Schema::builder(format!("tenant {tenant}")).column("id", ColumnType::I64);
                    let row = schema.build().unwrap().row().set("id", round as i64).unwrap().finish().unwrap();
                    db.submit(&row).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let report = db.close(HOUR).await;
    assert_eq!((report.balance.accepted, report.balance.written()), (12_000, 12_000));
    assert_eq!(sink.applied().len(), 12_000);
}

#[tokio::test(start_paused = true)]
async fn drop_oldest_gives_up_no_more_than_is_needed_when_consumers_are_slow() {
    let (dead_letters, mut failed) = DeadLetters::channel();
    let sink = ScriptedSink::new();
    let config = config().buffer_size(100).when_full(WhenFull::DropOldest).max_concurrency(1);
    let db = BatchSql::builder(sink.clone()).config(config).dead_letters(dead_letters).start().unwrap();
    tokio::spawn(async move {
        while let Some(letter) = failed.recv().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(letter);
        }
    });
    sink.script([Step::Hang]);
    for id in 0..100 {
        db.submit(&row(&plain(), id)).await.unwrap();
        if id == 9 {
            settle().await;
        }
    }
    db.submit(&row(&plain(), 100)).await.unwrap();
    assert_eq!(db.balance().purged(), 10, "one row needs one batch");
}

#[tokio::test(start_paused = true)]
async fn drop_oldest_gives_up_nothing_when_that_would_not_make_enough_room() {
    let config = config()
        .buffer_bytes(10_000)
        .flush_bytes(10_000)
        .buffer_size(1000)
        .when_full(WhenFull::DropOldest)
        .max_concurrency(1);
    let (db, sink) = pipeline(config);
    let large = |bytes: usize| {
        plain().row().set("id", 1_i64).unwrap().set("note", "x".repeat(bytes)).unwrap().finish().unwrap()
    };
    sink.script([Step::Hang]);
    db.submit(&large(4000)).await.unwrap();
    let flushing = db.clone();
    tokio::spawn(async move { flushing.flush().await });
    settle().await;
    for id in 0..30 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    // The first row is being written and holds too much.
    assert!(db.submit_timeout(&large(7000), Duration::from_secs(1)).await.unwrap_err().is_full());
    assert_eq!(db.balance().purged(), 0);
}

#[tokio::test(start_paused = true)]
async fn many_rows_at_once_do_not_hold_up_others_beside_a_stuck_table() {
    let (db, sink) = pipeline(config().buffer_size(200).park_for(HOUR));
    let (stuck, fast) = (table("stuck", Conflict::none()), table("fast", Conflict::none()));
    db.submit(&row(&fast, 0)).await.unwrap();
    sink.break_table("stuck", ErrorClass::Schema);
    let flood = db.clone();
    tokio::spawn(async move {
        for id in 0..2000 {
            let _ = flood.submit(&row(&stuck, id)).await;
        }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let rows: Vec<_> = (0..50).map(|id| row(&fast, id)).collect();
    let all = tokio::time::timeout(Duration::from_secs(60), db.submit_all(&rows)).await;
    assert_eq!(all.expect("submit_all waits for capacity that is never free").unwrap(), 50);
    db.submit_timeout(&row(&table("third", Conflict::none()), 1), Duration::from_secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn when_all_tables_are_slow_they_use_all_permits() {
    let run = async |tables: usize| {
        let (db, sink) = pipeline(config().max_concurrency(2).buffer_size(10_000));
        (0..tables).for_each(|table| sink.slow_table(format!("t{table}"), Duration::from_millis(150)));
        let begin = Instant::now();
        for id in 0..2000 {
            db.submit(&row(&table(&format!("t{}", id as usize % tables), Conflict::none()), id)).await.unwrap();
        }
        db.flush().await.unwrap();
        begin.elapsed()
    };
    let (one, two) = (run(1).await, run(2).await);
    assert!(two < one * 11 / 10, "one table {one:?}, two tables {two:?}");
}

#[tokio::test(start_paused = true)]
async fn a_table_alone_has_every_permit_however_fast_it_was_before() {
    let (db, sink) = pipeline(config().buffer_size(1000));
    let schema = table("t", Conflict::none());
    db.submit(&row(&schema, 0)).await.unwrap();
    db.flush().await.unwrap();
    sink.slow_table("t", Duration::from_millis(150));
    let begin = Instant::now();
    for id in 0..800 {
        db.submit(&row(&schema, id)).await.unwrap();
    }
    db.flush().await.unwrap();
    // 80 batches, four at once.
    assert!(begin.elapsed() <= Duration::from_millis(20 * 150 + 10), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_chunk_of_several_tables_takes_room_of_each_tables_own_share() {
    let config = config().buffer_size(1000).park_for(HOUR).when_full(WhenFull::Reject);
    let (db, sink) = pipeline(config);
    let (stuck, fast) = (table("stuck", Conflict::none()), table("fast", Conflict::none()));
    db.submit(&row(&fast, 0)).await.unwrap();
    sink.break_table("stuck", ErrorClass::Schema);
    let mut held = 0;
    while db.submit(&row(&stuck, held)).await.is_ok() {
        held += 1;
        settle().await;
    }
    let mixed: Vec<_> = [row(&fast, 1)].into_iter().chain((0..20).map(|id| row(&stuck, id))).collect();
    let error = db.submit_all(&mixed).await.unwrap_err();
    assert!(error.submit_error().is_full() && error.accepted() == 1, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_table_leaves_a_permit_while_another_one_is_active_and_no_longer() {
    let (db, sink) = pipeline(config().buffer_size(10_000).max_concurrency(4));
    let (busy, other) = (table("busy", Conflict::none()), table("other", Conflict::none()));
    db.submit(&row(&other, 0)).await.unwrap();
    db.flush().await.unwrap();
    sink.slow_table("busy", Duration::from_secs(1));
    for id in 0..3000 {
        db.submit(&row(&busy, id)).await.unwrap();
    }
    let written = async |after: u64| {
        tokio::time::sleep(Duration::from_secs(after)).await;
        db.balance().written()
    };
    let first = written(10).await;
    let second = written(10).await;
    assert_eq!(second - first, 10 * 3 * 10, "three of four permits");
    written(15).await;
    let (third, fourth) = (written(5).await, written(10).await);
    assert_eq!(fourth - third, 10 * 4 * 10, "all of them, half a minute after the last batch of the other table");
}
