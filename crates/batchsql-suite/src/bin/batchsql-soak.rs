//! The soak command: mixed load and faults for a long time, with flat figures of the process.
//!
//! Exit status: 0 when every figure is flat and no row is missing, 1 when that is not so or a soak could not be carried out, 2
//! when there is no report, 130 when it was interrupted.

use std::process::ExitCode;

use batchsql_suite::chaos::exit_code;
use batchsql_suite::chaos::soak::{Options, run};
use clap::Parser;

// Its count of live bytes is exact, and it gives unused memory back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    exit_code(run(Options::parse())).await
}
