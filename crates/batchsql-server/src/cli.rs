//! Owns the command line.
//! Must not know what commands do.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::sections::Format;

/// Rows from HTTP, files, standard input and NATS JetStream into PostgreSQL, MySQL, MariaDB, SQLite or Redis, in batches.
#[derive(Debug, Parser)]
#[command(
    name = "batchsql",
    version,
    after_help = "Exit codes:
  0  everything is as it should be
  1  a check has found something, rows were not written, or a log is damaged or rows of it may be missing
  2  the command line or the configuration is wrong; nothing was done
  3  a database, a file, a folder or a port could not be used, or output that was asked for could not be written (a pipe
     that its reader closes is no error)
  4  rows wait in the durable intake for the next start
When `run` has several of these to say, it ends with the highest of them.

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
  batchsql run worker.toml --accept-gap orders
  batchsql run batchsql.toml --accept-log-gap

At the end no more rows are accepted, and those that were are written, for at most run.drain_for; requests that are open then get 5 s
for their answers. A second signal shortens this to a second. Rows that are left are in the file of [dead_letters], or in the log of
[durable]; without both sections they are lost.

Exit codes: 0 all rows that were accepted were written, 1 some were not, or lines of standard input or messages of a stream were refused,
2 the file is wrong, 3 something cannot be reached, 4 rows wait in the durable intake for the next start, or may wait there. If several
are true, it is the highest: 4 also if lines were refused.")]
    Run {
        /// The configuration, a TOML file
        config: PathBuf,
        /// Go on behind messages that are missing in the stream of this source, and count their rows as lost. For one start,
        /// after a look at why they are missing
        #[arg(long, value_name = "SOURCE")]
        accept_gap: Vec<String>,
        /// Go on behind rows that are missing in the log of [durable], or behind the position that the database has, and count
        /// them as lost. For one start, after `batchsql log verify` and a look into `log/quarantine`
        #[arg(long)]
        accept_log_gap: bool,
    },
    /// Check everything that can be known before the first row; no row is written
    #[command(after_help = "Examples:
  batchsql check batchsql.toml             the file, its files and ports, the database and its tables
  batchsql check batchsql.toml --offline   without the database, NATS and ports: for a pipeline of CI
  batchsql check batchsql.toml --json      for a script

