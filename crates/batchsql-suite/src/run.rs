//! Owns a run: databases and cases in order, interruption, and the report.
//! Must not know what a case writes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use batchsql::metrics::TestResult;
use batchsql::prometheus::{Lingered, PrometheusMetrics};
use batchsql::{BatchSql, CloseReport, Outcome, OutcomeKind, TimestampTz};
use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};
use tokio::sync::{oneshot, watch};

use crate::cases::{Case, CaseName, Expected, Load, Settings};
use crate::cli::Options;
use crate::database::{self, Database};
use crate::digest::Digest;
use crate::memory;
use crate::report::{CaseResult, Environment, Integrity, Report, RunConfig, Summary};
use crate::tell::tell;
use crate::watch::{Observer, Watch, Watched};

/// Longer than any case, and short enough to be added to the current time.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);
/// Time limit for the drain of a case after its last submit.
const DRAIN: Duration = Duration::from_secs(120);
/// Messages of failed rows that a case keeps.
const MAX_ERRORS: usize = 10;

/// Runs the cases of the options against their databases. An interruption ends the current case early,
/// drains it, and skips the others.
///
/// # Errors
/// A database cannot be opened. Errors within a case are part of its result.
pub async fn run(options: &Options, metrics: &PrometheusMetrics, interrupted: watch::Receiver<bool>) -> Result<Report> {
    let begin = Instant::now();
    let cases = options.selected_cases();
    let mut environment = environment();
    let mut results = Vec::new();
    // All databases are opened before the first row, so that an unreachable one is reported early.
    let mut databases = Vec::new();
    for name in options.selected_databases() {
        let database = database::open(name, options).await?;
        environment.databases.push(database.info().await?);
        databases.push((name, database));
    }
    if options.watched {
        announce(options, metrics);
        await_watcher(options, metrics, interrupted.clone()).await;
    }
    for (name, database) in &databases {
        for case in &cases {
            if *interrupted.borrow() {
                results.push(skipped(name.name(), *case));
                continue;
            }
            let run = CaseRun {
                options,
                metrics,
                database: &**database,
                database_name: name.name(),
                name: *case,
                interrupted: interrupted.clone(),
            };
            let result = run.run().await;
            metrics.record_test_result(name.name(), case.name(), &result.result);
            results.push(result);
        }
    }
    let was_interrupted = *interrupted.borrow();
    Ok(Report {
        generated_at: TimestampTz::now().to_string().replace(' ', "T"),
        config: config(options, &cases, metrics),
        environment,
        summary: Summary::of(&results, begin.elapsed().as_secs_f64(), was_interrupted),
        results,
    })
}

/// Creates the counters of every case at 0, so that Prometheus sees their increase; see `Reporter::announce`.
fn announce(options: &Options, metrics: &PrometheusMetrics) {
    for name in options.selected_databases() {
        for case in options.selected_cases() {
            let reporter = metrics.reporter(name.name()).test_case(case.name());
            case.case().tables().iter().for_each(|table| reporter.announce(table.schema.table_display()));
        }
    }
}

/// Waits until Prometheus has scraped the announced counters; the limit is the same as at the end of the run.
async fn await_watcher(options: &Options, metrics: &PrometheusMetrics, mut interrupted: watch::Receiver<bool>) {
    if options.linger.is_zero() {
        return;
    }
    tell("waiting for the first scrape, so that Prometheus sees every case from its start");
    tokio::select! {
        lingered = metrics.await_scrape(options.linger) => if lingered != Lingered::Scraped {
            tell(format_args!(
                "Prometheus did not scrape within {}: it may not see short cases; see --linger",
                humantime::format_duration(options.linger)
            ));
        },
        // An error means that the sender is dropped, so no interrupt can follow.
        Ok(_) = interrupted.wait_for(|interrupted| *interrupted) => {}
    }
}

fn config(options: &Options, cases: &[CaseName], metrics: &PrometheusMetrics) -> RunConfig {
    RunConfig {
        databases: options.selected_databases().iter().map(|name| name.name().to_owned()).collect(),
        cases: cases.iter().map(|case| case.name().to_owned()).collect(),
        duration_seconds: options.duration.as_secs_f64(),
        workers: options.workers,
        records_per_worker: options.records_per_worker,
        batch_size: options.batch_size,
        buffer_size: options.buffer_size,
        flush_interval_ms: options.flush_interval.as_secs_f64() * 1000.0,
        metrics_port: metrics.server_address().map_or(options.metrics_port, |address| address.port()),
    }
}

fn environment() -> Environment {
    Environment {
        batchsql_version: env!("CARGO_PKG_VERSION").to_owned(),
        rust_version: option_env!("BATCHSQL_SUITE_RUSTC").map(str::to_owned),
        os: std::env::consts::OS.to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        memory_total_bytes: memory::machine(),
        databases: Vec::new(),
    }
}

