//! A small service as it would run in production: it writes rows all the time, has metrics and health probes, and
//! drains when it is asked to stop.
//!
//! ```sh
//! cargo run --release -p batchsql --example monitored_app --features sqlite,postgres,mysql,prometheus
//! ```
//!
//! Then <http://127.0.0.1:9090/> shows its curves. [`Settings`] lists the environment variables. Exit status: 0 when
//! every row that was accepted is accounted for, 1 when rows failed, 2 when it could not start or a part of it failed.

mod database;
mod health;
mod load;
mod settings;
mod tasks;

use std::process::ExitCode;
use std::time::Duration;

use batchsql::BatchSql;
use batchsql::prometheus::{Lingered, PrometheusMetrics, ServerOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::database::Database;
use crate::load::{Event, Order};
use crate::settings::Settings;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How long the service writes the remaining rows when it stops.
const DRAIN: Duration = Duration::from_secs(8);

/// How long a Prometheus that scrapes the service then has to fetch the last values. Keep both together below the grace
/// period of the supervisor: 10 s with Docker by default, 30 s with Kubernetes.
const LINGER: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    // Otherwise a log that cannot be written panics in the task that writes rows.
    tracing_subscriber::fmt().with_writer(std::io::stderr).log_internal_errors(false).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => serve().await,
        // For the health check of a container, whose image has neither shell nor curl.
        ["--health-check"] => Settings::from_env().and_then(|settings| health::check(&settings)).map(|()| true),
        _ => Err("unknown arguments; only --health-check is known, set everything else in the environment".into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs until it is asked to stop. `false` when rows failed.
async fn serve() -> Result<bool> {
    let settings = Settings::from_env()?;
    // First of all: a stop request before this would kill the process.
    let stop = stop_requested()?;

    // The endpoint first, so that probes see a service that is alive and not ready yet.
    let metrics = PrometheusMetrics::new()?;
    metrics.set_ready(false);
    let address = metrics.start_server_with(exporter(&settings)?).await?;
    eprintln!("metrics: {}://{address}/metrics", if settings.tls.is_some() { "https" } else { "http" });

    let database = Database::open(settings.database_url.as_deref()).await?;
    let db = BatchSql::builder(database.sink())
        .metrics_reporter(metrics.reporter(database.name()))
        .on_failed_row(|outcome| tracing::error!("not written: {outcome}"))
        .start()?;
    // A missing table or column is found here and not by the first row.
    db.prepare_for::<Order>().await.map_err(|error| database.advice(error))?;
    db.prepare_for::<Event>().await.map_err(|error| database.advice(error))?;
    metrics.set_ready(true);
    eprintln!("ready: {} rows per second into {}", settings.rows_per_second, database.name());

    let mut tasks = JoinSet::new();
    tasks.spawn(load::orders(db.clone(), settings.rows_per_second / 2.0, stop.subscribe()));
    tasks.spawn(load::events(db.clone(), settings.rows_per_second / 2.0, stop.subscribe()));
    tasks.spawn(database.clone().keep_small(stop.subscribe()));
    let worked = tasks::join(tasks, &stop).await;

    // Whatever the reason for the end, accepted rows are written. Clients should send no new work here; the metrics
    // stay until the last row has its outcome and Prometheus has fetched it.
    metrics.set_ready(false);
    eprintln!("stopping: writing the remaining rows, for at most {} s", DRAIN.as_secs());
    let report = db.close(DRAIN).await;
    println!("{}", report.balance);
    if metrics.linger(LINGER).await == Lingered::TimedOut {
        eprintln!("Prometheus may lack the last values: it did not scrape in {} s", LINGER.as_secs());
    }
    let stopped = metrics.stop_server().await;
    worked?;
    stopped?;
    Ok(report.is_complete())
}

fn exporter(settings: &Settings) -> Result<ServerOptions> {
    let mut options = ServerOptions::default().port(settings.port).bind(settings.bind.clone());
    if let Some(token) = &settings.token {
        options = options.bearer_token(token);
    }
    if let Some(tls) = &settings.tls {
        options = options.tls_pem_files(&tls.certificate, &tls.key);
    }
    Ok(options)
}

/// Becomes true with the first SIGTERM or Ctrl-C. One that arrives more than a second later ends the process at once:
/// some supervisors send a signal twice, to the process and to its group.
fn stop_requested() -> Result<watch::Sender<bool>> {
    let stop = watch::Sender::new(false);
    let sender = stop.clone();
    let first = Requests::listen()?;
    tokio::spawn(async move {
        first.next().await;
        sender.send_replace(true);
        tokio::time::sleep(Duration::from_secs(1)).await;
        if let Ok(second) = Requests::listen() {
            second.next().await;
            std::process::exit(130);
        }
    });
    Ok(stop)
}

/// Stop requests from now on.
struct Requests {
    terminate: Signal,
    interrupt: Signal,
}

impl Requests {
    fn listen() -> Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
