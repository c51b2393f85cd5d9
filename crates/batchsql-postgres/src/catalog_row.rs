//! Owns the reading of values from rows of the server's catalogue.
//! Must not know queries or tables.

use std::fmt::Write;

use batchsql_core::{ErrorClass, SinkError};
use sqlx::Row;
use sqlx::postgres::PgRow;

pub(crate) fn get<'r, T>(row: &'r PgRow, index: usize) -> Result<T, SinkError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(index).map_err(unexpected)
}

pub(crate) fn named<'r, T>(row: &'r PgRow, column: &str) -> Result<T, SinkError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(column).map_err(unexpected)
}

pub(crate) fn letter(row: &PgRow, index: usize) -> Result<char, SinkError> {
    get::<String>(row, index).map(|text| text.chars().next().unwrap_or(' '))
}

fn unexpected(error: sqlx::Error) -> SinkError {
    let mut text = "the server's catalogue is not as expected".to_owned();
    // The error contains names and types of the catalogue, no row values.
    write!(text, ": {error}").expect("writing to a String cannot fail");
    SinkError::new(ErrorClass::Internal, text)
}
