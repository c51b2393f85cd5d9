//! Conflict rules by table content, and the outcome of each row.

use std::collections::HashSet;

use batchsql_core::{BatchSql, ColumnType, Conflict, DynRow, Schema, TableName, Value};
use batchsql_mysql::sqlx::mysql::MySqlPoolOptions;
use batchsql_mysql::sqlx::{Acquire, Executor};

use crate::support::{Database, HOUR, coalescing, outcomes, pipeline, row, schema, submitted, write};

const TABLE: &str =
    "CREATE TABLE t (id BIGINT PRIMARY KEY, note VARCHAR(50)); INSERT INTO t VALUES (1, 'old'), (3, 'old')";

#[tokio::test]
async fn a_plain_insert_rejects_duplicates_and_keeps_the_rest() {
    let db = Database::new(TABLE).await;
    let schema = schema(Conflict::none());
    let rows = [row(&schema, 1, "new"), row(&schema, 2, "new"), row(&schema, 2, "again"), row(&schema, 4, "new")];
    assert_eq!(write(&db.sink, rows).await, ["rejected", "written", "rejected", "written"]);
    assert_eq!(db.read("SELECT * FROM t ORDER BY id").await, ["1|old", "2|new", "3|old", "4|new"]);
}

#[tokio::test]
async fn ignore_keeps_the_old_row_and_says_which_were_ignored() {
    let db = Database::new(TABLE).await;
    let schema = schema(Conflict::ignore(["id"]));
    // One pipeline, so that the plan remembers the duplicates of the first batch.
    let pipeline = pipeline(&db.sink);
    let names = async |rows: Vec<DynRow>| {
        submitted(&pipeline, rows).await.iter().map(|outcome| outcome.kind().name()).collect::<Vec<_>>()
    };
    let all = |from: i64, to: i64, note: &str| (from..to).map(|id| row(&schema, id, note)).collect::<Vec<_>>();
    assert!(names(all(1_000, 1_250, "new")).await.iter().all(|outcome| *outcome == "written"));
    for (id, outcome) in names(all(0, 250, "new")).await.iter().enumerate() {
        assert_eq!(*outcome, if id == 1 || id == 3 { "ignored" } else { "written" }, "row {id}");
    }
    assert_eq!(db.read("SELECT COUNT(*), SUM(note = 'old') FROM t").await, ["500|2"]);
    // All of them again, then a batch without any duplicate, and twice the same key in one batch.
    assert!(names(all(0, 250, "third")).await.iter().all(|outcome| *outcome == "ignored"));
    assert!(names(all(300, 400, "new")).await.iter().all(|outcome| *outcome == "written"));
    let twice = || vec![row(&schema, 900, "a"), row(&schema, 900, "b"), row(&schema, 901, "c")];
    assert_eq!(names(twice()).await, ["written", "ignored", "written"]);
    assert_eq!(names(twice()).await, ["ignored"; 3]);
    assert_eq!(db.read("SELECT note FROM t WHERE id = 900").await, ["a"]);
    assert_eq!(db.read("SELECT COUNT(*) FROM t WHERE note = 'third'").await, ["0"]);
}

#[tokio::test]
async fn ignore_hides_duplicates_and_no_other_mistake() {
    let db = Database::new(
        "CREATE TABLE parents (id BIGINT PRIMARY KEY); INSERT INTO parents VALUES (1);
         CREATE TABLE t (id BIGINT PRIMARY KEY, note VARCHAR(4) NOT NULL CHECK (note <> 'bad'), parent BIGINT,
                         FOREIGN KEY (parent) REFERENCES parents (id))",
    )
    .await;
    let schema = Schema::builder("t")
        .column("id", ColumnType::I64)
        .nullable("note", ColumnType::Text)
        .nullable("parent", ColumnType::I64)
        .on_conflict(Conflict::ignore(["id"]))
        .build()
        .unwrap();
    let row = |id: i64, note: Value, parent: i64| {
        schema.row().set_all([Value::I64(id), note, Value::I64(parent)]).unwrap().finish().unwrap()
    };
    let rows = || {
        [
            row(1, "a".into(), 1),
            row(1, "b".into(), 1),
            row(2, "bad".into(), 1),
            row(3, Value::Null, 1),
            row(4, "long one".into(), 1),
            row(5, "e".into(), 7),
            row(6, "f".into(), 1),
        ]
    };
    let expected = ["written", "ignored", "rejected", "rejected", "rejected", "rejected", "written"];
    assert_eq!(write(&db.sink, rows()).await, expected);
    assert_eq!(db.read("SELECT id, note FROM t ORDER BY id").await, ["1|a", "6|f"]);
    // With INSERT IGNORE the server hides them, as its documentation says.
    let db = Database::with(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, note VARCHAR(4) NOT NULL, parent BIGINT)",
        "ignore_with=insert_ignore",
    )
    .await;
    let names = write(&db.sink, rows()).await;
    assert_eq!(names, ["written", "ignored", "written", "written", "written", "written", "written"]);
    assert_eq!(db.read("SELECT note FROM t WHERE id IN (3, 4) ORDER BY id").await, ["", "long"]);
}

