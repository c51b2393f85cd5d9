//! Owns who scrapes: how long a run that ends lingers, so that its last values are seen.
//! Must not know what a scrape contains, or who may scrape.

use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use tokio::sync::watch;
use tokio::time::timeout;

/// A header of every scrape by Prometheus and by the agents that took over its scraper. Browsers and curl do
/// not send it.
const OF_PROMETHEUS: &str = "x-prometheus-scrape-timeout-seconds";

/// Two values are what a rate needs.
const SCRAPES: u64 = 2;

/// How [`linger`](crate::PrometheusMetrics::linger) ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it says whether the last values were seen"]
#[non_exhaustive]
pub enum Lingered {
    /// No Prometheus had scraped lately, so there was nobody to wait for.
    NobodyWatches,
    /// A Prometheus has the last values.
    Scraped,
    /// Time was up before a Prometheus had them.
    TimedOut,
}

/// The scrapes of a Prometheus.
pub(crate) struct Watchers(watch::Sender<Seen>);

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    begun: u64,
    answered: u64,
    last: Option<Instant>,
}

/// A scrape that has begun. It counts as answered when this is dropped.
pub(crate) struct Scrape<'a> {
    watchers: &'a Watchers,
    number: u64,
}

impl Watchers {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Seen::default()))
    }

    /// To be called before the metrics are read. None when the request is not that of a Prometheus.
    pub(crate) fn begin(&self, headers: &HeaderMap) -> Option<Scrape<'_>> {
        headers.get(OF_PROMETHEUS)?;
        let mut number = 0;
        self.0.send_modify(|seen| {
            seen.begun += 1;
            seen.last = Some(Instant::now());
            number = seen.begun;
        });
        Some(Scrape { watchers: self, number })
    }

    /// Whether a Prometheus scraped within this time.
    pub(crate) fn is_watched(&self, within: Duration) -> bool {
        self.0.borrow().last.is_some_and(|last| last.elapsed() <= within)
    }

    /// Waits for two scrapes that begin from now on.
    pub(crate) async fn wait(&self, limit: Duration) -> Lingered {
        let mut watch = self.0.subscribe();
        let enough = watch.borrow().begun + SCRAPES;
        // All scrapes are answered by one thread, one after the other, in the order of their numbers.
        match timeout(limit, watch.wait_for(|seen| seen.answered >= enough)).await {
            Ok(Ok(_)) => Lingered::Scraped,
            // The sender is `self`, which is still there.
            Ok(Err(_)) | Err(_) => Lingered::TimedOut,
        }
    }
}

impl Drop for Scrape<'_> {
    fn drop(&mut self) {
        self.watchers.0.send_modify(|seen| seen.answered = seen.answered.max(self.number));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::http::HeaderValue;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn prometheus() -> HeaderMap {
        [(OF_PROMETHEUS.parse().unwrap(), HeaderValue::from_static("10"))].into_iter().collect()
    }

    #[test]
    fn only_a_prometheus_is_a_watcher_and_only_for_a_while() {
        let watchers = Watchers::new();
        assert!(watchers.begin(&HeaderMap::new()).is_none());
        assert!(!watchers.is_watched(LIMIT));
        drop(watchers.begin(&prometheus()).unwrap());
        assert!(watchers.is_watched(LIMIT));
        std::thread::sleep(Duration::from_millis(5));
        assert!(!watchers.is_watched(Duration::from_millis(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn two_scrapes_that_begin_later_are_waited_for() {
        let watchers = Arc::new(Watchers::new());
        let early = watchers.begin(&prometheus()).unwrap();
        let mut waiting = begin_to_wait(&watchers);
        drop(early);
        settle(&mut waiting, false).await;
        drop(watchers.begin(&prometheus()));
        settle(&mut waiting, false).await;
        let last = watchers.begin(&prometheus());
        settle(&mut waiting, false).await;
        drop(last);
        settle(&mut waiting, true).await;
        assert_eq!(waiting.await.unwrap(), Lingered::Scraped);
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_ends_the_wait() {
        let watchers = Watchers::new();
        let begin = tokio::time::Instant::now();
        assert_eq!(watchers.wait(LIMIT).await, Lingered::TimedOut);
        assert_eq!(begin.elapsed(), LIMIT);
    }

    fn begin_to_wait(watchers: &Arc<Watchers>) -> tokio::task::JoinHandle<Lingered> {
        let watchers = Arc::clone(watchers);
        tokio::spawn(async move { watchers.wait(LIMIT).await })
    }

    async fn settle(waiting: &mut tokio::task::JoinHandle<Lingered>, expected: bool) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(waiting.is_finished(), expected);
    }
}
