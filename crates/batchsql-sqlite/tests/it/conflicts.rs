//! Conflict rules by table content, and the outcome of each row.

use batchsql_core::{ColumnType, Conflict, Schema, TableName};

use batchsql_testkit::{outcomes_of, receipts_of};

use crate::support::{HOUR, coalescing, memory, read, row, schema, write};

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, note TEXT); INSERT INTO t VALUES (1, 'old'), (3, 'old')";

#[tokio::test]
async fn a_plain_insert_rejects_duplicates_and_keeps_the_rest() {
    let sink = memory(TABLE).await;
    let schema = schema(Conflict::none());
    let rows = [row(&schema, 1, "new"), row(&schema, 2, "new"), row(&schema, 2, "again"), row(&schema, 4, "new")];
    assert_eq!(write(&sink, rows).await, ["rejected", "written", "rejected", "written"]);
    assert_eq!(read(&sink, "SELECT * FROM t ORDER BY id").await, ["1|old", "2|new", "3|old", "4|new"]);
}

#[tokio::test]
async fn ignore_keeps_the_old_row_and_says_which_were_ignored() {
    let sink = memory(TABLE).await;
    let schema = schema(Conflict::ignore(["id"]));
    let rows = (0..250).map(|id| row(&schema, id, "new"));
    let outcomes = write(&sink, rows).await;
    for (id, outcome) in outcomes.iter().enumerate() {
        assert_eq!(*outcome, if id == 1 || id == 3 { "ignored" } else { "written" }, "row {id}");
    }
    assert_eq!(read(&sink, "SELECT count(*), sum(note = 'old') FROM t").await, ["250|2"]);
    // All of them again, and twice the same key in one batch.
    let rows = (0..250).map(|id| row(&schema, id, "third"));
    assert!(write(&sink, rows).await.iter().all(|outcome| *outcome == "ignored"));
    let rows = [row(&schema, 900, "a"), row(&schema, 900, "b")];
    assert_eq!(write(&sink, rows).await, ["written", "ignored"]);
    assert_eq!(read(&sink, "SELECT note FROM t WHERE id = 900").await, ["a"]);
}

#[tokio::test]
async fn ignore_hides_only_conflicts_with_its_key() {
    let sink = memory("CREATE TABLE t (id INTEGER PRIMARY KEY, note TEXT NOT NULL UNIQUE CHECK (note <> 'bad'))").await;
    let schema = schema(Conflict::ignore(["id"]));
    let rows = [
        row(&schema, 1, "a"),
        row(&schema, 1, "b"),
        row(&schema, 2, "a"),
        row(&schema, 3, "bad"),
        row(&schema, 4, None::<String>),
        row(&schema, 5, "e"),
    ];
    assert_eq!(write(&sink, rows).await, ["written", "ignored", "rejected", "rejected", "rejected", "written"]);
    assert_eq!(read(&sink, "SELECT * FROM t ORDER BY id").await, ["1|a", "5|e"]);
}

#[tokio::test]
async fn replace_and_update_overwrite_and_the_last_row_wins() {
    for conflict in [Conflict::replace(["id"]), Conflict::update(["id"])] {
        let sink = memory(TABLE).await;
        let schema = schema(conflict);
        let rows =
            [row(&schema, 1, "new"), row(&schema, 2, "x"), row(&schema, 2, "y"), row(&schema, 3, None::<String>)];
        let db = coalescing(&sink);
        let receipts = receipts_of(&db, rows).await;
        db.close(HOUR).await;
        let outcomes = outcomes_of(receipts).await;
        let outcomes: Vec<_> = outcomes.iter().map(|outcome| outcome.kind().name()).collect();
        assert_eq!(outcomes, ["written", "superseded", "written", "written"]);
        assert_eq!(read(&sink, "SELECT * FROM t ORDER BY id").await, ["1|new", "2|y", "3|NULL"]);
    }
}

#[tokio::test]
async fn update_of_some_columns_leaves_the_others_alone() {
    let sink = memory(
        "CREATE TABLE t (a INTEGER, b TEXT, c TEXT, d TEXT DEFAULT 'default', PRIMARY KEY (a, b));
         INSERT INTO t VALUES (1, 'x', 'old c', 'old d')",
    )
    .await;
    let schema = Schema::builder("t")
        .column("a", ColumnType::I64)
        .column("b", ColumnType::Text)
        .nullable("c", ColumnType::Text)
        .nullable("d", ColumnType::Text)
        .on_conflict(Conflict::update_columns(["a", "b"], ["c"]))
        .build()
        .unwrap();
    let full = |a: i64| {
        let builder = schema.row().set("a", a).unwrap().set("b", "x").unwrap();
        builder.set("c", "new c").unwrap().set("d", "new d").unwrap().finish().unwrap()
    };
    let without_d = schema.row().set("a", 3_i64).unwrap().set("b", "x").unwrap().set("c", "c").unwrap();
    assert_eq!(write(&sink, [full(1), full(2), without_d.finish().unwrap()]).await, ["written"; 3]);
    let table = read(&sink, "SELECT * FROM t ORDER BY a").await;
    assert_eq!(table, ["1|x|new c|old d", "2|x|new c|new d", "3|x|c|default"]);
}

