//! Rules that only PostgreSQL has a way for: the index by name or by condition, identity columns; and how a rule that
//! the table does not allow is refused.

use std::time::Duration;

use batchsql_core::{
    Action, Attempt, BatchSql, ColumnType, Conflict, Date, Decimal, ErrorClass, Expr, PipelineConfig, Schema,
    SchemaBuilder, Sink, Timestamp, TimestampTz, Value, ValueRef,
};
use batchsql_postgres::sqlx::Executor;
use batchsql_postgres::sqlx::postgres::PgPoolOptions;
use batchsql_postgres::{PostgresSink, Settings};
use batchsql_testkit::check_versions;

use crate::support::{
    FOR_EVERY_RULE, coalescing, execute, fresh, fresh_dsn, pipeline, read, values, with_strategy, write,
};

fn columns(names: &[&str]) -> SchemaBuilder {
    names.iter().fold(Schema::builder("t"), |schema, name| schema.column(*name, ColumnType::I64))
}

const TWO_INDEXES: &str = "CREATE TABLE t (id bigint, n bigint, CONSTRAINT \"by id\" UNIQUE (id));
                           CREATE UNIQUE INDEX ON t (id) WHERE n > 100; INSERT INTO t VALUES (1, 10)";

#[tokio::test]
async fn the_index_of_a_rule_is_found_by_name() {
    for strategy in FOR_EVERY_RULE {
        let sink = with_strategy(&fresh_dsn(TWO_INDEXES).await, strategy).await;
        let schema =
            columns(&["id", "n"]).on_conflict(Conflict::update(["id"]).on_constraint("by id")).build().unwrap();
        let rows = [values(&schema, [1_i64.into(), 11_i64.into()]), values(&schema, [2_i64.into(), 2_i64.into()])];
        assert_eq!(write(&sink, rows).await, ["written", "written"]);
        assert_eq!(read(&sink, "SELECT id, n FROM t ORDER BY id").await, ["1|11", "2|2"], "{strategy:?}");
    }
}

/// PostgreSQL 18. Other servers do not have such keys, and nothing is tested.
#[tokio::test]
async fn a_key_without_overlaps_is_only_for_what_the_server_does_with_it() {
    let table =
        "CREATE TABLE t (id int4range, d daterange, n bigint, CONSTRAINT k PRIMARY KEY (id, d WITHOUT OVERLAPS))";
    let sink = fresh("SELECT 1").await;
    if let Err(error) = sink.pg_pool().execute(table).await {
        eprintln!("this server has no WITHOUT OVERLAPS ({error}); nothing was tested");
        return;
    }
    let check = async |rule: Conflict, expected: Option<[&str; 2]>| {
        execute(sink.pg_pool(), "TRUNCATE t; INSERT INTO t VALUES ('[1,2)', '[2026-01-01,2026-02-01)', 0)").await;
        let schema = Schema::builder("t").column("id", ColumnType::Text).column("d", ColumnType::Text);
        let is_delete = rule.action() == batchsql_core::Action::Delete;
        let schema = if is_delete { schema } else { schema.column("n", ColumnType::I64) };
        let schema = schema.on_conflict(rule.clone()).build().unwrap();
        let Some(expected) = expected else {
            let error = pipeline(&sink).prepare(&schema).await.unwrap_err();
            assert!(error.to_string().contains("WITHOUT OVERLAPS"), "{rule:?}: {error}");
            return;
        };
        let row = |id: &str| {
            let mut cells = vec![id.into(), "[2026-01-01,2026-02-01)".into(), 1_i64.into()];
            cells.truncate(schema.columns().len());
            values(&schema, cells)
        };
        assert_eq!(write(&sink, [row("[1,2)"), row("[2,3)")]).await, expected, "{rule:?}");
    };
    let key = || ["id", "d"];
    for rule in [Conflict::update(key()), Conflict::replace(key()), Conflict::ignore(key())] {
        check(rule, None).await;
    }
    check(Conflict::update(key()).on_constraint("k"), None).await;
    check(Conflict::ignore(key()).on_constraint("k"), Some(["ignored", "written"])).await;
    check(Conflict::update_only(key()), Some(["written", "ignored"])).await;
    check(Conflict::delete(key()), Some(["written", "ignored"])).await;
}

