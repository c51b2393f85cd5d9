//! Owns the sections `[[tables]]`.
//! Must not know how they are checked or used.

use std::collections::BTreeMap;

use batchsql::ColumnType;
use serde::Deserialize;
use toml::Spanned;

/// `[[tables]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    /// What requests and sources call it.
    pub(crate) name: Spanned<String>,
    /// Its name in the database, `table` or `schema.table`; default: `name`.
    pub(crate) table: Option<String>,
    #[serde(default)]
    pub(crate) rule: Rule,
    /// Default: the primary key, or the first other unique index.
    pub(crate) key: Option<Vec<String>>,
    pub(crate) only_if_newer: Option<String>,
    /// The columns that an update overwrites; default: all that are not in the key.
    pub(crate) update_columns: Option<Vec<String>>,
    /// What an update does with a column, in place of overwriting it.
    #[serde(default)]
    pub(crate) set: BTreeMap<String, SetTo>,
    /// Field -> column, where the names differ.
    #[serde(default)]
    pub(crate) fields: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    pub(crate) unknown_fields: Unknown,
    #[serde(default)]
    pub(crate) missing_fields: Missing,
    /// Column -> value, for rows without its field.
    #[serde(default)]
    pub(crate) defaults: BTreeMap<String, Spanned<toml::Value>>,
    /// For databases without a catalogue.
    #[serde(default)]
    pub(crate) columns: Vec<Column>,
    /// For Redis.
    pub(crate) redis: Option<RedisCommand>,
}

/// A declared column.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Column {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) ty: ColumnType,
    #[serde(default)]
    pub(crate) nullable: bool,
}

/// What becomes of a row of the table on Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RedisCommand {
    Hash,
    Document,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Rule {
    #[default]
    Insert,
    Ignore,
    Update,
    Replace,
    UpdateOnly,
    Delete,
}

impl Rule {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Ignore => "ignore",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::UpdateOnly => "update_only",
            Self::Delete => "delete",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SetTo {
    Add,
    Keep,
    UnlessNull,
    Greatest,
    Least,
    Now,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unknown {
    #[default]
    Refuse,
    Ignore,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Missing {
    #[default]
    LeaveOut,
    Null,
    Refuse,
}
