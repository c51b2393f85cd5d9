//! Owns the start of a durable intake: what is refused, the log, and the tasks.
//! Must not know how rows are stored or written.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use batchsql_core::small_file::replace_file;
use batchsql_core::{BatchSqlBuilder, Sink};
use batchsql_feed::key::OrderedTables;
use batchsql_feed::{FeedOptions, FeedSabotage, Feeds, Letters, Schemas, without_ends};
use batchsql_log::{FileSystem, Log, RealFileSystem, Recovery, UnfinishedSegment};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::error::DurableStartError;
use crate::feed::claimed::{self, Claimed, Claims};
use crate::feed::partitions::Partitions;
use crate::feed::source::FromLog;
use crate::handle::DurableBatchSql;
use crate::health::Recovered;
use crate::intake::{appender, gather::Gather};
use crate::monitor::Monitor;
use crate::options::{DurableOptions, Sabotage};
use crate::refusals::{refuse_exactly_once, refuse_schema, refuse_settings};
use crate::shared::Shared;

/// Makes a pipeline durable: `BatchSql::builder(sink).durable(DurableOptions::new(folder)).start().await`.
pub trait DurableExt<S> {
    /// Rows are stored in a folder before they are accepted, and written from there.
    fn durable(self, options: DurableOptions) -> DurableBuilder<S>;
}

impl<S: Sink> DurableExt<S> for BatchSqlBuilder<S> {
    fn durable(self, options: DurableOptions) -> DurableBuilder<S> {
        DurableBuilder { builder: self, options }
    }
}

/// Configures a durable intake. Made by [`DurableExt::durable`].
#[must_use = "a builder does nothing until start() is called"]
pub struct DurableBuilder<S> {
    builder: BatchSqlBuilder<S>,
    options: DurableOptions,
}

impl<S> fmt::Debug for DurableBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableBuilder").field("options", &self.options).finish_non_exhaustive()
    }
}

impl<S: Sink> DurableBuilder<S> {
    /// Checks the settings as [`start`](Self::start) does, and touches no folder.
    ///
    /// # Errors
    /// The settings cannot work with a durable intake.
    pub fn validate(&self) -> Result<(), DurableStartError> {
        let Self { builder, options } = self;
        let config = builder.settings();
        refuse_settings(&config.when_full, config.delivery)?;
        options.log.check()?;
        let is_exact = options.exactly_once.is_some();
        if is_exact {
            refuse_exactly_once(builder, &config, options)?;
        }
        options.schemas.iter().try_for_each(|schema| {
            let refused = refuse_schema(schema, is_exact).map_or(Ok(()), Err);
            refused.map_err(DurableStartError::refused)
        })
    }

