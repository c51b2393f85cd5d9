//! Tables: what the configuration and the database say of one together (`target`), and how a record becomes its row
//! (`record`, `csv_record` for fields that are all text, with the short way of `csv_values`, `batch` for those of Arrow).

#[cfg(feature = "arrow")]
mod batch;
pub(crate) mod csv_record;
pub(crate) mod csv_values;
pub(crate) mod record;
pub(crate) mod target;
