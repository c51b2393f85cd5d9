//! Owns the life of the service: what is opened in which order, and how it drains.
//! Must not know HTTP or files.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use batchsql::Schema;
use batchsql::durable::tools::{IntakeFolder, ToolError};
use batchsql::prometheus::{EndpointOptions, PrometheusMetrics, ServerOptions};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::config::nats_sections::Guarantee;
use crate::config::read;
use crate::config::settings::{Destination, Http, Settings, Source, SourceKind};
use crate::database::{self, ConnectFor};
use crate::exit::{Exit, Failure};
use crate::http::routes;
use crate::http::server::Server;
use crate::http::shared::Shared;
use crate::http::tls;
use crate::intake::{Ended, Intake};
use crate::load::stop::LAST_STEP;
use crate::logging;
use crate::nats::publish;
use crate::nats::publisher::Publisher;
use crate::notify::notify;
use crate::run::open_files;
use crate::run::readiness::Watched;
use crate::signals::Signals;
use crate::sources::all::{Sources, Supply};
use crate::sources::loaders::Loaders;
use crate::table::target::Target;

/// How long the log is read for the rows that wait, when the start was ended by a signal.
const LOOKING: Duration = Duration::from_secs(5);

/// Requests that are open when the rows are written get this long to end.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// What is left of the wait for rows after a second signal.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// How long workers may take after that to give their partitions to others.
const GIVING: Duration = Duration::from_secs(15);

/// Runs until SIGTERM or SIGINT. A second signal shortens the wait for rows.
///
/// # Errors
/// The service could not start.
pub(crate) async fn run(path: &Path, accept_gaps: &[String], accept_log_gap: bool) -> Result<Exit, Failure> {
    // First of all: a signal that comes earlier ends the process.
    let mut signals = Signals::new().map_err(Failure::unavailable)?;
    let settings = read::read(path)?;
    logging::start(&settings.log).map_err(Failure::mistake)?;
    if settings.http.is_none() && settings.sources.is_empty() {
        let text = "there is nothing to read; add a section [http] or [[sources]]";
        return Err(Failure::mistake(format!("{}: {text}", path.display())));
    }
    can_have_gaps(&settings, accept_gaps).map_err(Failure::mistake)?;
    if accept_log_gap && settings.durable.is_none() {
        return Err(Failure::mistake("--accept-log-gap: there is no section [durable]"));
    }
    open_files::raise(settings.http.as_ref().map_or(0, |http| http.limits.connections));
    let mut service = tokio::select! {
        started = Service::start(&settings, accept_gaps, accept_log_gap) => started?,
        signal = signals.next() => return Err(ended_early(signal, &settings, &mut signals).await),
    };
    let mut states = service.sources.states();
    let mut is_started = false;
    let reason = loop {
        tokio::select! {
            signal = signals.next() => break signal,
            reason = service.end_of_sources() => break reason,
            () = Sources::started(&mut states), if !is_started => {
                is_started = true;
                notify("READY=1");
                tracing::info!("ready");
            }
        }
    };
    tracing::info!(reason, drain_for = ?settings.drain_for, "ending; no more rows are accepted");
    notify("STOPPING=1");
    let ended = service.stop(settings.drain_for, &mut signals).await;
    Ok(ended)
}

struct Service {
    /// `None` if all rows come from streams.
    intake: Option<Intake>,
    loaders: Loaders,
    metrics: PrometheusMetrics,
    http: Option<(Shared, Server)>,
    sources: Sources,
    readiness: tokio::task::JoinHandle<()>,
}

