//! Conflict rules: the content of the table afterwards, and the exact outcome of every row, by every
//! strategy.

use batchsql_core::{BatchSql, Coalesce, ColumnType, Conflict, Ordering, PipelineConfig, Schema, Value};

use crate::support::{
    FOR_EVERY_RULE, HOUR, coalescing, execute, fresh, fresh_dsn, outcomes_by, read, row, schema, values,
    with_parameter, with_strategy, write,
};

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, note text); INSERT INTO t VALUES (1, 'old'), (5, 'old')";

#[tokio::test]
async fn ignored_rows_are_told_one_by_one() {
    for strategy in FOR_EVERY_RULE {
        let sink = with_strategy(&fresh_dsn(TABLE).await, strategy).await;
        let schema = schema(Conflict::ignore(["id"]));
        // Existing keys, new ones, and a duplicate, whose first row is written.
        let ids = [5, 2, 1, 3, 2, 4, 5];
        let rows = ids.iter().zip(0..).map(|(id, n)| row(&schema, *id, format!("new {n}")));
        let expected = ["ignored", "written", "ignored", "written", "ignored", "written", "ignored"];
        assert_eq!(write(&sink, rows).await, expected, "{strategy:?}");
        let in_table = ["1|old", "2|new 1", "3|new 3", "4|new 5", "5|old"];
        assert_eq!(read(&sink, "SELECT id, note FROM t ORDER BY id").await, in_table, "{strategy:?}");
        // All of them, and none.
        let again = (1..=5).map(|id| row(&schema, id, "again"));
        assert_eq!(write(&sink, again).await, ["ignored"; 5], "{strategy:?}");
        let others = (6..=8).map(|id| row(&schema, id, "other"));
        assert_eq!(write(&sink, others).await, ["written"; 3], "{strategy:?}");
    }
}

#[tokio::test]
async fn ignored_rows_of_a_large_batch_are_exact() {
    for strategy in FOR_EVERY_RULE {
        let sink = with_strategy(&fresh_dsn("CREATE TABLE t (id bigint PRIMARY KEY, note text)").await, strategy).await;
        let schema = schema(Conflict::ignore(["id"]));
        execute(sink.pg_pool(), "INSERT INTO t SELECT n * 7, 'old' FROM generate_series(0, 200) n").await;
        let rows = (0..1_300).map(|id| row(&schema, id, "new"));
        for (id, outcome) in write(&sink, rows).await.into_iter().enumerate() {
            assert_eq!(outcome, if id % 7 == 0 { "ignored" } else { "written" }, "row {id}, {strategy:?}");
        }
    }
}

#[tokio::test]
async fn keys_of_several_columns_and_every_type_are_known_again() {
    for strategy in FOR_EVERY_RULE {
        let sink = with_strategy(
            &fresh_dsn(
                "CREATE TYPE mood AS ENUM ('sad', 'ok');
                 CREATE TABLE t (a varchar(4), b numeric, c uuid, d timestamptz, e mood, f date, g bytea, n int,
                                 UNIQUE (g, a, b, c, d, e, f));",
            )
            .await,
            strategy,
        )
        .await;
        let schema = Schema::builder("t")
            .column("a", ColumnType::Text)
            .column("b", ColumnType::Decimal)
            .column("c", ColumnType::Uuid)
            .column("d", ColumnType::TimestampTz)
            .column("e", ColumnType::Text)
            .column("f", ColumnType::Date)
            .column("g", ColumnType::Bytes)
            .column("n", ColumnType::I32)
            .on_conflict(Conflict::ignore(["a", "b", "c", "d", "e", "f", "g"]))
            .build()
            .unwrap();
        let key = |a: &str, b: &str, byte: u8, e: &str, n: i32| {
            let instant = batchsql_core::TimestampTz::from_micros_since_epoch(-1).unwrap();
            let date = batchsql_core::Date::from_ymd(1900, 2, 28).unwrap();
            let number: batchsql_core::Decimal = b.parse().unwrap();
            let uuid = Value::Uuid([byte; 16]);
            let bytes = Value::Bytes(vec![byte; 3]);
            values(&schema, [a.into(), number.into(), uuid, instant.into(), e.into(), date.into(), bytes, n.into()])
        };
        let first = [key("äöüß", "1.50", 1, "ok", 0), key("äöüß", "1.5", 1, "ok", 1), key("", "-0.001", 2, "sad", 2)];
        // 1.50 and 1.5 are the same number: the first is written.
        assert_eq!(write(&sink, first).await, ["written", "ignored", "written"], "{strategy:?}");
        let second = [key("", "-0.001", 2, "ok", 3), key("", "-0.0010", 2, "sad", 4), key("x   ", "0", 0, "ok", 5)];
        assert_eq!(write(&sink, second).await, ["written", "ignored", "written"], "{strategy:?}");
        assert_eq!(read(&sink, "SELECT n FROM t ORDER BY n").await, ["0", "2", "3", "5"], "{strategy:?}");
    }
}