#[tokio::test]
async fn insert_ignore_tells_ignored_rows_from_written_ones() {
    let db = Database::with(TABLE, "ignore_with=insert_ignore").await;
    let schema = schema(Conflict::ignore(["id"]));
    let rows = (0..300).map(|id| row(&schema, id / 2, "new"));
    for (n, outcome) in write(&db.sink, rows).await.iter().enumerate() {
        let is_new = n % 2 == 0 && n / 2 != 1 && n / 2 != 3;
        assert_eq!(*outcome, if is_new { "written" } else { "ignored" }, "row {n}");
    }
    assert_eq!(db.read("SELECT COUNT(*), SUM(note = 'old') FROM t").await, ["150|2"]);
}

#[tokio::test]
async fn what_the_server_sees_as_equal_is_ignored_though_the_bytes_differ() {
    let db = Database::new(
        "CREATE TABLE t (code VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY, n BIGINT); INSERT INTO t VALUES ('Alpha', 0)",
    )
    .await;
    let schema = Schema::builder("t")
        .column("code", ColumnType::Text)
        .column("n", ColumnType::I64)
        .on_conflict(Conflict::ignore(["code"]))
        .build()
        .unwrap();
    let row = |(n, code): (usize, &str)| {
        schema.row().set("code", code).unwrap().set("n", n as i64).unwrap().finish().unwrap()
    };
    let codes = ["alpha", "ALPHA ", "beta", "Alpha", "new 1", "new 2"];
    let outcomes = outcomes(&db.sink, codes.into_iter().enumerate().map(row)).await;
    let names: Vec<_> = outcomes.iter().map(|outcome| outcome.kind().name()).collect();
    assert_eq!(names, ["ignored", "ignored", "written", "ignored", "written", "written"]);
    // Equal only for the server: the first in the order of keys is the one that is written.
    let outcomes = write(&db.sink, ["x", "X", "x "].into_iter().enumerate().map(row)).await;
    assert_eq!(outcomes.iter().filter(|name| **name == "written").count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|name| **name == "ignored").count(), 2, "{outcomes:?}");
    assert_eq!(db.read("SELECT COUNT(*), SUM(n) FROM t WHERE code <> 'x'").await, ["4|11"]);
}

#[tokio::test]
async fn a_second_unique_index_ignores_too_and_frees_the_key_for_the_next_row() {
    let db = Database::new(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, note VARCHAR(20) UNIQUE); INSERT INTO t VALUES (100, 'taken')",
    )
    .await;
    let schema = schema(Conflict::ignore(["id"]));
    let rows = [
        row(&schema, 1, "taken"),
        // With the same key as the previous row, which was not written.
        row(&schema, 1, "free"),
        row(&schema, 2, "two"),
        row(&schema, 3, "two"),
        row(&schema, 100, "other"),
    ];
    assert_eq!(write(&db.sink, rows).await, ["ignored", "written", "written", "ignored", "ignored"]);
    assert_eq!(db.read("SELECT * FROM t ORDER BY id").await, ["1|free", "2|two", "100|taken"]);
}

