//! Owns the checks of the end of a run: who is waited for, how long, and what is seen until then.
//! Must not know how the program finds out.

use std::net::SocketAddr;
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use crate::support::{Suite, get, results, scrape};

/// A limit that no test waits for, because each ends before it, or fails.
const LONG: &str = "100s";
const INTERVAL: Duration = Duration::from_millis(100);

fn short(linger: &str, args: &[&str]) -> Suite {
    let suite = Suite::new(&["--case", "high_throughput", "--case", "mixed_tables", "--linger", linger]);
    suite.args(&["--workers", "2", "--records-per-worker", "500"]).args(args)
}

/// Scrapes like Prometheus until nobody answers; returns every scrape.
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
    scrape.lines().any(|line| {
        let name = line.starts_with("batchsql_test_success{") && line.contains("test_case=\"mixed_tables\"");
        name && line.ends_with(" 1")
    })
}

#[test]
fn without_a_watcher_there_is_no_wait() {
    let begin = Instant::now();
    let running = short(LONG, &[]).start();
    let address = running.address();
    // A person who looks is not waited for.
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

#[test]
fn a_watcher_that_is_announced_is_waited_for_although_it_comes_late() {
    let running = short(LONG, &["--watched"]).start();
    let address = running.address();
    running.hear("lingering ");
    let scrapes = scraper(address);
    let run = running.wait().expect_code(0);
    assert!(run.stderr.contains("Prometheus has the last values"), "{}", run.stderr);
    assert!(scrapes.join().unwrap().iter().filter(shows_the_last_case).count() >= 2);
}

#[test]
fn a_watcher_that_never_comes_is_given_up() {
    let run = short("300ms", &["--watched"]).run().expect_code(0);
    assert!(run.stderr.contains("Prometheus did not come within 300ms"), "{}", run.stderr);
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
    running.hear("lingering ");
    let begin = Instant::now();
    running.interrupt();
    let run = running.wait().expect_code(0);
    assert!(begin.elapsed() < Duration::from_secs(20), "it took {:?}", begin.elapsed());
    assert!(run.stderr.contains("no longer lingering"), "{}", run.stderr);
    assert_eq!(run.report()["summary"]["interrupted"], false, "the run was over");
    assert_eq!(results(&run.report()).len(), 2);
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
