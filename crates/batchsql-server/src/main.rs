//! The `batchsql` program: rows from HTTP, files, standard input and streams into a database or a stream, with one TOML file.
//!
//! `cli` has the command line, `config` the file. Each command has a module: `check`, `run` (with
//! `http` and `sources`), `load`, and `tools` for what is on disk. They share `database` and
//! `table` (what is written), `nats` (streams), `intake` (the pipeline, in memory or durable) and `deadline`. `exit` has the exit codes.

#![cfg_attr(
    not(feature = "nats"),
    allow(dead_code, reason = "a program without NATS reads settings of streams too, to say what is wrong with them")
)]

// First: its macros are those of every module below.
#[macro_use]
mod output;

mod check;
mod cli;
mod coding;
mod config;
mod database;
mod database_id;
mod deadline;
mod draft_file;
mod exit;
mod failed_log;
mod http;
mod intake;
mod load;
mod logging;
mod nats;
mod notify;
mod pattern_folders;
mod private_file;
mod run;
mod same_file;
mod signals;
mod sources;
mod table;
mod tools;
mod words;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::cli::{Cli, Command, DeadLetters, LogCommand};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::tools::log::Which;

fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(said) => return output::exit(not_parsed(&said)).into(),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the program cannot start its threads: {error}");
            return Exit::Unavailable.into();
        }
    };
    let exit = runtime.block_on(run(command));
    // A thread that reads standard input cannot be ended.
    runtime.shutdown_background();
    output::exit(exit).into()
}

/// Says what is wrong with the command line, or prints the help or the version that it asks for.
fn not_parsed(said: &clap::Error) -> Exit {
    let printed = said.print();
    if said.use_stderr() {
        return Exit::Mistake;
    }
    output::note(printed);
    Exit::Done
}

async fn run(command: Command) -> Exit {
    let ended = match command {
        Command::Check { config, offline, json } => Ok(check::run(&config, offline, json).await),
        Command::Run { config, accept_gap, accept_log_gap } => {
            run::service::run(&config, &accept_gap, accept_log_gap).await
        }
        Command::Load(load) => load::command::run(load).await,
        Command::DeadLetters(DeadLetters::List { file }) => tools::letters::list(&file),
        Command::DeadLetters(DeadLetters::Show { file, limit, values }) => tools::letters::show(&file, limit, values),
        Command::DeadLetters(DeadLetters::Replay { file, config, unknown, delete }) => {
            tools::letters::replay(&file, &config, unknown, delete).await
        }
        Command::Log(LogCommand::Inspect { folder, in_use }) => tools::log::inspect(&folder, in_use),
        Command::Log(LogCommand::Verify { folder, in_use }) => tools::log::verify(&folder, in_use),
        Command::Log(LogCommand::Export { folder, all, output, partial, in_use }) => {
            let which = if all { Which::All } else { Which::Waiting };
            tools::log::export((&folder, which), output.as_deref(), partial, in_use)
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "batchsql", &mut Output::lock());
            Ok(Exit::Done)
        }
    };
    ended.unwrap_or_else(|Failure { exit, text, .. }: Failure| {
        output::error(&words::of_program(&text));
        exit
    })
}
