//! Owns the face of the exporter: collect, serve, stop.
//! Must not know metric names or HTTP.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use batchsql_metrics::{MemoryUsage, Metrics, MetricsOptions, Reporter, TestResult};

use crate::error::PrometheusError;
use crate::exposition::Exposition;
use crate::routes;
use crate::server::{Limits, Server};

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
        Ok(Self { metrics, exposition, server: Arc::default() })
    }

    /// Makes the recorder of these metrics the global one of the `metrics` crate, so that they also
    /// show what your own code records with it. It stays for the life of the process.
    ///
    /// # Errors
    /// The process already [has one](PrometheusError::is_already_installed).
    pub fn install_global(&self) -> Result<(), PrometheusError> {
        metrics::set_global_recorder(self.exposition.recorder()).map_err(|_| PrometheusError::already_installed())
    }

    /// Serves the metrics on this port of the loopback interface and returns the address; port 0 takes
    /// any free one.
    ///
    /// # Errors
    /// As [`start_server_on`](Self::start_server_on).
    ///
    /// # Cancel safety
    /// As [`start_server_on`](Self::start_server_on).
    pub async fn start_server(&self, port: u16) -> Result<SocketAddr, PrometheusError> {
        self.start_server_on((Ipv4Addr::LOCALHOST, port).into()).await
    }

    /// Serves the metrics on this address and returns it, with the port that was bound. Whoever can
    /// reach the address can read the metrics.
    ///
    /// # Errors
    /// Something else [listens there](PrometheusError::is_port_in_use), the address cannot be bound for
    /// another reason, or the server of these metrics
    /// [already runs](PrometheusError::is_already_running).
    ///
    /// # Cancel safety
    /// A cancelled call may leave the server running; [`stop_server`](Self::stop_server) then stops it.
    pub async fn start_server_on(&self, address: SocketAddr) -> Result<SocketAddr, PrometheusError> {
        let (address, ready) = {
            let mut slot = self.slot();
            if let Some(server) = slot.as_ref().filter(|server| server.is_running()) {
                return Err(PrometheusError::already_running(server.address()));
            }
            let router = routes::router(Arc::clone(&self.exposition));
            let (server, ready) = Server::start(address, router, Limits::default())?;
            (slot.insert(server).address(), ready)
        };
        match ready.await {
            Ok(Ok(())) => Ok(address),
            Ok(Err(source)) => Err(PrometheusError::listen(address, source)),
            Err(_) => Err(PrometheusError::panicked()),
        }
    }

    /// The address that is served, if one is.
    pub fn server_address(&self) -> Option<SocketAddr> {
        self.slot().as_ref().filter(|server| server.is_running()).map(Server::address)
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
