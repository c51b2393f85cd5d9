//! The scale command: workers on a JetStream, their rows per second, and no row lost or doubled while they are killed.
//!
//! Exit status: 0 when no row is lost, or doubled where it must not be, 1 when that is not so or a run could not be carried
//! out, 2 when there is no report, 130 when it was interrupted.

use std::process::ExitCode;

use batchsql_suite::chaos::exit_code;
use batchsql_suite::chaos::scale::{Options, run};
use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    exit_code(run(Options::parse())).await
}
