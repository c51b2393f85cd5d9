//! Errors of the table, and the advice of their messages.

use std::time::Duration;

use batchsql_core::{
    BatchSql, ColumnType, Conflict, ErrorClass, Outcome, PipelineConfig, Schema, SchemaBuilder, Value,
};
use batchsql_sqlite::rusqlite::{Connection, ffi};
use batchsql_sqlite::{SqliteOptions, SqliteSink};
use batchsql_testkit::{outcomes_of, receipts_of};

use crate::support::{HOUR, memory, outcomes, pipeline, read, row, schema, write};

#[tokio::test]
async fn tables_that_cannot_be_written_are_refused_with_advice() {
    let sink = memory(
        "CREATE TABLE t (id INTEGER, price DECIMAL(10,2), name TEXT, big REAL, must TEXT NOT NULL DEFAULT 'x',
                         twice INTEGER GENERATED ALWAYS AS (id * 2));
         CREATE TABLE needs (id INTEGER, other TEXT NOT NULL);
         CREATE TABLE keyed (id INTEGER NOT NULL, part TEXT NOT NULL, PRIMARY KEY (id, part));
         CREATE VIEW v AS SELECT 1 AS id",
    )
    .await;
    let db = pipeline(&sink);
    let check = async |builder: SchemaBuilder, part: &str| {
        let error = db.prepare(&builder.build().unwrap()).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Schema, "{error}");
        assert!(error.to_string().contains(part), "{error} does not contain {part:?}");
    };
    let t = || Schema::builder("t").column("id", ColumnType::I64);
    check(Schema::builder("nowhere").column("id", ColumnType::I64), "nowhere: it does not exist; create it").await;
    check(t().column("nope", ColumnType::Text), "it has no column \"nope\"").await;
    check(t().column("price", ColumnType::Decimal), "declared \"DECIMAL(10,2)\"").await;
    check(t().column("name", ColumnType::F64), "rounded text").await;
    check(t().column("big", ColumnType::U64), "floating point").await;
    check(t().column("twice", ColumnType::I64), "\"twice\" is generated").await;
    check(t().on_conflict(Conflict::ignore(["id"])), "PRIMARY KEY or UNIQUE index over exactly these").await;
    check(Schema::builder("needs").column("id", ColumnType::I64), "\"other\" is NOT NULL without a default").await;
    check(Schema::builder("v").column("id", ColumnType::I64), "it is a view").await;
    check(Schema::builder("keyed").column("id", ColumnType::I64), "\"part\" is NOT NULL without a default").await;
    // Names are compared as SQLite compares them.
    db.prepare(&Schema::builder("T").column("ID", ColumnType::I64).build().unwrap()).await.unwrap();
}

/// SQLite cannot take back what a refused statement has written.
#[tokio::test]
async fn without_a_journal_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().join("aside").display().to_string();
    for (database, journal) in [("main", "MEMORY"), ("aside", "DELETE")] {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(&format!("ATTACH '{name}' AS aside")).unwrap();
        let table = format!("CREATE TABLE {database}.t (id INTEGER, note TEXT CHECK (note <> 'bad'))");
        conn.execute_batch(&format!("{table}; PRAGMA {database}.journal_mode = OFF")).unwrap();
        let sink = SqliteSink::from_connection(conn).unwrap();
        let schema = schema(Conflict::none());
        let error = pipeline(&sink).prepare(&schema).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Schema);
        assert!(error.to_string().contains("is off") && error.to_string().contains("use WAL or DELETE"), "{error}");
        let bad = || [row(&schema, 2, "good"), row(&schema, 3, "bad"), row(&schema, 4, "good")];
        assert_eq!(write(&sink, bad()).await, ["rejected"; 3]);

        // Also if it is set when the table was accepted before.
        let set = |mode: &str| format!("PRAGMA {database}.journal_mode = {mode}");
        let (on, off) = (set(journal), set("OFF"));
        sink.call(move |conn| conn.execute_batch(&on)).await.unwrap();
        let db = pipeline(&sink);
        let mut receipts = receipts_of(&db, [row(&schema, 1, "good")]).await;
        db.flush().await.unwrap();
        sink.call(move |conn| conn.execute_batch(&off)).await.unwrap();
        receipts.extend(receipts_of(&db, bad()).await);
        db.close(HOUR).await;
        let ends: Vec<_> = outcomes_of(receipts).await.iter().map(|outcome| outcome.kind().name()).collect();
        assert_eq!(ends, ["written", "rejected", "rejected", "rejected"], "{database}");
        assert_eq!(read(&sink, "SELECT id FROM t").await, ["1"], "{database}");
    }
}

