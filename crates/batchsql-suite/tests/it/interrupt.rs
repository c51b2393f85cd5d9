//! Owns the checks of Ctrl-C and SIGTERM: the run ends soon, with a report of the work until then.
//! Must not know other ways to end a run.

use std::time::{Duration, Instant};

use crate::support::{Running, Suite, database, errors, eventually, get, line, results, test_case};

/// A run of several minutes.
const LONG: [&str; 6] = ["--case", "long_duration", "--workers", "2", "--records-per-worker", "1000000"];
/// Draining takes less than a second, the remaining rows would take minutes; the machine may be busy.
const SOON: Duration = Duration::from_secs(60);

/// Waits until rows are in the database.
fn under_way(running: &Running) {
    let address = running.address();
    eventually("the first row", || {
        let scrape = get(address, "/metrics").body;
        let mut processed = scrape.lines().filter(|line| line.starts_with("batchsql_records_processed_total{"));
        processed.any(|line| !line.ends_with(" 0")).then_some(())
    });
}

#[test]
fn an_interruption_ends_the_case_skips_the_others_and_reports() {
    let others = ["high_throughput", "mixed_tables"];
    let running = Suite::new(&LONG).args(&["--case", others[0], "--case", others[1]]).start();
    under_way(&running);
    let begin = Instant::now();
    running.interrupt();
    let run = running.wait().expect_code(130);
    assert!(begin.elapsed() < SOON, "it took {:?}", begin.elapsed());
    assert!(run.stderr.contains("press Ctrl-C again to end at once"), "{}", run.stderr);

    let (report, junit) = (run.report(), run.junit());
    let summary = &report["summary"];
    assert_eq!((&summary["interrupted"], &summary["success"]), (&true.into(), &false.into()));
    assert_eq!((&summary["total"], &summary["passed"], &summary["skipped"]), (&3.into(), &1.into(), &2.into()));

    let (name, result) = results(&report)[0];
    assert_eq!((name, &result["skipped"]), ("long_duration", &false.into()));
    let rows = result["total_records"].as_u64().unwrap();
    assert!(rows > 0 && rows < 2_000_000, "{rows}");
    assert_eq!(result["integrity"]["matches"], true, "{result}");
    assert_eq!(result["integrity"]["expected_rows"], rows, "every row submitted until then was checked");
    assert_eq!(result["actual_records"], rows);
    assert_eq!(result["balance"]["written"], rows);
    assert!(errors(result).is_empty(), "the submitted rows are correct: {result}");
    assert!(result["rps_note"].as_str().unwrap().contains("interrupted"), "{result}");
    assert_eq!(result["rps_valid"], false);

    for (name, result) in &results(&report)[1..] {
        assert!(others.contains(name), "{name}");
        assert_eq!((&result["skipped"], &result["success"]), (&true.into(), &false.into()), "{name}");
        assert_eq!(result["total_records"], 0, "{name}");
        assert!(line(&run.stdout, name).contains(" skipped "), "{}", run.stdout);
        assert!(test_case(&junit, name).contains("<skipped"), "{junit}");
    }
    assert!(run.stdout.contains("stopped before its end"), "{}", run.stdout);
    assert!(junit.contains("<property name=\"interrupted\" value=\"true\"/>"), "{junit}");
    let left: Vec<_> = std::fs::read_dir(run.dir().join("tmp")).unwrap().collect();
    assert!(left.is_empty(), "temporary files are left: {left:?}");
}

#[test]
fn a_request_to_terminate_that_comes_twice_at_once_is_one_request() {
    let suite = Suite::new(&LONG);
    let (_, conn, dsn) = database(suite.dir());
    let mut running = suite.env("SQLITE_DSN", dsn).start();
    under_way(&running);
    // The lock keeps the run draining until the second signal.
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    // As `timeout` does: to the process and then to its group, after the first was handled.
    running.terminate();
    running.hear("interrupted: ");
    running.terminate();
    std::thread::sleep(Duration::from_millis(200));
    assert!(running.is_running(), "the second signal ended the drain");
    conn.execute_batch("COMMIT").unwrap();
    let run = running.wait().expect_code(130);
    assert_eq!(results(&run.report())[0].1["integrity"]["matches"], true);
}

#[test]
fn a_second_interruption_does_not_wait_for_a_database_that_hangs() {
    let suite = Suite::new(&LONG);
    let (_, conn, dsn) = database(suite.dir());
    let mut running = suite.env("SQLITE_DSN", dsn).start();
    under_way(&running);
    // From now on no row can be written, and draining would take minutes.
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    running.interrupt();
    // More than a second, so that it does not count as a duplicate.
    running.hear("interrupted: ");
    std::thread::sleep(Duration::from_millis(1_200));
    assert!(running.is_running(), "rows that cannot be written are not purged immediately");
    let begin = Instant::now();
    running.interrupt();
    running.wait().expect_code(130);
    assert!(begin.elapsed() < SOON, "it took {:?}", begin.elapsed());
}
