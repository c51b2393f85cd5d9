//! Loads a CSV file into a table, with progress. The header gives the columns; each of them is text.
//!
//! ```sh
//! cargo run -p batchsql --example csv_loader --features sqlite -- crates/batchsql-suite/data/cities.csv cities.db
//! ```
//!
//! The second argument is the SQLite file, which is created. Lines that cannot be read and rows that the database refuses
//! are reported and counted; the others are loaded.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use batchsql::sqlite::{SqliteOptions, SqliteSink};
use batchsql::{BatchSql, ColumnType, Schema, Value};
use indicatif::{ProgressBar, ProgressStyle};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [csv, database] = arguments.as_slice() else { return Err("usage: csv_loader FILE.csv FILE.db".into()) };

    // The bar shows the bytes of the file that were read. It stays hidden if stderr is not a terminal.
    let file = File::open(csv).map_err(|error| format!("{csv}: {error}"))?;
    let bar = ProgressBar::new(file.metadata()?.len());
    bar.set_style(ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {msg}")?);
    let mut reader = csv::Reader::from_reader(bar.wrap_read(file));
    let table = Path::new(csv).file_stem().and_then(|name| name.to_str()).ok_or("the file has no name")?;
    let columns: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();

    let sink = SqliteSink::with_options(&SqliteOptions::file(database))?;
    let create = create_table(table, &columns);
    sink.call(move |connection| connection.execute_batch(&create)).await?;
    let schema = columns
        .iter()
        .fold(Schema::builder(table), |schema, column| schema.nullable(column.as_str(), ColumnType::Text))
        .build()?;
    let log = bar.clone();
    let db = BatchSql::builder(sink)
        .on_failed_row(move |outcome| log.suspend(|| eprintln!("not written: {outcome}")))
        .start()?;

    let begin = Instant::now();
    let mut unread = 0_u64;
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) if error.is_io_error() => return Err(error.into()),
            Err(error) => {
                bar.suspend(|| eprintln!("not read: {error}"));
                unread += 1;
                continue;
            }
        };
        // An empty field is NULL.
        let values = record.iter().map(|field| if field.is_empty() { Value::Null } else { field.into() });
        // Waits when the buffer is full, so the file is read at the pace of the database.
        db.submit(&schema.row().set_all(values)?.finish()?).await?;
        bar.set_message(format!("{} rows", db.balance().written()));
    }
    let report = db.close(Duration::from_secs(60)).await;
    bar.finish_and_clear();
    let written = report.balance.written();
    let rate = written as f64 / begin.elapsed().as_secs_f64();
    println!("{table}: {}, {unread} lines not read, {rate:.0} rows per second", report.balance);
    if report.is_complete() && unread == 0 { Ok(()) } else { Err("not everything was loaded".into()) }
}

fn create_table(table: &str, columns: &[String]) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let columns: Vec<String> = columns.iter().map(|column| format!("{} TEXT", quoted(column))).collect();
    format!("CREATE TABLE {} ({})", quoted(table), columns.join(", "))
}
