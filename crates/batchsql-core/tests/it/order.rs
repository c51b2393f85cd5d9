//! The order of rows that carry different columns.

use std::time::Duration;

use batchsql_core::{
    BatchSql, Coalesce, ColumnType, Conflict, DynRow, ErrorClass, Ordering, Row, RowError, RowWriter, Schema, ValueRef,
};
use batchsql_testkit::{Model, ScriptedSink, Step};

use crate::support::{FAR, HOUR, Recorder, config, id, ids, pipeline, settle};

fn schema(conflict: Conflict) -> Schema {
    let schema = Schema::builder("t").column("id", ColumnType::I64);
    schema.nullable("a", ColumnType::I64).nullable("b", ColumnType::I64).on_conflict(conflict).build().unwrap()
}

/// A row that carries the columns of `with` besides its key.
fn row(schema: &Schema, id: i64, with: &[&str], value: i64) -> DynRow {
    let row = schema.row().set("id", id).unwrap();
    with.iter().fold(row, |row, column| row.set(column, value).unwrap()).finish().unwrap()
}

const SHAPES: [&[&str]; 4] = [&["a", "b"], &["a"], &["b"], &[]];

#[tokio::test(start_paused = true)]
async fn rows_of_a_key_are_written_in_order_whichever_columns_they_carry() {
    for concurrency in [1, 3] {
        let config = config().max_concurrency(concurrency).flush_size(7).buffer_size(1000);
        let (db, sink) = pipeline(config);
        let fails = [Step::Fail(ErrorClass::Transient), Step::Delay(Duration::from_millis(50)), Step::Apply];
        sink.script(fails.into_iter().cycle().take(40));
        let schema = schema(Conflict::update(["id"]));
        let mut expected = Model::default();
        for value in 0..500_i64 {
            let row = row(&schema, value * 7 % 11 * FAR, SHAPES[(value * value % 4) as usize], value);
            expected.apply(&row);
            db.submit(&row).await.unwrap();
        }
        db.flush().await.unwrap();
        assert!(sink.tables() == expected, "concurrency {concurrency}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_due_batch_does_not_overtake_rows_that_its_newer_rows_follow() {
    let (db, sink) = pipeline(config().flush_interval(Duration::from_millis(10)).max_concurrency(1));
    let schema = schema(Conflict::update(["id"]));
    sink.script([Step::Hang]);
    db.submit(&row(&schema, 0, &["a"], 0)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    // The first batch hangs. Two more become due, and keep filling.
    db.submit(&row(&schema, 1, &["a"], 1)).await.unwrap();
    db.submit(&row(&schema, 2, &["b"], 2)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    db.submit(&row(&schema, 2, &["a"], 3)).await.unwrap();
    db.submit(&row(&schema, 1, &["b"], 4)).await.unwrap();
    sink.release(1);
    db.flush().await.unwrap();
    let place = |wanted: i64, column: &str| {
        let applied = sink.applied();
        applied.iter().position(|row| id(row) == wanted && row.get(column).is_some()).unwrap()
    };
    assert!(place(2, "b") < place(2, "a"));
    assert!(place(1, "a") < place(1, "b"));
}

#[tokio::test(start_paused = true)]
async fn a_due_batch_that_waits_for_its_connection_does_not_overtake_what_is_sealed_meanwhile() {
    let config = config().flush_interval(Duration::from_millis(10)).max_concurrency(1);
    let (db, sink) = pipeline(config);
    let schema = schema(Conflict::update(["id"]));
    sink.script_acquire([Step::Hang]);
    db.submit(&row(&schema, 2, &["b"], 0)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    // The batch of rows with `b` was started and is still open. The second row seals that with `a`.
    db.submit(&row(&schema, 1, &["a"], 1)).await.unwrap();
    db.submit(&row(&schema, 1, &["b"], 2)).await.unwrap();
    settle().await;
    sink.release(1);
    db.flush().await.unwrap();
    let place = |column: &str| {
        let applied = sink.applied();
        applied.iter().position(|row| id(row) == 1 && row.get(column).is_some()).unwrap()
    };
    assert!(place("a") < place("b"));
}

#[tokio::test(start_paused = true)]
async fn rows_with_different_keys_share_batches_however_their_columns_alternate() {
    let (db, sink) = pipeline(config().max_concurrency(1));
    let schema = schema(Conflict::update(["id"]));
    for id in 0..40 {
        db.submit(&row(&schema, id, SHAPES[id as usize % 2], id)).await.unwrap();
    }
    db.flush().await.unwrap();
    assert_eq!(sink.batches().iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 10, 10]);
}

#[tokio::test(start_paused = true)]
async fn a_row_that_must_come_after_an_open_batch_seals_it() {
    let recorder = Recorder::default();
    let sink = batchsql_testkit::ScriptedSink::new();
    let builder = batchsql_core::BatchSql::builder(sink.clone()).config(config());
    let db = builder.metrics_reporter(recorder.clone()).start().unwrap();
    let schema = schema(Conflict::update(["id"]));
    db.submit(&row(&schema, 1, &["a"], 1)).await.unwrap();
    db.submit(&row(&schema, 1, &["b"], 2)).await.unwrap();
    db.flush().await.unwrap();
    use batchsql_core::FlushReason::{Explicit, Order};
    assert_eq!(recorder.0.lock().unwrap().sealed, [(1, Order), (1, Explicit)]);
}

#[tokio::test(start_paused = true)]
async fn per_table_order_holds_for_all_rows() {
    let (db, sink) = pipeline(config().ordering(Ordering::PerTable).buffer_size(1000));
    sink.script([
        Step::Fail(ErrorClass::Transient),
        Step::Delay(Duration::from_secs(9)),
        Step::Fail(ErrorClass::Transient),
    ]);
    let schema = schema(Conflict::none());
    for id in 0..200 {
        db.submit(&row(&schema, id, SHAPES[(id * id % 4) as usize], id)).await.unwrap();
    }
    db.flush().await.unwrap();
    assert!(ids(&sink.applied()).is_sorted());
    assert_eq!(sink.applied().len(), 200);
}

#[tokio::test(start_paused = true)]
async fn an_update_leaves_columns_alone_that_the_row_does_not_carry() {
    let (db, sink) = pipeline(config());
    let schema = schema(Conflict::update(["id"]));
    db.submit(&row(&schema, 1, &["a", "b"], 1)).await.unwrap();
    db.submit(&row(&schema, 1, &["b"], 2)).await.unwrap();
    db.submit(&row(&schema, 1, &[], 3)).await.unwrap();
    db.flush().await.unwrap();
    let tables = sink.tables();
    let value = |column: &str| tables.rows("t")[0][column].as_ref().to_owned();
    assert_eq!((value("a"), value("b")), (ValueRef::I64(1), ValueRef::I64(2)));
}

/// A row that hashes its key as it likes, with one value column of `self.2`.
struct Own(Schema, i64, i64);

impl Row for Own {
    fn schema(&self) -> &Schema {
        &self.0
    }

    fn variable_len(&self) -> usize {
        0
    }

    fn key_hash(&self) -> u64 {
        self.1 as u64
    }

    fn write(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        writer.i64(self.1)?;
        writer.i64(self.2)
    }
}

#[tokio::test(start_paused = true)]
async fn order_does_not_depend_on_how_a_row_hashes_its_key() {
    let schema = |column: &str| {
        let schema = Schema::builder("t").column("id", ColumnType::I64).column(column, ColumnType::I64);
        schema.on_conflict(Conflict::update(["id"])).build().unwrap()
    };
    let (db, sink) = pipeline(config().max_concurrency(1));
    db.submit(&Own(schema("b"), 7, 0)).await.unwrap();
    db.submit(&Own(schema("a"), 1, 1)).await.unwrap();
    db.submit(&Own(schema("b"), 1, 2)).await.unwrap();
    db.flush().await.unwrap();
    let applied = sink.applied();
    let place = |column: &str| applied.iter().position(|row| id(row) == 1 && row.get(column).is_some()).unwrap();
    assert!(place("a") < place("b"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_of_a_key_keep_their_order_with_many_threads() {
    for round in 0..30 {
        let config = config()
            .flush_size(5)
            .buffer_size(64)
            .flush_interval(Duration::from_micros(if round % 2 == 0 { 0 } else { 300 }))
            .max_concurrency(3)
            .coalesce(if round % 3 == 0 { Coalesce::Off } else { Coalesce::LastPerKey });
        let (db, sink) = pipeline(config);
        sink.script((0..400).map(|write| match write % 7 {
            0 => Step::Fail(ErrorClass::Transient),
            3 => Step::Delay(Duration::from_micros(200)),
            _ => Step::Apply,
        }));
        let schema = schema(Conflict::update(["id"]));
        let tasks: Vec<_> = (0..6_i64)
            .map(|task| {
                let (db, schema) = (db.clone(), schema.clone());
                tokio::spawn(async move {
                    let mut submitted = Vec::new();
                    for value in 0..300_i64 {
                        let shape = SHAPES[(value * 7 % 4) as usize];
                        let row = row(&schema, task * 10 + value * 7 % 3, shape, value);
                        db.submit(&row).await.unwrap();
                        submitted.push(row);
                    }
                    submitted
                })
            })
            .collect();
        let mut expected = Model::default();
        for task in tasks {
            for row in task.await.unwrap() {
                expected.apply(&row);
            }
        }
        let report = db.close(HOUR).await;
        assert!(report.is_complete(), "{}", report.balance);
        assert!(sink.tables() == expected, "round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_sorted_by_key_where_the_sink_asks_for_it() {
    let check = async |ordering: Ordering, coalesce: Coalesce, conflict: Conflict, expected: &[&[(i64, i64)]]| {
        let sink = ScriptedSink::new();
        sink.sort_by_key();
        // One lane, so that there is one batch.
        sink.set_max_concurrency(1);
        let config = config().ordering(ordering).coalesce(coalesce);
        let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
        let schema = schema(conflict);
        let mut receipts = Vec::new();
        for (place, key) in [5, 3, 3, 9, 1].into_iter().enumerate() {
            receipts.push(db.submit_tracked(&row(&schema, key, &["a", "b"], place as i64)).await.unwrap());
        }
        db.flush().await.unwrap();
        let place = |row: &DynRow| match row.get("a") {
            Some(ValueRef::I64(place)) => (id(row), place),
            other => panic!("{other:?}"),
        };
        let batches: Vec<Vec<_>> = sink.batches().iter().map(|batch| batch.iter().map(place).collect()).collect();
        assert_eq!(batches, expected, "{ordering:?}");
        // The outcomes go to the right rows.
        let superseded = expected[0].len() < 5;
        for (place, receipt) in receipts.into_iter().enumerate() {
            assert_eq!(receipt.await.is_written(), place != 1 || !superseded, "row {place}");
        }
    };
    let update = || Conflict::update(["id"]);
    let sorted: &[(i64, i64)] = &[(1, 4), (3, 1), (3, 2), (5, 0), (9, 3)];
    let as_it_came: &[(i64, i64)] = &[(5, 0), (3, 1), (3, 2), (9, 3), (1, 4)];
    check(Ordering::Auto, Coalesce::Off, update(), &[sorted]).await;
    check(Ordering::None, Coalesce::Off, update(), &[sorted]).await;
    check(Ordering::PerKey, Coalesce::LastPerKey, update(), &[&[(1, 4), (3, 2), (5, 0), (9, 3)]]).await;
    check(Ordering::PerTable, Coalesce::Off, update(), &[as_it_came]).await;
    check(Ordering::Auto, Coalesce::LastPerKey, Conflict::none(), &[as_it_came]).await;
}

#[tokio::test(start_paused = true)]
async fn bad_rows_of_a_sorted_batch_are_found_under_their_own_numbers() {
    let sink = ScriptedSink::new();
    sink.sort_by_key();
    sink.poison(|row| id(row) == 3);
    let db = BatchSql::builder(sink.clone()).config(config()).start().unwrap();
    let schema = schema(Conflict::ignore(["id"]));
    let mut receipts = Vec::new();
    for key in [8, 3, 5, 1, 9] {
        receipts.push((key, db.submit_tracked(&row(&schema, key, &[], 0)).await.unwrap()));
    }
    db.flush().await.unwrap();
    for (key, receipt) in receipts {
        let outcome = receipt.await;
        assert_eq!(outcome.is_written(), key != 3, "{key}: {outcome:?}");
        assert_eq!(outcome.failure().map(|failed| id(failed.row())), (key == 3).then_some(3));
    }
}

#[tokio::test(start_paused = true)]
async fn all_rows_of_a_table_keep_their_order_whichever_key_their_schema_declares() {
    let (db, sink) = pipeline(config().ordering(Ordering::PerTable).flush_interval(Duration::ZERO));
    let by_id = schema(Conflict::update(["id"]));
    let by_both = Schema::builder("t")
        .column("id", ColumnType::I64)
        .column("a", ColumnType::I64)
        .nullable("b", ColumnType::I64)
        .on_conflict(Conflict::update(["id", "a"]))
        .build()
        .unwrap();
    sink.script([Step::Delay(Duration::from_secs(5))]);
    let first = db.submit_tracked(&row(&by_id, 1, &["a"], 1)).await.unwrap();
    settle().await;
    let second = db.submit_tracked(&row(&by_both, 2, &["a"], 1)).await.unwrap();
    settle().await;
    assert!(second.try_outcome().is_none(), "it waits for the row before it");
    assert!(first.await.is_written() && second.await.is_written());
    assert_eq!(ids(&sink.applied()), [1, 2]);
}