impl Service {
    async fn start(settings: &Settings, accept_gaps: &[String], accept_log_gap: bool) -> Result<Self, Failure> {
        let acceptor = match settings.http.as_ref().and_then(|http| http.tls.as_ref()) {
            Some(files) => Some(tls::acceptor(files).map_err(Failure::mistake)?),
            None => None,
        };
        let metrics = PrometheusMetrics::new().map_err(Failure::unavailable)?;
        metrics.set_ready(false);
        // What is waited for is seen there.
        let exporter = exporter(settings, &metrics).await?;
        let database = settings.destination.catalogue();
        let connect_for = ConnectFor::new(database.map_or(Duration::ZERO, |database| database.connect_for));
        let catalogue = match database {
            Some(database) => Some(database::open(database, &settings.tables, connect_for).await?),
            None => None,
        };
        let Publisher { sink, opening } = match (&settings.destination, &catalogue) {
            (Destination::Stream(stream), _) => publish::publisher(stream, settings).await?,
            (Destination::Database(_), Some(sink)) => Publisher { sink: sink.clone(), opening: None },
            (Destination::Database(_), None) => unreachable!("it is its own catalogue"),
        };
        let mut tables = BTreeMap::new();
        for table in &settings.tables {
            let name = table.name.get_ref();
            let target = connect_for.table(catalogue.as_ref(), table).await;
            let target = target.map_err(|error| Failure::of_target(name, &error))?;
            tables.insert(name.clone(), Arc::new(target));
        }
        drop(catalogue);
        // The port before the log: a second start by mistake should fail without touching it. It is said when requests are taken.
        let listener = match &settings.http {
            Some(http) => Some((http, listen(http).await?)),
            None => None,
        };
        let needs_intake = settings.http.is_some() || settings.sources.iter().any(|source| source.kind.needs_intake());
        let intake = if needs_intake {
            let intake = Intake::start(sink.clone(), settings, &schemas(&tables), &metrics, accept_log_gap).await?;
            check_tables(settings, &intake, &tables, connect_for).await?;
            Some(intake)
        } else {
            None
        };
        let http = match (listener, &intake) {
            (Some((http, listener)), Some(intake)) => {
                let shared = Shared::new(intake.clone(), tables.clone(), http);
                let routes = routes::router(shared.clone(), exporter);
                let address = listener.local_addr().map_err(Failure::unavailable)?;
                let server = Server::start(listener, acceptor, routes, &http.limits);
                let scheme = if http.tls.is_some() { "https" } else { "http" };
                tracing::info!(%address, "listening on {scheme}://{address}");
                Some((shared, server))
            }
            _ => None,
        };
        let loaders = Loaders::start(settings, &sink, &metrics)?;
        let supply = Supply {
            settings,
            intake: intake.as_ref(),
            loaders: &loaders,
            sink: &sink,
            tables: &tables,
            metrics: &metrics,
            accept_gaps,
        };
        let mut sources = Sources::start(&supply);
        if let Some(opening) = opening {
            sources.open(opening);
        }
        let watched = Watched {
            intake: intake.clone(),
            loaders: loaders.clone(),
            sources: sources.states(),
            metrics: metrics.clone(),
        };
        watched.tell();
        let readiness = tokio::spawn(watched.watch());
        Ok(Self { intake, loaders, metrics, http, sources, readiness })
    }

    /// Returns when nothing is left to be read: a service with HTTP, or with a folder or a stream, never ends by itself, unless a
    /// source has a defect. Then it must start anew: its rows would not be read for as long as it runs.
    async fn end_of_sources(&mut self) -> &'static str {
        match self.sources.ended().await {
            Err(reason) => reason,
            Ok(()) if self.http.is_some() => std::future::pending().await,
            Ok(()) => "the sources have ended",
        }
    }

    /// Refuses rows, writes those that were accepted, and stops the servers last, so that clients and probes get an answer.
    async fn stop(self, drain_for: Duration, signals: &mut Signals) -> Exit {
        let Self { intake, loaders, metrics, http, mut sources, readiness } = self;
        readiness.abort();
        if let Err(error) = readiness.await
            && error.is_panic()
        {
            tracing::error!(%error, "readiness was no longer shown, because of a defect of the program");
        }
        metrics.set_ready(false);
        if let Some((shared, _)) = &http {
            shared.drain();
        }
        let (sources_exit, ended, last_answers) =
            drain(intake.as_ref(), &loaders, &mut sources, drain_for, signals.next()).await;
        drop(sources);
        if let Some((_, server)) = http {
            server.stop(last_answers).await;
        }
        if let Err(error) = metrics.stop_server().await {
            tracing::warn!(%error, "the server of the metrics did not end");
        }
        let (exit, text) = match ended {
            Some(ended) => (ended.exit.or_worse(sources_exit), ended.text),
            None => (sources_exit, "the workers have ended".to_owned()),
        };
        tracing::info!(exit_code = exit.number(), "ended: {text}");
        exit
    }
}

