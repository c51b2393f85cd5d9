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
//! | path | answer |
//! |---|---|
//! | `GET /metrics` | every metric in the text format 0.0.4, with `process_*` |
//! | `GET /health` | `200 ok` |
//! | `GET /` | links to both |
//!
//! It runs on a thread of its own, so that it answers also when the pipeline keeps every worker of your
//! runtime busy. It listens on the loopback interface unless told otherwise, and it limits the number
//! of connections and the time that each may take.

mod access;
mod connections;
mod encoding;
mod error;
mod exposition;
mod listener;
mod live;
mod metrics;
mod options;
mod patience;
mod policy;
mod routes;
mod server;
mod tls;
mod upkeep;
mod watchers;

pub use batchsql_metrics::{MemoryUsage, MetricsOptions, Reporter, TestResult};
pub use error::PrometheusError;
pub use metrics::PrometheusMetrics;
pub use options::ServerOptions;
pub use watchers::Lingered;
