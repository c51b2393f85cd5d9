//! Owns the conflict rule: what happens to a row whose key is already in the table.
//! Must not know SQL text or any database.

/// What to do when a row's key is already in the table. Build one with its functions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Conflict {
    /// Plain insert: a duplicate key is an error of that row.
    #[default]
    None,
    /// Keep the row in the table; the new row ends as `Ignored`.
    Ignore {
        /// The key columns; a unique index over exactly these must exist.
        key: Vec<String>,
    },
    /// Overwrite every non-key column that the row carries.
    Replace {
        /// The key columns; a unique index over exactly these must exist.
        key: Vec<String>,
    },
    /// Overwrite the named columns, or every non-key column when none are named.
    Update {
        /// The key columns; a unique index over exactly these must exist.
        key: Vec<String>,
        /// The columns to overwrite; `None` means every non-key column.
        columns: Option<Vec<String>>,
    },
}

impl Conflict {
    /// Keep the row that is already there.
    pub fn ignore<S: Into<String>>(key: impl IntoIterator<Item = S>) -> Self {
        Self::Ignore { key: names(key) }
    }

    /// Overwrite every non-key column.
    pub fn replace<S: Into<String>>(key: impl IntoIterator<Item = S>) -> Self {
        Self::Replace { key: names(key) }
    }

    /// Overwrite every non-key column; the same as [`Conflict::replace`] except on databases with a native "delete and
    /// insert" that the driver can be configured to use for `replace`.
    pub fn update<S: Into<String>>(key: impl IntoIterator<Item = S>) -> Self {
        Self::Update { key: names(key), columns: None }
    }

    /// Overwrite only the named columns.
    pub fn update_columns<K: Into<String>, C: Into<String>>(
        key: impl IntoIterator<Item = K>,
        columns: impl IntoIterator<Item = C>,
    ) -> Self {
        Self::Update { key: names(key), columns: Some(names(columns)) }
    }

    pub(crate) fn key(&self) -> &[String] {
        match self {
            Self::None => &[],
            Self::Ignore { key } | Self::Replace { key } | Self::Update { key, .. } => key,
        }
    }
}

fn names<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Vec<String> {
    names.into_iter().map(Into::into).collect()
}
