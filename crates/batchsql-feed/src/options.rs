//! Owns the options of feeds.
//! Must not know how they are used.

use std::sync::Arc;
use std::time::Duration;

use batchsql_core::{BatchSqlBuilder, BeyondBudget, Isolation, KeptBy, PipelineConfig, Sink, WhenFull};

use crate::key::OrderedTables;
use crate::letters::Letters;
use crate::schemas::Schemas;

/// How the partitions of a source are fed.
#[derive(Debug, Clone)]
#[must_use]
pub struct FeedOptions {
    pub(crate) incarnation: String,
    pub(crate) letters: Arc<Letters>,
    pub(crate) schemas: Arc<Schemas>,
    pub(crate) ordered: OrderedTables,
    pub(crate) exactly_once: Option<String>,
    pub(crate) accepts_gaps: bool,
    pub(crate) accept_gaps_option: Option<&'static str>,
    pub(crate) misfits: Misfits,
    pub(crate) place: &'static str,
    pub(crate) sabotage: Option<FeedSabotage>,
}

/// What becomes of stored rows that can never be written as they are: the sink refuses them before it sends them, they have a
/// column that the declared schema of their table lacks, or `NULL` where it allows none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misfits {
    /// Their partition stops until a person has done something: where the program that stored the rows also writes them, its
    /// schema is wrong, and not the rows.
    #[default]
    Stop,
    /// They are rejected with the reason, as if the database had refused them, and their partition goes on: where other programs
    /// store the rows. A row above [`buffer_bytes`](batchsql_core::PipelineConfig::buffer_bytes) of this process is one of them, though
    /// a larger buffer would take it.
    ///
    /// After [`isolation_budget`](batchsql_core::BatchSql::isolation_budget) such rows of a partition (default 256) without a
    /// row that the table accepts, the partition stops, and the rest stays in the source: the schema of this program is wrong,
    /// for example older than a column, and not the rows.
    Reject,
}

/// A defect on purpose: tests must find it.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "only for tests")]
pub enum FeedSabotage {
    /// A row is settled before it has its outcome.
    SettleEarly,
}

impl FeedOptions {
    /// At least once. `incarnation` is an id of the source that changes when the source is made anew, for example the random
    /// id of a log; it is in the ids of dead letters, and in the names of positions. Rejected rows go to `letters`. `ordered`
    /// says which tables keep the order of all of their rows.
    pub fn new(
        incarnation: impl Into<String>,
        letters: Arc<Letters>,
        schemas: Arc<Schemas>,
        ordered: OrderedTables,
    ) -> Self {
        Self {
            incarnation: incarnation.into(),
            letters,
            schemas,
            ordered,
            exactly_once: None,
            accepts_gaps: false,
            accept_gaps_option: None,
            misfits: Misfits::default(),
            place: "the source",
            sabotage: None,
        }
    }

    /// Writes every row exactly once, with the position of each partition in the database. `source` names the source there,
    /// at most 100 characters. The database must [keep positions](batchsql_core::BatchSql::keeps_positions).
    pub fn exactly_once(mut self, source: impl Into<String>) -> Self {
        self.exactly_once = Some(source.into());
        self
    }

    /// Goes on behind rows that are missing in the source, and behind rows that somebody has passed over by moving the position in the
    /// database; default false: their partition stops.
    pub fn accept_gaps(mut self, accept: bool) -> Self {
        self.accepts_gaps = accept;
        self
    }

    /// The option of the program with which a person [accepts gaps](Self::accept_gaps), for messages: `WorkerOptions::accept_gaps`.
    /// Default: messages name none.
    pub fn accept_gaps_option(mut self, option: &'static str) -> Self {
        self.accept_gaps_option = Some(option);
        self
    }

    /// What becomes of rows that can never be written as they are; default [`Misfits::Stop`].
    pub fn misfits(mut self, misfits: Misfits) -> Self {
        self.misfits = misfits;
        self
    }

    /// What messages call the source; default `the source`.
    pub fn called(mut self, place: &'static str) -> Self {
        self.place = place;
        self
    }

    /// A defect on purpose.
    #[doc(hidden)]
    pub fn sabotage(mut self, sabotage: FeedSabotage) -> Self {
        self.sabotage = Some(sabotage);
        self
    }
}

/// A pipeline that gives up no row for its age or its table, as [`Feeds`](crate::Feeds) need it: these settings are replaced,
/// also those of single tables, and with `BeyondBudget::Reject` in `isolation` a table is parked. `config` has the settings of
/// the builder ([`settings`](batchsql_core::BatchSqlBuilder::settings)).
pub fn without_ends<S: Sink>(builder: BatchSqlBuilder<S>, mut config: PipelineConfig) -> BatchSqlBuilder<S> {
    config.when_full = WhenFull::Wait;
    config.retry_for = Duration::MAX;
    config.max_age = None;
    config.park_for = Duration::MAX;
    config.rows_kept_by = KeptBy::Source;
    if let Isolation::Bisect { beyond, .. } = &mut config.isolation {
        // A table that refuses all rows would empty its source into the dead letters.
        *beyond = BeyondBudget::Park;
    }
    let tables = std::mem::take(&mut config.tables).into_iter();
    tables.fold(builder.config(config), |builder, (name, mut table)| {
        table.retry_for = None;
        table.max_age = None;
        builder.table(name, table)
    })
}
