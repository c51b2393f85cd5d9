//! Positions in the transaction of rows: a table that is there, and one that is not.

use std::time::Duration;

use batchsql_core::{Claim, ColumnType, Conflict, ErrorClass, PartitionKey, RowBuffer, Schema, Step, ValueRules};
use batchsql_sqlite::rusqlite::{Connection, ffi};
use batchsql_sqlite::{SqliteOptions, SqliteSink, Synchronous};
use batchsql_testkit::{check_moved, check_positions};

use crate::support::{memory, pipeline, read, row, schema};

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

#[tokio::test]
async fn a_position_that_somebody_has_moved_ahead_is_known() {
    let sink = memory("").await;
    check_moved(&pipeline(&sink), async |sql: String| sink.call(move |conn| conn.execute_batch(&sql)).await.unwrap())
        .await;
}

/// Deferred foreign keys are checked by COMMIT, which a trial does not reach.
#[tokio::test]
async fn a_deferred_foreign_key_refuses_steps_and_trials_of_the_faulty_row() {
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

/// At least once, the same level, and a mode that is not durable is reported.
#[tokio::test]
async fn a_feed_makes_commits_durable() {
    let dir = tempfile::tempdir().unwrap();
    let options = SqliteOptions::file(dir.path().join("d")).synchronous(Synchronous::Normal);
    let sink = SqliteSink::with_options(&options).unwrap();
    let attach = format!("ATTACH '{}' AS aside; PRAGMA aside.synchronous = OFF", dir.path().join("other").display());
    sink.call(move |conn| conn.execute_batch(&attach)).await.unwrap();
    assert_eq!(pipeline(&sink).make_durable().await.unwrap(), None);
    assert_eq!(read(&sink, "PRAGMA synchronous").await, ["2"]);
    assert_eq!(read(&sink, "PRAGMA aside.synchronous").await, ["2"]);
    // A mode that is not durable leaves the level no lower than it may be.
    for (name, level, reported) in [
        ("aside", "PRAGMA aside.synchronous", "journal_mode of \"aside\" is memory"),
        ("main", "PRAGMA synchronous", "journal_mode is memory"),
    ] {
        let lossy = format!("{level} = NORMAL; PRAGMA {name}.journal_mode = MEMORY");
        sink.call(move |conn| conn.execute_batch(&lossy)).await.unwrap();
        let setting = pipeline(&sink).make_durable().await.unwrap().unwrap();
        assert!(setting.starts_with(reported), "{setting}");
        assert_eq!(read(&sink, level).await, ["2"]);
    }
}

/// What ends the transaction behind the back of a step leaves neither rows nor a position, and the step can be repeated.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_whose_transaction_ended_leaves_nothing() {
    #[derive(Debug, Clone, Copy)]
    enum Trouble {
        Full,
        RollsBack,
        BusyCommit,
    }
    for trouble in [Trouble::Full, Trouble::RollsBack, Trouble::BusyCommit] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        let options = SqliteOptions::file(&path).busy_timeout(Duration::from_millis(100));
        let sink = SqliteSink::with_options(&options).unwrap();
        let table = "CREATE TABLE t (id INTEGER PRIMARY KEY ON CONFLICT ROLLBACK, note TEXT)";
        sink.call(move |conn| conn.execute_batch(table)).await.unwrap();
        let db = pipeline(&sink);
        let position = db.claim(&PartitionKey::new("s", "i", "t", 0), &Claim::of("a").or_begin_at(0)).await.unwrap();
        let position = position.position().unwrap();
        let mut buffer = RowBuffer::new(&schema(Conflict::none()), ValueRules::default());
        for id in 0..500 {
            buffer.push(&row(&schema(Conflict::none()), id, "x".repeat(500))).unwrap();
        }
        let (rows, step) = (buffer.into_rows(), Step::new(position, 500));
        let other = Connection::open(&path).unwrap();
        let (begin, end, code) = match trouble {
            Trouble::Full => {
                sink.call(|conn| conn.query_row("PRAGMA max_page_count=20", [], |_| Ok(()))).await.unwrap();
                ("", "", ffi::SQLITE_FULL)
            }
            Trouble::RollsBack => {
                ("INSERT INTO t VALUES (499, '')", "DELETE FROM t", ffi::SQLITE_CONSTRAINT_PRIMARYKEY)
            }
            Trouble::BusyCommit => {
                // With a rollback journal a commit waits for readers.
                sink.call(|conn| conn.query_row("PRAGMA journal_mode=DELETE", [], |_| Ok(()))).await.unwrap();
                ("BEGIN; SELECT * FROM t", "ROLLBACK", ffi::SQLITE_BUSY)
            }
        };
        // Every row of a SELECT is read, and the transaction stays open.
        other.execute_batch(begin).unwrap();
        let refused = db.write_step(rows.rows(), &step).await.unwrap_err();
        assert_eq!(refused.error.code(), Some(&*code.to_string()), "{trouble:?}: {refused}");
        other.execute_batch(end).unwrap();
        assert_eq!(read(&sink, "SELECT sequence FROM batchsql_positions").await, ["0"], "{trouble:?}");
        assert_eq!(read(&sink, "SELECT count(*) FROM t").await, ["0"], "{trouble:?}");
        if let Trouble::Full = trouble {
            sink.call(|conn| conn.query_row("PRAGMA max_page_count=100000", [], |_| Ok(()))).await.unwrap();
        }
        db.write_step(rows.rows(), &step).await.unwrap();
        assert_eq!(read(&sink, "SELECT sequence FROM batchsql_positions").await, ["500"], "{trouble:?}");
        assert_eq!(read(&sink, "SELECT count(*) FROM t").await, ["500"], "{trouble:?}");
    }
}

