//! Owns the user's settings for the write strategy.
//! Must not know connections or how rows are written.

use std::time::Duration;

use batchsql_core::AbandonedWrites;

/// How [`Conflict::ignore`](batchsql_core::Conflict::ignore) is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum IgnoreWith {
    /// A plain insert; a row is ignored only if a unique index already has its key. Every other problem of a row
    /// is still an error of that row.
    #[default]
    Exact,
    /// MySQL's `INSERT IGNORE`. It **also hides** NULL in a NOT NULL column, truncated text, clipped numbers, and
    /// rows whose foreign key is missing: such a row ends as `Written` or `Ignored`, depending on what the server
    /// did.
    InsertIgnore,
}

/// How [`Conflict::replace`](batchsql_core::Conflict::replace) is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReplaceWith {
    /// `INSERT … ON DUPLICATE KEY UPDATE` of every column that the row carries.
    #[default]
    Update,
    /// MySQL's `REPLACE INTO`, which **deletes** the old row and inserts the new one: `ON DELETE CASCADE` deletes
    /// the rows that reference the old row, delete triggers fire, and columns that the new row does not carry get
    /// their defaults. A write whose answer is lost is retried and then does all this again, also to rows that were
    /// added in the meantime.
    ReplaceInto,
}

/// How an insert sends the values of its rows: bound to a prepared statement, or in its text.
///
/// A statement is prepared for one row count. With a long round trip, preparing a statement for each new row count,
/// or splitting the rows into prepared sizes, costs extra round trips.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ValuesInText {
    /// In the text for a row count that was not used recently, if the round trip to the server is above 0.3 ms.
    #[default]
    Auto,
    /// Never in the text, for example because a proxy logs the texts of statements.
    Never,
    /// In the text of every insert that allows it, for proxies with poor support for prepared statements. Catalog
    /// queries, and inserts of the ignore rule after a duplicate, are still prepared.
    Always,
}

/// Settings for every batch of a sink, with the sink's own pool or an existing one.
///
/// ```
/// use batchsql_mysql::{IgnoreWith, Settings};
/// let settings = Settings::default().ignore_with(IgnoreWith::InsertIgnore);
/// # let _ = settings;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    pub(crate) ignore_with: IgnoreWith,
    pub(crate) replace_with: ReplaceWith,
    pub(crate) values_in_text: ValuesInText,
    pub(crate) abandoned_writes: AbandonedWrites,
    pub(crate) late_write_limit: Option<Duration>,
    pub(crate) table_check_interval: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ignore_with: IgnoreWith::default(),
            replace_with: ReplaceWith::default(),
            values_in_text: ValuesInText::default(),
            abandoned_writes: AbandonedWrites::default(),
            late_write_limit: None,
            table_check_interval: Duration::from_secs(60),
        }
    }
}

impl Settings {
    /// How `Conflict::Ignore` is written; default [`IgnoreWith::Exact`].
    #[must_use]
    pub fn ignore_with(mut self, way: IgnoreWith) -> Self {
        self.ignore_with = way;
        self
    }

    /// How `Conflict::Replace` is written; default [`ReplaceWith::Update`].
    #[must_use]
    pub fn replace_with(mut self, way: ReplaceWith) -> Self {
        self.replace_with = way;
        self
    }

    /// How an insert sends its values; default [`ValuesInText::Auto`], which with a pool of yours is never in its
    /// text: `sqlx` logs the texts of slow statements, unless the connect options disable it.
    #[must_use]
    pub fn values_in_text(mut self, when: ValuesInText) -> Self {
        self.values_in_text = when;
        self
    }

    /// What happens to an abandoned write; default [`AbandonedWrites::Kill`].
    #[must_use]
    pub fn abandoned_writes(mut self, way: AbandonedWrites) -> Self {
        self.abandoned_writes = way;
        self
    }

    /// How long an abandoned write may still take effect if its session cannot be ended: the time for which the
    /// system retransmits unacknowledged data (Linux: about 15 minutes, `net.ipv4.tcp_retries2`), plus the longest
    /// time of a statement at the server, including lock waits. An ordered lane waits this long before its next
    /// write. Default: not known; then the lane continues at once, and the order of its rows is not guaranteed after
    /// such a write.
    #[must_use]
    pub fn late_write_limit(mut self, limit: Duration) -> Self {
        self.late_write_limit = Some(limit);
        self
    }

    /// Interval after which the definition of a table is read again while all its rows are accepted; default 60 s.
    /// Within the interval, a change for which the server reports no error may lose digits or insert rows twice: a
    /// DATETIME(6) that becomes a DATETIME, a dropped unique index.
    #[must_use]
    pub fn table_check_interval(mut self, interval: Duration) -> Self {
        self.table_check_interval = interval;
        self
    }
}
