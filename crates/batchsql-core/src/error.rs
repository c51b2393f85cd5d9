//! Owns the errors of the pipeline: opaque, classified, with advice, without row values.
//! Must not know databases: drivers translate server codes into `ErrorClass`.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::schema::{Column, Schema, TableName};
use crate::value::ColumnType;

/// What an error means for the rows of a batch. Drivers decide by server code, never by message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// Passing: the same transaction may succeed later (deadlock, lock timeout, lost link before
    /// the commit was sent). Retried.
    Transient,
    /// One or more rows are at fault (constraint, range, encoding). Isolated.
    Row,
    /// The table or a column does not exist or has an unfit type. The table is parked.
    Schema,
    /// The user may not write the table. The table is parked.
    Permission,
    /// The statement was too large. Split.
    Size,
    /// Two rows of the statement are the same row to the database (PostgreSQL 21000), although their keys
    /// differ here, for example in case. Split, so that they are written one after the other.
    Duplicate,
    /// The database is out of something (disk, memory), or a server is read-only until it has failed over.
    /// Retried slowly.
    Resource,
    /// The link was lost, or time ran out, after the commit may have been sent.
    Unknown,
    /// A defect in a driver or in the pipeline, for example a panic.
    Internal,
}

impl ErrorClass {
    /// Every class, in declaration order; the closed set of the `error_type` metric label.
    pub const ALL: [Self; 9] = [
        Self::Transient,
        Self::Row,
        Self::Schema,
        Self::Permission,
        Self::Size,
        Self::Duplicate,
        Self::Resource,
        Self::Unknown,
        Self::Internal,
    ];

    /// The name used in metric labels and reports, for example `transient`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Row => "row",
            Self::Schema => "schema",
            Self::Permission => "permission",
            Self::Size => "size",
            Self::Duplicate => "duplicate",
            Self::Resource => "resource",
            Self::Unknown => "unknown",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a database refused a batch, a row or a connection. Cheap to clone: every row of a batch may
/// carry it.
#[derive(Clone)]
pub struct SinkError(Arc<SinkErrorInner>);

struct SinkErrorInner {
    class: ErrorClass,
    code: Option<Box<str>>,
    message: Box<str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl SinkError {
    /// An error with a message for people. The message must not carry row values or passwords.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self::build(class, None, message.into(), None)
    }

    /// An error with the server's own code, for example an SQLSTATE.
    pub fn with_code(class: ErrorClass, code: impl fmt::Display, message: impl Into<String>) -> Self {
        Self::build(class, Some(code.to_string().into()), message.into(), None)
    }

    /// Attaches the driver's error as the source. It must not carry row values or passwords.
    #[must_use]
    pub fn caused_by(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::build(self.0.class, self.0.code.clone(), self.0.message.to_string(), Some(source.into()))
    }

    fn build(
        class: ErrorClass,
        code: Option<Box<str>>,
        message: String,
        source: Option<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self(Arc::new(SinkErrorInner { class, code, message: message.into(), source }))
    }

    /// What the error means for the rows.
    pub fn class(&self) -> ErrorClass {
        self.0.class
    }

    /// The server's code, when there is one.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// The error of rows that were refused together with others, and then not written alone.
    pub(crate) fn not_looked_at_alone(&self) -> Self {
        let message = format!(
            "this row was not looked at alone, because its batch has more bad rows than Isolation::Bisect allows to \
             search for; the rows were refused together: {}",
            self.0.message
        );
        Self::build(self.0.class, self.0.code.clone(), message, None)
    }

    /// Whether the same transaction may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self.class(), ErrorClass::Transient | ErrorClass::Resource)
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        match self.code() {
            Some(code) => write!(f, " ({} error, code {code})", self.class()),
            None => write!(f, " ({} error)", self.class()),
        }
    }
}

impl fmt::Debug for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkError")
            .field("class", &self.class())
            .field("code", &self.code())
            .field("message", &self.0.message)
            .finish_non_exhaustive()
    }
}

impl StdError for SinkError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// A schema was declared wrongly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("schema of table {table:?}: {problem}")]
pub struct SchemaError {
    table: String,
    problem: String,
}

impl SchemaError {
    pub(crate) fn new(table: &TableName, problem: String) -> Self {
        Self { table: table.to_string(), problem }
    }