/// Ends the sources, and writes the rows that were accepted, for at most `limit`, or until a second signal. Returns how the sources and
/// the intake have ended, and how long answers may take.
async fn drain(
    intake: Option<&Intake>,
    loaders: &Loaders,
    sources: &mut Sources,
    limit: Duration,
    second: impl Future<Output = &'static str>,
) -> (Exit, Option<Ended>, Duration) {
    let closed = async {
        // A load goes on with the next start.
        sources.stop_readers(limit.min(LAST_STEP)).await;
        loaders.close().await;
        let closing = async {
            match intake {
                Some(intake) => Some(intake.close(limit).await),
                None => None,
            }
        };
        tokio::join!(sources.stop_workers(limit), closing)
    };
    tokio::select! {
        // What ends at once is not cut off.
        biased;
        (exit, ended) = closed => (exit, ended, LAST_ANSWERS),
        signal = second => {
            tracing::warn!(signal, limit = ?LAST_MOMENT, "rows are written for this time only");
            sources.stop_readers(Duration::ZERO).await;
            let leaving = async {
                match intake {
                    Some(intake) => Some(intake.leave(LAST_MOMENT).await),
                    None => None,
                }
            };
            // A worker that does not end by then has no answer from NATS or the database.
            let workers = timeout(LAST_MOMENT + GIVING, sources.stop_workers(LAST_MOMENT));
            let (_, (), ended) = tokio::join!(workers, loaders.close(), leaving);
            (sources.exit(), ended, Duration::ZERO)
        }
    }
}

/// A signal came before the start had ended, which may wait for a database for hours. No row was accepted; those of an earlier run
/// may wait.
async fn ended_early(signal: &str, settings: &Settings, signals: &mut Signals) -> Failure {
    let text = format!("{signal} came before the start had ended");
    let Some(durable) = &settings.durable else { return Failure::unavailable(text) };
    let log = durable.folder.join("log");
    if matches!(log.metadata(), Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)) {
        return Failure::unavailable(text);
    }
    let folder = IntakeFolder::in_use(&durable.folder);
    // It only reads: what is left of the start may have the lock for a moment.
    let looking = tokio::task::spawn_blocking(move || {
        let found = folder.inspect()?.recovery;
        let rows: u64 = found.partitions.iter().map(|state| state.unsettled).sum();
        let is_whole = found.damages.is_empty() && found.gaps.is_empty() && found.unfinished_segments.is_empty();
        Ok::<_, ToolError>((rows, is_whole))
    });
    let looked = tokio::select! {
        looked = timeout(LOOKING, looking) => looked.ok(),
        _ = signals.next() => None,
    };
    match looked {
        Some(Ok(Ok((0, true)))) => Failure::unavailable(text),
        Some(Ok(Ok((0, false)))) => {
            Failure::waiting(format!("{text}; rows may wait in the log, which is damaged; see `batchsql log verify`"))
        }
        Some(Ok(Ok((rows, false)))) => Failure::waiting(format!(
            "{text}; up to {rows} rows wait in the log, and some may be missing, because it is damaged; see `batchsql log verify`"
        )),
        Some(Ok(Ok((rows, true)))) => {
            Failure::waiting(format!("{text}; {rows} rows wait in the log for the next start"))
        }
        // Rows that wait must not be taken for none.
        Some(Ok(Err(error))) => {
            Failure::waiting(format!("{text}; rows may wait in the log, which cannot be read: {error}"))
        }
        Some(Err(_)) | None => Failure::waiting(format!("{text}; rows may wait in the log for the next start")),
    }
}

