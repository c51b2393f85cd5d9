//! The `batchsql` program: rows from HTTP, files and standard input into a database, with one TOML file.
//!
//! `cli` has the command line, `config` the file. Each command has a module: `check`, `run` (with `http`). They share `database` and
//! `table` (what is written), and `intake` (the pipeline, in memory or durable). `exit` has the exit codes.

#![allow(dead_code, reason = "what reads files comes with the next commits")]

mod check;
mod cli;
mod config;
mod database;
mod exit;
mod http;
mod intake;
mod logging;
mod notify;
mod run;
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::exit::Failure;

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Check { config, offline, json } => Ok(check::run(&config, offline, json).await),
        Command::Run { config } => run::service::run(&config).await,
    };
    let exit = ended.unwrap_or_else(|Failure { exit, text }: Failure| {
        eprintln!("{} {text}", console::style("error:").for_stderr().red().bold());
        exit
    });
    ExitCode::from(exit)
}
