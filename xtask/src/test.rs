//! `cargo xtask test`: every test and doctest of the workspace.
//! Must not know any test.

use std::{ffi::OsString, process::ExitCode};

use crate::{
    cargo, fuzz,
    promtool::{self, Promtool},
    steps::Steps,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Do not install promtool when it is missing
    #[arg(long)]
    no_install: bool,
    /// Arguments for each `cargo test`; arguments for the test programs follow a second `--`
    #[arg(last = true, value_name = "CARGO TEST ARGS")]
    cargo_args: Vec<OsString>,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut steps = Steps::default();
    let promtool = promtool::ensure(!arguments.no_install);
    match &promtool {
        Promtool::Present => {}
        Promtool::Optional(advice) => steps.skip("promtool", advice),
        Promtool::Required(advice) => steps.impossible("promtool", advice),
    }
    let cargo_test = |args: &[&str]| {
        let mut command = cargo::command();
        command.args(["test", "--no-fail-fast"]).args(args).args(&arguments.cargo_args);
        if matches!(promtool, Promtool::Present) {
            command.env("BATCHSQL_REQUIRE_PROMTOOL", "1");
        }
        command
    };
    // `--all-targets` would leave out the doctests and run the benchmarks.
    steps.run("unit tests, integration tests, examples", cargo_test(&WORKSPACE));
    steps.run("doctests", cargo_test(&["--workspace", "--all-features", "--doc"]));
    // In a workspace build other crates may switch the core's optional features on.
    steps.run("core without optional features", cargo_test(&["--package", "batchsql-core"]));
    steps.run("interleavings", fuzz::interleavings());
    Ok(steps.finish())
}

const WORKSPACE: [&str; 6] = ["--workspace", "--all-features", "--lib", "--bins", "--tests", "--examples"];
