//! A whole service: readings of sensors come over HTTP and go into two tables.
//!
//! ```sh
//! cargo run -p batchsql --example ingest_service --features sqlite,prometheus -- ingest.db failed.ndjson
//! curl -d '[{"sensor":"roof","at":"2026-01-31T12:00:00Z","version":1,"celsius":20.5}]' http://127.0.0.1:8080/readings
//! ```
//!
//! - `readings` keeps the newest version of each reading, so clients may send readings late, twice and in any order.
//! - `sensors` counts the readings of each sensor; its `last_seen` never goes back.
//! - A request is accepted as a whole or not at all. 429 and 503 have `Retry-After`: the client sends it again later.
//! - Rows that are not written go to a file. The next start submits them again, after somebody has repaired the cause.
//! - `/monitoring/` has the live page, `/monitoring/metrics` the metrics, `/monitoring/ready` the readiness.
//! - Ctrl-C or SIGTERM: requests get 503, the accepted rows are written, then the process ends.
//!
//! Another sink takes the place of SQLite without further changes. Environment: `PORT` (default 8080, 0 takes any).

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use batchsql::prometheus::{EndpointOptions, PrometheusMetrics};
use batchsql::sqlite::SqliteSink;
use batchsql::{
    BatchSql, CloseReport, DeadLetters, OutcomeKind, PipelineConfig, Replay, Row, SubmitError, TimestampTz, TypedRow,
};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS readings (sensor TEXT, at TEXT, version INTEGER NOT NULL,
        celsius REAL NOT NULL CHECK (celsius > -273.15), PRIMARY KEY (sensor, at));
    CREATE TABLE IF NOT EXISTS sensors (sensor TEXT PRIMARY KEY, readings INTEGER NOT NULL, last_seen TEXT NOT NULL);";

#[derive(Row, Deserialize)]
#[row(table = "readings", key("sensor", "at"), on_conflict = "update", only_if_newer = "version")]
struct Reading {
    sensor: String,
    at: TimestampTz,
    version: i64,
    celsius: f64,
}

#[derive(Row)]
#[row(table = "sensors", key = "sensor", on_conflict = "update")]
struct Sensor<'a> {
    sensor: &'a str,
    #[row(add)]
    readings: i64,
    #[row(greatest)]
    last_seen: TimestampTz,
}

/// 202: the rows are accepted, and written within `flush_interval` if the database can be reached.
async fn ingest(State(db): State<BatchSql>, body: Bytes) -> Response {
    let readings: Vec<Reading> = match serde_json::from_slice(&body) {
        Ok(readings) => readings,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    };
    let sensors: Vec<Sensor<'_>> =
        readings.iter().map(|r| Sensor { sensor: &r.sensor, readings: 1, last_seen: r.at }).collect();
    let rows = readings.iter().map(|row| row as &dyn Row).chain(sensors.iter().map(|row| row as &dyn Row));
    match db.try_submit_all(rows) {
        Ok(_) => StatusCode::ACCEPTED.into_response(),
        Err(error) => {
            let text = format!("{error}\n");
            match refusal(error.submit_error(), db.health().is_reachable()) {
                (status, Some(seconds)) => (status, [(RETRY_AFTER, seconds)], text).into_response(),
                (status, None) => (status, text).into_response(),
            }
        }
    }
}

/// The status of a request that was not accepted, and after how many seconds the client should send it again.
fn refusal(error: &SubmitError, is_reachable: bool) -> (StatusCode, Option<&'static str>) {
    match error {
        _ if error.is_full() && is_reachable => (StatusCode::TOO_MANY_REQUESTS, Some("1")),
        _ if error.is_full() || error.is_closed() => (StatusCode::SERVICE_UNAVAILABLE, Some("10")),
        _ if error.is_too_many() => (StatusCode::PAYLOAD_TOO_LARGE, None),
        _ => (StatusCode::UNPROCESSABLE_ENTITY, None),
    }
}

pub(crate) struct Service {
    pub(crate) db: BatchSql,
    pub(crate) metrics: PrometheusMetrics,
}

