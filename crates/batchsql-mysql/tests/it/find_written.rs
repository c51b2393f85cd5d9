//! Which rows a table has exactly as they were sent: the question after a lost reply.

use batchsql_core::{ColumnType, Conflict, Date, Decimal, DynRow, Schema, Sink, Time, TimestampTz, Value};
use batchsql_mysql::MySqlSink;

use crate::support::{Database, write};

/// `id`, a version, a value, and a column that the rule does not write.
fn schema(key: ColumnType, ty: ColumnType) -> Schema {
    let schema = Schema::builder("t").column("id", key).column("v", ColumnType::I64).nullable("c", ty);
    let rule = Conflict::update_columns(["id"], ["v", "c"]).only_if_newer("v");
    schema.column("rest", ColumnType::I64).on_conflict(rule).build().unwrap()
}

fn row(schema: &Schema, id: impl Into<Value>, v: i64, c: &Value, rest: i64) -> DynRow {
    schema.row().set_all([id.into(), v.into(), c.clone(), rest.into()]).unwrap().finish().unwrap()
}

/// What the sink finds of these rows.
async fn found(sink: &MySqlSink, schema: &Schema, rows: &[DynRow]) -> Vec<u32> {
    let batch = batchsql_testkit::batch_of(rows.iter().cloned()).await;
    let mut conn = sink.acquire().await.unwrap();
    let plan = sink.prepare(&mut conn, schema).await.unwrap();
    sink.find_written(&mut conn, &plan, batch.rows()).await.unwrap()
}

#[tokio::test]
async fn only_rows_that_are_stored_as_they_were_sent_are_found() {
    let text = |text: &str| Value::from(text);
    let decimal = |text: &str| Value::from(text.parse::<Decimal>().unwrap());
    let uuid = |byte| Value::Uuid([byte; 16]);
    let at = |text: &str| Value::from(text.parse::<TimestampTz>().unwrap());
    let day = |text: &str| Value::from(text.parse::<Date>().unwrap());
    let time = |text: &str| Value::from(text.parse::<Time>().unwrap());
    // A type, a value, and others; of these the first `same` are stored alike.
    let cases: Vec<(&str, ColumnType, Value, usize, Vec<Value>)> = vec![
        ("BIGINT", ColumnType::I64, i64::MAX.into(), 1, vec![i64::MAX.into(), (i64::MAX - 1).into(), Value::Null]),
        ("BIGINT UNSIGNED", ColumnType::U64, u64::MAX.into(), 1, vec![u64::MAX.into(), (u64::MAX - 1).into()]),
        ("BOOLEAN", ColumnType::Bool, true.into(), 1, vec![true.into(), false.into()]),
        (
            "DECIMAL(30,15)",
            ColumnType::Decimal,
            decimal("1.000000000000001"),
            2,
            vec![decimal("1.000000000000001"), decimal("1.0000000000000010"), decimal("1")],
        ),
        ("DECIMAL(20,2)", ColumnType::I64, 7_i64.into(), 1, vec![7_i64.into(), 8_i64.into()]),
        ("DOUBLE", ColumnType::F64, 0.1.into(), 1, vec![0.1.into(), 0.10000000000000002.into(), (-0.1).into()]),
        ("FLOAT", ColumnType::F32, 0.1_f32.into(), 1, vec![0.1_f32.into(), 0.100_000_01_f32.into()]),
        ("DOUBLE", ColumnType::F32, 0.1_f32.into(), 1, vec![0.1_f32.into(), 0.2_f32.into()]),
        ("VARCHAR(9)", ColumnType::Text, text("a"), 1, vec![text("a"), text("A"), text("á"), text("a "), text("")]),
        ("SET('b','a')", ColumnType::Text, text("a,b"), 2, vec![text("a,b"), text("b,a"), text("a")]),
        ("LONGTEXT", ColumnType::Text, text("😀"), 1, vec![text("😀"), text("😁")]),
        ("VARBINARY(9)", ColumnType::Bytes, vec![1_u8].into(), 1, vec![vec![1_u8].into(), vec![1_u8, 0].into()]),
        ("BINARY(16)", ColumnType::Uuid, uuid(1), 1, vec![uuid(1), uuid(2)]),
        ("CHAR(36)", ColumnType::Uuid, uuid(1), 1, vec![uuid(1), uuid(2)]),
        ("DATE", ColumnType::Date, day("2026-01-31"), 1, vec![day("2026-01-31"), day("2026-02-01")]),
        ("TIME(6)", ColumnType::Time, time("12:00:00.5"), 1, vec![time("12:00:00.5"), time("12:00:00.500001")]),
        (
            "DATETIME(6)",
            ColumnType::TimestampTz,
            at("2026-01-31T12:00:00Z"),
            2,
            vec![at("2026-01-31T12:00:00Z"), at("2026-01-31T13:00:00+01:00"), at("2026-01-31T12:00:00.000001Z")],
        ),
        ("BIGINT", ColumnType::I64, Value::Null, 1, vec![Value::Null, 0_i64.into()]),
    ];
    for (ty, column, stored, same, others) in cases {
        let db =
            Database::new(&format!("CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT, c {ty} NULL, rest BIGINT)")).await;
        let schema = schema(ColumnType::I64, column);
        let ids = 0..others.len() as i64;
        let outcomes = write(&db.sink, ids.clone().map(|id| row(&schema, id, 5, &stored, 1))).await;
        assert!(outcomes.iter().all(|outcome| *outcome == "written"), "{ty}");
        let rows: Vec<DynRow> = ids.zip(&others).map(|(id, value)| row(&schema, id, 5, value, 2)).collect();
        let expected: Vec<u32> = (0..same as u32).collect();
        assert_eq!(found(&db.sink, &schema, &rows).await, expected, "{ty} {stored:?}");
        let others = [(0_i64, 6), (0, 4), (99, 5)].map(|(id, v)| row(&schema, id, v, &stored, 1));
        assert!(found(&db.sink, &schema, &others).await.is_empty(), "{ty}");
    }
}