#[tokio::test]
async fn a_column_that_is_left_out_is_left_alone_by_an_update() {
    let sink =
        memory("CREATE TABLE t (id INTEGER PRIMARY KEY, note TEXT DEFAULT 'd'); INSERT INTO t VALUES (1, 'old')").await;
    let schema = schema(Conflict::update(["id"]));
    let without = |id: i64| schema.row().set("id", id).unwrap().finish().unwrap();
    // Nothing to update: the existing row stays unchanged.
    assert_eq!(write(&sink, [without(1), without(2)]).await, ["ignored", "written"]);
    assert_eq!(read(&sink, "SELECT * FROM t ORDER BY id").await, ["1|old", "2|d"]);
}

#[tokio::test]
async fn a_table_whose_columns_are_all_key_does_nothing_on_conflict() {
    let sink =
        memory("CREATE TABLE pairs (a INTEGER, b INTEGER, UNIQUE (a, b)); INSERT INTO pairs VALUES (1, 1)").await;
    let schema = Schema::builder("pairs")
        .column("a", ColumnType::I64)
        .column("b", ColumnType::I64)
        .on_conflict(Conflict::update(["a", "b"]))
        .build()
        .unwrap();
    let pair = |b: i64| schema.row().set("a", 1_i64).unwrap().set("b", b).unwrap().finish().unwrap();
    assert_eq!(write(&sink, [pair(1), pair(2)]).await, ["ignored", "written"]);
}

#[tokio::test]
async fn hostile_names_are_names() {
    let sink =
        memory(r#"CREATE TABLE "odd"";DROP TABLE x;--" ("a ""b""" INTEGER PRIMARY KEY, "select" TEXT, "ключ" TEXT)"#)
            .await;
    let schema = Schema::builder(TableName::qualified("main", "odd\";DROP TABLE x;--"))
        .column("a \"b\"", ColumnType::I64)
        .column("select", ColumnType::Text)
        .column("ключ", ColumnType::Text)
        .on_conflict(Conflict::update(["a \"b\""]))
        .build()
        .unwrap();
    let row = |v: &str| {
        let builder = schema.row().set("a \"b\"", 1_i64).unwrap();
        builder.set("select", v).unwrap().set("ключ", v).unwrap().finish().unwrap()
    };
    assert_eq!(write(&sink, [row("'; --"), row("日本")]).await, ["written"; 2]);
    assert_eq!(read(&sink, r#"SELECT * FROM "odd"";DROP TABLE x;--""#).await, ["1|日本|日本"]);
}

#[tokio::test]
async fn constraints_that_resolve_conflicts_themselves_do_not_confuse_the_outcomes() {
    let check = async |constraint: &'static str, expected: [&str; 4], content: &[&str]| {
        let sink = memory("").await;
        sink.call(move |conn| {
            conn.execute_batch(&format!("CREATE TABLE t (id INTEGER, note TEXT, UNIQUE (id) ON CONFLICT {constraint})"))
        })
        .await
        .unwrap();
        let schema = schema(Conflict::none());
        let rows = [row(&schema, 1, "a"), row(&schema, 2, "b"), row(&schema, 1, "c"), row(&schema, 3, "d")];
        assert_eq!(write(&sink, rows).await, expected, "{constraint}");
        assert_eq!(read(&sink, "SELECT * FROM t ORDER BY id").await, content, "{constraint}");
    };
    let one_bad = ["written", "written", "rejected", "written"];
    check("ABORT", one_bad, &["1|a", "2|b", "3|d"]).await;
    check("FAIL", one_bad, &["1|a", "2|b", "3|d"]).await;
    check("ROLLBACK", one_bad, &["1|a", "2|b", "3|d"]).await;
    check("IGNORE", ["written", "written", "ignored", "written"], &["1|a", "2|b", "3|d"]).await;
    check("REPLACE", ["written"; 4], &["1|c", "2|b", "3|d"]).await;
}
