//! The order of rows that carry different columns.

use std::time::Duration;

use batchsql_core::{ColumnType, Conflict, DynRow, ErrorClass, Ordering, PipelineConfig, Schema, ValueRef};
use batchsql_testkit::{Model, Step};

use crate::support::{Recorder, config, id, ids, pipeline};

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
        let config = PipelineConfig { max_concurrency: concurrency, flush_size: 7, buffer_size: 1000, ..config() };
        let (db, sink) = pipeline(config);
        let fails = [Step::Fail(ErrorClass::Transient), Step::Delay(Duration::from_millis(50)), Step::Apply];
        sink.script(fails.into_iter().cycle().take(40));
        let schema = schema(Conflict::update(["id"]));
        let mut expected = Model::default();
        for value in 0..500_i64 {
            let row = row(&schema, value * 7 % 11, SHAPES[(value * value % 4) as usize], value);
            expected.apply(&row);
            db.submit(&row).await.unwrap();
        }
        db.flush().await.unwrap();
        assert!(sink.tables() == expected, "concurrency {concurrency}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_due_batch_does_not_overtake_rows_that_its_newer_rows_follow() {
    let (db, sink) =
        pipeline(PipelineConfig { flush_interval: Duration::from_millis(10), max_concurrency: 1, ..config() });
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
async fn rows_with_different_keys_share_batches_however_their_columns_alternate() {
    let (db, sink) = pipeline(PipelineConfig { max_concurrency: 1, ..config() });
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
    let (db, sink) = pipeline(PipelineConfig { ordering: Ordering::PerTable, buffer_size: 1000, ..config() });
    sink.script([
        Step::Fail(ErrorClass::Transient),
        Step::Delay(Duration::from_secs(9)),
        Step::Fail(ErrorClass::Transient),
    ]);
    let schema = schema(Conflict::None);
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
