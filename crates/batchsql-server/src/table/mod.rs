//! Tables: what the configuration and the database say of one together (`target`), and how a record becomes its row
//! (`record`, `csv_record` for fields that are all text, with the short way of `csv_values`, `batch` for those of Arrow; `document` for
//! JSON columns).

#[cfg(feature = "arrow")]
mod batch;
pub(crate) mod csv_record;
pub(crate) mod csv_values;
mod document;
pub(crate) mod record;
pub(crate) mod target;
