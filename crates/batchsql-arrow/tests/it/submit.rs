//! Batches that are submitted: all of a batch or nothing, more rows than the buffer takes, and the outcome of each.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::builder::{Float32Builder, ListBuilder};
use arrow_array::{ArrayRef, FixedSizeListArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field};
use batchsql_arrow::{Mapping, SubmitBatch, SubmitBatchError};
use batchsql_core::{
    BatchSql, ColumnType, DynRow, FieldRules, MissingFields, OutcomeKind, PipelineConfig, Schema, UnknownFields, Value,
    ValueRef,
};
use batchsql_testkit::ScriptedSink;

use crate::support::{Strict, batch};

const HOUR: Duration = Duration::from_secs(3600);

fn table() -> Schema {
    Schema::builder("t").column("id", ColumnType::I64).nullable("note", ColumnType::Text).build().unwrap()
}

fn pipeline() -> (BatchSql, ScriptedSink) {
    let sink = ScriptedSink::new();
    let config = PipelineConfig::default().buffer_size(1_000).flush_size(100).flush_interval(Duration::from_millis(5));
    (BatchSql::builder(sink.clone()).config(config).start().unwrap(), sink)
}

fn notes(ids: Vec<Option<i64>>) -> RecordBatch {
    let notes: StringArray = ids.iter().map(|id| id.filter(|id| id % 3 > 0).map(|id| format!("note {id}"))).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![("note", Arc::new(notes)), ("id", Arc::new(Int64Array::from(ids)))];
    batch(columns)
}

