//! Owns all runs of a command: the servers, the runs of each database one after the other, and the report.
//! Must not know how a run is carried out.

use anyhow::{Context, Result};
use tokio::task::spawn_blocking;

use super::cli::{Options, Program};
use super::conductor::{self, Done};
use super::faults::{self, Timed};
use super::job::exactly_once;
use super::measure::{self, PARTITIONS};
use super::results::{Entry, Measured, Results};
use super::servers::Servers;
use super::worker;
use crate::bench::median;
use crate::database::{DatabaseChoice, DatabaseName};
use crate::tell::tell;

/// Does what the options say; false if a row is lost, or doubled where it must not be, or a run was not carried out.
///
/// # Errors
/// The report cannot be written, or no database is left. A run that cannot be carried out is part of the report.
pub async fn run(options: Options) -> Result<bool> {
    if let Some(Program::Writer { job }) = &options.program {
        return worker::run(job).await.map(|()| true);
    }
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..u64::from(u32::MAX)));
    let mut databases = DatabaseChoice::names_of(&options.db);
    databases.retain(|database| *database != DatabaseName::Sqlite);
    anyhow::ensure!(!databases.is_empty(), "SQLite is written by one process; name postgres, mysql or redis");
    tell(format_args!("seed {seed}"));
    let mut results = Vec::new();
    // One after the other: they share the processors, and rows per second are measured.
    for database in databases {
        match Servers::start(database).await {
            Ok(servers) => {
                results.extend(of_database(&servers, &options, seed).await);
                // It waits for the end of the servers.
                let _ = spawn_blocking(move || drop(servers)).await;
            }
            Err(error) => results.push(failed(entry(database, 0), &error)),
        }
    }
    let command = options.command(seed);
    let results = Results { seed, command, partitions: PARTITIONS, results };
    let folder = &options.report_dir;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    results.write(folder)?;
    println!("{results}");
    println!("to repeat: {}", results.command);
    println!("report: {}", folder.join("scale.json").display());
    Ok(results.passed())
}

async fn of_database(servers: &Servers, options: &Options, seed: u64) -> Vec<Entry> {
    let entries = if options.faults_only { Vec::new() } else { measured(servers, options).await };
    let of_faults = with_faults(servers, options, seed).await;
    entries.into_iter().chain(of_faults).collect()
}

/// Rows per second of each number of workers, and from memory.
async fn measured(servers: &Servers, options: &Options) -> Vec<Entry> {
    let (database, rows) = (servers.database, options.rows());
    let workers = std::iter::once(0).chain(options.workers.iter().copied());
    let mut series: Vec<Series> = workers.map(Series::new).collect();
    // Interleaved, so that a slow minute of the machine does not hit one number of workers alone.
    for round in 1..=options.rounds {
        for series in series.iter_mut().filter(|series| series.error.is_none()) {
            let found = match series.workers {
                0 => measure::from_memory(servers, rows).await,
                workers => measure::of_workers(servers, workers, rows).await,
            };
            if let Ok(Measured { rate, .. }) = &found {
                let name = database.name();
                tell(format_args!("{name}, round {round}: {rate:.0} rows/s {}", series.label()));
            }
            series.add(found);
        }
    }
    let memory = series[0].rounds.clone();
    series.into_iter().map(|series| series.entry(database, &memory)).collect()
}

/// What is in the tables after faults, with each number of workers.
async fn with_faults(servers: &Servers, options: &Options, seed: u64) -> Vec<Entry> {
    let (database, mut entries) = (servers.database, Vec::new());
    for workers in options.workers_with_faults() {
        let faults = faults::plan(&options.kinds(), options.faults(), seed.wrapping_add(workers.into()));
        let found = conductor::run(servers, workers, (&faults, seed), options.sabotage).await;
        let with_faults = Entry {
            faults: faults.iter().map(|Timed { fault, .. }| fault.name()).collect(),
            ..entry(database, workers)
        };
        let done = match found {
            Ok(done) => compared(with_faults, &done),
            Err(error) => failed(with_faults, &error),
        };
        let verdict = if done.passed() { "passed" } else { "FAILED" };
        tell(format_args!("{verdict} {} with {workers} workers and {} faults", database.name(), faults.len()));
        entries.push(done);
    }
    entries
}

