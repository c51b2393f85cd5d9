//! Owns the list of scrapers, and how long a run waits at its end until they have its last values.
//! Must not know what a scrape contains, or who may scrape.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue, header};
use tokio::sync::watch;
use tokio::time::timeout;

/// A header of every scrape by Prometheus and by agents that use its scraper. Browsers and curl do not send
/// it.
const OF_PROMETHEUS: &str = "x-prometheus-scrape-timeout-seconds";

/// Prometheus shows a value for five minutes after its scrape, so scrape intervals are shorter than that.
const LATELY: Duration = Duration::from_secs(300);

/// A Prometheus counts as gone only after at least this time without a scrape, however short its interval is.
const DELAY: Duration = Duration::from_secs(10);

/// Scrapers that are tracked. Beyond that, the one whose last scrape is oldest is dropped.
const MAX_SCRAPERS: usize = 64;

/// How [`linger`](crate::PrometheusMetrics::linger) ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it tells whether the last values were scraped"]
#[non_exhaustive]
pub enum Lingered {
    /// No Prometheus had scraped recently, so there was no wait.
    NobodyWatches,
    /// Every current Prometheus has the last values.
    Scraped,
    /// Every current Prometheus has the last values, but the limit passed before each had scraped them twice: its
    /// interval is longer than half of the limit.
    ScrapedOnce,
    /// The limit passed before every current Prometheus had the last values.
    TimedOut,
}

/// The scrapes of every Prometheus.
pub(crate) struct Watchers(watch::Sender<HashMap<Scraper, Seen>>);

/// The identity of a Prometheus. Two with the same values count as one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Scraper {
    address: IpAddr,
    agent: Option<HeaderValue>,
    /// Timeout of the scrape, in seconds. It is a setting of the job, so it can distinguish two jobs.
    timeout: HeaderValue,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// When the latest scrape began.
    last: Instant,
    /// The longest time between two scrapes. None before the second one.
    interval: Option<Duration>,
    /// When the two latest completed scrapes began, the latest first.
    taken: [Option<Instant>; 2],
}

/// A scrape that has begun.
pub(crate) struct Scrape {
    watchers: Arc<Watchers>,
    scraper: Scraper,
    begun: Instant,
}

impl Watchers {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(HashMap::new()))
    }

    /// Call it before the metrics are read. `None` if the request is not from a Prometheus.
    pub(crate) fn begin(self: &Arc<Self>, address: IpAddr, headers: &HeaderMap) -> Option<Scrape> {
        let timeout = headers.get(OF_PROMETHEUS)?.clone();
        let scraper = Scraper { address, agent: headers.get(header::USER_AGENT).cloned(), timeout };
        let begun = Instant::now();
        self.0.send_modify(|scrapers| {
            if let Some(seen) = scrapers.get_mut(&scraper) {
                let since = begun.saturating_duration_since(seen.last);
                (seen.last, seen.interval) = (begun, seen.interval.max(Some(since)));
                return;
            }
            if scrapers.len() >= MAX_SCRAPERS {
                let oldest = scrapers.iter().min_by_key(|(_, seen)| seen.last).map(|(scraper, _)| scraper.clone());
                oldest.and_then(|oldest| scrapers.remove(&oldest));
            }
            scrapers.insert(scraper.clone(), Seen { last: begun, interval: None, taken: [None; 2] });
        });
        Some(Scrape { watchers: Arc::clone(self), scraper, begun })
    }

    /// Whether a Prometheus scraped within this time.
    pub(crate) fn is_watched(&self, within: Duration) -> bool {
        self.0.borrow().values().any(|seen| seen.last.elapsed() <= within)
    }

    /// Whether a Prometheus is expected to scrape again.
    pub(crate) fn has_some(&self) -> bool {
        let now = Instant::now();
        self.0.borrow().values().any(|seen| seen.watches(now))
    }

    /// Waits for this many scrapes, one or two, that begin after this call, from every Prometheus that scraped
    /// recently or scrapes meanwhile.
    pub(crate) async fn wait(&self, limit: Duration, scrapes: usize) -> Lingered {
        let mut watch = self.0.subscribe();
        let called = Instant::now();
        let expected: HashSet<Scraper> = {
            let scrapers = watch.borrow();
            scrapers.iter().filter(|(_, seen)| seen.watches(called)).map(|(scraper, _)| scraper.clone()).collect()
        };
        let fewest = |scrapers: &HashMap<Scraper, Seen>| {
            let counts = |(scraper, seen): &(&Scraper, &Seen)| seen.last >= called || expected.contains(*scraper);
            scrapers.iter().filter(counts).map(|(_, seen)| seen.taken_since(called)).min().unwrap_or(0)
        };
        // `self` holds the sender, so the only possible error is the timeout.
        let in_time = timeout(limit, watch.wait_for(|scrapers| fewest(scrapers) >= scrapes)).await.is_ok();
        match fewest(&self.0.borrow()) {
            _ if in_time => Lingered::Scraped,
            0 => Lingered::TimedOut,
            _ => Lingered::ScrapedOnce,
        }
    }
}

impl Seen {
    /// Whether it is expected to scrape again.
    fn watches(&self, now: Instant) -> bool {
        let longest = self.interval.map_or(LATELY, |interval| (interval * 2).clamp(DELAY, LATELY));
        now.saturating_duration_since(self.last) <= longest
    }

    /// Completed scrapes that began since then, at most two.
    fn taken_since(&self, then: Instant) -> usize {
        self.taken.iter().flatten().filter(|begun| **begun >= then).count()
    }
}

