//! Owns the command line.
//! Must not know what commands do.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Rows from HTTP, files and standard input into PostgreSQL, MySQL, MariaDB, SQLite or Redis, in batches.
#[derive(Debug, Parser)]
#[command(
    name = "batchsql",
    version,
    after_help = "Exit codes:
  0  everything is as it should be
  1  a check has found something, rows were not written, or a log is damaged
  2  the command line or the configuration is wrong; nothing was done
  3  a database, a file, a folder or a port could not be used
  4  rows wait in the durable intake for the next start

Examples:
  batchsql check batchsql.toml
  batchsql run batchsql.toml
  curl -H 'Content-Type: application/x-ndjson' --data-binary @rows.ndjson \\
       http://127.0.0.1:8080/v1/tables/orders/rows"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read rows from HTTP and other sources, and write them, until SIGTERM or SIGINT
    #[command(after_help = "Examples:
  batchsql run batchsql.toml
  RUST_LOG=batchsql=debug batchsql run batchsql.toml

At the end no more rows are accepted, and those that were are written, for at most run.drain_for. A second signal ends
the wait.

Exit codes: 0 all rows were written, 1 some were not, 2 the file is wrong, 3 something cannot be reached, 4 rows wait in
the durable intake for the next start.")]
    Run {
        /// The configuration, a TOML file
        config: PathBuf,
    },
    /// Check everything that can be known before the first row; no row is written
    #[command(after_help = "Examples:
  batchsql check batchsql.toml             the file, its files and ports, the database and its tables
  batchsql check batchsql.toml --offline   without the database and ports: for a pipeline of CI
  batchsql check batchsql.toml --json      for a script

Exit codes: 0 ready, 1 something is wrong, 2 the file is wrong, 3 something cannot be reached.
With exactly once, the table batchsql_positions is made if it is missing.")]
    Check {
        /// The configuration, a TOML file
        config: PathBuf,
        /// Ask no database and no port
        #[arg(long)]
        offline: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}
