//! The example `ingest_service` under load: many clients, late versions, duplicates, bad rows, a database that is locked
//! for a while, and the end of the process. Afterwards tables, dead letters, balance and metrics are what a model says.

#[allow(dead_code, reason = "the program around the service is run as a program")]
#[path = "../../examples/ingest_service.rs"]
mod service;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use batchsql::prometheus::PrometheusMetrics;
use batchsql::sqlite::SqliteSink;
use batchsql::sqlite::rusqlite::{Connection, Row as SqlRow};
use batchsql::{Balance, BatchSql, DeadLetterLine, DeadLetterReader, OutcomeKind, PipelineConfig};
use batchsql_testserver::sum;
use serde_json::{Value, json};
use service::Service;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const PRODUCERS: usize = 8;
/// Readings in a request; each is two rows.
const PER_REQUEST: usize = 4;
/// Rows in the buffer. Less than all clients send at once, so that it is full while the database is locked.
const BUFFER: usize = 40;
const PATIENCE: Duration = Duration::from_secs(120);

/// A folder with the database and the dead letters.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn connect(&self) -> Connection {
        Connection::open(self.path("ingest.db")).unwrap()
    }

    fn rows<T>(&self, query: &str, read: impl Fn(&SqlRow<'_>) -> T) -> Vec<T> {
        let connection = self.connect();
        let mut statement = connection.prepare(query).unwrap();
        let rows = statement.query_map([], |row| Ok(read(row))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    fn letters(&self) -> Vec<DeadLetterLine> {
        let reader = DeadLetterReader::open(self.path("failed.ndjson")).unwrap();
        reader.map(|entry| entry.unwrap().1.unwrap()).collect()
    }

    async fn start(&self) -> Running {
        let sink = SqliteSink::open(&format!("sqlite:{}", self.path("ingest.db").display())).unwrap();
        let config = PipelineConfig::default().buffer_size(BUFFER).flush_size(BUFFER / 4);
        let service = Service::start(sink, &self.path("failed.ndjson"), config).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        Running {
            db: service.db.clone(),
            metrics: service.metrics.clone(),
            address: listener.local_addr().unwrap(),
            stop,
            served: tokio::spawn(async { service.serve(listener, stopped).await.unwrap().balance }),
        }
    }

    /// Nothing is written until the connection is dropped.
    fn lock(&self) -> Connection {
        let connection = self.connect();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        connection
    }
}

struct Running {
    db: BatchSql,
    metrics: PrometheusMetrics,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Balance>,
}

impl Running {
    async fn end(self) -> Balance {
        self.stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.served).await.unwrap().unwrap()
    }
}

/// A connection that stays open.
struct Client(BufReader<TcpStream>);

struct Answer {
    status: u16,
    retry_after: Option<String>,
    body: String,
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        Self(BufReader::new(TcpStream::connect(address).await.unwrap()))
    }

    async fn ask(&mut self, request: &str, body: &str) -> Answer {
        let head = format!("{request} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
        self.0.write_all((head + body).as_bytes()).await.unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("{line:?}")).parse().unwrap();
        let (mut length, mut retry_after) = (0, None);
        loop {
            line.clear();
            self.0.read_line(&mut line).await.unwrap();
            match line.trim().split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(("retry-after", value)) => retry_after = Some(value.to_owned()),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.unwrap();
        Answer { status, retry_after, body: String::from_utf8(body).unwrap() }
    }

    async fn post(&mut self, readings: &[Reading]) -> Answer {
        let body = Value::from_iter(readings.iter().map(Reading::json));
        self.ask("POST /readings", &body.to_string()).await
    }
}

#[derive(Debug, Clone)]
struct Reading {
    sensor: String,
    minute: u32,
    version: i64,
    celsius: f64,
}

impl Reading {
    fn at(&self) -> String {
        format!("2026-01-31T{:02}:{:02}:00Z", self.minute / 60, self.minute % 60)
    }

    fn json(&self) -> Value {
        json!({ "sensor": self.sensor, "at": self.at(), "version": self.version, "celsius": self.celsius })
    }

    fn is_bad(&self) -> bool {
        self.celsius < -273.15
    }
}

/// Every version of every reading twice, and readings that the table refuses, in an order without a pattern. A bad reading
/// is the only one of its key: of several versions in one batch, only the newest would be sent.
fn readings() -> Vec<Reading> {
    let reading = |sensor: u32, minute, version| Reading {
        sensor: format!("s{sensor}"),
        minute,
        version,
        celsius: version as f64,
    };
    let mut all = Vec::new();
    for (sensor, minute) in (0..5).flat_map(|sensor| (0..20).map(move |minute| (sensor, minute))) {
        let versions = (1..=8).map(|version| reading(sensor, minute, version));
        all.extend(versions.flat_map(|reading| [reading.clone(), reading]));
    }
    all.extend((0..47).map(|i| Reading { celsius: -300.0, ..reading(i % 5, 100 + i, 1) }));
    let count = all.len();
    // A step without a common factor visits each of them once.
    (0..count).map(|i| all[i * 1_009 % count].clone()).collect()
}

/// What the clients were told.
#[derive(Default)]
struct Told {
    /// Readings of requests that were accepted.
    accepted: usize,
    /// Readings of requests that were answered with 429.
    full: usize,
}

/// Sends its readings, and after each 429 the same request again. It says when it gets the first one.
async fn produce(address: SocketAddr, readings: Vec<Reading>, is_full: Arc<tokio::sync::Notify>) -> Told {
    let mut client = Client::connect(address).await;
    let mut told = Told::default();
    for request in readings.chunks(PER_REQUEST) {
        loop {
            let answer = client.post(request).await;
            match answer.status {
                202 => break told.accepted += request.len(),
                429 => {
                    assert_eq!(answer.retry_after.as_deref(), Some("1"));
                    told.full += request.len();
                    is_full.notify_one();
                }
                status => panic!("{status}: {}", answer.body),
            }
        }
        // Requests that can never be accepted, among the others; nothing of them is.
        let part = request[0].json();
        for bad in [json!({}), json!([part, { "sensor": "s0" }]), json!([part, { "sensor": 1 }])] {
            assert_eq!(client.ask("POST /readings", &bad.to_string()).await.status, 400);
        }
    }
    let huge = vec![readings[0].clone(); BUFFER];
    let answer = client.post(&huge).await;
    assert_eq!((answer.status, answer.retry_after), (413, None), "{}", answer.body);
    told
}

/// The sum of the series of a counter that have all of these labels; 0 without any.
fn metric(text: &str, name: &str, labels: &[(&str, &str)]) -> u64 {
    sum(text, name, labels).unwrap_or_default() as u64
}

/// The tables have what the readings make of them.
fn check_tables(place: &Place, sent: &[Reading]) {
    let mut newest: BTreeMap<(String, u32), i64> = BTreeMap::new();
    let mut sensors: BTreeMap<&str, (i64, u32)> = BTreeMap::new();
    for reading in sent {
        let sensor = sensors.entry(&reading.sensor).or_default();
        *sensor = (sensor.0 + 1, sensor.1.max(reading.minute));
        if !reading.is_bad() {
            let version = newest.entry((reading.sensor.clone(), reading.minute)).or_default();
            *version = reading.version.max(*version);
        }
    }
    let minute = |at: String| at[11..13].parse::<u32>().unwrap() * 60 + at[14..16].parse::<u32>().unwrap();
    let found = place.rows("SELECT sensor, at, version, celsius FROM readings", |row| {
        let version: i64 = row.get_unwrap(2);
        assert_eq!(row.get_unwrap::<_, f64>(3), version as f64, "the value is that of the version");
        ((row.get_unwrap(0), minute(row.get_unwrap(1))), version)
    });
    assert_eq!(found.into_iter().collect::<BTreeMap<_, _>>(), newest);
    let found = place.rows("SELECT sensor, readings, last_seen FROM sensors ORDER BY sensor", |row| {
        (row.get_unwrap::<_, String>(0), (row.get_unwrap(1), minute(row.get_unwrap(2))))
    });
    assert_eq!(found, sensors.into_iter().map(|(name, counts)| (name.to_owned(), counts)).collect::<Vec<_>>());
}

/// The metrics have the same figures as the balance.
fn check_metrics(text: &str, balance: &Balance, told: &Told) {
    assert_eq!(metric(text, "batchsql_records_received_total", &[]), balance.accepted);
    for kind in OutcomeKind::ALL {
        let rows = balance.outcomes.get(kind);
        let labels = [("outcome", kind.name())];
        assert_eq!(metric(text, "batchsql_records_outcome_total", &labels), rows, "{}: {balance}", kind.name());
    }
    let sensors = [("table", "sensors"), ("outcome", "written")];
    assert_eq!(metric(text, "batchsql_records_outcome_total", &sensors), told.accepted as u64, "each is added");
    let refused = |reason| metric(text, "batchsql_submit_refused_total", &[("reason", reason)]);
    assert_eq!(refused("full"), 2 * told.full as u64);
    // Of a request that can never be accepted, the rows after the first one that exceeds the buffer are not looked at.
    assert_eq!(refused("invalid"), (PRODUCERS * (BUFFER + 1)) as u64);
}

#[tokio::test]
async fn tables_balance_and_metrics_are_exact_after_a_load() {
    let (place, sent) = (Place::new(), readings());
    let bad = sent.iter().filter(|reading| reading.is_bad()).count();
    let running = place.start().await;
    let (lock, is_full) = (place.lock(), Arc::new(tokio::sync::Notify::new()));
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|number| {
            let own = sent.iter().skip(number).step_by(PRODUCERS).cloned().collect();
            tokio::spawn(produce(running.address, own, Arc::clone(&is_full)))
        })
        .collect();
    // Nothing is written before a client got 429, so one does.
    tokio::time::timeout(PATIENCE, is_full.notified()).await.unwrap();
    drop(lock);
    let mut told = Told::default();
    for producer in producers {
        let one = tokio::time::timeout(PATIENCE, producer).await.unwrap().unwrap();
        told = Told { accepted: told.accepted + one.accepted, full: told.full + one.full };
    }
    assert_eq!(told.accepted, sent.len());
    let balance = running.db.flush().await.unwrap();
    let mut client = Client::connect(running.address).await;
    check_metrics(&client.ask("GET /monitoring/metrics", "").await.body, &balance, &told);
    drop(client);

    let metrics = running.metrics.clone();
    let balance = running.end().await;
    check_metrics(&metrics.render(), &balance, &told);
    check_tables(&place, &sent);
    let kept = balance.written() + balance.ignored() + balance.superseded();
    assert_eq!((balance.accepted, balance.failed()), (2 * sent.len() as u64, bad as u64), "{balance}");
    assert_eq!((kept, balance.rejected()), ((2 * sent.len() - bad) as u64, bad as u64), "{balance}");

    let is_refused =
        |letter: &DeadLetterLine| letter.outcome() == OutcomeKind::Rejected && letter.table().name() == "readings";
    let keys = |letters: Vec<DeadLetterLine>| letters.iter().filter(|letter| is_refused(letter)).count();
    assert_eq!(keys(place.letters()), bad);

    // As long as the table refuses them, each start brings them back to the file.
    place.start().await.end().await;
    assert_eq!(keys(place.letters()), bad);
    assert_eq!(files(place.folder.path()), ["failed.ndjson"]);
    // Somebody decides that the readings are right after all.
    let repair = "DROP TABLE readings; CREATE TABLE readings (sensor TEXT, at TEXT, version INTEGER, celsius REAL,
                      PRIMARY KEY (sensor, at))";
    place.connect().execute_batch(repair).unwrap();
    place.start().await.end().await;
    assert_eq!(place.letters().len(), 0);
    assert_eq!(files(place.folder.path()), ["failed.ndjson"]);
    let found = place.rows("SELECT count(*) FROM readings WHERE celsius = -300", |row| row.get_unwrap::<_, i64>(0));
    assert_eq!(found, [bad as i64]);
}

