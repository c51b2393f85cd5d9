//! COPY that the server rejects while rows are still being sent.

use batchsql_core::{BatchSql, ColumnType, Conflict, Isolation, Ordering, OutcomeKind, PipelineConfig, Schema, Value};
use batchsql_postgres::sqlx::Executor;
use batchsql_postgres::sqlx::postgres::PgPoolOptions;
use batchsql_postgres::{PostgresSink, Settings, Strategy};

use crate::support::{HOUR, fresh, read, row};

/// A row that the server rejects in the first bytes, and one that we reject more than a chunk later.
#[tokio::test]
async fn a_value_that_does_not_fit_after_a_row_that_was_refused_leaves_the_connection_in_step() {
    for (strategy, conflict) in [
        (Strategy::Copy, Conflict::none()),
        (Strategy::Staging, Conflict::none()),
        (Strategy::Staging, Conflict::ignore(["id"])),
    ] {
        for isolation in [Isolation::default(), Isolation::AtomicBatch] {
            let admin = fresh("CREATE TABLE t (id int UNIQUE, note text NOT NULL CHECK (note <> 'bad'))").await;
            // One connection, so that any state left on it affects the next batch.
            let options = (*admin.pg_pool().connect_options()).clone();
            let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
            let sink = PostgresSink::from_pool(pool.clone(), Settings::default().strategy(strategy));
            let schema = Schema::builder("t").column("id", ColumnType::I64).nullable("note", ColumnType::Text);
            let schema = schema.on_conflict(conflict.clone()).build().unwrap();
            let ordering = Ordering::PerTable;
            let config = PipelineConfig::default().flush_interval(HOUR).ordering(ordering).isolation(isolation);
            let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
            let mut receipts = Vec::new();
            for id in 0..40_i64 {
                let note: Value = if id == 0 { Value::Null } else { "x".repeat(8192).into() };
                let id = if id == 39 { i64::MAX } else { id };
                receipts.push(db.submit_tracked(&row(&schema, id, note)).await.unwrap());
            }
            db.flush().await.unwrap();
            // Each reply belongs to its own statement.
            for (sql, rows) in [("SELECT 1", 1), ("SELECT 1 UNION ALL SELECT 2", 2), ("SELECT WHERE false", 0)] {
                assert_eq!(pool.fetch_all(sql).await.unwrap().len(), rows, "{sql}, {strategy:?}");
            }
            let is_atomic = isolation == Isolation::AtomicBatch;
            for (id, receipt) in receipts.into_iter().enumerate() {
                let expected = match id {
                    0 | 39 => OutcomeKind::Rejected,
                    _ if is_atomic => OutcomeKind::Rejected,
                    _ => OutcomeKind::Written,
                };
                assert_eq!(receipt.await.kind(), expected, "row {id}, {strategy:?} {isolation:?}");
            }
            let there = if is_atomic { "0" } else { "38" };
            assert_eq!(read(&admin, "SELECT count(*) FROM t").await, [there], "{strategy:?}");
        }
    }
}
