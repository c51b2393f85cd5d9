//! The metrics of BatchSQL over the [`metrics`] crate, so that any exporter works. This crate is the
//! only place with metric names: [`Metric`] is the catalogue.
//!
//! ```text
//! pipeline ──events──▶ Reporter ──▶ metrics::Recorder (global or injected) ──▶ any exporter
//!                      one per      names, labels, buckets: Metric
//!                      pipeline
//! ```
//!
//! The Prometheus exporter is the crate `batchsql-prometheus`. For another exporter, pass its recorder,
//! or install it globally first:
//!
//! ```
//! use std::sync::Arc;
//! use batchsql_core::{BatchSql, ColumnType, Schema};
//! use batchsql_metrics::Metrics;
//! use batchsql_testkit::NullSink;
//! use metrics_util::debugging::DebuggingRecorder;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! let recorder = DebuggingRecorder::new();
//! let snapshots = recorder.snapshotter();
//! let metrics = Metrics::with_recorder(Arc::new(recorder));
//!
//! let db = BatchSql::builder(NullSink).metrics_reporter(metrics.reporter("null")).start()?;
//! let events = Schema::builder("events").column("id", ColumnType::I64).build()?;
//! db.submit(&events.row().set("id", 1_i64)?.finish()?).await?;
//! db.flush().await?;
//!
//! assert!(snapshots.snapshot().into_vec().iter().any(|(key, ..)| key.key().name() == "batchsql_batch_size"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Cardinality
//! Labels have a closed set of values, with two exceptions: `table` and `test_case` come from you.
//! [`MetricsOptions`] limits the number of their values; further ones are counted as `other`. No label
//! ever holds SQL, an error text or the value of a row.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod capped;
mod catalogue;
mod current_test_case;
mod durable_series;
mod emit;
mod facade;
mod feed_series;
mod options;
mod reporter;
mod scope;
mod series;
#[cfg(feature = "test-metrics")]
mod test_metrics;
#[cfg(feature = "test-metrics")]
mod test_result;
mod unix_time;

pub use catalogue::{Metric, MetricKind};
pub use facade::Metrics;
pub use options::MetricsOptions;
pub use reporter::Reporter;
#[cfg(feature = "test-metrics")]
pub use test_result::{MemoryUsage, TestResult};
