//! The order in which a table is stored, and the rows of plain inserts that are sorted by it.

use batchsql_core::{BatchSql, ColumnType, Conflict, PipelineConfig, Schema, Sink};

use crate::support::{HOUR, memory, read, row, schema};

#[tokio::test]
async fn the_row_id_or_the_primary_key_is_the_order_of_a_table() {
    let sink = memory(
        "CREATE TABLE row_ids (note TEXT, id INTEGER PRIMARY KEY);
         CREATE TABLE other_key (note TEXT, id INT PRIMARY KEY);
         CREATE TABLE no_key (note TEXT, id INTEGER);
         CREATE TABLE clustered (note TEXT, id INTEGER, PRIMARY KEY (note, id)) WITHOUT ROWID;
         CREATE TABLE tree (note TEXT, id INTEGER PRIMARY KEY, parent INTEGER REFERENCES Tree (id));
         CREATE TABLE longer (note TEXT, id INTEGER, more INTEGER DEFAULT 0, PRIMARY KEY (id, more, note)) WITHOUT ROWID",
    )
    .await;
    let mut conn = sink.acquire().await.unwrap();
    let mut check = async |table: &str, expected: &[usize]| {
        let schema = Schema::builder(table).column("ID", ColumnType::I64).column("note", ColumnType::Text);
        let plan = sink.prepare(&mut conn, &schema.build().unwrap()).await.unwrap();
        assert_eq!(sink.storage_order(&plan), expected, "{table}");
    };
    check("row_ids", &[0]).await;
    check("other_key", &[]).await;
    check("no_key", &[]).await;
    check("clustered", &[1, 0]).await;
    // A row must not come before the row that it refers to.
    check("tree", &[]).await;
    // Rows do not carry the second column of the key.
    check("longer", &[0]).await;
}

#[tokio::test]
async fn rows_of_plain_inserts_are_appended_in_the_order_of_the_table() {
    // The sequence of `seen` shows in which order the rows were inserted.
    let sink = memory(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, note TEXT); CREATE TABLE seen (number INTEGER PRIMARY KEY, id INTEGER);
         CREATE TRIGGER follow AFTER INSERT ON t BEGIN INSERT INTO seen (id) VALUES (new.id); END",
    )
    .await;
    let config = PipelineConfig { flush_interval: HOUR, ..PipelineConfig::default() };
    let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
    let schema = schema(Conflict::None);
    db.prepare(&schema).await.unwrap();
    for id in [4, 2, 9, 1, 7] {
        db.submit(&row(&schema, id, "a")).await.unwrap();
    }
    assert!(db.close(HOUR).await.is_complete());
    assert_eq!(read(&sink, "SELECT group_concat(id) FROM (SELECT id FROM seen ORDER BY number)").await, ["1,2,4,7,9"]);
}
