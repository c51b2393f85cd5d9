//! The checks of a table before the first row, and changes of a table.

use std::time::Duration;

use batchsql_core::{
    BatchSql, ColumnType, Conflict, ErrorClass, PipelineConfig, Schema, SchemaBuilder, TableName, Value,
};
use batchsql_postgres::sqlx::Executor;
use batchsql_postgres::{PostgresSink, Strategy};
use batchsql_testserver::unique;

use crate::support::{
    HOUR, at_end, execute, fresh, fresh_dsn, outcomes, pipeline, read, row, schema, user_until_end, values,
    with_strategy, write,
};

async fn refused(sink: &PostgresSink, builder: SchemaBuilder) -> (ErrorClass, String) {
    let error = pipeline(sink).prepare(&builder.build().unwrap()).await.unwrap_err();
    (error.class(), error.to_string())
}

#[tokio::test]
async fn tables_that_cannot_be_written_are_refused_with_advice() {
    let sink = fresh(
        "CREATE TABLE t (id bigint, price real, zoned timestamptz, local timestamp, label text,
                         twice bigint GENERATED ALWAYS AS (id * 2) STORED, always bigint GENERATED ALWAYS AS IDENTITY);
         CREATE TABLE needs (id bigint, other text NOT NULL);
         CREATE TABLE partial (id bigint, note text); CREATE UNIQUE INDEX ON partial (id) WHERE note IS NULL;
         CREATE UNIQUE INDEX ON partial (lower(note)); CREATE INDEX ON partial (note);
         CREATE TABLE late (id bigint UNIQUE DEFERRABLE);
         CREATE TABLE wide (id bigint, part bigint, more bigint, UNIQUE (id, part));
         CREATE UNIQUE INDEX ON wide (more) INCLUDE (part);
         CREATE VIEW v AS SELECT 1::bigint AS id; CREATE MATERIALIZED VIEW m AS SELECT 1::bigint AS id;
         CREATE SEQUENCE s; CREATE TABLE ruled (id bigint);
         CREATE RULE r AS ON INSERT TO ruled DO INSTEAD NOTHING",
    )
    .await;
    let check = async |builder: SchemaBuilder, part: &str| {
        let (class, text) = refused(&sink, builder).await;
        assert_eq!(class, ErrorClass::Schema, "{text}");
        assert!(text.contains(part), "{text:?} does not contain {part:?}");
    };
    let table = |name: &str| Schema::builder(name).column("id", ColumnType::I64);
    check(table("nowhere"), "nowhere: it does not exist; create it").await;
    check(Schema::builder(TableName::qualified("nowhere", "t")).column("id", ColumnType::I64), "does not exist").await;
    check(table("T"), "does not exist").await;
    check(table("t").column("nope", ColumnType::Text), "it has no column \"nope\"").await;
    check(table("t").column("ctid", ColumnType::Text), "it has no column \"ctid\"").await;
    check(table("t").column("twice", ColumnType::I64), "\"twice\" is generated").await;
    check(table("t").column("always", ColumnType::I64), "GENERATED ALWAYS AS IDENTITY").await;
    check(table("t").column("price", ColumnType::F64), "\"price\" is declared \"real\": f64 values would lose").await;
    check(table("t").column("zoned", ColumnType::Timestamp), "have no zone").await;
    check(table("t").column("local", ColumnType::TimestampTz), "the column has no zone").await;
    check(table("t").column("label", ColumnType::I64), "need a column of an integer type").await;
    check(table("t").on_conflict(Conflict::ignore(["id"])), "conflict key (id); a PRIMARY KEY or UNIQUE").await;
    check(table("needs"), "\"other\" is NOT NULL without a default").await;
    check(table("partial").on_conflict(Conflict::ignore(["id"])), "without WHERE").await;
    check(
        Schema::builder("partial").column("note", ColumnType::Text).on_conflict(Conflict::ignore(["note"])),
        "UNIQUE index over exactly these",
    )
    .await;
    check(table("late").on_conflict(Conflict::ignore(["id"])), "not deferrable").await;
    let wide = || table("wide").column("part", ColumnType::I64).column("more", ColumnType::I64);
    check(wide().on_conflict(Conflict::ignore(["id"])), "UNIQUE index over exactly these").await;
    check(wide().on_conflict(Conflict::ignore(["id", "part", "more"])), "UNIQUE index over exactly these").await;
    check(table("v"), "it is a view").await;
    check(table("m"), "it is a materialized view").await;
    check(Schema::builder("s").column("last_value", ColumnType::I64), "it is a sequence").await;
    check(table("ruled"), "a rule for INSERT").await;
    // The order of the key does not matter, nor do INCLUDE columns of an index.
    let db = pipeline(&sink);
    db.prepare(&wide().on_conflict(Conflict::ignore(["part", "id"])).build().unwrap()).await.unwrap();
    db.prepare(&wide().on_conflict(Conflict::ignore(["more"])).build().unwrap()).await.unwrap();
}

