//! Owns the face of the exporter: collect, serve, linger, stop.
//! Must not know metric names or HTTP.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use batchsql_metrics::{MemoryUsage, Metrics, MetricsOptions, Reporter, TestResult};

use crate::error::PrometheusError;
use crate::exposition::Exposition;
use crate::listener;
use crate::options::{ServerOptions, Settings};
use crate::renderings::Renderings;
use crate::routes::{self, Endpoint};
use crate::server::Server;
use crate::watchers::{Lingered, Watchers};

/// Collects the metrics of pipelines and tests and serves them to Prometheus. Cheap to clone; clones
/// share everything.
///
/// It has a recorder of its own and leaves the global one of the `metrics` crate alone, so that several
/// can live in one process. When the last clone is dropped, the server stops; reporters go on.
#[derive(Clone)]
pub struct PrometheusMetrics {
    metrics: Metrics,
    exposition: Arc<Exposition>,
    server: Arc<Mutex<Option<Server>>>,
    watchers: Arc<Watchers>,
    is_ready: Arc<AtomicBool>,
}

impl PrometheusMetrics {
    /// Collects from now on, with default limits for labels. Nothing is served before
    /// [`start_server`](Self::start_server).
    ///
    /// # Errors
    /// The process can start no more threads: one keeps the histograms small.
    pub fn new() -> Result<Self, PrometheusError> {
        Self::with_options(MetricsOptions::default())
    }

