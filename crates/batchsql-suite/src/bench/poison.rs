//! Owns the measurement of one bad row in a batch: its cost in statements and time.
//! Must not know other workloads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use batchsql::sqlite::{SqliteOptions, SqliteSink};
use batchsql::{
    Attempt, BatchSql, ColumnType, DynRow, Isolation, PipelineConfig, Rows, Schema, Sink, SinkError, Written,
};
use comfy_table::{CellAlignment, Table, presets};

use crate::forwarding::{Forwarding, Writing};

/// Rows of one batch.
const SIZES: [usize; 2] = [1_000, 10_000];

/// How the bad row is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// There is no bad row.
    Clean,
    /// The database reports it, as SQLite does.
    Told,
    /// The batch is halved, as on databases that reject a whole statement.
    Halved,
}

const WAYS: [(Way, &str); 3] = [
    (Way::Clean, "no bad row"),
    (Way::Told, "one bad row, reported by SQLite"),
    (Way::Halved, "one bad row, found by halving"),
];

/// Counts each write, and, if wanted, lets the database reject it as a whole.
struct Counted {
    whole: bool,
    writes: Arc<AtomicUsize>,
}

impl Writing<SqliteSink> for Counted {
    async fn write(
        &self,
        sink: &SqliteSink,
        conn: &mut <SqliteSink as Sink>::Conn,
        plan: &<SqliteSink as Sink>::Plan,
        rows: Rows<'_>,
        attempt: &Attempt,
    ) -> Result<Written, SinkError> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        if self.whole {
            return sink.write(conn, plan, rows, &Attempt::new(true)).await;
        }
        sink.write(conn, plan, rows, attempt).await
    }
}

/// Measures one batch with and without a bad row; returns a table.
///
/// # Errors
/// The database fails.
pub async fn poison(rounds: usize) -> Result<String> {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["rows of the batch", "what", "transactions", "ms (median)", "ratio"]);
    for rows in SIZES {
        let mut measured = [const { Vec::new() }; WAYS.len()];
        let mut writes = [0; WAYS.len()];
        for round in 0..rounds {
            eprintln!("one bad row in {rows}, round {} of {rounds}", round + 1);
            for (place, (way, _)) in WAYS.iter().enumerate() {
                let (took, count) = measure(*way, rows, round).await?;
                measured[place].push(took.as_secs_f64() * 1e3);
                writes[place] = count;
            }
        }
        for (place, (_, name)) in WAYS.iter().enumerate() {
            let ratios = measured[place].iter().zip(&measured[0]).map(|(own, clean)| own / clean).collect();
            table.add_row([
                rows.to_string(),
                (*name).to_owned(),
                writes[place].to_string(),
                format!("{:.1}", super::figures::median(measured[place].clone())),
                format!("{:.2}", super::figures::median(ratios)),
            ]);
        }
    }
    for column in 2..5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    Ok(table.to_string())
}

/// Writes one batch; returns the time from the last submit to the last outcome, and the number of transactions.
async fn measure(way: Way, rows: usize, round: usize) -> Result<(Duration, usize)> {
    let dir = tempfile::Builder::new().prefix("batchsql-bench-").tempdir()?;
    let inner = SqliteSink::with_options(&SqliteOptions::file(dir.path().join("poison.db")))?;
    let create = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT NOT NULL CHECK (name <> 'bad'), amount REAL)";
    inner.call(move |conn| conn.execute_batch(create)).await?;
    let schema = Schema::builder("t").column("id", ColumnType::I64).column("name", ColumnType::Text);
    let schema = schema.column("amount", ColumnType::F64).build()?;
    let bad = (round * 7_919 + rows * 617 / 1000) % rows;
    let row = |id: usize| -> Result<DynRow> {
        let name = if way != Way::Clean && id == bad { "bad" } else { "a name of usual length" };
        Ok(schema.row().set("id", id as i64)?.set("name", name)?.set("amount", id as f64)?.finish()?)
    };
    let made = (0..rows).map(row).collect::<Result<Vec<DynRow>>>()?;
    let writes = Arc::new(AtomicUsize::new(0));
    let writing = Counted { whole: way == Way::Halved, writes: Arc::clone(&writes) };
    let sink = Forwarding { sink: inner.clone(), writing };
    let config = PipelineConfig::default()
        .flush_size(rows)
        .buffer_size(rows)
        .flush_interval(Duration::from_secs(3600))
        .isolation(Isolation::default());
    let db = BatchSql::builder(sink).config(config).start()?;
    db.prepare(&schema).await?;
    let (last, others) = made.split_last().expect("a batch has rows");
    db.submit_all(others).await?;
    let begin = Instant::now();
    let balance = {
        db.submit(last).await?;
        db.flush().await?
    };
    let took = begin.elapsed();
    let expected = if way == Way::Clean { rows } else { rows - 1 };
    anyhow::ensure!(balance.written() == expected as u64, "rows were lost: {balance}");
    let found: i64 = inner.call(|conn| conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0))).await?;
    anyhow::ensure!(usize::try_from(found)? == expected, "the table has {found} rows instead of {expected}");
    Ok((took, writes.load(Ordering::Relaxed)))
}
