//! Futures of the handle that run in handlers and tasks, so they must be `Send` for every row and iterator.

use std::cell::Cell;
use std::collections::HashMap;

use batchsql_core::{BatchSql, DynRow, Row, RowError, RowWriter, Schema};

use crate::support::{config, ids, pipeline, plain, row};

/// What the router of a web server asks of a handler.
trait Handler: Future<Output: Send + 'static> + Send + 'static {}
impl<F: Future<Output: Send + 'static> + Send + 'static> Handler for F {}

async fn handle(handler: impl Handler<Output = usize>) -> usize {
    tokio::spawn(handler).await.unwrap()
}

/// A row that is `Send` and not `Sync`.
struct Counted(DynRow, Cell<u32>);

impl Row for Counted {
    fn schema(&self) -> &Schema {
        self.0.schema()
    }

    fn variable_len(&self) -> usize {
        self.0.variable_len()
    }

    fn key_hash(&self) -> u64 {
        self.0.key_hash()
    }

    fn write(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        self.1.set(self.1.get() + 1);
        self.0.write(writer)
    }
}

async fn pairs(db: BatchSql, rows: Vec<(i64, DynRow)>) -> usize {
    db.submit_all(rows.iter().map(|(_, row)| row)).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn submit_all_takes_borrowed_and_mapped_rows_in_a_handler() {
    let (db, sink) = pipeline(config());
    let rows: Vec<(i64, DynRow)> = (0..30).map(|id| (id, row(&plain(), id))).collect();
    assert_eq!(handle(pairs(db.clone(), rows.clone())).await, 30);
    let (of_task, by_id) = (db.clone(), rows.iter().cloned().collect::<HashMap<_, _>>());
    let odd = async move {
        let rows = by_id.iter().filter(|(id, _)| **id % 2 == 1).map(|(_, row)| row);
        of_task.submit_all(rows).await.unwrap()
    };
    assert_eq!(handle(odd).await, 15);
    let (of_task, nested) = (db.clone(), vec![rows]);
    let flat = async move {
        let rows = nested.iter().flat_map(|rows| rows.iter().map(|(_, row)| row));
        of_task.submit_all(rows).await.unwrap()
    };
    assert_eq!(handle(flat).await, 30);
    let of_task = db.clone();
    let counted = (0..3).map(|id| Counted(row(&plain(), id), Cell::new(0)));
    assert_eq!(handle(async move { of_task.submit_all(counted).await.unwrap() }).await, 3);
    db.flush().await.unwrap();
    assert_eq!(sink.applied().len(), 78);
    assert_eq!(ids(&sink.applied()[..30]), (0..30).collect::<Vec<_>>());
}
