//! The benchmarks' command: `overhead` measures the pipeline alone, `database` measures it against
//! hand-written loops, `poison` measures what a bad row costs. Figures are medians of interleaved rounds; only their ratios travel between
//! machines.

use std::path::PathBuf;

use anyhow::{Context, Result};
use batchsql_suite::bench::{self, Plan};
use clap::{Parser, ValueEnum};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures BatchSQL.
#[derive(Debug, Parser)]
#[command(name = "batchsql-bench", version)]
struct Options {
    /// What to measure; everything when left out
    #[arg(value_enum)]
    group: Option<Group>,

    /// Interleaved rounds; the median of each contender counts
    #[arg(long, default_value = "5")]
    rounds: usize,

    /// Rows of one measurement in the database group; the overhead group takes ten times as many
    #[arg(long, default_value = "200000")]
    rows: usize,

    /// Also write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// The pipeline with a sink that does nothing
    Overhead,
    /// The pipeline with a real database, against a hand-written loop
    Database,
    /// What one bad row costs its batch, in statements and time
    Poison,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    anyhow::ensure!(options.rounds > 0 && options.rows > 0, "--rounds and --rows must be at least 1");
    let mut figures = Vec::new();
    let wants = |group| options.group.is_none_or(|wanted| wanted == group);
    if wants(Group::Overhead) {
        figures.extend(bench::overhead(Plan { rounds: options.rounds, rows: options.rows * 10 }).await?);
    }
    if wants(Group::Database) {
        figures.extend(bench::database(Plan { rounds: options.rounds, rows: options.rows }).await?);
    }
    if wants(Group::Poison) {
        println!("{}", bench::poison(options.rounds).await?);
    }
    if !figures.is_empty() {
        println!("{}", bench::table(&figures));
    }
    if let Some(file) = options.json {
        let json = serde_json::to_string_pretty(&figures)?;
        std::fs::write(&file, json).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
