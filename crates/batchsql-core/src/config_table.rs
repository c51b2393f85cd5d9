//! Owns the settings of one table: those that were given, and what they are together with the pipeline's.
//! Must not know what the settings are used for.

use std::time::Duration;

use serde::Deserialize;

use crate::config_policies::Ordering;
use crate::config_text::optional_duration;

/// The most turns of a table for one turn of another one.
const MAX_WEIGHT: u32 = 100;

/// Settings of one table that take the place of the pipeline's, for
/// [`BatchSqlBuilder::table`](crate::BatchSqlBuilder::table) and [`PipelineConfig::table`](crate::PipelineConfig::table).
/// `None`, the default of every field, means that the table uses the pipeline's setting.
///
/// ```
/// use batchsql_core::{Ordering, TableConfig};
/// use std::time::Duration;
/// let urgent = TableConfig::default().flush_size(50).flush_interval(Duration::from_millis(5)).weight(4);
/// let bulk = TableConfig::default().flush_size(5_000).flush_interval(Duration::from_secs(1)).ordering(Ordering::None);
/// # let _ = (urgent, bulk);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TableConfig {
    /// Rows after which a batch of the table is ready to be written; see
    /// [`PipelineConfig::flush_size`](crate::PipelineConfig::flush_size). It is also the unit of the statements of
    /// [`Isolation::Bisect`](crate::Isolation::Bisect), and of `max_batch_rows` where that is not set.
    pub flush_size: Option<usize>,
    /// Age of its oldest row after which a batch of the table is written; see
    /// [`PipelineConfig::flush_interval`](crate::PipelineConfig::flush_interval).
    #[serde(deserialize_with = "optional_duration")]
    pub flush_interval: Option<Duration>,
    /// Which rows of the table keep their order; see [`PipelineConfig::ordering`](crate::PipelineConfig::ordering).
    pub ordering: Option<Ordering>,
    /// How long a row of the table is retried; see [`PipelineConfig::retry_for`](crate::PipelineConfig::retry_for).
    #[serde(deserialize_with = "optional_duration")]
    pub retry_for: Option<Duration>,
    /// Age after which a row of the table is given up; see [`PipelineConfig::max_age`](crate::PipelineConfig::max_age).
    /// [`Duration::MAX`] means no limit where the pipeline has one. It must be above the `flush_interval` of the table.
    #[serde(deserialize_with = "optional_duration")]
    pub max_age: Option<Duration>,
    /// How many turns the table has while lanes wait for a permit (see
    /// [`max_concurrency`](crate::PipelineConfig::max_concurrency)); default 1, at most 100. A lane is the part of a table
    /// whose batches are written one after the other: a lane of a table with weight 4 starts four batches for each batch
    /// that a lane of a table with weight 1 starts. A batch that waits for no permit is not affected, nor is the size of
    /// batches. A table does not use more permits because of its weight: while another table is active, each leaves it
    /// one. Batches that were refused and whose `retry_for` or `max_age` is over start before all others.
    pub weight: Option<u32>,
}

impl TableConfig {
    /// What is wrong with the settings of one table, and how to correct it; `buffer_size` and `max_batch_rows` are those
    /// of the pipeline.
    pub(crate) fn problem(&self, buffer_size: usize, max_batch_rows: Option<usize>) -> Option<String> {
        let most_rows = max_batch_rows.unwrap_or(usize::MAX);
        let problem = match self.flush_size {
            Some(0) => "flush_size is 0; set it to at least 1".to_owned(),
            Some(rows) if rows > buffer_size => {
                format!("flush_size {rows} is above buffer_size {buffer_size}; raise buffer_size or lower flush_size")
            }
            Some(rows) if rows > most_rows => {
                format!(
                    "flush_size {rows} is above max_batch_rows {most_rows}; raise max_batch_rows or lower flush_size"
                )
            }
            _ => match self.weight {
                Some(0) => format!("weight is 0, so its batches would never start; set it to 1 to {MAX_WEIGHT}"),
                Some(weight) if weight > MAX_WEIGHT => {
                    format!("weight {weight} is above {MAX_WEIGHT}; lower it")
                }
                _ => return None,
            },
        };
        Some(problem)
    }
}

/// The settings of one table, after those of the pipeline took the place of what was not set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableSettings {
    pub(crate) flush_size: usize,
    /// The most rows of one batch.
    pub(crate) max_batch_rows: usize,
    /// The most rows of one batch, where rows with equal keys become one before they are sent.
    pub(crate) max_coalesced_rows: usize,
    pub(crate) flush_interval: Duration,
    pub(crate) ordering: Ordering,
    pub(crate) retry_for: Duration,
    /// `None`: no limit.
    pub(crate) max_age: Option<Duration>,
    pub(crate) weight: u32,
    pub(crate) statement_timeout: Duration,
}

impl TableSettings {
    /// Whether all rows of the table keep their order.
    pub(crate) fn is_in_order(&self) -> bool {
        self.ordering == Ordering::PerTable
    }

    /// How much older the first row of a batch may be than the rows that are merged with it. They are given up together,
    /// when the last of them is too old.
    pub(crate) fn max_spread(&self) -> Option<Duration> {
        self.max_age.map(|max_age| max_age / 4)
    }

    /// The shorter of the times that a row has after an error.
    pub(crate) fn retried_at_most(&self) -> Duration {
        self.max_age.map_or(self.retry_for, |max_age| max_age.min(self.retry_for))
    }
}
