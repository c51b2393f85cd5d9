//! The benchmark command: `overhead` measures the pipeline alone, `database` measures it against hand-written loops,
//! `poison` the cost of a bad row, `rules` that of rules that depend on the stored row, `durable` that of the durable
//! intake, `arrow` record batches of Arrow, `load` files, `outage` how a log is filled and drained, `scrape` the cost of a
//! scrape of the metrics, `distance` remote servers, `scale` scaling.
//! Figures are medians of interleaved rounds; only their ratios can be compared between machines.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use batchsql_suite::bench::{self, DistancePlan, Figure, OutagePlan, Page, Place, Plan, ScalePlan};
use batchsql_suite::database::{Database, DatabaseChoice, DatabaseName, MySql, Postgres, Redis, Sqlite};
use clap::{Parser, ValueEnum};
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Scrapes are short, so there are more of them than rounds.
const SCRAPES: usize = 20;

/// With --quick no new measurement starts after this time, so that a run ends within 5 minutes.
const QUICK: Duration = Duration::from_secs(230);

/// Measures BatchSQL.
#[derive(Debug, Parser)]
#[command(name = "batchsql-bench", version)]
struct Options {
    /// What to measure; default: everything except distance, scale, rules, durable, arrow, load and outage
    #[arg(value_enum)]
    group: Option<Group>,

    /// Databases to measure, separated by commas; all means every one. Default: sqlite in the database group,
    /// postgres and mysql in the distance group, none in the scale group
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
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

    /// Interleaved rounds; results are medians. Default: 5, in the distance and scale groups 3, with --quick 1
    #[arg(long)]
    rounds: Option<usize>,

    /// Rows of one measurement with a database; the pipeline alone takes ten times as many. Default: 200000, with
    /// --quick 40000
    #[arg(long)]
    rows: Option<usize>,

    /// Round trips of the distance group in milliseconds, separated by commas. Default: 0,2,10,50, with --quick
    /// 0,10
    #[arg(long, value_delimiter = ',', value_name = "MS")]
    rtt: Vec<f64>,

    /// Fewer rows, rounds and points in the distance and scale groups; ends within 5 minutes
    #[arg(long)]
    quick: bool,

    /// The program `batchsql` of the load group, built for release with the feature `arrow`. Default: what `cargo xtask` has built
    #[arg(long, env = "BATCHSQL_PROGRAM", value_name = "FILE")]
    program: Option<PathBuf>,

    /// Bytes that the log has before the database comes back, in the outage group. The disk needs the same for the log and for the
    /// table
    #[arg(long, value_parser = bytes, default_value = "512MiB", value_name = "BYTES")]
    bytes: u64,

    /// Rows are written exactly once in the outage group
    #[arg(long)]
    exactly_once: bool,

    /// Also write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// The page with plots of the distance and scale groups. Default: target/bench-distance.html or
    /// target/bench-scale.html
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// The pipeline with a sink that does nothing
    Overhead,
    /// The pipeline with a real database, against a hand-written loop
    Database,
    /// The cost of one bad row in a batch, in statements and time
    Poison,
    /// Rules that depend on the stored row, against a plain update; only on request
    Rules,
    /// The durable intake against rows in memory, and the cost of exactly once; only on request
    Durable,
    /// `submit_batch` of Arrow against rows one by one, into a sink that does nothing and each database of --db; only on request
    Arrow,
    /// `batchsql load` against the tools that load a file into the same database; only on request
    Load,
    /// The database is unreachable until the log of a durable pipeline has --bytes, and then all rows are written: times, memory;
    /// only on request
    Outage,
    /// A scrape of the metrics: series, bytes, time
    Scrape,
    /// Default settings against the best hand-written loop, and latency, with remote servers
    Distance,
    /// More producers, tables and rows, and a producer that never awaits
    Scale,
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

