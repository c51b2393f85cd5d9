//! Owns the exporters for the page: a real one with a pipeline, and one whose responses a test sets.
//! Must not know the browser.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use batchsql_core::{
    BatchSql, ColumnType, DurableGauges, DurableTable, FeedGauges, FeedTable, PipelineConfig, Schema, StopReason,
};
use batchsql_prometheus::PrometheusMetrics;
use batchsql_testkit::ScriptedSink;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A pipeline that writes to a scripted sink and reports to an exporter.
pub(crate) struct Pipeline {
    pub(crate) sink: ScriptedSink,
    pub(crate) db: BatchSql,
    next: i64,
}

impl Pipeline {
    pub(crate) fn start(metrics: &PrometheusMetrics, database: &str, config: PipelineConfig) -> Self {
        let sink = ScriptedSink::new();
        let builder = BatchSql::builder(sink.clone()).config(config).metrics_reporter(metrics.reporter(database));
        Self { sink, db: builder.start().unwrap(), next: 0 }
    }

    /// Submits rows to a table, without waiting for their outcome.
    pub(crate) async fn submit(&mut self, table: &str, rows: i64) {
        let schema = Schema::builder(table).column("id", ColumnType::I64).build().unwrap();
        for id in self.next..self.next + rows {
            self.db.submit(&schema.row().set("id", id).unwrap().finish().unwrap()).await.unwrap();
        }
        self.next += rows;
    }

    /// Submits rows and waits until they have their outcome.
    pub(crate) async fn write(&mut self, table: &str, rows: i64) {
        self.submit(table, rows).await;
        self.db.flush().await.unwrap();
    }
}

pub(crate) fn small() -> PipelineConfig {
    PipelineConfig::default().flush_size(50).buffer_size(200).flush_interval(Duration::from_millis(5))
}

/// The state of a durable intake: megabytes of a gigabyte, rows that wait, and tables with a stopped partition.
pub(crate) fn log_state(megabytes: u64, rows: u64, stopped: &[&str]) -> DurableGauges {
    let mut gauges = DurableGauges::default();
    (gauges.log_bytes, gauges.log_bytes_limit) = (megabytes << 20, 1 << 30);
    gauges.oldest_unsettled = (rows > 0).then(|| SystemTime::now() - Duration::from_secs(700));
    let table = |name: &str, rows, stopped| {
        let mut table = DurableTable::default();
        (table.table, table.unsettled_rows, table.read_rows) = (name.to_owned(), rows, rows / 4);
        table.stopped_partitions = stopped;
        table
    };
    gauges.tables.push(table("events", rows, 0));
    gauges.tables.extend(stopped.iter().map(|name| table(name, 0, 1)));
    gauges
}

/// The state of feeds: messages of the table `events` that wait, and tables with a stopped partition.
pub(crate) fn feed_state(messages: u64, stopped: &[&str]) -> FeedGauges {
    let mut gauges = FeedGauges::default();
    gauges.source_up = Some(true);
    let table = |name: &str, messages| {
        let mut table = FeedTable::default();
        (table.table, table.unsettled_messages, table.pending_messages) = (name.to_owned(), messages, messages / 4);
        (table.wanted_partitions, table.held_partitions) = (4, 4);
        table
    };
    let mut events = table("events", messages);
    events.oldest_unsettled = (messages > 0).then(|| SystemTime::now() - Duration::from_secs(700));
    gauges.tables.push(events);
    for name in stopped {
        let mut table = table(name, 0);
        table.stopped_partitions.insert(StopReason::OtherSource, 1);
        gauges.tables.push(table);
    }
    gauges
}

/// A response of the scripted exporter: status, headers, body.
pub(crate) type Answer = (u16, Vec<(&'static str, String)>, String);

pub(crate) fn metrics_text(body: impl Into<String>) -> Answer {
    (200, vec![("content-type", "text/plain; version=0.0.4; charset=utf-8".to_owned())], body.into())
}

/// An exporter that serves the real page, and metrics that a test sets.
pub(crate) struct Puppet {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<(Instant, String)>>>,
    task: JoinHandle<()>,
}

impl Puppet {
    /// `answer` gets the path and the `Authorization` of each request that is not for the page itself.
    pub(crate) async fn start(answer: impl Fn(&str, Option<&str>) -> Answer + Send + Sync + 'static) -> Self {
        let page = page().await;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let answer = Arc::new(answer);
        let router = Router::new().fallback(move |request: Request| {
            let (page, seen, answer) = (page.clone(), Arc::clone(&seen), Arc::clone(&answer));
            async move {
                let path = request.uri().path().to_owned();
                seen.lock().unwrap().push((Instant::now(), path.clone()));
                let token = request.headers().get("authorization").map(|value| value.to_str().unwrap());
                let (status, headers, body) = if path.ends_with("metrics") {
                    answer(&path, token)
                } else {
                    (200, vec![("content-type", "text/html; charset=utf-8".to_owned())], page)
                };
                let response = headers
                    .into_iter()
                    .fold(Response::builder().status(status), |response, (name, value)| response.header(name, value));
                response.body(Body::from(body)).unwrap()
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, asked, task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// When each request for the metrics arrived.
    pub(crate) fn scrapes(&self) -> Vec<Instant> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(_, path)| path.ends_with("metrics")).map(|(at, _)| *at).collect()
    }

    /// The requested paths.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(_, path)| path.clone()).collect()
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The page, as the exporter serves it.
async fn page() -> String {
    let metrics = PrometheusMetrics::new().unwrap();
    let address = metrics.start_server(0).await.unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    metrics.stop_server().await.unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}
