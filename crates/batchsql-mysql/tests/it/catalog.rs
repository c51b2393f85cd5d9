//! What is looked at before the first row: tables and sessions that cannot be written, and what the message says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use batchsql_core::{BatchSql, ColumnType, Conflict, ErrorClass, PipelineConfig, Schema, SchemaBuilder, SinkError};
use batchsql_mysql::MySqlSink;
use batchsql_mysql::sqlx::Executor;
use batchsql_mysql::sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};

use crate::support::{Database, pipeline, row, schema, submitted, write};

async fn refusal(sink: &MySqlSink, builder: SchemaBuilder) -> SinkError {
    pipeline(sink).prepare(&builder.build().unwrap()).await.unwrap_err()
}

#[tokio::test]
async fn tables_that_cannot_be_written_are_refused_with_advice() {
    let db = Database::new(
        "CREATE TABLE t (id BIGINT, price DOUBLE, name VARCHAR(20), big FLOAT, must TEXT NOT NULL DEFAULT 'x',
                         twice BIGINT GENERATED ALWAYS AS (id * 2) VIRTUAL, UNIQUE (name(5)), UNIQUE (id, name));
         CREATE TABLE needs (id BIGINT, other TEXT NOT NULL);
         CREATE TABLE old (id BIGINT PRIMARY KEY) ENGINE = MyISAM;
         CREATE TABLE memory (id BIGINT PRIMARY KEY) ENGINE = MEMORY;
         CREATE TABLE counted (id BIGINT PRIMARY KEY AUTO_INCREMENT, note TEXT);
         CREATE VIEW v AS SELECT 1 AS id",
    )
    .await;
    let check = async |builder: SchemaBuilder, part: &str| {
        let error = refusal(&db.sink, builder).await;
        assert_eq!(error.class(), ErrorClass::Schema, "{error}");
        assert!(error.to_string().contains(part), "{error} does not contain {part:?}");
    };
    let t = || Schema::builder("t").column("id", ColumnType::I64);
    check(t().column("nope", ColumnType::Text), "it has no column \"nope\"").await;
    check(
        t().column("price", ColumnType::Decimal),
        "declared \"double\": decimal values need a column of type DECIMAL",
    )
    .await;
    check(t().column("name", ColumnType::F64), "f64 values need a column of type DOUBLE").await;
    check(t().column("big", ColumnType::F64), "FLOAT has half the digits").await;
    check(t().column("twice", ColumnType::I64), "\"twice\" is generated").await;
    let key_of = |key: &[&str]| t().column("name", ColumnType::Text).on_conflict(Conflict::ignore(key.iter().copied()));
    check(key_of(&["id"]), "PRIMARY KEY or UNIQUE index over exactly these").await;
    // There is one over the first five characters only.
    check(key_of(&["name"]), "PRIMARY KEY or UNIQUE index over exactly these").await;
    check(Schema::builder("needs").column("id", ColumnType::I64), "\"other\" is NOT NULL without a default").await;
    check(Schema::builder("v").column("id", ColumnType::I64), "it is a view; write to the table behind it").await;
    check(Schema::builder("old").column("id", ColumnType::I64), "its engine MyISAM has no transactions").await;
    check(Schema::builder("memory").column("id", ColumnType::I64), "its engine MEMORY has no transactions").await;
    // The server's own words and code, and what to do.
    let missing = refusal(&db.sink, Schema::builder("nowhere").column("id", ColumnType::I64)).await;
    assert_eq!((missing.class(), missing.code()), (ErrorClass::Schema, Some("1146")), "{missing}");
    assert!(missing.to_string().contains("; create it before rows are submitted"), "{missing}");
    // Names of columns are compared as the server compares them; the number is the server's where it is left out.
    let pipeline = pipeline(&db.sink);
    pipeline.prepare(&key_of(&["name", "id"]).build().unwrap()).await.unwrap();
    pipeline.prepare(&Schema::builder("t").column("ID", ColumnType::I64).build().unwrap()).await.unwrap();
    pipeline.prepare(&Schema::builder("counted").column("note", ColumnType::Text).build().unwrap()).await.unwrap();
}

