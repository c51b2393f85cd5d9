//! Owns the checks of the soak program: a short run is flat, and a leak on purpose is found.
//! Must not know how a run is carried out.

use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// Runs it on SQLite for the shortest time, which is about a minute with the warm-up; its results and its output.
fn soak(args: &[&str]) -> (Value, Output) {
    let folder = TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_batchsql-soak"));
    command.args(["--db", "sqlite", "--duration", "12s"]).args(args).arg("--report-dir").arg(folder.path());
    let output = command.output().unwrap();
    let json = std::fs::read_to_string(folder.path().join("soak.json"));
    let json = json.unwrap_or_else(|error| panic!("no results: {error}: {}", String::from_utf8_lossy(&output.stderr)));
    let page = std::fs::read_to_string(folder.path().join("soak.html")).unwrap();
    assert!(page.contains("BatchSQL soak"));
    (serde_json::from_str(&json).unwrap(), output)
}

#[test]
fn a_short_run_is_flat_and_a_leak_is_found() {
    // Rows that are written exactly once are counted exactly.
    let (flat, leak) = std::thread::scope(|scope| {
        let flat = scope.spawn(|| soak(&["--exactly-once"]));
        // 1 KiB of each of 600 rows per second.
        let leak = scope.spawn(|| soak(&["--leak", "1024"]));
        (flat.join().unwrap(), leak.join().unwrap())
    });
    let (json, output) = flat;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let soaked = &json["results"][0];
    assert!(soaked["written"].as_u64().unwrap() > 1_000, "{soaked}");
    assert!(soaked["faults"].as_object().unwrap().len() >= 2, "{soaked}");
    let figures: Vec<&str> =
        soaked["figures"].as_array().unwrap().iter().map(|known| known["figure"].as_str().unwrap()).collect();
    assert!(figures.contains(&"heap") && figures.contains(&"disk of the log"), "{figures:?}");

    let (json, output) = leak;
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    let figures = json["results"][0]["figures"].as_array().unwrap();
    let heap = figures.iter().find(|known| known["figure"] == "heap").unwrap();
    assert_eq!(heap["rises"], true, "{heap}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("WRONG  sqlite: heap rises from"), "{output:?}");
}
