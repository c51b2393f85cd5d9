//! Owns the command line of chaos.
//! Must not know how runs are carried out.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::fault::Fault;
use super::job::{Pool, Sabotage};
use crate::database::DatabaseChoice;

/// Causes faults on real servers under load, and checks that every row ended as it was reported.
#[derive(Debug, Clone, Parser)]
#[command(name = "batchsql-chaos", version, max_term_width = 100, args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    pub(super) program: Option<Program>,

    /// Databases, separated by commas; all means every one
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "NAME")]
    pub db: Vec<DatabaseChoice>,

    /// Faults, separated by commas; default: all that a database has
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    pub fault: Vec<Fault>,

    /// Every fault once with a small load; ends within 10 minutes
    #[arg(long)]
    pub quick: bool,

    /// The seed of everything that is random; default: a new one, which is printed
    #[arg(long)]
    pub seed: Option<u64>,

    /// Runs of each fault on each database. Default: 3, with --quick 1
    #[arg(long, value_name = "N")]
    pub runs: Option<u32>,

    /// Rows per second of each writer. Default: 900, with --quick 450
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,

    /// Several faults in a run, at random times, in place of one
    #[arg(long)]
    pub mixed: bool,

    /// Rows are accepted by the durable intake
    #[arg(long)]
    pub durable: bool,

    /// Rows are accepted by the durable intake, and written exactly once; not on Redis
    #[arg(long)]
    pub exactly_once: bool,

    /// Rows without a key are written again after a lost reply (`Delivery::AtLeastOnce`), and counted
    #[arg(long)]
    pub at_least_once: bool,

    /// A defect on purpose, to see that the checker finds it
    #[arg(long, value_enum, hide = true)]
    pub sabotage: Option<Sabotage>,

    /// Each writer runs in a network namespace, and a silence drops packets there, so that the system sends them again. It needs
    /// root, and the programs ip, tc, unshare and nsenter
    #[arg(long)]
    pub namespace: bool,

    /// Whose pool is used. Default: the seed decides
    #[arg(long, value_enum)]
    pub pool: Option<Pool>,

    /// Folder for chaos.html and chaos.json
    #[arg(long, default_value = "chaos-report", value_name = "DIR")]
    pub report_dir: PathBuf,
}

/// What this program is besides the conductor.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum Program {
    /// A writer; started by the conductor
    #[command(hide = true)]
    Writer {
        /// The file with its job
        job: PathBuf,
    },
}

impl Options {
    pub(super) fn runs(&self) -> u32 {
        self.runs.unwrap_or(if self.quick { 1 } else { 3 })
    }

    /// Rows per second of a writer. A debug build on a busy machine can do the default for four databases at the same time.
    pub(super) fn rows_per_second(&self) -> u32 {
        self.rate.unwrap_or(if self.quick { 450 } else { 900 })
    }

    /// The command that repeats this, with its seed.
    pub(super) fn command(&self, seed: u64) -> String {
        let names = |option: &str, names: Vec<String>| {
            if names.is_empty() { String::new() } else { format!(" {option} {}", names.join(",")) }
        };
        let choice = |choice: &DatabaseChoice| clap::ValueEnum::to_possible_value(choice);
        let databases = self.db.iter().filter_map(choice).map(|value| value.get_name().to_owned()).collect();
        let faults = self.fault.iter().map(|fault| fault.name()).collect();
        let flags = [
            ("--quick", self.quick),
            ("--mixed", self.mixed),
            ("--durable", self.durable),
            ("--exactly-once", self.exactly_once),
            ("--at-least-once", self.at_least_once),
            ("--namespace", self.namespace),
        ];
        let flags: String = flags.iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| format!(" {flag}")).collect();
        let pool = self.pool.and_then(|pool| clap::ValueEnum::to_possible_value(&pool));
        let pool = pool.map_or_else(String::new, |value| format!(" --pool {}", value.get_name()));
        let rate = self.rate.map_or_else(String::new, |rate| format!(" --rate {rate}"));
        let runs = self.runs();
        format!(
            "cargo xtask chaos{}{}{flags}{pool}{rate} --runs {runs} --seed {seed}",
            names("--db", databases),
            names("--fault", faults)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_repeats_the_options() {
        let given = [
            "--db",
            "mysql,redis",
            "--fault",
            "half-open,delay-5s",
            "--durable",
            "--namespace",
            "--pool",
            "user",
            "--quick",
            "--rate",
            "90",
        ];
        let options = Options::try_parse_from(["chaos"].into_iter().chain(given)).unwrap();
        let command = options.command(9);
        let words = command.strip_prefix("cargo xtask chaos ").unwrap().split(' ');
        let again = Options::try_parse_from(["chaos"].into_iter().chain(words)).unwrap();
        assert_eq!((again.seed, again.runs, again.pool), (Some(9), Some(1), Some(Pool::User)));
        assert_eq!((again.db, again.fault, again.durable, again.rate), (options.db, options.fault, true, Some(90)));
    }
}
