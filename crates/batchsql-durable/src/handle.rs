//! Owns the handle that callers hold: what it shows, and its end without a close.
//! Must not know how rows are stored or written.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use batchsql_core::BatchSql;

use crate::ending;
use crate::health::{DurableHealth, DurableStats, Recovered};
use crate::shared::Shared;

/// A pipeline whose accepted rows survive the process: they are stored in a log on local disk, and written from there. Made
/// by [`DurableExt::durable`](crate::DurableExt::durable).
///
/// Cloning is cheap, and every clone is the same intake. When the last clone is dropped without
/// [`close`](Self::close), it is closed in the background without waiting for the database; rows that are not written stay
/// in the log.
#[derive(Clone)]
pub struct DurableBatchSql(Arc<Owner>);

/// Closes the intake with the last handle.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        // The log keeps its lock until the pipeline has ended, so that two pipelines never write the same rows.
        // A close that was cancelled goes on with its own deadline.
        if self.0.closing.get().is_none() {
            ending::begin(&self.0, Duration::ZERO);
        }
    }
}

impl DurableBatchSql {
    pub(crate) fn new(shared: Shared) -> Self {
        Self(Arc::new(Owner(Arc::new(shared))))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }

    /// The pipeline that writes the rows, for [`check_connection`](BatchSql::check_connection), `prepare` and `config`. Rows
    /// that are submitted to it are not stored.
    pub fn pipeline(&self) -> &BatchSql {
        &self.shared().pipeline
    }

    /// What the start has found in the folder.
    pub fn recovered(&self) -> &Recovered {
        &self.shared().recovered
    }

    /// What is known at this moment; it does not contact the database.
    pub fn health(&self) -> DurableHealth {
        let Shared { pipeline, log, partitions, .. } = &**self.shared();
        DurableHealth {
            pipeline: pipeline.health(),
            stopped: partitions.feeds.stopped(),
            waiting: partitions.feeds.waiting(),
            lossy_setting: partitions.feeds.lossy_setting(),
            log_is_full: log.stats().is_full,
        }
    }

    /// Counts since the start, for metrics.
    pub fn stats(&self) -> DurableStats {
        let Shared { pipeline, log, partitions, acknowledged, .. } = &**self.shared();
        let counts = partitions.feeds.counts();
        DurableStats {
            log: log.stats(),
            balance: pipeline.balance(),
            oldest_unsettled: partitions.oldest_unsettled(),
            acknowledged: acknowledged.load(Ordering::Relaxed),
            written_again: counts.written_again,
            missing: counts.missing,
            dead_letters: counts.dead_letters,
        }
    }
}

impl fmt::Debug for DurableBatchSql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableBatchSql").field("log", &self.shared().log).finish_non_exhaustive()
    }
}
