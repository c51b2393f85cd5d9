//! Owns the name of a table, with its namespace.
//! Must not know how a database quotes it.

use std::fmt;

/// A table name, optionally qualified by the schema (PostgreSQL), database (MySQL) or attached database (SQLite) that
/// contains it. Names are taken literally: drivers quote them, dots included.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableName {
    namespace: Option<Box<str>>,
    name: Box<str>,
}

impl TableName {
    /// A table in the connection's default namespace.
    pub fn new(name: impl Into<Box<str>>) -> Self {
        Self { namespace: None, name: name.into() }
    }

    /// A table in a named namespace, for example `("audit", "events")`.
    pub fn qualified(namespace: impl Into<Box<str>>, name: impl Into<Box<str>>) -> Self {
        Self { namespace: Some(namespace.into()), name: name.into() }
    }

    /// The namespace, when one was given.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The bare table name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl<T: Into<Box<str>>> From<T> for TableName {
    fn from(name: T) -> Self {
        Self::new(name)
    }
}

/// `namespace.table` without quoting, for logs and metric labels.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}.")?;
        }
        f.write_str(&self.name)
    }
}