fn id(row: &DynRow) -> i64 {
    match row.get("id") {
        Some(ValueRef::I64(id)) => id,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_may_have_more_rows_than_the_buffer() {
    let (db, sink) = pipeline();
    sink.poison(|row| id(row) == 12_345);
    let batch = notes((0..20_000).map(Some).collect());
    let mapping = Mapping::new(&table(), batch.schema_ref(), FieldRules::default()).unwrap();
    let outcomes = db.submit_batch_tracked(&mapping, &batch).await.unwrap();
    assert_eq!(outcomes.counts.get(OutcomeKind::Written), 19_999);
    let failed: Vec<usize> = outcomes.failed.iter().map(|(row, _)| *row).collect();
    assert_eq!(failed, [12_345]);
    let few = batch.slice(7, 3);
    assert_eq!(db.submit_batch(&mapping, &few).await.unwrap(), 3);
    let report = db.close(HOUR).await;
    assert_eq!((report.balance.accepted, report.balance.in_flight()), (20_003, 0));
    let applied = sink.applied();
    let row = applied.iter().find(|row| id(row) == 19_999).unwrap();
    assert_eq!(row.get("note"), Some(ValueRef::Text("note 19999")));
    let row = applied.iter().find(|row| id(row) == 19_998).unwrap();
    assert!(row.get("note").is_some_and(|note| note.is_null()));
}

#[tokio::test(start_paused = true)]
async fn a_row_that_does_not_fit_is_named_and_nothing_of_its_batch_is_accepted() {
    let (db, sink) = pipeline();
    // In the second part of the batch.
    let batch = notes((0..10_000).map(|id| (id != 9_000).then_some(id)).collect());
    let mapping = Mapping::new(&table(), batch.schema_ref(), FieldRules::default()).unwrap();
    for error in [
        db.submit_batch(&mapping, &batch).await.map(drop).unwrap_err(),
        db.submit_batch_tracked(&mapping, &batch).await.map(drop).unwrap_err(),
    ] {
        assert_eq!(error.accepted(), 0);
        let text = error.to_string();
        assert!(
            text.starts_with("no row of the batch was accepted: row 9000: row of table \"t\": column \"id\""),
            "{text}"
        );
        let SubmitBatchError::Refused(refused) = error else { panic!("{error}") };
        assert!(refused.row == 9_000 && refused.error.is_null(), "{refused}");
    }
    assert_eq!(db.flush().await.unwrap().accepted, 0);
    db.close(HOUR).await;
    assert!(sink.applied().is_empty());
    let error = db.submit_batch(&mapping, &batch.slice(0, 10)).await.unwrap_err();
    assert!(matches!(&error, SubmitBatchError::Submit(error) if error.submit_error().is_closed()), "{error}");
}

/// No row is at fault, and a batch without rows is refused too.
#[tokio::test]
async fn too_many_columns_are_an_error_without_a_row() {
    let db = BatchSql::builder(Strict).start().unwrap();
    let two = notes(vec![Some(1), Some(2)]);
    let mapping = Mapping::new(&table(), two.schema_ref(), FieldRules::default()).unwrap();
    for batch in [two.clone(), two.slice(0, 0)] {
        for error in [
            db.submit_batch(&mapping, &batch).await.map(drop).unwrap_err(),
            db.submit_batch_tracked(&mapping, &batch).await.map(drop).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(text.contains("2 columns are more than the 1") && !text.contains("row 0"), "{text}");
            let SubmitBatchError::Columns(reason) = &error else { panic!("{error}") };
            assert!(reason.is_too_large() && error.accepted() == 0, "{error}");
        }
    }
    db.close(HOUR).await;
}

#[test]
fn fields_and_columns_follow_the_rules() {
    let one = || Arc::new(Int64Array::from(vec![1])) as ArrayRef;
    let rules = FieldRules::default();
    let map = |columns: Vec<(&str, ArrayRef)>, rules| Mapping::new(&table(), batch(columns).schema_ref(), rules);
    let refused = |columns, rules, part: &str| {
        let error = map(columns, rules).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    };
    refused(
        vec![("id", one()), ("colour", one())],
        rules,
        "the field \"colour\" is not a column; the columns are id, note",
    );
    refused(vec![("note", Arc::new(StringArray::from(vec!["a"])))], rules, "column \"id\" needs a value");
    refused(vec![("id", one())], rules.missing(MissingFields::Refuse), "column \"note\" has no field");
    refused(vec![("id", one()), ("id", one())], rules, "the field \"id\" is there twice");
    let left_out = map(vec![("id", one()), ("colour", one())], rules.unknown(UnknownFields::Ignore)).unwrap();
    assert_eq!(left_out.schema().columns().len(), 1);
    let null = map(vec![("id", one())], rules.missing(MissingFields::Null)).unwrap();
    let rows = null.rows(&batch(vec![("id", one())]), 0..1).unwrap().rows;
    assert!(rows.rows().column(1).get(0).is_null());
    // A value for all rows, which a field goes before.
    let values = || [("note".to_owned(), Value::from("x")), ("id".to_owned(), Value::I64(9))];
    let alone = batch(vec![("id", one())]);
    let with_value = Mapping::with_values(&table(), alone.schema_ref(), rules, values()).unwrap();
    let rows = with_value.rows(&alone, 0..1).unwrap().rows;
    assert_eq!(rows.rows().row(0).values().collect::<Vec<_>>(), [ValueRef::I64(1), ValueRef::Text("x")]);
    // Another batch than the mapping was made for.
    let other = with_value.rows(&batch(vec![("id", Arc::new(StringArray::from(vec!["1"])))]), 0..1).unwrap_err();
    assert!(other.to_string().contains("make another mapping"), "{other}");
}

#[test]
fn rows_that_do_not_fit_are_taken_out() {
    let batch = notes(vec![Some(1), None, Some(3), None, Some(5)]);
    let mapping = Mapping::new(&table(), batch.schema_ref(), FieldRules::default()).unwrap();
    let mapped = mapping.rows(&batch, 1..5).unwrap();
    let ids: Vec<_> = (0..2).map(|row| mapped.rows.rows().column(0).get(row)).collect();
    assert_eq!((ids, mapped.numbers), (vec![ValueRef::I64(3), ValueRef::I64(5)], vec![2, 4]));
    assert_eq!(mapped.refused.iter().map(|refused| refused.row).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(Mapping::text(&batch, 0), r#"{"note":"note 1","id":1}"#);
    assert_eq!(Mapping::text(&batch, 1), r#"{"note":null,"id":null}"#);
}

/// A value that no column type holds is in the text of its row, also in a list.
#[test]
fn a_value_that_is_refused_is_in_the_text() {
    let stamps = arrow_array::TimestampNanosecondArray::from(vec![1]);
    let days = arrow_array::Date32Array::from(vec![i32::MAX]);
    let mut list = arrow_array::builder::ListBuilder::new(arrow_array::builder::Time64NanosecondBuilder::new());
    list.append_value([Some(1_000), None, Some(1)]);
    let (stamps, days, list): (ArrayRef, ArrayRef, ArrayRef) =
        (Arc::new(stamps), Arc::new(days), Arc::new(list.finish()));
    assert_eq!(
        Mapping::text(&batch(vec![("ts", stamps), ("day", days), ("times", list)]), 0),
        r#"{"ts":"1970-01-01T00:00:00.000000001","day":"+5881580-07-11","times":["00:00:00.000001",null,"00:00:00.000000001"]}"#
    );
}

/// As numbers in a column, and as in lists of typed rows; where they are accepted, they are texts.
#[tokio::test]
async fn lists_with_numbers_that_the_database_cannot_hold_are_refused() {
    let schema = Schema::builder("t").column("v", ColumnType::Json).build().unwrap();
    let strict = BatchSql::builder(Strict).start().unwrap();
    let (other, sink) = pipeline();
    let check = async |lists: ArrayRef, refused: Option<usize>, texts: &[&str]| {
        let batch = batch(vec![("v", lists)]);
        let mapping = Mapping::new(&schema, batch.schema_ref(), FieldRules::default()).unwrap();
        match (strict.submit_batch(&mapping, &batch).await, refused) {
            (Ok(rows), None) => assert_eq!(rows, texts.len()),
            (Err(error), Some(row)) => {
                let text = error.to_string();
                assert!(error.accepted() == 0 && text.contains("\"v\"") && text.contains("in a list"), "{text}");
                assert!(text.contains(&format!("row {row}")), "{text}");
            }
            (result, _) => panic!("{result:?}, expected {refused:?}"),
        }
        assert_eq!(other.submit_batch(&mapping, &batch).await.unwrap(), texts.len());
        other.flush().await.unwrap();
        let applied = sink.applied();
        let written: Vec<_> = applied.iter().rev().take(texts.len()).rev().map(|row| row.get("v").unwrap()).collect();
        assert_eq!(written, texts.iter().map(|text| ValueRef::Json(text)).collect::<Vec<_>>());
    };
    let lists = |elements: &[Option<f32>]| {
        let mut lists = ListBuilder::new(Float32Builder::new());
        lists.append_value([Some(0.5)]);
        lists.append_value(elements.iter().copied());
        Arc::new(lists.finish()) as ArrayRef
    };
    check(lists(&[Some(1.0), None]), None, &["[0.5]", "[1.0,null]"]).await;
    check(lists(&[None, Some(f32::NAN)]), Some(1), &["[0.5]", "[null,\"NaN\"]"]).await;
    let field = Arc::new(Field::new_list_field(DataType::Float64, true));
    let numbers = Arc::new(Float64Array::from(vec![f64::NEG_INFINITY, 1.0]));
    let fixed = FixedSizeListArray::new(field, 2, numbers, None);
    check(Arc::new(fixed), Some(0), &["[\"-Infinity\",1.0]"]).await;
    // A text is a text.
    let mut texts = ListBuilder::new(arrow_array::builder::StringBuilder::new());
    texts.append_value([Some("NaN")]);
    check(Arc::new(texts.finish()), None, &["[\"NaN\"]"]).await;
}
