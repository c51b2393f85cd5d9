//! Rules whose outcome depends on the stored row: keys that the server compares in its own way, other writers, versions
//! of every type, and rules that the server does not have.

use std::time::Duration;

use batchsql_core::{
    BatchSql, ColumnType, Conflict, Decimal, DynRow, Expr, OutcomeKind, PipelineConfig, Schema, Timestamp, Value,
    ValueRef,
};

use batchsql_mysql::MySqlSink;
use batchsql_mysql::sqlx::Executor;
use batchsql_mysql::sqlx::mysql::MySqlPoolOptions;
use batchsql_testkit::check_versions;

use crate::support::{Database, HOUR, coalescing, pipeline, submitted, write};

fn keyed(ty: ColumnType, conflict: Conflict) -> Schema {
    let schema = Schema::builder("t").column("k", ty);
    let schema = if conflict.action() == batchsql_core::Action::Delete {
        schema
    } else {
        schema.column("n", ColumnType::I64).column("v", ColumnType::I64)
    };
    schema.on_conflict(conflict).build().unwrap()
}

fn row(schema: &Schema, key: impl Into<Value>, n: i64, v: i64) -> DynRow {
    let row = schema.row().set("k", key).unwrap();
    let row = if schema.columns().len() > 1 { row.set("n", n).unwrap().set("v", v).unwrap() } else { row };
    row.finish().unwrap()
}

#[tokio::test]
async fn keys_are_compared_as_the_server_does() {
    let table = "CREATE TABLE t (k VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY, n BIGINT, v BIGINT);
                 INSERT INTO t VALUES ('a', 1, 5), ('b', 1, 5)";
    let db = Database::new(table).await;
    let newer = keyed(ColumnType::Text, Conflict::update(["k"]).only_if_newer("v"));
    // 'A' is the stored 'a', and the later of two rows of one key loses if it is older.
    let rows = [row(&newer, "A", 2, 6), row(&newer, "B", 2, 4), row(&newer, "c", 2, 7), row(&newer, "C", 3, 6)];
    assert_eq!(write(&db.sink, rows).await, ["written", "ignored", "written", "ignored"]);
    assert_eq!(db.read("SELECT * FROM t ORDER BY k").await, ["a|2|6", "b|1|5", "c|2|7"]);
    let only = keyed(ColumnType::Text, Conflict::update_only(["k"]).set("n", Expr::add()));
    let rows = [row(&only, "A", 10, 0), row(&only, "d", 10, 0), row(&only, "b", 10, 0)];
    assert_eq!(write(&db.sink, rows).await, ["written", "ignored", "written"]);
    assert_eq!(db.read("SELECT k, n FROM t ORDER BY k").await, ["a|12", "b|11", "c|2"]);
    let delete = keyed(ColumnType::Text, Conflict::delete(["k"]));
    let rows = [row(&delete, "A", 0, 0), row(&delete, "x", 0, 0), row(&delete, "c", 0, 0)];
    assert_eq!(write(&db.sink, rows).await, ["written", "ignored", "written"]);
    assert_eq!(db.read("SELECT k FROM t").await, ["b"]);
}

#[tokio::test]
async fn keys_without_a_form_to_compare_are_locked_one_by_one() {
    let db =
        Database::new("CREATE TABLE t (k DOUBLE PRIMARY KEY, n BIGINT, v BIGINT); INSERT INTO t VALUES (0.1, 1, 5)")
            .await;
    let newer = keyed(ColumnType::F64, Conflict::update(["k"]).only_if_newer("v"));
    let rows = [row(&newer, 0.1, 2, 6), row(&newer, 0.2, 2, 4)];
    assert_eq!(write(&db.sink, rows).await, ["written", "written"]);
    let rows = [row(&newer, 0.1, 3, 6), row(&newer, 0.2, 3, 5)];
    assert_eq!(write(&db.sink, rows).await, ["ignored", "written"]);
    assert_eq!(db.read("SELECT n, v FROM t ORDER BY k").await, ["2|6", "3|5"]);
}

