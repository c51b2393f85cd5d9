//! Owns numbered rows: how they are written to a file, and the comparison of the file with the outcome that
//! the pipeline reported for each of them.
//! Must not know faults.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use batchsql_core::{
    Balance, BatchSql, Conflict, DynRow, ErrorClass, Outcome, OutcomeKind, PipelineConfig, Receipt, Schema,
};
use batchsql_sqlite::SqliteSink;
use batchsql_sqlite::rusqlite::Connection;

use crate::support::{row, schema};
use batchsql_testserver::process;

/// Rows of one batch. Together they take about seven pages of 4 KiB.
pub(crate) const BATCH: usize = 50;

/// A new file with an empty table. Nothing in it rejects a row that is written twice, so that tests can
/// detect duplicates.
pub(crate) fn file() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("numbered.db");
    create(&path);
    (dir, path)
}

pub(crate) fn create(path: &Path) {
    let sql = "PRAGMA journal_mode=WAL; CREATE TABLE t (id INTEGER NOT NULL, note TEXT); CREATE INDEX by_id ON t (id)";
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

/// Batches of [`BATCH`] rows.
pub(crate) fn pipeline(sink: &SqliteSink, retry_for: Duration) -> BatchSql {
    let config = PipelineConfig::default()
        .flush_size(BATCH)
        .flush_interval(Duration::from_millis(20))
        .retry_for(retry_for)
        // A table that cannot be written rejects its rows at once; `policies` has tests that wait.
        .park_for(Duration::ZERO);
    BatchSql::builder(sink.clone()).config(config).start().unwrap()
}

pub(crate) fn plain() -> Schema {
    schema(Conflict::none())
}

/// About half a kilobyte of text that identifies the row.
pub(crate) fn note(id: i64) -> String {
    format!("row {id} {}", "x".repeat(500))
}

pub(crate) fn numbered(schema: &Schema, id: i64) -> DynRow {
    row(schema, id, note(id))
}

/// Submitted rows, each with its receipt.
pub(crate) struct Tracked(Vec<(i64, Receipt)>);

pub(crate) async fn submit(db: &BatchSql, schema: &Schema, ids: Range<i64>) -> Tracked {
    let mut receipts = Vec::new();
    for id in ids {
        receipts.push((id, db.submit_tracked(&numbered(schema, id)).await.unwrap()));
    }
    Tracked(receipts)
}

impl Tracked {
    /// How many rows already have an outcome.
    pub(crate) fn resolved(&self) -> usize {
        self.0.iter().filter(|(_, receipt)| receipt.try_outcome().is_some()).count()
    }

    pub(crate) async fn outcomes(self) -> Outcomes {
        let mut outcomes = Outcomes::default();
        for (id, receipt) in self.0 {
            outcomes.0.insert(id, receipt.await);
        }
        outcomes
    }
}

/// The reported outcome of each row.
#[derive(Default)]
pub(crate) struct Outcomes(BTreeMap<i64, Outcome>);

impl Outcomes {
    pub(crate) fn extend(&mut self, more: Outcomes) {
        self.0.extend(more.0);
    }

    pub(crate) fn of(&self, kind: OutcomeKind) -> Vec<i64> {
        self.0.iter().filter(|(_, outcome)| outcome.kind() == kind).map(|(id, _)| *id).collect()
    }

    #[track_caller]
    pub(crate) fn assert_all(&self, kind: OutcomeKind) {
        assert_eq!(
            self.of(kind).len(),
            self.0.len(),
            "not all {kind}: {:?}",
            self.0.values().find(|o| o.kind() != kind)
        );
    }

    /// Every failure has this class and code.
    #[track_caller]
    pub(crate) fn assert_failures(&self, class: ErrorClass, code: i32) {
        for failed in self.0.values().filter_map(Outcome::failure) {
            assert_eq!((failed.class(), failed.code()), (Some(class), Some(code.to_string().as_str())), "{failed:?}");
        }
    }

    /// The fewest attempts after which a row failed.
    pub(crate) fn fewest_attempts(&self) -> u32 {
        self.0.values().filter_map(Outcome::failure).map(|failed| failed.attempts()).min().unwrap_or(0)
    }

    /// The most attempts of a row that failed.
    pub(crate) fn most_attempts(&self) -> u32 {
        self.0.values().filter_map(Outcome::failure).map(|failed| failed.attempts()).max().unwrap_or(0)
    }

    /// Checks that the file matches the outcomes: each written row exactly once, and no other row except
    /// unknown ones. The balance must match too. Prints the balance.
    #[track_caller]
    pub(crate) fn assert_honest(&self, what: &str, path: &Path, balance: Balance) {
        let failed = self.0.values().find_map(Outcome::failure);
        let after = failed
            .map(|row| format!(", failed rows after {} or more attempts, {:?}", self.fewest_attempts(), row.error()));
        process::say(&format!("{what}: {balance}{}", after.unwrap_or_default()));
        let unknown = self.of(OutcomeKind::Unknown);
        let mut in_file = ids(path);
        assert!(in_file.windows(2).all(|pair| pair[0] != pair[1]), "{what}: a row is in the file twice");
        in_file.retain(|id| !unknown.contains(id));
        assert_eq!(in_file, self.of(OutcomeKind::Written), "{what}: file and receipts");
        assert_eq!(balance.accepted, self.0.len() as u64, "{what}");
        assert_eq!(balance.in_flight(), 0, "{what}");
        for kind in OutcomeKind::ALL {
            assert_eq!(balance.outcomes.get(kind), self.of(kind).len() as u64, "{what}: balance of {kind}");
        }
    }
}

/// The numbers in a file that must be intact, ascending, with duplicates. Rows of other writers have negative
/// numbers and are left out.
#[track_caller]
pub(crate) fn ids(path: &Path) -> Vec<i64> {
    let conn = Connection::open(path).unwrap();
    let sound: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    // Reads the table, not the index.
    let mut statement = conn.prepare("SELECT id, note FROM t NOT INDEXED WHERE id >= 0").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))).unwrap();
    let mut ids: Vec<i64> = rows
        .map(|row| {
            let (id, text) = row.unwrap();
            assert_eq!(text, note(id), "the text of row {id}");
            id
        })
        .collect();
    ids.sort_unstable();
    ids
}
