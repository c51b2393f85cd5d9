//! The suite's command: options in, report and exit status out.
//!
//! Exit status: 0 when every case passed, 1 when one failed, 2 when the run could not start, 130 when
//! it was interrupted.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use batchsql::prometheus::{Lingered, PrometheusMetrics, ServerOptions};
use batchsql_suite::cases::Settings;
use batchsql_suite::cli::Options;
use batchsql_suite::report::{self, Report};
use batchsql_suite::run::run;
use batchsql_suite::tell::tell;
use clap::Parser;
use tokio::sync::{oneshot, watch};

/// Its statistics are memory figures in the report.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const INTERRUPTED: u8 = 130;

/// A second termination signal within this time counts as a duplicate of the first.
const SAME_REQUEST: Duration = Duration::from_secs(1);

/// The log filter unless RUST_LOG is set. Parked tables are not logged, because one case parks its table on purpose; if
/// a table stays parked, its rows fail and the report says so.
const QUIET: &str = "error,batchsql_core::dispatch=off";

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // It would print to stderr that it cannot write to stderr, and panic.
        .log_internal_errors(false)
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| QUIET.into()))
        .init();
    match suite(&options).await {
        Ok(report) if report.summary.interrupted => ExitCode::from(INTERRUPTED),
        Ok(report) if report.summary.success => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            tell(format_args!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

async fn suite(options: &Options) -> Result<Report> {
    // Invalid settings are reported before the first row.
    for name in options.selected_cases() {
        Settings::of(options, &*name.case()).with_context(|| format!("case {}", name.name()))?;
    }
    report::check_writable(&options.report_dir).map_err(elsewhere)?;
    let metrics = PrometheusMetrics::new()?;
    let server = ServerOptions::new().port(options.metrics_port).bind(options.metrics_bind.iter().copied());
    let address = metrics.start_server_with(server).await.context(
        "the metrics endpoint did not start; choose another port with --metrics-port or PROMETHEUS_PORT, or other \
         addresses with --metrics-bind or METRICS_BIND",
    )?;
    for address in metrics.server_addresses() {
        tell(format_args!("live metrics: http://{address}/metrics"));
    }
    tell(format_args!("live page: http://{address}/"));
    let (interrupt, interrupted) = watch::channel(false);
    let (over, is_over) = oneshot::channel();
    let signals = tokio::spawn(listen(Requests::new(), interrupt, is_over));
    let report = run(options, &metrics, interrupted).await?;
    drop(over);
    let mut requests = signals.await.context("listening for signals failed")?;
    report::write_all(&report, &options.report_dir).map_err(elsewhere)?;
    let width = console::Term::stdout().size_checked().map(|(_, columns)| columns.into());
    let table = report::table::render(&report, width);
    let page = options.report_dir.join("report.html");
    // A closed stdout must not fail a passed run.
    let _ = writeln!(std::io::stdout(), "{table}\nreport: {}", page.display());
    // An interrupted run has results too, unless it was interrupted before the first case.
    if !report.results.iter().all(|result| result.skipped) {
        linger(options, &metrics, &mut requests).await;
    }
    tokio::select! {
        stopped = metrics.stop_server() => stopped?,
        () = requests.next() => {}
    }
    Ok(report)
}

/// Waits until Prometheus has scraped the last values. Ctrl-C ends the wait and does not change the result of the run.
async fn linger(options: &Options, metrics: &PrometheusMetrics, requests: &mut Requests) {
    let limit = options.linger;
    if limit.is_zero() || !(options.watched || metrics.has_watchers()) {
        return;
    }
    let shown = humantime::format_duration(limit);
    tell(format_args!("lingering for at most {shown}, so that Prometheus sees the last values; Ctrl-C ends it"));
    tokio::select! {
        biased;
        () = requests.next() => tell("\nno longer lingering: Prometheus may lack the last values"),
        lingered = metrics.await_scrapes(limit) => match lingered {
            Lingered::Scraped => tell("Prometheus has the last values"),
            Lingered::ScrapedOnce => tell(format_args!(
                "Prometheus has the last values, but scraped only once within {shown}; see --linger"
            )),
            _ => tell(format_args!(
                "Prometheus did not scrape within {shown}: it may lack the last values; see --linger"
            )),
        },
    }
}

fn elsewhere(error: anyhow::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:#}; choose another folder with --report-dir")
}

/// During the run, the first Ctrl-C or termination signal drains the pipeline and writes the report, and the second
/// one ends the process immediately. Later signals are for the caller that gets the requests back.
async fn listen(
    mut requests: Requests,
    interrupt: watch::Sender<bool>,
    mut is_over: oneshot::Receiver<()>,
) -> Requests {
    tokio::select! {
        biased;
        _ = &mut is_over => return requests,
        () = requests.next() => {}
    }
    tell("\ninterrupted: draining and writing the report; press Ctrl-C again to end at once");
    interrupt.send_replace(true);
    tokio::select! {
        biased;
        _ = is_over => requests,
        () = requests.next() => std::process::exit(INTERRUPTED.into()),
    }
}

/// Ctrl-C and, on Unix, SIGTERM and SIGHUP. No signal between two waits is lost. A second signal within
/// [`SAME_REQUEST`] is ignored: `timeout` and some supervisors signal the process and then its group.
struct Requests {
    signals: Signals,
    last: Option<Instant>,
}

impl Requests {
    fn new() -> Self {
        Self { signals: Signals::new(), last: None }
    }

    async fn next(&mut self) {
        loop {
            self.signals.next().await;
            if self.last.is_none_or(|last| last.elapsed() >= SAME_REQUEST) {
                break;
            }
        }
        self.last = Some(Instant::now());
    }
}

#[cfg(unix)]
struct Signals(Vec<tokio::signal::unix::Signal>);

#[cfg(unix)]
impl Signals {
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        Self(kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect())
    }

    async fn next(&mut self) {
        std::future::poll_fn(|context| {
            let came = self.0.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
            if came { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> Self {
        Self
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
