//! How a row gets into the columns of a batch.
//! Must not know batches in flight, or databases.

pub(crate) mod array;
pub(crate) mod as_json;
pub(crate) mod check_columns;
pub(crate) mod column_builder;
pub(crate) mod columns;
pub(crate) mod delete;
pub(crate) mod dynamic;
pub(crate) mod encode;
pub(crate) mod error;
pub(crate) mod exact_number;
pub(crate) mod field_rules;
mod foreign;
pub(crate) mod from_serde;
pub(crate) mod json_record;
pub(crate) mod key;
pub(crate) mod row_buffer;
pub(crate) mod serde_field;
pub(crate) mod traits;
mod view;
pub(crate) mod writer;
