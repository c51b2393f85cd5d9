//! Owns what an error of a database means, and the error that drivers return: opaque, classified, without row values.
//! Must not know databases: drivers translate server codes into `ErrorClass`.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// What an error means for the rows of a batch. Drivers decide by server code, never by message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// Transient: the same transaction may succeed later (deadlock, lock timeout, connection lost before the commit was
    /// sent). Retried.
    Transient,
    /// One or more rows are at fault (constraint, range, encoding). Isolated.
    Row,
    /// The table or a column does not exist or has an unsuitable type. If [`prepare`](crate::Sink::prepare) returns it,
    /// the table is parked. If a write returns it, one row may be the cause (a trigger, an input function): the table
    /// is checked again, then up to four rows are tried alone, and the table is parked only if all of them are refused.
    Schema,
    /// The user may not write the table. As for `Schema`.
    Permission,
    /// The statement was too large. Split.
    Size,
    /// Two rows of the statement are the same row to the database (PostgreSQL 21000), although their keys
    /// differ here, for example in case. Split, so that they are written one after the other.
    Duplicate,
    /// The database is out of a resource (disk, memory), or a server is read-only until it has failed over. Retried
    /// slowly.
    Resource,
    /// The connection was lost, or the timeout passed, after the commit may have been sent.
    Unknown,
    /// A code that the driver does not know, or a defect in a driver or in the pipeline, for example a panic. If a
    /// write returns it, as for `Schema`.
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
    is_foreign_key: bool,
}

const FENCED: &str = "fenced";

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
        let (class, code, is_foreign_key) = (self.0.class, self.0.code.clone(), self.0.is_foreign_key);
        let (message, source) = (self.0.message.clone(), Some(source.into()));
        Self(Arc::new(SinkErrorInner { class, code, message, source, is_foreign_key }))
    }

    /// The error of rows that refer to a row which is not there (a foreign key). That row may be one of the same batch, so rows that are
    /// refused with it have another try when others of their batch were written.
    #[must_use]
    pub fn of_foreign_key(self) -> Self {
        let inner = Arc::try_unwrap(self.0).unwrap_or_else(|shared| SinkErrorInner {
            class: shared.class,
            code: shared.code.clone(),
            message: shared.message.clone(),
            source: None,
            is_foreign_key: true,
        });
        Self(Arc::new(SinkErrorInner { is_foreign_key: true, ..inner }))
    }

    /// Whether it is [`of_foreign_key`](Self::of_foreign_key).
    pub fn is_of_foreign_key(&self) -> bool {
        self.0.is_foreign_key
    }

    fn build(
        class: ErrorClass,
        code: Option<Box<str>>,
        message: String,
        source: Option<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        let (message, is_foreign_key) = (message.into(), false);
        Self(Arc::new(SinkErrorInner { class, code, message, source, is_foreign_key }))
    }

    /// The error of a write with a [`Step`](crate::Step) whose position is not where the step begins: another one has claimed
    /// the partition, or an earlier attempt was committed after all. Nothing was written.
    pub fn fenced() -> Self {
        let text = "the position of the partition has moved: another process has claimed it";
        Self::with_code(ErrorClass::Transient, FENCED, text)
    }

    /// The error of the statement that moves a position: it says nothing about the rows. What needs a person is found out by
    /// the claim that follows.
    #[must_use]
    pub fn of_position(self) -> Self {
        match self.class() {
            ErrorClass::Unknown | ErrorClass::Resource => self,
            _ => {
                let message = format!("the position of the partition cannot be moved: {}", self.0.message);
                Self::build(ErrorClass::Transient, self.0.code.clone(), message, None)
            }
        }
    }

    /// Whether it is [`fenced`](Self::fenced).
    pub fn is_fenced(&self) -> bool {
        self.code() == Some(FENCED)
    }

    /// What the error means for the rows.
    pub fn class(&self) -> ErrorClass {
        self.0.class
    }

    /// The server's code, when there is one.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// The error of rows that were refused together with others, and then not tried alone.
    pub(crate) fn not_looked_at_alone(&self) -> Self {
        let message = format!(
            "this row was not tried alone, because its batch has more bad rows than Isolation::Bisect allows to \
             search for; the rows were refused together: {}",
            self.0.message
        );
        Self::build(self.0.class, self.0.code.clone(), message, None)
    }

    /// The error of rows whose time was over before they were tried alone: it may be that of another row.
    pub(crate) fn not_tried_in_time(&self) -> Self {
        let message = format!(
            "this row was not tried alone, because the time of its batch was over; the last error of the batch, which may be that of \
             another row: {}",
            self.0.message
        );
        Self::build(self.0.class, self.0.code.clone(), message, None)
    }

    /// The error of rows of a batch of which some were refused alone, and none was written.
    pub(crate) fn of_batch(&self) -> Self {
        let message = format!("rows of this batch were refused, and none was written: {}", self.0.message);
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
