//! Rows that the database refuses go to a file; a second run corrects and replays them.
//!
//! ```sh
//! cargo run -p batchsql --example dead_letters --features sqlite
//! ```
//!
//! Both runs are in this program. `docs/guides/failures-and-dead-letters.md` has the other ways to receive failed rows.

use std::path::Path;
use std::time::Duration;

use batchsql::sqlite::SqliteSink;
use batchsql::{Balance, BatchSql, DeadLetters, Replay, Row, TypedRow, ValueRef};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[derive(Row)]
#[row(table = "readings", key = "id", on_conflict = "update")]
struct Reading {
    id: i64,
    celsius: Option<f64>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let sink = SqliteSink::open("sqlite::memory:")?;
    let table = "CREATE TABLE readings (id INTEGER PRIMARY KEY, celsius REAL CHECK (celsius > -273.15))";
    sink.call(move |connection| connection.execute_batch(table)).await?;
    let folder = tempfile::tempdir()?;
    let letters = folder.path().join("failed.ndjson");

    let balance = ingest(&sink, &letters).await?;
    println!("first run: {balance}");
    // The file has the values of rows: protect it like the database. Rename it before a replay if a process appends to it:
    // the process then creates it anew.
    println!("replay: {}", replay(&sink, &letters).await?);
    let rows: i64 =
        sink.call(|connection| connection.query_row("SELECT count(*) FROM readings", [], |row| row.get(0))).await?;
    println!("the table has {rows} rows");
    Ok(())
}

/// Two of ten rows are below absolute zero. They are found and refused; the other eight are written.
async fn ingest(sink: &SqliteSink, letters: &Path) -> Result<Balance> {
    let db = BatchSql::builder(sink.clone()).dead_letters(DeadLetters::file(letters)?).start()?;
    for id in 0..10 {
        let celsius = if id % 5 == 4 { -300.0 } else { 20.0 };
        db.submit(&Reading { id, celsius: Some(celsius) }).await?;
    }
    // The file has every failed row when `close` returns.
    Ok(db.close(Duration::from_secs(10)).await.balance)
}

/// Submits the rows of the file again, those with an impossible value without it.
async fn replay(sink: &SqliteSink, letters: &Path) -> Result<Balance> {
    let db =
        BatchSql::builder(sink.clone()).on_failed_row(|outcome| eprintln!("still not written: {outcome}")).start()?;
    let report = Replay::new(letters)
        .run(&db, |letter| {
            println!("{} {}: {}", letter.table(), letter.outcome(), letter.error().unwrap_or_default());
            let row = letter.row(Reading::type_schema())?;
            match row.get("celsius") {
                Some(ValueRef::F64(celsius)) if celsius < -273.15 => {
                    Ok(Some(row.edit().set("celsius", None::<f64>)?.finish()?))
                }
                _ => Ok(Some(row)),
            }
        })
        .await?;
    let balance = db.close(Duration::from_secs(10)).await.balance;
    // Only now may the file and its mark be deleted.
    if report.is_complete() { Ok(balance) } else { Err("rows failed again; the file stays".into()) }
}