    /// Opens the log, and starts the pipeline on the current Tokio runtime. Rows that wait in the log are written at once, in
    /// order, before later rows of their keys. After an unclean end the log is read first, see
    /// [`DurableOptions::on_progress`].
    ///
    /// Of the settings of the pipeline, `retry_for`, `max_age` and `park_for` do not apply: rows wait in the log for as long as it takes.
    /// Nor does `BeyondBudget::Reject` in `isolation`: a table that refuses all rows is parked.
    /// `when_full` applies when the log is full.
    ///
    /// # Errors
    /// The settings cannot work with a durable intake, or the log cannot be opened: another process uses it
    /// ([`is_locked`](DurableStartError::is_locked)), a newer version wrote it, the disk is full. Nothing in the folder was
    /// lost.
    ///
    /// # Cancel safety
    /// If it is dropped, the log is closed in the background.
    pub async fn start(self) -> Result<DurableBatchSql, DurableStartError> {
        self.validate()?;
        let Self { builder, mut options } = self;
        let begun = Instant::now();
        let reporter = builder.durable_reporter();
        if reporter.is_observed() {
            let reporter = reporter.clone();
            options.log = options.log.on_sync(move |took| reporter.synced(took));
        }
        let config = builder.settings();
        let is_exact = options.exactly_once.is_some();
        let ordered = OrderedTables::of(&config);
        let (log, letters, recovery) = open(&options, &ordered).await?;
        let opened = begun.elapsed();
        let when_full = config.when_full;
        let pipeline = without_ends(builder, config).start()?;
        // The pipeline has started, so there is a runtime.
        let runtime = Handle::current();
        let claims = claims(&options, &recovery)?;
        let schemas = Arc::new(Schemas::new(std::mem::take(&mut options.schemas), "DurableOptions::schema"));
        let id: String = log.incarnation().iter().map(|byte| format!("{byte:02x}")).collect();
        let fed =
            feed_options(&options, FeedOptions::new(id, Arc::new(letters), Arc::clone(&schemas), ordered.clone()));
        let feeds = Feeds::new(pipeline.clone(), fed, runtime.clone());
        let partitions = Partitions::new(
            feeds,
            FromLog { log: log.clone(), accepts_gaps: options.accept_gaps, claims },
            options.window_bytes,
        );
        let acknowledged = Arc::default();
        let gather = Arc::new(Gather::new(options.partitions, options.segment_bytes));
        let appender = runtime.spawn(appender::run(
            Arc::clone(&gather),
            log.clone(),
            Arc::clone(&partitions),
            Arc::clone(&acknowledged),
        ));
        let recovered = resume(&partitions, &log, &recovery);
        let monitor = Arc::new(Monitor::new(
            reporter,
            log.clone(),
            Arc::clone(&partitions),
            Arc::clone(&acknowledged),
            &recovered,
            opened,
        ));
        let monitoring = runtime.spawn(Arc::clone(&monitor).run());
        Ok(DurableBatchSql::new(Shared {
            pipeline,
            log,
            schemas,
            partitions,
            acknowledged,
            is_exact,
            source: options.exactly_once,
            gather,
            in_flight: Arc::default(),
            space_log: Default::default(),
            entries: Default::default(),
            recovered,
            when_full,
            ordered,
            acknowledges_early: options.sabotage == Some(Sabotage::AcknowledgeEarly),
            segment_bytes: options.segment_bytes,
            runtime,
            appender: std::sync::Mutex::new(Some(appender)),
            monitor,
            monitoring: std::sync::Mutex::new(Some(monitoring)),
            closing: Default::default(),
            close_at: watch::Sender::new(None),
        }))
    }
}

/// What the partitions share that are written exactly once. The choice is one for the life of the folder: rows that were
/// written without a position would be written again.
fn claims(options: &DurableOptions, recovery: &Recovery) -> Result<Option<Arc<Claims>>, DurableStartError> {
    let folder = options.folder.display();
    let Some(source) = &options.exactly_once else {
        if claimed::is_there(&options.folder) {
            return Err(DurableStartError::refused(format!(
                "rows of {folder} are written exactly once, and would be written again without it; keep \
                 DurableOptions::exactly_once, or begin with an empty folder when this one is drained"
            )));
        }
        return Ok(None);
    };
    let has_rows = recovery.partitions.iter().any(|state| state.next - 1 > state.settled_up_to);
    if has_rows && !claimed::is_there(&options.folder) {
        return Err(DurableStartError::refused(format!(
            "rows wait in {folder} that may have been written without exactly_once; start without it until flush() returns"
        )));
    }
    let failed = |error| DurableStartError::io(format!("cannot use the file POSITIONS in {folder}"), error);
    let claimed = Claimed::open(&options.folder).map_err(failed)?;
    match claimed.source() {
        Some(known) if known != source => {
            return Err(DurableStartError::refused(format!(
                "the source of {folder} is {known:?}, and its positions have this name; keep it in place of {source:?}"
            )));
        }
        Some(_) => {}
        None => claimed.set_source(source).map_err(failed)?,
    }
    // Another process has another id or another time; another intake of this process, another number.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let owner = format!("{}-{nanos}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let ends = recovery.partitions.iter().map(|state| (&*state.table_name, state.partition, state.next - 1));
    claimed.opens(ends, &owner).map_err(failed)?;
    Ok(Some(Arc::new(Claims { owner, claimed })))
}

fn feed_options(options: &DurableOptions, feed: FeedOptions) -> FeedOptions {
    let mut feed =
        feed.accept_gaps(options.accept_gaps).accept_gaps_option("DurableOptions::accept_gaps").called("the log");
    if let Some(source) = &options.exactly_once {
        feed = feed.exactly_once(source);
    }
    match options.sabotage {
        Some(Sabotage::SettleEarly) => feed.sabotage(FeedSabotage::SettleEarly),
        _ => feed,
    }
}