#[tokio::test]
async fn the_index_of_a_rule_is_found_by_its_condition() {
    let table = "CREATE TABLE t (id bigint, n bigint, gone boolean NOT NULL DEFAULT false);
                 CREATE UNIQUE INDEX ON t (id) WHERE NOT gone; INSERT INTO t VALUES (1, 10, true), (2, 20, false)";
    for strategy in FOR_EVERY_RULE {
        let sink = with_strategy(&fresh_dsn(table).await, strategy).await;
        let rule = Conflict::update(["id"]).set("n", Expr::add()).on_partial_index("NOT gone");
        let schema = columns(&["id", "n"]).on_conflict(rule).build().unwrap();
        let rows = [values(&schema, [1_i64.into(), 1_i64.into()]), values(&schema, [2_i64.into(), 2_i64.into()])];
        assert_eq!(write(&sink, rows).await, ["written", "written"]);
        let expected = ["1|1|f", "1|10|t", "2|22|f"];
        assert_eq!(read(&sink, "SELECT id, n, gone FROM t ORDER BY id, n").await, expected, "{strategy:?}");
    }
}

#[tokio::test]
async fn identity_columns_take_given_values_if_asked() {
    let table = "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n bigint)";
    for conflict in [Conflict::none(), Conflict::update(["id"])] {
        for rows in [2, 600] {
            let sink = fresh(table).await;
            let schema = columns(&["id", "n"]).on_conflict(conflict.clone()).overriding_system_value().build().unwrap();
            let all = (0..rows).map(|id: i64| values(&schema, [(id + 7).into(), id.into()]));
            assert!(write(&sink, all).await.iter().all(|outcome| *outcome == "written"));
            let found = read(&sink, "SELECT count(*), sum(id) - sum(n) FROM t").await;
            assert_eq!(found, [format!("{rows}|{}", rows * 7)]);
        }
    }
    // An update without insert writes no key.
    let sink = fresh(table).await;
    let schema = columns(&["id", "n"]).on_conflict(Conflict::update_only(["id"])).build().unwrap();
    assert_eq!(write(&sink, [values(&schema, [1_i64.into(), 1_i64.into()])]).await, ["ignored"]);
}

#[tokio::test]
async fn a_rule_that_the_table_does_not_allow_is_refused_with_the_reason() {
    let check = async |rule: Conflict, names: &[&str], part: &str| {
        let sink = fresh(TWO_INDEXES).await;
        let schema = columns(names).on_conflict(rule).build().unwrap();
        let error = pipeline(&sink).prepare(&schema).await.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(error.class(), ErrorClass::Schema);
    };
    let update = || Conflict::update(["id"]);
    check(update().on_constraint("no"), &["id", "n"], "no constraint \"no\"").await;
    check(Conflict::ignore(["n"]).on_partial_index("n > 100"), &["id", "n"], "with the WHERE of the rule").await;
    check(update().set("n", Expr::raw("no_function({new})")), &["id", "n"], "raw expression").await;
    check(update().set("at", Expr::now()), &["id", "n"], "column that the rows have no value for").await;
    check(Conflict::update_only(["n"]), &["n", "id"], "UNIQUE index").await;
    check(Conflict::delete(["n"]), &["n"], "UNIQUE index").await;
    // There is such an index, with another condition.
    let sink = fresh("CREATE TABLE t (id bigint, n bigint); CREATE UNIQUE INDEX ON t (id) WHERE n > 100").await;
    let schema = columns(&["id", "n"]).on_conflict(update().on_partial_index("n > 5")).build().unwrap();
    let mut config = PipelineConfig::default();
    config.park_for = Duration::ZERO;
    let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
    let outcome = db.submit_tracked(&values(&schema, [1_i64.into(), 1_i64.into()])).await.unwrap().await;
    let error = outcome.failure().unwrap().error().unwrap().to_string();
    assert!(error.contains("no unique index over the key has the condition"), "{error}");
}

#[tokio::test]
async fn the_clock_and_raw_expressions_of_the_server_are_used() {
    let sink = fresh(
        "CREATE TABLE t (id bigint PRIMARY KEY, n bigint, at timestamptz DEFAULT '2000-01-01 UTC');
         INSERT INTO t VALUES (1, 10)",
    )
    .await;
    let rule = Conflict::update(["id"]).set("n", Expr::raw("{old} * 2 + {new} + {old.id}")).set("at", Expr::now());
    let schema = columns(&["id", "n"]).on_conflict(rule).build().unwrap();
    let rows = [(1_i64, 5_i64), (2, 6), (1, 7)].map(|(id, n)| values(&schema, [id.into(), n.into()]));
    assert_eq!(write(&sink, rows).await, ["written"; 3]);
    let found = read(&sink, "SELECT id, n, at > now() - interval '1 day' FROM t ORDER BY id").await;
    assert_eq!(found, ["1|60|t", "2|6|f"]);
}

