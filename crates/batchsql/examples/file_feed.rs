//! A file of JSON lines into SQLite, each line exactly once, in a table without a key. Kill it with -9 and start it again: it
//! goes on.
//!
//! ```sh
//! cargo run -p batchsql --example file_feed --features feed,sqlite                              # a file of its own
//! cargo run -p batchsql --example file_feed --features feed,sqlite -- events.ndjson events.db   # follows a file until Ctrl-C
//! ```
//!
//! Lines look like `{"id": 7, "text": "hello"}`.

use std::path::PathBuf;
use std::time::Duration;

use batchsql::feed::file::{FileFeed, FileOptions};
use batchsql::sqlite::{SqliteOptions, SqliteSink};
use batchsql::{BatchSql, ColumnType, Schema};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let (path, database, follows) = match &arguments[..] {
        [path, database] => (path.clone(), database.clone(), true),
        _ => (folder.path().join("events.ndjson"), folder.path().join("events.db"), false),
    };
    if !follows {
        std::fs::write(&path, "{\"id\": 1, \"text\": \"one\"}\nno row\n{\"id\": 2}\n")?;
    }

    let sink = SqliteSink::with_options(&SqliteOptions::file(&database))?;
    let table = "CREATE TABLE IF NOT EXISTS events (id INTEGER NOT NULL, text TEXT)";
    sink.call(move |connection| connection.execute_batch(table)).await?;
    let events = Schema::builder("events").column("id", ColumnType::I64).nullable("text", ColumnType::Text).build()?;

    // The name must stay the same: the position in the database has it.
    let options = FileOptions::new(&path, &events).exactly_once("events file");
    let feed = FileFeed::start(BatchSql::builder(sink.clone()), options).await?;
    if follows {
        println!("following {}; Ctrl-C ends it", path.display());
        tokio::signal::ctrl_c().await?;
    } else {
        feed.flush().await?;
    }
    let bad = feed.bad_lines();
    let report = feed.close(Duration::from_secs(10)).await;
    let rows: i64 =
        sink.call(|connection| connection.query_row("SELECT count(*) FROM events", [], |row| row.get(0))).await?;
    println!("{} lines have ended, {bad} of this run were no rows; the table has {rows} rows", report.lines);
    Ok(())
}
