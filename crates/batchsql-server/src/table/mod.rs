//! Tables: what the configuration and the database say of one together (`target`), and how a record becomes its row
//! (`record`, and `csv_record` for fields that are all text; `document` for JSON columns).

pub(crate) mod csv_record;
mod document;
pub(crate) mod record;
pub(crate) mod target;