#[tokio::test]
async fn one_error_has_all_problems_of_a_table() {
    let sink = fresh(
        "CREATE TABLE t (id bigint, price real, \"Note\" text, other text NOT NULL, more text NOT NULL);
         CREATE RULE r AS ON INSERT TO t DO INSTEAD NOTHING",
    )
    .await;
    let schema = Schema::builder("t").column("id", ColumnType::I64).column("price", ColumnType::F64);
    let schema = schema.column("note", ColumnType::Text).column("a", ColumnType::Text).column("b", ColumnType::Text);
    let (class, text) = refused(&sink, schema.on_conflict(Conflict::update(["id"]))).await;
    assert_eq!(class, ErrorClass::Schema, "{text}");
    assert!(text.contains("t: 7 problems: (1) it has a rule for INSERT"), "{text}");
    for part in [
        "(2) its column \"price\" is declared \"real\"",
        "(3) it has no column \"note\", but \"Note\"",
        "(4) it has no columns \"a\", \"b\"; add them with ALTER TABLE",
        "(5) its column \"other\" is NOT NULL without a default",
        "(6) its column \"more\" is NOT NULL without a default",
        "(7) rows cannot be written with conflict key (id)",
    ] {
        assert!(text.contains(part), "{text} does not contain {part:?}");
    }
    // The index of a key that the table has not is no second problem.
    let schema = Schema::builder("t").column("nope", ColumnType::I64).on_conflict(Conflict::ignore(["nope"]));
    let (_, text) = refused(&sink, schema).await;
    assert!(text.contains("it has no column \"nope\"") && !text.contains("conflict key"), "{text}");
}

