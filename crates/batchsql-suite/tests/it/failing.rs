//! Owns the checks of runs in which a case fails, because the test changes the database meanwhile.
//! Must not know how the suite compares rows.

use batchsql::sqlite::rusqlite::Connection;

use crate::support::{CASES, Finished, SMALL, Suite, database, errors, eventually, line, objects, results, test_case};

/// Checks that exactly `failed` failed, and that every output shows it.
#[track_caller]
fn only(run: &Finished, failed: &[&str]) {
    let (report, junit) = (run.report(), run.junit());
    for (name, result) in results(&report) {
        let fails = failed.contains(&name);
        assert_eq!(result["success"], !fails, "{name}: {result}");
        assert_eq!(errors(result).is_empty(), !fails, "{name}: {result}");
        let word = if fails { " FAILED " } else { " passed " };
        assert!(line(&run.stdout, name).contains(word), "{}", run.stdout);
        assert_eq!(test_case(&junit, name).contains("<failure "), fails, "{name}: {junit}");
        if fails {
            assert_eq!(result["rps_valid"], false, "the rate of {name} is not valid");
        }
    }
    assert_eq!(report["summary"]["failed"], failed.len());
    assert_eq!(report["summary"]["skipped"], 0);
    assert_eq!(report["summary"]["success"], false);
    assert_eq!(junit.matches("<failure ").count(), failed.len(), "{junit}");
    let verdict = format!(
        "FAILED: {} of {} cases passed, {} failed,",
        results(&report).len() - failed.len(),
        results(&report).len(),
        failed.len()
    );
    assert!(run.stdout.lines().any(|line| line.starts_with(&verdict)), "{}", run.stdout);
}

/// A view in place of a table cannot be dropped as a table.
fn with_a_view_named(name: &str) -> (Finished, Connection) {
    let suite = Suite::new(&SMALL);
    let (_, conn, dsn) = database(suite.dir());
    conn.execute_batch(&format!("CREATE VIEW {name} AS SELECT * FROM users")).unwrap();
    (suite.env("SQLITE_DSN", dsn).run().expect_code(1), conn)
}

#[test]
fn a_case_without_its_table_fails_and_the_others_run() {
    let (run, _conn) = with_a_view_named("batchsql_suite_accounts");
    let failed = ["duplicate_key_upsert", "mixed_tables", "concurrent_upserts"];
    only(&run, &failed);
    let report = run.report();
    assert_eq!(results(&report).len(), CASES.len());
    let junit = run.junit();
    for name in failed {
        let (_, result) = results(&report).into_iter().find(|(have, _)| *have == name).unwrap();
        let message = errors(result)[0];
        assert!(message.contains("cannot create table batchsql_suite_accounts"), "{message}");
        assert!(test_case(&junit, name).contains(message), "{junit}");
        assert!(run.page().contains(message), "the page does not say why {name} failed");
    }
    assert!(!run.everything().contains("own-data.db"), "the path of the database is shown");
}

#[test]
fn a_case_that_fails_leaves_no_table_behind() {
    // It is the third of the four tables of the case.
    let (run, conn) = with_a_view_named("batchsql_suite_visits");
    only(&run, &["mixed_tables"]);
    assert_eq!(objects(&conn), ["table users", "view batchsql_suite_visits"]);
}

/// Runs a case of about two seconds, and changes its table after the first rows.
fn meddled(sql: &str) -> Finished {
    let suite = Suite::new(&["--case", "long_duration", "--workers", "2", "--records-per-worker", "10000"]);
    let (_, conn, dsn) = database(suite.dir());
    let mut running = suite.env("SQLITE_DSN", dsn).start();
    eventually("the first row", || {
        assert!(running.is_running(), "the run ended before the change");
        // This fails until the table exists.
        conn.query_row("SELECT id FROM batchsql_suite_events LIMIT 1", [], |row| row.get::<_, i64>(0)).ok()
    });
    conn.execute_batch(sql).unwrap();
    let run = running.wait().expect_code(1);
    only(&run, &["long_duration"]);
    run
}

#[test]
fn a_row_that_is_lost_is_found_missing() {
    let sql = "DELETE FROM batchsql_suite_events WHERE id = (SELECT min(id) FROM batchsql_suite_events)";
    let report = meddled(sql).report();
    let (_, result) = results(&report)[0];
    assert_eq!(result["integrity"]["matches"], false);
    assert_eq!(result["integrity"]["expected_rows"], 20_000);
    assert_eq!(result["integrity"]["actual_rows"], 19_999);
    assert_eq!(result["actual_records"], 19_999);
    assert_eq!(result["data_integrity_rate"], 99.995);
    assert!(errors(result)[0].starts_with("table batchsql_suite_events: 19999 rows"), "{result}");
}

#[test]
fn a_row_that_changed_is_found_out() {
    let sql =
        "UPDATE batchsql_suite_events SET active = 1 - active WHERE id = (SELECT min(id) FROM batchsql_suite_events)";
    let report = meddled(sql).report();
    let (_, result) = results(&report)[0];
    let integrity = &result["integrity"];
    assert_eq!(integrity["matches"], false);
    assert_eq!((&integrity["expected_rows"], &integrity["actual_rows"]), (&20_000.into(), &20_000.into()));
    assert_ne!(integrity["expected_checksum"], integrity["actual_checksum"]);
    assert!(result["data_integrity_rate"].as_f64().unwrap() < 100.0, "{result}");
}

#[test]
fn a_row_that_nobody_submitted_is_found_out() {
    let sql = "INSERT INTO batchsql_suite_events SELECT -1, name, email, payload, amount, active, created_at
        FROM batchsql_suite_events LIMIT 1";
    let report = meddled(sql).report();
    let (_, result) = results(&report)[0];
    assert_eq!(result["integrity"]["matches"], false);
    assert_eq!(result["integrity"]["actual_rows"], 20_001);
    assert!(errors(result)[0].starts_with("table batchsql_suite_events: 20001 rows"), "{result}");
}

#[test]
fn rows_that_the_database_refuses_fail_alone_and_are_named_without_their_values() {
    let sql = "CREATE TRIGGER refuse BEFORE INSERT ON batchsql_suite_events WHEN NEW.id % 1000 = 999
        BEGIN SELECT RAISE(ABORT, 'no thousands here'); END";
    let run = meddled(sql);
    let report = run.report();
    let (_, result) = results(&report)[0];
    let rejected = result["balance"]["rejected"].as_u64().unwrap();
    assert!((1..=20).contains(&rejected), "{result}");
    assert_eq!(result["balance"]["written"], 20_000 - rejected, "good rows of the same batches are written");
    assert_eq!(result["actual_records"], 20_000 - rejected);
    assert_eq!(result["integrity"]["matches"], false);
    let errors = errors(result);
    assert!(errors[0].starts_with("a row of table batchsql_suite_events was rejected: "), "{errors:?}");
    assert!(errors.contains(&&*format!("{rejected} rows were not written")), "{errors:?}");
    // Each row has an address derived from its key.
    assert!(!run.everything().contains("@example"), "a value of a row is shown");
}