#[tokio::test]
async fn what_is_not_atomic_with_positions_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let sink = SqliteSink::with_options(&SqliteOptions::file(dir.path().join("d"))).unwrap();
    let other = dir.path().join("other").display().to_string();
    let sql =
        format!("ATTACH '{other}' AS aside; CREATE TABLE aside.t (id INTEGER); CREATE TABLE aside.u (id INTEGER)");
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
    // Found there, because the file has no table of the name.
    let schema = Schema::builder("u").column("id", ColumnType::I64).build().unwrap();
    let mut rows = RowBuffer::new(&schema, ValueRules::default());
    rows.push(&schema.row().set("id", 1_i64).unwrap().finish().unwrap()).unwrap();
    let refused = db.write_step(rows.into_rows().rows(), &Step::new(position, 1)).await.unwrap_err();
    assert!(refused.error.to_string().contains("attached database"), "{refused}");
    sink.call(|conn| conn.query_row("PRAGMA journal_mode = MEMORY", [], |_| Ok(()))).await.unwrap();
    let refused = db.claim(&key, &Claim::of("a")).await.unwrap_err();
    assert!(refused.to_string().contains("journal_mode is memory"), "{refused}");
}

/// Two sources would share a position, and rows of one be passed over.
#[tokio::test]
async fn a_collation_without_case_does_not_make_one_source_of_two() {
    let columns =
        "id INTEGER PRIMARY KEY, source TEXT NOT NULL COLLATE NOCASE, incarnation TEXT NOT NULL COLLATE NOCASE,
        table_name TEXT NOT NULL COLLATE NOCASE, partition_number INTEGER NOT NULL, epoch INTEGER NOT NULL,
        sequence INTEGER NOT NULL, session TEXT COLLATE NOCASE, lease TEXT";
    for (key, is_exact) in [
        ("source, incarnation, table_name, partition_number", false),
        ("source COLLATE BINARY, incarnation COLLATE BINARY, table_name COLLATE BINARY, partition_number", true),
    ] {
        let sink = memory("CREATE TABLE t (id INTEGER)").await;
        let sql =
            format!("CREATE TABLE batchsql_positions ({columns}); CREATE UNIQUE INDEX k ON batchsql_positions ({key})");
        sink.call(move |conn| conn.execute_batch(&sql)).await.unwrap();
        let db = pipeline(&sink);
        let claim = |owner: &str| Claim::of(owner).or_begin_at(0).lease(Duration::from_secs(600));
        let first = PartitionKey::new("s", "i", "t", 0);
        let position = db.claim(&first, &claim("a")).await.unwrap().position().unwrap();
        db.advance(&Step::new(position, 7)).await.unwrap();
        for other in ["S i t", "s I t", "s i T"] {
            let [source, incarnation, table] = <[&str; 3]>::try_from(other.split(' ').collect::<Vec<_>>()).unwrap();
            let claimed = db.claim(&PartitionKey::new(source, incarnation, table, 0), &claim("A")).await;
            if is_exact {
                assert_eq!(claimed.unwrap().position().unwrap().sequence, 0, "{other}");
            } else {
                let error = claimed.unwrap_err();
                assert!(error.class() == ErrorClass::Schema && error.to_string().contains("collation"), "{error}");
            }
        }
        if is_exact {
            assert_eq!(db.positions("S").await.unwrap().len(), 1);
            // Only leases of its own.
            assert_eq!(db.renew("s", "a", Duration::from_secs(600)).await.unwrap().len(), 1);
            assert_eq!(db.renew("s", "A", Duration::from_secs(600)).await.unwrap().len(), 2);
        } else {
            assert!(db.positions("S").await.unwrap().is_empty());
        }
    }
}

