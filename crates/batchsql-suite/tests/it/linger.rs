//! Owns the checks of the end of a run: for which scrapers it waits, how long, and what they scrape until then.
//! Must not know how the program detects scrapers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use batchsql_testserver::{samples, sum};

use crate::support::{Suite, get, results, scrape};

/// A limit that no test reaches unless it fails.
const LONG: &str = "100s";
const INTERVAL: Duration = Duration::from_millis(100);

fn short(linger: &str, args: &[&str]) -> Suite {
    let suite = Suite::new(&["--case", "high_throughput", "--case", "mixed_tables", "--linger", linger]);
    suite.args(&["--workers", "2", "--records-per-worker", "500"]).args(args)
}

/// Scrapes like Prometheus until the endpoint is closed; returns every scrape.
fn scraper(address: SocketAddr) -> JoinHandle<Vec<String>> {
    spawn(move || {
        let mut scrapes = Vec::new();
        while let Ok(scrape) = scrape(address) {
            scrapes.push(scrape);
            sleep(INTERVAL);
        }
        scrapes
    })
}

fn shows_the_last_case(scrape: &&String) -> bool {
    counted(scrape, "batchsql_test_success", "mixed_tables") == Some(1.0)
}

#[test]
fn without_a_watcher_there_is_no_wait() {
    let begin = Instant::now();
    let running = short(LONG, &[]).start();
    let address = running.address();
    // A manual request does not cause a wait.
    assert_eq!(get(address, "/metrics").status, 200);
    let run = running.wait().expect_code(0);
    assert!(begin.elapsed() < Duration::from_secs(90), "it waited");
    assert!(!run.stderr.contains("lingering"), "{}", run.stderr);
}