/// The server silently truncates names after 63 bytes, and accepts only its own spelling of the others.
#[tokio::test]
async fn names_that_mean_another_table_or_none_are_refused_with_advice() {
    let (cut, namespace) = ("x".repeat(63), unique("Names"));
    let _namespace = at_end([format!("DROP SCHEMA IF EXISTS \"{namespace}\" CASCADE")]);
    let sink = fresh(&format!(
        "CREATE TABLE {cut} (id bigint, {cut} bigint); CREATE TABLE lower (id bigint, note text);
         CREATE TABLE \"Two\" (id bigint, \"ID\" bigint); CREATE TABLE two (id bigint);
         CREATE TABLE \"a.b\" (id bigint); CREATE SCHEMA \"{namespace}\"; CREATE TABLE \"{namespace}\".\"T\" (id bigint)"
    ))
    .await;
    let table = |name: TableName| Schema::builder(name).column("id", ColumnType::I64);
    let check = async |builder: SchemaBuilder, part: &str| {
        let (class, text) = refused(&sink, builder).await;
        assert_eq!(class, ErrorClass::Schema, "{text}");
        assert!(text.contains(part), "{text:?} does not contain {part:?}");
    };
    check(table(TableName::new(format!("{cut}y"))), "longer than the server's limit (63 bytes)").await;
    check(table(TableName::new(format!("{cut}{cut}"))), "longer than the server's limit (63 bytes)").await;
    check(table(TableName::new(&*cut)).column(format!("{cut}y"), ColumnType::I64), "it has no column").await;
    pipeline(&sink).prepare(&table(TableName::new(&*cut)).build().unwrap()).await.unwrap();
    check(table(TableName::new("LOWER")), "there is a table \"lower\" in schema").await;
    check(table(TableName::new("lower")).column("Note", ColumnType::Text), "no column \"Note\", but \"note\"").await;
    let dotted = format!("{namespace}.T");
    check(table(TableName::new(&*dotted)), &format!("TableName::qualified(\"{namespace}\", \"T\")")).await;
    check(table(TableName::new(dotted.to_lowercase())), "TableName::qualified(").await;
    check(table(TableName::new("T")), "there is a table").await;
    check(table(TableName::qualified(&*namespace, "t")), &format!("there is {namespace}.T")).await;
    // A table with the exact name takes precedence.
    for name in ["Two", "two", "a.b"] {
        pipeline(&sink).prepare(&table(TableName::new(name)).build().unwrap()).await.unwrap();
    }
    let two = table(TableName::new("Two")).column("ID", ColumnType::I64).build().unwrap();
    assert_eq!(write(&sink, [values(&two, [1_i64.into(), 2_i64.into()])]).await, ["written"]);
    assert_eq!(read(&sink, "SELECT id, \"ID\" FROM \"Two\"").await, ["1|2"]);
    // Longer schema names are truncated too.
    let long = "y".repeat(63);
    let _long = at_end([format!("DROP SCHEMA IF EXISTS {long} CASCADE")]);
    execute(sink.pg_pool(), &format!("CREATE SCHEMA {long}; CREATE TABLE {long}.t (id bigint)")).await;
    check(table(TableName::qualified(format!("{long}z"), "t")), "longer than the server's limit").await;
}

#[test]
fn a_row_without_any_value_is_refused_with_advice() {
    let schema = Schema::builder("t").nullable("a", ColumnType::I64).nullable("b", ColumnType::Text).build().unwrap();
    let error = schema.row().finish().unwrap_err().to_string();
    assert!(error.contains("the row has no value at all; set at least one column"), "{error}");
}

#[tokio::test]
async fn rights_that_are_missing_are_told_before_the_first_row() {
    let (user, namespace) = (unique("user"), unique("rights"));
    let _user = user_until_end(&user);
    let _namespace = at_end([format!("DROP SCHEMA IF EXISTS {namespace} CASCADE")]);
    let sink = fresh(&format!(
        "CREATE USER {user} PASSWORD 'x'; CREATE SCHEMA {namespace};
         CREATE TABLE {namespace}.t (id bigint PRIMARY KEY, note text, secret text)"
    ))
    .await;
    let options = (*sink.pg_pool().connect_options()).clone().username(&user).password("x");
    let pool = batchsql_postgres::sqlx::PgPool::connect_lazy_with(options);
    let user_sink = PostgresSink::new(pool);
    let table = |conflict| {
        let table = Schema::builder(TableName::qualified(&*namespace, "t")).column("id", ColumnType::I64);
        table.nullable("note", ColumnType::Text).on_conflict(conflict)
    };
    let grant = async |sql: String| execute(sink.pg_pool(), &sql).await;
    let check = async |conflict, part: &str| {
        let (class, text) = refused(&user_sink, table(conflict)).await;
        assert_eq!(class, ErrorClass::Permission, "{text}");
        assert!(text.contains(part), "{text:?} does not contain {part:?}");
    };
    check(Conflict::none(), "no right to do this").await;
    grant(format!("GRANT USAGE ON SCHEMA {namespace} TO {user}")).await;
    check(Conflict::none(), "may not INSERT columns \"id\", \"note\"; GRANT INSERT").await;
    let all = "3 problems: (1) the user may not INSERT columns \"id\", \"note\"; GRANT INSERT on the table to it; (2) the \
               user may not UPDATE column \"note\"; GRANT UPDATE on the table to it; (3) the user may not SELECT columns";
    check(Conflict::update(["id"]), all).await;
    grant(format!("GRANT INSERT (id) ON {namespace}.t TO {user}")).await;
    check(Conflict::none(), "may not INSERT column \"note\"").await;
    grant(format!("GRANT INSERT (note) ON {namespace}.t TO {user}")).await;
    pipeline(&user_sink).prepare(&table(Conflict::none()).build().unwrap()).await.unwrap();
    check(Conflict::ignore(["id"]), "may not SELECT column \"id\"").await;
    check(Conflict::update(["id"]), "2 problems: (1) the user may not UPDATE column \"note\"").await;
    grant(format!("GRANT SELECT (id), UPDATE (note) ON {namespace}.t TO {user}")).await;
    check(Conflict::update(["id"]), "may not SELECT column \"note\"").await;
    grant(format!("GRANT SELECT (note) ON {namespace}.t TO {user}")).await;
    // These rights are enough, column by column.
    for (n, conflict) in [Conflict::none(), Conflict::ignore(["id"]), Conflict::update(["id"])].into_iter().enumerate()
    {
        let schema = table(conflict).build().unwrap();
        let first = 1_000 * n as i64;
        assert_eq!(write(&user_sink, [row(&schema, first, "x")]).await, ["written"]);
        let many = (1..=100).map(|id| row(&schema, first + id, "x"));
        assert_eq!(write(&user_sink, many).await, ["written"; 100]);
    }
}