#[tokio::test]
async fn keys_are_compared_as_their_column_does() {
    let check = async |ty: &str, stored: &str, sent: &str, expected: &str| {
        for rule in [Conflict::update_only(["k"]), Conflict::delete(["k"])] {
            let sink =
                fresh(&format!("CREATE TABLE t (k {ty} PRIMARY KEY, n bigint); INSERT INTO t VALUES ('{stored}', 0)"))
                    .await;
            let deletes = rule == Conflict::delete(["k"]);
            let schema = Schema::builder("t").column("k", ColumnType::Text);
            let schema = if deletes { schema } else { schema.column("n", ColumnType::I64) };
            let schema = schema.on_conflict(rule).build().unwrap();
            let mut cells = vec![sent.into(), 1_i64.into()];
            cells.truncate(schema.columns().len());
            let outcomes = write(&sink, [values(&schema, cells)]).await;
            assert_eq!(outcomes, [expected], "{ty}");
            let expected = if expected == "ignored" { ["0"] } else { ["1"] };
            let count = "SELECT CASE WHEN count(*) = 0 OR max(n) = 1 THEN 1 ELSE 0 END FROM t";
            assert_eq!(read(&sink, count).await, expected, "{ty}");
        }
    };
    check("char(5)", "ab", "ab", "written").await;
    check("varchar(5)", "ab", "ab", "written").await;
    check("varchar(5)", "ab", "AB", "ignored").await;
    check("inet", "10.0.0.1", "10.0.0.1", "written").await;
}

#[tokio::test]
async fn rights_are_checked_for_what_a_rule_does() {
    let sink = fresh("CREATE TABLE t (id bigint PRIMARY KEY, n bigint NOT NULL)").await;
    // Rows of updates and deletes need not carry what an insert would need.
    let schema = columns(&["id"]).on_conflict(Conflict::delete(["id"])).build().unwrap();
    pipeline(&sink).prepare(&schema).await.unwrap();
    let refused = columns(&["id"]).on_conflict(Conflict::ignore(["id"])).build().unwrap();
    let error = pipeline(&sink).prepare(&refused).await.unwrap_err().to_string();
    assert!(error.contains("NOT NULL without a default"), "{error}");
}

#[tokio::test]
async fn generated_values_are_returned_to_the_receipts() {
    let table = "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text UNIQUE NOT NULL, n bigint,
                   made timestamptz DEFAULT '2000-01-01 10:00:00.5+02', day date DEFAULT '1999-12-31', raw bytea DEFAULT '\\x0102',
                   sure boolean DEFAULT true, doc jsonb DEFAULT '{\"a\": 1}', num numeric DEFAULT 1.50);
                 INSERT INTO t (name, n) VALUES ('old', 1)";
    let schema_of = |rule| {
        let schema =
            Schema::builder("t").column("name", ColumnType::Text).column("n", ColumnType::I64).on_conflict(rule);
        let schema = schema.returning("id", ColumnType::I64).returning("made", ColumnType::TimestampTz);
        let schema = schema.returning("day", ColumnType::Date).returning("raw", ColumnType::Bytes);
        let schema = schema.returning("sure", ColumnType::Bool).returning("doc", ColumnType::Json);
        schema.returning("num", ColumnType::Decimal).build().unwrap()
    };
    let sink = fresh(table).await;
    let check = async |rule: Conflict, expected: &[(&str, &str, bool)]| {
        let schema = schema_of(rule);
        let db = coalescing(&sink);
        let mut receipts = Vec::new();
        for (name, ..) in expected {
            receipts.push(db.submit_tracked(&values(&schema, [(*name).into(), 2_i64.into()])).await.unwrap());
        }
        db.flush().await.unwrap();
        for ((name, outcome, has_values), receipt) in expected.iter().zip(receipts) {
            let (found, returned) = receipt.with_returned().await;
            assert_eq!((found.kind().name(), returned.is_some()), (*outcome, *has_values), "{name}");
            let Some(returned) = returned else { continue };
            let Some(ValueRef::I64(id)) = returned.get("id") else { panic!("no id: {returned:?}") };
            let stored = read(&sink, &format!("SELECT id FROM t WHERE name = '{name}'")).await;
            assert_eq!(stored, [id.to_string()], "{name}");
            let made = "2000-01-01T08:00:00.5Z".parse().unwrap();
            assert_eq!(returned.get("made"), Some(ValueRef::TimestampTz(made)));
            assert_eq!(returned.get("day"), Some(ValueRef::Date("1999-12-31".parse().unwrap())));
            assert_eq!(
                (returned.get("raw"), returned.get("sure")),
                (Some(ValueRef::Bytes(&[1, 2])), Some(ValueRef::Bool(true)))
            );
            assert_eq!(returned.get("num"), Some(ValueRef::Decimal("1.50")));
        }
    };
    let names: Vec<String> = (0..300).map(|n| format!("name {n}")).collect();
    let many: Vec<(&str, &str, bool)> = names.iter().map(|name| (name.as_str(), "written", true)).collect();
    check(Conflict::none(), &many).await;
    check(Conflict::none(), &[("a", "written", true), ("old", "rejected", false), ("b", "written", true)]).await;
    check(Conflict::ignore(["name"]), &[("a", "ignored", false), ("c", "written", true)]).await;
    check(
        Conflict::update(["name"]),
        &[("old", "superseded", false), ("old", "written", true), ("d", "written", true)],
    )
    .await;
    check(Conflict::update_only(["name"]), &[("x", "ignored", false), ("c", "written", true)]).await;
    // What no calendar value has is returned as text.
    let endless = "CREATE TABLE t (name text UNIQUE, until timestamptz DEFAULT 'infinity')";
    for rule in [Conflict::none(), Conflict::ignore(["name"])] {
        let until = fresh(endless).await;
        let schema = Schema::builder("t").column("name", ColumnType::Text).on_conflict(rule);
        let schema = schema.returning("until", ColumnType::Text).build().unwrap();
        let db = pipeline(&until);
        let receipt = db.submit_tracked(&values(&schema, ["a".into()])).await.unwrap();
        db.flush().await.unwrap();
        let (_, returned) = receipt.with_returned().await;
        assert_eq!(returned.unwrap().get("until"), Some(ValueRef::Text("infinity")));
    }
    let wrong = Schema::builder("t").column("name", ColumnType::Text).returning("no", ColumnType::I64).build().unwrap();
    let error = pipeline(&sink).prepare(&wrong).await.unwrap_err().to_string();
    assert!(error.contains("a returned column"), "{error}");
}

