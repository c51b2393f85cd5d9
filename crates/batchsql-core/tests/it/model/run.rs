//! One run of a schedule.

use std::collections::BTreeMap;
use std::time::Duration;

use batchsql_core::{BatchSql, DynRow, ErrorClass, Receipt, Schema, WhenFull};
use batchsql_testkit::{ScriptedSink, Step};
use tokio::time::Instant;

use super::schedule::Action;
use super::tables::{DELETED, TABLES, VERSIONED, name, number_of, table};
use crate::support::{FAR, HOUR};

/// A row that is tracked, and when it was accepted.
pub(super) type Accepted = (DynRow, Receipt, Instant);

/// One run of a schedule.
pub(super) struct Run {
    pub(super) db: BatchSql,
    pub(super) sink: ScriptedSink,
    pub(super) schemas: [Schema; TABLES],
    pub(super) buffer_size: u64,
    pub(super) when_full: WhenFull,
    pub(super) next: i64,
    /// Rows that were accepted and are tracked, in the order of their submission.
    pub(super) receipts: BTreeMap<i64, Accepted>,
    /// The number that the delete of the present key will have, and rows of this key so far.
    turn: (i64, usize),
}

/// The delete of a key has a number that is so much higher than that of the first row of the key. If more rows were
/// submitted until then, it is left out.
const UNTIL_DELETE: i64 = 200;

impl Run {
    pub(super) fn new(db: BatchSql, sink: ScriptedSink, buffer_size: u64, when_full: WhenFull) -> Self {
        let schemas = std::array::from_fn(table);
        Self { db, sink, schemas, buffer_size, when_full, next: 0, receipts: BTreeMap::new(), turn: (0, 0) }
    }

    fn row(&mut self, table: usize) -> DynRow {
        match table {
            DELETED => self.row_or_delete(),
            _ => self.row_with(table, (self.next + 1) * 3 % 5 * FAR),
        }
    }

    /// Each key has some rows, is deleted, and has more rows.
    fn row_or_delete(&mut self) -> DynRow {
        let (of_delete, rows) = match self.turn {
            (_, 0) => (self.next + UNTIL_DELETE, 0),
            turn => turn,
        };
        self.turn = (of_delete, (rows + 1) % 7);
        if rows == 4 && self.next < of_delete {
            self.next = of_delete;
            let deletes = self.schemas[DELETED].deletion().unwrap();
            return deletes.row().set("key", of_delete * FAR).unwrap().finish().unwrap();
        }
        self.row_with(DELETED, of_delete * FAR)
    }

    fn row_with(&mut self, table: usize, key: i64) -> DynRow {
        self.next += 1;
        let row = self.schemas[table].row().set("id", self.next).unwrap().set("key", key).unwrap();
        // Rows leave out different columns.
        let row = if self.next % 3 == 0 { row } else { row.set("a", self.next).unwrap() };
        let row = if self.next % 4 == 0 { row } else { row.set("b", -self.next).unwrap() };
        let row = if table == VERSIONED { row.set("version", self.next * 7 % 11).unwrap() } else { row };
        row.finish().unwrap()
    }

    async fn submit(&mut self, table: usize) {
        let row = self.row(table);
        let submitted = tokio::time::timeout(HOUR, self.db.submit_tracked(&row)).await.expect("a submit hangs");
        match submitted {
            Ok(receipt) => drop(self.receipts.insert(number_of(&row), (row, receipt, Instant::now()))),
            Err(error) => {
                assert!(error.is_full(), "{error}");
                assert!(!matches!(self.when_full, WhenFull::Wait | WhenFull::DropOldest), "{:?}", self.when_full);
            }
        }
    }

    pub(super) async fn act(&mut self, action: Action) {
        match action {
            Action::Submit { rows, table } => {
                for _ in 0..rows {
                    self.submit(table).await;
                }
            }
            Action::SubmitAround { rows } => {
                for row in 0..rows {
                    self.submit(row % TABLES).await;
                }
            }
            Action::SubmitAll { rows, tables } => {
                // Untracked, hence only tables of which the content is not compared.
                let rows: Vec<DynRow> = (0..rows).map(|row| self.row(if row % tables == 0 { 0 } else { 5 })).collect();
                let submitted = tokio::time::timeout(HOUR, self.db.submit_all(&rows)).await;
                let _ = submitted.expect("submit_all hangs");
            }
            Action::TrySubmit { rows } => {
                for _ in 0..rows {
                    let row = self.row(0);
                    if let Err(error) = self.db.try_submit(&row) {
                        assert!(error.is_full(), "{error}");
                    }
                }
            }
            Action::Cancelled { millis, table } => {
                let row = self.row(table);
                let submit = self.db.submit_tracked(&row);
                if let Ok(Ok(receipt)) = tokio::time::timeout(Duration::from_millis(millis), submit).await {
                    self.receipts.insert(number_of(&row), (row, receipt, Instant::now()));
                }
            }
            Action::Together { tasks, rows } => {
                let mut submitting = tokio::task::JoinSet::new();
                for task in 0..tasks {
                    let key = (10 + task as i64) * FAR;
                    let rows: Vec<DynRow> = (0..rows).map(|_| self.row_with(1 + task % 2, key)).collect();
                    let db = self.db.clone();
                    submitting.spawn(async move {
                        let mut accepted = Vec::new();
                        for row in rows {
                            let submitted = tokio::time::timeout(HOUR, db.submit_tracked(&row)).await;
                            match submitted.expect("a submit hangs") {
                                Ok(receipt) => accepted.push((row, receipt, Instant::now())),
                                Err(error) => assert!(error.is_full(), "{error}"),
                            }
                        }
                        accepted
                    });
                }
                while let Some(accepted) = submitting.join_next().await {
                    self.receipts.extend(
                        accepted.unwrap().into_iter().map(|accepted: Accepted| (number_of(&accepted.0), accepted)),
                    );
                }
            }
            Action::Deliver => drop(self.sink.deliver()),
            Action::Wait(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
            Action::Flush => {
                let db = self.db.clone();
                tokio::spawn(async move { db.flush().await });
            }
            Action::CancelledFlush => {
                let _ = tokio::time::timeout(Duration::from_millis(1), self.db.flush()).await;
            }
            Action::Script(steps) => {
                self.release_later(&steps);
                self.sink.script(steps);
            }
            Action::ScriptBefore(steps) => {
                self.release_later(&steps);
                let (acquire, prepare) = steps.split_at(steps.len() / 2);
                self.sink.script_acquire(acquire.to_vec());
                self.sink.script_prepare(prepare.to_vec());
            }
            Action::Break { table, permission, millis } => {
                let class = if permission { ErrorClass::Permission } else { ErrorClass::Schema };
                match permission {
                    true => self.sink.break_writes(name(table), class),
                    false => self.sink.break_table(name(table), class),
                }
                let sink = self.sink.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    sink.mend_table(name(table));
                });
            }
            Action::Slow { table, millis } => self.sink.slow_table(name(table), Duration::from_millis(millis)),
        }
        let in_flight = self.db.balance().in_flight();
        assert!(in_flight <= self.buffer_size, "{in_flight} rows in a buffer of {}", self.buffer_size);
    }

    /// Releases hanging calls after a while, as the statement timeout would do.
    fn release_later(&self, steps: &[Step]) {
        let hangs = steps.iter().filter(|step| matches!(step, Step::Hang | Step::HangInQueue)).count();
        let sink = self.sink.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            sink.release(hangs);
        });
    }
}
