//! Owns the conflict rule: what happens to a row whose key is already in the table.
//! Must not know SQL text or any database.

use crate::model::expr::Expr;

/// What to do when a row's key is already in the table: one of the functions makes a rule, and the methods refine it.
///
/// ```
/// use batchsql_core::{Conflict, Expr};
/// let plain_insert = Conflict::none();
/// let newest_wins = Conflict::update(["id"]).only_if_newer("version");
/// let counters = Conflict::update(["page"]).set("hits", Expr::add()).set("first_seen", Expr::keep());
/// let tombstones = Conflict::delete(["id"]);
/// ```
///
/// A rule is checked when the schema is built, see [`SchemaBuilder::build`](crate::SchemaBuilder::build).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Conflict {
    pub(crate) action: Action,
    pub(crate) key: Vec<String>,
    /// The columns to overwrite; `None` means every non-key column.
    pub(crate) columns: Option<Vec<String>>,
    pub(crate) expressions: Vec<(String, Expr)>,
    pub(crate) newer: Option<String>,
    pub(crate) target: Target,
    pub(crate) may_add_twice: bool,
}

/// What a rule does with a row, for drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[allow(clippy::exhaustive_enums, reason = "a driver must decide about each of them")]
pub enum Action {
    /// Plain insert: a duplicate key is an error of that row.
    #[default]
    Insert,
    /// Insert; a row whose key is in the table is ignored.
    Ignore,
    /// Insert, or overwrite every non-key column.
    Replace,
    /// Insert, or change columns.
    Update,
    /// Change columns of an existing row; a row whose key is not in the table is ignored.
    UpdateOnly,
    /// Delete the row; a key that is not in the table is ignored.
    Delete,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 6] =
        [Self::Insert, Self::Ignore, Self::Replace, Self::Update, Self::UpdateOnly, Self::Delete];

    /// The name in the lines of dead-letter files, for example `update_only`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Ignore => "ignore",
            Self::Replace => "replace",
            Self::Update => "update",
            Self::UpdateOnly => "update_only",
            Self::Delete => "delete",
        }
    }
}

/// How the database finds the unique index of the key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[allow(clippy::exhaustive_enums, reason = "a driver must decide about each of them")]
pub enum Target {
    /// By the key columns: a unique index over exactly these.
    #[default]
    Key,
    /// By the name of a constraint whose columns are the key (PostgreSQL).
    Constraint(String),
    /// By the key columns and the condition of a partial unique index (PostgreSQL, SQLite).
    Partial(&'static str),
}

impl Conflict {
    /// Plain insert: a duplicate key is an error of that row. The default.
    pub fn none() -> Self {
        Self::default()
    }

    /// Keep the row that is already there; the new row ends as `Ignored`.
    pub fn ignore<S: Into<String>>(key: impl IntoIterator<Item = S>) -> Self {
        Self::of(Action::Ignore, key)
    }

    /// Overwrite every non-key column that the row carries.
    pub fn replace<S: Into<String>>(key: impl IntoIterator<Item = S>) -> Self {
        Self::of(Action::Replace, key)
    }

    /// Overwrite every non-key column; the same as [`Conflict::replace`] except on databases with a native "delete and
    /// insert" that the driver can be configured to use for `replace`.
    pub fn update<S: Into<String>>(key: impl IntoIterator<Item = S>) -> Self {
        Self::of(Action::Update, key)
    }

    /// Overwrite only the named columns.
    pub fn update_columns<K: Into<String>, C: Into<String>>(
        key: impl IntoIterator<Item = K>,
        columns: impl IntoIterator<Item = C>,
    ) -> Self {
        Self { columns: Some(names(columns)), ..Self::of(Action::Update, key) }
    }

    /// Update without insert: overwrite every non-key column that the row carries. A row whose key is not in the table
    /// ends as `Ignored`, so rows need not carry the columns that an insert would need.
    pub fn update_only<S: Into<String>>(key: impl IntoIterator<Item = S>) -> Self {
        Self::of(Action::UpdateOnly, key)
    }

    /// Delete the row with the key; a row whose key is not in the table ends as `Ignored`. The schema has the key columns
    /// only. Rows of the same table and key that are inserted or updated through another schema keep their order with
    /// the deletes, see [`Schema::deletion`](crate::Schema::deletion).
    pub fn delete<S: Into<String>>(key: impl IntoIterator<Item = S>) -> Self {
        Self::of(Action::Delete, key)
    }

