//! No error contains a value of a row, whatever SQLite's message is.

use std::error::Error;
use std::time::Duration;

use batchsql_core::{BatchSql, ColumnType, Isolation, Outcome, PipelineConfig, Schema, SinkError, Value};
use batchsql_sqlite::SqliteSink;

use crate::support::{HOUR, memory};

const CANARY: &str = "canary-8157";

/// The full text of an error with its sources.
fn shown(error: &SinkError) -> String {
    let mut text = format!("{error} {error:?} {error:#?} {:?}", error.code());
    let mut source = error.source();
    while let Some(inner) = source {
        text += &format!(" {inner} {inner:?}");
        source = inner.source();
    }
    text
}

async fn check(sink: &SqliteSink, table: &str, ty: ColumnType, value: Value, isolation: Isolation) {
    let schema = Schema::builder(table).column("id", ColumnType::I64).column("v", ty).build().unwrap();
    let config = PipelineConfig::default()
        .isolation(isolation)
        .flush_interval(HOUR)
        .retry_for(Duration::ZERO)
        .park_for(Duration::ZERO);
    let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
    let mut receipts = Vec::new();
    for id in 0..3_i64 {
        let row = schema.row().set_all([Value::I64(id), value.clone()]).unwrap().finish().unwrap();
        receipts.push(db.submit_tracked(&row).await.unwrap());
    }
    let report = db.close(HOUR).await;
    let (mut failures, mut texts) = (0, format!("{report:?}"));
    for receipt in receipts {
        let outcome: Outcome = receipt.await;
        texts += &format!(" {outcome:?}");
        if let Some(failed) = outcome.failure() {
            failures += 1;
            texts += &format!(" {failed:?} {}", failed.error().map(shown).unwrap_or_default());
        }
    }
    assert!(failures > 0, "{table}: every row is written");
    assert!(!texts.contains(CANARY), "{table}: {texts}");
}

#[tokio::test]
async fn no_error_shows_a_value() {
    let sink = memory(
        "CREATE TABLE checked (id INTEGER, v TEXT CONSTRAINT no_canaries CHECK (v NOT LIKE 'canary%'));
         CREATE TABLE uniq (id INTEGER, v TEXT UNIQUE);
         CREATE TABLE keyed (id INTEGER, v TEXT PRIMARY KEY) WITHOUT ROWID;
         CREATE TABLE parents (v TEXT PRIMARY KEY);
         CREATE TABLE child (id INTEGER, v TEXT REFERENCES parents (v));
         CREATE TABLE late (id INTEGER, v TEXT REFERENCES parents (v) DEFERRABLE INITIALLY DEFERRED);
         CREATE TABLE aborts (id INTEGER, v TEXT);
         CREATE TRIGGER a BEFORE INSERT ON aborts BEGIN SELECT RAISE(ABORT, 'bad canary-8157'); END;
         CREATE TABLE fails (id INTEGER, v TEXT);
         CREATE TRIGGER f AFTER INSERT ON fails BEGIN SELECT RAISE(FAIL, 'bad canary-8157'); END;
         CREATE TABLE rolls (id INTEGER, v TEXT);
         CREATE TRIGGER r AFTER INSERT ON rolls BEGIN SELECT RAISE(ROLLBACK, 'bad canary-8157'); END;
         CREATE TABLE strictly (id INTEGER, v INT CHECK (v <> 8157)) STRICT;
         CREATE TABLE json (id INTEGER, v TEXT CHECK (json_extract(v, '$.a') > 0));
         CREATE TABLE path (id INTEGER, v TEXT); CREATE INDEX p ON path (json_extract('[1]', v));
         CREATE TABLE called (id INTEGER, v TEXT);
         CREATE TRIGGER c BEFORE INSERT ON called BEGIN SELECT quoting(new.v); END;
         CREATE TABLE boxes_of (id INTEGER, v TEXT);
         CREATE VIRTUAL TABLE texts USING fts5 (body);
         CREATE TRIGGER x AFTER INSERT ON boxes_of BEGIN INSERT INTO texts (texts) VALUES (new.v); END;
         CREATE TABLE dates (id INTEGER, v TEXT GENERATED ALWAYS AS ('x'))",
    )
    .await;
    sink.call(|conn| {
        use batchsql_sqlite::rusqlite::Error;
        // Versions of rusqlite differ in what they return.
        let _ = conn.set_limit(batchsql_sqlite::rusqlite::limits::Limit::SQLITE_LIMIT_LENGTH, 100_000);
        let flags = batchsql_sqlite::rusqlite::functions::FunctionFlags::SQLITE_UTF8;
        conn.create_scalar_function("quoting", 1, flags, |context| -> Result<i64, Error> {
            Err(Error::UserFunctionError(format!("no {}", context.get::<String>(0)?).into()))
        })
    })
    .await
    .unwrap();
    let text = || Value::from(CANARY);
    for isolation in [Isolation::default(), Isolation::AtomicBatch] {
        let tables =
            ["checked", "uniq", "keyed", "child", "late", "aborts", "fails", "rolls", "json", "path", "called"];
        for table in tables.into_iter().chain(["boxes_of", "dates", "nowhere"]) {
            check(&sink, table, ColumnType::Text, text(), isolation).await;
        }
        let long = Value::from(CANARY.repeat(20_000));
        check(&sink, "uniq", ColumnType::Text, long, isolation).await;
        // The error contains only names of the database, or a code.
        check(&sink, "strictly", ColumnType::I64, Value::I64(8157), isolation).await;
        sink.call(|conn| conn.execute_batch("DELETE FROM uniq; DELETE FROM keyed")).await.unwrap();
    }
}
