//! Owns the checks of the soak program: a short run counts its rows and judges its figures, and a leak on purpose is found.
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
fn a_short_run_judges_its_figures_and_a_leak_is_found() {
    // Rows that are written exactly once are counted exactly.
    let (sound, leak) = std::thread::scope(|scope| {
        let sound = scope.spawn(|| soak(&["--exactly-once"]));
        // 100 MiB in this time; a busy machine that submits a twentieth of the rows still exceeds the 2 MiB that are allowed.
        let leak = scope.spawn(|| soak(&["--leak", "16384"]));
        (sound.join().unwrap(), leak.join().unwrap())
    });
    let (json, output) = sound;
    let text = String::from_utf8_lossy(&output.stdout);
    let soaked = &json["results"][0];
    assert_eq!(soaked["wrong"], serde_json::json!([]), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(soaked["written"].as_u64().unwrap() > 0, "{soaked}");
    assert!(soaked["faults"].as_object().unwrap().len() >= 2, "{soaked}");
    let figures = soaked["figures"].as_array().unwrap();
    let names: Vec<&str> = figures.iter().map(|known| known["figure"].as_str().unwrap()).collect();
    assert!(names.contains(&"heap") && names.contains(&"disk of the log"), "{names:?}");
    // Whether 12 s are flat depends on the machine; a soak of minutes shows it. That the status says what was found does not.
    let is_flat = figures.iter().all(|known| known["rises"] == false);
    assert_eq!(output.status.success(), is_flat, "{text}");

    let (json, output) = leak;
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    let figures = json["results"][0]["figures"].as_array().unwrap();
    let heap = figures.iter().find(|known| known["figure"] == "heap").unwrap();
    assert_eq!(heap["rises"], true, "{heap}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("WRONG  sqlite: heap rises from"), "{output:?}");
}