/// What the rounds of one number of workers measured.
#[derive(Debug)]
struct Series {
    /// 0: a pipeline in one process that is fed from memory.
    workers: u32,
    rounds: Vec<Measured>,
    error: Option<anyhow::Error>,
}

impl Series {
    fn new(workers: u32) -> Self {
        Self { workers, rounds: Vec::new(), error: None }
    }

    fn label(&self) -> String {
        match self.workers {
            0 => "from memory".to_owned(),
            workers => format!("with {workers} workers"),
        }
    }

    /// After an error there are no more rounds.
    fn add(&mut self, round: anyhow::Result<Measured>) {
        match round {
            Ok(measured) => self.rounds.push(measured),
            Err(error) => self.error = Some(error),
        }
    }

    /// The sums of all rounds, the median of their rates, and that of the ratios to the round from memory beside it.
    fn entry(&self, database: DatabaseName, memory: &[Measured]) -> Entry {
        let sum = |of: fn(&Measured) -> u64| self.rounds.iter().map(of).sum();
        let of_memory = self.rounds.iter().zip(memory).map(|(round, memory)| round.rate / memory.rate);
        let entry = Entry {
            rows: sum(|round| round.rows),
            lost: sum(|round| round.lost),
            doubled: sum(|round| round.doubled),
            rows_per_s: middle(self.rounds.iter().map(|round| round.rate)),
            of_memory: middle(of_memory).filter(|_| self.workers > 0),
            ..entry(database, self.workers)
        };
        match (&self.error, self.workers) {
            (Some(error), _) => failed(entry, error),
            (None, 0) => Entry { guarantee: "in memory", ..entry },
            (None, _) => entry,
        }
    }
}

/// `None` if there is none.
fn middle(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let numbers: Vec<f64> = numbers.collect();
    (!numbers.is_empty()).then(|| median(numbers))
}

fn entry(database: DatabaseName, workers: u32) -> Entry {
    let once = exactly_once(database);
    Entry {
        database,
        workers,
        guarantee: if once { "exactly once" } else { "at least once" },
        faults: Vec::new(),
        takeovers: None,
        rows: 0,
        lost: 0,
        doubled: 0,
        may_double: !once,
        rows_per_s: None,
        of_memory: None,
        violations: 0,
        details: Vec::new(),
        error: None,
    }
}

fn compared(entry: Entry, Done { checked, takeovers }: &Done) -> Entry {
    let doubled = checked.doubled + checked.of(crate::chaos::check::Wrong::Doubled);
    Entry {
        takeovers: *takeovers,
        rows: checked.rows,
        lost: checked.of(crate::chaos::check::Wrong::Lost),
        doubled,
        violations: checked.count,
        details: checked.violations.iter().map(ToString::to_string).collect(),
        ..entry
    }
}

fn failed(entry: Entry, error: &anyhow::Error) -> Entry {
    Entry { error: Some(format!("not carried out: {error:#}")), ..entry }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(workers: u32, rates: &[f64]) -> Series {
        let rounds = rates.iter().map(|rate| Measured { rows: 10, lost: 0, doubled: 1, rate: *rate }).collect();
        Series { workers, rounds, error: None }
    }

    #[test]
    fn rounds_become_one_entry() {
        let memory = series(0, &[100.0, 300.0, 200.0]);
        let entry = series(2, &[50.0, 300.0, 120.0]).entry(DatabaseName::Postgres, &memory.rounds);
        assert_eq!((entry.rows, entry.doubled, entry.rows_per_s, entry.of_memory), (30, 3, Some(120.0), Some(0.6)));
        let entry = memory.entry(DatabaseName::Postgres, &memory.rounds);
        assert_eq!((entry.guarantee, entry.rows_per_s, entry.of_memory), ("in memory", Some(200.0), None));
    }

    #[test]
    fn a_round_that_fails_is_reported_with_what_was_measured_before() {
        let mut series = series(1, &[100.0]);
        series.add(Err(anyhow::anyhow!("no connection")));
        let entry = series.entry(DatabaseName::Mysql, &[]);
        assert_eq!((entry.rows, entry.rows_per_s, entry.of_memory), (10, Some(100.0), None));
        assert!(!entry.passed() && entry.error.unwrap().contains("no connection"));
    }
}