    /// Update only if the submitted `version` is newer than the stored one; else the row ends as `Ignored`. For
    /// [`update`](Self::update), [`update_columns`](Self::update_columns) and [`update_only`](Self::update_only).
    ///
    /// Newer means larger: integers, floats, decimals, dates and times. A stored `NULL` is the oldest version; of equal
    /// versions the first one stays. Of the rows of one key in a batch, only the newest is sent, whatever their order:
    /// the rows before it end as `Superseded`, those after it as `Ignored`. Versions are compared as they are submitted,
    /// and by the database as its column stores them.
    ///
    /// After a lost reply, a row whose version is in the table ends as `Written` if every column that the rule writes has its
    /// value, and otherwise as `Ignored`; without expressions, and where the database can compare the values.
    ///
    /// With this rule, repeated rows, late rows and rows of several processes do no harm.
    #[must_use]
    pub fn only_if_newer(mut self, version: impl Into<String>) -> Self {
        self.newer = Some(version.into());
        self
    }

    /// Sets what an update does with one column; see [`Expr`]. Setting it again replaces the expression. Columns without
    /// an expression are overwritten.
    #[must_use]
    pub fn set(mut self, column: impl Into<String>, expr: Expr) -> Self {
        let column = column.into();
        match self.expressions.iter_mut().find(|(known, _)| *known == column) {
            Some((_, known)) => *known = expr,
            None => self.expressions.push((column, expr)),
        }
        self
    }

    /// Names the unique constraint that decides, whose columns are the key (PostgreSQL): for tables with several unique
    /// indexes over the same columns.
    #[must_use]
    pub fn on_constraint(mut self, name: impl Into<String>) -> Self {
        self.target = Target::Constraint(name.into());
        self
    }

    /// Names the condition of the partial unique index that decides, whose columns are the key (PostgreSQL, SQLite), as
    /// in `CREATE UNIQUE INDEX … WHERE condition`. A row outside of the condition never conflicts.
    ///
    /// Only the database knows which rows are outside, so every row of a batch is sent, also of one key, and rows whose
    /// reply was lost end as `Unknown`: a repeat would insert those outside once more.
    /// [`Delivery::AtLeastOnce`](crate::Delivery::AtLeastOnce), durable intakes, workers and files may do that, as with a plain
    /// insert.
    ///
    /// The text is SQL of the database and a part of the program, never of a row.
    #[must_use]
    pub fn on_partial_index(mut self, condition: &'static str) -> Self {
        self.target = Target::Partial(condition);
        self
    }

    /// Lets rows with [`Expr::add`] or [`Expr::raw`] be written again after a lost reply, as with other rules: they may
    /// be added twice.
    #[must_use]
    pub fn may_add_twice(mut self) -> Self {
        self.may_add_twice = true;
        self
    }

    /// What the rule does.
    pub fn action(&self) -> Action {
        self.action
    }

    /// The names of the key columns, empty for [`Conflict::none`].
    pub fn key(&self) -> &[String] {
        &self.key
    }

    /// How the database finds the unique index of the key.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The columns to overwrite, if they were named, for what stores a rule.
    #[doc(hidden)]
    pub fn named_columns(&self) -> Option<&[String]> {
        self.columns.as_deref()
    }

    /// The expressions, for what stores a rule.
    #[doc(hidden)]
    pub fn expressions(&self) -> impl ExactSizeIterator<Item = (&str, &Expr)> {
        self.expressions.iter().map(|(column, expr)| (&**column, expr))
    }

    /// The column of [`only_if_newer`](Self::only_if_newer), for what stores a rule.
    #[doc(hidden)]
    pub fn version(&self) -> Option<&str> {
        self.newer.as_deref()
    }

    /// Whether [`may_add_twice`](Self::may_add_twice) is set, for what stores a rule.
    #[doc(hidden)]
    pub fn adds_twice(&self) -> bool {
        self.may_add_twice
    }

    /// Whether a write of the same rows again changes nothing, triggers aside. A plain insert has no key that tells, and a
    /// partial index has no key of the rows outside.
    pub(crate) fn is_repeatable(&self) -> bool {
        let has_key = self.action != Action::Insert && !matches!(self.target, Target::Partial(_));
        has_key && (self.may_add_twice || self.expressions.iter().all(|(_, e)| e.is_repeatable()))
    }

    /// Whether each repeat changes the row once more, so that not even at-least-once delivery may repeat.
    pub(crate) fn counts_repeats(&self) -> bool {
        !self.may_add_twice && self.expressions.iter().any(|(_, expr)| !expr.is_repeatable())
    }

    fn of<S: Into<String>>(action: Action, key: impl IntoIterator<Item = S>) -> Self {
        Self { action, key: names(key), ..Self::default() }
    }
}

fn names<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Vec<String> {
    names.into_iter().map(Into::into).collect()
}
