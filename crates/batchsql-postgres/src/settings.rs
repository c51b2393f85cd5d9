//! Owns the user's settings for the write strategy.
//! Must not know how rows are written.

use std::time::Duration;

/// How rows are sent. All of them write the same rows and report the same outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Strategy {
    /// The fastest strategy for the conflict rule, the column types and the size of each batch.
    #[default]
    Auto,
    /// `INSERT … VALUES (…), (…)`: one bound value per column and row. For comparison, and for servers that only
    /// resemble PostgreSQL. Batches that need a special check (keys that the server changes, triggers that drop
    /// rows, duplicate rows) are written by `UNNEST` also with this strategy.
    MultiValues,
    /// `INSERT … SELECT … FROM unnest(…)`: one bound array per column. One statement for every size of batch, every
    /// rule and every type.
    Unnest,
    /// `COPY … FROM STDIN (FORMAT binary)`: the fastest way to insert. It supports no conflict rule, no row
    /// security, and only columns whose binary form is known: other tables are rejected.
    Copy,
    /// `COPY` into a temporary table, which is then merged into the table in the same transaction. For large batches
    /// with a conflict rule. Needs the right to create temporary tables.
    Staging,
}

impl Strategy {
    pub(crate) const ALL: [Self; 5] = [Self::Auto, Self::MultiValues, Self::Unnest, Self::Copy, Self::Staging];

    /// The name as in a DSN, for example `multi-values`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::MultiValues => "multi-values",
            Self::Unnest => "unnest",
            Self::Copy => "copy",
            Self::Staging => "staging",
        }
    }
}

/// The policy for a value that its column would change: digits that `numeric(p,s)`, `time(p)`, `timestamp(p)` or
/// `interval(p)` rounds, and spaces that `varchar(n)` and `char(n)` cut off. Also in parts of a value: elements of arrays,
/// attributes of composite types, bounds of ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LossyValues {
    /// Its row is rejected (code 22000; 22001 for spaces), and the other rows are written.
    #[default]
    Refuse,
    /// The database converts it, as an assignment in SQL does: it rounds, and cuts off spaces. The row is reported as
    /// written.
    LetDatabaseConvert,
}

/// Settings for every batch of a sink, with the sink's own pool or an existing one.
///
/// ```
/// use batchsql_postgres::{Settings, Strategy};
/// let settings = Settings::default().strategy(Strategy::Unnest).prepared_statements(false);
/// # let _ = settings;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    pub(crate) strategy: Strategy,
    pub(crate) prepared_statements: bool,
    pub(crate) table_check_interval: Duration,
    pub(crate) late_write_limit: Option<Duration>,
    pub(crate) lossy_values: LossyValues,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            strategy: Strategy::Auto,
            prepared_statements: true,
            table_check_interval: Duration::from_secs(30),
            late_write_limit: None,
            lossy_values: LossyValues::Refuse,
        }
    }
}

impl Settings {
    /// How rows are sent; default [`Strategy::Auto`].
    #[must_use]
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Whether statements are prepared under a name and kept per connection; default true.
    ///
    /// Set it to false behind a pooler that gives each transaction another server connection (PgBouncer in
    /// transaction mode, Supavisor, RDS Proxy). Then no statement is named, and a batch that is not one simple query
    /// is sent inside an explicit transaction. It costs one round trip per batch of plain inserts (`COPY`), and
    /// three with a rule. A pooler also shares the settings of a connection, so the sink does not disable notices (a
    /// trigger may include row values in one, and `sqlx` logs them) and does not enable the detection of
    /// disconnected clients: set `client_min_messages = error` and `client_connection_check_interval` for the user,
    /// by `ALTER ROLE … SET …`. If a trigger of a table changes `client_encoding`, and the pooler does not set it again (PgBouncer
    /// does), texts of later plain inserts (`COPY`) are stored as other characters. No session is ended there after an abandoned write, see
    /// [`late_write_limit`](Self::late_write_limit).
    #[must_use]
    pub fn prepared_statements(mut self, named: bool) -> Self {
        self.prepared_statements = named;
        self
    }

    /// Interval after which the definition of a table is read again; default 30 s.
    ///
    /// The first batch after the interval reads the table before it is sent (two pings and one query), so that the
    /// plan includes changed triggers, policies and column types. After an error that points to a change,
    /// the table is read at once.
    #[must_use]
    pub fn table_check_interval(mut self, interval: Duration) -> Self {
        self.table_check_interval = interval;
        self
    }

    /// The policy for values that their column would round or cut; default [`LossyValues::Refuse`].
    #[must_use]
    pub fn lossy_values(mut self, policy: LossyValues) -> Self {
        self.lossy_values = policy;
        self
    }

    /// How long an abandoned write may still take effect if its session cannot be ended; default: not known.
    ///
    /// An ordered lane waits this long before its next write, counted from when the write was abandoned. By default
    /// it continues at once, with a warning, and the order of rows after such a write is not guaranteed. The limit is
    /// used only if a session cannot be ended, see [Abandoned writes](crate#abandoned-writes).
    ///
    /// Set it to the sum of two times: how long the system of the client, or the pooler, retransmits unacknowledged
    /// data (`tcp_retries2` of Linux: about 15 minutes by default), and the `statement_timeout` that is set at the
    /// server for this user. Without a `statement_timeout` there is no such limit: a statement may wait for a lock
    /// without end. [`Duration::ZERO`] states that a late write is impossible; then no session is ended either.
    #[must_use]
    pub fn late_write_limit(mut self, limit: Duration) -> Self {
        self.late_write_limit = Some(limit);
        self
    }
}
