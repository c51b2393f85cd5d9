//! Owns the checks of the scale program: a few faults with a fixed seed pass, and a defect on purpose is found.
//! Must not know how a fault is caused.

use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Runs two workers with faults for this time; the line of the report, and the output.
fn scale(args: &[&str], faults: &str, seed: u32) -> (Value, Output) {
    let folder = TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_batchsql-scale"));
    command.args(["--db", "postgres", "--workers", "2", "--faults-only", "--faults", faults]);
    command.args(["--seed", &seed.to_string()]).args(args).arg("--report-dir").arg(folder.path());
    let output = command.output().unwrap();
    let results = std::fs::read_to_string(folder.path().join("scale.json"));
    let results =
        results.unwrap_or_else(|error| panic!("no results: {error}: {}", String::from_utf8_lossy(&output.stderr)));
    let results: Value = serde_json::from_str(&results).unwrap();
    let [found] = &results["results"].as_array().unwrap()[..] else { panic!("{results}") };
    (found.clone(), output)
}

/// One worker is killed, and one is frozen for longer than its leases, while rows come.
#[test]
fn workers_that_are_killed_and_frozen_lose_and_double_nothing() {
    let (found, output) = scale(&["--fault", "worker-killed,worker-paused"], "0s", 16);
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}\n{errors}");
    let mut faults: Vec<&str> =
        found["faults"].as_array().unwrap().iter().map(|fault| fault.as_str().unwrap()).collect();
    faults.sort_unstable();
    assert_eq!(faults, ["worker-killed", "worker-paused"]);
    assert_eq!((&found["database"], &found["workers"]), (&json!("postgres"), &json!(2)));
    assert_eq!((&found["guarantee"], &found["rows_per_s"]), (&json!("exactly once"), &Value::Null));
    assert_eq!((&found["lost"], &found["doubled"], &found["violations"]), (&json!(0), &json!(0), &json!(0)));
    assert!(found["rows"].as_u64().unwrap() > 300, "{found}");
    assert!(found["takeovers"].is_u64(), "{found}");
    assert!(text.contains("cargo xtask scale") && text.contains("--seed 16"), "{text}");
}

/// Runs that may miss the moment at which the defect shows: a frozen worker may have no partitions yet, or nothing to write.
const RUNS: u32 = 10;

/// A worker that goes on after its partitions were taken over writes rows that the other one has written.
#[test]
fn workers_that_do_not_test_the_epoch_are_found() {
    for seed in 16..16 + RUNS {
        let (found, output) = scale(&["--fault", "worker-paused", "--sabotage", "unfenced"], "15s", seed);
        assert_eq!(found["error"], Value::Null, "{found}");
        let doubled = found["doubled"].as_u64().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.success(), found["violations"] == 0, "{text}");
        if doubled > 0 {
            assert!(found["details"].to_string().contains("Doubled"), "{found}");
            assert!(found["takeovers"].as_u64().unwrap() > 0, "{found}");
            return;
        }
    }
    panic!("nothing is found in {RUNS} runs");
}