#[tokio::test]
async fn a_strategy_that_cannot_write_a_table_is_refused() {
    let dsn = fresh_dsn(
        "CREATE TABLE t (id bigint PRIMARY KEY, note text, page xml);
         CREATE TABLE triggered (id bigint);
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
         CREATE TRIGGER f BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION f()",
    )
    .await;
    let check = async |strategy, builder: SchemaBuilder, part: &str| {
        let sink = with_strategy(&dsn, strategy).await;
        let (class, text) = refused(&sink, builder).await;
        assert!(class == ErrorClass::Schema && text.contains(part), "{text:?} does not contain {part:?}");
    };
    let t = || Schema::builder("t").column("id", ColumnType::I64);
    check(Strategy::Copy, t().on_conflict(Conflict::ignore(["id"])), "supports no conflict rule").await;
    check(Strategy::Copy, t().column("page", ColumnType::Text), "binary form of column \"page\"").await;
    let triggered = || Schema::builder("triggered").column("id", ColumnType::I64);
    check(Strategy::Copy, triggered(), "a trigger may drop rows").await;
    check(Strategy::Staging, triggered(), "a trigger may drop rows").await;
}

#[tokio::test]
async fn partitioned_tables_are_written_and_told_as_any_other() {
    let table = "CREATE TABLE t (id bigint, note text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
                 CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (100);
                 CREATE TABLE high PARTITION OF t FOR VALUES FROM (100) TO (200)";
    for strategy in [Strategy::Auto, Strategy::Unnest, Strategy::Copy, Strategy::Staging] {
        let sink = with_strategy(&fresh_dsn(table).await, strategy).await;
        let plain = schema(Conflict::none());
        // The last row has no partition.
        let outcomes = outcomes(&sink, (50..=200).map(|id| row(&plain, id, "a"))).await;
        let failed: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.failure()).collect();
        assert_eq!((failed.len(), failed[0].code()), (1, Some("23514")), "{strategy:?}");
        assert_eq!(read(&sink, "SELECT count(*), min(id) FROM high").await, ["100|100"], "{strategy:?}");
        if strategy != Strategy::Copy {
            let ignore = schema(Conflict::ignore(["id"]));
            let told = write(&sink, [49, 50, 150].map(|id| row(&ignore, id, "b"))).await;
            assert_eq!(told, ["written", "ignored", "ignored"], "{strategy:?}");
        }
    }
}

/// A trigger on a partition only.
#[tokio::test]
async fn a_trigger_of_a_partition_is_seen() {
    let table = "CREATE TABLE t (id bigint, note text) PARTITION BY LIST (id);
                 CREATE TABLE part PARTITION OF t DEFAULT;
                 CREATE FUNCTION drops() RETURNS trigger LANGUAGE plpgsql AS
                     'BEGIN IF new.id % 2 = 0 THEN RETURN NULL; END IF; RETURN new; END';
                 CREATE TRIGGER drops BEFORE INSERT ON part FOR EACH ROW EXECUTE FUNCTION drops()";
    let sink = fresh(table).await;
    let schema = schema(Conflict::none());
    let told = write(&sink, (0..50).map(|id| row(&schema, id, "a"))).await;
    for (id, outcome) in told.into_iter().enumerate() {
        assert_eq!(outcome, if id % 2 == 0 { "ignored" } else { "written" }, "row {id}");
    }
}

