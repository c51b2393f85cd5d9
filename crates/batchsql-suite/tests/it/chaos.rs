//! Owns the checks of the chaos program: a few faults with a fixed seed pass, and defects on purpose are found.
//! Must not know how a fault is caused.

use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// The first seed.
const SEED: u32 = 15;

/// Runs it with a seed; its results and its exit status.
fn chaos(args: &[&str], seed: u32) -> (Value, Output) {
    let folder = TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_batchsql-chaos"));
    command.args(args).args(["--quick", "--seed", &seed.to_string(), "--report-dir"]).arg(folder.path());
    let output = command.output().unwrap();
    let json = std::fs::read_to_string(folder.path().join("chaos.json"));
    let json = json.unwrap_or_else(|error| panic!("no results: {error}: {}", String::from_utf8_lossy(&output.stderr)));
    let page = std::fs::read_to_string(folder.path().join("chaos.html")).unwrap();
    assert!(page.contains("BatchSQL chaos"));
    (serde_json::from_str(&json).unwrap(), output)
}

#[track_caller]
fn passes(args: &[&str], expected: &[(&str, &str)]) {
    let (json, output) = chaos(args, SEED);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let results = json["results"].as_array().unwrap();
    let found: Vec<_> =
        results.iter().map(|sum| (sum["database"].as_str().unwrap(), sum["fault"].as_str().unwrap())).collect();
    assert_eq!(found, expected);
    for sum in results {
        assert!(sum["rows"].as_u64().unwrap() > 300, "{sum}");
        assert_eq!((&sum["violations"], &sum["runs"]), (&0.into(), &1.into()), "{sum}");
        assert!(sum["recovery_s"].as_f64().unwrap() >= 0.0, "{sum}");
    }
    assert!(text.contains("cargo xtask chaos") && text.contains(&format!("--seed {SEED}")), "{text}");
}

#[test]
fn rows_end_as_reported_while_there_are_faults() {
    let faults = ["server-killed", "replies-lost", "table-locked", "writer-killed"];
    let expected = [
        ("sqlite", "table-locked"),
        ("sqlite", "writer-killed"),
        ("postgres", "server-killed"),
        ("postgres", "replies-lost"),
        ("postgres", "table-locked"),
        ("postgres", "writer-killed"),
    ];
    passes(&["--db", "sqlite,postgres", "--fault", &faults.join(",")], &expected);
}

#[test]
fn rows_end_as_reported_on_mysql_and_redis_too() {
    let expected =
        [("mysql", "server-killed"), ("mysql", "replies-lost"), ("redis", "server-killed"), ("redis", "replies-lost")];
    passes(&["--db", "mysql,redis", "--fault", "server-killed,replies-lost"], &expected);
}

/// Its connections have other settings, and are those of the program.
#[test]
fn rows_end_as_reported_with_the_pool_of_a_program() {
    let expected = [("postgres", "sessions-terminated"), ("mysql", "sessions-terminated")];
    passes(&["--db", "postgres,mysql", "--fault", "sessions-terminated", "--pool", "user"], &expected);
}

#[test]
fn a_durable_writer_that_is_killed_loses_nothing() {
    let expected = [("sqlite", "writer-killed"), ("postgres", "writer-killed"), ("redis", "writer-killed")];
    passes(&["--db", "sqlite,postgres,redis", "--fault", "writer-killed", "--durable"], &expected);
}

#[test]
fn rows_are_written_exactly_once_although_writers_are_killed() {
    let expected = [("sqlite", "writer-killed"), ("postgres", "writer-killed"), ("mysql", "writer-killed")];
    passes(&["--db", "sqlite,postgres,mysql", "--fault", "writer-killed", "--exactly-once"], &expected);
}

/// Runs of a fault that may miss the moment at which a defect shows: on a busy machine few rows are on their way.
const RUNS: u32 = 10;

/// The checker must find a defect, and say so.
#[track_caller]
fn is_found(args: &[&str], wrong: &str) {
    for seed in SEED..SEED + RUNS {
        let (json, output) = chaos(args, seed);
        let sum = &json["results"][0];
        assert_eq!(sum["errors"], 0, "{sum}");
        let violations = sum["violations"].as_u64().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(i32::from(violations > 0)), "{text}");
        if violations > 0 {
            let details = sum["details"].to_string();
            assert!(details.contains(wrong), "{details}");
            return;
        }
    }
    panic!("{args:?}: nothing is found in {RUNS} runs");
}

#[test]
fn rows_that_leave_the_log_before_they_are_written_are_missed() {
    let args = ["--db", "sqlite", "--fault", "writer-killed", "--durable", "--sabotage", "settle-early"];
    is_found(&args, "Lost");
}

#[test]
fn rows_that_are_written_twice_are_found() {
    let args = ["--db", "postgres", "--fault", "replies-lost", "--sabotage", "repeat"];
    is_found(&args, "Doubled");
}

#[test]
fn positions_that_move_without_their_rows_are_found() {
    let args = ["--db", "sqlite", "--fault", "writer-killed", "--exactly-once", "--sabotage", "position-alone"];
    is_found(&args, "Lost");
}