#[tokio::test]
async fn one_error_has_all_problems_of_a_table() {
    let sink = memory(
        "CREATE TABLE t (id INTEGER, price DECIMAL(10,2), other TEXT NOT NULL, more TEXT NOT NULL,
                         twice INTEGER GENERATED ALWAYS AS (id * 2))",
    )
    .await;
    let schema = Schema::builder("t").column("id", ColumnType::I64).column("price", ColumnType::Decimal);
    let schema = schema.column("twice", ColumnType::I64).column("a", ColumnType::Text).column("b", ColumnType::Text);
    let schema = schema.on_conflict(Conflict::update(["id"])).build().unwrap();
    let error = pipeline(&sink).prepare(&schema).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Schema, "{error}");
    let text = error.to_string();
    assert!(text.starts_with("table t: 6 problems: (1) its column \"price\" is declared"), "{text}");
    for part in [
        "(2) its column \"twice\" is generated",
        "(3) it has no columns \"a\", \"b\"; add them with ALTER TABLE",
        "(4) its column \"other\" is NOT NULL without a default",
        "(5) its column \"more\" is NOT NULL without a default",
        "(6) rows cannot be written with conflict key (id); a PRIMARY KEY or UNIQUE index",
    ] {
        assert!(text.contains(part), "{text} does not contain {part:?}");
    }
    // The index of a key that the table has not is no second problem.
    let schema = Schema::builder("t").column("nope", ColumnType::I64).column("other", ColumnType::Text);
    let schema = schema.column("more", ColumnType::Text).on_conflict(Conflict::ignore(["nope"])).build().unwrap();
    let text = pipeline(&sink).prepare(&schema).await.unwrap_err().to_string();
    assert!(text.starts_with("table t: it has no column \"nope\"; "), "{text}");
}