#[tokio::test]
async fn keys_of_every_type_are_found() {
    let check = async |declared: &str, ty: ColumnType, values: Vec<Value>| {
        let table = format!("CREATE TABLE t (a INT NOT NULL, k {declared} NOT NULL, PRIMARY KEY (a, k))");
        // One connection, so that its own counters show the statements.
        let db = Database::with(&table, "max_connections=1&values_in_text=never").await;
        let builder = Schema::builder("t").column("a", ColumnType::I32).column("k", ty);
        let schema = builder.on_conflict(Conflict::ignore(["a", "k"])).build().unwrap();
        let row = |value: &Value| schema.row().set("a", 1).unwrap().set("k", value.clone()).unwrap().finish().unwrap();
        let pipeline = pipeline(&db.sink);
        let first = submitted(&pipeline, values.iter().map(row)).await;
        assert!(first.iter().all(batchsql_core::Outcome::is_written), "{declared}");
        let inserts = async || db.read("SHOW SESSION STATUS LIKE 'Com_insert'").await;
        let again = async || {
            let again = submitted(&pipeline, values.iter().map(row)).await;
            assert!(again.iter().all(|outcome| outcome.kind().name() == "ignored"), "{declared}: {again:?}");
        };
        // First after error 1062, then with a query of the keys first: then nothing more is inserted, if keys can be
        // compared.
        again().await;
        let before = inserts().await;
        again().await;
        assert_eq!(inserts().await == before, ty != ColumnType::F64, "{declared} {ty}");
    };
    use batchsql_core::{Date, Time, Timestamp, TimestampTz};
    check("BOOLEAN", ColumnType::Bool, vec![true.into(), false.into()]).await;
    check("BIT(1)", ColumnType::Bool, vec![true.into(), false.into()]).await;
    check("SMALLINT", ColumnType::I16, vec![i16::MIN.into(), i16::MAX.into()]).await;
    check("BIGINT UNSIGNED", ColumnType::U64, vec![0_u64.into(), u64::MAX.into()]).await;
    check("DECIMAL(20,4)", ColumnType::I64, vec![5_i64.into(), (-7_i64).into()]).await;
    let digits = |text: &str| Value::Decimal(text.parse().unwrap());
    check("DECIMAL(20,4)", ColumnType::Decimal, vec![digits("1.50"), digits("-0.0100"), digits("12345678901234.5")])
        .await;
    check("VARCHAR(20)", ColumnType::Decimal, vec![digits("1.50"), digits("1.5")]).await;
    check("DOUBLE", ColumnType::F64, vec![0.1.into(), 1e300.into()]).await;
    check("VARCHAR(20)", ColumnType::Text, vec!["a".into(), "ü🦀".into(), "".into()]).await;
    check("VARBINARY(20)", ColumnType::Bytes, vec![vec![0_u8, 255].into(), vec![0_u8].into()]).await;
    let uuids = || vec![Value::Uuid([7; 16]), Value::Uuid([255; 16])];
    check("BINARY(16)", ColumnType::Uuid, uuids()).await;
    check("CHAR(36)", ColumnType::Uuid, uuids()).await;
    check("DATE", ColumnType::Date, vec![Date::MIN.into(), Date::MAX.into()]).await;
    let noon = Time::from_hms_micro(12, 0, 0, 0).unwrap();
    check("TIME(6)", ColumnType::Time, vec![Time::MIN.into(), Time::MAX.into()]).await;
    check("TIME", ColumnType::Time, vec![Time::MIN.into(), noon.into()]).await;
    check("DATETIME(6)", ColumnType::Timestamp, vec![Timestamp::MIN.into(), Timestamp::MAX.into()]).await;
    let instant = |seconds: i64| Value::from(TimestampTz::from_micros_since_epoch(seconds * 1_000_000).unwrap());
    check("DATETIME", ColumnType::TimestampTz, vec![instant(0), instant(1_700_000_000)]).await;
    check("TIMESTAMP(6)", ColumnType::TimestampTz, vec![instant(1), instant(1_700_000_000)]).await;
}

#[tokio::test]
async fn writers_side_by_side_write_every_key_once_and_say_who_did() {
    let db = Database::new("CREATE TABLE t (id BIGINT PRIMARY KEY, note VARCHAR(50))").await;
    let schema = schema(Conflict::ignore(["id"]));
    let writer = async |name: &'static str, offset: i64| {
        let pipeline = pipeline(&db.sink);
        let mut written = HashSet::new();
        for batch in 0..20 {
            let ids: Vec<i64> = (0..100).map(|n| (batch * 50 + n + offset) % 1_000).collect();
            let outcomes = submitted(&pipeline, ids.iter().map(|id| row(&schema, *id, name))).await;
            for (id, outcome) in ids.iter().zip(outcomes) {
                match outcome.kind().name() {
                    "written" => assert!(written.insert(*id), "{name} wrote {id} twice"),
                    "ignored" => {}
                    other => panic!("{other}: {outcome:?}"),
                }
            }
        }
        assert!(pipeline.close(HOUR).await.is_complete());
        written
    };
    let (a, b, c) = tokio::join!(writer("a", 0), writer("b", 10), writer("c", 500));
    assert_eq!(a.len() + b.len() + c.len(), 1_000);
    for (name, written) in [("a", a), ("b", b), ("c", c)] {
        let stored = db.read(&format!("SELECT id FROM t WHERE note = '{name}'")).await;
        let stored: HashSet<i64> = stored.iter().map(|id| id.parse().unwrap()).collect();
        assert_eq!(stored, written, "{name}");
    }
}

