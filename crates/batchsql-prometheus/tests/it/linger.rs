//! Owns the checks of lingering: who counts as a watcher, and when a run may end.
//! Must not know how watchers are counted.

use std::future::ready;
use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use batchsql_prometheus::{Lingered, PrometheusMetrics, ServerOptions};

use crate::http::{Connection, connect, get, get_with};

const SCRAPER: (&str, &str) = ("X-Prometheus-Scrape-Timeout-Seconds", "5");
const LIMIT: Duration = Duration::from_secs(300);

async fn started(options: ServerOptions) -> (PrometheusMetrics, SocketAddr) {
    let metrics = PrometheusMetrics::new().unwrap();
    let address = metrics.start_server_with(options.port(0)).await.unwrap();
    (metrics, address)
}

/// Starts the wait, or checks whether it is over.
async fn is_over(waiting: &mut Pin<&mut impl Future<Output = Lingered>>) -> Option<Lingered> {
    tokio::select! {
        biased;
        lingered = waiting => Some(lingered),
        () = ready(()) => None,
    }
}

#[tokio::test]
async fn nobody_is_waited_for_who_does_not_scrape() {
    let (metrics, address) = started(ServerOptions::new().bearer_token("s3cret")).await;
    let begin = Instant::now();
    assert_eq!(metrics.linger(LIMIT).await, Lingered::NobodyWatches);
    // A browser, a manual request, and a probe.
    assert_eq!(get_with(address, "/metrics", &[("Authorization", "Bearer s3cret")]).status, 200);
    assert_eq!(get_with(address, "/metrics", &[SCRAPER]).status, 401);
    assert_eq!(get_with(address, "/health", &[SCRAPER]).status, 200);
    assert_eq!(metrics.linger(LIMIT).await, Lingered::NobodyWatches);
    assert!(begin.elapsed() < LIMIT / 2, "it waited");
    metrics.stop_server().await.unwrap();
    assert_eq!(metrics.await_scrapes(LIMIT).await, Lingered::NobodyWatches, "nothing is served");
    assert_eq!(metrics.await_scrape(LIMIT).await, Lingered::NobodyWatches, "nothing is served");
}

#[tokio::test]
async fn two_scrapes_that_begin_after_the_call_end_it() {
    let (metrics, address) = started(ServerOptions::new()).await;
    get_with(address, "/metrics", &[SCRAPER]);
    let mut lingering = pin!(metrics.linger(LIMIT));
    assert_eq!(is_over(&mut lingering).await, None);
    get(address, "/metrics");
    Connection::open(address).ask("HEAD", "/metrics", &[SCRAPER]);
    get_with(address, "/metrics", &[SCRAPER]);
    assert_eq!(is_over(&mut lingering).await, None, "one scrape is not enough");
    get_with(address, "/metrics", &[SCRAPER]);
    assert_eq!(lingering.await, Lingered::Scraped);
    metrics.stop_server().await.unwrap();
}

#[tokio::test]
async fn everyone_who_watches_is_waited_for() {
    let (metrics, address) = started(ServerOptions::new()).await;
    let scrape = |agent: &str| get_with(address, "/metrics", &[SCRAPER, ("User-Agent", agent)]);
    scrape("Prometheus/2");
    scrape("Prometheus/3");
    let mut lingering = pin!(metrics.linger(LIMIT));
    assert_eq!(is_over(&mut lingering).await, None);
    (0..4).for_each(|_| drop(scrape("Prometheus/2")));
    assert_eq!(is_over(&mut lingering).await, None, "the other one has not scraped");
    (0..2).for_each(|_| drop(scrape("Prometheus/3")));
    assert_eq!(lingering.await, Lingered::Scraped);
    metrics.stop_server().await.unwrap();
}

#[tokio::test]
async fn a_scraper_that_is_gone_is_waited_for_no_longer_than_the_limit() {
    let (metrics, address) = started(ServerOptions::new()).await;
    get_with(address, "/metrics", &[SCRAPER]);
    let (begin, limit) = (Instant::now(), Duration::from_millis(300));
    assert!(metrics.has_watchers());
    assert_eq!(metrics.linger(limit).await, Lingered::TimedOut);
    assert!(begin.elapsed() >= limit);
    assert!(!metrics.is_watched(limit) && metrics.has_watchers(), "its interval may be longer");
    metrics.stop_server().await.unwrap();
}

#[tokio::test]
async fn one_scrape_within_the_limit_is_told_apart_from_none() {
    let (metrics, address) = started(ServerOptions::new()).await;
    let mut waiting = pin!(metrics.await_scrapes(Duration::from_secs(5)));
    assert_eq!(is_over(&mut waiting).await, None);
    get_with(address, "/metrics", &[SCRAPER]);
    assert_eq!(waiting.await, Lingered::ScrapedOnce);
    metrics.stop_server().await.unwrap();
}

#[tokio::test]
async fn one_that_is_known_to_come_is_waited_for() {
    let (metrics, address) = started(ServerOptions::new()).await;
    let mut waiting = pin!(metrics.await_scrapes(LIMIT));
    for _ in 0..2 {
        assert_eq!(is_over(&mut waiting).await, None);
        get_with(address, "/metrics", &[SCRAPER]);
    }
    assert_eq!(waiting.await, Lingered::Scraped);
    let mut first = pin!(metrics.await_scrape(LIMIT));
    assert_eq!(is_over(&mut first).await, None, "those before it do not count");
    get_with(address, "/metrics", &[SCRAPER]);
    assert_eq!(first.await, Lingered::Scraped);
    metrics.stop_server().await.unwrap();
}

#[tokio::test]
async fn lingering_can_be_given_up() {
    let (metrics, address) = started(ServerOptions::new()).await;
    get_with(address, "/metrics", &[SCRAPER]);
    {
        let mut first = pin!(metrics.linger(LIMIT));
        assert_eq!(is_over(&mut first).await, None);
    }
    let mut second = pin!(metrics.linger(LIMIT));
    assert_eq!(is_over(&mut second).await, None);
    for _ in 0..2 {
        get_with(address, "/metrics", &[SCRAPER]);
    }
    assert_eq!(second.await, Lingered::Scraped);
    metrics.stop_server().await.unwrap();
}

/// It requests more than the buffers of a connection hold, and does not read it.
#[tokio::test]
async fn a_scraper_that_goes_away_before_its_answer_has_seen_nothing() {
    let (metrics, address) = started(ServerOptions::new()).await;
    for case in 0..40_000 {
        metrics.record_real_time_metrics("mysql", &format!("case_{case:0100}"), 1.0, 1.0);
    }
    let mut waiting = pin!(metrics.await_scrapes(Duration::from_secs(5)));
    assert_eq!(is_over(&mut waiting).await, None);
    for _ in 0..2 {
        let mut client = connect(address);
        let head = format!("GET /metrics HTTP/1.1\r\nHost: h\r\n{}: {}\r\n\r\n", SCRAPER.0, SCRAPER.1);
        client.write_all(head.as_bytes()).unwrap();
        // The start of the response has arrived.
        client.peek(&mut [0]).unwrap();
        client.shutdown(Shutdown::Both).unwrap();
    }
    assert_eq!(waiting.await, Lingered::TimedOut);
    assert!(metrics.has_watchers(), "it did scrape");
    metrics.stop_server().await.unwrap();
}
