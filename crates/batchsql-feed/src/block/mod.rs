//! The bytes of a source: rows as columns, and schemas, as `FORMAT.md` describes them. Pure functions.
//! Must not know sources, files or pipelines.

mod bytes;
pub(crate) mod rows;
pub(crate) mod schema_record;
mod types;

pub use bytes::Unreadable;
pub use rows::{MAX_ROWS, check, decode, encode};
pub use schema_record::{LoggedColumn, LoggedRule, LoggedSchema, decode as decode_schema, encode as encode_schema};

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod hostile_tests;
