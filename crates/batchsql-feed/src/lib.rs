//! Feeds BatchSQL from a source of blocks: a log on disk, a stream of a broker. Every row is written at least once, or exactly
//! once, in the order of its partition.
//!
//! A [`Source`] is one partition: it gives blocks of rows in order, and hears up to where all rows have ended. [`Feeds`] runs a
//! task for each partition. `batchsql-durable` is a source on local disk; [`mod@file`] has a file of JSON lines as a source, with
//! all that it needs ([`FileFeed`](file::FileFeed)).
//!
//! # What is promised
//!
//! 1. A row is settled only after it has ended: it is in the table, or in the [dead letters](Letters), which are synced.
//! 2. Only the front of a partition is settled, so that after a crash rows come again, in order, and none is skipped.
//! 3. At least once: rows of a key are written in the order of their partition. A row whose outcome is not known is written again
//!    with the later rows of its key, when no row of the partition is in flight.
//! 4. Exactly once: each transaction moves the position of its partition in the database. After a lost reply the partition is
//!    claimed again, and the position says what was written.
//! 5. Nothing is skipped silently: missing or unreadable rows stop their partition ([`Feeds::stopped`]).
//!
//! # Memory
//!
//! A partition holds the rows that it has read and not settled. How many these are is decided by its source, see
//! [`Source::next`].
//!
//! # How it works
//!
//! At least once: the task submits the rows of a partition to the pipeline in order, follows their outcomes, and settles the
//! rows from the front of the partition up to the first one that has not ended.
//!
//! Worked example, three rows in two batches: rows 1 (key a), 2 (key b) and 3 (key a) are read. Rows 1 and 2 are in a batch
//! whose reply is lost, so both end as unknown; row 3 is written by the next batch. Nothing is settled, because row 1 is at
//! the front. When no row is in flight, rows 1, 2 and 3 are submitted again in this order: row 3 too, because row 1 has its
//! key and would overwrite it. All three are written, and 1 to 3 are settled.
//!
//! # Observers
//!
//! Whoever runs feeds reports their state each second with
//! [`BatchSqlBuilder::feed_reporter`](batchsql_core::BatchSqlBuilder::feed_reporter): the parts that do not depend on the source are
//! [`Feeds::table_counts`], [`Feeds::states`], [`Feeds::stopped`] and [`Feeds::waiting`]. Observers know tables by their
//! [unquoted](unquoted_table) names. `batchsql-nats` does so; `batchsql-durable` reports the state of its log instead.
//!
//! # Modules
//!
//! [`mod@file`] is a source that is ready to use. [`block`] has the bytes of rows and schemas, [`key`] the canonical bytes of keys, both described in `FORMAT.md`. `source` is
//! the contract with a source; `feeds` has the tasks: `at_least_once` with `window`, `exactly` with `backlog`, `claimed_position`
//! and `search`, and `partition`, which both use. `schemas` finds the schema of stored rows, `rows` makes rows of them, `misfits`
//! counts those that do not fit.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod at_least_once;
mod backlog;
pub mod block;
mod claimed_position;
mod context;
mod exactly;
mod feeds;
pub mod file;
pub mod key;
mod letters;
mod lossy;
mod misfits;
mod options;
mod partition;
mod rows;
mod said;
mod schemas;
mod search;
mod source;
mod state;
mod window;

pub use feeds::{FeedCounts, Feeds, NotStarted};
pub use letters::Letters;
#[doc(hidden)]
pub use options::FeedSabotage;
pub use options::{FeedOptions, Misfits, without_ends};
pub use schemas::Schemas;
#[doc(hidden)]
pub use search::{RowErrors, Search, Try};
pub use source::{Begin, Next, NotClaimed, Refusal, Source, SourceBlock, SourceError, SourceGap};
pub use state::{PartitionState, StoppedPartition, quoted_table, unquoted_table};

/// The README is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
