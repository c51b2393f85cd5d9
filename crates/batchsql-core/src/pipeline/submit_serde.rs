//! Owns how a `serde` value is submitted.
//! Must not know how its fields become columns.

use serde::Serialize;

use crate::model::schema::Schema;
use crate::pipeline::error::SubmitError;
use crate::pipeline::handle::BatchSql;

impl BatchSql {
    /// Makes a row of a `serde` value, as [`Schema::row_from`](crate::Schema::row_from), and accepts it, as
    /// [`submit`](Self::submit). For other rules or a receipt, submit the row that
    /// [`Schema::row_from_with`](crate::Schema::row_from_with) returns.
    ///
    /// # Errors
    /// As [`submit`](Self::submit), and the value is not a row of this table:
    /// [`row_error`](SubmitError::row_error).
    ///
    /// # Cancel safety
    /// As [`submit`](Self::submit).
    pub async fn submit_serde<T: Serialize + ?Sized>(&self, schema: &Schema, value: &T) -> Result<(), SubmitError> {
        match schema.row_from(value) {
            Ok(row) => self.submit(&row).await,
            Err(error) => {
                let error = SubmitError::from(error);
                let reporter = &self.0.pipeline.reporter;
                reporter.call(|reporter| reporter.row_refused(schema.table_display(), error.reason()));
                Err(error)
            }
        }
    }
}
