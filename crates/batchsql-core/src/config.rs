//! Owns the settings of a pipeline and their validation, one message per mistake.
//! Must not know what the settings are used for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

use crate::config_policies::{Coalesce, Delivery, Isolation, KeptBy, Ordering, WhenFull};
use crate::config_table::{TableConfig, TableSettings};
use crate::config_text::{duration, memory, optional_duration};

/// Longer than any process runs, and short enough to be added to the current time.
pub(crate) const FAR: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Batches that may be written at once, at most: each table with a key has as many lanes.
const MAX_CONCURRENCY: usize = 1024;

/// Rows above which a larger batch is not written faster per row, where nothing else is known.
pub const EFFICIENT_BATCH_ROWS: usize = 10_000;

/// Settings of a pipeline. Every size must be above zero; [`start`](crate::BatchSqlBuilder::start)
/// checks them all.
///
/// ```
/// use batchsql_core::PipelineConfig;
/// use std::time::Duration;
/// let config = PipelineConfig::default().flush_size(1_000).flush_interval(Duration::from_millis(50));
/// # let _ = config;
/// ```
///
/// The settings can be read from a configuration file with `serde`: durations are text with a unit, sizes in bytes are
/// numbers or text with a unit, the names of variants are in snake case, and a key that is not a setting is an error.
///
/// ```toml
/// flush_size = 1000
/// flush_interval = "50ms"
/// buffer_bytes = "64MiB"
/// ordering = "per_table"
/// when_full = { wait_at_most = "2s" }
/// isolation = { bisect = { max_statements = 64, beyond = "reject" } }
///
/// [tables.orders]
/// flush_size = 50
/// flush_interval = "5ms"
///
/// [tables."audit.events"]
/// flush_size = 5000
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PipelineConfig {
    /// Rows that may wait or be in flight at once, over all tables; default 40,000, at most 4,294,967,295. Beyond it,
    /// `submit` waits.
    pub buffer_size: usize,
    /// Bytes that those rows may take, at most 4,294,967,295 (4 GiB less one byte); default 32 MiB.
    #[serde(deserialize_with = "memory")]
    pub buffer_bytes: usize,
    /// Rows after which a batch is ready to be written; default 500, at most `buffer_size`. While it waits for a
    /// connection it keeps growing, up to `max_batch_rows`.
    pub flush_size: usize,
    /// The most rows that are written as one batch, which is one transaction; at least `flush_size`, at most
    /// `buffer_size`. A batch grows only while it waits for a connection, so this adds no latency. It keeps the
    /// throughput high when the database is far away. `None` (default) means:
    ///
    /// | case | rows |
    /// |---|---|
    /// | PostgreSQL, sinks of your own | 10,000, or `buffer_size` if that is less |
    /// | MySQL at least 5 ms away, own pool | 200 for each millisecond of the round trip, at most 5,000 |
    /// | SQLite, Redis, MySQL otherwise | `flush_size` |
    /// | [`Isolation::AtomicBatch`] | `flush_size` |
    ///
    /// The number is that of [`Sink::efficient_batch_rows`](crate::Sink::efficient_batch_rows).
    ///
    /// Where `flush_size` is the limit and rows with equal keys become one ([`coalesce`](Self::coalesce)), the rows that are
    /// sent count: a batch takes as many rows as became `flush_size` rows in the batch before it, at most 10,000.
    ///
    /// With [`WhenFull::DropOldest`] it is lowered to `buffer_size / 4 / max_concurrency`, but not below `flush_size`.
    ///
    /// Slow writes lower it for their table, also below `flush_size`: a write should take at most a quarter of
    /// `statement_timeout`. Faster writes raise it again.
    pub max_batch_rows: Option<usize>,
    /// Bytes after which a batch is ready to be written, and the most bytes that are written as one batch, not counting
    /// its last row; default 4 MiB, at most `buffer_bytes`. It is lowered to `buffer_bytes / 2 / max_concurrency`,
    /// because a batch is copied while it is written: with the default `buffer_bytes` and 16 connections to 1 MiB.
    #[serde(deserialize_with = "memory")]
    pub flush_bytes: usize,
    /// Age of its oldest row after which a batch is written; default 100 ms. With
    /// [`Duration::ZERO`] a batch is written as soon as a permit is free (eager flushing).
    #[serde(deserialize_with = "duration")]
    pub flush_interval: Duration,
    /// Batches that may be written at once, over all tables; default 8. A sink with fewer connections lowers it. At
    /// most 1,024. While several tables are active (a batch started within 30 s), each of them leaves one of these
    /// permits to the others. Batches that wait for a retry hold no permit.
    pub max_concurrency: usize,
    /// Which rows keep their order; default [`Ordering::Auto`].
    pub ordering: Ordering,
    /// What a submit does when the buffer is full; default [`WhenFull::Wait`].
    pub when_full: WhenFull,
    /// What happens to rows with equal keys in one batch; default [`Coalesce::LastPerKey`].
    pub coalesce: Coalesce,
    /// How long a row is retried after the first transient error that delayed it; default 60 s. Then it ends as
    /// `Expired`. Rows that wait in order behind a failing batch share its time: the time does not start again for each
    /// batch. Waits for a connection and for a permit are part of the time. When it is over, the row has a last try, which
    /// starts at once if a permit is free and with the next free one otherwise, and may take `statement_timeout` to get
    /// a connection and again to write. With [`Duration::ZERO`] nothing is retried.
    #[serde(deserialize_with = "duration")]
    pub retry_for: Duration,
    /// Age after which a row is given up: the time from `submit` to its outcome; default `None`, no limit. It must be above
    /// `flush_interval`. An older row ends as `Expired` when a try of it fails that started after that, for whatever
    /// reason it was not written before: errors, a parked table, an abandoned write. It is never given up without that
    /// last try, so a row that only waits for its turn is still written. The clock of a row starts when its batch
    /// is sealed, at most `flush_interval` after it was accepted; rows that are written as one batch were accepted within
    /// a quarter of `max_age`, and are given up when the last of them is too old. A row that may be in the database ends
    /// as `Unknown`.
    #[serde(deserialize_with = "optional_duration")]
    pub max_age: Option<Duration>,
    /// How long rows wait when their table cannot be written (it does not exist, or the user may not write it), while
    /// other tables are written; default 60 s. A probe tries the table every few seconds, so the table can be repaired
    /// meanwhile. When the time of a row is over, it is rejected after the next failed probe. With [`Duration::ZERO`]
    /// such batches are rejected at once. A refused login delays all tables, and one time limit applies to all of them.
    /// Durable pipelines and feeds replace it: their rows wait without a limit, and a `close` leaves them in their source.
    #[serde(deserialize_with = "duration")]
    pub park_for: Duration,
    /// Which rows are written again when the reply to a write is lost; default [`Delivery::AtMostOnce`].
    pub delivery: Delivery,
    /// Time limit of one attempt to write a batch, and separately of getting a connection and of checking the table
    /// before it; default 30 s. The result of a write that took longer is unknown: rows with a conflict rule are
    /// written again, plain inserts end as [`Outcome::Unknown`](crate::Outcome::Unknown). A write that still waited in
    /// a queue of its driver (SQLite) has not begun, and is retried.
    #[serde(deserialize_with = "duration")]
    pub statement_timeout: Duration,
    /// How the bad rows of a refused batch are found; the default halves the batch, with at most 256 statements.
    pub isolation: Isolation,
    /// Settings of single tables, by `name` or `namespace.name`; default none. They take the place of the settings above
    /// for that table. A name that is never used is no error. The limits of the buffer and of connections are those of
    /// the whole pipeline.
    pub tables: BTreeMap<String, TableConfig>,
    /// Feeds set it, together with times that never end.
    #[doc(hidden)]
    #[serde(skip)]
    pub rows_kept_by: KeptBy,
}