/// The operator of the type compares keys, whatever the search path has before it.
#[tokio::test]
async fn keys_are_compared_by_the_operator_of_their_type() {
    let dsn = fresh_dsn(
        "CREATE TABLE t (id bigint PRIMARY KEY, n bigint, m bigint); INSERT INTO t VALUES (1, 1, 0), (2, 1, 0);
         CREATE FUNCTION never(bigint, bigint) RETURNS bool LANGUAGE sql AS 'SELECT false';
         CREATE OPERATOR = (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = never)",
    )
    .await;
    let pool = PgPoolOptions::new().after_connect(|connection, _| {
        let sql = "SELECT set_config('search_path', current_schema() || ', pg_catalog', false)";
        Box::pin(async move { connection.execute(sql).await.map(drop) })
    });
    let sink = PostgresSink::new(pool.connect(&dsn).await.unwrap());
    assert_eq!(read(&sink, "SELECT count(*) FROM t WHERE id = 1::bigint").await, ["0"], "it is another operator");
    let update = columns(&["id", "n"]).on_conflict(Conflict::update_only(["id"])).build().unwrap();
    assert_eq!(write(&sink, [values(&update, [1_i64.into(), 5_i64.into()])]).await, ["written"]);
    let batch = batchsql_testkit::batch_of([values(&update, [1_i64.into(), 5_i64.into()])]).await;
    let mut conn = sink.acquire().await.unwrap();
    let plan = sink.prepare(&mut conn, &update).await.unwrap();
    assert_eq!(sink.find_written(&mut conn, &plan, batch.rows()).await.unwrap(), [0]);
    drop(conn);
    let delete = columns(&["id"]).on_conflict(Conflict::delete(["id"])).build().unwrap();
    assert_eq!(write(&sink, [values(&delete, [2_i64.into()])]).await, ["written"]);
    assert_eq!(read(&sink, "SELECT * FROM t").await, ["1|5|0"]);
}

