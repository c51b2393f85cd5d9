//! SQL text for drivers, without any I/O: quoting, multi-row inserts with their conflict clauses, and
//! the arithmetic of splitting rows into statements, and the message of what is wrong with a table. And what else is the same in
//! several drivers: the names of a pool's sessions, the digits of numbers in text.
//!
//! ```
//! use batchsql_core::{ColumnType, Conflict, Schema};
//! use batchsql_sql::insert;
//!
//! let schema = Schema::builder("odd \"name\"")
//!     .column("id", ColumnType::I64)
//!     .column("note", ColumnType::Text)
//!     .on_conflict(Conflict::update(["id"]))
//!     .build()?;
//! assert_eq!(
//!     insert(&schema, 2),
//!     r#"INSERT INTO "odd ""name""" ("id","note") VALUES (?,?),(?,?) ON CONFLICT ("id") DO UPDATE SET "note"=excluded."note""#,
//! );
//! # Ok::<(), batchsql_core::SchemaError>(())
//! ```

mod dialect;
mod digits;
mod ident;
mod insert;
pub mod mysql;
mod position;
mod problems;
mod returned;
mod session_names;
mod sizes;
mod split;

pub use dialect::{NEW, OLD};
pub use digits::{Digits, float_of};
pub use ident::{quote, quote_table};
pub use insert::{count_found, insert, statement_from, stored_row};
pub use position::{MOVED_TO, lease_after, lease_left, lease_micros, move_position, position_of, release_position};
pub use problems::{TableProblems, missing_columns, quoted_names};
pub use returned::returned_value;
pub use session_names::SessionNames;
pub use sizes::{KeptSizes, pieces};
pub use split::{Shapes, rows_per_statement};
