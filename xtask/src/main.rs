//! `cargo xtask <verb>`: the entry point of this repository for developers and CI.
//! Parses and dispatches; each verb has a file of its name.

#[cfg(not(unix))]
compile_error!("the verbs start servers and send signals as Unix does; on Windows use WSL");

#[macro_use]
mod say;

mod bench;
mod cargo;
mod chaos;
mod checks;
mod databases;
mod files;
mod fuzz;
mod git;
mod http;
mod imports;
mod integration_test;
mod interrupt;
mod lint;
mod lint_monitoring;
mod listen;
mod monitor;
mod quick;
mod release;
mod scale;
mod server;
mod servers;
mod soak;
mod steps;
mod suite;
mod test;
mod timings;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use self::checks::{cross, deny, docs, features, minimal_versions, msrv, package, public_api, semver};

/// The verbs of this repository.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build the integration and load suite and run it; all arguments are passed to the suite
    #[command(disable_help_flag = true)]
    IntegrationTest(suite::Arguments),
    /// Run every test and doctest of the workspace
    Test(test::Arguments),
    /// Run the random tests longer than `test` does: schedules, damaged logs, DSNs, names, values, requests, killed processes
    Fuzz(fuzz::Arguments),
    /// Start a server for tests; it is stopped and its files are removed when the input ends
    Server(server::Arguments),
    /// Start Prometheus and Grafana for the suite, or stop, show and check them
    Monitor(Box<monitor::Arguments>),
    /// Check the format, clippy, the documentation, the imports and the dependencies
    Lint,
    /// Check queries, rules, dashboards and runbooks, and the files of Prometheus, Alertmanager and Docker
    LintMonitoring(lint_monitoring::Arguments),
    /// Check each feature of each published package alone (cargo-hack)
    Features,
    /// Check that the workspace builds with the oldest Rust that it promises
    Msrv,
    /// Check that the published packages build with the oldest dependencies that they allow (nightly)
    MinimalVersions,
    /// Build the libraries for another target
    Cross(cross::Arguments),
    /// Build the documentation as docs.rs does (nightly)
    Docs,
    /// Check licences, sources, forbidden dependencies and security advisories (cargo-deny)
    Deny,
    /// Compare the public API with that of the last release (cargo-semver-checks)
    Semver(semver::Arguments),
    /// Compare the public API with its text in docs/public-api (cargo-public-api, nightly)
    PublicApi(public_api::Arguments),
    /// Check that the published packages are complete, and build them from their own files
    Package(package::Arguments),
    /// Publish the packages in the order of their dependencies, or show how
    Release(release::Arguments),
    /// Cause faults on real servers under load, and check every row; all arguments are passed to the program
    #[command(disable_help_flag = true)]
    Chaos(suite::Arguments),
    /// Write mixed rows for a long time while there are faults, and fail if memory, files, tasks, connections or disk rise; all
    /// arguments are passed to the program
    #[command(disable_help_flag = true)]
    Soak(suite::Arguments),
    /// Let workers on a JetStream write rows, kill them meanwhile, and check every row; all arguments are passed to the program
    #[command(disable_help_flag = true)]
    Scale(suite::Arguments),
    /// Build the benchmarks and run them; all arguments are passed to the benchmarks
    #[command(disable_help_flag = true)]
    Bench(suite::Arguments),
}

fn main() -> ExitCode {
    interrupt::end_with_parent();
    let outcome = match Cli::parse().verb {
        None => Cli::command().print_help().map(|()| ExitCode::SUCCESS).map_err(anyhow::Error::from),
        Some(Verb::IntegrationTest(arguments)) => integration_test::run(arguments),
        Some(Verb::Test(arguments)) => test::run(arguments),
        Some(Verb::Fuzz(arguments)) => fuzz::run(arguments),
        Some(Verb::Server(arguments)) => server::run(&arguments),
        Some(Verb::Monitor(arguments)) => monitor::run(*arguments),
        Some(Verb::Lint) => lint::run(),
        Some(Verb::LintMonitoring(arguments)) => lint_monitoring::run(&arguments),
        Some(Verb::Features) => features::run(),
        Some(Verb::Msrv) => msrv::run(),
        Some(Verb::MinimalVersions) => minimal_versions::run(),
        Some(Verb::Cross(arguments)) => cross::run(arguments),
        Some(Verb::Docs) => docs::run(),
        Some(Verb::Deny) => deny::run(),
        Some(Verb::Semver(arguments)) => semver::run(arguments),
        Some(Verb::PublicApi(arguments)) => public_api::run(arguments),
        Some(Verb::Package(arguments)) => package::run(arguments),
        Some(Verb::Release(arguments)) => release::run(arguments),
        Some(Verb::Bench(arguments)) => bench::run(arguments),
        Some(Verb::Chaos(arguments)) => chaos::run(arguments),
        Some(Verb::Soak(arguments)) => soak::run(arguments),
        Some(Verb::Scale(arguments)) => scale::run(arguments),
    };
    let code = outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    });
    interrupt::exit_code().unwrap_or(code)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A workflow that names a verb or an option that is gone would fail only on its next run.
    #[test]
    fn workflows_call_verbs_that_exist() {
        let mut calls = 0;
        for entry in fs::read_dir(cargo::workspace_root().join(".github/workflows")).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            for call in text.lines().filter_map(|line| line.trim().strip_prefix("- run: cargo xtask ")) {
                // An expression of the matrix is one argument.
                let call = call.replace("${{ matrix.target }}", "target");
                let parsed = Cli::try_parse_from(["xtask"].into_iter().chain(call.split_whitespace()));
                assert!(parsed.is_ok(), "{call}: {}", parsed.unwrap_err());
                calls += 1;
            }
        }
        assert!(calls > 10, "{calls}");
    }
}