/// Opens the files, where blocking is allowed.
async fn open(
    options: &DurableOptions,
    ordered: &OrderedTables,
) -> Result<(Log, Letters, Recovery), DurableStartError> {
    let (log, folder, path) = (options.log.clone(), options.folder.clone(), options.dead_letter_path());
    let ordered = ordered.to_string();
    let opening = move || {
        RealFileSystem.create_folder(&folder).map_err(|error| {
            let advice = match error.kind() {
                ErrorKind::AlreadyExists => "it is the name of a file; choose another one",
                _ => "check its parent",
            };
            DurableStartError::io(format!("cannot create the folder {}; {advice}", folder.display()), error)
        })?;
        let (log, recovery) = Log::open(log)?;
        keep_ordering(&folder, &ordered, &recovery)?;
        let letters = Letters::open(&path).map_err(|error| {
            DurableStartError::io(
                format!("cannot open the dead-letter file {}; check its folder", path.display()),
                error,
            )
        })?;
        Ok((log, letters, recovery))
    };
    if Handle::try_current().is_err() {
        return Err(DurableStartError::refused("there is no Tokio runtime here; call start() from within one"));
    }
    tokio::task::spawn_blocking(opening)
        .await
        .unwrap_or_else(|error| Err(DurableStartError::refused(format!("the log could not be opened: {error}"))))
}

/// The file that says how rows were assigned to partitions.
const ORDER_FILE: &str = "ORDER";

/// Rows of one key are in one partition, which depends on the ordering: it may change only when no row waits.
fn keep_ordering(folder: &Path, ordering: &str, recovery: &Recovery) -> Result<(), DurableStartError> {
    let path = folder.join(ORDER_FILE);
    let failed = |error| DurableStartError::io(format!("cannot read or write {}", path.display()), error);
    let known = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        known => Some(known.map_err(failed)?),
    };
    let has_rows = recovery.partitions.iter().any(|state| state.next - 1 > state.settled_up_to);
    match known {
        Some(known) if known.trim() == ordering => return Ok(()),
        Some(known) if has_rows => {
            return Err(DurableStartError::refused(format!(
                "the rows that wait in {} were assigned to partitions {}, and this start would assign rows {ordering}, in \
                 another order; start with the ordering of before until flush() returns, then change it",
                folder.display(),
                known.trim()
            )));
        }
        _ => {}
    }
    // As a whole, and on disk before rows are: a power loss leaves the old file or the new one.
    replace_file(&path, ordering.as_bytes()).map_err(failed)
}

/// Starts the feeds of the rows that were there before, and reports what was found.
fn resume(partitions: &Partitions, log: &Log, recovery: &Recovery) -> Recovered {
    let mut rows = 0;
    // Not later than they were stored; the feeds find out the exact time.
    let oldest = log.stats().oldest_unsettled.unwrap_or_else(SystemTime::now);
    for state in &recovery.partitions {
        partitions.name_table(state.table, &state.table_name);
        let last = state.next - 1;
        if last == state.settled_up_to {
            partitions.had_ended(state.table, state.partition, last);
        } else {
            let behind = log.settled(state.table, state.partition, state.settled_up_to + 1..=last);
            rows += state.unsettled;
            partitions.resume(state.table, state.partition, (state.settled_up_to, behind), last, oldest);
        }
    }
    let missing = recovery.gaps.iter().map(|gap| gap.last - gap.first + 1).sum();
    let recovered = Recovered {
        rows,
        is_clean: recovery.is_clean || recovery.is_new,
        torn_bytes: recovery.torn_bytes,
        damaged_parts: recovery.damages.len() as u64,
        missing,
    };
    for UnfinishedSegment { file, length, .. } in &recovery.unfinished_segments {
        let became = if *length == 0 { "was removed" } else { "is in the folder quarantine of the log" };
        tracing::warn!(
            file,
            length,
            "a segment of the log has no header, and {became}; it had no rows unless something has cut or emptied it"
        );
    }
    if missing > 0 || recovered.damaged_parts > 0 {
        tracing::error!(missing, damaged_parts = recovered.damaged_parts, "the log of the durable intake is damaged");
    } else if rows > 0 {
        tracing::info!(rows, "rows from before the start are written now");
    }
    recovered
}