/// A pool whose connections run `sql` first.
async fn foreign_pool(db: &Database, sql: &'static str) -> MySqlPool {
    let options: MySqlConnectOptions = db.dsn.parse().unwrap();
    MySqlPoolOptions::new()
        .max_connections(2)
        .after_connect(move |connection, _| Box::pin(async move { connection.execute(sql).await.map(drop) }))
        .connect_with(options)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_pool_of_the_users_own_works_where_its_sessions_are_right_and_is_refused_with_advice_elsewhere() {
    let db = Database::new(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, note TEXT);
         CREATE TABLE counted (id BIGINT PRIMARY KEY AUTO_INCREMENT);
         CREATE TABLE zoned (at TIMESTAMP(6) NULL);
         CREATE TABLE stamped (id BIGINT, at TIMESTAMP(6) NOT NULL DEFAULT '2000-01-01 00:00:00')",
    )
    .await;
    let builder = |table: &str, column: &str, ty| Schema::builder(table).nullable(column, ty);
    let t = || builder("t", "note", ColumnType::Text).column("id", ColumnType::I64);
    let check = async |sql, builder: SchemaBuilder, part: &str| {
        let error = refusal(&MySqlSink::new(foreign_pool(&db, sql).await), builder).await;
        assert_eq!(error.class(), ErrorClass::Schema, "{error}");
        assert!(error.to_string().contains(part), "{error} does not contain {part:?}");
    };
    check("SET sql_mode = ''", t(), "the session is not strict").await;
    check("SET autocommit = 0", t(), "not in autocommit").await;
    check("SET NAMES latin1", t(), "character set is latin1").await;
    let strict = "SET sql_mode = 'STRICT_TRANS_TABLES'";
    let counted = Schema::builder("counted").column("id", ColumnType::I64);
    check(strict, counted, "add NO_AUTO_VALUE_ON_ZERO").await;
    let elsewhere = "SET sql_mode = 'STRICT_TRANS_TABLES', time_zone = '+02:00'";
    check(elsewhere, builder("zoned", "at", ColumnType::TimestampTz), "set time_zone = '+00:00'").await;
    let stamps = "SET sql_mode = 'STRICT_ALL_TABLES', explicit_defaults_for_timestamp = 0";
    check(stamps, builder("stamped", "at", ColumnType::TimestampTz), "replace NULL by the current time").await;

    let pool = foreign_pool(&db, strict).await;
    let sink = MySqlSink::new(pool.clone());
    let schema = schema(Conflict::update(["id"]));
    assert_eq!(write(&sink, (0..10).map(|id| row(&schema, id, "a"))).await, ["written"; 10]);
    assert_eq!(batchsql_core::Sink::max_concurrency(&sink), Some(2));
    assert!(!pool.is_closed(), "it is still the user's");
    assert_eq!(db.read("SELECT COUNT(*) FROM t").await, ["10"]);
}

#[tokio::test]
async fn rights_that_are_missing_are_found_before_the_first_row() {
    let db = Database::new("CREATE TABLE t (id BIGINT PRIMARY KEY, note TEXT)").await;
    let user = db.user("secret", "").await;
    let grant = |rights: &str| format!("GRANT {rights} ON {}.t TO '{user}'@'%'", db.name);
    db.run(&grant("SELECT")).await;
    let dsn = crate::support::with_user(&db.dsn, &user, "secret");
    let sink = MySqlSink::connect(&dsn).await.unwrap();
    let check = async |conflict: Conflict, code: Option<&str>| {
        let prepared = pipeline(&sink).prepare(&schema(conflict)).await;
        match code {
            None => prepared.unwrap(),
            Some(code) => {
                let error = prepared.unwrap_err();
                assert_eq!((error.class(), error.code()), (ErrorClass::Permission, Some(code)), "{error}");
                assert!(!error.to_string().contains("secret"), "{error}");
            }
        }
    };
    check(Conflict::None, Some("1142")).await;
    db.run(&grant("INSERT")).await;
    check(Conflict::None, None).await;
    check(Conflict::ignore(["id"]), None).await;
    check(Conflict::update(["id"]), Some("1142")).await;
    // One column only.
    db.run(&format!("REVOKE INSERT ON {}.t FROM '{user}'@'%'; {}", db.name, grant("INSERT (id)"))).await;
    check(Conflict::None, Some("1143")).await;
    // A table that this user may not even see.
    db.run("CREATE TABLE hidden (id BIGINT)").await;
    let hidden = Schema::builder("hidden").column("id", ColumnType::I64).build().unwrap();
    let error = pipeline(&sink).prepare(&hidden).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (ErrorClass::Permission, Some("1142")), "{error}");
    // A database that this user may not use.
    let elsewhere = batchsql_core::TableName::qualified("mysql", "user");
    let error = refusal(&sink, Schema::builder(elsewhere).column("id", ColumnType::I64)).await;
    assert_eq!(error.class(), ErrorClass::Permission, "{error}");
}

