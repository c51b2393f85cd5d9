//! The BatchSQL pipeline: rows from many tasks become batches, batches reach a database, and every
//! row ends in exactly one outcome.
//!
//! This crate contains no driver: drivers implement [`Sink`]. Most users depend on the facade crate `batchsql`.
//!
//! ```text
//! submit ──▶ budget ──▶ intake ──▶ dispatch ──▶ write ──▶ outcome
//! (caller)   of rows    open       order,       connection,  of every row,
//!            and bytes  batch of   fairness,    retries,     receipts,
//!                       a lane     drain        isolation    the balance
//! ```
//!
//! The only thing that makes [`BatchSql::submit`] wait is the budget of rows and bytes. A row is encoded on the
//! caller's task straight into the open columnar batch of its table. When a permit and its connection are available,
//! the dispatcher takes the oldest batch of a lane, with what was sealed after it, and writes it.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod budget;
mod config;
mod config_policies;
mod config_setters;
mod config_table;
#[doc(hidden)]
pub mod config_text;
mod dispatch;
#[doc(hidden)]
pub mod dsn;
mod durable_events;
mod durable_reporter;
mod error;
mod feed_events;
mod feed_reporter;
mod guarded_reporter;
mod idle_doubt;
mod intake;
mod model;
mod open_error;
mod outcome;
mod password;
mod pipeline;
mod pipeline_events;
mod queue;
mod reporter;
mod row;
#[doc(hidden)]
pub mod small_file;
mod warning_counts;
mod write;

#[doc(hidden)]
pub use config::EFFICIENT_BATCH_ROWS;
pub use config::{PipelineConfig, StartError};
#[doc(hidden)]
pub use config_policies::KeptBy;
pub use config_policies::{BeyondBudget, Coalesce, Delivery, Isolation, Ordering, WhenFull};
pub use config_table::TableConfig;
pub use durable_events::{DurableGauges, DurableProgress, DurableTable};
pub use durable_reporter::DurableReporter;
pub use error::{ErrorClass, SinkError};
pub use feed_events::{FeedGauges, FeedProgress, FeedTable, StopReason};
pub use feed_reporter::FeedReporter;
#[doc(hidden)]
pub use idle_doubt::{IdleCheck, IdleDoubt};
pub use model::batch::{Batch, RowView, Rows, SharedRows};
pub use model::column::Column;
pub use model::conflict::{Action, Conflict, Target};
#[doc(hidden)]
pub use model::exhaustive;
pub use model::expr::Expr;
pub use model::schema::{Schema, SchemaBuilder, SchemaId};
pub use model::schema_error::SchemaError;
pub use model::table_name::TableName;
pub use model::table_schema::TableSchema;
pub use model::temporal::{Date, OutOfCalendar, Time, Timestamp, TimestampTz};
pub use model::temporal_text::InvalidCalendarText;
pub use model::value::{ColumnType, Decimal, InvalidDecimal, InvalidJson, Json, Value, ValueRef};
pub use model::views::{BytesValues, ColumnValues, ColumnView, TextValues};
pub use open_error::OpenError;
pub use outcome::consumers::DeadLetters;
pub use outcome::ledger::Balance;
pub use outcome::letter::{DeadLetter, FailedRows};
pub use outcome::letter_line::{DeadLetterError, DeadLetterLine};
#[doc(hidden)]
pub use outcome::letter_lines::{LetterLines, LetterText, LineTooLong};
pub use outcome::letter_reader::DeadLetterReader;
pub use outcome::outcomes::{FailedRow, Outcome, OutcomeCounts, OutcomeKind};
pub use outcome::receipt::{Receipt, Returned};
pub use outcome::row_outcomes::RowOutcomes;
pub use outcome::row_receipts::{EndedRows, RowReceipts};
pub use password::{CachedPassword, Password, PasswordProvider};
pub use pipeline::builder::BatchSqlBuilder;
pub use pipeline::error::{
    FlushError, ResubmitError, SubmitAllError, SubmitAllTrackedError, SubmitError, TrySubmitAllError,
};
pub use pipeline::handle::{BatchSql, WeakBatchSql};
pub use pipeline::replay::{NotReplayed, Replay, ReplayError, ReplayFailure, ReplayReport};
#[doc(hidden)]
pub use pipeline::replay_mark::ReplayMark;
pub use pipeline::report::CloseReport;
#[cfg(feature = "sink")]
pub use pipeline::row_sink::{RowSink, RowSinkError};
pub use pipeline::steps::StepError;
pub use pipeline_events::{
    BatchExecuted, BatchInfo, BatchSealed, BatchStarted, FlushReason, PipelineGauges, PoolState,
};
#[doc(hidden)]
pub use queue::Queue;
pub use reporter::{MetricsReporter, NoopReporter};
pub use row::array::ArrayElement;
pub use row::as_json::AsJson;
pub use row::check_columns::RefusedRow;
pub use row::column_builder::ColumnBuilder;
pub use row::columns::RowColumns;
#[doc(hidden)]
pub use row::columns::{Declarations, Declared, Shapes};
pub use row::delete::Delete;
pub use row::dynamic::{DynRow, RowBuilder};
pub use row::encode::Encode;
pub use row::error::RowError;
pub use row::field_rules::{FieldRules, MissingFields, UnknownFields};
pub use row::json_record::{InvalidJsonRecord, JsonRecord};
pub use row::key::KeyHasher;
pub use row::row_buffer::RowBuffer;
pub use row::traits::{Row, TypedRow};
pub use row::writer::{RowWriter, ValueRules};
#[doc(hidden)]
pub use warning_counts::{Counted, WarningCounts};
pub use write::abandoned::AbandonedWrites;
pub use write::attempt::Attempt;
pub use write::dyn_sink::DynSink;
pub use write::health::{DatabaseState, Health, ParkedTable};
pub use write::position::{Claim, ClaimFrom, Claimed, PartitionKey, Position, Removed, Step, StoredPosition};
pub use write::session::{Session, SessionEnd};
pub use write::share::{Share, share_out};
pub use write::sink::{Limits, Sink, Written};