#[tokio::test]
async fn a_key_that_another_transaction_holds_is_waited_for() {
    for (commits, expected) in [(true, "ignored"), (false, "written")] {
        let db = Database::new(TABLE).await;
        let mut other = db.connection().await;
        let mut transaction = other.begin().await.unwrap();
        transaction.execute("INSERT INTO t VALUES (7, 'theirs')").await.unwrap();
        let schema = schema(Conflict::ignore(["id"]));
        let rows = [row(&schema, 6, "ours"), row(&schema, 7, "ours"), row(&schema, 8, "ours")];
        let ending = async {
            db.wait_for_a_lock_wait().await;
            if commits { transaction.commit().await.unwrap() } else { transaction.rollback().await.unwrap() }
        };
        let (names, ()) = tokio::join!(write(&db.sink, rows), ending);
        assert_eq!(names, ["written", expected, "written"]);
    }
}

#[tokio::test]
async fn a_key_that_is_not_committed_is_no_reason_to_ignore_a_row_also_where_it_can_be_read() {
    let db = Database::new(TABLE).await;
    let pool = MySqlPoolOptions::new().after_connect(|connection, _| {
        Box::pin(async move {
            connection.execute("SET sql_mode = 'STRICT_ALL_TABLES'").await?;
            connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED").await.map(drop)
        })
    });
    let sink = batchsql_mysql::MySqlSink::new(pool.connect(&db.dsn).await.unwrap());
    let (pipeline, schema) = (pipeline(&sink), schema(Conflict::ignore(["id"])));
    // After a duplicate, keys are looked up before anything is inserted.
    assert!(submitted(&pipeline, [row(&schema, 1, "ours")]).await[0].kind().name() == "ignored");
    let mut other = db.connection().await;
    let mut transaction = other.begin().await.unwrap();
    transaction.execute("INSERT INTO t VALUES (7, 'theirs')").await.unwrap();
    let (outcomes, ()) = tokio::join!(submitted(&pipeline, [row(&schema, 7, "ours")]), async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        transaction.rollback().await.unwrap();
    });
    assert!(outcomes[0].is_written(), "{outcomes:?}");
    assert_eq!(db.read("SELECT note FROM t WHERE id = 7").await, ["ours"]);
}

#[tokio::test]
async fn replace_and_update_overwrite_and_the_last_row_wins() {
    for conflict in [Conflict::replace(["id"]), Conflict::update(["id"])] {
        let db = Database::new(TABLE).await;
        let schema = schema(conflict);
        let rows =
            [row(&schema, 1, "new"), row(&schema, 2, "x"), row(&schema, 2, "y"), row(&schema, 3, None::<String>)];
        let outcomes = submitted(&coalescing(&db.sink), rows).await;
        let outcomes: Vec<_> = outcomes.iter().map(|outcome| outcome.kind().name()).collect();
        assert_eq!(outcomes, ["written", "superseded", "written", "written"]);
        assert_eq!(db.read("SELECT * FROM t ORDER BY id").await, ["1|new", "2|y", "3|NULL"]);
    }
}

#[tokio::test]
async fn replace_into_deletes_the_old_row_where_it_is_asked_for() {
    let tables = "CREATE TABLE t (id BIGINT PRIMARY KEY, note VARCHAR(50), more VARCHAR(50) DEFAULT 'default');
         CREATE TABLE children (parent BIGINT, FOREIGN KEY (parent) REFERENCES t (id) ON DELETE CASCADE);
         INSERT INTO t VALUES (1, 'old', 'kept?'); INSERT INTO children VALUES (1)";
    for (parameters, more, children) in [("", "kept?", "1"), ("replace_with=replace_into", "default", "0")] {
        let db = Database::with(tables, parameters).await;
        let schema = schema(Conflict::replace(["id"]));
        assert_eq!(write(&db.sink, [row(&schema, 1, "new"), row(&schema, 2, "new")]).await, ["written"; 2]);
        assert_eq!(db.read("SELECT note, more FROM t WHERE id = 1").await, [format!("new|{more}")]);
        assert_eq!(db.read("SELECT COUNT(*) FROM children").await, [children], "{parameters:?}");
    }
}

