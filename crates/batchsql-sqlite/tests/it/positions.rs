//! Positions in the transaction of rows: a table that is there, and one that is not.

use batchsql_core::{Claim, ColumnType, Conflict, ErrorClass, PartitionKey, RowBuffer, Schema, Step, ValueRules};
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

/// Deferred foreign keys are checked by COMMIT, which a trial does not reach.
#[tokio::test]
async fn a_deferred_foreign_key_refuses_steps_and_trials_of_the_guilty_row() {
    let sink = memory(
        "CREATE TABLE parents (id INTEGER PRIMARY KEY); INSERT INTO parents VALUES (1);
         CREATE TABLE t (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parents DEFERRABLE INITIALLY DEFERRED)",
    )
    .await;
    let db = pipeline(&sink);
    let key = PartitionKey::new("s", "i", "t", 0);
    let position = db.claim(&key, &Claim::of("a").or_begin_at(0)).await.unwrap().position().unwrap();
    let schema = Schema::builder("t").column("id", ColumnType::I64).column("parent", ColumnType::I64).build().unwrap();
    let step = async |rows: &[(i64, i64)], step: Step| {
        let mut buffer = RowBuffer::new(&schema, ValueRules::default());
        for (id, parent) in rows {
            let row = schema.row().set("id", *id).unwrap().set("parent", *parent).unwrap();
            buffer.push(&row.finish().unwrap()).unwrap();
        }
        db.write_step(buffer.into_rows().rows(), &step).await
    };
    for rows in [&[(1, 1), (2, 7)][..], &[(2, 7)]] {
        for step_of in [Step::new(position, 2), Step::new(position, 2).rolled_back()] {
            let refused = step(rows, step_of).await.unwrap_err();
            assert!(refused.was_sent && refused.error.class() == ErrorClass::Row, "{step_of:?}: {refused}");
            assert_eq!(refused.error.code(), Some("787"), "{step_of:?}");
        }
    }
    step(&[(1, 1)], Step::new(position, 2).rolled_back()).await.unwrap();
    assert_eq!(read(&sink, "SELECT count(*) FROM t").await, ["0"]);
    assert_eq!(read(&sink, "SELECT sequence FROM batchsql_positions").await, ["0"]);
    step(&[(1, 1)], Step::new(position, 1)).await.expect("the commit of a trial only was refused");
    assert_eq!(read(&sink, "SELECT sequence FROM batchsql_positions").await, ["1"]);
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
    let key = PartitionKey::new("s", "i", "t", 0);
    pipeline(&sink).claim(&key, &Claim::of("a").or_begin_at(0)).await.unwrap();
    assert_eq!(level().await, 2);
}

#[tokio::test]
async fn what_is_not_atomic_with_positions_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let sink = SqliteSink::with_options(&SqliteOptions::file(dir.path().join("d"))).unwrap();
    let other = dir.path().join("other").display().to_string();
    let sql = format!("ATTACH '{other}' AS aside; CREATE TABLE aside.t (id INTEGER)");
    sink.call(move |conn| conn.execute_batch(&sql)).await.unwrap();
    let db = pipeline(&sink);
    let key = PartitionKey::new("s", "i", "t", 0);
    let position = db.claim(&key, &Claim::of("a").or_begin_at(0)).await.unwrap().position().unwrap();
    let schema = Schema::builder(batchsql_core::TableName::qualified("aside", "t"))
        .column("id", ColumnType::I64)
        .build()
        .unwrap();
    let mut rows = RowBuffer::new(&schema, ValueRules::default());
    rows.push(&schema.row().set("id", 1_i64).unwrap().finish().unwrap()).unwrap();
    let refused = db.write_step(rows.into_rows().rows(), &Step::new(position, 1)).await.unwrap_err();
    assert!(refused.error.to_string().contains("attached database"), "{refused}");
    sink.call(|conn| conn.query_row("PRAGMA journal_mode = MEMORY", [], |_| Ok(()))).await.unwrap();
    let refused = db.claim(&key, &Claim::of("a")).await.unwrap_err();
    assert!(refused.to_string().contains("journal_mode is memory"), "{refused}");
}
