//! What flows through the pipeline: tables, values, and the columns of a batch.
//! Must not know how rows come in or how they are written.

pub(crate) mod batch;
pub(crate) mod buffer;
pub(crate) mod column;
pub(crate) mod column_types;
pub(crate) mod columns;
pub(crate) mod conflict;
pub(crate) mod decimal;
pub mod exhaustive;
pub(crate) mod expr;
mod from_crates;
pub(crate) mod hex;
pub(crate) mod json;
pub(crate) mod keys;
pub(crate) mod merge;
pub(crate) mod rules;
pub(crate) mod schema;
pub(crate) mod schema_error;
pub(crate) mod serde_forms;
pub(crate) mod table_name;
pub(crate) mod table_schema;
pub(crate) mod temporal;
pub(crate) mod temporal_text;
pub(crate) mod value;
pub(crate) mod value_order;
pub(crate) mod value_text;
pub(crate) mod views;
