//! `cargo xtask bench`: the benchmarks of the suite crate, built for release, with the servers of their databases.
//! Must not know what the benchmarks measure or which arguments they take.

use std::process::ExitCode;

use crate::{databases, suite};

pub(crate) fn run(arguments: suite::Arguments) -> anyhow::Result<ExitCode> {
    databases::run("bench", "batchsql-bench", arguments.args, "")
}
