//! Owns the policies that are settings: order, a full buffer, equal keys, repeats, the search for bad rows.
//! Must not know sizes or times, or what carries the policies out.

use std::time::Duration;

use serde::Deserialize;

use crate::config_text::duration;

/// Which rows of one table are written in the order of their submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ordering {
    /// [`PerKey`](Self::PerKey) for tables with a conflict rule, [`None`](Self::None) for plain
    /// inserts.
    #[default]
    Auto,
    /// Rows with equal keys keep their order, whichever columns they carry; other rows may be written in parallel, and
    /// are sorted by key if the sink asks for it ([`Sink::sorts_by_key`](crate::Sink::sorts_by_key)). Rows of plain
    /// inserts have no key, so they have no order.
    ///
    /// Keys are equal when their values are equal: `1.5` and `1.50`, `0.0` and `-0.0`. The pipeline does not know what
    /// else the database treats as equal, and such rows have no order: text by its collation or column (`'A'` and
    /// `'a'`, trailing spaces), numbers and times that a column rounds, JSON documents written in different ways. Use
    /// [`PerTable`](Self::PerTable) for such keys.
    PerKey,
    /// All rows of the table keep their order: one batch at a time. A row that carries other columns than the row
    /// before it starts a new batch. Each row is written, whatever [`Coalesce`] says.
    ///
    /// If a row is refused with an error that the table may have caused, and the next one is accepted, the first one is
    /// rejected, although the table may have been repaired in between. Durable pipelines and feeds try it again, so it may be written behind
    /// the other, unless its rule overwrites without [`only_if_newer`](crate::Conflict::only_if_newer): then it is rejected there too.
    PerTable,
    /// No order.
    None,
}

/// What [`submit`](crate::BatchSql::submit), `submit_tracked` and `submit_all` do when there is no capacity.
/// `try_submit` never waits and `submit_timeout` has its own limit, whatever is set here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WhenFull {
    /// Wait for capacity: the producers slow down to the speed of the database.
    #[default]
    Wait,
    /// Wait this long, then refuse the row.
    WaitAtMost(#[serde(deserialize_with = "duration")] Duration),
    /// Refuse the row at once; the caller keeps it.
    Reject,
    /// Drop the oldest batch that is not being written, and accept the row: for data where the newest rows matter most.
    /// The dropped rows end as `Purged`, also in their receipts.
    ///
    /// Whole batches are dropped, and batches that are being written stay: keep `flush_size * max_concurrency` far
    /// below `buffer_size`, and use [`Ordering::None`] or plain inserts, which have few batches. Failed rows that a
    /// dead-letter consumer has not received cannot be dropped: a submit waits for that consumer.
    DropOldest,
}

/// What happens to rows with equal keys in one batch, if the conflict rule overwrites every column that the rows carry.
/// (With [`Conflict::update_columns`](crate::Conflict::update_columns) of only some columns the earlier row may have an
/// effect of its own, so every row is written.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Coalesce {
    /// Only the last row of each key is written; the earlier ones end as `Superseded` when it is
    /// committed. If it is rejected, the one before it is written. Keys are equal here when they are given
    /// in the same form: if a batch has decimals `1.5` and `1.50`, all rows with these keys are written, one after the other.
    /// With [`Ordering::PerTable`] every row is written.
    #[default]
    LastPerKey,
    /// Every row is written, in order: for tables with triggers that must see each version.
    Off,
}

/// What happens when the connection breaks, or the timeout passes, after a batch was sent: the batch may be committed
/// or not. It is about repeats alone: a batch of which nothing was sent, or which was rolled back, is always retried.
///
/// A repeat with a conflict rule leaves the same row in the table, if no other writer changed the row meanwhile. It is still
/// a second write: triggers run again (an audit table gets a second entry), `updated_at` columns that the database sets
/// and row versions change, and change data capture sees two changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Delivery {
    /// Rows with a conflict rule are written again. Plain inserts are not, and end as
    /// [`Unknown`](crate::Outcome::Unknown).
    #[default]
    AtMostOnce,
    /// Nothing is written again, also with a conflict rule: the rows end as [`Unknown`](crate::Outcome::Unknown). For tables
    /// whose triggers must not run twice.
    NeverRepeat,
    /// Plain inserts are written again too, and may be in the table twice.
    AtLeastOnce,
}

/// How bad rows are found when the database refuses a batch because of its rows. Databases that report the outcome row
/// by row (SQLite, Redis) need no search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Isolation {
    /// Halve the batch until each bad row was refused alone; the good rows are committed meanwhile, in their own
    /// transactions. One bad row in 1,000 costs about 20 statements.
    Bisect {
        /// The most statements for one batch of `flush_size` rows; a larger batch may use as many for each `flush_size`
        /// rows.
        #[serde(default = "default_statements")]
        max_statements: usize,
        /// What happens to the rows that are undecided then.
        #[serde(default)]
        beyond: BeyondBudget,
    },
    /// All rows of a batch are written, or none: one bad row rejects its whole batch, and each row has the error of the
    /// bad one. You cannot choose which rows share a batch: it depends on their keys, on time and on capacity. A sink
    /// that cannot undo a part of a batch (Redis) needs `flush_size` 1. `max_batch_rows` is `flush_size` unless it is
    /// set.
    AtomicBatch,
}

impl Isolation {
    /// The most tries of the search for bad rows among so many rows: a larger batch may take as many for each `flush_size`
    /// rows. `None`: there is no search.
    pub(crate) fn budget(self, rows: usize, flush_size: usize) -> Option<usize> {
        match self {
            Self::Bisect { max_statements, .. } => {
                Some(max_statements.saturating_mul(rows.div_ceil(flush_size).max(1)))
            }
            Self::AtomicBatch => None,
        }
    }
}

impl Default for Isolation {
    fn default() -> Self {
        Self::Bisect { max_statements: default_statements(), beyond: BeyondBudget::Park }
    }
}

fn default_statements() -> usize {
    256
}

/// What happens to rows that are still undecided when the search for bad rows has used its statements: with so many bad
/// rows, single rows are rarely the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BeyondBudget {
    /// Park the table: the rows wait, and each probe continues the search. With `park_for` zero they are rejected.
    #[default]
    Park,
    /// Reject them together, good rows too. Durable pipelines and feeds never do that: they park the table.
    Reject,
}

/// Who has the rows of a pipeline until they have ended. It is for feeds, and not part of the public interface.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeptBy {
    /// The pipeline alone.
    #[default]
    Pipeline,
    /// A source, as a log or a stream, which has them still when the pipeline ends. So no row is rejected because of its table,
    /// also not by a close. One case is left, see [`Ordering::PerTable`].
    Source,
}