#[tokio::test]
async fn update_of_some_columns_leaves_the_others_alone() {
    let db = Database::new(
        "CREATE TABLE t (a BIGINT, b VARCHAR(9), c VARCHAR(9), d VARCHAR(9) DEFAULT 'default', PRIMARY KEY (a, b));
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
    assert_eq!(write(&db.sink, [full(1), full(2), without_d.finish().unwrap()]).await, ["written"; 3]);
    let table = db.read("SELECT * FROM t ORDER BY a").await;
    assert_eq!(table, ["1|x|new c|old d", "2|x|new c|new d", "3|x|c|default"]);
}

#[tokio::test]
async fn a_table_whose_columns_are_all_key_does_nothing_on_conflict() {
    let db =
        Database::new("CREATE TABLE pairs (a BIGINT, b BIGINT, UNIQUE (b, a)); INSERT INTO pairs VALUES (1, 1)").await;
    let schema = Schema::builder("pairs")
        .column("a", ColumnType::I64)
        .column("b", ColumnType::I64)
        .on_conflict(Conflict::update(["a", "b"]))
        .build()
        .unwrap();
    let pair = |b: i64| schema.row().set("a", 1_i64).unwrap().set("b", b).unwrap().finish().unwrap();
    assert_eq!(write(&db.sink, [pair(1), pair(2)]).await, ["ignored", "written"]);
}

#[tokio::test]
async fn hostile_names_are_names() {
    let db =
        Database::new("CREATE TABLE `odd``;DROP TABLE x;--` (`a ``b` BIGINT PRIMARY KEY, `select` TEXT, `ключ` TEXT)")
            .await;
    for conflict in [Conflict::update(["a `b"]), Conflict::ignore(["a `b"])] {
        let schema = Schema::builder(TableName::qualified(db.name.as_str(), "odd`;DROP TABLE x;--"))
            .column("a `b", ColumnType::I64)
            .column("select", ColumnType::Text)
            .column("ключ", ColumnType::Text)
            .on_conflict(conflict)
            .build()
            .unwrap();
        let row = |id: i64, v: &str| {
            let builder = schema.row().set("a `b", id).unwrap();
            builder.set("select", v).unwrap().set("ключ", v).unwrap().finish().unwrap()
        };
        let names = write(&db.sink, [row(1, "'; --"), row(1, "日本"), row(2, "`\\")]).await;
        assert!(names.iter().all(|name| matches!(*name, "written" | "superseded" | "ignored")), "{names:?}");
    }
    let table = db.read("SELECT * FROM `odd``;DROP TABLE x;--` ORDER BY 1").await;
    assert_eq!(table, ["1|日本|日本", "2|`\\|`\\"]);
    // Names with words of the catalogue query, and with a backslash.
    for name in ["R AND D", "WHERE t.TABLE_NAME", "it's \\", "UNION ALL SELECT 1"] {
        db.run(&format!("CREATE TABLE `{name}` (id BIGINT PRIMARY KEY)")).await;
        let schema = Schema::builder(name).column("id", ColumnType::I64).build().unwrap();
        let row = schema.row().set("id", 1_i64).unwrap().finish().unwrap();
        assert_eq!(write(&db.sink, [row]).await, ["written"], "{name}");
    }
}

#[tokio::test]
async fn a_table_of_another_database_is_reached_without_a_database_in_the_dsn() {
    let db = Database::new(TABLE).await;
    let sink = batchsql_mysql::MySqlSink::connect(&crate::support::with_path(&db.dsn, "")).await.unwrap();
    let pipeline = BatchSql::builder(sink).start().unwrap();
    let builder = || Schema::builder(TableName::qualified(db.name.as_str(), "t")).column("id", ColumnType::I64);
    pipeline.prepare(&builder().build().unwrap()).await.unwrap();
    let error = pipeline.prepare(&schema(Conflict::none())).await.unwrap_err().to_string();
    assert!(error.contains("no database is chosen; name one in the dsn"), "{error}");
}
