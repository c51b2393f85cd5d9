//! Owns the checks of the effects of options and environment variables, and of their precedence.
//! Must not know invalid values.

use std::net::TcpListener;

use crate::support::{Finished, Suite, VARIABLES, results};

/// A variable, its value, its option, another value, and the place of both in the report.
type Setting = (&'static str, &'static str, &'static str, &'static str, &'static str, [f64; 2]);

const SETTINGS: [Setting; 6] = [
    ("TEST_DURATION", "90s", "--duration", "2m", "duration_seconds", [90.0, 120.0]),
    ("CONCURRENT_WORKERS", "3", "--workers", "4", "workers", [3.0, 4.0]),
    ("RECORDS_PER_WORKER", "7", "--records-per-worker", "11", "records_per_worker", [7.0, 11.0]),
    ("BATCH_SIZE", "5", "--batch-size", "6", "batch_size", [5.0, 6.0]),
    ("BUFFER_SIZE", "50", "--buffer-size", "60", "buffer_size", [50.0, 60.0]),
    ("FLUSH_INTERVAL", "20ms", "--flush-interval", "1s", "flush_interval_ms", [20.0, 1000.0]),
];

fn one_case() -> Suite {
    let suite = Suite::with_default_port(&["--case", "high_throughput"]);
    SETTINGS.iter().fold(suite, |suite, (variable, value, ..)| suite.env(variable, value))
}

/// The rows, and the minimum number of batches.
fn check(run: &Finished, which: usize, rows: u64, batches: u64) {
    let report = run.report();
    for (.., key, values) in SETTINGS {
        assert_eq!(report["config"][key].as_f64(), Some(values[which]), "{key}");
    }
    let (_, result) = results(&report)[0];
    assert_eq!(result["total_records"], rows);
    assert_eq!(result["concurrent_workers"].as_f64(), Some(SETTINGS[1].5[which]));
    assert!(result["batches"].as_u64().unwrap() >= batches, "{result}");
}

#[test]
fn variables_count_and_options_win_over_them() {
    // A port in use shows which of the two settings is used.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();

    let run = one_case().env("PROMETHEUS_PORT", &port).run().expect_code(2);
    assert!(run.stderr.contains(&port), "{}", run.stderr);

    let run = one_case().env("PROMETHEUS_PORT", "0").env("SQLITE_DSN", "sqlite::memory:").run().expect_code(0);
    check(&run, 0, 3 * 7, 5);
    assert_eq!(run.report()["environment"]["databases"][0]["location"], "in memory");

    let options: Vec<&str> = SETTINGS.iter().flat_map(|(_, _, option, value, ..)| [*option, *value]).collect();
    let suite = one_case().env("PROMETHEUS_PORT", &port).env("SQLITE_DSN", "sqlite::memory:").args(&options);
    let run = suite.args(&["--metrics-port", "0", "--sqlite-dsn", "sqlite:given.db"]).run().expect_code(0);
    check(&run, 1, 4 * 11, 8);
    assert_eq!(run.report()["environment"]["databases"][0]["location"], "file");
    assert!(run.dir().join("given.db").exists());
}

#[test]
fn the_duration_ends_a_case_early_and_its_rows_still_count() {
    // A run of ten seconds.
    let args = ["--case", "long_duration", "--workers", "2", "--records-per-worker", "50000", "--duration", "400ms"];
    let run = Suite::new(&args).run().expect_code(0);
    let report = run.report();
    let (_, result) = results(&report)[0];
    let rows = result["total_records"].as_u64().unwrap();
    assert!(rows > 0 && rows < 100_000, "{rows}");
    assert_eq!(result["actual_records"], rows);
    assert_eq!(result["integrity"]["matches"], true);
    assert_eq!(report["summary"]["interrupted"], false, "the time limit is not an interruption");
}

#[test]
fn help_names_every_variable_and_shows_no_secret() {
    let run = Suite::new(&["--help"]).env("SQLITE_DSN", "sqlite://u:hunter2@h/db").run().expect_code(0);
    for variable in VARIABLES {
        assert!(run.stdout.contains(&format!("[env: {variable}")), "{variable}:\n{}", run.stdout);
    }
    assert!(!run.stdout.contains("hunter2"), "{}", run.stdout);
    assert_eq!(run.stderr, "");
}
