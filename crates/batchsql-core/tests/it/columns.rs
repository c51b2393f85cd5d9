//! Rows that are submitted as columns: what is accepted, in which order, and what becomes of each.

use std::time::Duration;

use batchsql_core::{
    BatchSql, ColumnBuilder, ColumnType, Conflict, ErrorClass, Outcome, OutcomeKind, PipelineConfig, Schema,
    SharedRows, ValueRef, WhenFull,
};
use batchsql_testkit::{Model, Step};

use crate::admission::Strict;
use crate::support::{FAR, HOUR, config, id, ids, pipeline, plain, settle};

/// Rows with these ids, in this order.
fn rows(schema: &Schema, ids: impl IntoIterator<Item = i64>) -> SharedRows {
    let ids: Vec<i64> = ids.into_iter().collect();
    let mut rows = ColumnBuilder::new(schema, ids.len());
    for id in ids {
        rows.push(0, ValueRef::I64(id)).unwrap();
        rows.push(1, if id % 3 == 0 { ValueRef::Null } else { ValueRef::Text("n") }).unwrap();
    }
    rows.finish().unwrap()
}

#[tokio::test(start_paused = true)]
async fn more_rows_than_the_buffer_takes_are_written_with_their_outcomes() {
    let (db, sink) = pipeline(config().flush_interval(Duration::from_millis(10)).max_concurrency(2));
    sink.poison(|row| id(row) % 1000 == 7);
    let outcomes = db.submit_rows_tracked([rows(&plain(), 0..3_000), rows(&plain(), 3_000..5_000)]).await.unwrap();
    let failed: Vec<_> = outcomes.failed.iter().map(|(index, outcome)| (*index, outcome.kind())).collect();
    assert_eq!(failed, [7, 1007, 2007, 3007, 4007].map(|index| (index, OutcomeKind::Rejected)));
    let of_rows = |(index, outcome): &(usize, Outcome)| id(outcome.failure().unwrap().row()) == *index as i64;
    assert!(outcomes.failed.iter().all(of_rows));
    assert_eq!(outcomes.counts.get(OutcomeKind::Written), 4_995);
    assert_eq!(db.submit_rows([rows(&plain(), 5_000..5_100)]).await.unwrap(), 100);
    assert_eq!(db.submit_rows([rows(&plain(), [])]).await.unwrap(), 0);
    let report = db.close(HOUR).await;
    assert_eq!(report.balance.in_flight(), 0, "{report:?}");
    let mut written = ids(&sink.applied());
    written.sort_unstable();
    let expected: Vec<i64> = (0..5_100).filter(|id| id % 1000 != 7).collect();
    assert!(written == expected, "{} rows were written", written.len());
    // Each is what it was.
    let as_row = |id: i64| rows(&plain(), [id]).rows().to_row(0);
    assert!(sink.applied().iter().all(|row| *row == as_row(id(row))));
}

#[tokio::test(start_paused = true)]
async fn batches_are_full_by_rows_and_by_bytes() {
    let (db, sink) = pipeline(config().buffer_size(1000));
    db.submit_rows([rows(&plain(), 0..25)]).await.unwrap();
    settle().await;
    assert_eq!(sink.batches().iter().map(Vec::len).collect::<Vec<_>>(), [10, 10]);
    db.close(HOUR).await;
    assert_eq!(sink.applied().len(), 25);
    // A batch ends with the row that reaches the limit of bytes, as with single rows.
    let config = config().buffer_size(1000).flush_size(1000).flush_bytes(100_000);
    let by_row = sizes(config.clone(), false).await;
    assert!(by_row.len() > 1, "{by_row:?}");
    assert_eq!(sizes(config, true).await, by_row);
}