/// One that is created later has a copy of the position.
#[tokio::test]
async fn a_temporary_table_takes_no_position_in() {
    let sink = memory("CREATE TABLE t (id INTEGER)").await;
    let db = pipeline(&sink);
    let key = PartitionKey::new("s", "i", "t", 0);
    let position = db.claim(&key, &Claim::of("a").or_begin_at(0)).await.unwrap().position().unwrap();
    let hide = "CREATE TEMP TABLE batchsql_positions AS SELECT * FROM main.batchsql_positions";
    sink.call(move |conn| conn.execute_batch(hide)).await.unwrap();
    db.advance(&Step::new(position, 5)).await.unwrap();
    assert_eq!(read(&sink, "SELECT sequence FROM main.batchsql_positions").await, ["5"]);
    assert_eq!(db.positions("s").await.unwrap()[0].position.sequence, 5);
    assert!(db.release(&position).await.unwrap());
    assert_eq!(read(&sink, "SELECT session FROM main.batchsql_positions").await, ["NULL"]);
}

/// Its positions would end with the connection, or be outside of the transaction.
#[tokio::test]
async fn what_is_no_table_of_the_file_is_refused_as_positions() {
    let sink = memory("CREATE TABLE t (id INTEGER)").await;
    let db = pipeline(&sink);
    let (key, claim) = (PartitionKey::new("s", "i", "t", 0), Claim::of("a").or_begin_at(0));
    db.claim(&key, &claim).await.unwrap().position().unwrap();
    for (made, dropped, part) in [
        (
            "CREATE TEMP TABLE batchsql_positions AS SELECT * FROM main.batchsql_positions",
            "DROP TABLE temp.batchsql_positions",
            "temporary",
        ),
        (
            "ALTER TABLE batchsql_positions RENAME TO kept; CREATE VIEW batchsql_positions AS SELECT * FROM kept",
            "DROP VIEW batchsql_positions; ALTER TABLE kept RENAME TO batchsql_positions",
            "is a view",
        ),
    ] {
        sink.call(move |conn| conn.execute_batch(made)).await.unwrap();
        let error = db.claim(&key, &claim).await.unwrap_err();
        assert!(error.class() == ErrorClass::Schema && error.to_string().contains(part), "{error}");
        let error = db.renew("s", "a", Duration::from_secs(600)).await.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        sink.call(move |conn| conn.execute_batch(dropped)).await.unwrap();
        db.claim(&key, &claim).await.unwrap().position().unwrap();
    }
}

#[tokio::test]
async fn another_table_with_the_name_is_named_with_advice() {
    for table in ["CREATE TABLE batchsql_positions (other INTEGER)", "CREATE TABLE Batchsql_Positions (id INTEGER)"] {
        let db = pipeline(&memory(table).await);
        let claim = Claim::of("a").or_begin_at(0);
        let error = db.claim(&PartitionKey::new("s", "i", "t", 0), &claim).await.unwrap_err();
        assert!(error.class() == ErrorClass::Schema && error.to_string().contains("another table"), "{error}");
    }
}
