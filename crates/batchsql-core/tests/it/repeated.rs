//! A transient error that one row causes, whatever the state of the server: only that row expires.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use batchsql_core::{
    BatchSql, ColumnType, Conflict, DynRow, ErrorClass, Expr, Isolation, OutcomeKind, PipelineConfig, Receipt, Schema,
    ValueRef,
};
use batchsql_testkit::ScriptedSink;

use crate::support::{FAR, Recorder, config, id, pipeline, receipts, settle, table};

const MINUTE: Duration = Duration::from_secs(60);

/// The outcomes of rows in their order, by the first letter of the kind.
async fn outcomes(receipts: Vec<Receipt>) -> String {
    let mut kinds = String::new();
    for receipt in receipts {
        kinds.push(match receipt.await.kind() {
            OutcomeKind::Written => 'w',
            OutcomeKind::Expired => 'e',
            OutcomeKind::Superseded => 's',
            kind => panic!("{kind:?}"),
        });
    }
    kinds
}

/// Submits a batch of other rows each second, until the time of the first batch is over.
async fn others(db: &BatchSql, conflict: &Conflict) {
    for batch in 1..=65 {
        drop(receipts(db, &table("t", conflict.clone()), batch * FAR..batch * FAR + 10).await);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn minutes() -> PipelineConfig {
    config().buffer_size(2_000).retry_for(MINUTE)
}

#[tokio::test(start_paused = true)]
async fn only_the_rows_that_cause_a_transient_error_expire() {
    let check = async |class, conflict: Conflict, bad: &'static [i64], expected: &str| {
        let (db, sink) = pipeline(minutes());
        sink.poison_as(class, move |row| bad.contains(&id(row)));
        let first = receipts(&db, &table("t", conflict.clone()), 0..10).await;
        others(&db, &conflict).await;
        assert_eq!(outcomes(first).await, expected, "{class:?} {conflict:?} {bad:?}");
        let report = db.close(MINUTE).await;
        assert_eq!(report.balance.written(), 660 - bad.len() as u64);
    };
    for class in [ErrorClass::Transient, ErrorClass::Resource] {
        check(class, Conflict::none(), &[3], "wwwewwwwww").await;
        check(class, Conflict::update(["id"]), &[3], "wwwewwwwww").await;
        check(class, Conflict::none(), &[0, 4, 9], "ewwwewwwwe").await;
    }
}

/// Submits a batch of `(id, n)` of which the server refuses those with an `n` of 1,000 and more, and other batches; the
/// outcomes of the first batch.
async fn outcomes_of(conflict: &Conflict, rows: &[(i64, i64)]) -> String {
    let schema = Schema::builder("t").column("id", ColumnType::I64).column("n", ColumnType::I64);
    let schema = schema.on_conflict(conflict.clone()).build().unwrap();
    let row = |id: i64, n: i64| schema.row().set("id", id).unwrap().set("n", n).unwrap().finish().unwrap();
    let (db, sink) = pipeline(minutes().flush_size(rows.len()));
    sink.poison_as(ErrorClass::Transient, |row: &DynRow| matches!(row.get("n"), Some(ValueRef::I64(1_000..))));
    let mut first = Vec::new();
    for (id, n) in rows {
        first.push(db.submit_tracked(&row(*id, *n)).await.unwrap());
    }
    for batch in 1..=65 {
        db.submit_all((0..10).map(|id| row(batch * FAR + id, 1))).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    outcomes(first).await
}

#[tokio::test(start_paused = true)]
async fn the_rows_behind_a_row_that_expires_have_their_turn() {
    let check = async |conflict: &Conflict, rows: &[(i64, i64)], expected: &str| {
        assert_eq!(outcomes_of(conflict, rows).await, expected, "{conflict:?} {rows:?}");
    };
    let update = Conflict::update(["id"]);
    check(&update, &[(1, 1), (2, 1), (1, 1_000), (3, 1)], "wwew").await;
    check(&update, &[(1, 1), (1, 2), (1, 1_000), (2, 1), (1, 1_000)], "swewe").await;
    // The batch is one row to the server.
    check(&update, &[(1, 1), (1, 1_000)], "we").await;
    check(&Conflict::update(["id"]).only_if_newer("n"), &[(1, 1_000), (1, 1)], "ew").await;
    let counter = Conflict::update(["id"]).set("n", Expr::add());
    check(&counter, &[(1, 1), (2, 5), (1, 1_000), (1, 2), (2, 6)], "wweww").await;
    check(&counter, &[(1, 1), (1, 1_000), (1, 2)], "wew").await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_one_row_that_expires_does_not_take_its_lane_with_it() {
    let (db, sink) = pipeline(minutes().flush_size(1));
    sink.poison_as(ErrorClass::Transient, |row| row.get("note") == Some(ValueRef::Text("bad")));
    let schema = table("t", Conflict::update(["id"]));
    let mut first = Vec::new();
    for note in ["bad", "good"] {
        let row = schema.row().set("id", 1_i64).unwrap().set("note", note).unwrap().finish().unwrap();
        first.push(db.submit_tracked(&row).await.unwrap());
        // The second row is in a batch of its own, behind the first one.
        settle().await;
    }
    others(&db, &Conflict::update(["id"])).await;
    assert_eq!(outcomes(first).await, "ew");
}

#[tokio::test(start_paused = true)]
async fn a_key_of_which_every_row_is_refused_takes_a_few_tries_and_not_one_for_each_row() {
    let (db, sink) = pipeline(minutes().flush_size(1_000).flush_interval(Duration::from_millis(10)));
    let earlier = Arc::new(AtomicUsize::new(0));
    let tries = Arc::clone(&earlier);
    sink.poison_as(ErrorClass::Transient, move |row| {
        let is_earlier = id(row) == 1 && row.get("note") != Some(ValueRef::Text("999"));
        tries.fetch_add(usize::from(is_earlier), Ordering::Relaxed);
        id(row) == 1
    });
    let update = Conflict::update(["id"]);
    let schema = table("t", update.clone());
    let mut first = Vec::new();
    for version in 0..1_000 {
        let row = schema.row().set("id", 1_i64).unwrap().set("note", version.to_string()).unwrap().finish().unwrap();
        first.push(db.submit_tracked(&row).await.unwrap());
    }
    others(&db, &update).await;
    assert_eq!(outcomes(first).await, "e".repeat(1_000));
    let tries = earlier.load(Ordering::Relaxed);
    assert!((1..=20).contains(&tries), "{tries} tries of earlier versions");
}

/// Rows of a table to which nothing else is written.
#[tokio::test(start_paused = true)]
async fn only_the_bad_rows_expire_where_nothing_else_is_written() {
    for class in [ErrorClass::Transient, ErrorClass::Resource] {
        for conflict in [Conflict::none(), Conflict::update(["id"])] {
            let (db, sink) = pipeline(minutes());
            sink.poison_as(class, |row| matches!(id(row), 3 | 8));
            let first = receipts(&db, &table("t", conflict.clone()), 0..10).await;
            assert_eq!(outcomes(first).await, "wwwewwwwew", "{class:?} {conflict:?}");
        }
    }
}

/// Nothing is written in a table for longer than `retry_for`: the rows expire after a few tries more.
#[tokio::test(start_paused = true)]
async fn a_table_that_takes_no_row_costs_a_few_tries_and_not_one_for_each_row() {
    let recorder = Recorder::default();
    let sink = ScriptedSink::new();
    let config = minutes().flush_size(1_000).flush_interval(Duration::from_millis(10));
    let db = BatchSql::builder(sink.clone()).config(config).metrics_reporter(recorder.clone()).start().unwrap();
    sink.poison_as(ErrorClass::Transient, |_| true);
    let first = receipts(&db, &table("t", Conflict::none()), 0..1_000).await;
    assert_eq!(outcomes(first).await, "e".repeat(1_000));
    let executed = recorder.0.lock().unwrap().executed.clone();
    let parts = executed.iter().filter(|(rows, _)| *rows < 1_000).count();
    assert!((1..=20).contains(&parts), "{parts} tries of a part of 1,000 rows");
}

#[tokio::test(start_paused = true)]
async fn an_atomic_batch_expires_as_a_whole() {
    let (db, sink) = pipeline(minutes().isolation(Isolation::AtomicBatch));
    sink.poison_as(ErrorClass::Transient, |row| id(row) == 3);
    let first = receipts(&db, &table("t", Conflict::none()), 0..10).await;
    others(&db, &Conflict::none()).await;
    assert_eq!(outcomes(first).await, "eeeeeeeeee");
    assert!(sink.batches().iter().all(|batch| batch.len() == 10));
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_which_every_row_is_refused_takes_a_few_tries_and_not_one_for_each_row() {
    let recorder = Recorder::default();
    let sink = ScriptedSink::new();
    let config = minutes().flush_size(1_000).flush_interval(Duration::from_millis(10));
    let db = BatchSql::builder(sink.clone()).config(config).metrics_reporter(recorder.clone()).start().unwrap();
    sink.poison_as(ErrorClass::Transient, |row| id(row) < 1_000);
    let first = receipts(&db, &table("t", Conflict::none()), 0..1_000).await;
    others(&db, &Conflict::none()).await;
    assert_eq!(outcomes(first).await, "e".repeat(1_000));
    let executed = recorder.0.lock().unwrap().executed.clone();
    let parts = executed.iter().filter(|(rows, is_written)| *rows < 1_000 && !is_written).count();
    assert!((1..=20).contains(&parts), "{parts} tries of a part of 1,000 rows");
}

/// The server fails while the bad row is searched for: what was not tried expires at once.
#[tokio::test(start_paused = true)]
async fn the_search_ends_when_the_connection_is_lost() {
    use batchsql_core::{Attempt, Rows, Schema, Sink, SinkError, Written};
    use std::sync::Mutex;

    /// Refuses the batch with row 3 with a code; loses the connection when a part of it is sent.
    #[derive(Clone, Default)]
    struct Failing(Arc<Mutex<usize>>);

    impl Sink for Failing {
        type Conn = ();
        type Plan = ();

        fn name(&self) -> &'static str {
            "failing"
        }

        async fn acquire(&self) -> Result<(), SinkError> {
            Ok(())
        }

        async fn prepare(&self, (): &mut (), _: &Schema) -> Result<(), SinkError> {
            Ok(())
        }

        async fn write(&self, (): &mut (), (): &(), rows: Rows<'_>, _: &Attempt) -> Result<Written, SinkError> {
            let is_first = (0..rows.len()).any(|row| id(&rows.to_row(row)) < 10);
            match rows.len() {
                _ if !is_first => Ok(Written::default()),
                10 => Err(SinkError::with_code(ErrorClass::Transient, "40001", "raised by a trigger")),
                _ => {
                    *self.0.lock().unwrap() += 1;
                    Err(SinkError::new(ErrorClass::Transient, "the connection was lost"))
                }
            }
        }
    }

    let sink = Failing::default();
    let db = BatchSql::builder(sink.clone()).config(minutes()).start().unwrap();
    let first = receipts(&db, &table("t", Conflict::none()), 0..10).await;
    others(&db, &Conflict::none()).await;
    assert_eq!(outcomes(first).await, "eeeeeeeeee");
    assert_eq!(*sink.0.lock().unwrap(), 1);
}

/// The time of the search is over when one of three bad rows was tried: the others expire, with the error of one of them.
#[tokio::test(start_paused = true)]
async fn a_row_that_was_not_tried_alone_is_not_told_as_the_cause() {
    use batchsql_core::{Attempt, Rows, Sink, SinkError, Written};

    /// Refuses the first bad row of a write, and takes long for a single row.
    #[derive(Clone)]
    struct Slow;

    impl Sink for Slow {
        type Conn = ();
        type Plan = ();

        fn name(&self) -> &'static str {
            "slow"
        }

        async fn acquire(&self) -> Result<(), SinkError> {
            Ok(())
        }

        async fn prepare(&self, (): &mut (), _: &Schema) -> Result<(), SinkError> {
            Ok(())
        }

        async fn write(&self, (): &mut (), (): &(), rows: Rows<'_>, _: &Attempt) -> Result<Written, SinkError> {
            if rows.len() == 1 {
                tokio::time::sleep(MINUTE / 3).await;
            }
            Err(match id(&rows.to_row(0)) {
                1 => SinkError::with_code(ErrorClass::Transient, "40P01", "of the first row"),
                2 => SinkError::with_code(ErrorClass::Transient, "08006", "of the second row"),
                _ => SinkError::with_code(ErrorClass::Row, "P0001", "of the third row"),
            })
        }
    }

    let config = minutes().flush_size(3).statement_timeout(MINUTE);
    let db = BatchSql::builder(Slow).config(config).start().unwrap();
    let mut told = Vec::new();
    for receipt in receipts(&db, &table("t", Conflict::none()), 1..4).await {
        let outcome = receipt.await;
        assert_eq!(outcome.kind(), OutcomeKind::Expired);
        told.push(outcome.to_string());
    }
    let is_alone: Vec<bool> = told.iter().map(|text| !text.contains("this row was not tried alone")).collect();
    assert_eq!(is_alone, [true, false, false], "{told:?}");
    assert!(told[0].contains("of the first row") && told[2].contains("of the second row"), "{told:?}");
}
