//! Owns what happens when the fields of a `serde` value are not the columns of its table.
//! Must not know how fields become values.

/// A field of a `serde` value that is not a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum UnknownFields {
    /// The row is refused.
    #[default]
    Refuse,
    /// The field is not written.
    Ignore,
}

/// A column that the `serde` value has no field for. Columns that are not nullable always need one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum MissingFields {
    /// A nullable column is left out: an insert takes the database's default, an update does not change the column.
    #[default]
    LeaveOut,
    /// A nullable column is `NULL`.
    Null,
    /// The row is refused.
    Refuse,
}

/// How [`Schema::row_from_with`](crate::Schema::row_from_with) treats fields that are not columns, and columns without a
/// field.
///
/// ```
/// use batchsql_core::{ColumnType, FieldRules, MissingFields, Schema, UnknownFields};
/// let events = Schema::builder("events").column("id", ColumnType::I64).nullable("note", ColumnType::Text).build()?;
/// let rules = FieldRules::default().unknown(UnknownFields::Ignore).missing(MissingFields::Null);
/// let row = events.row_from_with(&serde_json::json!({ "id": 1, "color": "red" }), rules)?;
/// assert!(row.get("note").is_some_and(|note| note.is_null()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use = "rules do nothing until they are passed on"]
pub struct FieldRules {
    pub(crate) unknown: UnknownFields,
    pub(crate) missing: MissingFields,
}

impl FieldRules {
    /// Fields that are not columns; the default is [`UnknownFields::Refuse`].
    pub fn unknown(mut self, unknown: UnknownFields) -> Self {
        self.unknown = unknown;
        self
    }

    /// What becomes of fields that are not columns.
    pub fn unknown_fields(&self) -> UnknownFields {
        self.unknown
    }

    /// What becomes of columns without a field.
    pub fn missing_fields(&self) -> MissingFields {
        self.missing
    }

    /// Columns without a field; the default is [`MissingFields::LeaveOut`].
    pub fn missing(mut self, missing: MissingFields) -> Self {
        self.missing = missing;
        self
    }
}
