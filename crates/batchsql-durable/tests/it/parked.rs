//! A table that refuses all rows, or was changed while rows waited: its rows stay in the log, and none is in the dead letters.

use std::path::Path;
use std::time::Duration;

use batchsql_core::{BatchSql, BeyondBudget, Conflict, ErrorClass, Isolation, PipelineConfig};
use batchsql_durable::{DurableBatchSql, DurableExt, DurableOptions};
use batchsql_sqlite::rusqlite::Connection;
use batchsql_testkit::{ScriptedSink, Step};

use crate::sqlite::{database, open, pairs};
use crate::support::{LONG, config, in_table, options, plain, row, start, table, until};

fn letters(folder: &Path) -> usize {
    std::fs::read_to_string(folder.join("dead-letters.ndjson")).unwrap_or_default().lines().count()
}

async fn start_with(sink: &ScriptedSink, config: PipelineConfig, options: DurableOptions) -> DurableBatchSql {
    BatchSql::builder(sink.clone()).config(config).durable(options).start().await.unwrap()
}

async fn is_parked(db: &DurableBatchSql) {
    until("the table is parked", || !db.health().pipeline.parked.is_empty()).await;
}

/// How rows come to a table that refuses all of them.
#[derive(Debug, Clone, Copy)]
enum Way {
    Together,
    /// The sink says which rows it refuses, as SQLite does.
    Reported,
    OneByOne,
}

/// Errors of the class that otherwise rejects rows. No more rows are rejected than the search for bad rows may try, however
/// often the table is probed.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_refuses_every_row_is_parked_whatever_the_settings_say() {
    for way in [Way::Together, Way::Reported, Way::OneByOne] {
        let (dir, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
        sink.poison_as(ErrorClass::Row, |_| true);
        if let Way::Reported = way {
            sink.report_rows();
        }
        let isolation = Isolation::Bisect { max_statements: 4, beyond: BeyondBudget::Reject };
        let db = start_with(&sink, config().isolation(isolation).max_concurrency(1), options(dir.path()).partitions(1))
            .await;
        let rows: Vec<_> = (0..40).map(|version| row(&plain(), 1, version)).collect();
        match way {
            Way::OneByOne => {
                for row in &rows[..10] {
                    let before = sink.writes();
                    db.submit(row).await.unwrap();
                    until("the row was tried", || sink.writes() > before || !db.health().pipeline.parked.is_empty())
                        .await;
                }
                db.submit_all(&rows[10..]).await.unwrap();
            }
            Way::Together | Way::Reported => drop(db.submit_all(&rows).await.unwrap()),
        }
        is_parked(&db).await;
        let tried = sink.writes();
        until("probes were refused", || sink.writes() > tried + 4).await;
        let rejected = usize::try_from(db.stats().balance.rejected()).unwrap();
        assert!(rejected <= 4, "{way:?}: {rejected} rows were rejected");
        sink.poison(|_| false);
        db.flush().await.unwrap();
        assert_eq!((in_table(&sink, "plain").len(), letters(dir.path())), (40 - rejected, rejected), "{way:?}");
        assert!(db.close(LONG).await.is_drained());
    }
}

/// A partition has stopped behind rows of a parked table, so a close need not wait for them.
#[tokio::test(flavor = "multi_thread")]
async fn a_close_keeps_the_rows_of_a_parked_table() {
    for class in [ErrorClass::Schema, ErrorClass::Permission, ErrorClass::Row] {
        let dir = tempfile::tempdir().unwrap();
        let one = || options(dir.path()).partitions(1);
        let sql_rule = || table("plain", Conflict::update(["id"]).on_partial_index("version > 0"));
        let unreachable = ScriptedSink::new();
        unreachable.script_acquire(std::iter::repeat_n(Step::Fail(ErrorClass::Transient), 10_000));
        for (schema, first) in [(plain(), 0), (sql_rule(), 40)] {
            let db = start(&unreachable, one()).await.unwrap();
            let rows: Vec<_> = (first..first + 40).map(|id| row(&schema, id, id)).collect();
            db.submit_all(&rows).await.unwrap();
            db.close(Duration::ZERO).await;
        }

        let sink = ScriptedSink::new();
        sink.poison_as(class, |_| true);
        let isolation = Isolation::Bisect { max_statements: 3, beyond: BeyondBudget::Park };
        let db = start_with(&sink, config().isolation(isolation).max_concurrency(1), one()).await;
        until("the second rule stops the partition", || !db.health().stopped.is_empty()).await;
        is_parked(&db).await;
        let report = db.close(LONG).await;
        assert_eq!((report.left_in_log, report.pipeline.balance.rejected()), (80, 0), "{class}: {report:?}");
        assert_eq!(letters(dir.path()), 0, "{class}");
        drop(db);

        let sink = ScriptedSink::new();
        let db = start(&sink, one().schema(&plain()).schema(&sql_rule())).await.unwrap();
        db.flush().await.unwrap();
        assert_eq!(in_table(&sink, "plain").len(), 80, "{class}");
        assert!(db.close(LONG).await.is_drained());
    }
}

/// What a change of the table says until it is repaired.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_changed_while_rows_waited_keeps_them() {
    let changes = [
        (
            "ALTER TABLE plain RENAME TO old; CREATE TABLE plain (id INTEGER NOT NULL, version INTEGER NOT NULL, more TEXT NOT NULL)",
            "more",
            "DROP TABLE plain; ALTER TABLE old RENAME TO plain",
        ),
        ("ALTER TABLE plain DROP COLUMN version", "version", "ALTER TABLE plain ADD COLUMN version INTEGER"),
        (
            "ALTER TABLE plain RENAME COLUMN version TO renamed",
            "version",
            "ALTER TABLE plain RENAME COLUMN renamed TO version",
        ),
    ];
    for (change, advice, repair) in changes {
        let (dir, path) = database();
        let intake = dir.path().join("intake");
        let unreachable = ScriptedSink::new();
        unreachable.script_acquire(std::iter::repeat_n(Step::Fail(ErrorClass::Transient), 10_000));
        let db = start(&unreachable, options(&intake)).await.unwrap();
        let rows: Vec<_> = (0..300).map(|version| row(&plain(), 1, version)).collect();
        db.submit_all(&rows).await.unwrap();
        db.close(Duration::ZERO).await;
        drop(db);

        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(change).unwrap();
        let db = open(&path, config(), options(&intake)).await;
        is_parked(&db).await;
        let reason = db.health().pipeline.parked[0].error.to_string();
        assert!(reason.contains(advice), "{change}: {reason}");
        conn.execute_batch(repair).unwrap();
        db.flush().await.unwrap();
        assert_eq!(letters(&intake), 0, "{change}");
        let stored = pairs(&path, "SELECT version, count(*) FROM plain GROUP BY version ORDER BY version");
        assert_eq!(stored, (0..300).map(|version| (version, 1)).collect::<Vec<_>>(), "{change}");
        assert!(db.close(LONG).await.is_drained());
    }
}