#[test]
fn a_watcher_sees_the_result_of_the_last_case_twice() {
    let running = short(LONG, &[]).start();
    let scrapes = scraper(running.address());
    let run = running.wait().expect_code(0);
    let scrapes = scrapes.join().unwrap();
    assert!(
        run.stderr.contains("lingering for at most 1m 40s, so that Prometheus sees the last values"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("\nPrometheus has the last values\n"), "{}", run.stderr);
    let last = scrapes.iter().filter(shows_the_last_case).count();
    assert!(last >= 2, "{last} of {} scrapes have the last case", scrapes.len());
}

/// The sum of a counter over a case, if it is there.
fn counted(scrape: &str, name: &str, case: &str) -> Option<f64> {
    sum(scrape, name, &[("test_case", case)])
}

#[test]
fn a_watcher_that_is_announced_sees_every_case_from_its_start_to_its_end() {
    let running = short(LONG, &["--watched"]).start();
    let address = running.address();
    let why = running.hear("waiting for the first scrape");
    assert_eq!(why, ", so that Prometheus sees every case from its start");
    let first = scrape(address).unwrap();
    running.hear("lingering ");
    let scrapes = scraper(address);
    let run = running.wait().expect_code(0);
    assert!(run.stderr.contains("Prometheus has the last values"), "{}", run.stderr);
    let scrapes = scrapes.join().unwrap();
    assert!(scrapes.iter().filter(shows_the_last_case).count() >= 2);
    for case in ["high_throughput", "mixed_tables"] {
        for name in ["batchsql_records_processed_total", "batchsql_batch_size_sum", "batchsql_batch_execution_total"] {
            assert_eq!(counted(&first, name, case), Some(0.0), "{name} of {case}");
            assert!(counted(&scrapes[0], name, case) > Some(0.0), "{name} of {case}");
        }
        let rows =
            results(&run.report()).iter().find(|(name, _)| *name == case).unwrap().1["balance"]["written"].clone();
        assert_eq!(counted(&scrapes[0], "batchsql_records_processed_total", case), rows.as_f64());
    }
    // Prometheus does not see the increase of counters that are created later.
    let series = |scrape: &str| -> BTreeSet<(String, BTreeMap<String, String>)> {
        let counters = samples(scrape).into_iter().filter(|sample| sample.labels.contains_key("table"));
        counters.map(|sample| (sample.name, sample.labels)).collect()
    };
    assert_eq!(series(&first), series(&scrapes[0]));
}

#[test]
fn a_watcher_that_never_comes_is_given_up() {
    let run = short("300ms", &["--watched"]).run().expect_code(0);
    for part in ["it may not see short cases", "it may lack the last values"] {
        assert!(run.stderr.contains(&format!("Prometheus did not scrape within 300ms: {part}")), "{}", run.stderr);
    }
}

#[test]
fn a_stderr_that_nobody_reads_fails_no_run() {
    assert_eq!(short("300ms", &["--watched"]).run_unheard(), Some(0));
}

#[test]
fn lingering_can_be_switched_off() {
    let running = short("0", &["--watched"]).env("LINGER", "7s").start();
    let scrapes = scraper(running.address());
    let run = running.wait().expect_code(0);
    assert!(!run.stderr.contains("lingering"), "{}", run.stderr);
    scrapes.join().unwrap();
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_wait_and_not_the_run() {
    let running = short(LONG, &["--watched"]).start();
    let address = running.address();
    running.hear("waiting for the first scrape");
    scrape(address).unwrap();
    running.hear("lingering ");
    let begin = Instant::now();
    running.interrupt();
    let run = running.wait().expect_code(0);
    assert!(begin.elapsed() < Duration::from_secs(60), "it took {:?}", begin.elapsed());
    assert!(run.stderr.contains("no longer lingering"), "{}", run.stderr);
    assert_eq!(run.report()["summary"]["interrupted"], false, "the run was over");
    assert_eq!(results(&run.report()).len(), 2);
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_wait_for_the_first_scrape_and_the_run() {
    let running = short(LONG, &["--watched"]).start();
    running.hear("waiting for the first scrape");
    let begin = Instant::now();
    running.interrupt();
    let run = running.wait().expect_code(130);
    assert!(begin.elapsed() < Duration::from_secs(60), "it took {:?}", begin.elapsed());
    assert!(!run.stderr.contains("lingering"), "no values to wait for: {}", run.stderr);
    assert!(results(&run.report()).iter().all(|(_, result)| result["skipped"] == true));
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_is_seen_as_well_until_the_second_ctrl_c() {
    let start = || {
        let suite = Suite::new(&["--case", "long_duration", "--workers", "2", "--records-per-worker", "100000"]);
        let running = suite.args(&["--watched", "--linger", LONG]).start();
        let address = running.address();
        running.hear("waiting for the first scrape");
        while counted(&scrape(address).unwrap(), "batchsql_records_processed_total", "long_duration") < Some(1.0) {
            sleep(INTERVAL);
        }
        running.interrupt();
        running.hear("lingering ");
        (running, address)
    };
    let (running, address) = start();
    let scrapes = scraper(address);
    let run = running.wait().expect_code(130);
    assert!(run.stderr.contains("Prometheus has the last values"), "{}", run.stderr);
    let ended = |scrape: &&String| counted(scrape, "batchsql_test_duration_seconds", "long_duration").is_some();
    assert!(scrapes.join().unwrap().iter().filter(ended).count() >= 2, "the result was not scraped");

    let (running, _) = start();
    // A second signal at once counts as a duplicate.
    running.interrupt();
    sleep(Duration::from_millis(1_500));
    let begin = Instant::now();
    running.interrupt();
    let run = running.wait().expect_code(130);
    assert!(begin.elapsed() < Duration::from_secs(60), "it took {:?}", begin.elapsed());
    assert!(run.stderr.contains("no longer lingering"), "{}", run.stderr);
    assert_eq!(run.report()["summary"]["interrupted"], true);
}

#[test]
fn metrics_are_served_on_each_address_that_was_asked_for() {
    let running = short(LONG, &["--watched"]).env("METRICS_BIND", "127.0.0.1,127.0.0.2").start();
    let addresses = [running.address(), running.address()];
    assert_eq!(addresses.map(|address| address.ip().to_string()), ["127.0.0.1", "127.0.0.2"]);
    assert_eq!(running.hear("live page: "), format!("http://{}/", addresses[0]));
    for address in addresses {
        assert_eq!(get(address, "/health").status, 200, "{address}");
    }
    drop(running);
    let run = short(LONG, &[]).args(&["--metrics-bind", "192.0.2.1"]).run().expect_code(2);
    for part in ["192.0.2.1", "--metrics-bind", "this machine has no such address"] {
        assert!(run.stderr.contains(part), "{}", run.stderr);
    }
}