#[tokio::test]
async fn a_table_that_changes_under_the_pipeline_is_looked_at_again() {
    let db = Database::new("CREATE TABLE t (id BIGINT PRIMARY KEY, note TEXT)").await;
    let config = PipelineConfig { park_for: Duration::ZERO, ..PipelineConfig::default() };
    let pipeline = BatchSql::builder(db.sink.clone()).config(config).start().unwrap();
    let schema = schema(Conflict::None);
    assert!(submitted(&pipeline, [row(&schema, 1, "a")]).await[0].is_written());
    db.run("ALTER TABLE t ADD COLUMN more TEXT FIRST, MODIFY note VARCHAR(3)").await;
    assert!(submitted(&pipeline, [row(&schema, 2, "b")]).await[0].is_written());
    db.run("ALTER TABLE t RENAME COLUMN note TO remark").await;
    let outcomes = submitted(&pipeline, [row(&schema, 3, "c")]).await;
    let error = outcomes[0].failure().unwrap().error().unwrap();
    assert_eq!(error.class(), ErrorClass::Schema);
    assert!(error.to_string().contains("it has no column \"note\""), "{error}");
    db.run("DROP TABLE t").await;
    let outcomes = submitted(&pipeline, [row(&schema, 4, "d")]).await;
    assert_eq!(outcomes[0].failure().unwrap().code(), Some("1146"));
    db.run("CREATE TABLE t (note TEXT, id BIGINT)").await;
    assert!(submitted(&pipeline, [row(&schema, 5, "e")]).await[0].is_written());
    assert_eq!(db.read("SELECT id, note FROM t").await, ["5|e"]);
}

/// Collects the warnings of this crate.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN && metadata.target().starts_with("batchsql_mysql")
    }

    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!("{field}={value:?} "));
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn further_unique_indexes_are_warned_of_where_they_may_overwrite() {
    let db = Database::new(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, note VARCHAR(20), UNIQUE by_note (note));
         INSERT INTO t VALUES (1, 'a')",
    )
    .await;
    let warnings = Warnings::default();
    let guard = tracing::subscriber::set_default(warnings.clone());
    let pipeline = pipeline(&db.sink);
    for harmless in [Conflict::None, Conflict::ignore(["id"])] {
        pipeline.prepare(&schema(harmless)).await.unwrap();
    }
    assert_eq!(warnings.0.lock().unwrap().len(), 0);
    pipeline.prepare(&schema(Conflict::update(["id"]))).await.unwrap();
    drop(guard);
    let text = warnings.0.lock().unwrap().join("; ");
    assert!(text.contains("table=\"t\"") && text.contains("indexes=\"by_note, PRIMARY\""), "{text:?}");
    // What the warning is about: the row with another key is overwritten.
    let schema = schema(Conflict::update(["id"]));
    assert_eq!(write(&db.sink, [row(&schema, 2, "a")]).await, ["written"]);
    assert_eq!(db.read("SELECT * FROM t").await, ["1|a"]);
}

#[tokio::test]
async fn names_that_would_quietly_mean_something_else_are_refused() {
    let db = Database::new("CREATE TABLE orders (id BIGINT PRIMARY KEY)").await;
    let id = |table: batchsql_core::TableName| Schema::builder(table).column("id", ColumnType::I64);
    let check = async |builder: SchemaBuilder, part: &str| {
        let error = refusal(&db.sink, builder).await;
        assert_eq!(error.class(), ErrorClass::Schema, "{error}");
        assert!(error.to_string().contains(part), "{error} does not contain {part:?}");
    };
    let long = "x".repeat(65);
    check(id(long.as_str().into()), "more than the 64 characters").await;
    check(Schema::builder("orders").column(&*long, ColumnType::I64), "more than the 64 characters").await;
    let dotted = format!("{}.orders", db.name);
    check(id(dotted.as_str().into()), "the dot is part of its name: for table \"orders\" of database").await;
    check(id("orders".into()).column("ID", ColumnType::I64), "\"id\" and \"ID\" are one to the server").await;
    pipeline(&db.sink)
        .prepare(&id(batchsql_core::TableName::qualified(&*db.name, "orders")).build().unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_table_has_one_spelling_where_the_server_takes_several() {
    let server = batchsql_testserver::Server::start(batchsql_testserver::Kind::MySql, &["--lower-case-table-names=1"]);
    let db = Database::on(server.dsn(), "CREATE TABLE Orders (id BIGINT PRIMARY KEY)", "").await;
    let schema = |table: batchsql_core::TableName| Schema::builder(table).column("id", ColumnType::I64);
    pipeline(&db.sink).prepare(&schema("orders".into()).build().unwrap()).await.unwrap();
    let error = refusal(&db.sink, schema("Orders".into())).await;
    assert!(error.to_string().contains("this server calls it \"orders\""), "{error}");
    let upper = batchsql_core::TableName::qualified(db.name.to_uppercase(), "orders");
    let error = refusal(&db.sink, schema(upper)).await;
    assert!(error.to_string().contains("this server calls its database"), "{error}");
}
