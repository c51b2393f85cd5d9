//! Owns the command line and environment of the suite, and their check.
//! Must not know how cases run.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use batchsql::PipelineConfig;
use clap::{Parser, ValueEnum};

use crate::cases::CaseName;
use crate::database::{DatabaseChoice, DatabaseName};

/// Runs the BatchSQL integration and load cases against real databases, serves live metrics while they
/// run, and writes report.html, report.json and junit.xml.
#[derive(Debug, Clone, Parser)]
#[command(name = "batchsql-suite", version, max_term_width = 100)]
pub struct Options {
    /// Databases to run against, separated by commas; all means every one
    #[arg(long, value_delimiter = ',', default_value = "sqlite", value_name = "NAME")]
    pub db: Vec<DatabaseChoice>,

    /// Case to run, repeatable; default: all cases
    #[arg(long = "case", value_enum, value_name = "NAME")]
    pub cases: Vec<CaseName>,

    /// Time limit for submitting the rows of one case, for example 90s or 30m
    #[arg(long, env = "TEST_DURATION", default_value = "30m", value_parser = positive_duration)]
    pub duration: Duration,

    /// Tasks that submit rows at the same time
    #[arg(long, env = "CONCURRENT_WORKERS", default_value = "10", value_parser = positive)]
    pub workers: usize,

    /// Rows that each of these tasks submits
    #[arg(long, env = "RECORDS_PER_WORKER", default_value = "20000", value_parser = positive)]
    pub records_per_worker: usize,

    /// Rows after which a batch is written
    #[arg(long, env = "BATCH_SIZE", default_value = "500", value_parser = positive)]
    pub batch_size: usize,

    /// Rows that may wait or be written at the same time
    #[arg(long, env = "BUFFER_SIZE", default_value = "10000", value_parser = positive)]
    pub buffer_size: usize,

    /// Age at which a batch is written even if it is not full
    #[arg(long, env = "FLUSH_INTERVAL", default_value = "100ms", value_parser = duration)]
    pub flush_interval: Duration,

    /// Port on which /metrics is served while the suite runs; 0 lets the system choose
    #[arg(long, env = "PROMETHEUS_PORT", default_value = "9090")]
    pub metrics_port: u16,

    /// Addresses on which /metrics is served, separated by commas; 0.0.0.0 means every one
    #[arg(long, env = "METRICS_BIND", default_value = "127.0.0.1", value_delimiter = ',', value_name = "ADDRESS")]
    pub metrics_bind: Vec<IpAddr>,

    /// Time limit at the end for a Prometheus to scrape the last values; 0 for no wait. There is also no wait if no
    /// Prometheus has scraped
    #[arg(long, env = "LINGER", default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub linger: Duration,

    /// A Prometheus will scrape: wait for its first scrape before the first case, and for its last ones at the end
    /// even if it has not scraped yet; the limit of each wait is --linger
    #[arg(long)]
    pub watched: bool,

    /// Folder for report.html, report.json and junit.xml
    #[arg(long, default_value = "batchsql-report")]
    pub report_dir: PathBuf,

    /// SQLite database to use instead of a temporary file, for example sqlite::memory: or
    /// sqlite:suite.db; tables named batchsql_suite_* in it are dropped
    #[arg(long, env = "SQLITE_DSN", hide_env_values = true)]
    pub sqlite_dsn: Option<String>,

    /// PostgreSQL server, for example postgres://user:password@host/database; tables named
    /// batchsql_suite_* in it are dropped
    #[arg(long, env = "POSTGRES_DSN", hide_env_values = true)]
    pub postgres_dsn: Option<String>,

    /// MySQL or MariaDB server, for example mysql://user:password@host/database; tables named
    /// batchsql_suite_* in it are dropped
    #[arg(long, env = "MYSQL_DSN", hide_env_values = true)]
    pub mysql_dsn: Option<String>,

    /// Redis server, for example redis://host:6379; keys named batchsql_suite_* in it are deleted
    #[arg(long, env = "REDIS_DSN", hide_env_values = true)]
    pub redis_dsn: Option<String>,
}

