//! Owns where accepted rows go: into memory, or into the durable intake first.
//! Must not know where rows come from.

use std::sync::Arc;
use std::time::Duration;

use batchsql::durable::{DurableBatchSql, DurableExt, DurableOptions, SyncPolicy};
use batchsql::prometheus::PrometheusMetrics;
use batchsql::{Balance, BatchSql, DeadLetters, DynRow, DynSink, Receipt, Schema, Sink, SubmitError, WhenFull};
use tokio::time::timeout;

use crate::config::sections::{Durable, Sync};
use crate::config::settings::Settings;
use crate::exit::{Exit, Failure};
use crate::failed_log::{FailedLog, Kept};

/// How long [`Intake::leave`] waits for the disk that has the dead letters or the log.
const STORING: Duration = Duration::from_secs(15);

/// The pipeline of the program. Clones share it.
#[derive(Debug, Clone)]
pub(crate) enum Intake {
    Memory(BatchSql, Arc<FailedLog>),
    Durable(DurableBatchSql, Arc<FailedLog>),
}

/// Why a row was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The row is at fault.
    Row(String),
    /// There is no capacity. The row was not accepted.
    Full,
    /// There is no capacity for the row, but rows behind it are stored: those with these numbers, counted from the row.
    FullBefore(Vec<usize>),
    /// The program ends. The row was not accepted.
    Closed,
    /// The log has failed, and the row may be stored or not.
    Undetermined(String),
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    pub(crate) text: String,
}

impl Intake {
    /// Starts the pipeline. The schemas are those of all tables. `accept_log_gap`: a durable intake goes on behind rows that are
    /// missing in its log.
    ///
    /// # Errors
    /// The settings contradict each other, or the folder or the dead-letter file cannot be used.
    pub(crate) async fn start(
        sink: DynSink,
        settings: &Settings,
        schemas: &[Schema],
        metrics: &PrometheusMetrics,
        accept_log_gap: bool,
    ) -> Result<Self, Failure> {
        let name = sink.name();
        let mut config = settings.pipeline.clone();
        let Some(durable) = &settings.durable else {
            let mut builder = BatchSql::builder(sink).config(config).metrics_reporter(metrics.reporter(name));
            if let Some(path) = &settings.dead_letters {
                let letters = DeadLetters::file(path).map_err(|error| {
                    Failure::unavailable(format!("the dead-letter file {} cannot be used: {error}", path.display()))
                })?;
                builder = builder.dead_letters(letters);
            }
            let failed = Arc::new(FailedLog::new(settings.dead_letters.as_deref()));
            let log = Arc::clone(&failed);
            let builder = builder.on_failed_row(move |outcome| log.add(outcome));
            return Ok(Self::Memory(builder.start().map_err(Failure::mistake)?, failed));
        };
        // A request must not wait for an outage of days; a source that can wait tries again.
        if let (Some(http), WhenFull::Wait) = (&settings.http, config.when_full) {
            config = config.when_full(WhenFull::WaitAtMost(http.limits.capacity_time.max(Duration::from_millis(1))));
        }
        let letters = settings.dead_letters_file().expect("a durable intake has one");
        let failed = Arc::new(FailedLog::new(Some(&letters)));
        let log = Arc::clone(&failed);
        let builder = BatchSql::builder(sink).config(config).metrics_reporter(metrics.reporter(name));
        let builder = builder.on_failed_row(move |outcome| log.add_rejected(outcome));
        let options = schemas.iter().fold(options(durable), DurableOptions::schema).accept_gaps(accept_log_gap);
        let options = match &settings.http {
            Some(http) => options.keys(http.idempotency.keys, http.idempotency.keep_for),
            None => options,
        };
        let started = builder.durable(options.dead_letters(letters)).start().await;
        let intake = started.map_err(|error| {
            let text = format!("[durable] {error}");
            if error.is_invalid_settings() { Failure::mistake(text) } else { Failure::unavailable(text) }
        })?;
        let recovered = intake.recovered();
        if recovered.rows > 0 {
            tracing::info!(rows = recovered.rows, clean = recovered.is_clean, "rows of an earlier run are written now");
        }
        Ok(Self::Durable(intake, failed))
    }

    pub(crate) fn pipeline(&self) -> &BatchSql {
        match self {
            Self::Memory(db, _) => db,
            Self::Durable(intake, _) => intake.pipeline(),
        }
    }

    pub(crate) fn is_durable(&self) -> bool {
        matches!(self, Self::Durable(..))
    }

    /// Whether the database can be reached; with a durable intake, whether rows would be accepted now.
    pub(crate) fn is_ready(&self) -> bool {
        match self {
            Self::Memory(db, _) => db.health().is_reachable(),
            Self::Durable(intake, _) => intake.health().accepts_rows(),
        }
    }

    /// A durable intake accepts no rows for want of space.
    pub(crate) fn log_is_full(&self) -> bool {
        matches!(self, Self::Durable(intake, _) if intake.health().log_is_full)
    }