async fn sizes(config: PipelineConfig, as_columns: bool) -> Vec<usize> {
    let (db, sink) = pipeline(config);
    let note = "x".repeat(20_000);
    let mut columns = ColumnBuilder::new(&plain(), 40);
    for id in 0..40 {
        columns.push(0, ValueRef::I64(id)).unwrap();
        columns.push(1, ValueRef::Text(&note)).unwrap();
    }
    let columns = columns.finish().unwrap();
    if as_columns {
        db.submit_rows([columns]).await.unwrap();
    } else {
        for row in columns.rows().iter() {
            db.submit(&row).await.unwrap();
        }
    }
    db.close(HOUR).await;
    assert_eq!(sink.applied().len(), 40);
    sink.batches().iter().map(Vec::len).collect()
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_key_keep_their_order_with_other_rows() {
    for concurrency in [1, 3] {
        let config = config().max_concurrency(concurrency).flush_size(7).buffer_size(1000);
        let (db, sink) = pipeline(config);
        let fails = [Step::Fail(ErrorClass::Transient), Step::Delay(Duration::from_millis(50)), Step::Apply];
        sink.script(fails.into_iter().cycle().take(40));
        let schema = Schema::builder("t").column("id", ColumnType::I64).nullable("a", ColumnType::I64);
        let schema = schema.nullable("b", ColumnType::I64).on_conflict(Conflict::update(["id"])).build().unwrap();
        let mut expected = Model::default();
        // Sets of 1 to 5 rows that have other columns than the ones before them, and single rows between them.
        let mut value = 0;
        for set in 0..200_i64 {
            let columns: &[&str] = [&["id", "a", "b"][..], &["id", "a"], &["id", "b"]][(set * set % 3) as usize];
            let shape = schema.with_columns(columns.iter().copied()).unwrap();
            let count = set as usize % 5 + 1;
            let mut rows = ColumnBuilder::new(&shape, count);
            for _ in 0..count {
                value += 1;
                rows.push(0, ValueRef::I64(value * 7 % 11 * FAR)).unwrap();
                (1..columns.len()).for_each(|column| rows.push(column, ValueRef::I64(value)).unwrap());
            }
            let rows = rows.finish().unwrap();
            for row in 0..count {
                expected.apply(&rows.rows().to_row(row));
            }
            if set % 4 == 3 {
                db.submit(&rows.rows().row(0)).await.unwrap();
                db.submit_rows([rows.rows().slice(1..count).to_shared()]).await.unwrap();
            } else {
                db.submit_rows([rows]).await.unwrap();
            }
        }
        db.flush().await.unwrap();
        assert!(sink.tables() == expected, "concurrency {concurrency}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_does_not_fit_refuses_all_of_them() {
    let db = BatchSql::builder(Strict).config(config()).start().unwrap();
    let schema = Schema::builder("f").column("id", ColumnType::I64).nullable("x", ColumnType::F64).build().unwrap();
    let mut floats = ColumnBuilder::new(&schema, 300);
    for id in 0..300 {
        floats.push(0, ValueRef::I64(id)).unwrap();
        floats.push(1, ValueRef::F64(if id == 277 { f64::NAN } else { 0.5 })).unwrap();
    }
    let floats = floats.finish().unwrap();
    let error = db.submit_rows([floats.clone()]).await.unwrap_err();
    assert_eq!((error.accepted(), error.submit_error().row_error().unwrap().column()), (0, Some("x")));
    let refused = db.validate_rows(floats.rows()).unwrap_err();
    assert_eq!(refused.row, 277);
    assert!(refused.to_string().starts_with("row 277: row of table \"f\": column \"x\" has NaN"), "{refused}");
    assert_eq!(db.submit_rows([floats.rows().slice(0..277).to_shared()]).await.unwrap(), 277);
    let report = db.close(HOUR).await;
    assert_eq!((report.balance.accepted, report.balance.written()), (277, 277));
    let error = db.submit_rows([floats.rows().slice(0..1).to_shared()]).await.unwrap_err();
    assert!(error.submit_error().is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_full_buffer_says_how_many_rows_were_accepted() {
    let (db, sink) = pipeline(config().buffer_size(40).when_full(WhenFull::Reject).max_concurrency(1));
    sink.script([Step::Hang]);
    let error = db.submit_rows([rows(&plain(), 0..100)]).await.unwrap_err();
    assert!(error.submit_error().is_full(), "{error}");
    assert_eq!(error.accepted(), 40);
    // A wait for capacity that is given up keeps nothing.
    let (db, sink) = pipeline(config().buffer_size(40).max_concurrency(1));
    sink.script([Step::Hang]);
    let waiting = rows(&plain(), 0..100);
    assert!(tokio::time::timeout(Duration::from_secs(1), db.submit_rows([waiting])).await.is_err());
    let pressure = db.pressure();
    assert!(pressure > 0.9, "{pressure}");
}