impl Default for PipelineConfig {
    fn default() -> Self {
        Self {
            buffer_size: 40_000,
            buffer_bytes: 32 << 20,
            flush_size: 500,
            max_batch_rows: None,
            flush_bytes: 4 << 20,
            flush_interval: Duration::from_millis(100),
            max_concurrency: 8,
            ordering: Ordering::Auto,
            when_full: WhenFull::Wait,
            coalesce: Coalesce::LastPerKey,
            retry_for: Duration::from_secs(60),
            max_age: None,
            park_for: Duration::from_secs(60),
            delivery: Delivery::AtMostOnce,
            statement_timeout: Duration::from_secs(30),
            isolation: Isolation::default(),
            tables: BTreeMap::new(),
            rows_kept_by: KeptBy::default(),
        }
    }
}

impl PipelineConfig {
    /// The settings of a table, for a sink that writes `concurrency` batches at once.
    pub(crate) fn of_table(&self, table: &str, efficient: usize, concurrency: usize) -> TableSettings {
        let own = self.tables.get(table).cloned().unwrap_or_default();
        let flush_size = own.flush_size.unwrap_or(self.flush_size);
        let coalesces = self.coalesce == Coalesce::LastPerKey;
        TableSettings {
            flush_size,
            max_batch_rows: self.batch_rows(flush_size, efficient, concurrency),
            max_coalesced_rows: self.batch_rows(
                flush_size,
                if coalesces { EFFICIENT_BATCH_ROWS } else { efficient },
                concurrency,
            ),
            flush_interval: own.flush_interval.unwrap_or(self.flush_interval).min(FAR),
            ordering: own.ordering.unwrap_or(self.ordering),
            retry_for: own.retry_for.unwrap_or(self.retry_for).min(FAR),
            max_age: own.max_age.or(self.max_age).filter(|max_age| *max_age < FAR),
            weight: own.weight.unwrap_or(1),
            statement_timeout: self.statement_timeout,
        }
    }

