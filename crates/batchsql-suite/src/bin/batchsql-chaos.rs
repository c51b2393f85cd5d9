//! The chaos command: faults on real servers under load.
//!
//! Exit status: 0 when every row ended as it was reported, 1 when one did not or a run could not be carried out, 2 when there
//! is no report, 130 when it was interrupted.

use std::process::ExitCode;

use batchsql_suite::chaos::{Options, exit_code, run};
use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    exit_code(run(Options::parse())).await
}
