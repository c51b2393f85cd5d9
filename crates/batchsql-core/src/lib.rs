//! The BatchSQL pipeline: rows from many tasks become batches, batches reach a database, and every
//! row ends in exactly one outcome.
//!
//! This crate has no database in it: drivers implement [`Sink`]. Most people depend on the facade
//! crate `batchsql`.
//!
//! ```text
//! submit ──▶ queue ──▶ group ──▶ dispatch ──▶ execute ──▶ receipt, ledger
//! (caller)   budget    open      order,       connection,  outcome of
//!            of rows   batch of  fairness,    retries,     every row,
//!            and bytes a table   drain        isolation    the balance
//! ```
//!
//! The only thing that makes [`BatchSql::submit`] wait is the budget of rows and bytes. A row is
//! encoded on the caller's task straight into the open columnar batch of its table; only full or due
//! batches travel through a channel.

// What flows.
mod batch;
mod columns;
mod decimal;
mod dyn_row;
mod encode;
mod row;
mod schema;
mod temporal;
mod value;

// The way it flows, in the order that a row walks.
mod builder;
mod coalesce;
mod dead_letter;
mod dispatch;
mod execute;
mod group;
mod groups;
mod handle;
mod isolate;
mod job;
mod ledger;
mod ndjson;
mod plans;
mod queue;
mod receipt;
mod retry;
mod round;
mod schedule;
mod table;

// The edges.
mod config;
mod error;
mod reporter;
mod sink;

pub use batch::{Batch, RowView, Rows, SharedRows};
pub use builder::BatchSqlBuilder;
pub use columns::{BytesValues, ColumnValues, ColumnView, TextValues};
pub use config::{BeyondBudget, Coalesce, Delivery, Isolation, Ordering, PipelineConfig, WhenFull};
pub use dead_letter::{DeadLetter, DeadLetters, FailedRows};
pub use dyn_row::{DynRow, RowBuilder};
pub use encode::{Encode, KeyHasher};
pub use error::{ErrorClass, RowError, SchemaError, SinkError, StartError, SubmitAllError, SubmitError};
pub use handle::{BatchSql, CloseReport, FlushError, ResubmitError, WeakBatchSql};
pub use ledger::Balance;
pub use receipt::{FailedRow, Outcome, OutcomeCounts, OutcomeKind, Receipt};
pub use reporter::{
    BatchExecuted, BatchInfo, BatchSealed, BatchStarted, FlushReason, MetricsReporter, NoopReporter, PipelineGauges,
};
pub use row::{Row, RowWriter, TypedRow, ValueRules};
pub use schema::{Column, Conflict, Schema, SchemaBuilder, SchemaId, TableName};
pub use sink::{Attempt, DynSink, Limits, PoolState, Sink, Written};
pub use temporal::{Date, OutOfCalendar, Time, Timestamp, TimestampTz};
pub use value::{ColumnType, Decimal, InvalidDecimal, InvalidJson, Json, Value, ValueRef};
