//! Owns all runs of a command: the servers, the runs of each database one after the other, and the report.
//! Must not know how a run is carried out.

use anyhow::{Context, Result};
use tokio::task::spawn_blocking;

use super::cli::{Options, Program};
use super::faults::{self, Timed};
use super::job::exactly_once;
use super::measure::{self, PARTITIONS};
use super::results::{Entry, Measured, Results};
use super::servers::Servers;
use super::{conductor, worker};
use crate::chaos::check::Checked;
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
    let names: Vec<_> = DatabaseChoice::names_of(&options.db).iter().map(|database| database.name()).collect();
    let workers: Vec<_> = options.workers.iter().map(u32::to_string).collect();
    let command = format!(
        "cargo xtask scale --db {} --workers {} --rows {} --faults {}{} --seed {seed}",
        names.join(","),
        workers.join(","),
        options.rows(),
        humantime::format_duration(options.faults()),
        if options.quick { " --quick" } else { "" }
    );
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
    let (database, rows) = (servers.database, options.rows());
    let mut entries = Vec::new();
    let memory = match measure::from_memory(servers, rows).await {
        Ok(rate) => {
            tell(format_args!("{}: {rate:.0} rows/s from memory", database.name()));
            entries.push(Entry {
                rows: rows.into(),
                rows_per_s: Some(rate),
                guarantee: "in memory",
                ..entry(database, 0)
            });
            Some(rate)
        }
        Err(error) => {
            entries.push(failed(entry(database, 0), &error));
            None
        }
    };
    for workers in &options.workers {
        let found = measure::of_workers(servers, *workers, rows).await;
        let name = database.name();
        entries.push(match found {
            Ok(found) => {
                tell(format_args!("{name}: {:.0} rows/s with {workers} workers", found.rate));
                measured(entry(database, *workers), found, memory)
            }
            Err(error) => failed(entry(database, *workers), &error),
        });
    }
    for workers in options.workers_with_faults() {
        let faults = faults::plan(options.faults(), seed.wrapping_add(workers.into()));
        let found = conductor::run(servers, workers, &faults, seed).await;
        let with_faults = Entry {
            faults: faults.iter().map(|Timed { fault, .. }| fault.name()).collect(),
            ..entry(database, workers)
        };
        let done = match found {
            Ok(checked) => compared(with_faults, &checked),
            Err(error) => failed(with_faults, &error),
        };
        let verdict = if done.passed() { "passed" } else { "FAILED" };
        tell(format_args!("{verdict} {} with {workers} workers and {} faults", database.name(), faults.len()));
        entries.push(done);
    }
    entries
}

fn entry(database: DatabaseName, workers: u32) -> Entry {
    let once = exactly_once(database);
    Entry {
        database,
        workers,
        guarantee: if once { "exactly once" } else { "at least once" },
        faults: Vec::new(),
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

fn measured(entry: Entry, found: Measured, memory: Option<f64>) -> Entry {
    let Measured { rows, lost, doubled, rate } = found;
    Entry { rows, lost, doubled, rows_per_s: Some(rate), of_memory: memory.map(|memory| rate / memory), ..entry }
}

fn compared(entry: Entry, checked: &Checked) -> Entry {
    let doubled = checked.doubled + checked.of(crate::chaos::check::Wrong::Doubled);
    Entry {
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
