//! The first program: a table, a pipeline, rows from several tasks, and the report at the end.
//!
//! ```sh
//! cargo run -p batchsql --example quick_start --features sqlite
//! ```

use std::time::Duration;

use batchsql::sqlite::SqliteSink;
use batchsql::{BatchSql, Row};

#[derive(Row)]
#[row(table = "orders", key = "id", on_conflict = "update")]
struct Order {
    id: i64,
    customer: String,
    total_cents: i64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The table is yours to create. For another database, use its driver or `batchsql::connect(dsn)`.
    let sink = SqliteSink::open("sqlite::memory:")?;
    let table = "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT NOT NULL, total_cents INTEGER NOT NULL)";
    sink.call(move |connection| connection.execute_batch(table)).await?;

    // One pipeline for all tasks. Clones share it.
    let db = BatchSql::builder(sink.clone()).on_failed_row(|outcome| eprintln!("not written: {outcome}")).start()?;
    db.prepare_for::<Order>().await?; // a missing table or column is an error here

    let tasks: Vec<_> = (0..4_i64)
        .map(|task| {
            let db = db.clone();
            tokio::spawn(async move {
                for number in 0..250 {
                    let id = task * 250 + number;
                    db.submit(&Order { id, customer: format!("customer {task}"), total_cents: 995 }).await?;
                }
                Ok::<(), batchsql::SubmitError>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }

    // Writes what waits, for at most ten seconds, and says what became of every row.
    let report = db.close(Duration::from_secs(10)).await;
    let rows: i64 =
        sink.call(|connection| connection.query_row("SELECT count(*) FROM orders", [], |row| row.get(0))).await?;
    println!("{}; the table has {rows} rows", report.balance);
    if report.is_complete() { Ok(()) } else { Err("rows were not written".into()) }
}
