//! Owns the life of the service: what is opened in which order, and how it drains.
//! Must not know HTTP or files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use batchsql::prometheus::{EndpointOptions, PrometheusMetrics, ServerOptions};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::config::read;
use crate::config::settings::{Http, Settings};
use crate::database;
use crate::exit::{Exit, Failure};
use crate::http::routes;
use crate::http::server::Server;
use crate::http::shared::Shared;
use crate::http::tls;
use crate::intake::Intake;
use crate::logging;
use crate::notify::notify;
use crate::run::readiness;
use crate::signals::Signals;
use crate::sources;
use crate::table::target::{self, Target};

/// Requests that are open when the rows are written get this long to end.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// What the intake gets after a second signal, to store what it has acknowledged.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT. A second signal ends the wait for rows.
///
/// # Errors
/// The service could not start.
pub(crate) async fn run(path: &Path) -> Result<Exit, Failure> {
    // First of all: a signal that comes earlier ends the process.
    let mut signals = Signals::new().map_err(Failure::unavailable)?;
    let settings = read::read(path)?;
    logging::start(&settings.log).map_err(Failure::mistake)?;
    if settings.http.is_none() && settings.sources.is_empty() {
        let text = "there is nothing to read; add a section [http] or [[sources]]";
        return Err(Failure::mistake(format!("{}: {text}", path.display())));
    }
    let mut service = tokio::select! {
        started = Service::start(&settings) => started?,
        signal = signals.next() => return Err(Failure::unavailable(format!("{signal} came before the start had ended"))),
    };
    notify("READY=1");
    tracing::info!("ready");
    let reason = tokio::select! {
        signal = signals.next() => signal,
        reason = service.end_of_sources() => reason,
    };
    tracing::info!(reason, drain_for = ?settings.drain_for, "ending; no more rows are accepted");
    notify("STOPPING=1");
    let ended = service.stop(settings.drain_for, &mut signals).await;
    Ok(ended)
}

struct Service {
    intake: Intake,
    metrics: PrometheusMetrics,
    http: Option<(Shared, Server)>,
    sources: JoinSet<Exit>,
    /// How the sources have ended so far.
    sources_exit: Exit,
    readiness: tokio::task::JoinHandle<()>,
}

impl Service {
    async fn start(settings: &Settings) -> Result<Self, Failure> {
        let acceptor = match settings.http.as_ref().and_then(|http| http.tls.as_ref()) {
            Some(files) => Some(tls::acceptor(files).map_err(Failure::mistake)?),
            None => None,
        };
        let sink = database::open(settings).await?;
        let mut tables = BTreeMap::new();
        for table in &settings.tables {
            let name = table.name.get_ref();
            let target = target::open(&sink, table).await;
            let target = target.map_err(|text| Failure::failed(format!("table `{name}`: {text}")))?;
            tables.insert(name.clone(), Arc::new(target));
        }
        let metrics = PrometheusMetrics::new().map_err(Failure::unavailable)?;
        let schemas: Vec<_> = tables.values().map(|table: &Arc<Target>| table.schema.clone()).collect();
        // The port before the log: a second start by mistake should fail without touching it.
        let listener = match &settings.http {
            Some(http) => Some((http, listen(http).await?)),
            None => None,
        };
        let intake = Intake::start(sink, settings, &schemas, &metrics).await?;
        for target in tables.values() {
            let prepared = intake.pipeline().prepare(&target.schema).await;
            prepared.map_err(|error| Failure::failed(format!("table `{}`: {error}", target.name)))?;
        }
        let exporter = exporter(settings, &metrics).await?;
        let http = listener.map(|(http, listener)| {
            let shared = Shared::new(intake.clone(), tables.clone(), http);
            let routes = routes::router(shared.clone(), exporter);
            (shared, Server::start(listener, acceptor, routes, &http.limits))
        });
        let readiness = tokio::spawn(readiness::watch(intake.clone(), metrics.clone()));
        let sources = sources::start(&settings.sources, &intake, &tables);
        Ok(Self { intake, metrics, http, sources, sources_exit: Exit::Done, readiness })
    }

    /// Returns when nothing is left to be read: a service with HTTP, or with a folder, never ends by itself, unless a source
    /// has a defect. Then it must start anew: its rows would not be read for as long as it runs.
    async fn end_of_sources(&mut self) -> &'static str {
        while let Some(ended) = self.sources.join_next().await {
            match ended {
                Ok(Exit::Done) => {}
                Ok(exit) => self.sources_exit = exit,
                Err(error) => {
                    tracing::error!(%error, "a source has ended because of a defect of the program");
                    self.sources_exit = Exit::Failed;
                    return "a source has failed";
                }
            }
        }
        if self.http.is_some() {
            return std::future::pending().await;
        }
        "the sources have ended"
    }

    /// Refuses rows, writes those that were accepted, and stops the servers last, so that clients and probes get an answer.
    async fn stop(self, drain_for: Duration, signals: &mut Signals) -> Exit {
        let Self { intake, metrics, http, mut sources, sources_exit, readiness } = self;
        readiness.abort();
        // A load goes on with the next start.
        sources.shutdown().await;
        metrics.set_ready(false);
        if let Some((shared, _)) = &http {
            shared.drain();
        }
        let (ended, last_answers) = tokio::select! {
            // The closing begins in any case.
            biased;
            ended = intake.close(drain_for) => (ended, LAST_ANSWERS),
            signal = signals.next() => {
                tracing::warn!(signal, "ending without waiting for rows");
                (intake.leave(LAST_MOMENT).await, Duration::ZERO)
            }
        };
        if let Some((_, server)) = http {
            server.stop(last_answers).await;
        }
        if let Err(error) = metrics.stop_server().await {
            tracing::warn!(%error, "the server of the metrics did not end");
        }
        let exit = if ended.exit == Exit::Done { sources_exit } else { ended.exit };
        tracing::info!(exit_code = exit.number(), "ended: {}", ended.text);
        exit
    }
}

async fn listen(http: &Http) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(http.listen).await;
    let listener = listener.map_err(|error| {
        Failure::unavailable(format!("[http] cannot listen on {}: {error}; choose another port", http.listen))
    })?;
    let address = listener.local_addr().map_err(Failure::unavailable)?;
    let scheme = if http.tls.is_some() { "https" } else { "http" };
    tracing::info!(%address, "listening on {scheme}://{address}");
    Ok(listener)
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