#[tokio::test]
async fn versions_of_every_type_are_compared_as_they_are_stored() {
    let check = async |ty: &str, column: ColumnType, versions: [Value; 3]| {
        let db = Database::new(&format!("CREATE TABLE t (id BIGINT PRIMARY KEY, v {ty} NULL)")).await;
        check_versions(&db.sink, column, versions, ty).await;
    };
    let decimal = |text: &str| Value::from(text.parse::<Decimal>().unwrap());
    let time = |micros| Value::from(Timestamp::from_micros_since_epoch(micros).unwrap());
    check("BIGINT", ColumnType::I64, [Value::from(-10_i64), Value::from(9_i64), Value::from(10_i64)]).await;
    check("BIGINT UNSIGNED", ColumnType::U64, [Value::from(9_u64), Value::from(10_u64), Value::from(u64::MAX)]).await;
    check("DECIMAL(20,4)", ColumnType::Decimal, [decimal("-1.5"), decimal("9.5"), decimal("10.4999")]).await;
    check("DOUBLE", ColumnType::F64, [Value::from(0.1), Value::from(0.2), Value::from(1e300)]).await;
    check("DATETIME(6)", ColumnType::Timestamp, [time(-1), time(1_000_000), time(1_000_001)]).await;
    check(
        "TIMESTAMP(6)",
        ColumnType::TimestampTz,
        [1_000_000, 2_000_000, 2_000_001]
            .map(|micros| Value::from(batchsql_core::TimestampTz::from_micros_since_epoch(micros).unwrap())),
    )
    .await;
}

#[tokio::test]
async fn writers_that_insert_the_same_keys_do_not_lose_a_version() {
    let db = Database::new("CREATE TABLE t (k BIGINT PRIMARY KEY, n BIGINT, v BIGINT)").await;
    let newer = keyed(ColumnType::I64, Conflict::update(["k"]).only_if_newer("v"));
    // Each writer has other versions of the same keys.
    let writer = |offset: i64| {
        let (sink, schema) = (db.sink.clone(), newer.clone());
        async move {
            let pipeline = pipeline(&sink);
            for round in 0..10 {
                let rows = (0..50).map(|key| row(&schema, key, offset, round * 4 + offset));
                pipeline.submit_all(rows).await.unwrap();
                pipeline.flush().await.unwrap();
            }
            let report = pipeline.close(std::time::Duration::from_secs(60)).await;
            assert_eq!(report.balance.failed(), 0, "{report:?}");
        }
    };
    tokio::join!(writer(0), writer(1), writer(2), writer(3));
    assert_eq!(db.read("SELECT COUNT(*), MIN(v), MAX(v), MIN(n) FROM t").await, ["50|39|39|3"]);
}

#[tokio::test]
async fn decimals_are_added_exactly_without_an_insert() {
    let db =
        Database::new("CREATE TABLE t (k BIGINT PRIMARY KEY, d DECIMAL(30,10)); INSERT INTO t VALUES (1, 0.1)").await;
    let schema = Schema::builder("t").column("k", ColumnType::I64).column("d", ColumnType::Decimal);
    let schema = schema.on_conflict(Conflict::update_only(["k"]).set("d", Expr::add())).build().unwrap();
    let row = |digits: &str| {
        let decimal: Decimal = digits.parse().unwrap();
        schema.row().set("k", 1_i64).unwrap().set("d", decimal).unwrap().finish().unwrap()
    };
    assert_eq!(write(&db.sink, [row("12345678901234567890.0000000001")]).await, ["written"]);
    assert_eq!(db.read("SELECT d FROM t").await, ["12345678901234567890.1000000001"]);
}