#[tokio::test]
async fn keys_that_the_server_changes_are_told_exactly() {
    let check = async |ty: &str, column: ColumnType, keys: &[(Value, &str)]| {
        for strategy in FOR_EVERY_RULE {
            let table = format!("CREATE TABLE t (k {ty} PRIMARY KEY, n bigint)");
            // By default these keys would be rejected.
            let dsn = with_parameter(&fresh_dsn(&table).await, "lossy_values=convert");
            let sink = with_strategy(&dsn, strategy).await;
            let schema = Schema::builder("t").column("k", column).column("n", ColumnType::I64);
            let schema = schema.on_conflict(Conflict::ignore(["k"])).build().unwrap();
            // In the order of submission: one pipeline, and no sorting by key with `PerTable`.
            let rows = keys.iter().zip(0_i64..).map(|((key, _), n)| values(&schema, [key.clone(), n.into()]));
            let expected: Vec<&str> = keys.iter().map(|(_, outcome)| *outcome).collect();
            assert_eq!(write(&sink, rows).await, expected, "{ty}, {strategy:?}");
            let written = expected.iter().filter(|outcome| **outcome == "written").count();
            assert_eq!(read(&sink, "SELECT count(*) FROM t").await, [written.to_string()], "{ty}, {strategy:?}");
        }
    };
    let text = |text: &str| Value::from(text);
    let (w, i) = ("written", "ignored");
    check("char(4)", ColumnType::Text, &[(text("a"), w), (text("a  "), i), (text("b"), w), (text("a    "), i)]).await;
    // Spaces beyond the length are cut off.
    check("varchar(3)", ColumnType::Text, &[(text("a  "), w), (text("a    "), i), (text("a"), w), (text("bcd  "), w)])
        .await;
    let number = |text: &str| Value::from(text.parse::<batchsql_core::Decimal>().unwrap());
    check(
        "numeric(5,1)",
        ColumnType::Decimal,
        &[(number("1.04"), w), (number("1.01"), i), (number("1.05"), w), (number("1.1"), i), (number("7"), w)],
    )
    .await;
    check("float8", ColumnType::F64, &[(Value::F64(0.0), w), (Value::F64(-0.0), i), (Value::F64(1.5), w)]).await;
    let at = |micros| Value::from(batchsql_core::Timestamp::from_micros_since_epoch(micros).unwrap());
    check("timestamp(0)", ColumnType::Timestamp, &[(at(0), w), (at(400_000), i), (at(600_000), w)]).await;
    check("inet", ColumnType::Text, &[(text("10.0.0.1"), w), (text("10.0.0.1/32"), i), (text("::1"), w)]).await;
}

