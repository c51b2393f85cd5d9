//! Sinks without a database, so that you can test how your code handles every outcome:
//!
//! - [`ScriptedSink`] fails on command and records what it applied: it waits, fails with any class of
//!   error, refuses single rows, loses the reply after it has applied the rows, panics, hangs until it is
//!   released; tables can be broken or slow.
//! - [`Model`] is what a database would have after some rows: compare it with what the sink has.
//! - [`batch_of`], [`receipts_of`] and [`outcomes_of`] are for tests of a driver of your own.
//! - [`check_positions`] checks whether a driver of your own can be written exactly once.
//! - [`NullSink`] accepts every row and keeps none, so that you can measure the pipeline alone.
//!
//! A row that the database refuses, and the outcomes of the others:
//!
//! ```
//! use batchsql_core::{BatchSql, ColumnType, OutcomeKind, Schema, ValueRef};
//! use batchsql_testkit::ScriptedSink;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! let sink = ScriptedSink::new();
//! sink.poison(|row| row.get("id") == Some(ValueRef::I64(3)));
//! let db = BatchSql::builder(sink.clone()).start()?;
//! let schema = Schema::builder("t").column("id", ColumnType::I64).build()?;
//!
//! let mut receipts = Vec::new();
//! for id in 0..10_i64 {
//!     receipts.push(db.submit_tracked(&schema.row().set("id", id)?.finish()?).await?);
//! }
//! let balance = db.flush().await?;
//! assert_eq!((balance.written(), balance.rejected()), (9, 1));
//! assert_eq!(receipts.remove(3).await.kind(), OutcomeKind::Rejected);
//! assert_eq!(sink.tables().rows("t").len(), 9);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A connection that breaks after the commit. Rows with a key are safe to repeat; the outcome of plain inserts is
//! unknown:
//!
//! ```
//! use batchsql_core::{BatchSql, ColumnType, Conflict, Outcome, Schema};
//! use batchsql_testkit::{ScriptedSink, Step};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! let sink = ScriptedSink::new();
//! let db = BatchSql::builder(sink.clone()).start()?;
//! let table = |name| Schema::builder(name).column("id", ColumnType::I64).nullable("note", ColumnType::Text);
//! let keyed = table("keyed").on_conflict(Conflict::update(["id"])).build()?;
//! let plain = table("plain").build()?;
//!
//! sink.script([Step::LoseReply]);
//! let receipt = db.submit_tracked(&keyed.row().set("id", 1_i64)?.set("note", "n")?.finish()?).await?;
//! assert!(receipt.await.is_written());
//!
//! sink.script([Step::LoseReply]);
//! let receipt = db.submit_tracked(&plain.row().set("id", 1_i64)?.set("note", "n")?.finish()?).await?;
//! match receipt.await {
//!     Outcome::Unknown(row) => assert_eq!(row.attempts(), 1),
//!     other => panic!("{other:?}"),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batch;
mod check_leases;
mod check_moved;
mod check_positions;
mod check_removal;
mod check_versions;
mod model;
mod null;
#[doc(hidden)]
pub mod partial_index;
mod scripted;
mod shapes;

pub use batch::{batch_of, outcomes_of, receipts_of};
#[doc(hidden)]
pub use check_moved::check_moved;
pub use check_positions::check_positions;
#[doc(hidden)]
pub use check_versions::check_versions;
pub use model::{Effect, Model};
pub use null::NullSink;
#[doc(hidden)]
pub use scripted::Sabotage;
pub use scripted::{ScriptedSink, Step};
#[doc(hidden)]
pub use shapes::{SHAPES_TABLE, measure_shapes};
