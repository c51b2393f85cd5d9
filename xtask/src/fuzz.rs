//! `cargo xtask fuzz`: the random tests, for a longer time.
//! Must not know what they check: the tests of the same name run them for a short time.

use std::process::{Command, ExitCode};

use crate::{cargo, steps::Steps};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Random schedules against the model of the pipeline; 100,000 take about a minute
    #[arg(long, default_value_t = 100_000)]
    cases: u32,
    /// How often a writing process is killed (`kill -9`); 200 take about a minute
    #[arg(long, default_value_t = 200)]
    kills: u32,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut steps = Steps::default();
    let test = |args: &[&str]| {
        let mut command = cargo::command();
        command.args(["test", "--release", "--test", "it"]).args(args).env("RUST_BACKTRACE", "0");
        command
    };
    steps.run("build", test(&["--package", "batchsql-core", "--package", "batchsql-sqlite", "--no-run"]));
    let mut model = test(&["--package", "batchsql-core", "model::"]);
    model.env("PROPTEST_CASES", arguments.cases.to_string());
    steps.run("random schedules against the model", model);
    // With the figures and the seed, which the test prints.
    let mut kills = test(&["--package", "batchsql-sqlite", "kill::", "--", "--nocapture"]);
    kills.env("BATCHSQL_KILLS", arguments.kills.to_string());
    steps.run("kill -9 while writing", kills);
    Ok(steps.finish())
}

/// Every interleaving of threads in the core's own synchronisation, with the model checker
/// loom. It has a target folder of its own, because its flag would rebuild everything else.
pub(crate) fn interleavings() -> Command {
    let mut command = cargo::command();
    command.args(["test", "--package", "batchsql-core", "--lib", "--target-dir", "target/loom", "interleavings"]);
    command.env("RUSTFLAGS", "--cfg batchsql_loom").env("RUST_BACKTRACE", "0");
    command
}