impl Scrape {
    /// The connection has taken the whole response.
    pub(crate) fn taken(self) {
        let Self { watchers, scraper, begun } = self;
        watchers.0.send_modify(|scrapers| {
            let Some(seen) = scrapers.get_mut(&scraper) else { return };
            let [latest, before] = seen.taken;
            // Scrapes may complete in another order than they began.
            seen.taken = if Some(begun) > latest { [Some(begun), latest] } else { [latest, before.max(Some(begun))] };
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn watchers() -> Arc<Watchers> {
        Arc::new(Watchers::new())
    }

    /// A scrape by the Prometheus with this number.
    fn begin(watchers: &Arc<Watchers>, number: u8) -> Scrape {
        let headers = [(OF_PROMETHEUS.parse().unwrap(), HeaderValue::from_static("10"))].into_iter().collect();
        watchers.begin(IpAddr::from([10, 0, 0, number]), &headers).unwrap()
    }

    #[test]
    fn only_a_prometheus_is_a_watcher_and_only_for_a_while() {
        let watchers = watchers();
        assert!(watchers.begin(IpAddr::from([10, 0, 0, 1]), &HeaderMap::new()).is_none());
        assert!(!watchers.is_watched(LIMIT) && !watchers.has_some());
        begin(&watchers, 1).taken();
        assert!(watchers.is_watched(LIMIT) && watchers.has_some());
        std::thread::sleep(Duration::from_millis(5));
        assert!(!watchers.is_watched(Duration::from_millis(1)) && watchers.has_some());
    }

    #[test]
    fn who_came_often_is_gone_sooner() {
        let begin = Instant::now();
        let check = |interval: Option<u64>, away: u64, expected: bool| {
            let seen = Seen { last: begin, interval: interval.map(Duration::from_secs), taken: [None; 2] };
            assert_eq!(seen.watches(begin + Duration::from_secs(away)), expected, "{interval:?}, {away} s");
        };
        check(None, 299, true);
        check(None, 301, false);
        check(Some(1), 9, true);
        check(Some(1), 11, false);
        check(Some(60), 119, true);
        check(Some(60), 121, false);
        check(Some(3_600), 299, true);
        check(Some(3_600), 301, false);
    }

    #[test]
    fn two_of_one_address_are_told_apart_by_what_they_send() {
        let watchers = watchers();
        let come = |agent: &'static str, timeout: &'static str| {
            let of_prometheus = (OF_PROMETHEUS.parse().unwrap(), HeaderValue::from_static(timeout));
            let headers = [of_prometheus, (header::USER_AGENT, HeaderValue::from_static(agent))].into_iter().collect();
            watchers.begin([127, 0, 0, 1].into(), &headers).unwrap().taken();
            watchers.0.borrow().len()
        };
        assert_eq!(
            [come("Prometheus/3.5", "10"), come("Agent", "10"), come("Agent", "5"), come("Agent", "10")],
            [1, 2, 3, 3]
        );
    }

    #[test]
    fn a_crowd_is_not_remembered() {
        let watchers = watchers();
        (0..=255).for_each(|number| begin(&watchers, number).taken());
        let scrapers = watchers.0.borrow();
        assert_eq!(scrapers.len(), MAX_SCRAPERS);
        assert!(scrapers.keys().any(|scraper| scraper.address == IpAddr::from([10, 0, 0, 255])), "the latest is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn two_scrapes_that_begin_later_are_waited_for() {
        let watchers = watchers();
        let early = begin(&watchers, 1);
        let mut waiting = begin_to_wait(&watchers);
        settle(&mut waiting, false).await;
        early.taken();
        settle(&mut waiting, false).await;
        begin(&watchers, 1).taken();
        settle(&mut waiting, false).await;
        // A scraper that disconnected before it had the response.
        drop(begin(&watchers, 1));
        let last = begin(&watchers, 1);
        settle(&mut waiting, false).await;
        last.taken();
        settle(&mut waiting, true).await;
        assert_eq!(waiting.await.unwrap(), Lingered::Scraped);
    }

    #[tokio::test(start_paused = true)]
    async fn everyone_who_watches_is_waited_for() {
        let watchers = watchers();
        for number in [1, 2] {
            begin(&watchers, number).taken();
        }
        let mut waiting = begin_to_wait(&watchers);
        settle(&mut waiting, false).await;
        (0..5).for_each(|_| begin(&watchers, 1).taken());
        settle(&mut waiting, false).await;
        begin(&watchers, 3).taken();
        (0..2).for_each(|_| begin(&watchers, 2).taken());
        settle(&mut waiting, false).await;
        begin(&watchers, 3).taken();
        settle(&mut waiting, true).await;
        assert_eq!(waiting.await.unwrap(), Lingered::Scraped);
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_ends_the_wait_and_it_is_told_what_was_seen_until_then() {
        let watchers = watchers();
        let start = tokio::time::Instant::now();
        assert_eq!(watchers.wait(LIMIT, 2).await, Lingered::TimedOut);
        assert_eq!(start.elapsed(), LIMIT);
        let mut waiting = begin_to_wait(&watchers);
        settle(&mut waiting, false).await;
        begin(&watchers, 1).taken();
        assert_eq!(waiting.await.unwrap(), Lingered::ScrapedOnce);
        begin(&watchers, 2).taken();
        let mut waiting = begin_to_wait(&watchers);
        settle(&mut waiting, false).await;
        (0..2).for_each(|_| begin(&watchers, 1).taken());
        assert_eq!(waiting.await.unwrap(), Lingered::TimedOut, "the other one has not scraped");
    }

    fn begin_to_wait(watchers: &Arc<Watchers>) -> tokio::task::JoinHandle<Lingered> {
        let watchers = Arc::clone(watchers);
        tokio::spawn(async move { watchers.wait(LIMIT, 2).await })
    }

    async fn settle(waiting: &mut tokio::task::JoinHandle<Lingered>, expected: bool) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(waiting.is_finished(), expected);
    }
}
