//! Schemas that are read from the database.

use batchsql_core::{BatchSql, ColumnType, Conflict, ErrorClass, Schema, Sink, TableName};

use crate::support::{memory, read, write};

/// Name, type, whether it is nullable.
fn columns(schema: &Schema) -> Vec<(&str, ColumnType, bool)> {
    schema.columns().iter().map(|column| (column.name(), column.column_type(), column.is_nullable())).collect()
}

#[tokio::test]
async fn every_column_has_a_type_and_rows_can_be_written() {
    let sink = memory(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT NOT NULL, size REAL, data BLOB, ok BOOLEAN NOT NULL DEFAULT 1,
                         at TIMESTAMPTZ, day DATE, code UUID, price DECIMAL(10, 2), twice AS (size * 2))",
    )
    .await;
    let table = sink.read_schema(&"t".into()).await.unwrap();
    assert_eq!(table.key(), ["id"]);
    let left_out: Vec<_> = table.left_out().collect();
    assert_eq!(left_out.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["price", "twice"]);
    assert!(left_out[0].1.contains("DECIMAL(10, 2)") && left_out[1].1.contains("generated"), "{left_out:?}");
    let db = BatchSql::builder(sink.clone()).start().unwrap();
    // Its reason says how it can be written.
    let price = |ty| table.builder(Conflict::update(table.key())).nullable("price", ty).build().unwrap();
    for ty in [ColumnType::I64, ColumnType::F64] {
        db.prepare(&price(ty)).await.unwrap();
        assert!(left_out[0].1.contains(&format!("{ty:?}")), "{left_out:?}");
    }
    let error = db.prepare(&price(ColumnType::Decimal)).await.unwrap_err();
    assert!(left_out[0].1.contains("declare it TEXT") && error.to_string().contains("declare it TEXT"), "{error}");
    let schema = table.builder(Conflict::update(table.key())).build().unwrap();
    let expected = [
        ("id", ColumnType::I64, false),
        ("name", ColumnType::Text, false),
        ("size", ColumnType::F64, true),
        ("data", ColumnType::Bytes, true),
        ("ok", ColumnType::Bool, true),
        ("at", ColumnType::TimestampTz, true),
        ("day", ColumnType::Date, true),
        ("code", ColumnType::Uuid, true),
    ];
    assert_eq!(columns(&schema), expected);
    let row = schema.row_from(&serde_json::json!({
        "id": 1, "name": "n", "size": 0.5, "data": "\\x00", "at": "2026-01-31T00:00:00Z", "day": "2026-01-31",
        "code": "07070707-0707-0707-0707-070707070707",
    }));
    assert_eq!(write(&sink, [row.unwrap()]).await, ["written"]);
    assert_eq!(read(&sink, "SELECT id || name || ok FROM t").await, ["1n1"]);
    let plain = table.builder(Conflict::none()).build().unwrap();
    assert_eq!(write(&sink, [plain.row().set("name", "x").unwrap().finish().unwrap()]).await, ["written"]);
    assert_eq!(read(&sink, "SELECT max(id) FROM t").await, ["2"], "SQLite counts the ids of rows without one");
}

#[tokio::test]
async fn the_key_is_the_primary_key_or_a_unique_index() {
    let sink = memory(
        "CREATE TABLE both (a INT, b INT, c INT UNIQUE, PRIMARY KEY (b, a)) STRICT;
         CREATE TABLE one (a INT, b INT, c INT, UNIQUE (b, c));
         CREATE UNIQUE INDEX some ON one (a) WHERE a > 0;
         CREATE UNIQUE INDEX computed ON one (a + 1);
         CREATE TABLE none (a INT)",
    )
    .await;
    for (table, key) in [("both", &["b", "a"][..]), ("one", &["b", "c"]), ("none", &[])] {
        assert_eq!(sink.read_schema(&table.into()).await.unwrap().key(), key, "{table}");
    }
    let named = sink.read_schema(&TableName::qualified("main", "both")).await.unwrap();
    assert_eq!(named.builder(Conflict::none()).build().unwrap().table_display(), "main.both");
}

#[tokio::test]
async fn what_is_no_table_is_refused() {
    let sink = memory("CREATE VIEW v AS SELECT 1 AS a").await;
    for (table, part) in [("v", "view"), ("missing", "missing"), ("sqlite_schema", "sqlite_schema")] {
        let error = sink.read_schema(&table.into()).await.unwrap_err();
        assert!(error.class() == ErrorClass::Schema && error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn all_names_of_a_table_are_one() {
    let sink = memory("CREATE TABLE Orders (a INT)").await;
    let names = ["orders", "ORDERS", "Orders"].map(TableName::new);
    for name in names.into_iter().chain([TableName::qualified("MAIN", "orders")]) {
        assert_eq!(sink.find_table(&name).await.unwrap(), TableName::qualified("main", "Orders"), "{name}");
    }
    let error = sink.find_table(&"missing".into()).await.unwrap_err();
    assert!(error.class() == ErrorClass::Schema && error.to_string().contains("missing"), "{error}");
}
