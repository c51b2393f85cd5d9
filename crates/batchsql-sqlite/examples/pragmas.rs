//! Measures the effect of `cache_size`, `wal_autocheckpoint` and `mmap_size` on the rate of inserts,
//! interleaved: `cargo run --release -p batchsql-sqlite --example pragmas [ROWS] [ROUNDS]`.

use std::time::{Duration, Instant};

use batchsql_core::{BatchSql, ColumnType, PipelineConfig, Schema};
use batchsql_sqlite::{SqliteOptions, SqliteSink};

const TABLE: &str = "CREATE TABLE events (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL,
                         payload TEXT NOT NULL, amount REAL NOT NULL, active INTEGER NOT NULL, created_at INTEGER NOT NULL);
                     CREATE INDEX events_email ON events (email); CREATE INDEX events_created_at ON events (created_at)";

type Setting = (&'static str, fn(SqliteOptions) -> SqliteOptions);

const SETTINGS: [Setting; 8] = [
    ("cache 2 MB (SQLite's own)", |options| options.cache_size(2_000 << 10)),
    ("cache 8 MiB", |options| options.cache_size(8 << 20)),
    ("cache 32 MiB", |options| options.cache_size(32 << 20)),
    ("cache 64 MiB", |options| options.cache_size(64 << 20)),
    ("cache 32 MiB, checkpoint 4,000", |options| options.cache_size(32 << 20).wal_autocheckpoint(4_000)),
    ("cache 32 MiB, checkpoint 16,000", |options| options.cache_size(32 << 20).wal_autocheckpoint(16_000)),
    ("cache 2 MB, mmap 256 MiB", |options| options.cache_size(2_000 << 10).mmap_size(256 << 20)),
    ("cache 32 MiB, mmap 256 MiB", |options| options.cache_size(32 << 20).mmap_size(256 << 20)),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let rows: i64 = arguments.next().map_or(Ok(200_000), |text| text.parse())?;
    let rounds: usize = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for (order, scatter) in [("emails in order", 1), ("emails in no order", 0x9E37_79B9_7F4A_7C15_u64 as i64)] {
        let mut rates = vec![Vec::new(); SETTINGS.len()];
        for round in 0..rounds {
            for turn in 0..SETTINGS.len() {
                let index = (turn + round) % SETTINGS.len();
                rates[index].push(runtime.block_on(measure(SETTINGS[index].1, rows, scatter))?);
            }
        }
        println!("{order}, {rows} rows, {rounds} rounds: median rows/s, median ratio to the first");
        for (index, (name, _)) in SETTINGS.iter().enumerate() {
            let ratios = rates[index].iter().zip(&rates[0]).map(|(rate, first)| rate / first).collect();
            println!("  {name:34} {:>9.0} {:>6.2}", median(rates[index].clone()), median(ratios));
        }
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Rows per second, from the first row to the last commit.
async fn measure(
    set: fn(SqliteOptions) -> SqliteOptions,
    rows: i64,
    scatter: i64,
) -> Result<f64, Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let sink = SqliteSink::with_options(&set(SqliteOptions::file(dir.path().join("a.db"))))?;
    sink.call(|conn| conn.execute_batch(TABLE)).await?;
    let schema = Schema::builder("events")
        .column("id", ColumnType::I64)
        .column("name", ColumnType::Text)
        .column("email", ColumnType::Text)
        .column("payload", ColumnType::Text)
        .column("amount", ColumnType::F64)
        .column("active", ColumnType::Bool)
        .column("created_at", ColumnType::I64)
        .build()?;
    let config = PipelineConfig::default().flush_size(500);
    let payload = "x".repeat(100);
    let begin = Instant::now();
    let db = BatchSql::builder(sink).config(config).start()?;
    for id in 0..rows {
        let key = id.wrapping_mul(scatter) as u64;
        let row = schema
            .row()
            .set("id", id)?
            .set("name", format!("name {id}"))?
            .set("email", format!("{key:020}@example.com"))?
            .set("payload", payload.as_str())?
            .set("amount", id as f64 / 7.0)?
            .set("active", id % 2 == 0)?
            .set("created_at", id)?;
        db.submit(&row.finish()?).await?;
    }
    let report = db.close(Duration::from_secs(600)).await;
    assert_eq!(report.balance.written(), rows as u64, "every row is written");
    Ok(rows as f64 / begin.elapsed().as_secs_f64())
}
