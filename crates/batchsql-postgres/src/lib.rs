//! The PostgreSQL sink of BatchSQL: COPY BINARY, UNNEST, multi-row inserts or a staging table, chosen for each batch,
//! with an exact outcome for every row. For PostgreSQL 12 and later.
//!
//! ```no_run
//! use batchsql_core::{BatchSql, ColumnType, Conflict, Schema};
//! use batchsql_postgres::PostgresSink;
//! use std::time::Duration;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let sink = PostgresSink::connect("postgres://app:secret@db.example.org/app?sslmode=verify-full").await?;
//! let db = BatchSql::builder(sink).start()?;
//!
//! let events = Schema::builder("events")
//!     .column("id", ColumnType::I64)
//!     .nullable("body", ColumnType::Text)
//!     .on_conflict(Conflict::ignore(["id"]))
//!     .build()?;
//! db.submit(&events.row().set("id", 1_i64)?.set("body", "hi")?.finish()?).await?;
//! let report = db.close(Duration::from_secs(10)).await;
//! assert!(report.is_complete());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A pool that you have works too: [`PostgresSink::new`].
//!
//! # Types
//!
//! | BatchSQL | column |
//! |---|---|
//! | bool | `boolean` |
//! | i16, i32, i64, u64 | `smallint`, `integer`, `bigint`, `numeric`; a number that the column cannot hold rejects its row. i16 and i32 also `double precision`, i16 also `real` |
//! | f32 | `real`, `double precision` |
//! | f64 | `double precision` |
//! | decimal | `numeric`, `text`, `varchar`, `char`; never by way of floating point |
//! | text | `text`, `varchar`, `char`, `name`, `citext`, enums, `json`, `jsonb`; and, read by the server, any type that has no column type of its own: `inet`, `interval`, `xml`, `uuid`, ranges, arrays as `{1,2}`, … |
//! | bytes | `bytea` |
//! | uuid | `uuid` |
//! | json | `json`, `jsonb`, `text`; in an array column a JSON array becomes an array of one dimension |
//! | date, time, timestamp, timestamptz | `date`, `time`, `timestamp`, `timestamptz`; instants are never turned into local times or back |
//!
//! A domain is taken as the type it is based on. A column that would change values is refused when its table is first
//! looked at; text with a NUL character when the row is submitted.
//!
//! # Outcomes
//!
//! One batch is one transaction. Rows that `ON CONFLICT DO NOTHING` leaves out are told by the keys that the insert
//! returns. Where a key does not come back as it was sent (`char(n)`, `numeric(p,s)`, floating point, text that is
//! read as another type), and where a `BEFORE` trigger of the table may drop rows, the batch is written in parts that
//! are inserted whole or not at all. That takes two round trips more, and further statements when rows are ignored.
//! A row that a trigger drops ends as `Ignored`, also when the trigger put it somewhere else.
//!
//! # The table
//!
//! It is looked at once per schema, and again after an error that says that it changed. While rows are written by
//! COPY, do not change the type of a column to another one of the same width (`bigint` to `timestamptz`): its binary
//! form says nothing of its type.
//!
//! # Poolers
//!
//! Behind PgBouncer in transaction mode, and poolers like it, use
//! [`prepared_statements(false)`](PostgresOptions::prepared_statements).

mod catalog;
mod classify;
mod conn;
mod encode;
mod options;
mod params;
mod plan;
mod settings;
mod sink;
mod stage;
mod statements;
mod told;
mod types;
mod write;
mod write_copy;
mod write_insert;

/// The PostgreSQL client of this sink, for [`PostgresSink::new`] and [`PostgresSink::pg_pool`].
pub use sqlx;

pub use conn::PostgresConn;
pub use options::{OpenError, PostgresOptions};
pub use plan::PostgresPlan;
pub use settings::{Settings, Strategy};
pub use sink::PostgresSink;