    /// The table the schema is about.
    pub fn table(&self) -> &str {
        &self.table
    }
}

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

    pub(crate) fn type_mismatch(schema: &Schema, column: &Column, got: ColumnType) -> Self {
        let expected = column.column_type();
        let problem = format!("expects {expected} but got {got}; convert the value or change the declared type");
        Self::new(schema, Some(column.name()), RowErrorKind::Type, problem)
    }

    pub(crate) fn null(schema: &Schema, column: &str) -> Self {
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
            format!("{what} and is not nullable; give a value or declare the column with .nullable()")
        }
    }

    pub(crate) fn wrong_count(schema: &Schema, values: usize) -> Self {
        let problem = format!(
            "{values} values for {} columns; give one for each, NULL included, or set() the columns you have",
            schema.columns().len()
        );
        Self::new(schema, None, RowErrorKind::Column, problem)
    }

    pub(crate) fn out_of_range(schema: &Schema, column: &str, what: &str) -> Self {
        Self::new(
            schema,
            Some(column),
            RowErrorKind::Range,
            format!("has a value {what}; check the value or use a wider type"),
        )
    }

    pub(crate) fn refused_value(schema: &Schema, column: &str, what: &str) -> Self {
        Self::new(schema, Some(column), RowErrorKind::Range, format!("has {what}"))
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
        Self::new(schema, None, RowErrorKind::Column, format!("too few columns: {}", error.problem))
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
        let problem = format!("variable_len() said {stated} bytes but write() wrote {written}; correct the Row impl");
        Self::new(schema, None, RowErrorKind::Defect, problem)
    }

    /// The table the row is for.
    pub fn table(&self) -> &str {
        &self.0.table
    }

    /// The column at fault, when it is one.
    pub fn column(&self) -> Option<&str> {
        self.0.column.as_deref()
    }

    /// A value has another type than its column.
    pub fn is_type_mismatch(&self) -> bool {
        self.0.kind == RowErrorKind::Type
    }

    /// A value is missing or `NULL` where the column needs one.
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

/// Why a row was not accepted. Nothing of it was kept: the caller still has the row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct SubmitError(SubmitErrorKind);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum SubmitErrorKind {
    #[error("the pipeline is closed, by close() or with its runtime; the row is still yours: submit it to a new one")]
    Closed,
    #[error("the buffer is full; wait for room (WhenFull::Wait), or raise buffer_size or buffer_bytes")]
    Full,
    #[error(transparent)]
    Row(RowError),
}

impl SubmitError {
    pub(crate) fn closed() -> Self {
        Self(SubmitErrorKind::Closed)
    }

    pub(crate) fn full() -> Self {
        Self(SubmitErrorKind::Full)
    }

    /// The pipeline was closed.
    pub fn is_closed(&self) -> bool {
        self.0 == SubmitErrorKind::Closed
    }

    /// There was no room and the call does not wait, or not any longer.
    pub fn is_full(&self) -> bool {
        self.0 == SubmitErrorKind::Full
    }

    /// The row itself is at fault.
    pub fn row_error(&self) -> Option<&RowError> {
        match &self.0 {
            SubmitErrorKind::Row(error) => Some(error),
            _ => None,
        }
    }

    /// The name used in the `reason` label of the refusal metric.
    pub(crate) fn reason(&self) -> &'static str {
        match &self.0 {
            SubmitErrorKind::Closed => "closed",
            SubmitErrorKind::Full => "full",
            SubmitErrorKind::Row(_) => "invalid",
        }
    }
}

impl From<RowError> for SubmitError {
    fn from(error: RowError) -> Self {
        Self(SubmitErrorKind::Row(error))
    }
}

/// `submit_all` stopped before the last row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("after {accepted} accepted rows: {source}")]
pub struct SubmitAllError {
    pub(crate) accepted: usize,
    pub(crate) source: SubmitError,
}

impl SubmitAllError {
    /// How many rows from the start were accepted; the next one is at fault and was not.
    pub fn accepted(&self) -> usize {
        self.accepted
    }

    /// Why the next row was not accepted.
    pub fn submit_error(&self) -> &SubmitError {
        &self.source
    }
}

/// The configuration cannot work, or there is no runtime to run on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct StartError {
    problem: String,
}

impl StartError {
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into() }
    }
}