#[tokio::test]
async fn what_cannot_be_compared_is_not_found() {
    let table = "CREATE TABLE t (id VARCHAR(9) PRIMARY KEY, v BIGINT, c VARCHAR(9), rest BIGINT);
                 CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW SET NEW.c = IF(NEW.id = 'b', 'other', NEW.c)";
    let db = Database::new(table).await;
    let text = schema(ColumnType::Text, ColumnType::Text);
    let sent = |id: &str| row(&text, id, 1, &"x".into(), 1);
    assert_eq!(write(&db.sink, ["a", "b", "c"].map(sent)).await, ["written"; 3]);
    // A key in another spelling, and a value that a trigger changed.
    assert_eq!(found(&db.sink, &text, &["A", "b", "c"].map(sent)).await, [2]);
    // Keys are searched in pieces.
    let many: Vec<DynRow> = (0..1200).map(|id| sent(&format!("k{id}"))).collect();
    assert_eq!(write(&db.sink, many.clone()).await, ["written"; 1200]);
    assert_eq!(found(&db.sink, &text, &many).await, (0..1200).collect::<Vec<u32>>());
    // A key without a form to compare, and a geometry.
    for (key, ty, of_key, column, id) in [
        ("DOUBLE", "VARCHAR(99)", ColumnType::F64, ColumnType::Text, Value::from(0.5)),
        ("BIGINT", "POINT", ColumnType::I64, ColumnType::Text, 1_i64.into()),
    ] {
        let db = Database::new(&format!("CREATE TABLE t (id {key} PRIMARY KEY, v BIGINT, c {ty}, rest BIGINT)")).await;
        let schema = schema(of_key, column);
        let row = row(&schema, id, 1, &"POINT(1 2)".into(), 1);
        assert_eq!(write(&db.sink, [row.clone()]).await, ["written"], "{key} {ty}");
        assert!(found(&db.sink, &schema, &[row]).await.is_empty(), "{key} {ty}");
    }
}