#[tokio::test]
async fn row_security_rejects_rows_and_not_the_table() {
    let user = unique("user");
    let _user = user_until_end(&user);
    let sink = fresh(&format!(
        "CREATE USER {user} PASSWORD 'x'; CREATE TABLE t (id bigint PRIMARY KEY, note text);
         ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t WITH CHECK (id <> 7); GRANT ALL ON t TO {user};
         DO $$ BEGIN EXECUTE format('GRANT USAGE ON SCHEMA %I TO {user}', current_schema); END $$"
    ))
    .await;
    let options = (*sink.pg_pool().connect_options()).clone().username(&user).password("x");
    let user_sink = PostgresSink::new(batchsql_postgres::sqlx::PgPool::connect_lazy_with(options));
    let schema = schema(Conflict::none());
    let outcomes = outcomes(&user_sink, (0..50).map(|id| row(&schema, id, "a"))).await;
    for (id, outcome) in outcomes.iter().enumerate() {
        let failed = outcome.failure().map(|failed| (failed.class(), failed.code()));
        assert_eq!(failed, (id == 7).then_some((Some(ErrorClass::Row), Some("42501"))), "row {id}");
    }
}

/// The numbers of rows are returned without a column of the table.
#[tokio::test]
async fn a_user_who_may_only_insert_is_told_which_rows_a_trigger_drops() {
    let user = unique("user");
    let _user = user_until_end(&user);
    let sink = fresh(&format!(
        "CREATE USER {user} PASSWORD 'x'; CREATE TABLE t (id bigint, note text);
         ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t FOR INSERT WITH CHECK (true);
         GRANT INSERT ON t TO {user};
         CREATE FUNCTION drops() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN IF new.id % 3 = 0 THEN RETURN NULL; END IF; RETURN new; END';
         CREATE TRIGGER drops BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION drops();
         DO $$ BEGIN EXECUTE format('GRANT USAGE ON SCHEMA %I TO {user}', current_schema); END $$"
    ))
    .await;
    let options = (*sink.pg_pool().connect_options()).clone().username(&user).password("x");
    let user_sink = PostgresSink::new(batchsql_postgres::sqlx::PgPool::connect_lazy_with(options));
    let schema = schema(Conflict::none());
    let told = write(&user_sink, (0..50).map(|id| row(&schema, id, "a"))).await;
    for (id, outcome) in told.into_iter().enumerate() {
        assert_eq!(outcome, if id % 3 == 0 { "ignored" } else { "written" }, "row {id}");
    }
}