    fn rounds(&self, default: usize) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { default })
    }

    fn rows(&self) -> usize {
        self.rows.unwrap_or(if self.quick { 40_000 } else { 200_000 })
    }

    fn until(&self) -> Option<Instant> {
        self.quick.then(|| Instant::now() + QUICK)
    }

    /// The servers of `--db`, or of `default`.
    fn servers(&self, default: &[DatabaseName]) -> Result<Vec<(DatabaseName, &str)>> {
        let names = if self.db.is_empty() { default.to_vec() } else { DatabaseChoice::names_of(&self.db) };
        let dsn = |name: DatabaseName| match name {
            DatabaseName::Postgres => name.needed(&self.postgres_dsn),
            DatabaseName::Mysql => name.needed(&self.mysql_dsn),
            DatabaseName::Sqlite | DatabaseName::Redis => {
                anyhow::bail!("{} is not measured in this group; use --db postgres,mysql", name.name())
            }
        };
        names.into_iter().map(|name| Ok((name, dsn(name)?))).collect()
    }

    fn round_trips(&self) -> Result<Vec<Duration>> {
        let all: &[f64] = match self.rtt.as_slice() {
            [] if self.quick => &[0.0, 10.0],
            [] => &[0.0, 2.0, 10.0, 50.0],
            given => given,
        };
        let duration = |ms: &f64| {
            let time = Duration::try_from_secs_f64(ms / 1e3).ok().filter(|time| *time <= Duration::from_secs(10));
            time.with_context(|| format!("--rtt {ms} is not a round trip; write milliseconds from 0 to 10000"))
        };
        all.iter().map(duration).collect()
    }

    async fn distance(&self) -> Result<()> {
        let plan = DistancePlan {
            rounds: self.rounds(3),
            rows: self.rows(),
            round_trips: self.round_trips()?,
            paced_for: Duration::from_secs(if self.quick { 2 } else { 4 }),
            latency_of_updates: !self.quick,
            until: self.until(),
        };
        let servers = self.servers(&[DatabaseName::Postgres, DatabaseName::Mysql])?;
        let distance = bench::distance(&plan, &servers).await?;
        println!("{}", distance.tables());
        self.write(&distance, &distance.page(), "target/bench-distance.html")
    }

    async fn scale(&self) -> Result<()> {
        let plan = ScalePlan {
            rounds: self.rounds(3),
            rows: self.rows() * 10,
            server_rows: self.rows(),
            quick: self.quick,
            busy_for: Duration::from_secs(if self.quick { 2 } else { 4 }),
            until: self.until(),
        };
        let scale = bench::scale(&plan, &self.servers(&[])?).await?;
        println!("{}", scale.tables());
        self.write(&scale, &scale.page(), "target/bench-scale.html")
    }

    /// The groups that are measured on each database that is named.
    async fn on_request(&self, group: Group) -> Result<()> {
        let plan = Plan { rounds: self.rounds(3), rows: self.rows() };
        let names = if self.db.is_empty() { vec![DatabaseName::Sqlite] } else { DatabaseChoice::names_of(&self.db) };
        let mut figures = Vec::new();
        for name in names {
            let database: Box<dyn Database> = match name {
                DatabaseName::Sqlite => Box::new(Sqlite::open(None)?),
                DatabaseName::Postgres => Box::new(Postgres::open(name.needed(&self.postgres_dsn)?).await?),
                DatabaseName::Mysql => {
                    let mysql = MySql::open(name.needed(&self.mysql_dsn)?).await?;
                    if group == Group::Durable {
                        mysql.keep_commits().await?;
                    }
                    Box::new(mysql)
                }
                DatabaseName::Redis if group == Group::Rules => {
                    anyhow::bail!("redis has no such rules; use --db postgres,mysql,sqlite")
                }
                DatabaseName::Redis => Box::new(Redis::open(name.needed(&self.redis_dsn)?).await?),
            };
            figures.extend(match group {
                Group::Durable => bench::durable(plan, name, &*database).await?,
                _ => bench::rules(plan, name, &*database).await?,
            });
        }
        println!("{}", bench::table(&figures));
        self.write_json(&figures)
    }

    async fn arrow(&self) -> Result<()> {
        let plan = Plan { rounds: self.rounds(5), rows: self.rows() };
        let mut figures = bench::arrow(plan, None).await?;
        for name in DatabaseChoice::names_of(&self.db) {
            let database: Box<dyn Database> = match name {
                DatabaseName::Sqlite => Box::new(Sqlite::open(None)?),
                DatabaseName::Postgres => Box::new(Postgres::open(name.needed(&self.postgres_dsn)?).await?),
                DatabaseName::Mysql => Box::new(MySql::open(name.needed(&self.mysql_dsn)?).await?),
                DatabaseName::Redis => Box::new(Redis::open(name.needed(&self.redis_dsn)?).await?),
            };
            figures.extend(bench::arrow(plan, Some((name, &*database))).await?);
        }
        println!("{}", bench::table(&figures));
        self.write_json(&figures)
    }

    async fn load(&self) -> Result<()> {
        let rows = self.rows.unwrap_or(if self.quick { 200_000 } else { 5_000_000 });
        let plan = Plan { rounds: self.rounds(3), rows };
        let program = self.program.clone().context("which program? Use cargo xtask bench load, or --program FILE")?;
        let all = [DatabaseName::Postgres, DatabaseName::Mysql, DatabaseName::Sqlite];
        let names = if self.db.is_empty() { all.to_vec() } else { DatabaseChoice::names_of(&self.db) };
        let mut places = Vec::new();
        for name in names {
            places.push(match name {
                DatabaseName::Postgres => Place::postgres(name.needed(&self.postgres_dsn)?).await?,
                DatabaseName::Mysql => Place::mysql(name.needed(&self.mysql_dsn)?).await?,
                DatabaseName::Sqlite => Place::sqlite()?,
                DatabaseName::Redis => anyhow::bail!("redis loads no files; use --db postgres,mysql,sqlite"),
            });
        }
        let figures = bench::load(plan, program, &places).await?;
        println!("{}", bench::table(&figures));
        self.write_json(&figures)
    }

    async fn outage(&self) -> Result<()> {
        let database = match *DatabaseChoice::names_of(&self.db) {
            [] => DatabaseName::Postgres,
            [name] => name,
            _ => anyhow::bail!("the outage group measures one database, because the memory of the program is a figure"),
        };
        let plan = OutagePlan { database, bytes: self.bytes, exactly_once: self.exactly_once };
        let outage = tokio::select! {
            outage = bench::outage(plan) => outage?,
            // What is dropped then stops the server and removes the files.
            () = interruption() => anyhow::bail!("interrupted"),
        };
        println!("{outage}");
        self.write_json(&outage)?;
        match outage.wrong() {
            Some(wrong) => anyhow::bail!(wrong),
            None => Ok(()),
        }
    }

    fn write(&self, figures: &impl Serialize, page: &Page, default: &str) -> Result<()> {
        self.write_json(figures)?;
        let file = self.html.as_deref().unwrap_or(Path::new(default));
        page.write(file)?;
        println!("{}", file.display());
        Ok(())
    }

    fn write_json(&self, figures: &impl Serialize) -> Result<()> {
        let Some(file) = &self.json else { return Ok(()) };
        let json = serde_json::to_string_pretty(figures)?;
        std::fs::write(file, json).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// A number of bytes: `5GiB`, `200MiB`, `4096`.
fn bytes(text: &str) -> Result<u64, String> {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let (number, shift) =
        units.into_iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift))).unwrap_or((text, 0));
    let bytes = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "write a number of bytes, for example 5GiB or 200MiB".to_owned())
}

