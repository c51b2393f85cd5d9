//! The Prometheus exporter of BatchSQL: [`PrometheusMetrics`] collects the metrics of pipelines and
//! tests, and serves them from an endpoint of its own that can be started and stopped.
//!
//! ```
//! use std::time::Duration;
//! use batchsql_core::{BatchSql, ColumnType, PipelineConfig, Schema};
//! use batchsql_prometheus::PrometheusMetrics;
//! # use batchsql_testkit::NullSink;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! # let sink = NullSink;
//! // Collect metrics and serve them at http://127.0.0.1:<port>/metrics. Port 0 takes any free port.
//! let prometheus_metrics = PrometheusMetrics::new()?;
//! let address = prometheus_metrics.start_server(0).await?;
//! println!("metrics: http://{address}/metrics");
//!
//! // A pipeline with this reporter. `sink` is the driver of your database.
//! let config =
//!     PipelineConfig::default().buffer_size(10_000).flush_size(500).flush_interval(Duration::from_millis(100));
//! let batch_sql = BatchSql::builder(sink)
//!     .config(config)
//!     .metrics_reporter(prometheus_metrics.reporter("mysql"))
//!     .start()?;
//!
//! let users = Schema::builder("users").column("id", ColumnType::I64).build()?;
//! batch_sql.submit(&users.row().set("id", 1_i64)?.finish()?).await?;
//! let report = batch_sql.close(Duration::from_secs(10)).await;
//! # assert!(report.is_complete());
//! # let page = prometheus_metrics.render();
//! # assert!(page.contains("batchsql_records_processed_total{database=\"mysql\",table=\"users\"} 1"), "{page}");
//!
//! prometheus_metrics.stop_server().await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The endpoint
//! | path | response | access |
//! |---|---|---|
//! | `/metrics` | every metric in the text format 0.0.4, with `process_*` | with the token or the password, if one is required |
//! | `/health` | `200 ok` as long as the server runs; with the same lines as `/ready` | everyone |
//! | `/ready` | `200 ready`, or `503 not ready` after [`set_ready(false)`](PrometheusMetrics::set_ready) and while the server stops; with the [lines](PrometheusMetrics::set_ready_detail) of the application | everyone |
//! | `/` | the live page: curves since it was opened, for browsers; it holds no data and requests `/metrics` itself | everyone |
//!
//! `GET` and `HEAD` are allowed; other methods get 405, other paths 404. `/metrics` and `/` are compressed for clients
//! that accept gzip, as Prometheus does. A request without the token or the password gets 401; the response is the same
//! for missing and for wrong credentials. The live page has forms for both: for a request with `X-Requested-With`, the
//! 401 names the scheme `X-Basic`, for which no browser opens a dialog.
//!
//! The history of the live page is in the browser and begins when the page is opened, so open it before the run. A page
//! that is open from an earlier run waits until the process serves again.
//!
//! The endpoint runs on a thread of its own, so it responds even when the pipeline keeps every worker of your runtime
//! busy. It can be stopped and started again; stopping releases its thread, port and files.
//!
//! # In the server of the application
//! [`router`](PrometheusMetrics::router) is the same endpoint as an `axum::Router`, and
//! [`handler`](PrometheusMetrics::handler) as a function of `http::Request`, for an application that has a server. Both
//! take [`EndpointOptions`]. [`router`](PrometheusMetrics::router) says what readiness and the end of the process mean
//! there.
//!
//! # Options
//! [`start_server`](PrometheusMetrics::start_server) serves one port of 127.0.0.1 without authentication.
//! [`start_server_with`](PrometheusMetrics::start_server_with) takes [`ServerOptions`]:
//!
//! | option | default | meaning |
//! |---|---|---|
//! | [`port`](ServerOptions::port) | 9090 | 0 takes any free port |
//! | [`bind`](ServerOptions::bind) | 127.0.0.1 | the addresses to listen on |
//! | [`bearer_token`](ServerOptions::bearer_token) | none | required for `/metrics` |
//! | [`basic_auth`](ServerOptions::basic_auth) | none | user and password instead of a token |
//! | `tls_pem`, `tls_pem_files` | none | HTTPS with your certificate (feature `tls`, on by default) |
//! | [`max_connections`](ServerOptions::max_connections) | 64 | for one more, the connection that was idle longest is closed |
//! | [`header_time`](ServerOptions::header_time) | 10 s | limit for a handshake, for the head of a request, and between requests |
//! | [`answer_time`](ServerOptions::answer_time) | 10 s | limit for a client to receive a response |
//! | [`connection_age`](ServerOptions::connection_age) | 5 minutes | age at which a connection is closed |
//! | [`live_page`](ServerOptions::live_page) | true | whether `/` serves the live page |
//!
//! The limit for the head of a request is 16 KiB. Invalid options are errors when the server starts, each with its own
//! message. If a port is taken, the error names the process that listens there, where the system shows it (Linux).
//!
//! # Prometheus
//! A job for an endpoint with TLS and a token:
//!
//! ```yaml
//! scrape_configs:
//!   - job_name: batchsql-app
//!     scrape_interval: 5s
//!     scheme: https
//!     authorization: {type: Bearer, credentials_file: /etc/prometheus/batchsql.token}
//!     tls_config: {ca_file: /etc/prometheus/ca.pem}
//!     static_configs: [{targets: ['app.internal:9090']}]
//! ```
//!
//! With [`basic_auth`](ServerOptions::basic_auth) it is `basic_auth: {username: prometheus, password_file: …}` in
//! place of `authorization`.
//!
//! Prometheus 3 rejects a scrape whose `Content-Type` does not name a known format
//! ([migration guide, scrape protocols](https://prometheus.io/docs/prometheus/latest/migration/#scrape-protocols)).
//! This endpoint always sends `text/plain; version=0.0.4; charset=utf-8`, so no `fallback_scrape_protocol` is needed.
//!
//! A process that runs for seconds ends before its last values are scraped. Call
//! [`linger`](PrometheusMetrics::linger) at its end: it waits only if a Prometheus scrapes this endpoint. Record the
//! results of tests before it. The time limit for the process must be above `close` + `linger` + 2 s for
//! [`stop_server`](PrometheusMetrics::stop_server).
//!
//! # Kubernetes
//! A kubelet connects from outside of the pod: let the server [`bind`](ServerOptions::bind) `0.0.0.0`, and require a
//! token. Call `set_ready(false)` when the application begins to drain, and stop the server last.
//!
//! ```yaml
//! livenessProbe: {httpGet: {path: /health, port: 9090}}
//! readinessProbe: {httpGet: {path: /ready, port: 9090}, periodSeconds: 5}
//! ```
//!
//! # Behind a proxy
//! Leave the endpoint on 127.0.0.1 and let the proxy do TLS and authentication. The live page requests `metrics` from
//! its own origin, and responses have `Cache-Control: no-store`. Connections from the proxy end after `connection_age`,
//! and after they were idle for `header_time`.
#![cfg_attr(
    feature = "test-metrics",
    doc = r##"
