//! The SQLite sink of BatchSQL: one writer, `BEGIN IMMEDIATE`, WAL, cached multi-row statements, and an
//! exact outcome for every row.
//!
//! ```
//! use batchsql_core::{BatchSql, ColumnType, Conflict, Schema};
//! use batchsql_sqlite::SqliteSink;
//! use std::time::Duration;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! let sink = SqliteSink::open("sqlite::memory:")?;
//! sink.call(|conn| conn.execute_batch("CREATE TABLE events (id INTEGER PRIMARY KEY, body TEXT)")).await?;
//!
//! let db = BatchSql::builder(sink.clone()).start()?;
//! let events = Schema::builder("events")
//!     .column("id", ColumnType::I64)
//!     .nullable("body", ColumnType::Text)
//!     .on_conflict(Conflict::ignore(["id"]))
//!     .build()?;
//! db.submit(&events.row().set("id", 1_i64)?.set("body", "hi")?.finish()?).await?;
//! let report = db.close(Duration::from_secs(10)).await;
//! assert_eq!(report.balance.written(), 1);
//!
//! let rows: i64 = sink.call(|conn| conn.query_row("SELECT count(*) FROM events", [], |row| row.get(0))).await?;
//! assert_eq!(rows, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Types
//!
//! | BatchSQL | stored as | declared type of the column |
//! |---|---|---|
//! | bool, i16, i32 | INTEGER | any but TEXT |
//! | i64, u64 | INTEGER; a `u64` above `i64::MAX` is refused at admission | not TEXT, not REAL |
//! | f32, f64 | REAL, whole numbers as INTEGER in INTEGER and NUMERIC columns; `NaN`, which SQLite would turn into NULL, is refused at admission | not TEXT, not the row id |
//! | decimal, text, json | TEXT | TEXT, BLOB or none: SQLite turns numbers in text into floating point in every other column, for example `DECIMAL(10,2)` |
//! | bytes | BLOB | any but the row id |
//! | uuid | hyphenated TEXT in a TEXT column, else BLOB of 16 bytes | any but the row id |
//! | date, time, timestamp, timestamptz | ISO 8601 TEXT with microseconds, `timestamptz` with `+00:00` | not INTEGER, not REAL |
//!
//! STRICT tables need the type in the column "stored as", or `ANY`; a REAL column there also accepts integers up to
//! `i32`. Coordinates of an `rtree` are floats of 32 bits and accept `f32`, `i16` and `bool`; those of an `rtree_i32`
//! accept integers up to `i32`. `-0.0` loses its sign, except in columns without conversion (BLOB, none, `ANY`).
//!
//! A column that would change values, or reject them all, is rejected when its table is first read, and again when
//! any table of the database has changed.
//!
//! # Which SQLite
//!
//! | feature | SQLite |
//! |---|---|
//! | `bundled` (default) | the one that comes with rusqlite |
//! | without it | the system's |
//!
//! The version of rusqlite, and so of the SQLite, depends on the other crates of the program. `docs/databases.md`,
//! "Which SQLite", has the combinations. If the linked version has the WAL-reset bug and WAL is on, opening a database
//! logs a warning, once per process.
//!
//! # One writer
//!
//! One batch is written while the next one waits in the writer's queue.
//!
//! # Abandoned writes
//!
//! A batch that is abandoned, by `statement_timeout` or by the deadline of `close`, before its `COMMIT` is known not
//! to be written: it is interrupted and rolled back, then retried, or ends as `Purged`. Its outcome is unknown only
//! while the commit itself runs. It ends before the writer starts the next one, so it cannot overwrite newer rows of
//! the same pipeline. Two sinks on one file have no order between them, with or without abandoned batches.
//!
//! # Durability
//!
//! The default is WAL with `synchronous=NORMAL`: a commit survives a crash of the process, and a crash
//! of the machine may lose the last commits but never corrupts the file. With
//! [`Synchronous::Full`] every commit survives both.
//!
//! If the file is moved, deleted or replaced while it is open, no rows are written: their table is parked until
//! the file is back (on Unix; elsewhere an open file cannot be moved).

#![cfg_attr(docsrs, feature(doc_cfg))]

mod bind;
mod classify;
mod find_written;
mod journal;
mod linked_version;
mod opened_file;
mod options;
mod plan;
mod position;
mod read_schema;
mod refused_commit;
mod returned;
mod sink;
mod table;
mod types;
mod write;
mod writer;

/// The SQLite client of this sink, for [`SqliteSink::call`].
pub use rusqlite;

pub use batchsql_core::OpenError;
pub use options::{SqliteOptions, Synchronous};
pub use sink::{SqliteConn, SqliteSink};
