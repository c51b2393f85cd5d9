//! Schemas that are read from the server.

use batchsql_core::{ColumnType, Conflict, ErrorClass, Schema, Sink, TableName};

use crate::support::{Database, write};

/// Name, type, whether it is nullable.
fn columns(schema: &Schema) -> Vec<(&str, ColumnType, bool)> {
    schema.columns().iter().map(|column| (column.name(), column.column_type(), column.is_nullable())).collect()
}

#[tokio::test]
async fn every_column_has_a_type_and_rows_can_be_written() {
    let db = Database::new(
        "CREATE TABLE t (
             code VARCHAR(10) NOT NULL, id BIGINT UNSIGNED AUTO_INCREMENT, ok BOOLEAN NOT NULL DEFAULT 1, a TINYINT,
             b SMALLINT UNSIGNED, c INT, d INT UNSIGNED, e DECIMAL(10,2), f FLOAT, g DOUBLE, h TEXT, i VARBINARY(10),
             j DATE, k TIME(6), l DATETIME(6), m TIMESTAMP(6) NULL, n ENUM('x','y'), o YEAR, p BIT(3), q DOUBLE(8,2),
             r INT AS (c * 2), UNIQUE (code), PRIMARY KEY (id))",
    )
    .await;
    let table = db.sink.read_schema(&"t".into()).await.unwrap();
    assert_eq!(table.key(), ["id"], "the primary key comes before other unique indexes");
    let left_out: Vec<_> = table.left_out().collect();
    assert_eq!(left_out.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["q", "r"], "{left_out:?}");
    assert!(left_out[0].1.contains("rounded") && left_out[1].1.contains("generated"), "{left_out:?}");
    let schema = table.builder(Conflict::update(table.key())).build().unwrap();
    let expected = [
        ("code", ColumnType::Text, false),
        ("id", ColumnType::U64, false),
        ("ok", ColumnType::Bool, true),
        ("a", ColumnType::I16, true),
        ("b", ColumnType::I32, true),
        ("c", ColumnType::I32, true),
        ("d", ColumnType::I64, true),
        ("e", ColumnType::Decimal, true),
        ("f", ColumnType::F32, true),
        ("g", ColumnType::F64, true),
        ("h", ColumnType::Text, true),
        ("i", ColumnType::Bytes, true),
        ("j", ColumnType::Date, true),
        ("k", ColumnType::Time, true),
        ("l", ColumnType::Timestamp, true),
        ("m", ColumnType::TimestampTz, true),
        ("n", ColumnType::Text, true),
        ("o", ColumnType::I16, true),
        ("p", ColumnType::U64, true),
    ];
    assert_eq!(columns(&schema), expected);
    let row = schema.row_from(&serde_json::json!({
        "code": "c", "id": 1, "a": -1, "b": 65535, "c": 5, "d": 4294967295_u32, "e": "19.90", "f": 0.5, "g": 0.25, "h": "t",
        "i": "\\x00ff", "j": "2026-01-31", "k": "01:02:03", "l": "2026-01-31T01:02:03", "m": "2026-01-31T01:02:03Z",
        "n": "x", "o": 2026, "p": 5,
    }));
    assert_eq!(write(&db.sink, [row.unwrap()]).await, ["written"]);
    assert_eq!(db.read("SELECT CONCAT_WS(' ', id, ok, e, n, o, r) FROM t").await, ["1 1 19.90 x 2026 10"]);
    let plain = table.builder(Conflict::none()).build().unwrap();
    let row = plain.row().set("code", "other").unwrap().finish().unwrap();
    assert_eq!(write(&db.sink, [row]).await, ["written"], "the server counts the ids of rows without one");
}

#[tokio::test]
async fn what_is_no_table_is_refused() {
    let db = Database::new("CREATE VIEW v AS SELECT 1 AS a; CREATE TABLE k (a INT, b INT, UNIQUE (b))").await;
    for (table, part) in [("v", "it is a view"), ("missing", "does not exist")] {
        let error = db.sink.read_schema(&table.into()).await.unwrap_err();
        assert!(error.class() == ErrorClass::Schema && error.to_string().contains(part), "{error}");
    }
    let named = db.sink.read_schema(&TableName::qualified(db.name.as_str(), "k")).await.unwrap();
    assert_eq!(named.key(), ["b"]);
}

#[tokio::test]
async fn all_names_of_a_table_are_one() {
    let db = Database::new("CREATE TABLE k (a INT)").await;
    let named = TableName::qualified(db.name.as_str(), "k");
    assert_eq!(db.sink.find_table(&"k".into()).await.unwrap(), named);
    assert_eq!(db.sink.find_table(&named).await.unwrap(), named);
    let error = db.sink.find_table(&"missing".into()).await.unwrap_err();
    assert!(error.class() == ErrorClass::Schema && error.to_string().contains("does not exist"), "{error}");
}