# Metrics of tests
With the feature `test-metrics`, a test records its result, and the metrics of batches carry its name:

```
use std::time::Duration;
use batchsql_prometheus::{PrometheusMetrics, TestResult};

let prometheus_metrics = PrometheusMetrics::new()?;
// The label `test_case` of the next batches.
prometheus_metrics.set_current_test_case("performance-test");
// Rows per second and memory in MiB while the test runs.
prometheus_metrics.record_real_time_metrics("mysql", "performance-test", 1_500.0, 256.5);
// At its end.
let result = TestResult {
    database: "mysql".to_owned(),
    test_name: "performance-test".to_owned(),
    duration: Duration::from_secs(5 * 60),
    total_records: 100_000,
    actual_records: 100_000,
    data_integrity_rate: 100.0,
    records_per_second: 2_000.0,
    rps_valid: true,
    success: true,
    ..Default::default()
};
prometheus_metrics.record_test_result("mysql", "performance-test", &result);
# let page = prometheus_metrics.render();
# assert!(page.contains("batchsql_test_rps{database=\"mysql\",test_case=\"performance-test\"} 2000"), "{page}");
# Ok::<(), batchsql_prometheus::PrometheusError>(())
```
"##
)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod access;
mod answer;
mod client;
mod connection_limit;
mod connections;
mod encoding;
mod endpoint_options;
mod error;
mod exposition;
mod handler;
mod listener;
mod live;
mod metrics;
mod mounted;
mod options;
mod policy;
mod renderings;
mod routes;
mod server;
mod stopping;
#[cfg(feature = "test-metrics")]
mod test_metrics;
mod tls;
mod upkeep;
mod watchers;
mod write_timeout;

#[cfg(feature = "test-metrics")]
pub use batchsql_metrics::{MemoryUsage, TestResult};
pub use batchsql_metrics::{MetricsOptions, Reporter};
pub use endpoint_options::EndpointOptions;
pub use error::PrometheusError;
pub use handler::{MetricsBody, MetricsHandler};
pub use metrics::PrometheusMetrics;
pub use options::ServerOptions;
// The program `batchsql` has a server of its own.
#[cfg(feature = "tls")]
#[doc(hidden)]
pub use tls::tls_acceptor;
pub use watchers::Lingered;
#[doc(hidden)]
pub use write_timeout::{Restart, WriteTimeout};