    /// As [`new`](Self::new), with these limits for labels.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_options(options: MetricsOptions) -> Result<Self, PrometheusError> {
        let exposition = Arc::new(Exposition::new()?);
        let metrics = Metrics::with_recorder(exposition.recorder()).options(options);
        Ok(Self {
            metrics,
            exposition,
            server: Arc::default(),
            watchers: Arc::new(Watchers::new()),
            is_ready: Arc::new(AtomicBool::new(true)),
        })
    }

    /// Makes the recorder of these metrics the global one of the `metrics` crate, so that they also
    /// show what your own code records with it. It stays for the life of the process.
    ///
    /// # Errors
    /// The process already [has one](PrometheusError::is_already_installed).
    pub fn install_global(&self) -> Result<(), PrometheusError> {
        metrics::set_global_recorder(self.exposition.recorder()).map_err(|_| PrometheusError::already_installed())
    }

    /// Serves the metrics on this port of 127.0.0.1, to everyone who can reach it, and returns the address;
    /// port 0 takes any free one. [`start_server_with`](Self::start_server_with) has more to choose.
    ///
    /// # Errors
    /// As [`start_server_with`](Self::start_server_with).
    ///
    /// # Cancel safety
    /// As [`start_server_with`](Self::start_server_with).
    pub async fn start_server(&self, port: u16) -> Result<SocketAddr, PrometheusError> {
        self.start_server_with(ServerOptions::new().port(port)).await
    }

    /// Serves the metrics as the options say, and returns the first address, with the port that was bound;
    /// [`server_addresses`](Self::server_addresses) has the others.
    ///
    /// # Errors
    /// The options [cannot work](PrometheusError::is_invalid_options), something else
    /// [listens there](PrometheusError::is_port_in_use), an address cannot be bound for another reason, or the
    /// server of these metrics [already runs](PrometheusError::is_already_running). Nothing is served then.
    ///
    /// # Cancel safety
    /// A cancelled call may leave the server running; [`stop_server`](Self::stop_server) then stops it.
    pub async fn start_server_with(&self, options: ServerOptions) -> Result<SocketAddr, PrometheusError> {
        let Settings { addresses, access, tls, limits, live_page } = options.check()?;
        let is_open = access.is_open();
        let (addresses, ready) = {
            let mut slot = self.slot();
            if let Some(server) = slot.as_ref().filter(|server| server.is_running()) {
                return Err(PrometheusError::already_running(server.addresses()[0]));
            }
            let endpoint = |stopping| Endpoint {
                renderings: Renderings::new(Arc::clone(&self.exposition)),
                watchers: Arc::clone(&self.watchers),
                is_ready: Arc::clone(&self.is_ready),
                access,
                live_page,
                stopping,
            };
            let router = |stopping| routes::router(endpoint(stopping));
            let (server, ready) = Server::start(&addresses, tls, limits, router)?;
            (slot.insert(server).addresses().to_vec(), ready)
        };
        let first = addresses[0];
        match ready.await {
            Ok(Ok(())) => {}
            Ok(Err(source)) => return Err(PrometheusError::listen(first, source, listener::holder)),
            Err(_) => return Err(PrometheusError::panicked()),
        }
        for address in addresses.iter().filter(|address| is_open && !address.ip().is_loopback()) {
            tracing::warn!(
                %address,
                "everyone who can reach this address can read the metrics; ask for a bearer token or a password"
            );
        }
        Ok(first)
    }

    /// The first address that is served, if one is.
    pub fn server_address(&self) -> Option<SocketAddr> {
        self.server_addresses().first().copied()
    }

    /// Every address that is served, in the order of [`ServerOptions::bind`].
    pub fn server_addresses(&self) -> Vec<SocketAddr> {
        let slot = self.slot();
        slot.as_ref().filter(|server| server.is_running()).map_or_else(Vec::new, |server| server.addresses().to_vec())
    }

    /// Sets what `/ready` answers: 200, or 503 while the application is not, or no longer, ready for work. It is
    /// ready until told otherwise. A server that is being stopped is never ready.
    pub fn set_ready(&self, ready: bool) {
        self.is_ready.store(ready, Ordering::Release);
    }

    /// Whether a Prometheus, known by the header `X-Prometheus-Scrape-Timeout-Seconds`, has scraped within this
    /// time. Requests that were not authorized do not count.
    pub fn is_watched(&self, within: Duration) -> bool {
        self.watchers.is_watched(within)
    }

    /// Whether a Prometheus watches, so that [`linger`](Self::linger) would wait for it: it
    /// [scraped](Self::is_watched) once within the last five minutes, or several times and then stayed away for no
    /// more than two of its intervals (10 s at least).
    pub fn has_watchers(&self) -> bool {
        self.watchers.has_some()
    }

    /// Waits until every Prometheus that [watches](Self::has_watchers) has seen the last values: for two scrapes of
    /// each that begin from now on, at most for `limit`, which should be above two scrape intervals. To be called at
    /// the end of a short run, before [`stop_server`](Self::stop_server).
    ///
    /// When none watches, or nothing is served, this returns at once. One that comes for the first time meanwhile is
    /// waited for as well. Several are distinguished by their addresses, their user agents and the timeouts of their
    /// scrapes; those that agree in all of that count as one.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with time.
    ///
    /// # Cancel safety
    /// Cancelling stops the wait and nothing else.
    pub async fn linger(&self, limit: Duration) -> Lingered {
        if !self.has_watchers() {
            return Lingered::NobodyWatches;
        }
        self.await_scrapes(limit).await
    }

    /// As [`linger`](Self::linger), and also when no Prometheus has come yet, because it is known that one will:
    /// a run may be over before the first scrape.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with time.
    ///
    /// # Cancel safety
    /// Cancelling stops the wait and nothing else.
    pub async fn await_scrapes(&self, limit: Duration) -> Lingered {
        self.await_each(limit, 2).await
    }

    /// As [`await_scrapes`](Self::await_scrapes), for one scrape instead of two. To be called at the begin of a short
    /// run, after [`Reporter::announce`], so that Prometheus sees its counters rise from 0.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with time.
    ///
    /// # Cancel safety
    /// Cancelling stops the wait and nothing else.
    pub async fn await_scrape(&self, limit: Duration) -> Lingered {
        self.await_each(limit, 1).await
    }

    async fn await_each(&self, limit: Duration, scrapes: usize) -> Lingered {
        if self.server_address().is_none() {
            return Lingered::NobodyWatches;
        }
        self.watchers.wait(limit, scrapes).await
    }

    /// Stops the server: current answers end, within two seconds, then its thread has ended and the
    /// port is free. Without a server it does nothing. Collecting goes on, and the server can be
    /// started again.
    ///
    /// # Errors
    /// The server had panicked. It is stopped nevertheless.
    ///
    /// # Cancel safety
    /// Cancelling stops the wait, not the stopping.
    pub async fn stop_server(&self) -> Result<(), PrometheusError> {
        let server = self.slot().take();
        match server {
            Some(server) => server.stop().await,
            None => Ok(()),
        }
    }

    /// What a scrape would get now: every metric in the text format, version 0.0.4.
    pub fn render(&self) -> String {
        self.exposition.render()
    }

    /// An observer for one pipeline, see [`Metrics::reporter`]. `database` becomes the label of that
    /// name; pipelines that run at the same time need different ones.
    pub fn reporter(&self, database: impl Into<String>) -> Reporter {
        self.metrics.reporter(database)
    }

    /// Sets the `test_case` label of every batch that is sealed from now on, see
    /// [`Metrics::set_current_test_case`].
    pub fn set_current_test_case(&self, test_case: &str) {
        self.metrics.set_current_test_case(test_case);
    }

    /// Leaves the `test_case` label out of batches that are sealed from now on.
    pub fn clear_current_test_case(&self) {
        self.metrics.clear_current_test_case();
    }

    /// Records how a test ended, see [`Metrics::record_test_result`].
    pub fn record_test_result(&self, database: &str, test_case: &str, result: &TestResult) {
        self.metrics.record_test_result(database, test_case, result);
    }

    /// Records the rate in rows per second and the memory in MiB of a test that is running.
    pub fn record_real_time_metrics(&self, database: &str, test_case: &str, rps: f64, memory_mb: f64) {
        self.metrics.record_real_time_metrics(database, test_case, rps, memory_mb);
    }

    /// Records the memory of the process during a test, see [`Metrics::record_memory`].
    pub fn record_memory(&self, database: &str, test_case: &str, usage: &MemoryUsage) {
        self.metrics.record_memory(database, test_case, usage);
    }

    fn slot(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for PrometheusMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrometheusMetrics").field("server", &self.server_address()).finish_non_exhaustive()
    }
}
