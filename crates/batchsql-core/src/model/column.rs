//! Owns one declared column of a table.
//! Must not know tables, keys or values.

use crate::model::value::ColumnType;

/// One declared column.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Column {
    name: Box<str>,
    ty: ColumnType,
    nullable: bool,
}

impl Column {
    pub(crate) fn new(name: Box<str>, ty: ColumnType, nullable: bool) -> Self {
        Self { name, ty, nullable }
    }

    /// The column's name, unquoted.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The declared type.
    pub fn column_type(&self) -> ColumnType {
        self.ty
    }

    /// Whether `NULL` is accepted, and whether a dynamic row may leave the column out.
    pub fn is_nullable(&self) -> bool {
        self.nullable
    }
}