fn schemas(tables: &BTreeMap<String, Arc<Target>>) -> Vec<Schema> {
    tables.values().map(|table| table.schema.clone()).collect()
}

/// Checks that the pipeline of requests and files can write its tables.
async fn check_tables(
    settings: &Settings,
    intake: &Intake,
    tables: &BTreeMap<String, Arc<Target>>,
    connect_for: ConnectFor,
) -> Result<(), Failure> {
    // A stream takes every table, and may not be open yet.
    let written = tables.values().filter(|_| settings.database().is_ok());
    for target in written {
        let prepared = connect_for.prepared(intake.pipeline(), target).await;
        prepared.map_err(|error| Failure::of_target(&target.name, &error))?;
    }
    Ok(())
}

/// # Errors
/// A source of the command line is none that notices missing messages.
fn can_have_gaps(settings: &Settings, accept_gaps: &[String]) -> Result<(), String> {
    let is_exact = |source: &Source| match &source.kind {
        SourceKind::JetStream(stream) => stream.guarantee == Guarantee::ExactlyOnce,
        _ => false,
    };
    let exact: Vec<&str> =
        settings.sources.iter().filter(|source| is_exact(source)).map(|source| &*source.id).collect();
    match accept_gaps.iter().find(|id| !exact.contains(&id.as_str())) {
        None => Ok(()),
        Some(id) => Err(format!(
            "--accept-gap {id}: there is no such source of a stream that is written exactly once; there are: {}",
            exact.join(", ")
        )),
    }
}

async fn listen(http: &Http) -> Result<TcpListener, Failure> {
    TcpListener::bind(http.listen).await.map_err(|error| {
        Failure::unavailable(format!("[http] cannot listen on {}: {error}; choose another port", http.listen))
    })
}

/// The endpoint of the metrics: its routes, if it is part of the server of `[http]`.
async fn exporter(settings: &Settings, metrics: &PrometheusMetrics) -> Result<Option<Router>, Failure> {
    let section = &settings.metrics;
    let failed = |error: batchsql::prometheus::PrometheusError| Failure::unavailable(format!("[metrics] {error}"));
    let Some(listen) = section.listen else {
        let options = EndpointOptions::new().live_page(section.live_page);
        let options = match &section.token {
            Some(token) => options.bearer_token(token.reveal()),
            None => options,
        };
        return metrics.router(options).map(Some).map_err(failed);
    };
    let options = ServerOptions::new().port(listen.port()).bind([listen.ip()]).live_page(section.live_page);
    let options = match &section.token {
        Some(token) => options.bearer_token(token.reveal()),
        None => options,
    };
    let address = metrics.start_server_with(options).await.map_err(failed)?;
    tracing::info!(%address, "metrics on http://{address}/metrics");
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::{Instant, sleep};

    use super::*;

    /// A load that hangs has a few seconds for what it writes, and none after a second signal.
    #[tokio::test(start_paused = true)]
    async fn a_second_signal_shortens_the_wait_for_files_too() {
        let hour = Duration::from_secs(3600);
        for (second_after, takes) in [(LAST_STEP / 10, LAST_STEP / 10), (hour, LAST_STEP)] {
            let mut sources = Sources::reading(pending());
            let second = async {
                sleep(second_after).await;
                "SIGINT"
            };
            let begin = Instant::now();
            let (exit, ended, answers) = drain(None, &Loaders::default(), &mut sources, hour, second).await;
            let took = begin.elapsed();
            assert!(took >= takes && took < takes + Duration::from_millis(10), "{took:?} instead of {takes:?}");
            let expected = if second_after == hour { LAST_ANSWERS } else { Duration::ZERO };
            assert_eq!((exit, ended.is_none(), answers), (Exit::Done, true, expected));
        }
    }
}
