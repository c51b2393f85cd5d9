//! `cargo xtask bench`: the benchmarks of the suite crate, built for release.
//! Must not know what the benchmarks measure or which arguments they take.

use std::process::ExitCode;

use crate::suite;

pub(crate) fn run(arguments: suite::Arguments) -> anyhow::Result<ExitCode> {
    suite::build_and_become("batchsql-bench", arguments.args)
}