#[tokio::test]
async fn a_rule_that_the_server_does_not_have_is_refused_with_the_reason() {
    let check = async |rule: Conflict, part: &str| {
        let db = Database::new("CREATE TABLE t (k BIGINT PRIMARY KEY, n BIGINT, v FLOAT)").await;
        let schema = Schema::builder("t").column("k", ColumnType::I64).column("n", ColumnType::I64);
        let schema = schema.column("v", ColumnType::F32).on_conflict(rule).build().unwrap();
        let error = pipeline(&db.sink).prepare(&schema).await.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    let update = || Conflict::update(["k"]);
    check(update().on_constraint("c"), "no constraint by name").await;
    check(update().on_partial_index("n > 1"), "no partial indexes").await;
    check(update().only_if_newer("v"), "FLOAT").await;
    let circle = update().set("n", Expr::raw("{old.v}")).set("v", Expr::raw("{old.n}"));
    check(circle, "use each other's stored values").await;
    check(Conflict::update_only(["k"]).set("n", Expr::raw("{old.v}")), "in no defined order").await;
    check(update().set("n", Expr::raw("no_function({new})")), "").await;
}

/// 100 hours are more than 23, and -1 hour is less, though their texts are not.
#[tokio::test]
async fn a_stored_time_of_more_than_a_day_is_a_newer_version() {
    let table = "CREATE TABLE t (k BIGINT PRIMARY KEY, v TIME(6), n BIGINT)";
    for rule in [Conflict::update(["k"]), Conflict::update_only(["k"])] {
        let db = Database::new(table).await;
        db.run("INSERT INTO t VALUES (1, '100:00:00', 0), (2, '-101:00:00', 0), (3, '22:00:00.5', 0)").await;
        let schema = Schema::builder("t").column("k", ColumnType::I64).column("v", ColumnType::Time);
        let schema = schema.column("n", ColumnType::I64).on_conflict(rule.only_if_newer("v")).build().unwrap();
        let at = batchsql_core::Time::from_micros_since_midnight(23 * 3_600_000_000).unwrap();
        let row = |key: i64| {
            schema.row().set("k", key).unwrap().set("v", at).unwrap().set("n", 1_i64).unwrap().finish().unwrap()
        };
        assert_eq!(write(&db.sink, [1, 2, 3].map(row)).await, ["ignored", "written", "written"]);
        assert_eq!(db.read("SELECT v, n FROM t WHERE k = 1").await, ["100:00:00.000000|0"]);
        assert_eq!(db.read("SELECT COUNT(*) FROM t WHERE v = '23:00:00' AND n = 1").await, ["2"]);
    }
}

#[tokio::test]
async fn decimals_in_a_text_column_are_not_computed_with() {
    let db = Database::new("CREATE TABLE t (k BIGINT PRIMARY KEY, d VARCHAR(80))").await;
    let prepared = async |rule: Conflict| {
        let schema = Schema::builder("t").column("k", ColumnType::I64).column("d", ColumnType::Decimal);
        pipeline(&db.sink).prepare(&schema.on_conflict(rule).build().unwrap()).await
    };
    for rule in [Conflict::update(["k"]), Conflict::update_only(["k"])] {
        let computed = [Expr::add(), Expr::greatest(), Expr::least()].map(|expr| rule.clone().set("d", expr));
        for rule in computed.into_iter().chain([rule.clone().only_if_newer("d")]) {
            let error = prepared(rule).await.unwrap_err().to_string();
            assert!(error.contains("stores decimals as text") && error.contains("declare it DECIMAL"), "{error}");
        }
        prepared(rule.clone().set("d", Expr::unless_null())).await.unwrap();
        prepared(rule).await.unwrap();
    }
}

#[tokio::test]
async fn generated_values_are_returned_to_the_receipts() {
    let db = Database::new(
        "CREATE TABLE t (id BIGINT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20) UNIQUE NOT NULL, n BIGINT,
                         made TIMESTAMP(6) DEFAULT '2000-01-01 10:00:00.5', raw VARBINARY(9) DEFAULT 'ab',
                         num DECIMAL(9,2) DEFAULT 1.5); INSERT INTO t (name, n) VALUES ('old', 1)",
    )
    .await;
    let table = |rule| {
        let schema =
            Schema::builder("t").column("name", ColumnType::Text).column("n", ColumnType::I64).on_conflict(rule);
        let schema = schema.returning("id", ColumnType::I64).returning("made", ColumnType::TimestampTz);
        schema.returning("raw", ColumnType::Bytes).returning("num", ColumnType::Decimal).build().unwrap()
    };
    let check = async |rule: Conflict, expected: &[(&str, &str, bool)]| {
        let (schema, pipeline) = (table(rule), coalescing(&db.sink));
        let mut receipts = Vec::new();
        for (name, ..) in expected {
            let row = schema.row().set("name", *name).unwrap().set("n", 2_i64).unwrap().finish().unwrap();
            receipts.push(pipeline.submit_tracked(&row).await.unwrap());
        }
        pipeline.flush().await.unwrap();
        for ((name, outcome, has_values), receipt) in expected.iter().zip(receipts) {
            let (found, returned) = receipt.with_returned().await;
            assert_eq!((found.kind().name(), returned.is_some()), (*outcome, *has_values), "{name}");
            let Some(returned) = returned else { continue };
            let Some(ValueRef::I64(id)) = returned.get("id") else { panic!("no id: {returned:?}") };
            assert_eq!(db.read(&format!("SELECT id FROM t WHERE name = '{name}'")).await, [id.to_string()], "{name}");
            assert_eq!(returned.get("made"), Some(ValueRef::TimestampTz("2000-01-01T10:00:00.5Z".parse().unwrap())));
            assert_eq!(returned.get("raw"), Some(ValueRef::Bytes(b"ab")));
            assert_eq!(returned.get("num"), Some(ValueRef::Decimal("1.50")));
        }
    };
    let names: Vec<String> = (0..300).map(|n| format!("name {n}")).collect();
    let many: Vec<(&str, &str, bool)> = names.iter().map(|name| (name.as_str(), "written", true)).collect();
    check(Conflict::none(), &many).await;
    check(Conflict::none(), &[("a", "written", true), ("old", "rejected", false), ("b", "written", true)]).await;
    check(
        Conflict::update(["name"]),
        &[("old", "superseded", false), ("old", "written", true), ("d", "written", true)],
    )
    .await;
    let refused = async |schema: Schema, part: &str| {
        let error = pipeline(&db.sink).prepare(&schema).await.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(table(Conflict::ignore(["name"])), "plain inserts, replace and update only").await;
    let no = Schema::builder("t").column("name", ColumnType::Text).returning("no", ColumnType::I64).build().unwrap();
    refused(no, "no column \"no\", which is to be returned").await;
    let returning =
        |name: &str, ty| Schema::builder("t").column("name", ColumnType::Text).returning(name, ty).build().unwrap();
    for (name, ty) in [("made", ColumnType::Date), ("made", ColumnType::Time)] {
        refused(returning(name, ty), "cannot be returned as").await;
    }
    // A number that no float keeps: the row is written all the same.
    let schema = returning("digits", ColumnType::F64);
    db.read("ALTER TABLE t ADD digits DECIMAL(30,5) DEFAULT 12345678901234567890.5").await;
    for (name, has_value) in [("many digits", false), ("few digits", true)] {
        let pipeline = pipeline(&db.sink);
        let row = schema.row().set("name", name).unwrap().finish().unwrap();
        let receipt = pipeline.submit_tracked(&row).await.unwrap();
        pipeline.flush().await.unwrap();
        let (outcome, returned) = receipt.with_returned().await;
        let value = returned.map(|returned| returned.get("digits") == Some(ValueRef::F64(0.1)));
        assert_eq!((outcome.is_written(), value), (true, has_value.then_some(true)), "{name}");
        db.read("ALTER TABLE t ALTER digits SET DEFAULT 0.10").await;
    }
}

#[tokio::test]
async fn keys_in_two_forms_in_one_batch_are_written_in_their_order() {
    let table = "CREATE TABLE t (k VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY, n BIGINT, v BIGINT);
                 INSERT INTO t VALUES ('a', 1, 5), ('b', 1, 5)";
    let db = Database::new(table).await;
    let add = keyed(ColumnType::Text, Conflict::update_only(["k"]).set("n", Expr::add()));
    let rows = [row(&add, "a", 10, 6), row(&add, "A", 100, 7), row(&add, "x", 1, 1), row(&add, "b", 10, 8)];
    assert_eq!(write(&db.sink, rows).await, ["written", "written", "ignored", "written"]);
    assert_eq!(db.read("SELECT * FROM t ORDER BY k").await, ["a|111|7", "b|11|8"]);
    let delete = keyed(ColumnType::Text, Conflict::delete(["k"]));
    let rows = [row(&delete, "A", 0, 0), row(&delete, "a", 0, 0), row(&delete, "b", 0, 0)];
    assert_eq!(write(&db.sink, rows).await, ["written", "ignored", "written"]);
}

#[tokio::test]
async fn decimal_keys_are_compared_exactly_without_an_insert() {
    let db = Database::new(
        "CREATE TABLE t (k DECIMAL(30,0) PRIMARY KEY, n BIGINT, v BIGINT);
         INSERT INTO t VALUES (12345678901234567890, 0, 0), (12345678901234567891, 0, 0)",
    )
    .await;
    let only = keyed(ColumnType::Decimal, Conflict::update_only(["k"]));
    let key = |digits: &str| Value::from(digits.parse::<Decimal>().unwrap());
    let rows = [row(&only, key("12345678901234567890"), 5, 1), row(&only, key("12345678901234567891"), 6, 1)];
    assert_eq!(write(&db.sink, rows).await, ["written", "written"]);
    assert_eq!(db.read("SELECT n FROM t ORDER BY k").await, ["5", "6"]);
    // All 65 digits of a column can be added.
    let wide =
        Database::new("CREATE TABLE t (k BIGINT PRIMARY KEY, d DECIMAL(65,0)); INSERT INTO t VALUES (1, 1)").await;
    let schema = Schema::builder("t").column("k", ColumnType::I64).column("d", ColumnType::Decimal);
    let schema = schema.on_conflict(Conflict::update_only(["k"]).set("d", Expr::add())).build().unwrap();
    let digits = "9".repeat(64);
    let row = schema.row().set("k", 1_i64).unwrap().set("d", key(&digits)).unwrap().finish().unwrap();
    assert_eq!(write(&wide.sink, [row]).await, ["written"]);
    assert_eq!(wide.read("SELECT d FROM t").await, [format!("1{}", "0".repeat(64))]);
}

#[tokio::test]
async fn only_the_row_of_the_key_is_changed_whatever_other_unique_indexes_there_are() {
    let db = Database::new(
        "CREATE TABLE t (k BIGINT UNIQUE NOT NULL, n BIGINT PRIMARY KEY, v BIGINT); INSERT INTO t VALUES (1, 1, 0), (2, 2, 0)",
    )
    .await;
    let newer = keyed(ColumnType::I64, Conflict::update(["k"]).only_if_newer("v"));
    // n = 1 is that of the other row.
    assert_eq!(write(&db.sink, [row(&newer, 2_i64, 1, 9)]).await, ["rejected"]);
    assert_eq!(write(&db.sink, [row(&newer, 2_i64, 3, 9), row(&newer, 1_i64, 1, 8)]).await, ["written", "written"]);
    assert_eq!(db.read("SELECT * FROM t ORDER BY k").await, ["1|1|8", "2|3|9"]);
}

#[tokio::test]
async fn a_race_for_a_key_without_a_form_to_compare_rejects_no_row() {
    let db = Database::new("CREATE TABLE t (k DOUBLE PRIMARY KEY, n BIGINT, v BIGINT)").await;
    let newer = keyed(ColumnType::F64, Conflict::update(["k"]).only_if_newer("v"));
    let writer = |offset: i64| {
        let (sink, schema) = (db.sink.clone(), newer.clone());
        async move {
            let pipeline = pipeline(&sink);
            for round in 0..5 {
                let rows = (0..10).map(|key| row(&schema, f64::from(key) + 0.5, offset, round * 3 + offset));
                pipeline.submit_all(rows).await.unwrap();
                pipeline.flush().await.unwrap();
            }
            let report = pipeline.close(std::time::Duration::from_secs(60)).await;
            assert_eq!(report.balance.failed(), 0, "{report:?}");
        }
    };
    tokio::join!(writer(0), writer(1), writer(2));
    assert_eq!(db.read("SELECT COUNT(*), MIN(v), MAX(v) FROM t").await, ["10|14|14"]);
}

#[tokio::test]
async fn a_trigger_that_changes_keys_is_named() {
    let db = Database::new(
        "CREATE TABLE t (k VARCHAR(20) COLLATE utf8mb4_bin PRIMARY KEY, n BIGINT, v BIGINT);
         CREATE TRIGGER lower_keys BEFORE INSERT ON t FOR EACH ROW SET NEW.k = LOWER(NEW.k);
         INSERT INTO t VALUES ('a', 0, 0)",
    )
    .await;
    let newer = keyed(ColumnType::Text, Conflict::update(["k"]).only_if_newer("v"));
    let config = PipelineConfig::default().retry_for(Duration::ZERO).flush_interval(HOUR);
    let pipeline = BatchSql::builder(db.sink.clone()).config(config).start().unwrap();
    let receipt = pipeline.submit_tracked(&row(&newer, "A", 1, 1)).await.unwrap();
    pipeline.flush().await.unwrap();
    let outcome = receipt.await;
    let failed = outcome.failure().unwrap();
    // By its code the pipeline finds such a row among others.
    assert_eq!((outcome.kind(), failed.code()), (OutcomeKind::Expired, Some("1062")), "{failed}");
    assert!(failed.to_string().contains("a trigger changes the key"), "{failed}");
}

#[tokio::test]
async fn a_row_that_does_not_exist_is_ignored_whatever_its_values_are() {
    let db =
        Database::new("CREATE TABLE t (k BIGINT PRIMARY KEY, d DECIMAL(5,2)); INSERT INTO t VALUES (1, 1), (2, 1)")
            .await;
    let schema = Schema::builder("t").column("k", ColumnType::I64).nullable("d", ColumnType::Decimal);
    let only = schema.on_conflict(Conflict::update_only(["k"]).set("d", Expr::add())).build().unwrap();
    let row = |key: i64, d: &str| {
        let d: Decimal = d.parse().unwrap();
        only.row().set("k", key).unwrap().set("d", d).unwrap().finish().unwrap()
    };
    // The server cannot even convert the value.
    let rows = [row(1, "2.5"), row(3, "12345678.25"), row(2, "0.25")];
    assert_eq!(write(&db.sink, rows).await, ["written", "ignored", "written"]);
    assert_eq!(write(&db.sink, [row(4, "12345678.25")]).await, ["ignored"]);
    assert_eq!(write(&db.sink, [row(1, "12345678.25"), row(2, "1")]).await, ["rejected", "written"]);
    assert_eq!(db.read("SELECT * FROM t ORDER BY k").await, ["1|3.50", "2|2.25"]);
}

#[tokio::test]
async fn an_update_keeps_every_value_whatever_the_statement_carried_before() {
    let keys = 1..=64_i64;
    let list: Vec<String> = keys.clone().map(|key| format!("({key})")).collect();
    let table = "CREATE TABLE t (k BIGINT PRIMARY KEY, note TEXT, d DECIMAL(30,10), b VARBINARY(3000))";
    let db = Database::new(&format!("{table}; INSERT INTO t (k) VALUES {}", list.join(","))).await;
    let builder = Schema::builder("t").column("k", ColumnType::I64).nullable("note", ColumnType::Text);
    let builder = builder.nullable("d", ColumnType::Decimal).nullable("b", ColumnType::Bytes);
    let only = builder.on_conflict(Conflict::update_only(["k"])).build().unwrap();
    let pipeline = pipeline(&db.sink);
    // Later rows are longer than the first ones, which have no value at first, and later batches are longer than earlier ones.
    for round in [0, 1, 20] {
        let length = |key: i64| (key - 3 + round * 2) * (round + 1);
        let decimal = |key: i64| format!("{}.{key:010}", "9".repeat(1 + (key * (round + 1) % 20) as usize));
        let row = |key: i64| {
            let has = length(key) > 0;
            let note = if has { Value::from("é".repeat(length(key) as usize)) } else { Value::Null };
            let d = if has { Value::from(decimal(key).parse::<Decimal>().unwrap()) } else { Value::Null };
            let b = if has { Value::from(vec![7_u8; length(key) as usize]) } else { Value::Null };
            only.row().set_all([Value::from(key), note, d, b]).unwrap().finish().unwrap()
        };
        let outcomes = submitted(&pipeline, keys.clone().map(row)).await;
        assert!(outcomes.iter().all(|outcome| outcome.kind() == OutcomeKind::Written), "round {round}");
        let expected: Vec<String> = keys
            .clone()
            .map(|key| match length(key) {
                length @ 1.. => format!("{key}|{length}|{}|{length}", decimal(key)),
                _ => format!("{key}|NULL|NULL|NULL"),
            })
            .collect();
        assert_eq!(db.read("SELECT k, CHAR_LENGTH(note), d, LENGTH(b) FROM t ORDER BY k").await, expected);
    }
}

#[tokio::test]
async fn the_clock_of_the_server_is_in_utc_and_needs_a_session_in_utc() {
    let db = Database::new(
        "CREATE TABLE t (k BIGINT PRIMARY KEY, n BIGINT, v BIGINT, at DATETIME(6), stamp TIMESTAMP(6) NULL, day DATE);
         INSERT INTO t (k, n) VALUES (1, 1), (2, 2)",
    )
    .await;
    let rule = Conflict::update(["k"]).set("at", Expr::now()).set("stamp", Expr::now()).set("day", Expr::now());
    let schema = keyed(ColumnType::I64, rule);
    assert_eq!(write(&db.sink, [row(&schema, 1_i64, 5, 5), row(&schema, 3_i64, 5, 5)]).await, ["written"; 2]);
    // The sessions of the sink, which read this, are in UTC. A row that is inserted has the default.
    let within = |column: &str| format!("ABS(TIMESTAMPDIFF(SECOND, {column}, UTC_TIMESTAMP(6))) < 900");
    let query = format!(
        "SELECT k, n, {}, {}, ABS(DATEDIFF(day, UTC_DATE())) < 2, at = stamp FROM t ORDER BY k",
        within("at"),
        within("stamp")
    );
    assert_eq!(db.read(&query).await, ["1|5|1|1|1|1", "2|2|NULL|NULL|NULL|NULL", "3|5|NULL|NULL|NULL|NULL"]);
    // A pool of somebody else.
    for (zone, is_refused) in [("+02:00", true), ("+00:00", false)] {
        let pool = MySqlPoolOptions::new().max_connections(2).after_connect(move |connection, _| {
            let sql = format!("SET sql_mode = 'STRICT_ALL_TABLES', time_zone = '{zone}'");
            Box::pin(async move { connection.execute(&*sql).await.map(drop) })
        });
        let options: batchsql_mysql::sqlx::mysql::MySqlConnectOptions = db.dsn.parse().unwrap();
        let sink = MySqlSink::new(pool.connect_with(options.timezone(None)).await.unwrap());
        let prepared = pipeline(&sink).prepare(&schema).await;
        assert_eq!(prepared.is_err(), is_refused, "{zone}: {prepared:?}");
        if let Err(error) = prepared {
            assert!(error.to_string().contains("Expr::now() needs a session in UTC"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_sum_that_the_column_cannot_hold_is_refused_and_the_rows_are_written_one_by_one() {
    for (ty, stored) in [("TINYINT", 100), ("BIGINT", i64::MAX - 27)] {
        let db = Database::new(&format!(
            "CREATE TABLE t (k BIGINT PRIMARY KEY, n {ty}, v BIGINT); INSERT INTO t VALUES (1, {stored}, 0)"
        ))
        .await;
        let add = keyed(ColumnType::I64, Conflict::update(["k"]).set("n", Expr::add()));
        // 27 more are possible: the sum of the three rows of key 1 is not, and of them the last one.
        let rows = [(1_i64, 5, 1), (2, 1, 1), (1, 22, 2), (1, 1, 3)].map(|(k, n, v)| row(&add, k, n, v));
        assert_eq!(write(&db.sink, rows).await, ["written", "written", "written", "rejected"], "{ty}");
        let found = db.read("SELECT * FROM t ORDER BY k").await;
        assert_eq!(found, [format!("1|{}|2", stored + 27), "2|1|1".to_owned()], "{ty}");
    }
}

#[tokio::test]
async fn a_list_is_written_to_a_json_column_and_to_no_other_type() {
    let db = Database::new("CREATE TABLE t (k BIGINT PRIMARY KEY, list JSON, n INT)").await;
    let schema = |column: &str| {
        Schema::builder("t").column("k", ColumnType::I64).nullable(column, ColumnType::Json).build().unwrap()
    };
    let lists = schema("list");
    let list = |k: i64, list: Value| lists.row().set_all([k.into(), list]).unwrap().finish().unwrap();
    let rows = [
        list(1, Value::from(vec![Some(1_i64), None, Some(i64::MAX)])),
        list(2, Value::from(vec!["a", "\"'"])),
        list(3, Value::from(Vec::<f64>::new())),
        list(4, Value::Null),
    ];
    assert_eq!(write(&db.sink, rows).await, ["written"; 4]);
    let read = "SELECT k, JSON_LENGTH(list), JSON_EXTRACT(list, '$[2]'), JSON_UNQUOTE(JSON_EXTRACT(list, '$[1]')) FROM t ORDER BY k";
    let expected =
        [format!("1|3|{}|null", i64::MAX), "2|2|NULL|\"'".into(), "3|0|NULL|NULL".into(), "4|NULL|NULL|NULL".into()];
    assert_eq!(db.read(read).await, expected);
    let error = pipeline(&db.sink).prepare(&schema("n")).await.unwrap_err().to_string();
    assert!(error.contains("its column \"n\""), "{error}");
}
