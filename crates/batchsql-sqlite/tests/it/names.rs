//! Names with a special meaning in SQLite.

use batchsql_core::{ColumnType, Conflict, ErrorClass, Expr, Schema, SchemaBuilder, Sink, TableName};
use batchsql_testkit::batch_of;

use crate::support::{HOUR, memory, pipeline, read, row, schema};

#[tokio::test]
async fn names_that_sqlite_would_take_for_others_are_refused_with_advice() {
    let sink = memory(
        "CREATE TABLE t (id INTEGER, a TEXT); CREATE TABLE \"main.dotted\" (id INTEGER);
         CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO counted DEFAULT VALUES;
         CREATE VIRTUAL TABLE boxes USING rtree (id, low, high)",
    )
    .await;
    let db = pipeline(&sink);
    let check = async |builder: SchemaBuilder, part: &str| {
        let error = db.prepare(&builder.build().unwrap()).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Schema, "{error}");
        assert!(error.to_string().contains(part), "{error} does not contain {part:?}");
    };
    let named = |name: &str| Schema::builder(name).column("id", ColumnType::I64);
    check(named("main.t"), "use TableName::qualified(\"main\", \"t\")").await;
    check(named("main.nowhere"), "it does not exist; create it").await;
    check(named("sqlite_sequence"), "are reserved").await;
    check(named("SQLite_Sequence"), "are reserved").await;
    check(named("boxes_rowid"), "part of a virtual table").await;
    check(named("t").column("a", ColumnType::Text).column("A", ColumnType::Text), "\"a\" and \"A\" are one").await;
    check(named("t").column("ID", ColumnType::I64), "\"id\" and \"ID\" are one").await;
    // A dot that is part of the name, and a name with its database.
    db.prepare(&named("main.dotted").build().unwrap()).await.unwrap();
    let qualified = Schema::builder(TableName::qualified("main", "counted")).column("id", ColumnType::I64);
    db.prepare(&qualified.build().unwrap()).await.unwrap();
}

#[tokio::test]
async fn one_table_has_one_name() {
    let sink = memory("CREATE TABLE t (id INTEGER); ATTACH ':memory:' AS aux; CREATE TABLE aux.t (id INTEGER)").await;
    let db = pipeline(&sink);
    let named = |name: TableName| Schema::builder(name).column("id", ColumnType::I64).build().unwrap();
    db.prepare(&named(TableName::new("t"))).await.unwrap();
    for other in [TableName::new("T"), TableName::qualified("main", "t"), TableName::qualified("MAIN", "t")] {
        let error = db.prepare(&named(other.clone())).await.unwrap_err();
        assert!(error.to_string().contains("same table as t"), "{other}: {error}");
    }
    // The table with that name in another database is a different table.
    db.prepare(&named(TableName::qualified("aux", "t"))).await.unwrap();
    db.prepare(&named(TableName::new("t"))).await.unwrap();
}

/// Its rows would end with the connection, and nobody else would see them.
#[tokio::test]
async fn a_temporary_table_takes_no_row_in() {
    let rules = [
        (Conflict::none(), 2, "2|x"),
        (Conflict::ignore(["id"]), 2, "2|x"),
        (Conflict::update(["id"]), 1, "1|x"),
        (Conflict::update(["id"]).set("note", Expr::unless_null()), 1, "1|x"),
        (Conflict::update_only(["id"]), 1, "1|x"),
    ];
    let hides = ["CREATE TEMP TABLE t (id INTEGER PRIMARY KEY, note TEXT)", "CREATE TEMP VIEW t AS SELECT 1 AS id"];
    for ((conflict, id, expected), hide) in rules.iter().flat_map(|rule| hides.map(|hide| (rule, hide))) {
        for is_planned_before in [true, false] {
            let sink =
                memory("CREATE TABLE t (id INTEGER PRIMARY KEY, note TEXT); INSERT INTO t VALUES (1, 'a')").await;
            let (db, schema) = (pipeline(&sink), schema(conflict.clone()));
            if is_planned_before {
                db.prepare(&schema).await.unwrap();
            }
            sink.call(move |conn| conn.execute_batch(hide)).await.unwrap();
            let receipt = db.submit_tracked(&row(&schema, *id, "x")).await.unwrap();
            db.close(HOUR).await;
            assert_eq!(receipt.await.kind().name(), "written", "{hide}, {conflict:?}");
            assert_eq!(read(&sink, "SELECT * FROM main.t").await.last().unwrap(), expected, "{hide}, {conflict:?}");
            let mut conn = sink.acquire().await.unwrap();
            let plan = sink.prepare(&mut conn, &schema).await.unwrap();
            let batch = batch_of([row(&schema, *id, "x")]).await;
            assert_eq!(sink.find_written(&mut conn, &plan, batch.rows()).await.unwrap(), [0], "{hide}, {conflict:?}");
        }
    }
    // It has no other.
    let sink = memory("CREATE TEMP TABLE t (id INTEGER PRIMARY KEY, note TEXT)").await;
    let error = pipeline(&sink).prepare(&schema(Conflict::none())).await.unwrap_err();
    assert!(error.class() == ErrorClass::Schema && error.to_string().contains("it is temporary"), "{error}");
    let error = sink.read_schema(&TableName::new("t")).await.unwrap_err();
    assert!(error.to_string().contains("it is temporary"), "{error}");
    // As the error says.
    let named = Schema::builder(TableName::qualified("temp", "t")).column("id", ColumnType::I64).build().unwrap();
    pipeline(&sink).prepare(&named).await.unwrap();
}

#[tokio::test]
async fn a_row_without_any_value_is_refused_with_advice() {
    let sink = memory("CREATE TABLE t (id INTEGER PRIMARY KEY, note TEXT)").await;
    let schema = Schema::builder("t").nullable("id", ColumnType::I64).nullable("note", ColumnType::Text);
    let schema = schema.build().unwrap();
    let error = schema.row().finish().unwrap_err().to_string();
    assert!(error.contains("no value") && error.contains("NULL"), "{error}");
    // As advised: the database generates the key.
    let db = pipeline(&sink);
    db.submit(&schema.row().set("note", batchsql_core::Value::Null).unwrap().finish().unwrap()).await.unwrap();
    assert_eq!(db.close(HOUR).await.balance.written(), 1);
    assert_eq!(read(&sink, "SELECT id, note FROM t").await, ["1|NULL"]);
}