#[tokio::test]
async fn rows_for_a_missing_table_come_back_and_other_tables_go_on() {
    let sink = memory("CREATE TABLE t (id INTEGER, note TEXT)").await;
    let db = pipeline(&sink);
    let nowhere = Schema::builder("nowhere").column("id", ColumnType::I64).build().unwrap();
    let lost = db.submit_tracked(&nowhere.row().set("id", 7_i64).unwrap().finish().unwrap()).await.unwrap();
    db.submit(&row(&schema(Conflict::none()), 1, "a")).await.unwrap();
    let report = db.close(HOUR).await;
    assert_eq!((report.balance.written(), report.balance.failed()), (1, 1));
    match lost.await {
        Outcome::Rejected(failed) => {
            assert_eq!(failed.class(), Some(ErrorClass::Schema));
            assert_eq!(failed.row().get("id"), Some(batchsql_core::ValueRef::I64(7)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(report.unwritten.len(), 1);
}

#[tokio::test]
async fn a_table_that_changes_under_the_pipeline_is_looked_at_again() {
    let sink = memory("CREATE TABLE t (id INTEGER, note TEXT)").await;
    let config = PipelineConfig::default().park_for(Duration::ZERO);
    let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
    let schema = schema(Conflict::none());
    db.submit(&row(&schema, 1, "a")).await.unwrap();
    assert_eq!(db.flush().await.unwrap().written(), 1);
    sink.call(|conn| conn.execute_batch("DROP TABLE t")).await.unwrap();
    let gone = db.submit_tracked(&row(&schema, 2, "b")).await.unwrap();
    db.flush().await.unwrap();
    assert!(gone.await.failure().unwrap().error().unwrap().to_string().contains("does not exist"));
    sink.call(|conn| conn.execute_batch("CREATE TABLE t (note TEXT, id INTEGER, more TEXT)")).await.unwrap();
    db.submit(&row(&schema, 3, "c")).await.unwrap();
    assert_eq!(db.flush().await.unwrap().written(), 2);
    assert_eq!(read(&sink, "SELECT id, note, more FROM t").await, ["3|c|NULL"]);
}

#[tokio::test]
async fn bad_rows_in_a_large_batch_are_found_exactly() {
    let sink = memory("CREATE TABLE t (id INTEGER PRIMARY KEY, note TEXT CHECK (length(note) < 5))").await;
    let schema = schema(Conflict::none());
    let bad = [0_i64, 99, 100, 250, 499];
    let rows = (0..500).map(|id| row(&schema, id, if bad.contains(&id) { "too long" } else { "ok" }));
    for (id, outcome) in (0..500).zip(outcomes(&sink, rows).await) {
        match outcome {
            Outcome::Written => assert!(!bad.contains(&id), "row {id}"),
            Outcome::Rejected(failed) => {
                assert!(bad.contains(&id), "row {id}");
                assert_eq!((failed.class(), failed.code()), (Some(ErrorClass::Row), Some("275")));
                assert!(!failed.error().unwrap().to_string().contains("too long"));
            }
            other => panic!("row {id}: {other:?}"),
        }
    }
    assert_eq!(read(&sink, "SELECT count(*) FROM t").await, ["495"]);
}

#[tokio::test]
async fn each_kind_of_constraint_rejects_exactly_its_rows_with_its_code() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("constraints.db");
    let sink = SqliteSink::with_options(&SqliteOptions::file(&path)).unwrap();
    let sql = "CREATE TABLE parents (id INTEGER PRIMARY KEY); INSERT INTO parents VALUES (1);
         CREATE TABLE t (id INTEGER PRIMARY KEY, note TEXT NOT NULL CHECK (note <> 'checked'), u INTEGER UNIQUE,
                         parent INTEGER NOT NULL REFERENCES parents);
         INSERT INTO t VALUES (-1, 'old', -7, 1);
         CREATE TRIGGER no BEFORE INSERT ON t WHEN new.note = 'raised' BEGIN SELECT RAISE(ABORT, 'raised'); END";
    sink.call(|conn| conn.execute_batch(sql)).await.unwrap();
    let schema = Schema::builder("t")
        .column("id", ColumnType::I64)
        .nullable("note", ColumnType::Text)
        .column("u", ColumnType::I64)
        .column("parent", ColumnType::I64)
        .build()
        .unwrap();
    // At both ends of the batch and of its statements, alone and side by side.
    let bad = |n: i64| match n {
        0 | 400 => Some(ffi::SQLITE_CONSTRAINT_NOTNULL),
        1 | 399 => Some(ffi::SQLITE_CONSTRAINT_CHECK),
        2 | 498 => Some(ffi::SQLITE_CONSTRAINT_UNIQUE),
        99 | 333 => Some(ffi::SQLITE_CONSTRAINT_FOREIGNKEY),
        100 | 101 => Some(ffi::SQLITE_CONSTRAINT_TRIGGER),
        250 | 499 => Some(ffi::SQLITE_CONSTRAINT_PRIMARYKEY),
        _ => None,
    };
    let rows = (0..500_i64).map(|n| {
        let code = bad(n);
        let is = |kind| code == Some(kind);
        let note = match code {
            Some(ffi::SQLITE_CONSTRAINT_NOTNULL) => Value::Null,
            Some(ffi::SQLITE_CONSTRAINT_CHECK) => "checked".into(),
            Some(ffi::SQLITE_CONSTRAINT_TRIGGER) => "raised".into(),
            _ => "good".into(),
        };
        // A key of the same batch, or the one that existed before.
        let id = if is(ffi::SQLITE_CONSTRAINT_PRIMARYKEY) { 10 } else { n };
        let u = if is(ffi::SQLITE_CONSTRAINT_UNIQUE) { [-7, 20][(n > 250) as usize] } else { n };
        let parent = if is(ffi::SQLITE_CONSTRAINT_FOREIGNKEY) { 2 } else { 1 };
        schema.row().set_all([Value::I64(id), note, Value::I64(u), Value::I64(parent)]).unwrap().finish().unwrap()
    });
    for (n, outcome) in (0..).zip(outcomes(&sink, rows).await) {
        match (outcome, bad(n)) {
            (Outcome::Written, None) => {}
            (Outcome::Rejected(failed), Some(code)) => {
                assert_eq!((failed.class(), failed.code()), (Some(ErrorClass::Row), Some(&*code.to_string())), "{n}");
            }
            (other, expected) => panic!("row {n}: {other:?}, not {expected:?}"),
        }
    }
    // Read through another connection.
    let conn = Connection::open(&path).unwrap();
    let mut statement =
        conn.prepare("SELECT id FROM t WHERE note = 'good' AND u = id AND parent = 1 ORDER BY id").unwrap();
    let good: Vec<i64> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(good, (0..500).filter(|n| bad(*n).is_none()).collect::<Vec<_>>());
    assert_eq!(read(&sink, "SELECT count(*) - 488, sum(id < 0) FROM t").await, ["1|1"]);
}

#[tokio::test]
async fn deferred_foreign_keys_that_fail_at_the_commit_are_isolated() {
    let sink = memory(
        "CREATE TABLE parents (id INTEGER PRIMARY KEY); INSERT INTO parents VALUES (1);
         CREATE TABLE t (id INTEGER PRIMARY KEY, note TEXT,
                         parent INTEGER NOT NULL REFERENCES parents DEFERRABLE INITIALLY DEFERRED)",
    )
    .await;
    let schema = Schema::builder("t").column("id", ColumnType::I64).column("parent", ColumnType::I64).build().unwrap();
    let rows = (0..20).map(|id| {
        let parent = if id == 7 { 2_i64 } else { 1 };
        schema.row().set("id", id as i64).unwrap().set("parent", parent).unwrap().finish().unwrap()
    });
    let outcomes = write(&sink, rows).await;
    for (id, outcome) in outcomes.iter().enumerate() {
        assert_eq!(*outcome, if id == 7 { "rejected" } else { "written" }, "row {id}");
    }
}

#[tokio::test]
async fn what_a_trigger_says_is_not_repeated() {
    let sink = memory(
        "CREATE TABLE t (id INTEGER, note TEXT);
         CREATE TRIGGER no BEFORE INSERT ON t WHEN new.note = 'secret' BEGIN SELECT RAISE(ABORT, 'secret'); END",
    )
    .await;
    let schema = schema(Conflict::none());
    let outcomes = outcomes(&sink, [row(&schema, 1, "a"), row(&schema, 2, "secret")]).await;
    let error = outcomes[1].failure().unwrap().error().unwrap().to_string();
    assert!(error.contains("code 1811") && !error.contains("secret"), "{error}");
    assert!(outcomes[0].is_written());
}

#[tokio::test]
async fn a_refused_row_leaves_nothing_behind_whatever_its_trigger_does() {
    let sink = memory(
        "CREATE TABLE t (id INTEGER, note TEXT); CREATE TABLE log (note TEXT);
         CREATE TRIGGER before BEFORE INSERT ON t BEGIN INSERT INTO log VALUES (new.note); END;
         CREATE TRIGGER after AFTER INSERT ON t WHEN new.note = 'bad' BEGIN SELECT RAISE(FAIL, 'no'); END",
    )
    .await;
    let schema = schema(Conflict::none());
    for rows in [vec!["a", "bad", "b"], vec!["bad"]] {
        let rows = rows.into_iter().map(|note| row(&schema, 1, note));
        let outcomes = write(&sink, rows).await;
        assert!(outcomes.contains(&"rejected"), "{outcomes:?}");
    }
    assert_eq!(read(&sink, "SELECT note FROM t").await, ["a", "b"]);
    assert_eq!(read(&sink, "SELECT note FROM log").await, ["a", "b"]);
}

#[tokio::test]
async fn a_row_that_makes_an_expression_of_the_table_fail_is_rejected_alone_and_not_quoted() {
    let sink = memory("CREATE TABLE t (id INTEGER, note TEXT); CREATE INDEX i ON t (json_extract('[1]', note))").await;
    let schema = schema(Conflict::none());
    let rows = (0..50).map(|id| row(&schema, id, if id == 20 { "secret path" } else { "$[0]" }));
    let outcomes = outcomes(&sink, rows).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_written()).count(), 49);
    let failed = outcomes[20].failure().unwrap();
    assert_eq!(failed.class(), Some(ErrorClass::Row));
    assert!(!failed.error().unwrap().to_string().contains("secret"));
}

#[tokio::test]
async fn a_schema_that_takes_the_place_of_a_dropped_one_gets_its_own_plan() {
    let sink = memory("CREATE TABLE a (id INTEGER); CREATE TABLE b (id INTEGER, n INTEGER)").await;
    let db = pipeline(&sink);
    let a = Schema::builder("a").column("id", ColumnType::I64).build().unwrap();
    db.prepare(&a).await.unwrap();
    drop(a);
    let b = Schema::builder("b").column("id", ColumnType::I64).column("n", ColumnType::I64).build().unwrap();
    db.submit(&b.row().set("id", 1_i64).unwrap().set("n", 2_i64).unwrap().finish().unwrap()).await.unwrap();
    assert!(db.close(HOUR).await.is_complete());
    assert_eq!(read(&sink, "SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b)").await, ["0|1"]);
}

#[tokio::test]
async fn wide_tables_are_split_by_the_bind_limit() {
    const COLUMNS: usize = 1_500;
    let sink = memory("").await;
    let columns: Vec<String> = (0..COLUMNS).map(|n| format!("c{n} INTEGER")).collect();
    sink.call(move |conn| conn.execute_batch(&format!("CREATE TABLE wide ({})", columns.join(",")))).await.unwrap();
    let schema = (0..COLUMNS).fold(Schema::builder("wide"), |b, n| b.column(format!("c{n}"), ColumnType::I64));
    let schema = schema.build().unwrap();
    // 32,766 placeholders hold 21 such rows, so 50 rows take several statements.
    let rows = (0..50_i64).map(|id| {
        let values = (0..COLUMNS as i64).map(|n| batchsql_core::Value::I64(id * 10_000 + n));
        schema.row().set_all(values).unwrap().finish().unwrap()
    });
    assert!(write(&sink, rows).await.iter().all(|outcome| *outcome == "written"));
    assert_eq!(read(&sink, "SELECT count(*), min(c0), max(c1499) FROM wide").await, ["50|0|491499"]);
}

#[tokio::test]
async fn a_sink_chosen_at_run_time_works_the_same() {
    let sink = memory("CREATE TABLE t (id INTEGER PRIMARY KEY, note TEXT)").await;
    let db = BatchSql::builder(batchsql_core::DynSink::new(sink.clone())).start().unwrap();
    let schema = schema(Conflict::ignore(["id"]));
    for id in [1, 2, 2] {
        db.submit(&row(&schema, id, "a")).await.unwrap();
    }
    let report = db.close(HOUR).await;
    assert_eq!((report.balance.written(), report.balance.ignored()), (2, 1));
}