/// Ctrl-C, or a request to end.
async fn interruption() {
    use tokio::signal::unix::{SignalKind, signal};

    let signals = signal(SignalKind::interrupt()).and_then(|first| Ok((first, signal(SignalKind::terminate())?)));
    match signals {
        Ok((mut interrupt, mut terminate)) => tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        },
        // Then a signal ends this program at once.
        Err(_) => std::future::pending().await,
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let (rounds, rows) = (options.rounds(5), options.rows());
    anyhow::ensure!(rounds > 0 && rows > 0, "--rounds and --rows must be at least 1");
    match options.group {
        Some(Group::Distance) => return options.distance().await,
        Some(Group::Scale) => return options.scale().await,
        Some(Group::Load) => return options.load().await,
        Some(Group::Arrow) => return options.arrow().await,
        Some(Group::Outage) => return options.outage().await,
        Some(group @ (Group::Rules | Group::Durable)) => return options.on_request(group).await,
        _ => {}
    }
    let mut figures = Vec::new();
    let wants = |group| options.group.is_none_or(|wanted| wanted == group);
    if wants(Group::Overhead) {
        figures.extend(bench::overhead(Plan { rounds, rows: rows * 10 }).await?);
    }
    if wants(Group::Database) {
        let names =
            if options.db.is_empty() { vec![DatabaseName::Sqlite] } else { DatabaseChoice::names_of(&options.db) };
        for name in names {
            figures.extend(options.database(name, Plan { rounds, rows }).await?);
        }
    }
    if wants(Group::Poison) {
        println!("{}", bench::poison(rounds).await?);
    }
    if wants(Group::Scrape) {
        println!("{}", bench::scrape(rounds.max(SCRAPES)).await?);
    }
    if !figures.is_empty() {
        println!("{}", bench::table(&figures));
    }
    options.write_json(&figures)
}