impl Service {
    pub(crate) async fn start(sink: SqliteSink, letters: &Path, config: PipelineConfig) -> Result<Self> {
        sink.call(|connection| connection.execute_batch(TABLES)).await?;
        replay(&sink, letters).await?;
        let metrics = PrometheusMetrics::new()?;
        let db = BatchSql::builder(sink)
            .config(config)
            .metrics_reporter(metrics.reporter("sqlite"))
            .dead_letters(DeadLetters::file(letters)?)
            .on_failed_row(|outcome| eprintln!("not written: {outcome}"))
            .start()?;
        db.prepare_for::<Reading>().await?;
        db.prepare_for::<Sensor<'_>>().await?;
        Ok(Self { db, metrics })
    }

    /// Serves until `stop`, then writes what was accepted.
    pub(crate) async fn serve(self, listener: TcpListener, stop: impl Future) -> Result<CloseReport> {
        let Self { db, metrics } = self;
        let monitoring = metrics.router(EndpointOptions::new())?;
        let app = Router::new().route("/readings", post(ingest)).with_state(db.clone());
        let app = app.nest("/monitoring/", monitoring).into_make_service_with_connect_info::<SocketAddr>();
        let (drained, end) = tokio::sync::oneshot::channel::<()>();
        let server = axum::serve(listener, app).with_graceful_shutdown(async move { drop(end.await) });
        let server = tokio::spawn(server.into_future());
        let signal = async {
            stop.await;
            metrics.set_ready(false);
        };
        // The server still runs while the rows are written, so clients and probes get an answer.
        let report = db.close_on(signal, Duration::from_secs(10)).await;
        // A Prometheus that scrapes this process gets the last values.
        let _ = metrics.linger(Duration::from_secs(20)).await;
        drop(drained);
        // A slow client must not delay the end.
        match tokio::time::timeout(Duration::from_secs(5), server).await {
            Ok(served) => served??,
            Err(_) => eprintln!("some connections are still open"),
        }
        Ok(report)
    }
}

/// Submits the rows that were not written before this start. Its pipeline appends to the file those that fail again.
async fn replay(sink: &SqliteSink, letters: &Path) -> Result<()> {
    let old = letters.with_extension("old");
    // It is there if an earlier replay was cut off.
    match if old.exists() { Ok(()) } else { std::fs::rename(letters, &old) } {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        renamed => renamed?,
    }
    let db = BatchSql::builder(sink.clone()).dead_letters(DeadLetters::file(letters)?).start()?;
    let (readings, sensors) = (Reading::type_schema(), Sensor::type_schema());
    let replay = Replay::new(&old);
    let replayed = replay.clone().run(&db, |letter| {
        // The newest reading wins, so it may be written twice. A count that was perhaps added is not added again.
        let row = if letter.table() == readings.table() { letter.row(readings)? } else { letter.row(sensors)? };
        let is_added = letter.table() == sensors.table() && letter.outcome() == OutcomeKind::Unknown;
        Ok(if is_added { None } else { Some(row) })
    });
    let report = replayed.await?;
    let closed = db.close(Duration::from_secs(10)).await;
    println!("replayed: {}", closed.balance);
    for failure in &report.failed {
        eprintln!("line at byte {} of {}: {}", failure.position, old.display(), failure.reason);
    }
    if report.is_handed_on() && closed.lost_letters == 0 {
        replay.delete().await?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    // First of all: a SIGTERM that comes earlier ends the process.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [database, letters] = &arguments[..] else { return Err("usage: ingest_service DATABASE DEAD_LETTERS".into()) };
    let sink = SqliteSink::open(&format!("sqlite:{database}"))?;
    let service = Service::start(sink, Path::new(letters), PipelineConfig::default()).await?;
    let port = std::env::var("PORT").map_or(Ok(8080), |port| port.parse())?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on {}", listener.local_addr()?);
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let report = service.serve(listener, stop).await?;
    println!("{}", report.balance);
    if report.is_complete() { Ok(()) } else { Err("rows were not written; the next start tries again".into()) }
}
