//! The outcomes of rows, and who receives them.
//! Must not know how batches are written.

pub(crate) mod consumers;
pub(crate) mod ledger;
pub(crate) mod letter;
pub(crate) mod letter_line;
pub(crate) mod letter_lines;
pub(crate) mod letter_reader;
mod letter_values;
pub(crate) mod ndjson;
pub(crate) mod outcomes;
pub(crate) mod receipt;
pub(crate) mod row_outcomes;
pub(crate) mod row_receipts;
pub(crate) mod tracking;
