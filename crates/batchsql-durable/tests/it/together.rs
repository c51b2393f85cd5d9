//! Rows that are stored all or none, and requests with keys.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use batchsql_core::{BatchSql, ColumnType, Conflict, DynRow, ErrorClass, Expr, Ordering, WhenFull};
use batchsql_durable::{DurableBatchSql, DurableExt, Once, RequestKey, SyncPolicy};
use batchsql_testkit::ScriptedSink;

use crate::support::{LONG, applied, config, in_table, keyed, options, plain, row, start, table};

fn rows(request: i64, count: i64) -> Vec<DynRow> {
    let (keyed, plain) = (keyed(), plain());
    (0..count).map(|n| row(if n % 2 == 0 { &keyed } else { &plain }, request * 1_000 + n, request)).collect()
}

async fn once(db: &DurableBatchSql, key: &str, content: &str, rows: &[DynRow]) -> Result<Once, String> {
    let mut group = db.group();
    rows.iter().for_each(|row| group.push(row).unwrap());
    db.submit_group_once(&group, &RequestKey::new(key, content)).await.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_log_has_all_rows_of_a_call_or_none() {
    const ROWS: i64 = 60;
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    for table in ["keyed", "plain"] {
        sink.break_table(table, ErrorClass::Schema);
    }
    let small = options(dir.path()).segment_bytes(16 << 10).disk_bytes(96 << 10);
    let builder = BatchSql::builder(sink.clone()).config(config().when_full(WhenFull::Reject));
    let db = builder.durable(small).start().await.unwrap();
    // Calls of several tasks are gathered together.
    let mut calls = tokio::task::JoinSet::new();
    for task in 0..4 {
        let db = db.clone();
        calls.spawn(async move {
            let (mut stored, mut request) = (Vec::new(), task);
            loop {
                let result = match request % 3 {
                    0 => once(&db, &format!("{request}"), "", &rows(request, ROWS)).await.map(|_| ROWS as usize),
                    _ => db.try_submit_all(rows(request, ROWS)).await.map_err(|error| error.to_string()),
                };
                match result {
                    Ok(count) => {
                        assert_eq!(count, ROWS as usize);
                        stored.push(request);
                    }
                    Err(error) if error.contains("too many rows wait") => continue,
                    Err(error) => {
                        assert!(error.contains("disk_bytes"), "{error}");
                        return (stored, request);
                    }
                }
                request += 4;
            }
        });
    }
    let ended = calls.join_all().await;
    for table in ["keyed", "plain"] {
        sink.mend_table(table);
    }
    db.flush().await.unwrap();
    let mut found: BTreeMap<i64, i64> = BTreeMap::new();
    for (_, request) in in_table(&sink, "keyed").into_iter().chain(in_table(&sink, "plain")) {
        *found.entry(request).or_default() += 1;
    }
    let stored: BTreeMap<i64, i64> =
        ended.iter().flat_map(|(stored, _)| stored).map(|request| (*request, ROWS)).collect();
    assert_eq!(found, stored, "every row of a call, or none");
    assert!(stored.len() > 4, "{stored:?}");
    // The call that was refused is accepted later, as the first one with its key.
    for (_, request) in ended {
        let begun = Instant::now();
        let result = loop {
            match once(&db, &format!("{request}"), "", &rows(request, ROWS)).await {
                // What was written leaves the log in the background.
                Err(error) if error.contains("disk_bytes") && begun.elapsed() < LONG => tokio::task::yield_now().await,
                result => break result,
            }
        };
        assert_eq!(result, Ok(Once::Stored(ROWS as usize)));
    }
}

/// Calls are gathered together; there is space for a small one, and none for a large one.
#[tokio::test]
async fn a_call_is_not_refused_for_want_of_space_that_another_one_needs() {
    const MANY: i64 = 150;
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    let tables = ["keyed", "plain"];
    tables.iter().for_each(|table| sink.break_table(*table, ErrorClass::Schema));
    let small = options(dir.path()).segment_bytes(16 << 10).disk_bytes(96 << 10).partitions(1);
    let builder = BatchSql::builder(sink.clone()).config(config().when_full(WhenFull::Reject));
    let db = builder.durable(small).start().await.unwrap();
    let mut stored = 0;
    while once(&db, &format!("many {stored}"), "", &rows(stored, MANY)).await.is_ok() {
        stored += 1;
    }
    // On one thread all of them are gathered before the first group is taken.
    let (many, few) = (rows(100, MANY), rows(101, 2));
    let (alone, other_alone) = (row(&plain(), 1, 102), row(&keyed(), 1, 102));
    let (large, small, one, other) = tokio::join!(
        once(&db, "large", "", &many),
        once(&db, "small", "", &few),
        db.try_submit(&alone),
        db.try_submit(&other_alone),
    );
    assert!(large.as_ref().is_err_and(|error| error.contains("disk_bytes")), "{large:?}");
    assert_eq!(small, Ok(Once::Stored(2)));
    assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
    assert_eq!(once(&db, "small", "", &few).await, Ok(Once::Repeated(2)));
    tables.iter().for_each(|table| sink.mend_table(table));
    db.flush().await.unwrap();
    let mut found: BTreeMap<i64, i64> = BTreeMap::new();
    for (_, request) in tables.iter().flat_map(|table| in_table(&sink, table)) {
        *found.entry(request).or_default() += 1;
    }
    let expected = (0..stored).map(|request| (request, MANY)).chain([(101, 2), (102, 2)]);
    assert_eq!(found, expected.collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_stored_once_also_after_a_start() {
    for policy in [SyncPolicy::Always, SyncPolicy::Os] {
        let dir = tempfile::tempdir().unwrap();
        let options = || options(dir.path()).sync_policy(policy);
        let sink = ScriptedSink::new();
        let db = start(&sink, options()).await.unwrap();
        assert_eq!(once(&db, "a", "one", &rows(1, 5)).await, Ok(Once::Stored(5)));
        assert_eq!(once(&db, "a", "one", &rows(1, 5)).await, Ok(Once::Repeated(5)));
        let other = once(&db, "a", "two", &rows(2, 5)).await.unwrap_err();
        assert!(other.contains("other content"), "{other}");
        assert_eq!(once(&db, "b", "one", &[]).await, Ok(Once::Stored(0)), "without rows nothing is stored");
        assert_eq!(once(&db, "b", "two", &rows(2, 3)).await, Ok(Once::Stored(3)));
        db.flush().await.unwrap();
        assert!(db.close(LONG).await.is_drained());
        drop(db);
        let again = ScriptedSink::new();
        let db = start(&again, options()).await.unwrap();
        assert_eq!(once(&db, "a", "one", &rows(1, 5)).await, Ok(Once::Repeated(5)));
        assert!(once(&db, "a", "two", &rows(2, 5)).await.is_err());
        assert_eq!(once(&db, "b", "two", &rows(2, 3)).await, Ok(Once::Repeated(3)));
        assert_eq!(db.stats().log.keys, 2);
        db.flush().await.unwrap();
        assert_eq!((applied(&sink).len(), applied(&again).len()), (8, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_forgotten_by_number() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    let db = start(&sink, options(dir.path()).keys(2, Duration::from_secs(60))).await.unwrap();
    for key in ["a", "b", "c"] {
        assert_eq!(once(&db, key, "", &rows(1, 1)).await, Ok(Once::Stored(1)));
    }
    assert_eq!(once(&db, "c", "", &rows(1, 1)).await, Ok(Once::Repeated(1)));
    assert_eq!(once(&db, "a", "", &rows(1, 1)).await, Ok(Once::Stored(1)), "the oldest one is forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_with_one_key_at_once_store_the_rows_once() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    let db = start(&sink, options(dir.path())).await.unwrap();
    for round in 0..20 {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let db = db.clone();
            calls.spawn(async move {
                loop {
                    match once(&db, &format!("k{round}"), "", &rows(round, 4)).await {
                        Ok(once) => return once,
                        Err(error) => assert!(error.contains("has not ended"), "{error}"),
                    }
                    tokio::task::yield_now().await;
                }
            });
        }
        let ended = calls.join_all().await;
        assert_eq!(ended.iter().filter(|once| **once == Once::Stored(4)).count(), 1, "{ended:?}");
        assert_eq!(ended.iter().filter(|once| **once == Once::Repeated(4)).count(), 7, "{ended:?}");
    }
    db.flush().await.unwrap();
    assert_eq!(applied(&sink).len(), 80);
}

/// A client that disconnects in the middle, and sends its request again.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_cancelled_can_be_repeated() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    let db = start(&sink, options(dir.path())).await.unwrap();
    for request in 0..50 {
        let key = format!("k{request}");
        let sent = rows(request, 4);
        // After so many turns the call is dropped; the last ones end by themselves.
        let mut call = Box::pin(once(&db, &key, "", &sent));
        for _ in 0..request % 10 {
            let turn = std::future::poll_fn(|context| std::task::Poll::Ready(call.as_mut().poll(context)));
            if turn.await.is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(call);
        loop {
            match once(&db, &key, "", &sent).await {
                Ok(Once::Stored(4) | Once::Repeated(4)) => break,
                Ok(other) => panic!("{other:?}"),
                Err(error) => assert!(error.contains("has not ended"), "{error}"),
            }
        }
    }
    db.flush().await.unwrap();
    assert_eq!(applied(&sink).len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_does_not_fit_refuses_all() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    let db = start(&sink, options(dir.path()).segment_bytes(64 << 10)).await.unwrap();
    let text = batchsql_core::Schema::builder("texts").column("note", ColumnType::Text).build().unwrap();
    let note = |length: usize| text.row().set("note", "x".repeat(length)).unwrap().finish().unwrap();
    let error = db.try_submit_all([note(10), note(40 << 10), note(10)]).await.unwrap_err();
    assert_eq!((error.row(), error.submit_error().is_too_many()), (None, true), "{error}");
    let error = db.try_submit_all((0..40).map(|_| note(1 << 10))).await.unwrap_err();
    assert!(error.row().is_none() && error.submit_error().is_too_many(), "{error}");
    let mut group = db.group();
    for _ in 0..20 {
        group.push(&note(1 << 10)).unwrap();
    }
    assert!(group.push(&note(16 << 10)).unwrap_err().is_too_many());
    assert_eq!((group.len(), group.is_empty()), (20, false), "a row that is refused adds nothing");
    let counter = table("keyed", Conflict::update(["id"]).set("version", Expr::add()));
    let error = db.try_submit_all([row(&keyed(), 1, 1), row(&counter, 1, 1)]).await.unwrap_err();
    assert_eq!(error.row(), Some(1), "{error}");
    assert!(error.to_string().starts_with("row 1: ") && error.to_string().contains("Expr::add"), "{error}");
    db.flush().await.unwrap();
    assert_eq!(sink.applied().len(), 0, "no row of them is stored");
    assert_eq!(db.submit_group(&group).await.unwrap(), 20);
    db.flush().await.unwrap();
    assert_eq!(sink.applied().len(), 20);
}

/// Small rows come without end: a large group must not wait until none of them waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_group_is_stored_among_small_rows() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    let builder = BatchSql::builder(sink.clone()).config(config().when_full(WhenFull::Reject));
    let db = builder.durable(options(dir.path())).start().await.unwrap();
    let text = batchsql_core::Schema::builder("texts").column("note", ColumnType::Text).build().unwrap();
    let mut group = db.group();
    for _ in 0..12 {
        group.push(&text.row().set("note", "x".repeat(1 << 20)).unwrap().finish().unwrap()).unwrap();
    }
    let mut small = tokio::task::JoinSet::new();
    for task in 0..4 {
        let db = db.clone();
        small.spawn(async move {
            let plain = plain();
            for version in 0.. {
                match db.try_submit(&row(&plain, task, version)).await {
                    Ok(()) => {}
                    Err(error) => assert!(error.is_full(), "{error}"),
                }
                // A call that is refused waits for nothing.
                tokio::task::yield_now().await;
            }
        });
    }
    for _ in 0..4 {
        assert_eq!(db.submit_group(&group).await.unwrap(), 12);
    }
    small.shutdown().await;
}

/// Rows of one key keep their order, also beside rows that are stored one by one.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_key_keep_their_order() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    let builder = BatchSql::builder(sink.clone()).config(config().ordering(Ordering::PerKey));
    let db = builder.durable(options(dir.path())).start().await.unwrap();
    for round in 0..30 {
        db.submit(&row(&keyed(), 1, 10 * round)).await.unwrap();
        db.try_submit_all((1..9).map(|n| row(&keyed(), 1, 10 * round + n))).await.unwrap();
        db.submit_all([row(&keyed(), 1, 10 * round + 9)]).await.unwrap();
    }
    db.flush().await.unwrap();
    let versions: Vec<i64> = applied(&sink).into_iter().map(|(_, version)| version).collect();
    assert!(versions.is_sorted(), "{versions:?}");
    assert_eq!(in_table(&sink, "keyed"), [(1, 299)]);
}

/// Their keys take more than their rows, and the log has a limit for all that it stores together.
#[tokio::test]
async fn calls_with_long_keys_do_not_refuse_each_other() {
    const CALLS: i64 = 100;
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    let db = start(&sink, options(dir.path()).segment_bytes(16 << 10)).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for call in 0..CALLS {
        let db = db.clone();
        calls.spawn(async move { once(&db, &format!("{call:0255}"), &"c".repeat(64), &rows(call, 1)).await });
    }
    // On one thread, all of them are gathered before the first ones are written.
    for result in calls.join_all().await {
        assert_eq!(result, Ok(Once::Stored(1)));
    }
    db.flush().await.unwrap();
    assert_eq!(applied(&sink).len() as i64, CALLS);
}

/// Rows with other columns than those before take a block each, which is larger than they are.
#[tokio::test]
async fn blocks_of_few_rows_count_in_the_bytes_of_a_group() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
    let db = start(&sink, options(dir.path())).await.unwrap();
    let schema = batchsql_core::Schema::builder("texts").column("id", ColumnType::I64).nullable("n", ColumnType::I64);
    let schema = schema.build().unwrap();
    let row = |id: i64, has_n: bool| {
        let row = schema.row().set("id", id).unwrap();
        if has_n { row.set("n", 1_i64).unwrap().finish().unwrap() } else { row.finish().unwrap() }
    };
    let (mut alike, mut mixed) = (db.group(), db.group());
    for id in 0..1_000 {
        alike.push(&row(id, true)).unwrap();
        mixed.push(&row(id, id % 2 == 0)).unwrap();
    }
    assert!(alike.bytes() < 32_000, "{alike:?}");
    assert!(mixed.bytes() >= 1_000 * (256 + 128), "{mixed:?}");
    assert_eq!(db.submit_group(&mixed).await.unwrap(), 1_000);
}
