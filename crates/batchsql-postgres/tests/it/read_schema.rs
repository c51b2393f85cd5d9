//! Schemas that are read from the server.

use batchsql_core::{ColumnType, Conflict, DynSink, ErrorClass, Schema, Sink};

use crate::support::{fresh, read, write};

/// Name, type, whether it is nullable.
fn columns(schema: &Schema) -> Vec<(&str, ColumnType, bool)> {
    schema.columns().iter().map(|column| (column.name(), column.column_type(), column.is_nullable())).collect()
}

const TABLE: &str = "
    CREATE DOMAIN code AS varchar(10) NOT NULL;
    CREATE TYPE state AS ENUM ('open', 'closed');
    CREATE TABLE t (
        name text UNIQUE, id bigserial PRIMARY KEY, ok boolean NOT NULL, a smallint, b integer, c real, d double precision,
        e numeric(10,2), f bytea, g uuid, h jsonb, i date, j time, k timestamp, l timestamptz NOT NULL DEFAULT now(),
        m inet, n int[], o code, p state, q \"char\", r bigint GENERATED ALWAYS AS IDENTITY,
        s integer GENERATED ALWAYS AS (b * 2) STORED)";

#[tokio::test]
async fn every_column_has_a_type_and_rows_can_be_written() {
    let sink = fresh(TABLE).await;
    let table = sink.read_schema(&"t".into()).await.unwrap();
    assert_eq!(table.key(), ["id"], "the primary key comes before other unique indexes");
    let left_out: Vec<_> = table.left_out().collect();
    let names: Vec<_> = left_out.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["q", "r", "s"], "{left_out:?}");
    let schema = table.builder(Conflict::update(table.key())).build().unwrap();
    let expected = [
        ("name", ColumnType::Text, true),
        ("id", ColumnType::I64, false),
        ("ok", ColumnType::Bool, false),
        ("a", ColumnType::I16, true),
        ("b", ColumnType::I32, true),
        ("c", ColumnType::F32, true),
        ("d", ColumnType::F64, true),
        ("e", ColumnType::Decimal, true),
        ("f", ColumnType::Bytes, true),
        ("g", ColumnType::Uuid, true),
        ("h", ColumnType::Json, true),
        ("i", ColumnType::Date, true),
        ("j", ColumnType::Time, true),
        ("k", ColumnType::Timestamp, true),
        ("l", ColumnType::TimestampTz, true),
        ("m", ColumnType::Text, true),
        ("n", ColumnType::Json, true),
        ("o", ColumnType::Text, false),
        ("p", ColumnType::Text, true),
    ];
    assert_eq!(columns(&schema), expected);
    let row = schema.row_from(&serde_json::json!({
        "id": 100, "ok": true, "a": 2, "b": 3, "c": 0.5, "d": 0.25, "e": "19.90", "f": "\\x00ff",
        "g": "07070707-0707-0707-0707-070707070707", "h": {"a": 1}, "i": "2026-01-31", "j": "01:02:03",
        "k": "2026-01-31T01:02:03", "m": "10.0.0.1", "n": [1, 2], "o": "code", "p": "open",
    }));
    assert_eq!(write(&sink, [row.unwrap()]).await, ["written"]);
    assert_eq!(
        read(&sink, "SELECT concat_ws(' ', e, m, n, o, p, s, l > '2020-01-01') FROM t").await,
        ["19.90 10.0.0.1 {1,2} code open 6 t"]
    );
    let plain = table.builder(Conflict::none()).build().unwrap();
    let row = plain.row().set("ok", true).unwrap().set("o", "x").unwrap().finish().unwrap();
    assert_eq!(write(&sink, [row]).await, ["written"], "the server counts the ids of rows without one");
}

#[tokio::test]
async fn what_is_no_table_is_refused() {
    let sink = fresh("CREATE VIEW v AS SELECT 1 AS a; CREATE TABLE \"T\" (a int)").await;
    // A sink that is chosen at run time can be asked too.
    let sink = DynSink::new((*sink).clone());
    for (table, part) in [("v", "a view"), ("missing", "does not exist"), ("t", "there is a table \"T\"")] {
        let error = sink.read_schema(&table.into()).await.unwrap_err();
        assert!(error.class() == ErrorClass::Schema && error.to_string().contains(part), "{error}");
    }
    assert_eq!(sink.read_schema(&"T".into()).await.unwrap().key(), [""; 0]);
}

#[tokio::test]
async fn all_names_of_a_table_are_one() {
    let table = "CREATE TABLE \"T\" (a int)";
    let schemas = (fresh(table).await, fresh(table).await);
    let (one, other) = (DynSink::new((*schemas.0).clone()), DynSink::new((*schemas.1).clone()));
    let found = one.find_table(&"T".into()).await.unwrap();
    assert_eq!(found.name(), "T");
    assert_eq!(one.find_table(&found).await.unwrap(), found);
    assert_eq!(other.find_table(&found).await.unwrap(), found);
    assert_ne!(other.find_table(&"T".into()).await.unwrap(), found);
    let error = one.find_table(&"t".into()).await.unwrap_err();
    assert!(error.class() == ErrorClass::Schema && error.to_string().contains("there is a table \"T\""), "{error}");
}
