//! HTTP ingest: a request is one row, and a full buffer is an answer to the client instead of a wait.
//!
//! ```sh
//! cargo run -p batchsql --example axum_ingest --features sqlite,prometheus
//! curl -d 'a page was opened' http://127.0.0.1:8080/events/1
//! ```
//!
//! `/monitoring/` has the live page, `/monitoring/metrics` the metrics, `/monitoring/ready` the readiness, all in the
//! same server. Ctrl-C or SIGTERM ends it: no new requests, then the rows that wait, then the report. Environment: `PORT`
//! (default 8080, 0 takes any free port), `DATABASE_URL` (default: SQLite in memory).

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use batchsql::prometheus::{EndpointOptions, PrometheusMetrics};
use batchsql::sqlite::SqliteSink;
use batchsql::{BatchSql, DynSink, Row, Sink, SubmitError};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS events (id BIGINT PRIMARY KEY, body VARCHAR(1000))";

#[derive(Row)]
#[row(table = "events", key = "id", on_conflict = "ignore")]
struct Event {
    id: i64,
    body: String,
}

/// The routes of the application, and those of the exporter below `/monitoring/`.
pub(crate) fn app(db: BatchSql, monitoring: Router) -> Router {
    // The router of the exporter has no state, so it comes after `with_state`.
    Router::new().route("/events/{id}", post(ingest)).with_state(db).nest("/monitoring/", monitoring)
}

/// 202: the row is accepted, and written within `flush_interval` if the database can be reached. A client that must know
/// the outcome needs `submit_tracked` and the receipt instead.
async fn ingest(State(db): State<BatchSql>, Path(id): Path<i64>, body: String) -> (StatusCode, String) {
    match db.try_submit(&Event { id, body }) {
        Ok(()) => (StatusCode::ACCEPTED, String::new()),
        Err(error) => {
            let status = status_of(&error, db.health().is_reachable());
            // The error says what to do here, so it is for the log, except that of a row, which the client sent.
            let text = error.row_error().map_or_else(|| "try again later".to_owned(), ToString::to_string);
            (status, format!("{text}\n"))
        }
    }
}

/// A full buffer has two reasons: too many rows for a database that works, or a database that cannot be reached.
fn status_of(error: &SubmitError, is_reachable: bool) -> StatusCode {
    match (error.row_error(), error.is_full()) {
        (Some(_), _) => StatusCode::UNPROCESSABLE_ENTITY,
        (None, true) if is_reachable => StatusCode::TOO_MANY_REQUESTS,
        // Unreachable, or closed.
        (None, _) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn open(dsn: Option<String>) -> Result<DynSink> {
    if let Some(dsn) = dsn {
        return Ok(batchsql::connect(&dsn).await?);
    }
    let sink = SqliteSink::open("sqlite::memory:")?;
    sink.call(|connection| connection.execute_batch(TABLE)).await?;
    Ok(DynSink::new(sink))
}

#[tokio::main]
async fn main() -> Result<()> {
    // First of all: a SIGTERM that comes earlier ends the process.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let sink = open(std::env::var("DATABASE_URL").ok()).await?;
    let metrics = PrometheusMetrics::new()?;
    let db = BatchSql::builder(sink.clone())
        .metrics_reporter(metrics.reporter(sink.name()))
        .on_failed_row(|outcome| eprintln!("not written: {outcome}"))
        .start()?;
    db.prepare_for::<Event>().await.map_err(|error| format!("{error}; the service needs this table: {TABLE}"))?;

    let port = std::env::var("PORT").map_or(Ok(8080), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on {}", listener.local_addr()?);
    let app = app(db.clone(), metrics.router(EndpointOptions::new())?);
    let readiness = metrics.clone();
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let serving = axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            readiness.set_ready(false);
            let _ = stopping.send(());
        })
        .into_future();
    // Requests that are open when it is stopped get 5 s to end: a slow client must not delay the rows.
    let limit = async {
        let _ = stopped.await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    };
    tokio::select! {
        served = serving => served?,
        () = limit => {}
    }

    // What was accepted is written, or reported. Requests that are still open get 503.
    let report = db.close(Duration::from_secs(10)).await;
    println!("{}", report.balance);
    if report.is_complete() { Ok(()) } else { Err("rows were not written".into()) }
}
