//! The benchmarks' command: `overhead` measures the pipeline alone, `database` measures it against
//! hand-written loops, `poison` measures what a bad row costs, `scrape` what a scrape of the metrics costs.
//! Figures are medians of interleaved rounds; only their ratios travel between machines.

use std::path::PathBuf;

use anyhow::{Context, Result};
use batchsql_suite::bench::{self, Figure, Plan};
use batchsql_suite::database::{DatabaseChoice, DatabaseName};
use clap::{Parser, ValueEnum};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Scrapes are short, so that more of them can count.
const SCRAPES: usize = 20;

/// Measures BatchSQL.
#[derive(Debug, Parser)]
#[command(name = "batchsql-bench", version)]
struct Options {
    /// What to measure; everything when left out
    #[arg(value_enum)]
    group: Option<Group>,

    /// Databases to measure in the database group, separated by commas; all stands for every one
    #[arg(long, value_delimiter = ',', default_value = "sqlite", value_name = "NAME")]
    db: Vec<DatabaseChoice>,

    /// PostgreSQL server; tables named batchsql_suite_* in it are dropped
    #[arg(long, env = "POSTGRES_DSN", hide_env_values = true)]
    postgres_dsn: Option<String>,

    /// MySQL or MariaDB server; tables named batchsql_suite_* in it are dropped
    #[arg(long, env = "MYSQL_DSN", hide_env_values = true)]
    mysql_dsn: Option<String>,

    /// Redis server; keys named batchsql_suite_* in it are deleted
    #[arg(long, env = "REDIS_DSN", hide_env_values = true)]
    redis_dsn: Option<String>,

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
    /// A scrape of the metrics: series, bytes, time
    Scrape,
}

impl Options {
    async fn database(&self, name: DatabaseName, plan: Plan) -> Result<Vec<Figure>> {
        match name {
            DatabaseName::Sqlite => bench::sqlite(plan).await,
            DatabaseName::Postgres => bench::postgres(plan, name.needed(&self.postgres_dsn)?).await,
            DatabaseName::Mysql => bench::mysql(plan, name.needed(&self.mysql_dsn)?).await,
            DatabaseName::Redis => bench::redis(plan, name.needed(&self.redis_dsn)?).await,
        }
    }
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
        let plan = Plan { rounds: options.rounds, rows: options.rows };
        for name in DatabaseChoice::names_of(&options.db) {
            figures.extend(options.database(name, plan).await?);
        }
    }
    if wants(Group::Poison) {
        println!("{}", bench::poison(options.rounds).await?);
    }
    if wants(Group::Scrape) {
        println!("{}", bench::scrape(options.rounds.max(SCRAPES)).await?);
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
