//! Positions in the transaction of rows: a table that is there, and one that is not.

use batchsql_core::{ColumnType, Conflict, Schema};
use batchsql_sqlite::{SqliteOptions, SqliteSink, Synchronous};
use batchsql_testkit::check_positions;

use crate::support::{memory, pipeline, read};

#[tokio::test]
async fn positions_move_with_their_rows() {
    for (rule, key) in
        [(Conflict::none(), ""), (Conflict::ignore(["id"]), " PRIMARY KEY"), (Conflict::update(["id"]), " PRIMARY KEY")]
    {
        for size in [1, 7, 3_000] {
            let sql = format!("CREATE TABLE t (id INTEGER NOT NULL{key} CHECK (id >= 0))");
            let sink = memory(Box::leak(sql.into_boxed_str())).await;
            let schema = Schema::builder("t").column("id", ColumnType::I64).on_conflict(rule.clone()).build().unwrap();
            check_positions(&pipeline(&sink), &schema, "s", size, async || {
                let ids = read(&sink, "SELECT id FROM t ORDER BY id").await;
                ids.iter().map(|id| id.parse().unwrap()).collect()
            })
            .await;
        }
    }
}

/// A position that a power loss takes back would be a gap in its source.
#[tokio::test]
async fn a_claim_makes_commits_durable() {
    let dir = tempfile::tempdir().unwrap();
    let options = SqliteOptions::file(dir.path().join("d")).synchronous(Synchronous::Normal);
    let sink = SqliteSink::with_options(&options).unwrap();
    let level =
        async || sink.call(|conn| conn.query_row("PRAGMA synchronous", [], |row| row.get::<_, i64>(0))).await.unwrap();
    assert_eq!(level().await, 1);
    let key = batchsql_core::PartitionKey::new("s", "i", "t", 0);
    pipeline(&sink).claim(&key, "a", batchsql_core::Claim::OrBeginAt(0)).await.unwrap();
    assert_eq!(level().await, 2);
}