#[tokio::test]
async fn keys_without_case_are_told_exactly() {
    let table = "CREATE COLLATION IF NOT EXISTS without_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
                 CREATE TABLE t (k text COLLATE without_case PRIMARY KEY, n bigint)";
    for strategy in FOR_EVERY_RULE {
        let dsn = fresh_dsn(table).await;
        let sink = with_strategy(&dsn, strategy).await;
        let rule = |conflict| {
            let schema = Schema::builder("t").column("k", ColumnType::Text).column("n", ColumnType::I64);
            schema.on_conflict(conflict).build().unwrap()
        };
        let rows = |schema: &Schema, keys: &[&str]| {
            keys.iter().zip(0_i64..).map(|(k, n)| values(schema, [(*k).into(), n.into()])).collect::<Vec<_>>()
        };
        let ignore = rule(Conflict::ignore(["k"]));
        let told = write(&sink, rows(&ignore, &["A", "b", "a", "B", "c", "A"])).await;
        assert_eq!(told, ["written", "written", "ignored", "ignored", "written", "ignored"], "{strategy:?}");
        // The server, unlike the pipeline, treats these rows as one: the last one in order must remain.
        let replace = rule(Conflict::replace(["k"]));
        let told = write(&sink, rows(&replace, &["x", "A", "y", "a", "Y", "X", "a"])).await;
        assert_eq!(told, ["written"; 7], "{strategy:?}");
        let table = read(&sink, "SELECT k, n FROM t ORDER BY k COLLATE \"C\"").await;
        assert_eq!(table, ["A|6", "b|1", "c|4", "x|5", "y|4"], "{strategy:?}");
    }
}

#[tokio::test]
async fn the_last_row_of_a_key_wins_and_others_are_superseded() {
    for strategy in FOR_EVERY_RULE {
        let sink = with_strategy(&fresh_dsn(TABLE).await, strategy).await;
        let schema = schema(Conflict::update(["id"]));
        let rows = [row(&schema, 1, "a"), row(&schema, 2, "b"), row(&schema, 1, "c"), row(&schema, 2, "d")];
        let outcomes = outcomes_by(&coalescing(&sink), rows).await;
        let outcomes: Vec<_> = outcomes.iter().map(|outcome| outcome.kind().name()).collect();
        assert_eq!(outcomes, ["superseded", "superseded", "written", "written"], "{strategy:?}");
        assert_eq!(read(&sink, "SELECT id, note FROM t ORDER BY id").await, ["1|c", "2|d", "5|old"], "{strategy:?}");
    }
}

#[tokio::test]
async fn every_version_of_a_key_is_written_in_order_where_none_may_be_left_out() {
    for strategy in FOR_EVERY_RULE {
        let table = "CREATE TABLE t (id bigint PRIMARY KEY, first text, last text)";
        let sink = with_strategy(&fresh_dsn(table).await, strategy).await;
        let schema = Schema::builder("t")
            .column("id", ColumnType::I64)
            .column("first", ColumnType::Text)
            .column("last", ColumnType::Text)
            .on_conflict(Conflict::update_columns(["id"], ["last"]))
            .build()
            .unwrap();
        let rows = (0..30_i64).map(|n| {
            let text = format!("v{n}");
            values(&schema, [(n % 4).into(), text.clone().into(), text.into()])
        });
        assert_eq!(write(&sink, rows).await, ["written"; 30], "{strategy:?}");
        let expected = ["0|v0|v28", "1|v1|v29", "2|v2|v26", "3|v3|v27"];
        assert_eq!(read(&sink, "SELECT id, first, last FROM t ORDER BY id").await, expected, "{strategy:?}");
    }
}

#[tokio::test]
async fn without_coalescing_every_row_is_written_and_the_last_one_stays() {
    for strategy in FOR_EVERY_RULE {
        let sink = with_strategy(&fresh_dsn(TABLE).await, strategy).await;
        let config =
            PipelineConfig::default().coalesce(Coalesce::Off).flush_interval(HOUR).ordering(Ordering::PerTable);
        let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
        let schema = schema(Conflict::replace(["id"]));
        let rows = (0..40).map(|n| row(&schema, n % 3, format!("v{n}")));
        let told = outcomes_by(&db, rows).await;
        assert!(told.iter().all(batchsql_core::Outcome::is_written), "{strategy:?}: {told:?}");
        let expected = ["0|v39", "1|v37", "2|v38", "5|old"];
        assert_eq!(read(&sink, "SELECT id, note FROM t ORDER BY id").await, expected, "{strategy:?}");
    }
}

#[tokio::test]
async fn a_rule_that_updates_nothing_ignores() {
    let none: [&str; 0] = [];
    let sink = fresh(TABLE).await;
    let schema = schema(Conflict::update_columns(["id"], none));
    let rows = [row(&schema, 1, "a"), row(&schema, 2, "b"), row(&schema, 2, "c")];
    assert_eq!(write(&sink, rows).await, ["ignored", "written", "ignored"]);
    assert_eq!(read(&sink, "SELECT id, note FROM t ORDER BY id").await, ["1|old", "2|b", "5|old"]);
}