fn skipped(database: &str, case: CaseName) -> CaseResult {
    CaseResult {
        result: TestResult {
            database: database.to_owned(),
            test_name: case.name().to_owned(),
            errors: vec!["the run was interrupted before this case".to_owned()],
            ..TestResult::default()
        },
        description: case.case().description().to_owned(),
        skipped: true,
        ..CaseResult::default()
    }
}

/// One case on one database.
struct CaseRun<'a> {
    options: &'a Options,
    metrics: &'a PrometheusMetrics,
    database: &'a dyn Database,
    database_name: &'static str,
    name: CaseName,
    interrupted: watch::Receiver<bool>,
}

/// The measurements of a case, before they are checked.
struct Measured {
    duration: Duration,
    submitted: u64,
    expected: Expected,
    closed: CloseReport,
    found: Vec<Digest>,
}

impl CaseRun<'_> {
    /// Runs the case; errors are part of the result.
    async fn run(&self) -> CaseResult {
        let case = self.name.case();
        self.metrics.set_current_test_case(self.name.name());
        let observer = Observer::new(self.metrics.reporter(self.database_name).test_case(self.name.name()));
        let mut result = CaseResult {
            result: TestResult {
                database: self.database_name.to_owned(),
                test_name: self.name.name().to_owned(),
                ..TestResult::default()
            },
            description: case.description().to_owned(),
            ..CaseResult::default()
        };
        let settings = Settings::of(self.options, &*case).map(Arc::new);
        let outcome = match settings {
            Ok(settings) => {
                result.result.concurrent_workers = settings.workers;
                result.parameters = settings.parameters.clone();
                let outcome = self.measure(&*case, settings, &observer, &mut result).await;
                self.clean_up(&*case).await;
                outcome
            }
            Err(error) => Err(error),
        };
        (result.batches, result.batch_latency, result.row_latency) = observer.latencies();
        match outcome {
            Ok(measured) => self.judge(&*case, &measured, &mut result),
            Err(error) => result.result.errors.push(format!("{error:#}")),
        }
        result.result.success = result.result.errors.is_empty();
        self.metrics.clear_current_test_case();
        result
    }

    async fn measure(
        &self,
        case: &dyn Case,
        settings: Arc<Settings>,
        observer: &Observer,
        result: &mut CaseResult,
    ) -> Result<Measured> {
        let tables = case.tables();
        for table in &tables {
            self.database.create(table).await?;
        }
        let failures = Arc::new(Mutex::new(Vec::new()));
        let db = BatchSql::builder(self.database.sink())
            .config(settings.pipeline.clone())
            .metrics_reporter(observer.clone())
            .on_failed_row({
                let failures = Arc::clone(&failures);
                move |outcome| keep(&failures, outcome)
            })
            .start()?;
        for table in &tables {
            db.prepare(&table.schema).await?;
        }
        let bar = progress_bar(self.database_name, self.name.name(), settings.rows() as u64);
        let (stop, stopped) = oneshot::channel();
        let watch = Watch {
            observer: observer.clone(),
            metrics: self.metrics.clone(),
            database: self.database_name,
            case: self.name.name(),
            bar: bar.clone(),
            buffer_limit: settings.pipeline.buffer_size as u64,
        };
        let watching = tokio::spawn(watch.run(stopped));
        let begin = Instant::now();
        let load = Load {
            db: db.clone(),
            settings: Arc::clone(&settings),
            observer: observer.clone(),
            sink: self.database.sink(),
            deadline: begin + self.options.duration.min(LONGEST),
            interrupted: self.interrupted.clone(),
            submitted: Arc::new(AtomicU64::new(0)),
        };
        let driven = case.drive(&load, self.database).await;
        let mut closed = db.close(DRAIN).await;
        let duration = begin.elapsed();
        // The watcher ends early only if it panicked; then there are no curves.
        let _ = stop.send(());
        let watched: Watched = watching.await.context("watching the case failed")?;
        bar.finish_and_clear();
        result.series = watched.series;
        result.memory = watched.memory;
        if let Some(bound) = &settings.memory_bound {
            result.memory.bound_mb = Some(result.memory.start_mb + bound.bytes as f64 / 1e6);
            result.memory.bound_note = Some(format!("memory at the start, {}", bound.note));
        }
        result.result.errors.append(&mut failures.lock().unwrap_or_else(PoisonError::into_inner));
        let expected = match driven {
            Ok(expected) => expected,
            Err(error) => {
                result.balance = balance(&closed);
                return Err(error);
            }
        };
        for other in &expected.elsewhere {
            closed.balance.accepted += other.balance.accepted;
            OutcomeKind::ALL
                .into_iter()
                .for_each(|kind| closed.balance.outcomes.add(kind, other.balance.outcomes.get(kind)));
        }
        result.balance = balance(&closed);
        let mut found = Vec::new();
        for (schema, _) in &expected.tables {
            found.push(self.database.digest(schema).await?);
        }
        let submitted = load.submitted.load(Ordering::Relaxed);
        Ok(Measured { duration, submitted, expected, closed, found })
    }

    /// Removes the case's tables in every case.
    async fn clean_up(&self, case: &dyn Case) {
        for table in case.tables() {
            if let Err(error) = self.database.drop_table(&table.schema).await {
                tracing::warn!(table = table.schema.table_display(), "cannot be removed: {error:#}");
            }
        }
    }

    fn judge(&self, case: &dyn Case, measured: &Measured, result: &mut CaseResult) {
        let Measured { duration, submitted, expected, closed, found } = measured;
        let mut errors = case.check(expected, closed);
        let (mut should, mut is) = (Digest::default(), Digest::default());
        let mut intact = 0;
        for ((schema, expected), found) in expected.tables.iter().zip(found) {
            should.merge(*expected);
            is.merge(*found);
            if expected == found {
                intact += found.rows;
            } else {
                errors.push(format!(
                    "table {}: {} rows with checksum {}, expected {} rows with checksum {}",
                    schema.table_display(),
                    found.rows,
                    found.checksum(),
                    expected.rows,
                    expected.checksum()
                ));
                // A checksum does not tell which rows differ: only missing and additional rows can be
                // counted. If the count is right and the checksum is not, no row counts as correct.
                let off = expected.rows.abs_diff(found.rows);
                intact += if off == 0 { 0 } else { expected.rows.saturating_sub(off) };
            }
        }
        if closed.balance.accepted != *submitted || closed.balance.in_flight() != 0 {
            errors.push(format!("{submitted} rows were submitted, but the balance is {:?}", closed.balance));
        }
        if closed.balance.failed() > 0 {
            errors.push(format!("{} rows were not written", closed.balance.failed()));
        }
        if should.rows == 0 {
            errors.push("no row was submitted; raise --duration".to_owned());
        }
        if let Some(bound) = result.memory.bound_mb.filter(|bound| result.memory.peak_mb > *bound) {
            errors.push(format!("memory rose to {:.1} MB, above the bound of {bound:.1} MB", result.memory.peak_mb));
        }
        result.integrity = Integrity {
            expected_rows: should.rows,
            actual_rows: is.rows,
            expected_checksum: should.checksum(),
            actual_checksum: is.checksum(),
            matches: expected.tables.iter().zip(found).all(|((_, expected), found)| expected == found),
        };
        let reached = closed.balance.written() + closed.balance.ignored() + closed.balance.superseded();
        let test = &mut result.result;
        test.duration = *duration;
        test.total_records = *submitted;
        test.actual_records = is.rows;
        test.data_integrity_rate = if should.rows == 0 { 0.0 } else { 100.0 * intact as f64 / should.rows as f64 };
        test.records_per_second = (reached as f64 / duration.as_secs_f64()).round();
        test.errors.append(&mut errors);
        test.rps_note = if *self.interrupted.borrow() {
            Some("the run was interrupted; what was submitted until then was checked".to_owned())
        } else if self.name == CaseName::LongDuration {
            Some("the case sets its own rate".to_owned())
        } else {
            None
        };
        test.rps_valid = test.errors.is_empty() && test.rps_note.is_none();
    }
}

