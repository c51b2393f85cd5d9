//! Owns fields that become JSON documents.
//! Must not know rows, except for their writer.

use std::io::{self, Write};

use serde::Serialize;

use crate::model::value::{ColumnType, ValueRef};
use crate::row::encode::Encode;
use crate::row::error::RowError;
use crate::row::key::KeyHasher;
use crate::row::writer::RowWriter;

/// Any `serde` value as a JSON column: what `#[row(json)]` does, as a type.
///
/// The value is serialised twice, for its length and for its text, which must be the same. A value that cannot be JSON (for
/// example a map whose keys are lists) refuses the row.
///
/// ```
/// use batchsql_core::{AsJson, ColumnType, Encode};
/// let tags = AsJson(vec!["new", "gift"]);
/// assert_eq!(tags.variable_len(), r#"["new","gift"]"#.len());
/// fn column_type<T: Encode>(_: &T) -> ColumnType {
///     T::TYPE
/// }
/// assert_eq!(column_type(&tags), ColumnType::Json);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct AsJson<T>(pub T);

impl<T: Serialize> Encode for AsJson<T> {
    const TYPE: ColumnType = ColumnType::Json;

    fn variable_len(&self) -> usize {
        json_len(&self.0)
    }

    fn hash_key(&self, hasher: &mut KeyHasher) {
        hash_json(&self.0, hasher);
    }

    fn encode(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        encode_json(&self.0, writer)
    }
}

/// JSON `null` is the document `null`. For `NULL`, use `Option`.
impl Encode for serde_json::Value {
    const TYPE: ColumnType = ColumnType::Json;

    fn variable_len(&self) -> usize {
        json_len(self)
    }

    fn hash_key(&self, hasher: &mut KeyHasher) {
        hash_json(self, hasher);
    }

    fn encode(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        encode_json(self, writer)
    }
}

/// Counts what is written to it.
struct Length(usize);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn json_len<T: Serialize + ?Sized>(value: &T) -> usize {
    let mut length = Length(0);
    // `encode` reports the error.
    let _ = serde_json::to_writer(&mut length, value);
    length.0
}

fn hash_json<T: Serialize + ?Sized>(value: &T, hasher: &mut KeyHasher) {
    let text = serde_json::to_string(value).unwrap_or_default();
    hasher.add(ValueRef::Json(&text));
}

fn encode_json<T: Serialize + ?Sized>(value: &T, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
    match serde_json::to_string(value) {
        Ok(text) => writer.raw_json(&text),
        Err(_) => Err(writer.not_serializable()),
    }
}
