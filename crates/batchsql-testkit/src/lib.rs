//! Sinks without a database: [`ScriptedSink`] fails on command and records what it applied, so that
//! you can test how your code handles every outcome; [`NullSink`] takes everything and keeps nothing,
//! so that you can measure the pipeline alone.
//!
//! ```
//! use batchsql_core::{BatchSql, ColumnType, ErrorClass, Outcome, Schema};
//! use batchsql_testkit::{ScriptedSink, Step};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! let sink = ScriptedSink::new();
//! sink.script([Step::Fail(ErrorClass::Transient), Step::Fail(ErrorClass::Permission)]);
//! let db = BatchSql::builder(sink.clone()).start()?;
//! let schema = Schema::builder("t").column("id", ColumnType::I64).build()?;
//!
//! let receipt = db.submit_tracked(&schema.row().set("id", 1_i64)?.finish()?).await?;
//! // The first error passes and is retried, the second one ends the row.
//! assert!(matches!(receipt.await, Outcome::Rejected(row) if row.attempts() == 2));
//! assert!(sink.applied().is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod null;
mod scripted;

pub use null::NullSink;
pub use scripted::{ScriptedSink, Step};