/// Keeps the errors of the first failed rows; all failed rows are in the balance.
fn keep(failures: &Mutex<Vec<String>>, outcome: &Outcome) {
    let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(failed) = outcome.failure().filter(|_| failures.len() < MAX_ERRORS) {
        let reason = failed.error().map_or_else(|| "no error".to_owned(), ToString::to_string);
        failures.push(format!("a row of table {} was {}: {reason}", failed.table(), outcome.kind().name()));
    }
}

fn balance(closed: &CloseReport) -> BTreeMap<String, u64> {
    let outcomes = OutcomeKind::ALL.map(|kind| (kind.name().to_owned(), closed.balance.outcomes.get(kind)));
    std::iter::once(("accepted".to_owned(), closed.balance.accepted)).chain(outcomes).collect()
}

fn progress_bar(database: &str, case: &str, rows: u64) -> ProgressBar {
    let template = "{prefix:<28} {bar:20} {human_pos:>9}/{human_len} rows {rate:>10} {elapsed:>4}";
    let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        // An error while drawing the bar must not stop the run.
        let _ = write!(out, "{}/s", HumanCount(state.per_sec() as u64));
    };
    let style = ProgressStyle::with_template(template).expect("the template is valid").with_key("rate", rate);
    let bar = ProgressBar::new(rows).with_style(style).with_prefix(format!("{database} {case}"));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