    /// How long rows are retried, over all tables: each time once, the shortest first.
    pub(crate) fn retry_times(&self) -> Box<[Duration]> {
        let own = self.tables.values().filter_map(|table| table.retry_for);
        let times: BTreeSet<Duration> = own.chain([self.retry_for]).map(|time| time.min(FAR)).collect();
        times.into_iter().collect()
    }

    /// Whether rows of any table are given up when they are too old.
    pub(crate) fn has_max_age(&self) -> bool {
        self.max_age.is_some() || self.tables.values().any(|table| table.max_age.is_some())
    }

    /// The most rows of one batch, over all tables.
    pub(crate) fn largest_batch(&self, efficient: usize, concurrency: usize) -> usize {
        let sizes = self.tables.values().filter_map(|table| table.flush_size).chain([self.flush_size]);
        sizes.map(|size| self.batch_rows(size, efficient, concurrency)).max().unwrap_or(self.flush_size)
    }

    /// The most rows of one batch of a table with this `flush_size`, if `efficient` rows are written faster per row than fewer.
    fn batch_rows(&self, flush_size: usize, efficient: usize, concurrency: usize) -> usize {
        let rows = match self.max_batch_rows {
            Some(rows) => rows,
            None if self.isolation == Isolation::AtomicBatch => flush_size,
            None => efficient.min(self.buffer_size),
        };
        // A batch that is being written cannot be dropped for newer rows.
        let most = match self.when_full {
            WhenFull::DropOldest => self.buffer_size / 4 / concurrency,
            _ => usize::MAX,
        };
        rows.min(most).max(flush_size)
    }

    /// The most bytes of one batch, for a sink that writes `concurrency` batches at once.
    pub(crate) fn batch_bytes(&self, concurrency: usize) -> usize {
        self.flush_bytes.min(self.buffer_bytes / 2 / concurrency)
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// The first invalid setting, and how to correct it.
    pub fn validate(&self) -> Result<(), StartError> {
        let Self { buffer_size, buffer_bytes, flush_size, flush_bytes, .. } = *self;
        let positive = [
            ("buffer_size", buffer_size),
            ("buffer_bytes", buffer_bytes),
            ("flush_size", flush_size),
            ("flush_bytes", flush_bytes),
            ("max_concurrency", self.max_concurrency),
            ("max_batch_rows", self.max_batch_rows.unwrap_or(flush_size)),
        ];
        let limit = u32::MAX as usize;
        let problem = if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            format!("{name} is 0; set it to at least 1")
        } else if buffer_size > limit || buffer_bytes > limit {
            format!("buffer_size and buffer_bytes may be at most {limit}; lower them")
        } else if flush_size > buffer_size {
            format!("flush_size {flush_size} is above buffer_size {buffer_size}; raise buffer_size or lower flush_size")
        } else if let Some(rows) = self.max_batch_rows.filter(|rows| *rows < flush_size) {
            format!("max_batch_rows {rows} is below flush_size {flush_size}; raise it, or lower flush_size")
        } else if let Some(rows) = self.max_batch_rows.filter(|rows| *rows > buffer_size) {
            format!(
                "max_batch_rows {rows} is above buffer_size {buffer_size}; raise buffer_size or lower max_batch_rows"
            )
        } else if self.max_concurrency > MAX_CONCURRENCY {
            let concurrency = self.max_concurrency;
            format!("max_concurrency {concurrency} is above {MAX_CONCURRENCY}; lower it to what the database can take")
        } else if flush_bytes > buffer_bytes {
            format!(
                "flush_bytes {flush_bytes} is above buffer_bytes {buffer_bytes}; raise buffer_bytes or lower flush_bytes"
            )
        } else if self.when_full == WhenFull::WaitAtMost(Duration::ZERO) {
            "when_full is WaitAtMost(0), which never waits; use WhenFull::Reject".to_owned()
        } else if matches!(self.isolation, Isolation::Bisect { max_statements: 0, .. }) {
            "isolation may spend 0 statements; use Isolation::AtomicBatch to reject refused batches whole".to_owned()
        } else if let Some(problem) = problem_of_age(self.max_age, self.flush_interval) {
            problem
        } else if self.statement_timeout.is_zero() {
            "statement_timeout is 0, so no write can succeed; set it to some seconds".to_owned()
        } else {
            return self.validate_tables();
        };
        Err(StartError::new(problem))
    }