impl Options {
    /// The pipeline settings of these options.
    ///
    /// # Errors
    /// The sizes contradict each other; the message says what to do.
    pub fn pipeline_config(&self) -> anyhow::Result<PipelineConfig> {
        anyhow::ensure!(
            self.batch_size <= self.buffer_size,
            "--batch-size {} is above --buffer-size {}; raise --buffer-size or lower --batch-size",
            self.batch_size,
            self.buffer_size
        );
        let config = PipelineConfig::default()
            .buffer_size(self.buffer_size)
            .flush_size(self.batch_size)
            .flush_interval(self.flush_interval);
        config.validate()?;
        Ok(config)
    }

    /// The cases to run, each once; default: all.
    pub fn selected_cases(&self) -> Vec<CaseName> {
        if self.cases.is_empty() {
            return CaseName::value_variants().to_vec();
        }
        each_once(self.cases.iter().copied())
    }

    /// The databases to run against, each once.
    pub fn selected_databases(&self) -> Vec<DatabaseName> {
        DatabaseChoice::names_of(&self.db)
    }
}

fn each_once<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut once = Vec::new();
    for item in items {
        if !once.contains(&item) {
            once.push(item);
        }
    }
    once
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("not a whole number".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 100ms, 90s or 30m"))
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|time| if time.is_zero() { Err("must be above zero".to_owned()) } else { Ok(time) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options, clap::Error> {
        Options::try_parse_from(std::iter::once(&"batchsql-suite").chain(args))
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let options = parse(&[]).unwrap();
        assert_eq!(options.duration, Duration::from_secs(1800));
        assert_eq!((options.workers, options.records_per_worker), (10, 20_000));
        assert_eq!((options.batch_size, options.buffer_size), (500, 10_000));
        assert_eq!((options.flush_interval, options.metrics_port), (Duration::from_millis(100), 9090));
        assert_eq!(options.metrics_bind, [IpAddr::from([127, 0, 0, 1])]);
        assert_eq!((options.linger, options.watched), (Duration::from_secs(30), false));
        assert_eq!(options.selected_cases().len(), 10);
        assert_eq!(options.selected_databases(), [DatabaseName::Sqlite]);
    }

    #[test]
    fn bad_options_say_what_is_wrong() {
        let check = |args: &[&str], part: &str| {
            let message = parse(args).unwrap_err().to_string();
            assert!(message.contains(part), "{message:?} does not contain {part:?}");
        };
        check(&["--workres", "3"], "--workers");
        check(&["--case", "hihg_throughput"], "high_throughput");
        check(&["--db", "oracle"], "sqlite");
        check(&["--workers", "0"], "at least 1");
        check(&["--batch-size", "many"], "not a whole number");
        check(&["--duration", "0s"], "above zero");
        check(&["--duration", "soon"], "write it like");
        check(&["--metrics-port", "70000"], "70000");
        check(&["--metrics-bind", "localhost"], "localhost");
        check(&["--linger", "30"], "write it like");
        let options = parse(&["--batch-size", "600", "--buffer-size", "500"]).unwrap();
        let message = options.pipeline_config().unwrap_err().to_string();
        assert!(message.contains("raise --buffer-size"), "{message}");
    }

    #[test]
    fn no_lingering_is_written_as_nought() {
        assert_eq!(parse(&["--linger", "0"]).unwrap().linger, Duration::ZERO);
        assert_eq!(parse(&["--linger", "0s"]).unwrap().linger, Duration::ZERO);
    }

    #[test]
    fn databases_are_named_one_by_one_or_all_at_once() {
        let check = |db: &str, expected: &[DatabaseName]| {
            assert_eq!(parse(&["--db", db]).unwrap().selected_databases(), expected, "{db}");
        };
        check("all", &DatabaseName::ALL);
        check("redis,sqlite", &[DatabaseName::Redis, DatabaseName::Sqlite]);
        check(
            "postgres,all",
            &[DatabaseName::Postgres, DatabaseName::Sqlite, DatabaseName::Mysql, DatabaseName::Redis],
        );
    }

    #[test]
    fn a_case_asked_for_twice_runs_once() {
        let options = parse(&["--case", "large_batch", "--case", "large_batch"]).unwrap();
        assert_eq!(options.selected_cases(), [CaseName::LargeBatch]);
    }
}