/// A session that shows floats with fewer digits than they have.
#[tokio::test]
async fn returned_floats_have_all_their_digits() {
    let dsn = fresh_dsn(
        "CREATE TYPE span AS RANGE (subtype = float8); CREATE TYPE two AS (a float4, b float8);
         CREATE TABLE t (id bigint PRIMARY KEY, f8 float8 DEFAULT 0.1::float8 + 0.2::float8, f4 float4 DEFAULT 16777.217,
                         list float8[] DEFAULT ARRAY[0.1::float8 + 0.2::float8], small float4[] DEFAULT '{16777.217}',
                         span span DEFAULT '[0.30000000000000004,1)', place point DEFAULT '(0.30000000000000004,1)',
                         two two DEFAULT ROW(16777.217, 0.30000000000000004))",
    )
    .await;
    let id = Schema::builder("t").column("id", ColumnType::I64);
    let columns = [
        ("f8", ColumnType::F64, Value::F64(0.1 + 0.2)),
        ("f8", ColumnType::Text, "0.30000000000000004".into()),
        ("f4", ColumnType::F32, Value::F32(16777.217)),
        ("list", ColumnType::Text, "{0.30000000000000004}".into()),
        ("small", ColumnType::Text, "{16777.217}".into()),
        ("span", ColumnType::Text, "[0.30000000000000004,1)".into()),
        ("place", ColumnType::Text, "(0.30000000000000004,1)".into()),
        ("two", ColumnType::Text, "(16777.217,0.30000000000000004)".into()),
    ];
    for (digits, prepared) in [(-15, true), (0, true), (0, false)] {
        let pool = PgPoolOptions::new().max_connections(1).connect(&dsn).await.unwrap();
        execute(&pool, &format!("SET extra_float_digits = {digits}")).await;
        let sink = PostgresSink::from_pool(pool, Settings::default().prepared_statements(prepared));
        // In one statement in order, in one with numbers, and one by one.
        for conflict in [Conflict::none(), Conflict::ignore(["id"]), Conflict::update_only(["id"])] {
            for (name, ty, expected) in &columns {
                execute(sink.pg_pool(), "DELETE FROM t").await;
                let schema = id.clone().column("f4", ColumnType::F32).on_conflict(conflict.clone());
                let schema = schema.returning(*name, *ty).build().unwrap();
                if schema.action() == Action::UpdateOnly {
                    execute(sink.pg_pool(), "INSERT INTO t VALUES (1)").await;
                }
                let db = pipeline(&sink);
                let receipt = db.submit_tracked(&values(&schema, [1_i64.into(), 16777.217_f32.into()])).await.unwrap();
                db.close(Duration::from_secs(60)).await;
                let (outcome, returned) = receipt.with_returned().await;
                assert_eq!(outcome.kind().name(), "written", "{digits} {conflict:?} {name}");
                let returned = returned.unwrap();
                assert_eq!(
                    returned.get(name).map(|found| found.to_value()).as_ref(),
                    Some(expected),
                    "{digits} {conflict:?} {name}"
                );
            }
        }
        // Nothing is left on the connection.
        assert_eq!(read(&sink, "SHOW extra_float_digits").await, [digits.to_string()]);
    }
}

