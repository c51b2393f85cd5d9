//! Owns the checks of runs that cannot start: exit status 2, and a message that says what to do.
//! Must not know what a run does.

use std::net::TcpListener;

use crate::support::{Finished, Suite};

/// A text that must not appear in any output.
const SECRET: &str = "hunter2";

/// Runs, and expects an error that contains all `parts`.
#[track_caller]
fn refused(suite: Suite, parts: &[&str]) -> Finished {
    let run = suite.run().expect_code(2);
    for part in parts {
        assert!(run.stderr.contains(part), "no {part:?} in:\n{}", run.stderr);
    }
    assert!(run.stderr.lines().any(|line| line.starts_with("error: ")), "{}", run.stderr);
    assert_eq!(run.stdout, "", "nothing ran");
    assert!(!run.stderr.contains(SECRET), "{}", run.stderr);
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    assert!(!run.dir().join("report/report.json").exists(), "a run that did not start has no report");
    run
}

#[test]
fn options_that_make_no_sense() {
    let check = |args: &[&str], parts: &[&str]| drop(refused(Suite::new(args), parts));
    check(&["--workres", "3"], &["'--workres'", "'--workers'"]);
    check(&["large_batch"], &["'large_batch'", "--help"]);
    check(&["--case", "hihg_throughput"], &["'hihg_throughput'", "a similar value exists: 'high_throughput'"]);
    check(&["--case", "nothing_alike"], &["possible values: high_throughput, concurrent_workers"]);
    check(&["--db", "oracle"], &["'oracle'", "possible values: sqlite"]);
    for option in ["--workers", "--records-per-worker", "--batch-size", "--buffer-size"] {
        check(&[option, "0"], &[option, "must be at least 1"]);
        check(&[option, "many"], &[option, "not a whole number"]);
    }
    check(
        &["--batch-size", "600", "--buffer-size", "500"],
        &["600", "500", "raise --buffer-size or lower --batch-size"],
    );
    check(&["--batch-size", "99999999999", "--buffer-size", "99999999999"], &["at most 4294967295; lower"]);
    check(&["--duration", "soon"], &["--duration", "write it like 100ms, 90s or 30m"]);
    check(&["--duration", "0s"], &["--duration", "must be above zero"]);
    check(&["--flush-interval", "10"], &["--flush-interval", "write it like 100ms, 90s or 30m"]);
    refused(Suite::with_default_port(&["--metrics-port", "70000"]), &["--metrics-port", "0..=65535"]);
}

#[test]
fn variables_that_make_no_sense() {
    let check = |name: &str, value: &str, parts: &[&str]| refused(Suite::new(&[]).env(name, value), parts);
    check("BATCH_SIZE", "0", &["--batch-size", "must be at least 1"]);
    check("CONCURRENT_WORKERS", "", &["--workers", "not a whole number"]);
    check("TEST_DURATION", "soon", &["--duration", "write it like"]);
    check("METRICS_BIND", "localhost", &["--metrics-bind", "localhost"]);
    check("LINGER", "long", &["--linger", "write it like"]);
    check("BUFFER_SIZE", "499", &["--batch-size 500 is above --buffer-size 499"]);
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let parts = [&*port, "already listens there", "choose another port with --metrics-port or PROMETHEUS_PORT"];
    refused(Suite::with_default_port(&["--metrics-port", &port]), &parts);
}

#[test]
fn a_report_folder_that_cannot_be() {
    let check = |suite: Suite, part: &str| {
        let run = refused(suite, &[part, "--report-dir"]);
        assert!(!run.stderr.contains("live metrics"), "the check comes before the metrics: {}", run.stderr);
    };
    // Every suite of these tests has `--report-dir report`.
    let suite = Suite::new(&[]);
    std::fs::write(suite.dir().join("report"), "not a folder").unwrap();
    check(suite, "`report`");

    let suite = Suite::new(&[]);
    std::fs::create_dir_all(suite.dir().join("report/junit.xml")).unwrap();
    check(suite, "`junit.xml` is a folder");
}

#[test]
fn databases_that_cannot_be_opened() {
    let check = |dsn: &str, parts: &[&str]| {
        let both = [parts, &["SQLITE_DSN or --sqlite-dsn"]].concat();
        for suite in [Suite::new(&[]).env("SQLITE_DSN", dsn), Suite::new(&["--sqlite-dsn", dsn])] {
            std::fs::write(suite.dir().join("text.db"), "this is not a database".repeat(100)).unwrap();
            refused(suite, &both);
        }
    };
    const FORMS: &str = "use sqlite::memory:, sqlite:relative.db or sqlite:///absolute.db";
    check("postgres://u:hunter2@h/db", &["\"postgres\"", FORMS]);
    check("sqlite://u:hunter2@h/db", &["no user, password or host", FORMS]);
    check("u:hunter2@h/db", &[FORMS]);
    check("hunter2", &[FORMS]);
    check("", &[FORMS]);
    check("sqlite:", &["names no file", FORMS]);
    check("sqlite:a.db?mode=hunter2", &["is not rwc, rw or memory"]);
    check("sqlite:missing/a.db", &["missing/a.db", "create the folder first"]);
    check("sqlite:missing.db?mode=rw", &["no such file; create it or use mode=rwc"]);
    check("sqlite:tmp", &["it is a folder; name a file"]);
    check("sqlite:text.db", &["not a sqlite database; name another file"]);
}

#[test]
fn passwords_stay_hidden_with_every_log_line_on() {
    let suite = Suite::new(&[]).env("SQLITE_DSN", "postgres://u:hunter2@h/db").env("RUST_LOG", "trace");
    refused(suite, &["\"postgres\""]);
}

/// A password may hold any character, including those with a meaning in a DSN.
#[test]
fn passwords_with_special_characters_stay_hidden() {
    for dsn in ["sqlite://u:x?hunter2@h/db", "sqlite://u:x&hunter2@h/db", "sqlite://u:x?a&hunter2@h/db"] {
        refused(Suite::new(&[]).env("SQLITE_DSN", dsn), &["sqlite"]);
    }
}
