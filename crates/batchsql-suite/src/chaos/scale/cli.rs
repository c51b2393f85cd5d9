//! Owns the command line of the scale proof.
//! Must not know how runs are carried out.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use super::faults::Fault;
use super::job::Sabotage;
use crate::database::DatabaseChoice;

/// Workers on a JetStream: rows per second over the number of workers, and no row lost or doubled while they are killed.
#[derive(Debug, Clone, Parser)]
#[command(name = "batchsql-scale", version, max_term_width = 100, args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    pub(super) program: Option<Program>,

    /// Databases, separated by commas; all means every one but SQLite, which one process writes
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "NAME")]
    pub db: Vec<DatabaseChoice>,

    /// Numbers of workers, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: Vec<u32>,

    /// Fewer rows, and faults for 20 seconds with 2 and 8 workers; ends within 10 minutes
    #[arg(long)]
    pub quick: bool,

    /// Rows of a measurement. Default: 1,000,000, with --quick 200,000
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1000..))]
    pub rows: Option<u32>,

    /// How often each number of workers is measured, in turn; the report has the medians
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,

    /// How long there are faults. Default: 1m, with --quick 20s
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    pub faults: Option<Duration>,

    /// Faults, separated by commas; default: all of them
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    pub fault: Vec<Fault>,

    /// A defect on purpose, to see that the checker finds it; only in the runs with faults
    #[arg(long, value_enum, hide = true)]
    pub sabotage: Option<Sabotage>,

    /// Only the runs with faults, and no measurements
    #[arg(long)]
    pub faults_only: bool,

    /// Decides the faults and their times; default: a new one, which is printed
    #[arg(long)]
    pub seed: Option<u64>,

    /// Folder for scale.json
    #[arg(long, default_value = "scale-report", value_name = "DIR")]
    pub report_dir: PathBuf,
}

/// What this program is besides the conductor.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum Program {
    /// A worker; started by the conductor
    #[command(hide = true)]
    Writer {
        /// The file with its job
        job: PathBuf,
    },
}

impl Options {
    pub(super) fn rows(&self) -> u32 {
        self.rows.unwrap_or(if self.quick { 200_000 } else { 1_000_000 })
    }

    pub(super) fn faults(&self) -> Duration {
        self.faults.unwrap_or(Duration::from_secs(if self.quick { 20 } else { 60 }))
    }

    /// The kinds of faults, each once.
    pub(super) fn kinds(&self) -> Vec<Fault> {
        let is_meant = |fault: &Fault| self.fault.is_empty() || self.fault.contains(fault);
        Fault::ALL.into_iter().filter(is_meant).collect()
    }

    /// The command that repeats this, with its seed.
    pub(super) fn command(&self, seed: u64) -> String {
        let databases: Vec<_> = DatabaseChoice::names_of(&self.db).iter().map(|database| database.name()).collect();
        let workers: Vec<_> = self.workers.iter().map(u32::to_string).collect();
        let kinds: Vec<_> = self.fault.iter().map(|fault| fault.name()).collect();
        let kinds = if kinds.is_empty() { String::new() } else { format!(" --fault {}", kinds.join(",")) };
        let flags = [("--faults-only", self.faults_only), ("--quick", self.quick)];
        let flags: String = flags.iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| format!(" {flag}")).collect();
        format!(
            "cargo xtask scale --db {} --workers {} --rows {} --rounds {} --faults {}{kinds}{flags} --seed {seed}",
            databases.join(","),
            workers.join(","),
            self.rows(),
            self.rounds,
            humantime::format_duration(self.faults())
        )
    }

    /// The numbers of workers of the runs with faults.
    pub(super) fn workers_with_faults(&self) -> Vec<u32> {
        if !self.quick {
            return self.workers.clone();
        }
        let mut some: Vec<u32> = self.workers.iter().copied().filter(|workers| matches!(workers, 2 | 8)).collect();
        if some.is_empty() {
            some.extend(self.workers.first());
        }
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> Result<Options, clap::Error> {
        Options::try_parse_from(["scale"].iter().chain(words))
    }

    #[test]
    fn quick_has_fewer_rows_and_faults() {
        let all = options(&[]).unwrap();
        assert_eq!(
            (all.rows(), all.faults(), all.workers_with_faults()),
            (1_000_000, Duration::from_secs(60), vec![1, 2, 4, 8])
        );
        let quick = options(&["--quick"]).unwrap();
        assert_eq!(
            (quick.rows(), quick.faults(), quick.workers_with_faults()),
            (200_000, Duration::from_secs(20), vec![2, 8])
        );
        assert_eq!(options(&["--quick", "--workers", "3,5"]).unwrap().workers_with_faults(), [3]);
        assert_eq!(options(&["--quick", "--rows", "5000", "--faults", "1m"]).unwrap().rows(), 5_000);
    }

    #[test]
    fn the_command_repeats_the_options() {
        let given = ["--db", "postgres", "--workers", "2", "--fault", "worker-paused,worker-killed", "--faults-only"];
        for given in [&given[..], &["--quick", "--faults", "0s"]] {
            let first = options(given).unwrap();
            let command = first.command(7);
            let words: Vec<&str> = command.strip_prefix("cargo xtask scale ").unwrap().split(' ').collect();
            let again = options(&words).unwrap();
            assert_eq!((again.command(7), again.seed), (command, Some(7)));
            assert_eq!((again.kinds(), again.faults_only), (first.kinds(), first.faults_only));
        }
        assert_eq!(options(&[]).unwrap().kinds(), Fault::ALL);
        assert_eq!(options(&given).unwrap().kinds(), [Fault::WorkerKilled, Fault::WorkerPaused]);
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        for words in
            [["--workers", "0"], ["--workers", "65"], ["--rows", "10"], ["--faults", "soon"], ["--fault", "none"]]
        {
            assert!(options(&words).is_err(), "{words:?}");
        }
    }
}
