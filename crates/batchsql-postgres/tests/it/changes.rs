//! Tables that change during writes: triggers, policies, rules, rights, columns.

use std::time::Duration;

use batchsql_core::{BatchSql, Conflict, DynRow, PipelineConfig, Schema};
use batchsql_postgres::sqlx::PgPool;
use batchsql_postgres::{PostgresSink, Settings, Strategy};
use batchsql_testserver::unique;

use crate::support::{HOUR, execute, fresh, read, row, schema, user_until_end};

fn start(sink: &PostgresSink) -> BatchSql {
    let config = PipelineConfig::default().flush_interval(HOUR);
    BatchSql::builder(sink.clone()).config(config).start().unwrap()
}

/// Writes one batch; how many rows had each outcome.
async fn batch(db: &BatchSql, rows: impl IntoIterator<Item = DynRow>) -> Vec<(&'static str, usize)> {
    let mut receipts = Vec::new();
    for row in rows {
        receipts.push(db.submit_tracked(&row).await.unwrap());
    }
    db.flush().await.unwrap();
    let mut counts = std::collections::BTreeMap::new();
    for receipt in receipts {
        *counts.entry(receipt.await.kind().name()).or_default() += 1;
    }
    counts.into_iter().collect()
}

fn rows(schema: &Schema, ids: std::ops::Range<i64>) -> Vec<DynRow> {
    ids.map(|id| row(schema, id, "a")).collect()
}

const TRIGGER: &str = "CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()";

#[tokio::test]
async fn a_trigger_that_comes_later_is_noticed_with_the_first_batch() {
    let drops = "CREATE TABLE t (id bigint PRIMARY KEY, note text);
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS
         'BEGIN IF new.id % 10 = 0 THEN RETURN NULL; END IF; RETURN new; END'";
    // Detected in an autocommit statement, where the outcome is unknown, and in a transaction.
    let cases = [
        (Strategy::Auto, Conflict::none(), vec![("unknown", 50)]),
        (Strategy::Unnest, Conflict::none(), vec![("unknown", 50)]),
        (Strategy::MultiValues, Conflict::none(), vec![("ignored", 5), ("written", 45)]),
        (Strategy::Staging, Conflict::none(), vec![("rejected", 50)]),
        (Strategy::Unnest, Conflict::replace(["id"]), vec![("ignored", 5), ("written", 45)]),
    ];
    for (strategy, conflict, first) in cases {
        let admin = fresh(drops).await;
        let sink = PostgresSink::from_pool(admin.pg_pool().clone(), Settings::default().strategy(strategy));
        let config = PipelineConfig::default().flush_interval(HOUR).park_for(Duration::ZERO);
        let db = BatchSql::builder(sink).config(config).start().unwrap();
        let schema = schema(conflict.clone());
        db.prepare(&schema).await.unwrap();
        execute(admin.pg_pool(), TRIGGER).await;
        assert_eq!(batch(&db, rows(&schema, 0..50)).await, first, "{strategy:?} {conflict:?}");
        if strategy != Strategy::Staging {
            let known = [("ignored", 5), ("written", 45)];
            assert_eq!(batch(&db, rows(&schema, 50..100)).await, known, "{strategy:?} {conflict:?}");
            assert_eq!(read(&admin, "SELECT count(*) FROM t").await, ["90"], "{strategy:?} {conflict:?}");
        }
    }
}

#[tokio::test]
async fn policies_and_rights_that_change_are_noticed() {
    let user = unique("user");
    let _user = user_until_end(&user);
    let admin = fresh(&format!(
        "CREATE USER {user} PASSWORD 'x'; CREATE TABLE t (id bigint PRIMARY KEY, note text); GRANT ALL ON t TO {user};
         DO $$ BEGIN EXECUTE format('GRANT USAGE ON SCHEMA %I TO {user}', current_schema); END $$"
    ))
    .await;
    let options = (*admin.pg_pool().connect_options()).clone().username(&user).password("x");
    let sink = PostgresSink::new(PgPool::connect_lazy_with(options));
    let config = PipelineConfig::default().flush_interval(HOUR).park_for(Duration::ZERO);
    let db = BatchSql::builder(sink).config(config).start().unwrap();
    let schema = schema(Conflict::none());
    db.prepare(&schema).await.unwrap();
    let policy = "ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t WITH CHECK (id <> 7)";
    execute(admin.pg_pool(), policy).await;
    assert_eq!(batch(&db, rows(&schema, 0..10)).await, [("rejected", 1), ("written", 9)]);
    // A revoked right is not a policy that rejects single rows.
    execute(admin.pg_pool(), &format!("REVOKE INSERT ON t FROM {user}")).await;
    let receipt = db.submit_tracked(&row(&schema, 20, "a")).await.unwrap();
    db.flush().await.unwrap();
    assert_eq!(receipt.await.failure().unwrap().class(), Some(batchsql_core::ErrorClass::Permission));
}

#[tokio::test]
async fn a_column_that_rows_lack_parks_the_table_and_rejects_no_row() {
    for strategy in [Strategy::Auto, Strategy::Unnest, Strategy::Staging] {
        let admin = fresh("CREATE TABLE t (id bigint PRIMARY KEY, note text)").await;
        let sink = PostgresSink::from_pool(admin.pg_pool().clone(), Settings::default().strategy(strategy));
        let db = start(&sink);
        let schema = schema(Conflict::none());
        db.prepare(&schema).await.unwrap();
        execute(admin.pg_pool(), "ALTER TABLE t ADD other int NOT NULL").await;
        for row in rows(&schema, 0..50) {
            db.submit(&row).await.unwrap();
        }
        let flush = tokio::spawn({
            let db = db.clone();
            async move { db.flush().await }
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!((db.balance().in_flight(), db.balance().failed()), (50, 0), "{strategy:?}");
        execute(admin.pg_pool(), "ALTER TABLE t ALTER other SET DEFAULT 1").await;
        flush.await.unwrap().unwrap();
        assert_eq!(db.balance().written(), 50, "{strategy:?}");
    }
}

/// Nothing fails here: the server would round the numbers.
#[tokio::test]
async fn a_column_whose_type_changes_is_noticed_after_a_while() {
    let admin = fresh("CREATE TABLE t (id numeric PRIMARY KEY, note text)").await;
    let settings = Settings::default().strategy(Strategy::Unnest).table_check_interval(Duration::from_millis(50));
    let db = start(&PostgresSink::from_pool(admin.pg_pool().clone(), settings));
    let schema = Schema::builder("t").column("id", batchsql_core::ColumnType::Decimal).build().unwrap();
    let id =
        |id: &str| schema.row().set("id", id.parse::<batchsql_core::Decimal>().unwrap()).unwrap().finish().unwrap();
    assert_eq!(batch(&db, [id("1.5")]).await, [("written", 1)]);
    execute(admin.pg_pool(), "ALTER TABLE t ALTER id TYPE double precision").await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    db.submit(&id("0.12345678901234567890")).await.unwrap();
    let flush = tokio::spawn({
        let db = db.clone();
        async move { db.flush().await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(db.balance().in_flight(), 1);
    execute(admin.pg_pool(), "ALTER TABLE t ALTER id TYPE numeric").await;
    flush.await.unwrap().unwrap();
    assert_eq!(read(&admin, "SELECT id FROM t ORDER BY 1 LIMIT 1").await, ["0.12345678901234567890"]);
}
