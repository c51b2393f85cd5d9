//! Owns the public interface of the exporter: collect, serve, linger, stop.
//! Must not know metric names or HTTP.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use batchsql_metrics::{Metrics, MetricsOptions, Reporter};

use crate::access::Access;
use crate::endpoint_options::EndpointOptions;
use crate::error::PrometheusError;
use crate::exposition::Exposition;
use crate::handler::MetricsHandler;
use crate::listener;
use crate::mounted::{Mounted, Mounts};
use crate::options::{ServerOptions, Settings};
use crate::renderings::Renderings;
use crate::routes::{self, Endpoint};
use crate::server::Server;
use crate::stopping::Stopping;
use crate::watchers::{Lingered, Watchers};

/// Collects the metrics of pipelines and tests and serves them to Prometheus. Cheap to clone; clones
/// share everything.
///
/// It has a recorder of its own and does not set the global one of the `metrics` crate, so one process can
/// have several. When the last clone is dropped, the server stops; reporters continue.
#[derive(Clone)]
pub struct PrometheusMetrics {
    pub(crate) metrics: Metrics,
    exposition: Arc<Exposition>,
    server: Arc<Mutex<Option<Server>>>,
    watchers: Arc<Watchers>,
    is_ready: Arc<AtomicBool>,
    ready_detail: Arc<Mutex<String>>,
    mounts: Mounts,
}

