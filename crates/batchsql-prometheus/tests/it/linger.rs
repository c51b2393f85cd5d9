//! Owns the checks of lingering: who counts as a watcher, and when a run may end.
//! Must not know how watchers are counted.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use batchsql_prometheus::{Lingered, PrometheusMetrics, ServerOptions};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::http::{Connection, get, get_with};

const SCRAPER: (&str, &str) = ("X-Prometheus-Scrape-Timeout-Seconds", "5");
const LIMIT: Duration = Duration::from_secs(30);

async fn started(options: ServerOptions) -> (PrometheusMetrics, SocketAddr) {
    let metrics = PrometheusMetrics::new().unwrap();
    let address = metrics.start_server_with(options.port(0)).await.unwrap();
    (metrics, address)
}

fn lingering(metrics: &PrometheusMetrics) -> JoinHandle<Lingered> {
    let metrics = metrics.clone();
    tokio::spawn(async move { metrics.linger(LIMIT).await })
}

#[tokio::test]
async fn nobody_is_waited_for_who_does_not_scrape() {
    let (metrics, address) = started(ServerOptions::new().bearer_token("s3cret")).await;
    let begin = Instant::now();
    assert_eq!(metrics.linger(LIMIT).await, Lingered::NobodyWatches);
    // A browser, a curious one, and a probe.
    assert_eq!(get_with(address, "/metrics", &[("Authorization", "Bearer s3cret")]).status, 200);
    assert_eq!(get_with(address, "/metrics", &[SCRAPER]).status, 401);
    assert_eq!(get_with(address, "/health", &[SCRAPER]).status, 200);
    assert_eq!(metrics.linger(LIMIT).await, Lingered::NobodyWatches);
    assert!(begin.elapsed() < LIMIT / 2, "it waited");
    metrics.stop_server().await.unwrap();
    assert_eq!(metrics.await_scrapes(LIMIT).await, Lingered::NobodyWatches, "nothing is served");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_scrapes_that_begin_after_the_call_end_it() {
    let (metrics, address) = started(ServerOptions::new()).await;
    get_with(address, "/metrics", &[SCRAPER]);
    let lingering = lingering(&metrics);
    sleep(Duration::from_millis(100)).await;
    get(address, "/metrics");
    Connection::open(address).ask("HEAD", "/metrics", &[SCRAPER]);
    get_with(address, "/metrics", &[SCRAPER]);
    sleep(Duration::from_millis(100)).await;
    assert!(!lingering.is_finished(), "one scrape is no two");
    get_with(address, "/metrics", &[SCRAPER]);
    assert_eq!(lingering.await.unwrap(), Lingered::Scraped);
    metrics.stop_server().await.unwrap();
}

#[tokio::test]
async fn a_scraper_that_is_gone_is_waited_for_no_longer_than_the_limit() {
    let (metrics, address) = started(ServerOptions::new()).await;
    get_with(address, "/metrics", &[SCRAPER]);
    let begin = Instant::now();
    assert_eq!(metrics.linger(Duration::from_millis(300)).await, Lingered::TimedOut);
    assert!(begin.elapsed() >= Duration::from_millis(300));
    // Nor is it known any more.
    assert_eq!(metrics.linger(Duration::from_millis(1)).await, Lingered::NobodyWatches);
    metrics.stop_server().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_known_to_come_is_waited_for() {
    let (metrics, address) = started(ServerOptions::new()).await;
    let waiting = metrics.clone();
    let waiting = tokio::spawn(async move { waiting.await_scrapes(LIMIT).await });
    for _ in 0..2 {
        sleep(Duration::from_millis(50)).await;
        assert!(!waiting.is_finished());
        get_with(address, "/metrics", &[SCRAPER]);
    }
    assert_eq!(waiting.await.unwrap(), Lingered::Scraped);
    metrics.stop_server().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lingering_can_be_given_up() {
    let (metrics, address) = started(ServerOptions::new()).await;
    get_with(address, "/metrics", &[SCRAPER]);
    let first = lingering(&metrics);
    sleep(Duration::from_millis(50)).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let second = lingering(&metrics);
    sleep(Duration::from_millis(50)).await;
    for _ in 0..2 {
        get_with(address, "/metrics", &[SCRAPER]);
    }
    assert_eq!(second.await.unwrap(), Lingered::Scraped);
    metrics.stop_server().await.unwrap();
}
