//! Which rows a table has exactly as they were sent: the question after a lost reply.

use batchsql_core::{ColumnType, Conflict, Decimal, DynRow, Json, Schema, Sink, Value};
use batchsql_sqlite::SqliteSink;

use crate::support::write;

/// `id`, a version, and a value.
fn schema(key: ColumnType, ty: ColumnType, conflict: Conflict) -> Schema {
    let schema = Schema::builder("t").column("id", key).column("v", ColumnType::I64).nullable("c", ty);
    schema.column("left", ColumnType::I64).on_conflict(conflict).build().unwrap()
}

fn newer() -> Conflict {
    Conflict::update_columns(["id"], ["v", "c"]).only_if_newer("v")
}

async fn table(sql: String) -> SqliteSink {
    let sink = SqliteSink::open("sqlite::memory:").unwrap();
    sink.call(move |conn| conn.execute_batch(&sql)).await.unwrap();
    sink
}

/// What the sink finds of these rows.
async fn found(sink: &SqliteSink, schema: &Schema, rows: &[DynRow]) -> Vec<u32> {
    let batch = batchsql_testkit::batch_of(rows.iter().cloned()).await;
    let mut conn = sink.acquire().await.unwrap();
    let plan = sink.prepare(&mut conn, schema).await.unwrap();
    sink.find_written(&mut conn, &plan, batch.rows()).await.unwrap()
}

fn row(schema: &Schema, id: impl Into<Value>, v: i64, c: &Value, left: i64) -> DynRow {
    schema.row().set_all([id.into(), v.into(), c.clone(), left.into()]).unwrap().finish().unwrap()
}

#[tokio::test]
async fn only_rows_that_are_stored_as_they_were_sent_are_found() {
    let text = |text: &str| Value::from(text);
    let decimal = |text: &str| Value::from(text.parse::<Decimal>().unwrap());
    let json = |text: &str| Value::from(text.parse::<Json>().unwrap());
    // A type, a value, and others; of these the first one is stored alike.
    let cases: Vec<(&str, ColumnType, Value, Vec<Value>)> = vec![
        ("INTEGER", ColumnType::I64, i64::MAX.into(), vec![i64::MAX.into(), (i64::MAX - 1).into(), Value::Null]),
        ("REAL", ColumnType::F64, 0.1.into(), vec![0.1.into(), 0.2.into()]),
        ("REAL", ColumnType::I32, 7_i32.into(), vec![7_i32.into(), 8_i32.into()]),
        ("TEXT", ColumnType::Text, text("a"), vec![text("a"), text("A"), text("a "), text("")]),
        ("TEXT COLLATE NOCASE", ColumnType::Text, text("a"), vec![text("a"), text("A")]),
        ("TEXT COLLATE RTRIM", ColumnType::Text, text("a"), vec![text("a"), text("a ")]),
        ("TEXT", ColumnType::Decimal, decimal("1.5"), vec![decimal("1.5"), decimal("1.50")]),
        ("BLOB", ColumnType::Bytes, vec![1_u8].into(), vec![vec![1_u8].into(), Vec::<u8>::new().into()]),
        ("BLOB", ColumnType::Uuid, Value::Uuid([1; 16]), vec![Value::Uuid([1; 16]), Value::Uuid([2; 16])]),
        ("TEXT", ColumnType::Uuid, Value::Uuid([1; 16]), vec![Value::Uuid([1; 16]), Value::Uuid([2; 16])]),
        ("TEXT", ColumnType::Json, json("{\"a\":1}"), vec![json("{\"a\":1}"), json("{\"a\": 1}")]),
        ("INTEGER", ColumnType::I64, Value::Null, vec![Value::Null, 0_i64.into()]),
    ];
    for (ty, column, stored, others) in cases {
        let sink = table(format!("CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER, c {ty}, left INTEGER)")).await;
        let schema = schema(ColumnType::I64, column, newer());
        let ids = 0..others.len() as i64;
        let outcomes = write(&sink, ids.clone().map(|id| row(&schema, id, 5, &stored, 1))).await;
        assert!(outcomes.iter().all(|outcome| *outcome == "written"), "{ty}");
        // A column that the rule does not write may differ.
        let rows: Vec<DynRow> = ids.zip(&others).map(|(id, value)| row(&schema, id, 5, value, 2)).collect();
        assert_eq!(found(&sink, &schema, &rows).await, [0], "{ty} {stored:?}");
        let others = [
            row(&schema, 0_i64, 6, &stored, 1),
            row(&schema, 0_i64, 4, &stored, 1),
            row(&schema, 99_i64, 5, &stored, 1),
        ];
        assert!(found(&sink, &schema, &others).await.is_empty(), "{ty}");
    }
}

#[tokio::test]
async fn a_row_with_another_key_is_not_found() {
    let sink =
        table("CREATE TABLE t (id TEXT COLLATE NOCASE PRIMARY KEY, v INTEGER, c TEXT, left INTEGER)".into()).await;
    let schema = schema(ColumnType::Text, ColumnType::Text, newer());
    assert_eq!(write(&sink, [row(&schema, "a", 1, &"x".into(), 1)]).await, ["written"]);
    let rows = [row(&schema, "A", 1, &"x".into(), 1), row(&schema, "a", 1, &"x".into(), 1)];
    assert_eq!(found(&sink, &schema, &rows).await, [1]);
    let sink = table(
        "CREATE TABLE t (id TEXT, v INTEGER, c TEXT, left INTEGER); CREATE UNIQUE INDEX i ON t (id) WHERE v > 1;
                      INSERT INTO t VALUES ('a', 1, 'x', 1)"
            .into(),
    )
    .await;
    let partial = self::schema(ColumnType::Text, ColumnType::Text, newer().on_partial_index("v > 1"));
    assert!(
        found(&sink, &partial, &[row(&partial, "a", 1, &"x".into(), 1)]).await.is_empty(),
        "it is not in the index"
    );
}

#[tokio::test]
async fn what_a_trigger_changed_is_not_found() {
    let sink = table(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER, c TEXT, left INTEGER);
         CREATE TRIGGER f AFTER INSERT ON t BEGIN UPDATE t SET c = 'other' WHERE id = NEW.id AND NEW.id = 1; END"
            .into(),
    )
    .await;
    let schema = schema(ColumnType::I64, ColumnType::Text, newer());
    let rows = [1, 2].map(|id: i64| row(&schema, id, 1, &"sent".into(), 1));
    assert_eq!(write(&sink, rows.clone()).await, ["written"; 2]);
    assert_eq!(found(&sink, &schema, &rows).await, [1]);
}