    /// Accepts rows in their order, waiting at most `limit` for the capacity of each, and removes those that were accepted from
    /// the front. Stops at the first row that is not accepted.
    ///
    /// # Cancel safety
    /// In memory, rows that are still in `rows` were not accepted. With a durable intake they may be.
    pub(crate) async fn submit(
        &self,
        rows: &mut std::collections::VecDeque<DynRow>,
        limit: Duration,
    ) -> Result<(), Refusal> {
        match self {
            Self::Memory(db, _) => {
                let waits = db.config().when_full == WhenFull::Wait;
                while let Some(row) = rows.front() {
                    let accepted = if waits { db.submit_timeout(row, limit).await } else { db.submit(row).await };
                    accepted.map_err(refusal)?;
                    rows.pop_front();
                }
                Ok(())
            }
            Self::Durable(intake, _) => {
                if rows.is_empty() {
                    return Ok(());
                }
                let (accepted, refused) = match intake.submit_all(rows.make_contiguous().iter()).await {
                    Ok(accepted) => (accepted, None),
                    Err(error) => (error.accepted(), Some(error)),
                };
                rows.drain(..accepted);
                let Some(refused) = refused else { return Ok(()) };
                let error = refused.submit_error();
                Err(match error.row_error() {
                    Some(error) => Refusal::Row(error.to_string()),
                    None if error.is_full() => full(refused.stored_behind(), accepted),
                    None if error.is_closed() => Refusal::Closed,
                    None if error.is_undetermined() => Refusal::Undetermined(error.to_string()),
                    None => Refusal::Row(error.to_string()),
                })
            }
        }
    }

    /// Accepts a row with a receipt of its outcome. `None`: a durable intake has no receipts.
    ///
    /// # Cancel safety
    /// The row was not accepted.
    pub(crate) async fn submit_tracked(&self, row: &DynRow, limit: Duration) -> Option<Result<Receipt, Refusal>> {
        let Self::Memory(db, _) = self else { return None };
        let accepted = timeout(limit, db.submit_tracked(row)).await;
        Some(accepted.map_or(Err(Refusal::Full), |accepted| accepted.map_err(refusal)))
    }

    /// Shortens a [`close`](Self::close) that was cancelled to `limit` from now on. What is left then is in the dead letters, or
    /// in the log of a durable intake.
    pub(crate) async fn leave(&self, limit: Duration) -> Ended {
        if let Ok(ended) = timeout(limit + STORING, self.close(limit)).await {
            return ended;
        }
        // A disk does not answer.
        match self {
            Self::Memory(_, failed) => failed.end(Kept::Unknown),
            Self::Durable(_, failed) => failed.end(Kept::All),
        }
        let balance = self.pipeline().balance();
        let (exit, balance, what) = match self {
            Self::Memory(..) => (Exit::Failed, balance.to_string(), "rows that were accepted are not written"),
            Self::Durable(..) => (Exit::Waiting, behind_log(&balance), "rows wait in the log for the next start"),
        };
        Ended { exit, text: format!("{balance}; {what}: their end was not waited for") }
    }

    /// Refuses new rows, and writes those that were accepted, for at most `limit`.
    pub(crate) async fn close(&self, limit: Duration) -> Ended {
        match self {
            Self::Memory(db, failed) => {
                let report = db.close(limit).await;
                let lost = report.lost_letters;
                failed.end(if lost == 0 { Kept::All } else { Kept::AllBut(lost) });
                let exit = if report.is_complete() && lost == 0 { Exit::Done } else { Exit::Failed };
                let letters =
                    if lost == 0 { String::new() } else { format!("; {lost} dead letters could not be stored") };
                Ended { exit, text: format!("{}{letters}", report.balance) }
            }
            Self::Durable(intake, failed) => {
                let report = intake.close(limit).await;
                failed.end(Kept::All);
                let missing = intake.stats().missing;
                if missing > 0 {
                    tracing::warn!(rows = missing, "rows were missing in the log, and were accepted as lost");
                }
                let balance = &report.pipeline.balance;
                let (exit, what) = match (&report.log_error, report.left_in_log) {
                    (Some(error), _) => (Exit::Failed, format!("; the log failed: {error}")),
                    (None, 0) if balance.failed() > 0 => (Exit::Failed, String::new()),
                    (None, 0) => (Exit::Done, String::new()),
                    (None, left) => {
                        let given_up = balance.purged() + balance.unknown() > 0;
                        let among = if given_up { ", also those that were purged or are unknown here" } else { "" };
                        (Exit::Waiting, format!("; {left} rows wait in the log for the next start{among}"))
                    }
                };
                Ended { exit, text: format!("{}{what}", behind_log(balance)) }
            }
        }
    }
}

/// The counts of the pipeline behind a log, which has accepted the rows before.
fn behind_log(balance: &Balance) -> String {
    balance.to_string().replacen(" accepted", " passed on to the database", 1)
}

/// The numbers are those of the whole call.
fn full(stored_behind: &[usize], accepted: usize) -> Refusal {
    if stored_behind.is_empty() {
        return Refusal::Full;
    }
    Refusal::FullBefore(stored_behind.iter().map(|number| number - accepted).collect())
}

fn refusal(error: SubmitError) -> Refusal {
    match error.row_error() {
        Some(error) => Refusal::Row(error.to_string()),
        None if error.is_closed() => Refusal::Closed,
        None => Refusal::Full,
    }
}

pub(crate) fn options(durable: &Durable) -> DurableOptions {
    let policy = match durable.sync {
        Sync::Always => SyncPolicy::Always,
        Sync::Os => SyncPolicy::Os,
    };
    let options = DurableOptions::new(&durable.folder).sync_policy(policy);
    let options = options.disk_bytes(durable.disk).min_free_bytes(durable.min_free).keep_for(durable.keep_for);
    let options = match durable.partitions {
        Some(partitions) => options.partitions(partitions),
        None => options,
    };
    match &durable.exactly_once {
        Some(source) => options.exactly_once(source),
        None => options,
    }
}
