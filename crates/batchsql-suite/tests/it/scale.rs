//! Owns the check of the scale program: a few faults with a fixed seed pass.
//! Must not know how a fault is caused.

use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

/// One worker is killed, and one is frozen for longer than its leases, while rows come.
#[test]
fn workers_that_are_killed_and_frozen_lose_and_double_nothing() {
    let folder = TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_batchsql-scale"));
    command.args(["--db", "postgres", "--workers", "2", "--faults-only", "--faults", "0s", "--seed", "16"]);
    command.args(["--fault", "worker-killed,worker-paused", "--report-dir"]).arg(folder.path());
    let output = command.output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}\n{errors}");
    let results = std::fs::read_to_string(folder.path().join("scale.json")).unwrap();
    let results: Value = serde_json::from_str(&results).unwrap();
    let [found] = &results["results"].as_array().unwrap()[..] else { panic!("{results}") };
    let mut faults: Vec<&str> =
        found["faults"].as_array().unwrap().iter().map(|fault| fault.as_str().unwrap()).collect();
    faults.sort_unstable();
    assert_eq!(faults, ["worker-killed", "worker-paused"]);
    assert_eq!((&found["database"], &found["workers"]), (&json!("postgres"), &json!(2)));
    assert_eq!((&found["guarantee"], &found["rows_per_s"]), (&json!("exactly once"), &Value::Null));
    assert_eq!((&found["lost"], &found["doubled"], &found["violations"]), (&json!(0), &json!(0), &json!(0)));
    assert!(found["rows"].as_u64().unwrap() > 300, "{found}");
    assert!(text.contains("cargo xtask scale") && text.contains("--seed 16"), "{text}");
}
