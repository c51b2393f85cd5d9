//! Owns the error of a row that does not fit: the column, the problem, what to do. No values.
//! Must not know batches or databases.

use std::error::Error as StdError;
use std::fmt;

use crate::model::column::Column;
use crate::model::schema::Schema;
use crate::model::schema_error::SchemaError;

/// A row does not fit its schema or the database. The row was not accepted; the caller still has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError(Box<RowErrorInner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct RowErrorInner {
    table: String,
    column: Option<String>,
    kind: RowErrorKind,
    problem: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowErrorKind {
    Type,
    Null,
    Range,
    Column,
    TooLarge,
    Defect,
}

impl RowError {
    fn new(schema: &Schema, column: Option<&str>, kind: RowErrorKind, problem: impl Into<String>) -> Self {
        Self(Box::new(RowErrorInner {
            table: schema.table_display().to_owned(),
            column: column.map(str::to_owned),
            kind,
            problem: problem.into(),
        }))
    }

    pub(crate) fn type_mismatch(schema: &Schema, column: &Column, got: &str) -> Self {
        let expected = column.column_type();
        let problem = format!("expects {expected} but got {got}; convert the value or change the declared type");
        Self::new(schema, Some(column.name()), RowErrorKind::Type, problem)
    }

    /// Text that is not a value of the column's type.
    #[doc(hidden)]
    pub fn unreadable(schema: &Schema, column: &str, why: &dyn fmt::Display) -> Self {
        Self::new(schema, Some(column), RowErrorKind::Type, format!("has text that is {why}"))
    }

    pub(crate) fn not_serializable(schema: &Schema, column: &str) -> Self {
        let problem = "has a value whose Serialize implementation fails for this column; check that implementation";
        Self::new(schema, Some(column), RowErrorKind::Type, problem)
    }

    /// A `serde` value that has no fields.
    pub(crate) fn not_fields(schema: &Schema, why: &str) -> Self {
        let problem = format!("the value is not a struct or a map with a field for each column: {why}");
        Self::new(schema, None, RowErrorKind::Type, problem)
    }

    pub(crate) fn given_twice(schema: &Schema, column: &str) -> Self {
        Self::new(schema, Some(column), RowErrorKind::Column, "is given twice; keep one of the fields")
    }

    pub(crate) fn no_field(schema: &Schema, column: &str) -> Self {
        let problem = "has no field; add one, or allow it with MissingFields::LeaveOut or Null";
        Self::new(schema, Some(column), RowErrorKind::Null, problem)
    }

    #[doc(hidden)]
    pub fn null(schema: &Schema, column: &str) -> Self {
        Self::new(schema, Some(column), RowErrorKind::Null, Self::needs_value(schema, column, "is NULL"))
    }

    pub(crate) fn missing(schema: &Schema, column: &str) -> Self {
        Self::new(schema, Some(column), RowErrorKind::Null, Self::needs_value(schema, column, "has no value"))
    }

    fn needs_value(schema: &Schema, column: &str, what: &str) -> String {
        let is_key = schema.key_columns().iter().any(|index| schema.columns()[*index].name() == column);
        if is_key {
            format!("{what}, and it is part of the key; give a value")
        } else {
            format!("{what} and is not nullable; give a value, or declare the column as nullable")
        }
    }

    pub(crate) fn wrong_count(schema: &Schema, values: usize) -> Self {
        let problem = format!(
            "{values} values for {} columns; give one for each, NULL included, or set() the columns you have",
            schema.columns().len()
        );
        Self::new(schema, None, RowErrorKind::Column, problem)
    }

    #[doc(hidden)]
    pub fn out_of_range(schema: &Schema, column: &str, what: &str) -> Self {
        Self::new(
            schema,
            Some(column),
            RowErrorKind::Range,
            format!("has a value {what}; check the value or use a wider type"),
        )
    }

    #[doc(hidden)]
    pub fn refused_value(schema: &Schema, column: &str, what: &str) -> Self {
        Self::new(schema, Some(column), RowErrorKind::Range, format!("has {what}"))
    }

    pub(crate) fn refused_row(schema: &Schema, why: &str) -> Self {
        Self::new(schema, None, RowErrorKind::Null, why)
    }

    pub(crate) fn unknown_column(schema: &Schema, column: &str) -> Self {
        let known: Vec<&str> = schema.columns().iter().map(Column::name).collect();
        let problem = format!("is not declared; the columns are {}", known.join(", "));
        Self::new(schema, Some(column), RowErrorKind::Column, problem)
    }

    pub(crate) fn too_many_values(schema: &Schema) -> Self {
        let problem = format!("more values than the {} declared columns", schema.columns().len());
        Self::new(schema, None, RowErrorKind::Column, problem)
    }

    pub(crate) fn projection(schema: &Schema, error: &SchemaError) -> Self {
        Self::new(schema, None, RowErrorKind::Column, format!("too few columns: {}", error.problem()))
    }

    /// The row is of another schema.
    pub(crate) fn other_schema(schema: &Schema, other: &Schema) -> Self {
        let problem = format!(
            "a row of table {:?} does not belong to these rows; each schema needs rows of its own",
            other.table_display()
        );
        Self::new(schema, None, RowErrorKind::Defect, problem)
    }

    /// Every column is left out.
    pub(crate) fn without_values(schema: &Schema) -> Self {
        let problem = "the row has no value at all; set at least one column, for example to NULL".to_owned();
        Self::new(schema, None, RowErrorKind::Column, problem)
    }

    pub(crate) fn too_large(schema: &Schema, bytes: usize, limit: usize) -> Self {
        let problem = format!(
            "a row of {bytes} bytes does not fit into buffer_bytes = {limit}; raise buffer_bytes or split the row"
        );
        Self::new(schema, None, RowErrorKind::TooLarge, problem)
    }

    pub(crate) fn too_wide(schema: &Schema, limit: usize) -> Self {
        let columns = schema.columns().len();
        let problem = format!("{columns} columns are more than the {limit} values that one statement can bind");
        Self::new(schema, None, RowErrorKind::TooLarge, problem)
    }

    pub(crate) fn understated(schema: &Schema, stated: usize, written: usize) -> Self {
        let problem = format!("variable_len() returned {stated} bytes but write() wrote {written}; fix the Row impl");
        Self::new(schema, None, RowErrorKind::Defect, problem)
    }

    /// The table the row is for.
    pub fn table(&self) -> &str {
        &self.0.table
    }

    /// The column at fault, if there is one.
    pub fn column(&self) -> Option<&str> {
        self.0.column.as_deref()
    }

    /// A value has another type than its column.
    pub fn is_type_mismatch(&self) -> bool {
        self.0.kind == RowErrorKind::Type
    }

    /// A value is missing or `NULL` where the column, or the database, needs one.
    pub fn is_null(&self) -> bool {
        self.0.kind == RowErrorKind::Null
    }

    /// The database cannot hold the value.
    pub fn is_out_of_range(&self) -> bool {
        self.0.kind == RowErrorKind::Range
    }

    /// The row can never fit the byte budget or a statement.
    pub fn is_too_large(&self) -> bool {
        self.0.kind == RowErrorKind::TooLarge
    }
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RowErrorInner { table, column, problem, .. } = &*self.0;
        match column {
            Some(column) => write!(f, "row of table {table:?}: column {column:?} {problem}"),
            None => write!(f, "row of table {table:?}: {problem}"),
        }
    }
}

impl StdError for RowError {}
