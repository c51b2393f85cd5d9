//! A durable intake for BatchSQL: a row that was accepted is on disk, and is written to the database now, after an outage
//! of any length, or after the next start of the program. At least once, or exactly once.
//!
//! ```
//! use batchsql_core::{BatchSql, ColumnType, Conflict, Schema};
//! use batchsql_durable::{DurableExt, DurableOptions};
//! # use batchsql_testkit::ScriptedSink;
//! # use std::time::Duration;
//!
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
//! # let sink = ScriptedSink::new();
//! # let folder = tempfile::tempdir()?;
//! let options = DurableOptions::new(folder.path()).min_free_bytes(0);
//! let db = BatchSql::builder(sink).durable(options).start().await?;
//!
//! let events = Schema::builder("events")
//!     .column("id", ColumnType::I64)
//!     .column("note", ColumnType::Text)
//!     .on_conflict(Conflict::ignore(["id"]))
//!     .build()?;
//! db.submit(&events.row().set("id", 1_i64)?.set("note", "on disk when this returns")?.finish()?).await?;
//!
//! let report = db.close(Duration::from_secs(10)).await;
//! assert!(report.is_drained());
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is promised
//!
//! 1. A row whose `submit` returned `Ok` reaches the table, or the dead-letter file if the database refuses it, as long as
//!    the disk keeps its bytes. With [`SyncPolicy::Always`] this survives a power loss, with [`SyncPolicy::Os`] the end of
//!    the process.
//! 2. It may be written more than once: after a crash, and after a lost reply. With a conflict rule that has a key the table
//!    is the same; a plain insert may be there twice. With [`DurableOptions::exactly_once`] it is written once.
//! 3. Rows of a key are written in the order in which they were stored, across starts too. After a repeat the last row of a
//!    key is the last one that is written. Calls that are under way at the same time have no order among each other: when
//!    the log is full, rows of a later call may be stored first.
//! 4. Rows that are submitted together are stored all or none ([`DurableBatchSql::submit_group`]), and a request with a key once
//!    ([`DurableBatchSql::submit_group_once`]).
//! 5. Nothing is skipped silently: missing or unreadable rows stop their partition ([`DurableHealth::stopped`]).
//!
//! # Modules
//!
//! `intake` gathers rows into blocks and appends them to the log (`batchsql-log`); `feed` is the log as a source, from which
//! `batchsql-feed` writes the rows. `builder`, `handle`, `submit`, `together` (all rows or
//! none, and requests with keys), `request` and `close` are what callers hold; `shared` and `ending` are under them; `monitor` reports to the observers of the pipeline. [`tools`] looks into
//! a folder that no program uses.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod close;
mod ending;
mod error;
mod feed;
mod handle;
mod health;
mod intake;
mod monitor;
mod options;
mod positions;
mod refusals;
mod request;
mod shared;
mod submit;
mod together;
pub mod tools;

pub use batchsql_feed::StoppedPartition;
pub use batchsql_log::{LogError, LogErrorKind, LogStats, Progress, SyncLatency, SyncPolicy};
pub use builder::{DurableBuilder, DurableExt};
pub use error::{
    DurableFlushError, DurableStartError, DurableSubmitAllError, DurableSubmitError, DurableTrySubmitAllError,
};
pub use handle::DurableBatchSql;
pub use health::{DurableCloseReport, DurableHealth, DurableStats, Recovered};
pub use options::DurableOptions;
#[doc(hidden)]
pub use options::Sabotage;
pub use request::{Once, RequestKey};
pub use together::RowGroup;

/// The README is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
