//! The bytes of the log: rows as columns, and schemas. Pure functions.
//! Must not know the log, files or pipelines.

pub(crate) mod bytes;
pub(crate) mod rows;
pub(crate) mod schema_record;
pub(crate) mod types;

#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod hostile_tests;