#[tokio::test]
async fn rows_that_a_trigger_drops_are_told_as_ignored() {
    let table = "CREATE TABLE t (id bigint PRIMARY KEY, note text); INSERT INTO t VALUES (1, 'old');
                 CREATE FUNCTION drops() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     IF new.note = 'drop' THEN RETURN NULL; END IF;
                     new.note := upper(new.note); RETURN new; END $$;
                 CREATE TRIGGER drops BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION drops()";
    for rule in [Conflict::none(), Conflict::ignore(["id"]), Conflict::replace(["id"])] {
        let sink = fresh(table).await;
        let schema = schema(rule.clone());
        let rows = (2..60).map(|id| row(&schema, id, if id % 9 == 0 { "drop" } else { "keep" }));
        for (id, outcome) in (2..60).zip(write(&sink, rows).await) {
            assert_eq!(outcome, if id % 9 == 0 { "ignored" } else { "written" }, "row {id}, {rule:?}");
        }
        let expected = read(&sink, "SELECT count(*), count(*) FILTER (WHERE note = 'KEEP') FROM t").await;
        assert_eq!(expected, ["53|52"], "{rule:?}");
    }
}

/// Two writers that look like two processes to the server, with the same keys in different orders.
#[tokio::test(flavor = "multi_thread")]
async fn writers_of_the_same_keys_do_not_stop_each_other() {
    let dsn = fresh_dsn("CREATE TABLE t (id bigint PRIMARY KEY, note text)").await;
    let dsn = crate::support::with_parameter(&dsn, "options[deadlock_timeout]=20ms");
    let mut writers = Vec::new();
    for writer in 0..2_i64 {
        let sink = batchsql_postgres::PostgresSink::connect(&dsn).await.unwrap();
        writers.push(tokio::spawn(async move {
            let config = PipelineConfig::default().flush_size(100);
            let db = BatchSql::builder(sink).config(config).start().unwrap();
            let schema = schema(Conflict::replace(["id"]));
            // 7 and 11 have no factor in common with 400: every key, in a different order for each writer.
            let rows = (0..4_000).map(|n| row(&schema, n * [7, 11][writer as usize] % 400, format!("{writer}")));
            outcomes_by(&db, rows).await.into_iter().map(|outcome| outcome.kind().name()).collect::<Vec<_>>()
        }));
    }
    for writer in writers {
        let told = writer.await.unwrap();
        assert!(told.iter().all(|outcome| matches!(*outcome, "written" | "superseded")), "{told:?}");
    }
    let sink = batchsql_postgres::PostgresSink::connect(&dsn).await.unwrap();
    assert_eq!(read(&sink, "SELECT count(*) FROM t").await, ["400"]);
}

/// More rows than one part has, with parts that grow and parts that are halved.
#[tokio::test]
async fn rows_that_a_trigger_drops_here_and_there_are_told_one_by_one() {
    let table = "CREATE TABLE t (id bigint PRIMARY KEY, note text); INSERT INTO t VALUES (3, 'old');
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN IF new.id IN (255, 256, 400) OR new.id > 2900 THEN RETURN NULL; END IF; RETURN new; END';
         CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()";
    for conflict in [Conflict::ignore(["id"]), Conflict::replace(["id"])] {
        let sink = fresh(table).await;
        let schema = schema(conflict.clone());
        let is_kept = conflict == Conflict::ignore(["id"]);
        let told = write(&sink, (0..3_000).map(|id| row(&schema, id, "a"))).await;
        for (id, outcome) in told.into_iter().enumerate() {
            let drops = matches!(id, 255 | 256 | 400) || id > 2_900 || (id == 3 && is_kept);
            assert_eq!(outcome, if drops { "ignored" } else { "written" }, "row {id}, {conflict:?}");
        }
        assert_eq!(read(&sink, "SELECT count(*) FROM t").await, ["2898"], "{conflict:?}");
    }
}
