//! Owns `cargo xtask test --quick`: the tests that need no server and no program, and take less than a minute when built.
//! Must not know servers.

use std::{ffi::OsString, process::Command};

use crate::{cargo, steps::Steps};

/// Packages whose tests need no server: unit tests and integration tests.
const WITHOUT_SERVERS: [&str; 13] = [
    "batchsql-core",
    "batchsql-sql",
    "batchsql-sqlite",
    "batchsql-derive",
    "batchsql-durable",
    "batchsql-arrow",
    "batchsql-feed",
    "batchsql-log",
    "batchsql-metrics",
    "batchsql-monitoring",
    "batchsql-testkit",
    "batchsql",
    "batchsql-server",
];

/// Packages whose integration tests need servers or programs: only unit tests.
const ONLY_UNIT_TESTS: [&str; 5] =
    ["batchsql-postgres", "batchsql-mysql", "batchsql-nats", "batchsql-redis", "batchsql-prometheus"];

/// Why the tests of most examples are left out.
const EXAMPLE: &str = "runs an example as a program, which is not built here";

/// Integration tests that are left out, as `package`, `name` and why.
const LEFT_OUT: [(&str, &str, &str); 17] = [
    ("batchsql", "service::", "runs the example service as a program, which is not built here"),
    ("batchsql", "examples::quick_start_writes_all_rows", EXAMPLE),
    ("batchsql", "examples::csv_loader_loads_what_can_be_read_and_reports_the_rest", EXAMPLE),
    ("batchsql", "examples::custom_sink_appends_a_line_for_each_row", EXAMPLE),
    ("batchsql", "examples::dead_letters_are_corrected_and_replayed", EXAMPLE),
    ("batchsql", "examples::other_exporter_sends_the_metrics_to_an_agent", EXAMPLE),
    ("batchsql", "examples::failure_tests_is_a_program_too", EXAMPLE),
    ("batchsql", "examples::file_feed_writes_each_line_once", EXAMPLE),
    ("batchsql", "examples::opentelemetry_shows_the_batch_linked_to_both_requests", EXAMPLE),
    ("batchsql", "examples::axum_ingest_serves_its_metrics_and_ends_with_every_row_written", EXAMPLE),
    ("batchsql", "examples::ingest_service_ends_with_every_row_written_and_replays_the_others", EXAMPLE),
    ("batchsql-monitoring", "broken::", "reads every file of monitoring/ again for each mistake"),
    ("batchsql-core", "order::rows_of_a_key_keep_their_order_with_many_threads", "long: many rows, in real time"),
    ("batchsql-server", "databases::", "needs servers"),
    ("batchsql-server", "guides::", "needs curl and sqlite3"),
    ("batchsql-server", "load::a_killed_load_goes_on_and_writes_each_row_once", "long: a program that is killed"),
    ("batchsql-core", "flush::an_interval_without_end_means_by_size_only", "long: every wake-up of a day"),
];

/// Schedules of the model test, in place of 1,500.
const MODEL_CASES: &str = "100";

/// Runs the tests; `cargo_args` as for `cargo xtask test`.
pub(crate) fn run(steps: &mut Steps, cargo_args: &[OsString]) {
    steps.run_tests("tests without servers", command(&WITHOUT_SERVERS, &["--lib", "--bins", "--tests"], cargo_args));
    // In a command of its own, because cargo cannot choose other targets for other packages.
    steps.run_tests("unit tests of drivers", command(&ONLY_UNIT_TESTS, &["--lib"], cargo_args));
}

fn command(packages: &[&str], targets: &[&str], cargo_args: &[OsString]) -> Command {
    let end = cargo_args.iter().position(|arg| arg == "--").unwrap_or(cargo_args.len());
    let (for_cargo, for_programs) = cargo_args.split_at(end);
    let mut command = cargo::command();
    command.args(["test", "--no-fail-fast", "--all-features"]).args(targets);
    command.args(packages.iter().flat_map(|package| ["--package", package])).args(for_cargo);
    command.arg("--").args(LEFT_OUT.iter().flat_map(|(_, name, _)| ["--skip", name])).args(for_programs.iter().skip(1));
    command.env("PROPTEST_CASES", MODEL_CASES);
    command
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;
    use crate::workspace;

    #[test]
    fn a_new_package_gets_its_place() {
        // The suite takes long to build, and the tests of xtask start servers.
        let elsewhere = ["batchsql-suite", "batchsql-testserver", "xtask"];
        let known: BTreeSet<_> = [&WITHOUT_SERVERS[..], &ONLY_UNIT_TESTS, &elsewhere].concat().into_iter().collect();
        let packages = workspace::packages().unwrap();
        assert_eq!(packages.iter().map(|package| package.name.as_str()).collect::<BTreeSet<_>>(), known);
    }

    #[test]
    fn what_is_left_out_exists() {
        for (package, name, _) in LEFT_OUT {
            let folder = cargo::workspace_root().join("crates").join(package).join("tests/it");
            let (module, test) = name.split_once("::").unwrap();
            let file = folder.join(module).with_extension("rs");
            assert!(file.exists() || folder.join(module).is_dir(), "{package} has no tests {module}");
            if !test.is_empty() {
                assert!(fs::read_to_string(&file).unwrap().contains(&format!("fn {test}(")), "{package}: no {name}");
            }
        }
    }

    /// Every test of an example that runs it as a program is left out, and no other.
    #[test]
    fn examples_that_are_programs_are_left_out() {
        let source = fs::read_to_string(cargo::workspace_root().join("crates/batchsql/tests/it/examples.rs")).unwrap();
        let mut programs = BTreeSet::new();
        for test in source.split("\n#[test]\n").skip(1) {
            let test = test.split("\n}\n").next().unwrap();
            let name = test.split(['(', ' ']).nth(1).unwrap();
            if ["run(\"", "serve(\"", "example(\""].iter().any(|call| test.contains(call)) {
                programs.insert(format!("examples::{name}"));
            }
        }
        let left_out = LEFT_OUT.iter().filter(|(_, _, why)| *why == EXAMPLE).map(|(_, name, _)| (*name).to_owned());
        assert_eq!(programs, left_out.collect());
    }

    #[test]
    fn arguments_reach_cargo_and_the_test_programs() {
        let args = ["--jobs=1", "--", "--nocapture"].map(OsString::from);
        let command = command(&["a"], &["--lib"], &args);
        let args: Vec<_> = command.get_args().map(|arg| arg.to_str().unwrap()).collect();
        let expected =
            ["test", "--no-fail-fast", "--all-features", "--lib", "--package", "a", "--jobs=1", "--", "--skip"];
        assert_eq!(args[..expected.len()], expected);
        assert_eq!(args.last(), Some(&"--nocapture"));
        assert_eq!(args.iter().filter(|arg| **arg == "--").count(), 1);
    }
}