/// Versions are compared, and values are added, by the operators of their types.
#[tokio::test]
async fn versions_and_sums_have_the_operators_of_their_type() {
    let dsn = fresh_dsn(
        "CREATE TABLE t (id bigint PRIMARY KEY, n bigint, m bigint); INSERT INTO t VALUES (1, 1, 1), (2, 1, 1);
         CREATE FUNCTION never(bigint, bigint) RETURNS bool LANGUAGE sql AS 'SELECT false';
         CREATE FUNCTION zero(bigint, bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 0::pg_catalog.int8';
         CREATE OPERATOR > (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = never);
         CREATE OPERATOR + (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = zero)",
    )
    .await;
    let pool = PgPoolOptions::new().after_connect(|connection, _| {
        let sql = "SELECT set_config('search_path', current_schema() || ', pg_catalog', false)";
        Box::pin(async move { connection.execute(sql).await.map(drop) })
    });
    let sink = PostgresSink::new(pool.connect(&dsn).await.unwrap());
    let others = read(&sink, "SELECT 2::bigint > 1::bigint, 2::bigint + 1::bigint").await;
    assert_eq!(others, ["f|0"], "they are other operators");
    for (id, rule) in [(1_i64, Conflict::update(["id"])), (2, Conflict::update_only(["id"]))] {
        let newer = columns(&["id", "n"]).on_conflict(rule.clone().only_if_newer("n")).build().unwrap();
        assert_eq!(write(&sink, [values(&newer, [id.into(), 5_i64.into()])]).await, ["written"], "{rule:?}");
        let sum = columns(&["id", "m"]).on_conflict(rule.clone().set("m", Expr::add())).build().unwrap();
        assert_eq!(write(&sink, [values(&sum, [id.into(), 2_i64.into()])]).await, ["written"], "{rule:?}");
    }
    assert_eq!(read(&sink, "SELECT * FROM t ORDER BY id").await, ["1|5|3", "2|5|3"]);
}

/// Names with a meaning in statements of PostgreSQL, and those of the sink's own statements.
#[tokio::test]
async fn tables_and_columns_may_have_the_names_of_statements() {
    for name in ["excluded", "old", "new", "u", "c0", "n", "batchsql_i", "batchsql_n", "batchsql_old", "batchsql_new"] {
        let columns = format!("(id bigint PRIMARY KEY, \"{name}\" bigint, made bigint GENERATED ALWAYS AS IDENTITY)");
        let sink = fresh(&format!("CREATE TABLE \"{name}\" {columns}")).await;
        let rules = [
            Conflict::update(["id"]),
            Conflict::ignore(["id"]),
            Conflict::update(["id"]).only_if_newer(name),
            Conflict::update(["id"]).set(name, Expr::add()),
            Conflict::update_only(["id"]),
            Conflict::delete(["id"]),
            Conflict::none(),
        ];
        for (n, rule) in (1..).zip(rules) {
            for returns in [false, true] {
                let schema = Schema::builder(name).column("id", ColumnType::I64);
                let schema =
                    if rule == Conflict::delete(["id"]) { schema } else { schema.column(name, ColumnType::I64) };
                let schema = schema.on_conflict(rule.clone());
                let schema = if returns {
                    schema.returning(name, ColumnType::I64).returning("made", ColumnType::I64)
                } else {
                    schema
                };
                let schema = schema.build().unwrap();
                let values = [i64::from(returns).into(), Value::from(n)];
                let row =
                    schema.row().set_all(values.into_iter().take(schema.columns().len())).unwrap().finish().unwrap();
                let db = pipeline(&sink);
                let receipt = db.submit_tracked(&row).await.unwrap();
                db.flush().await.unwrap();
                let (outcome, returned) = receipt.with_returned().await;
                let is_known = matches!(outcome.kind().name(), "written" | "ignored");
                assert!(is_known, "{name} {rule:?} {returns}: {outcome:?}");
                assert_eq!(returned.is_some(), returns && outcome.is_written(), "{name} {rule:?}");
            }
        }
    }
}

/// What a returned value loses, or never is, is found before the first row.
#[tokio::test]
async fn decimals_in_a_text_column_are_not_computed_with() {
    for declared in ["text", "varchar(80)"] {
        let sink = fresh(&format!("CREATE TABLE t (id bigint PRIMARY KEY, d {declared})")).await;
        let prepared = async |rule: Conflict| {
            let schema = Schema::builder("t").column("id", ColumnType::I64).column("d", ColumnType::Decimal);
            pipeline(&sink).prepare(&schema.on_conflict(rule).build().unwrap()).await
        };
        for rule in [Conflict::update(["id"]), Conflict::update_only(["id"])] {
            let computed = [Expr::add(), Expr::greatest(), Expr::least()].map(|expr| rule.clone().set("d", expr));
            for rule in computed.into_iter().chain([rule.clone().only_if_newer("d")]) {
                let error = prepared(rule).await.unwrap_err();
                assert_eq!(error.class(), ErrorClass::Schema, "{error}");
                let text = error.to_string();
                assert!(text.contains("stores decimals as text") && text.contains("declare it numeric"), "{text}");
            }
            prepared(rule.clone().set("d", Expr::unless_null())).await.unwrap();
            prepared(rule).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_returned_column_of_another_type_is_refused() {
    let sink = fresh(
        "CREATE TABLE t (id bigint, f8 float8, f4 float4, at timestamptz, local timestamp, day date, list int[], span interval, sure bool,
                         ip inet, raw bytea)",
    )
    .await;
    use ColumnType::{Bool, Date, Decimal, F32, F64, I64, Json, Text, Time, Timestamp, TimestampTz};
    let wrong = [
        ("f8", F32),
        ("f4", F64),
        ("at", Date),
        ("at", Timestamp),
        ("local", TimestampTz),
        ("day", Timestamp),
        ("day", Time),
        ("list", Json),
        ("span", I64),
        ("sure", I64),
        ("ip", Json),
        ("raw", Json),
        ("id", Date),
    ];
    for (name, ty) in wrong {
        let schema = Schema::builder("t").column("id", I64).returning(name, ty).build().unwrap();
        let error = pipeline(&sink).prepare(&schema).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Schema, "{error}");
        let text = error.to_string();
        assert!(text.contains(&format!("{name:?} is declared")) && text.contains("cannot be returned as"), "{text}");
    }
    let right = [("f8", F64), ("f4", F32), ("f8", Decimal), ("list", Text), ("span", Text), ("id", Bool), ("id", F64)];
    for (name, ty) in right {
        let schema = Schema::builder("t").column("id", I64).returning(name, ty).build().unwrap();
        pipeline(&sink).prepare(&schema).await.unwrap();
    }
}

/// A value that is none of its declared type is told, and never another value.
#[tokio::test]
async fn returned_values_that_do_not_fit_are_told() {
    let told = Told::default();
    let _guard = tracing::subscriber::set_default(told.clone());
    let sink = fresh(
        "CREATE TABLE t (id bigint, num numeric DEFAULT 12345678901234567890.5, nan numeric DEFAULT 'NaN', part numeric DEFAULT 1.5,
                         ends date DEFAULT 'infinity', tenth numeric DEFAULT 0.10)",
    )
    .await;
    let wrong =
        [("num", ColumnType::F64), ("nan", ColumnType::Decimal), ("part", ColumnType::I64), ("ends", ColumnType::Date)];
    for (name, ty) in wrong {
        let schema = Schema::builder("t").column("id", ColumnType::I64).returning("id", ColumnType::I64);
        let schema = schema.returning(name, ty).build().unwrap();
        let batch =
            batchsql_testkit::batch_of((0..3).map(|id| values(&schema, [Value::from(id as i64)])).collect::<Vec<_>>())
                .await;
        let mut conn = sink.acquire().await.unwrap();
        let plan = sink.prepare(&mut conn, &schema).await.unwrap();
        let written = sink.write(&mut conn, &plan, batch.rows(), &Attempt::new(false)).await.unwrap();
        assert!(
            written.rejected.is_empty() && written.ignored.is_empty() && written.returned.is_empty(),
            "{written:?}"
        );
        let told = std::mem::take(&mut *told.0.lock().unwrap());
        let about = format!("column {name:?} is no {ty}");
        assert!(told.len() == 1 && told[0].contains(&about) && told[0].contains("rows=3"), "{told:?}");
    }
    let schema =
        Schema::builder("t").column("id", ColumnType::I64).returning("tenth", ColumnType::F64).build().unwrap();
    let db = pipeline(&sink);
    let receipt = db.submit_tracked(&values(&schema, [9_i64.into()])).await.unwrap();
    db.flush().await.unwrap();
    assert_eq!(receipt.with_returned().await.1.unwrap().get("tenth"), Some(ValueRef::F64(0.1)));
}

/// The warnings of the sink on this thread.
#[derive(Clone, Default)]
struct Told(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl tracing::Subscriber for Told {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("batchsql_postgres") && *metadata.level() == tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{field}={value:?} ");
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn rows_whose_keys_have_two_forms_have_exact_outcomes() {
    let decimal = |text: &str| Value::from(text.parse::<Decimal>().unwrap());
    let text = |text: &str| Value::from(text);
    type Case<'a> = (&'a str, ColumnType, [Value; 4]);
    // The stored keys are 1 and 2; the batch has another form of each, and a key that is not there.
    let cases: [Case<'_>; 3] = [
        ("numeric", ColumnType::Decimal, [decimal("1.50"), decimal("2"), decimal("1.5"), decimal("2.0")]),
        ("char(5)", ColumnType::Text, [text("a"), text("b"), text("a  "), text("b ")]),
        ("bigint", ColumnType::I64, [1_i64.into(), 2_i64.into(), 1_i64.into(), 2_i64.into()]),
    ];
    for (ty, column, [one, two, other_one, other_two]) in cases {
        let check = async |rule: Conflict, rows: Vec<(Value, i64, i64)>, expected: &[&str], stored: &[&str]| {
            let sink = fresh(&format!("CREATE TABLE t (k {ty} PRIMARY KEY, n bigint, v bigint)")).await;
            let schema = |rule| {
                let schema = Schema::builder("t").column("k", column).column("n", ColumnType::I64);
                schema.column("v", ColumnType::I64).on_conflict(rule).build().unwrap()
            };
            let row = |schema: &Schema, (key, n, v): (Value, i64, i64)| values(schema, [key, n.into(), v.into()]);
            let plain = schema(Conflict::none());
            let before = [(one.clone(), 0, 1), (two.clone(), 0, 9)];
            assert_eq!(write(&sink, before.map(|cells| row(&plain, cells))).await, ["written"; 2]);
            let schema = match rule.action() {
                Action::Delete => plain_key(column),
                _ => schema(rule.clone()),
            };
            let rows = rows.into_iter().map(|cells| match rule.action() {
                Action::Delete => values(&schema, [cells.0]),
                _ => row(&schema, cells),
            });
            assert_eq!(write(&sink, rows).await, expected, "{ty} {rule:?}");
            assert_eq!(read(&sink, "SELECT n, v FROM t ORDER BY k").await, stored, "{ty} {rule:?}");
        };
        let newer = || Conflict::update(["k"]).only_if_newer("v");
        // One wins in another form, the other loses.
        let rows = vec![(other_one.clone(), 5, 2), (other_two.clone(), 5, 3)];
        check(newer(), rows, &["written", "ignored"], &["5|2", "0|9"]).await;
        let add = Conflict::update_only(["k"]).set("n", Expr::add());
        let rows = vec![(one.clone(), 1, 5), (other_one.clone(), 10, 6), (other_two.clone(), 100, 7)];
        check(add, rows, &["written"; 3], &["11|6", "100|7"]).await;
        let rows = vec![(other_one.clone(), 0, 0), (other_two.clone(), 0, 0)];
        check(Conflict::delete(["k"]), rows, &["written"; 2], &[]).await;
    }
}

#[tokio::test]
async fn a_sum_that_the_column_cannot_hold_is_refused_and_the_rows_are_written_one_by_one() {
    for (ty, stored) in [("smallint", i64::from(i16::MAX) - 27), ("bigint", i64::MAX - 27), ("numeric(3)", 972)] {
        let dsn = fresh_dsn(&format!("CREATE TABLE t (id bigint PRIMARY KEY, n {ty})")).await;
        for strategy in FOR_EVERY_RULE {
            let sink = with_strategy(&dsn, strategy).await;
            execute(sink.pg_pool(), "TRUNCATE t").await;
            execute(sink.pg_pool(), &format!("INSERT INTO t VALUES (1, {stored})")).await;
            let ty_of_rows = if ty == "smallint" { ColumnType::I16 } else { ColumnType::I64 };
            let schema = Schema::builder("t").column("id", ColumnType::I64).column("n", ty_of_rows);
            let schema = schema.on_conflict(Conflict::update(["id"]).set("n", Expr::add())).build().unwrap();
            // 27 more are possible: the sum of the three rows of key 1 is not, and of them the last one.
            let rows = [(1_i64, 5_i16), (2, 1), (1, 22), (1, 1)].map(|(id, n)| {
                let n = if ty == "smallint" { Value::from(n) } else { Value::from(i64::from(n)) };
                values(&schema, [id.into(), n])
            });
            assert_eq!(write(&sink, rows).await, ["written", "written", "written", "rejected"], "{ty} {strategy:?}");
            let found = read(&sink, "SELECT id, n FROM t ORDER BY id").await;
            assert_eq!(found, [format!("1|{}", stored + 27), "2|1".to_owned()], "{ty} {strategy:?}");
        }
    }
}

#[tokio::test]
async fn versions_of_every_type_are_compared_as_they_are_stored() {
    let decimal = |text: &str| Value::from(text.parse::<Decimal>().unwrap());
    let time = |micros| Value::from(Timestamp::from_micros_since_epoch(micros).unwrap());
    let instant = |micros| Value::from(TimestampTz::from_micros_since_epoch(micros).unwrap());
    let date = |day| Value::from(Date::from_ymd(2000, 1, day).unwrap());
    // One that is older than the stored one, the stored one, and a newer one.
    let cases: [(&str, ColumnType, [Value; 3]); 10] = [
        ("smallint", ColumnType::I16, [Value::from(-10_i16), 9_i16.into(), 10_i16.into()]),
        ("integer", ColumnType::I32, [Value::from(-10_i32), 9_i32.into(), 10_i32.into()]),
        ("bigint", ColumnType::I64, [Value::from(-10_i64), 9_i64.into(), 10_i64.into()]),
        ("numeric(20,4)", ColumnType::Decimal, [decimal("-1.5"), decimal("9.5"), decimal("10.4999")]),
        ("numeric", ColumnType::Decimal, [decimal("9.49"), decimal("9.5"), decimal("10")]),
        ("real", ColumnType::F32, [Value::from(0.1_f32), 0.2_f32.into(), 1e30_f32.into()]),
        ("double precision", ColumnType::F64, [Value::from(0.1), 0.2.into(), 1e300.into()]),
        ("date", ColumnType::Date, [date(9), date(10), date(11)]),
        ("timestamp", ColumnType::Timestamp, [time(-1), time(1_000_000), time(1_000_001)]),
        ("timestamptz", ColumnType::TimestampTz, [instant(-1), instant(1_000_000), instant(1_000_001)]),
    ];
    for (ty, column, versions) in cases {
        let sink = fresh(&format!("CREATE TABLE t (id bigint PRIMARY KEY, v {ty})")).await;
        check_versions(&*sink, column, versions, ty).await;
    }
}

/// The schema of deletes.
fn plain_key(ty: ColumnType) -> Schema {
    Schema::builder("t").column("k", ty).on_conflict(Conflict::delete(["k"])).build().unwrap()
}
