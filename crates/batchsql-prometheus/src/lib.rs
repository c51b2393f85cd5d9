//! The Prometheus exporter of BatchSQL: [`PrometheusMetrics`] collects the metrics of pipelines and
//! tests, and serves them from an endpoint of its own that can be started and stopped.
//!
//! ```
//! use std::time::Duration;
//! use batchsql_core::{BatchSql, ColumnType, PipelineConfig, Schema};
//! use batchsql_prometheus::{PrometheusMetrics, TestResult};
//! # use batchsql_testkit::NullSink;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! # let sink = NullSink;
//! // Collect, and show it at http://127.0.0.1:<port>/metrics. Port 0 takes any free one.
//! let prometheus_metrics = PrometheusMetrics::new()?;
//! let address = prometheus_metrics.start_server(0).await?;
//! println!("metrics: http://{address}/metrics");
//!
//! // A pipeline that reports. `sink` is the driver of your database.
//! let config = PipelineConfig {
//!     buffer_size: 10_000,
//!     flush_size: 500,
//!     flush_interval: Duration::from_millis(100),
//!     ..Default::default()
//! };
//! let batch_sql = BatchSql::builder(sink)
//!     .config(config)
//!     .metrics_reporter(prometheus_metrics.reporter("mysql"))
//!     .start()?;
//!
//! // The `test_case` label of what follows; leave it out in production.
//! prometheus_metrics.set_current_test_case("my-test-case");
//!
//! let users = Schema::builder("users").column("id", ColumnType::I64).build()?;
//! batch_sql.submit(&users.row().set("id", 1_i64)?.finish()?).await?;
//! let report = batch_sql.close(Duration::from_secs(10)).await;
//!
//! // What the test itself found out.
//! let result = TestResult {
//!     database: "mysql".to_owned(),
//!     test_name: "performance-test".to_owned(),
//!     duration: Duration::from_secs(5 * 60),
//!     total_records: 100_000,
//!     actual_records: 100_000,
//!     data_integrity_rate: 100.0,
//!     records_per_second: 2_000.0,
//!     rps_valid: true,
//!     success: report.is_complete(),
//!     ..Default::default()
//! };
//! prometheus_metrics.record_test_result("mysql", "performance-test", &result);
//! // Rows per second and memory in MiB, while a test runs.
//! prometheus_metrics.record_real_time_metrics("mysql", "performance-test", 1_500.0, 256.5);
//! # let page = prometheus_metrics.render();
//! # assert!(page.contains("batchsql_test_rps{database=\"mysql\",test_case=\"performance-test\"} 1500"), "{page}");
//! # assert!(page.contains("test_case=\"my-test-case\""), "{page}");
//!
//! prometheus_metrics.stop_server().await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The endpoint
//! | path | answer | who may ask |
//! |---|---|---|
//! | `/metrics` | every metric in the text format 0.0.4, with `process_*` | whoever has the token or the password, when one is asked for |
//! | `/health` | `200 ok` as long as the server runs | everyone |
//! | `/ready` | `200 ready`, or `503 not ready` after [`set_ready(false)`](PrometheusMetrics::set_ready) and while the server stops | everyone |
//! | `/` | the live page: curves since it was opened, for browsers; it holds no data and asks for `/metrics` itself | everyone |
//!
//! `GET` and `HEAD` work, other methods are refused with 405, other paths with 404. `/metrics` and `/` are compressed
//! for clients that accept gzip, as Prometheus does. Who lacks the token or the password gets 401, and the same answer
//! for every way of lacking it. The live page asks for either in a form of its own: a request with `X-Requested-With` is
//! refused with the scheme `X-Basic`, for which no browser opens a dialog.
//!
//! The history of the live page is in the browser and begins when the page is opened: open it before what it shall
//! show. A page that is open from an earlier run waits until the process is there again.
//!
//! The endpoint runs on a thread of its own, so that it answers also when the pipeline keeps every worker of your
//! runtime busy. It can be stopped and started again, and leaves nothing behind.
//!
//! # Options
//! [`start_server`](PrometheusMetrics::start_server) serves one port of 127.0.0.1 to whoever can reach it.
//! [`start_server_with`](PrometheusMetrics::start_server_with) takes [`ServerOptions`]:
//!
//! | option | default | meaning |
//! |---|---|---|
//! | [`port`](ServerOptions::port) | 9090 | 0 takes any free one |
//! | [`bind`](ServerOptions::bind) | 127.0.0.1 | the addresses to listen on |
//! | [`bearer_token`](ServerOptions::bearer_token) | none | asked for by `/metrics` |
//! | [`basic_auth`](ServerOptions::basic_auth) | none | the same with a user and a password; one of the two |
//! | `tls_pem`, `tls_pem_files` | none | HTTPS with your certificate (feature `tls`, on by default) |
//! | [`max_connections`](ServerOptions::max_connections) | 64 | when one more comes, the one that was idle longest ends |
//! | [`header_time`](ServerOptions::header_time) | 10 s | for a handshake, for the head of a request, and between requests |
//! | [`answer_time`](ServerOptions::answer_time) | 10 s | for a client to take an answer |
//! | [`connection_age`](ServerOptions::connection_age) | 5 minutes | after it a connection ends |
//! | [`live_page`](ServerOptions::live_page) | true | whether `/` is there |
//!
//! The head of a request may have 16 KiB. A mistake in the options is reported when the server starts, each with a
//! message of its own; a port that is taken is reported with the process that has it, where the system shows it (Linux).
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
//! Prometheus 3 refuses a scrape whose `Content-Type` does not name a format that it knows
//! ([migration guide, scrape protocols](https://prometheus.io/docs/prometheus/latest/migration/#scrape-protocols)).
//! This endpoint always sends `text/plain; version=0.0.4; charset=utf-8`, so no `fallback_scrape_protocol` is needed.
//!
//! A process that lives for seconds is gone before its last values are scraped:
//! [`linger`](PrometheusMetrics::linger) at its end waits for a Prometheus that watches, and for nobody else. Record the
//! results of tests before it. Whoever ends the process must give it more time than `close` + `linger` + 2 s for
//! [`stop_server`](PrometheusMetrics::stop_server).
//!
//! # Kubernetes
//! A kubelet asks from outside of the pod: let the server [`bind`](ServerOptions::bind) `0.0.0.0`, and ask for a token.
//! Call `set_ready(false)` when the application begins to drain, and stop the server last.
//!
//! ```yaml
//! livenessProbe: {httpGet: {path: /health, port: 9090}}
//! readinessProbe: {httpGet: {path: /ready, port: 9090}, periodSeconds: 5}
//! ```
//!
//! # Behind a proxy
//! Leave the endpoint on 127.0.0.1 and let the proxy do TLS and authentication. The live page asks for `metrics` on
//! its own origin, and the answers say `Cache-Control: no-store`. A proxy that keeps connections open must expect
//! them to end after `connection_age`, and when they are idle for `header_time`.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod access;
mod answer;
mod connection_limit;
mod connections;
mod encoding;
mod error;
mod exposition;
mod listener;
mod live;
mod metrics;
mod options;
mod policy;
mod renderings;
mod routes;
mod server;
mod stopping;
mod tls;
mod upkeep;
mod watchers;
mod write_timeout;

pub use batchsql_metrics::{MemoryUsage, MetricsOptions, Reporter, TestResult};
pub use error::PrometheusError;
pub use metrics::PrometheusMetrics;
pub use options::ServerOptions;
pub use watchers::Lingered;