Exit codes: 0 ready, 1 something is wrong, 2 the file is wrong, 3 something cannot be reached, or what was found cannot be printed.
With exactly once, the table batchsql_positions is made if it is missing; that of an earlier version gets the columns it lacks.")]
    Check {
        /// The configuration, a TOML file
        config: PathBuf,
        /// Ask no database, no server of NATS and no port
        #[arg(long)]
        offline: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Load CSV and NDJSON files (also .gz and .zst), Parquet and Arrow files into a table; run it again to go on after a break
    #[command(after_help = "Examples:
  batchsql load orders.csv --database postgres://app@db/shop --table orders
  batchsql load orders.parquet --database postgres://app@db/shop --table orders
  batchsql load orders.ndjson.gz --database sqlite:shop.db --table orders --rule ignore
  batchsql load 2026-*.csv.zst --config batchsql.toml --table orders

A file is known by its content. On PostgreSQL, MySQL, MariaDB and SQLite how far it is written is stored in the table
batchsql_positions in the transaction of the rows, so each record is written once, whenever the command is killed and run
again; a file that is loaded is not loaded again. On Redis it is stored in FILE.batchsql-load, and up to 20,000 records
are written again after a kill. Records that are not written are in FILE.rejects.ndjson, with line and reason.

Parquet and Arrow files (also Feather) need a program that is built with the feature `arrow`.

Exit codes: 0 everything is loaded, 1 records were rejected or the load stopped, 2 the command line, the configuration, or
the name or header of a file is wrong: nothing was loaded, 3 something cannot be reached: run it again, or standard output cannot be
written: the other files are loaded.")]
    Load(Load),
    /// Look into a file of dead letters, and write its rows again; also into the file `.foreign` of a stream
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Look into the folder of a durable intake
    #[command(subcommand)]
    Log(LogCommand),
    /// Print a completion script for a shell
    #[command(after_help = "Example: batchsql completions bash > /etc/bash_completion.d/batchsql")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Load {
    /// The files
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// A configuration with the database and the table
    #[arg(long, value_name = "FILE", conflicts_with_all = ["database", "rule", "key", "ignore_unknown"])]
    pub(crate) config: Option<PathBuf>,
    /// The database, without a configuration; default: the variable BATCHSQL_DATABASE
    // Not by `env` of clap, which would be in conflict with --config.
    #[arg(long, value_name = "DSN")]
    pub(crate) database: Option<String>,
    /// The table: its name in the configuration, or in the database
    #[arg(long)]
    pub(crate) table: Option<String>,
    /// insert, ignore, update, replace, update_only or delete
    #[arg(long)]
    pub(crate) rule: Option<String>,
    /// The columns of the key; default: the primary key
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
    pub(crate) key: Vec<String>,
    /// Leave out fields that are not columns
    #[arg(long)]
    pub(crate) ignore_unknown: bool,
    /// Default: by the name of each file
    #[arg(long)]
    pub(crate) format: Option<Format>,
    /// Between the fields of CSV
    #[arg(long, default_value = ",")]
    pub(crate) delimiter: char,
    /// Where records go that are not written; default: FILE.rejects.ndjson
    #[arg(long, value_name = "FILE")]
    pub(crate) rejects: Option<PathBuf>,
    /// Stop when more records are rejected
    #[arg(long, default_value_t = 1000, value_name = "RECORDS")]
    pub(crate) max_rejects: u64,
    /// Store how far a file is written in FILE.batchsql-load, not in the database: up to 20,000 records are written again
    /// after a kill
    #[arg(long)]
    pub(crate) at_least_once: bool,
    /// Load a content that is loaded already once more, under this name
    #[arg(long, value_name = "NAME")]
    pub(crate) again: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetters {
    /// Count the rows by table, outcome and error code, and those that a replay has written
    #[command(after_help = "Examples:
  batchsql dead-letters list letters.ndjson
  batchsql dead-letters list letters.ndjson.foreign      lines and messages of a stream, by subject and reason")]
    List {
        /// The file
        file: PathBuf,
    },
    /// Print the rows: where they are in the file (byte), when, what became of them and why
    #[command(after_help = "Example: batchsql dead-letters show letters.ndjson --limit 10 --values")]
    Show {
        /// The file
        file: PathBuf,
        /// Rows at most
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Print the values too: keep the output as you keep the data
        #[arg(long)]
        values: bool,
    },
    /// Write the rows again. Those that are written are not tried by a later replay of the file; after a kill the last 1,000 at most are
    #[command(after_help = "Example:
  mv letters.ndjson letters.1.ndjson      a service that runs makes a new file
  batchsql dead-letters replay letters.1.ndjson --config batchsql.toml --delete

How far it is stands in FILE.mark, at each 1,000 rows. A replay that was killed (kill -9, a crash) and is run again writes up to 1,000 rows
twice: with the rule insert into a table without a key they are there twice, and `set` with add counts twice. The mark of another file of this name is an error: delete it. A file with a line that is not
written again, also one that is cut off, is not deleted.

A row overwrites a newer one of its key that was written meanwhile, unless its table has `only_if_newer`.

Lines and messages of a stream (`letters.ndjson.foreign`) are published again to their subjects, with the configuration of the worker, after
its `fields` or columns were corrected: a worker that runs writes them. What still is no row is in the file `.foreign` again.
None is published to a subject of a front with `exactly_once`, which would stop: send its rows to the front. A replay
that was killed is run again within the `duplicate_window` of the stream (2 minutes), or its last messages are stored twice.

Exit codes: 0 nothing is left, 1 some are left, 2 the command line or the configuration is wrong, or a service may write to the file,
3 something cannot be reached or read, another process replays the file, or the mark is of another file.")]
    Replay {
        /// The file
        file: PathBuf,
        /// The configuration with the database and the tables
        #[arg(long)]
        config: PathBuf,
        /// Also insert rows that may be in the table already
        #[arg(long)]
        unknown: bool,
        /// Delete the file when no row is left
        #[arg(long)]
        delete: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// List the files, and how many rows wait in each partition
    Inspect {
        /// The folder of [durable]
        folder: PathBuf,
        /// Look without the lock, while a service uses the folder
        #[arg(long)]
        in_use: bool,
    },
    /// Read every file with its checksums; lists what is damaged, missing or unfinished
    Verify {
        /// The folder of [durable]
        folder: PathBuf,
        /// Look without the lock, while a service uses the folder: the newest rows may look torn
        #[arg(long)]
        in_use: bool,
    },
    /// Print the rows that wait, with their values, as lines that `dead-letters replay` reads
    #[command(after_help = "Example:
  mv intake intake.old                    after the service has ended; it starts with an empty folder
  batchsql log export intake.old --output rows.ndjson
  batchsql dead-letters replay rows.ndjson --config batchsql.toml

Keep the output as you keep the data. The log still has the rows: if a service starts with its folder, it writes them too.

With --output there is no file unless every row that waits is in it, or --partial is given.

With --all, rows that were rejected are among them, and in the file of dead letters too.

Exit codes: 0 every row that was asked for was printed, or a pipe was closed by its reader, 1 rows are damaged or not readable, or are or may
be missing, 2 the output is there already, 3 the log or the file cannot be used. After 1 or 3 standard output may have a part of the rows.")]
    Export {
        /// The folder of [durable]
        folder: PathBuf,
        /// Also the rows that have ended and are still there: [durable] `keep_for`
        #[arg(long)]
        all: bool,
        /// A new file for its owner only (0600), in place of standard output
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Make the file also if rows are damaged, missing or not readable, with those that can be read
        #[arg(long, requires = "output")]
        partial: bool,
        /// Look without the lock, while a service uses the folder: the newest rows may look torn
        #[arg(long)]
        in_use: bool,
    },
}