#[tokio::test]
async fn a_table_that_changes_under_the_pipeline_is_looked_at_again() {
    for strategy in [Strategy::Auto, Strategy::MultiValues, Strategy::Unnest, Strategy::Copy, Strategy::Staging] {
        // One connection, which has prepared the earlier statements.
        let dsn = fresh_dsn("CREATE TABLE t (id int, note varchar(9))").await;
        let sink = with_strategy(&crate::support::with_parameter(&dsn, "max_connections=1"), strategy).await;
        let config = PipelineConfig::default().park_for(Duration::ZERO);
        let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
        let schema = schema(Conflict::none());
        let submit = async |ids: std::ops::Range<i64>| {
            for id in ids {
                db.submit(&row(&schema, id, "a")).await.unwrap();
            }
            db.flush().await.unwrap().written()
        };
        assert_eq!(submit(0..30).await, 30, "{strategy:?}");
        // Dropped and recreated with other columns, in another order.
        execute(sink.pg_pool(), "DROP TABLE t").await;
        let gone = db.submit_tracked(&row(&schema, 30, "b")).await.unwrap();
        db.flush().await.unwrap();
        let error = gone.await.failure().unwrap().error().unwrap().to_string();
        assert!(error.contains("does not exist"), "{error}, {strategy:?}");
        execute(sink.pg_pool(), "CREATE TABLE t (note text, id int, more text DEFAULT 'x')").await;
        assert_eq!(submit(30..60).await, 60, "{strategy:?}");
        // Another type under the same name: values that did not fit before, and values that fit in another
        // form.
        execute(sink.pg_pool(), "ALTER TABLE t ALTER id TYPE bigint, ALTER note TYPE bytea USING note::bytea").await;
        execute(sink.pg_pool(), "ALTER TABLE t ALTER note TYPE text USING encode(note, 'escape')").await;
        assert_eq!(submit(i64::MAX - 30..i64::MAX).await, 90, "{strategy:?}");
        execute(sink.pg_pool(), "ALTER TABLE t RENAME note TO remark").await;
        let renamed = db.submit_tracked(&row(&schema, 1, "b")).await.unwrap();
        db.flush().await.unwrap();
        let error = renamed.await.failure().unwrap().error().unwrap().to_string();
        assert!(error.contains("it has no column \"note\""), "{error}, {strategy:?}");
        assert_eq!(read(&sink, "SELECT count(*), count(DISTINCT id) FROM t").await, ["60|60"], "{strategy:?}");
    }
}

#[tokio::test]
async fn rows_wait_for_a_table_that_does_not_exist_yet() {
    let sink = fresh("").await;
    let config = PipelineConfig::default().flush_interval(Duration::from_millis(5));
    let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
    let schema = schema(Conflict::ignore(["id"]));
    let receipt = db.submit_tracked(&row(&schema, 1, "a")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(db.balance().in_flight(), 1);
    execute(sink.pg_pool(), "CREATE TABLE t (id bigint PRIMARY KEY, note text)").await;
    assert!(receipt.await.is_written());
    assert!(db.close(HOUR).await.is_complete());
}

#[tokio::test]
async fn rows_that_leave_columns_out_get_the_defaults_and_leave_them_alone_on_update() {
    let sink = fresh("CREATE TABLE t (id bigint PRIMARY KEY, note text DEFAULT 'default', more text)").await;
    let schema = Schema::builder("t")
        .column("id", ColumnType::I64)
        .nullable("note", ColumnType::Text)
        .nullable("more", ColumnType::Text)
        .on_conflict(Conflict::replace(["id"]))
        .build()
        .unwrap();
    let only = |id: i64, more: &str| schema.row().set("id", id).unwrap().set("more", more).unwrap().finish().unwrap();
    let whole = |id: i64, note: Value| values(&schema, [id.into(), note, "whole".into()]);
    assert_eq!(write(&sink, [only(1, "a"), whole(2, Value::Null), only(2, "b")]).await, ["written"; 3]);
    assert_eq!(read(&sink, "SELECT * FROM t ORDER BY id").await, ["1|default|a", "2|NULL|b"]);
}

#[tokio::test]
async fn nothing_is_left_behind_on_a_pool_of_the_user() {
    let admin = fresh("CREATE TABLE t (id bigint PRIMARY KEY, note text)").await;
    let options = (*admin.pg_pool().connect_options()).clone();
    let pool = batchsql_postgres::sqlx::postgres::PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
    let sink =
        PostgresSink::from_pool(pool.clone(), batchsql_postgres::Settings::default().strategy(Strategy::Staging));
    let schema = schema(Conflict::ignore(["id"]));
    assert_eq!(write(&sink, (0..20).map(|id| row(&schema, id, "a"))).await, ["written"; 20]);
    let mut conn = pool.acquire().await.unwrap();
    let left = "SELECT (SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND relname LIKE 'batchsql%'),
                       pg_current_xact_id_if_assigned() IS NULL";
    let row = conn.fetch_one(left).await.unwrap();
    let get = |index| batchsql_postgres::sqlx::Row::try_get_raw(&row, index).unwrap().as_str().unwrap().to_owned();
    assert_eq!((get(0), get(1)), ("0".to_owned(), "t".to_owned()));
}