fn files(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("failed")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_service_that_drains_says_503_and_writes_what_it_accepted() {
    let place = Place::new();
    let running = place.start().await;
    let mut client = Client::connect(running.address).await;
    let reading = |minute| Reading { sensor: "s".to_owned(), minute, version: 1, celsius: 1.0 };
    assert_eq!(client.ask("GET /monitoring/ready", "").await.status, 200);
    let lock = place.lock();
    assert_eq!(client.post(&[reading(0)]).await.status, 202);
    running.stop.send(()).unwrap();
    let mut sent = vec![reading(0)];
    let answer = loop {
        let next = reading(u32::try_from(sent.len()).unwrap());
        let answer = client.post(std::slice::from_ref(&next)).await;
        match answer.status {
            202 => sent.push(next),
            _ => break answer,
        }
    };
    assert_eq!((answer.status, answer.retry_after.as_deref()), (503, Some("10")), "{}", answer.body);
    assert_eq!(client.ask("GET /monitoring/ready", "").await.status, 503);
    drop(lock);
    let balance = tokio::time::timeout(PATIENCE, running.served).await.unwrap().unwrap();
    assert_eq!((balance.accepted, balance.written()), (2 * sent.len() as u64, 2 * sent.len() as u64));
    check_tables(&place, &sent);
}
