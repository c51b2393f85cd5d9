//! Owns the checks of runs in which every case passes: exit status, the three files, the table.
//! Must not know databases.

use serde_json::Value;

use crate::support::{CASES, SMALL, Suite, line, results};

/// The fields of a test result in the requirements document.
const TEST_RESULT: [&str; 12] = [
    "database",
    "test_name",
    "duration",
    "total_records",
    "actual_records",
    "data_integrity_rate",
    "records_per_second",
    "rps_valid",
    "rps_note",
    "concurrent_workers",
    "errors",
    "success",
];

#[test]
fn every_case_passes_and_is_in_every_output() {
    let run = Suite::new(&SMALL).run().expect_code(0);
    let report = run.report();

    assert_eq!(report["summary"]["passed"], 10);
    assert_eq!(report["summary"]["success"], true);
    assert_eq!(report["summary"]["interrupted"], false);
    assert_eq!(report["config"]["cases"], Value::from(CASES.to_vec()));
    assert_eq!((&report["config"]["workers"], &report["config"]["records_per_worker"]), (&2.into(), &500.into()));
    assert_eq!(report["environment"]["databases"][0]["name"], "sqlite");
    assert_eq!(report["environment"]["databases"][0]["location"], "temporary file");
    assert!(report["environment"]["cpus"].as_u64().unwrap() > 0);

    let results = results(&report);
    let names: Vec<&str> = results.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, CASES);
    for (name, result) in results {
        sound(name, result);
        let line = line(&run.stdout, name);
        assert!(line.contains(" passed "), "{line}");
    }
    let verdict = run.stdout.lines().find(|line| line.starts_with("PASSED: ")).expect("there is a verdict");
    assert!(verdict.starts_with("PASSED: 10 of 10 cases passed, 0 failed, 0 skipped; "), "{verdict}");
    assert!(run.stdout.contains("report.html"), "{}", run.stdout);
    // The log of a build must have no progress bar and no colours.
    assert!(!run.stdout.contains('\u{1b}') && !run.stderr.contains('\u{1b}'), "{}{}", run.stdout, run.stderr);
    assert_eq!(run.stderr.lines().count(), 2, "only the addresses of the metrics and of the page: {}", run.stderr);

    self_contained(&run.page());
    let junit = run.junit();
    assert_eq!(junit.matches("<testcase ").count(), 10, "{junit}");
    for tag in ["<failure", "<error", "<skipped"] {
        assert!(!junit.contains(tag), "{junit}");
    }
    for name in CASES {
        assert!(junit.contains(&format!("<testcase name=\"{name}\" classname=\"batchsql.sqlite\"")), "{name}: {junit}");
    }
    let left: Vec<_> = std::fs::read_dir(run.dir().join("tmp")).unwrap().collect();
    assert!(left.is_empty(), "temporary files are left: {left:?}");
}

/// Checks every case that passed.
fn sound(name: &str, result: &Value) {
    for field in TEST_RESULT {
        assert!(result.get(field).is_some(), "{name} has no {field}");
    }
    assert_eq!(result["success"], true, "{name}");
    assert_eq!(result["errors"], Value::Array(Vec::new()), "{name}");
    assert_eq!(result["data_integrity_rate"], 100.0, "{name}");
    assert!(result["duration"].as_f64().unwrap() > 0.0, "{name}");
    assert!(result["records_per_second"].as_f64().unwrap() > 0.0, "{name}");
    assert!(result["concurrent_workers"].as_u64().unwrap() >= 2, "{name}");
    // The rate of a case with a fixed rate is not a measurement, and the report says so.
    assert_eq!(result["rps_valid"], name != "long_duration", "{name}");
    assert_eq!(result["rps_note"].is_string(), name == "long_duration", "{name}");

    let integrity = &result["integrity"];
    assert_eq!(integrity["matches"], true, "{name}");
    assert_eq!(integrity["expected_rows"], integrity["actual_rows"], "{name}");
    assert_eq!(integrity["actual_rows"], result["actual_records"], "{name}");
    assert!(integrity["actual_rows"].as_u64().unwrap() > 0, "{name}");
    assert_eq!(integrity["expected_checksum"], integrity["actual_checksum"], "{name}");
    assert!(!integrity["actual_checksum"].as_str().unwrap().is_empty(), "{name}");

    let balance = result["balance"].as_object().unwrap();
    let outcomes: u64 = balance.iter().filter(|(kind, _)| *kind != "accepted").map(|(_, n)| n.as_u64().unwrap()).sum();
    assert_eq!(balance["accepted"], result["total_records"], "{name}");
    assert_eq!(balance["accepted"], outcomes, "{name}: every row has one outcome");
    assert!(result["batches"].as_u64().unwrap() > 0, "{name}");
    assert!(result["memory"]["peak_mb"].as_f64().unwrap() > 1.0, "{name}");
    assert!(!result["series"].as_array().unwrap().is_empty(), "{name} has no curve");
}

/// The page must work without a network.
fn self_contained(page: &str) {
    for load in [
        "src=\"http",
        "src='http",
        "src=\"//",
        "href=\"http",
        "href=\"//",
        "<link rel=\"stylesheet",
        "@import",
        "url(http",
        "fetch(",
    ] {
        assert!(!page.contains(load), "the page has {load}");
    }
    for name in CASES {
        assert!(page.contains(name), "{name} is not on the page");
    }
}

#[test]
fn only_the_cases_asked_for_run() {
    let asked = ["large_batch", "duplicate_key_upsert"];
    let run = Suite::new(&SMALL).args(&["--case", asked[0], "--case", asked[1]]).run().expect_code(0);
    let report = run.report();
    let names: Vec<&str> = results(&report).iter().map(|(name, _)| *name).collect();
    assert_eq!(names, asked);
    let junit = run.junit();
    assert_eq!(junit.matches("<testcase ").count(), 2, "{junit}");
    for case in CASES {
        let wanted = asked.contains(&case);
        assert_eq!(run.stdout.contains(case), wanted, "{case}:\n{}", run.stdout);
        assert_eq!(junit.contains(case), wanted, "{case}:\n{junit}");
    }
}
