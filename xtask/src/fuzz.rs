//! `cargo xtask fuzz`: the random tests, for a longer time.
//! Must not know what they check: the tests of the same name run them for a short time.

use std::process::{Command, ExitCode};

use anyhow::Context;

use crate::{
    cargo, interrupt,
    servers::{Kind, Sources},
    steps::Steps,
    test,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Random cases of each fast target: schedules against the model of the pipeline, blocks, DSNs. 100,000 take some minutes.
    /// Slower targets have a part of it
    #[arg(long, default_value_t = 100_000)]
    cases: u32,
    /// How often a writing process is killed (`kill -9`); 200 take about a minute
    #[arg(long, default_value_t = 200)]
    kills: u32,
    /// Do not install missing servers
    #[arg(long)]
    no_install: bool,
}

/// Random tests of one name.
struct Target {
    what: &'static str,
    package: &'static str,
    /// The program of the tests.
    program: &'static [&'static str],
    tests: &'static str,
    /// One case takes as long as so many of a fast target.
    slower: u32,
}

const UNIT: &[&str] = &["--lib"];
const INTEGRATION: &[&str] = &["--test", "it"];

#[rustfmt::skip]
const TARGETS: [Target; 8] = [
    Target { what: "random schedules against the model", package: "batchsql-core", program: INTEGRATION, tests: "model::", slower: 1 },
    Target { what: "blocks and schemas of hostile bytes", package: "batchsql-feed", program: UNIT, tests: "hostile_tests", slower: 1 },
    Target { what: "logs with damaged files", package: "batchsql-log", program: INTEGRATION, tests: "damage::", slower: 20 },
    Target { what: "logs after crashes", package: "batchsql-log", program: INTEGRATION, tests: "crash::", slower: 20 },
    Target { what: "any text as a DSN", package: "batchsql-suite", program: INTEGRATION, tests: "fuzz::dsns", slower: 1 },
    Target { what: "any request to the exporter", package: "batchsql-suite", program: INTEGRATION, tests: "fuzz::exporter", slower: 50 },
    Target { what: "any name on real databases", package: "batchsql-suite", program: INTEGRATION, tests: "fuzz::names", slower: 100 },
    Target { what: "any values on real databases", package: "batchsql-suite", program: INTEGRATION, tests: "fuzz::values", slower: 200 },
];

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    interrupt::watch(|_| ()).context("cannot watch for Ctrl-C")?;
    let mut steps = Steps::default();
    let sources = Sources::new(!arguments.no_install);
    sources.install(&Kind::DATABASES);
    let servers = test::shared_servers(&sources, &Kind::DATABASES, &mut steps);
    let test = |package: &str, args: &[&str]| {
        let mut command = cargo::command();
        command.args(["test", "--release", "--package", package]).args(args).env("RUST_BACKTRACE", "0");
        command.envs(servers.iter().map(|(variable, server)| (variable, &server.dsn)));
        command
    };
    for target in &TARGETS {
        let mut command: Command = test(target.package, target.program);
        command.arg(target.tests).env("PROPTEST_CASES", (arguments.cases / target.slower).max(1).to_string());
        steps.run(target.what, command);
    }
    // With the figures and the seed, which the test prints.
    let mut kills = test("batchsql-sqlite", &["--test", "it", "kill::", "--", "--nocapture"]);
    kills.env("BATCHSQL_KILLS", arguments.kills.to_string());
    steps.run("kill -9 while writing", kills);
    Ok(steps.finish())
}