impl PrometheusMetrics {
    /// Starts to collect, with default limits for labels. Nothing is served before
    /// [`start_server`](Self::start_server).
    ///
    /// # Errors
    /// The upkeep thread, which keeps the histograms small, cannot be started.
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
            ready_detail: Arc::default(),
            mounts: Mounts::default(),
        })
    }

    /// Installs the recorder of these metrics as the global one of the `metrics` crate, so that they
    /// include what your own code records. It stays until the process ends.
    ///
    /// # Errors
    /// The process already [has one](PrometheusError::is_already_installed).
    pub fn install_global(&self) -> Result<(), PrometheusError> {
        metrics::set_global_recorder(self.exposition.recorder()).map_err(|_| PrometheusError::already_installed())
    }

    /// Serves the metrics on this port of 127.0.0.1 without authentication, and returns the address; port 0
    /// takes any free port. [`start_server_with`](Self::start_server_with) has more options.
    ///
    /// # Errors
    /// As [`start_server_with`](Self::start_server_with).
    ///
    /// # Cancel safety
    /// As [`start_server_with`](Self::start_server_with).
    pub async fn start_server(&self, port: u16) -> Result<SocketAddr, PrometheusError> {
        self.start_server_with(ServerOptions::new().port(port)).await
    }

    /// Serves the metrics with these options, and returns the first address with its port;
    /// [`server_addresses`](Self::server_addresses) returns all of them.
    ///
    /// # Errors
    /// The options [are invalid](PrometheusError::is_invalid_options), a port
    /// [is in use](PrometheusError::is_port_in_use), an address cannot be bound for another reason, or the
    /// server of these metrics [already runs](PrometheusError::is_already_running). After an error nothing is served.
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
            let router = |stopping| routes::router(self.endpoint(access, live_page, Some(stopping), None));
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
                "everyone who can reach this address can read the metrics; require a bearer token or a password"
            );
        }
        Ok(first)
    }

    /// The endpoint as a router, for an application that has an axum server: `/`, `/metrics`, `/health` and `/ready`,
    /// with the same responses as those of [`start_server`](Self::start_server). Each call makes an endpoint of its own.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use batchsql_prometheus::{EndpointOptions, PrometheusMetrics};
    ///
    /// let metrics = PrometheusMetrics::new()?;
    /// let options = EndpointOptions::new().bearer_token("32-random-bytes-in-hexadecimal");
    /// // With the trailing slash the live page at /monitoring/ finds /monitoring/metrics.
    /// let app: Router = Router::new()
    ///     .route("/orders", get(async || "the application"))
    ///     .nest("/monitoring/", metrics.router(options)?);
    /// # drop(app);
    /// # Ok::<(), batchsql_prometheus::PrometheusError>(())
    /// ```
    ///
    /// `merge` instead of `nest` serves it at the paths themselves; use
    /// [`live_page(false)`](EndpointOptions::live_page) if the application has a `/` of its own. It has no state and no
    /// fallback: merge it after `with_state`.
    ///
    /// The server belongs to the application:
    /// - [`stop_server`](Self::stop_server), [`server_address`](Self::server_address) and the limits of
    ///   [`ServerOptions`] do not concern it. It responds as long as the application serves it.
    /// - `/ready` is 200 until [`set_ready(false)`](Self::set_ready). Call that before the server drains, and stop the
    ///   server after [`linger`](Self::linger), which waits for the scrapes of this endpoint too.
    /// - It responds only if the runtime of the application has a free worker. The server of `start_server` has its own
    ///   thread.
    /// - Everyone who can reach the server can read the metrics, unless the options require a token or a password.
    /// - `axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())` gives it the addresses of
    ///   clients. Without them two Prometheus with the same user agent and scrape timeout count as one in `linger`.
    ///
    /// # Errors
    /// The options [are invalid](PrometheusError::is_invalid_options).
    pub fn router(&self, options: EndpointOptions) -> Result<Router, PrometheusError> {
        let (access, live_page) = (options.access()?, options.has_live_page());
        Ok(routes::paths(self.endpoint(access, live_page, None, Some(self.mounts.mount()))))
    }

    /// The endpoint as a function from `http::Request` to `http::Response`, for an application whose server is not axum.
    /// What [`router`](Self::router) says of the server holds here too.
    ///
    /// # Errors
    /// The options [are invalid](PrometheusError::is_invalid_options).
    pub fn handler(&self, options: EndpointOptions) -> Result<MetricsHandler, PrometheusError> {
        let (access, live_page) = (options.access()?, options.has_live_page());
        Ok(MetricsHandler::new(routes::router(self.endpoint(access, live_page, None, Some(self.mounts.mount())))))
    }

    fn endpoint(
        &self,
        access: Access,
        live_page: bool,
        stopping: Option<Stopping>,
        mounted: Option<Mounted>,
    ) -> Endpoint {
        Endpoint {
            renderings: Renderings::new(Arc::clone(&self.exposition)),
            watchers: Arc::clone(&self.watchers),
            is_ready: Arc::clone(&self.is_ready),
            ready_detail: Arc::clone(&self.ready_detail),
            access,
            live_page,
            stopping,
            _mounted: mounted,
        }
    }

    /// The first address of the running server.
    pub fn server_address(&self) -> Option<SocketAddr> {
        self.server_addresses().first().copied()
    }

    /// Every address of the running server, in the order of [`ServerOptions::bind`].
    pub fn server_addresses(&self) -> Vec<SocketAddr> {
        let slot = self.slot();
        slot.as_ref().filter(|server| server.is_running()).map_or_else(Vec::new, |server| server.addresses().to_vec())
    }

    /// Sets the status of `/ready`: 200 for `true`, which is the default, or 503 for `false`. A server that stops
    /// is never ready.
    pub fn set_ready(&self, ready: bool) {
        self.is_ready.store(ready, Ordering::Release);
    }

    /// Adds lines to what `/ready` and `/health` say, for example the state of each part of the application; empty by default. Everyone may
    /// read them.
    pub fn set_ready_detail(&self, lines: impl Into<String>) {
        *self.ready_detail.lock().unwrap_or_else(PoisonError::into_inner) = lines.into();
    }

    /// Whether a Prometheus, identified by the header `X-Prometheus-Scrape-Timeout-Seconds`, has scraped within this
    /// time. Requests without valid credentials do not count.
    pub fn is_watched(&self, within: Duration) -> bool {
        self.watchers.is_watched(within)
    }

    /// Whether [`linger`](Self::linger) would wait for a Prometheus. It waits for one that
    /// [scraped](Self::is_watched) once within the last five minutes, or that scraped several times and whose last
    /// scrape is not older than two of its intervals (at least 10 s).
    pub fn has_watchers(&self) -> bool {
        self.watchers.has_some()
    }

    /// Waits until every [current](Self::has_watchers) Prometheus has the last values: for two scrapes of each that
    /// begin after this call, at most for `limit`, which should be above two scrape intervals. Call it at the end of
    /// a short run, before [`stop_server`](Self::stop_server).
    ///
    /// Returns immediately if there is none, or if nothing is served. It also waits for a Prometheus that scrapes for
    /// the first time meanwhile. Each Prometheus is identified by its address, its user agent and its scrape timeout;
    /// two with the same three values count as one.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with time.
    ///
    /// # Cancel safety
    /// Cancelling only ends the wait.
    pub async fn linger(&self, limit: Duration) -> Lingered {
        if !self.has_watchers() {
            return Lingered::NobodyWatches;
        }
        self.await_scrapes(limit).await
    }

    /// As [`linger`](Self::linger), but also waits if no Prometheus has scraped yet, for a run that may be shorter
    /// than a scrape interval.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with time.
    ///
    /// # Cancel safety
    /// Cancelling only ends the wait.
    pub async fn await_scrapes(&self, limit: Duration) -> Lingered {
        self.await_each(limit, 2).await
    }

    /// As [`await_scrapes`](Self::await_scrapes), for one scrape instead of two. Call it at the start of a short
    /// run, after [`Reporter::announce`], so that Prometheus scrapes the counters at 0.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with time.
    ///
    /// # Cancel safety
    /// Cancelling only ends the wait.
    pub async fn await_scrape(&self, limit: Duration) -> Lingered {
        self.await_each(limit, 1).await
    }

    async fn await_each(&self, limit: Duration, scrapes: usize) -> Lingered {
        if self.server_address().is_none() && !self.mounts.is_any() {
            return Lingered::NobodyWatches;
        }
        self.watchers.wait(limit, scrapes).await
    }

    /// Stops the server: current responses may take two more seconds; then the thread has ended and the
    /// port is free. Does nothing if no server runs. Collecting continues, and the server can be
    /// started again.
    ///
    /// # Errors
    /// The server panicked. It is stopped nevertheless.
    ///
    /// # Cancel safety
    /// Cancelling ends the wait; the server still stops.
    pub async fn stop_server(&self) -> Result<(), PrometheusError> {
        let server = self.slot().take();
        match server {
            Some(server) => server.stop().await,
            None => Ok(()),
        }
    }

    /// The text of a scrape at this moment: every metric in the text format, version 0.0.4.
    pub fn render(&self) -> String {
        self.exposition.render()
    }

    /// An observer for one pipeline, see [`Metrics::reporter`]. `database` is the value of that label;
    /// pipelines that run at the same time need different values.
    pub fn reporter(&self, database: impl Into<String>) -> Reporter {
        self.metrics.reporter(database)
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
