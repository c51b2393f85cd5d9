//! Owns the case in which a table changes while rows are written.
//! Must not know databases.

use std::sync::LazyLock;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use batchsql::{ColumnType, Conflict, DynRow, RowError, Schema};
use tokio::sync::{mpsc, watch};

use super::throughput::KEYS_PER_WORKER;
use super::{Case, Expected, Load, Settings};
use crate::database::{Database, TableSpec};
use crate::digest::Digest;
use crate::rows::all_values;

/// How long rows carry the new column before the table has it.
const AHEAD: Duration = Duration::from_millis(300);

/// Interval at which a waiting worker checks whether the case is over.
const LOOK: Duration = Duration::from_millis(50);

fn table(columns: &[&str]) -> Schema {
    let table = Schema::builder("batchsql_suite_changes").column("id", ColumnType::I64);
    let table = columns.iter().fold(table, |table, column| table.nullable(*column, ColumnType::Text));
    table.on_conflict(Conflict::update(["id"])).build().expect("three columns and a key")
}

/// The table at the start, with every column that it ever has, and at the end.
static BEFORE: LazyLock<Schema> = LazyLock::new(|| table(&["kept", "dropped"]));
static WIDEST: LazyLock<Schema> = LazyLock::new(|| table(&["kept", "dropped", "added"]));
static AFTER: LazyLock<Schema> = LazyLock::new(|| table(&["kept", "added"]));

/// The columns of a worker's rows; each worker goes through all three phases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The first columns.
    Old,
    /// Also the added column, which the table gets a little later.
    Both,
    /// Without the column that is dropped.
    New,
}

impl Phase {
    fn of(n: usize, rows: usize) -> Self {
        match n * 3 / rows {
            0 => Self::Old,
            1 => Self::Both,
            _ => Self::New,
        }
    }

    fn row(self, id: i64) -> Result<DynRow, RowError> {
        let columns: &[&str] = match self {
            Self::Old => &["kept", "dropped"],
            Self::Both => &["kept", "dropped", "added"],
            Self::New => &["kept", "added"],
        };
        let row = WIDEST.row().set("id", id)?;
        columns.iter().try_fold(row, |row, column| row.set(column, format!("{column} {id}")))?.finish()
    }
}

pub(super) struct SchemaChange;

#[async_trait]
impl Case for SchemaChange {
    fn description(&self) -> &'static str {
        "Rows start to carry a column shortly before the table gets it, and stop carrying another one before it is \
         dropped; the last rows are submitted after that. No row may fail: rows that came too early wait. (Redis has \
         no columns: there only the rows change.)"
    }

    fn tables(&self) -> Vec<TableSpec> {
        vec![TableSpec::new(BEFORE.clone(), &["id"])]
    }

    fn adjust(&self, settings: &mut Settings) {
        settings.note("column_comes_after_ms", AHEAD.as_millis());
    }

    async fn drive(&self, load: &Load, database: &dyn Database) -> Result<Expected> {
        let (tell, mut told) = mpsc::unbounded_channel();
        let (say_dropped, dropped) = watch::channel(false);
        // The channel closes when the last worker has ended.
        let workers = load.workers(move |load, worker| {
            let (tell, mut dropped) = (tell.clone(), dropped.clone());
            async move {
                let mut digest = Digest::default();
                let rows = load.settings.rows_per_worker;
                let mut phase = Phase::Old;
                for n in 0..rows {
                    if n == rows - rows.div_ceil(10) {
                        // The last rows are submitted after the column was dropped.
                        while !*dropped.borrow_and_update() && !load.is_over() {
                            let _ = tokio::time::timeout(LOOK, dropped.changed()).await;
                        }
                    }
                    if load.is_over() {
                        break;
                    }
                    if phase != Phase::of(n, rows) {
                        phase = Phase::of(n, rows);
                        // The receiver is dropped if the change itself failed.
                        let _ = tell.send(phase);
                    }
                    let row = phase.row(worker * KEYS_PER_WORKER + n as i64)?;
                    load.submit(&row).await?;
                    digest.add_values(all_values(&AFTER, &row));
                }
                Ok(digest)
            }
        });
        let change = async {
            let is_next = |phase| phase == Some(Phase::Both);
            if is_next(told.recv().await) {
                tokio::time::sleep(AHEAD).await;
            }
            database.add_column(&BEFORE, "added", ColumnType::Text).await?;
            let mut without = 0;
            while without < load.settings.workers
                && let Some(phase) = told.recv().await
            {
                without += usize::from(phase == Phase::New);
            }
            // All rows with the column must be in the table before the column is dropped.
            load.db.flush().await?;
            database.drop_column(&BEFORE, "dropped").await?;
            say_dropped.send_replace(true);
            anyhow::Ok(())
        };
        let (digests, changed) = tokio::join!(workers, change);
        changed?;
        let mut expected = Digest::default();
        digests?.into_iter().for_each(|digest| expected.merge(digest));
        Ok(Expected { tables: vec![(AFTER.clone(), expected)], ..Expected::default() })
    }
}