    fn validate_tables(&self) -> Result<(), StartError> {
        for (name, table) in &self.tables {
            if name.is_empty() {
                return Err(StartError::new("settings are given for a table without a name; name the table"));
            }
            let max_age = table.max_age.or(self.max_age);
            let age = || problem_of_age(max_age, table.flush_interval.unwrap_or(self.flush_interval));
            if let Some(problem) = table.problem(self.buffer_size, self.max_batch_rows).or_else(age) {
                return Err(StartError::new(format!("table {name}: {problem}")));
            }
        }
        Ok(())
    }
}

/// A row must have a time in which it can be written.
fn problem_of_age(max_age: Option<Duration>, flush_interval: Duration) -> Option<String> {
    let max_age = max_age.filter(|max_age| *max_age <= flush_interval)?;
    Some(format!(
        "max_age {max_age:?} is not above flush_interval {flush_interval:?}, so rows would be too old before they are sent; \
         raise max_age or lower flush_interval"
    ))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config_policies::BeyondBudget;

    #[test]
    fn each_mistake_has_its_message() {
        let check = |change: fn(&mut PipelineConfig), part: &str| {
            let mut config = PipelineConfig::default();
            change(&mut config);
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(part), "{message:?} does not contain {part:?}");
        };
        check(|c| c.buffer_size = 0, "buffer_size is 0");
        check(|c| c.buffer_bytes = 0, "buffer_bytes is 0");
        check(|c| c.flush_size = 0, "flush_size is 0");
        check(|c| c.flush_bytes = 0, "flush_bytes is 0");
        check(|c| c.max_concurrency = 0, "max_concurrency is 0");
        check(|c| c.when_full = WhenFull::WaitAtMost(Duration::ZERO), "use WhenFull::Reject");
        check(
            |c| c.isolation = Isolation::Bisect { max_statements: 0, beyond: BeyondBudget::Reject },
            "use Isolation::AtomicBatch",
        );
        check(|c| c.max_batch_rows = Some(0), "max_batch_rows is 0");
        check(|c| c.max_batch_rows = Some(499), "below flush_size 500");
        check(|c| c.max_batch_rows = Some(c.buffer_size + 1), "above buffer_size");
        check(|c| c.max_concurrency = usize::MAX, "above 1024");
        check(|c| c.max_concurrency = 1025, "above 1024");
        check(|c| c.buffer_size = usize::MAX, "at most");
        check(|c| c.flush_size = 40_001, "above buffer_size 40000");
        check(|c| c.flush_bytes = 64 << 20, "above buffer_bytes");
        check(|c| c.statement_timeout = Duration::ZERO, "statement_timeout");
        let of_table = |table: TableConfig, part: &str| {
            let mut config = PipelineConfig::default().max_batch_rows(20_000).table("fine", TableConfig::default());
            config.tables.insert("audit.events".to_owned(), table);
            let message = config.validate().unwrap_err().to_string();
            assert!(message.starts_with("table audit.events: "), "{message:?}");
            assert!(message.contains(part), "{message:?} does not contain {part:?}");
        };
        of_table(TableConfig::default().flush_size(0), "flush_size is 0");
        of_table(TableConfig::default().flush_size(40_001), "above buffer_size 40000");
        of_table(TableConfig::default().flush_size(20_001), "above max_batch_rows 20000");
        of_table(TableConfig::default().weight(0), "weight is 0");
        of_table(
            TableConfig::default().max_age(Duration::from_millis(100)),
            "max_age 100ms is not above flush_interval",
        );
        check(|c| c.max_age = Some(Duration::ZERO), "max_age 0ns is not above flush_interval 100ms");
        let late = TableConfig::default().flush_interval(Duration::from_secs(5));
        let config = PipelineConfig::default().max_age(Duration::from_secs(5)).table("late", late.clone());
        assert!(config.validate().unwrap_err().to_string().starts_with("table late: max_age 5s is not above"));
        let config = config.table("late", late.max_age(Duration::MAX));
        assert_eq!(config.validate(), Ok(()));
        of_table(TableConfig::default().weight(101), "above 100");
        check(|c| c.tables = [(String::new(), TableConfig::default())].into(), "without a name");
        assert_eq!(PipelineConfig::default().validate(), Ok(()));
    }

    #[test]
    fn settings_are_read_from_toml() {
        let text = r#"
            buffer_size = 20000
            buffer_bytes = "64MiB"
            flush_size = 1000
            max_batch_rows = 5000
            flush_bytes = 1048576
            flush_interval = "50ms"
            max_concurrency = 4
            ordering = "per_table"
            when_full = { wait_at_most = "1m 30s" }
            coalesce = "off"
            retry_for = "0s"
            max_age = "10m"
            park_for = "2h"
            delivery = "at_least_once"
            statement_timeout = "5s"
            isolation = { bisect = { beyond = "reject" } }

            [tables.orders]
            flush_size = 50
            flush_interval = "5ms"
            weight = 3

            [tables."audit.events"]
            ordering = "none"
            retry_for = "10m"
            max_age = "1h"
        "#;
        let expected = PipelineConfig::default()
            .buffer_size(20_000)
            .buffer_bytes(64 << 20)
            .flush_size(1000)
            .max_batch_rows(5000)
            .flush_bytes(1 << 20)
            .flush_interval(Duration::from_millis(50))
            .max_concurrency(4)
            .ordering(Ordering::PerTable)
            .when_full(WhenFull::WaitAtMost(Duration::from_secs(90)))
            .coalesce(Coalesce::Off)
            .retry_for(Duration::ZERO)
            .max_age(Duration::from_secs(600))
            .park_for(Duration::from_secs(7200))
            .delivery(Delivery::AtLeastOnce)
            .statement_timeout(Duration::from_secs(5))
            .isolation(Isolation::Bisect { max_statements: 256, beyond: BeyondBudget::Reject })
            .table("orders", TableConfig::default().flush_size(50).flush_interval(Duration::from_millis(5)).weight(3))
            .table(
                "audit.events",
                TableConfig::default()
                    .ordering(Ordering::None)
                    .retry_for(Duration::from_secs(600))
                    .max_age(Duration::from_secs(3600)),
            );
        assert_eq!(toml::from_str::<PipelineConfig>(text).unwrap(), expected);
        assert_eq!(toml::from_str::<PipelineConfig>("").unwrap(), PipelineConfig::default());
        let simple = "isolation = \"atomic_batch\"\nwhen_full = \"drop_oldest\"\nordering = \"auto\"";
        let simple = toml::from_str::<PipelineConfig>(simple).unwrap();
        assert_eq!((simple.isolation, simple.when_full), (Isolation::AtomicBatch, WhenFull::DropOldest));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let check = |text: &str, part: &str| {
            let message = toml::from_str::<PipelineConfig>(text).unwrap_err().to_string();
            assert!(message.contains(part), "{message:?} does not contain {part:?}");
        };
        check("flush_sise = 5", "unknown field `flush_sise`, expected one of `buffer_size`");
        check("flush_interval = 100", "expected a duration with its unit, such as \"100ms\"");
        check("flush_interval = \"100 parsecs\"", "write for example \"100ms\"");
        check("flush_bytes = \"4 apples\"", "write for example \"32MiB\"");
        check("flush_bytes = true", "expected a number of bytes, or a size such as \"32MiB\"");
        check("flush_bytes = -1", "it is below 0; write for example \"32MiB\"");
        check("ordering = \"PerKey\"", "expected one of `auto`, `per_key`, `per_table`, `none`");
        check("isolation = { bisect = { max = 1 } }", "max, available keys: max_statements, beyond");
        check("[tables.orders]\nbuffer_size = 5", "unknown field `buffer_size`, expected one of `flush_size`");
        check("[tables.orders]\nflush_interval = 5", "expected a duration with its unit");
        check("[tables.audit.events]\nflush_size = 5", "unknown field `events`");
    }
}
