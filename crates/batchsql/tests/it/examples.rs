//! The examples do what their index promises: each is run as a reader would run it. The service `monitored_app` has
//! tests of its own in `service`.

#[allow(dead_code, reason = "the program around the routes is run as a program")]
#[path = "../../examples/axum_ingest.rs"]
mod axum_ingest;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use batchsql::prometheus::{EndpointOptions, PrometheusMetrics};
use batchsql::sqlite::rusqlite::Connection;
use batchsql::{BatchSql, ErrorClass, PipelineConfig};
use batchsql_testkit::{ScriptedSink, Step};
use serde_json::Value;
use tower_service::Service;

use crate::service::program::example;

const PATIENCE: Duration = Duration::from_secs(60);
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");

/// Runs an example to its end: whether it succeeded, and what it printed.
fn run(name: &str, arguments: &[&Path]) -> (bool, String) {
    let output = example(name).args(arguments).stdin(Stdio::null()).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), printed.into_owned())
}

#[test]
fn the_index_has_every_example_with_its_command_and_no_other() {
    let index = std::fs::read_to_string(format!("{FOLDER}/README.md")).unwrap();
    let manifest = include_str!("../../Cargo.toml");
    let mut listed = BTreeMap::new();
    for line in index.lines().filter(|line| line.starts_with("| [")) {
        let cells: Vec<&str> = line.trim_matches(['|', ' ']).split(" | ").collect();
        let [link, _, command] = cells[..] else { panic!("{line}") };
        let (name, file) = link.trim_start_matches("[`").trim_end_matches(')').split_once("`](").unwrap();
        assert!(Path::new(FOLDER).join(file).exists(), "{file} is not there");
        assert!(manifest.contains(&format!("[[example]]\nname = \"{name}\"")), "Cargo.toml does not name {name}");
        let source = std::fs::read_to_string(Path::new(FOLDER).join(file)).unwrap();
        let command = command.trim_matches('`');
        assert!(source.contains(command), "{file} shows another command than {command:?}");
        assert!(command.contains(&format!("--example {name}")), "{command}");
        // The default features are `derive` and `tls`.
        let features = manifest.split(&format!("name = \"{name}\"\nrequired-features = [")).nth(1).unwrap();
        for feature in features.split(']').next().unwrap().split(", ").map(|feature| feature.trim_matches('"')) {
            let is_asked_for = ["derive", "tls"].contains(&feature)
                || command.split_whitespace().any(|word| word.split(',').any(|word| word == feature));
            assert!(is_asked_for, "{name} needs the feature {feature}: {command}");
        }
        listed.insert(name.to_owned(), ());
    }
    for entry in std::fs::read_dir(FOLDER).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let name = name.trim_end_matches(".rs");
        assert!(name == "README.md" || listed.contains_key(name), "the index does not list {name}");
    }
}

#[test]
fn quick_start_writes_all_rows() {
    let (is_success, printed) = run("quick_start", &[]);
    assert!(is_success && printed.contains("1000 accepted, 1000 written; the table has 1000 rows"), "{printed}");
}

#[test]
fn csv_loader_loads_what_can_be_read_and_reports_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let (csv, database) = (folder.path().join("cities.csv"), folder.path().join("cities.db"));
    std::fs::write(&csv, "name,population\nOslo,709037\n\"Bergen, west\",\nonly one field\nTromsø,77544\n").unwrap();
    let (is_success, printed) = run("csv_loader", &[&csv, &database]);
    assert!(!is_success && printed.contains("3 accepted, 3 written, 1 lines not read"), "{printed}");
    assert!(printed.contains("not read: ") && printed.contains("line: 4"), "{printed}");
    let rows =
        |query: &str| Connection::open(&database).unwrap().query_row(query, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(rows("SELECT count(*) FROM cities"), 3);
    assert_eq!(rows("SELECT count(*) FROM cities WHERE name = 'Bergen, west' AND population IS NULL"), 1);

    let other = folder.path().join("other.csv");
    std::fs::write(&other, "id\n1\n2\n").unwrap();
    let (is_success, printed) = run("csv_loader", &[&other, &database]);
    assert!(is_success && printed.contains("other: 2 accepted, 2 written, 0 lines not read"), "{printed}");
    let (is_success, printed) = run("csv_loader", &[&other]);
    assert!(!is_success && printed.contains("usage: "), "{printed}");
}

#[test]
fn file_feed_writes_each_line_once() {
    let (is_success, printed) = run("file_feed", &[]);
    assert!(is_success && printed.contains("3 lines have ended, 1 of this run were no rows"), "{printed}");
    assert!(printed.contains("the table has 2 rows"), "{printed}");
}

#[test]
fn custom_sink_appends_a_line_for_each_row() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.ndjson");
    for lines in [1_000, 2_000] {
        let (is_success, printed) = run("custom_sink", &[&file]);
        assert!(is_success && printed.contains("1000 accepted, 1000 written"), "{printed}");
        let text = std::fs::read_to_string(&file).unwrap();
        let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows.len(), lines);
        assert!(rows.contains(&serde_json::json!({ "table": "events", "row": { "id": 999, "body": null } })));
    }
}

#[test]
fn dead_letters_are_corrected_and_replayed() {
    let (is_success, printed) = run("dead_letters", &[]);
    assert!(is_success, "{printed}");
    for part in ["first run: 10 accepted, 8 written, 2 rejected", "replay: 2 accepted, 2 written", "has 10 rows"] {
        assert!(printed.contains(part), "{part:?}: {printed}");
    }
}

#[test]
fn other_exporter_sends_the_metrics_to_an_agent() {
    let (is_success, printed) = run("other_exporter", &[]);
    assert!(is_success && printed.contains("batchsql_records_processed_total:1000|c|#"), "{printed}");
    assert!(printed.contains("table:events"), "{printed}");
}

/// Its tests are run as tests; here only that it is a program.
#[test]
fn failure_tests_is_a_program_too() {
    let (is_success, printed) = run("failure_tests", &[]);
    assert!(is_success && printed.contains("Confirmed"), "{printed}");
}

#[test]
fn opentelemetry_shows_the_batch_linked_to_both_requests() {
    let (is_success, printed) = run("opentelemetry", &[]);
    assert!(is_success, "{printed}");
    let spans: Vec<&str> = printed.split("Span #").skip(1).collect();
    let of = |name: &str| -> Vec<&str> {
        spans.iter().copied().filter(|span| span.contains(&format!(": {name}\n"))).collect()
    };
    let field = |span: &str, name: &str| {
        let lines = span.lines().filter_map(|line| line.trim().split_once(':'));
        let values = lines.filter(|(found, _)| found.trim() == name).map(|(_, value)| value.trim().to_owned());
        values.collect::<Vec<_>>()
    };
    let [batch] = of("batchsql.batch")[..] else { panic!("{printed}") };
    let requests = of("POST /orders");
    assert_eq!((requests.len(), of("batchsql.attempt").len()), (2, 1), "{printed}");
    let [own, links @ ..] = &field(batch, "SpanId")[..] else { panic!("{batch}") };
    assert_eq!(field(of("batchsql.attempt")[0], "ParentSpanId"), [own.as_str()]);
    let mut expected: Vec<String> = requests.iter().flat_map(|span| field(span, "SpanId")).collect();
    let mut links = links.to_vec();
    expected.sort();
    links.sort();
    assert_eq!(links, expected);
    assert!(batch.contains("-> rows: I64(2)") || batch.contains("->  rows: I64(2)"), "{batch}");
}

/// The ingest of the example before a scripted sink that takes one row.
fn ingest() -> (Router, BatchSql, ScriptedSink) {
    let sink = ScriptedSink::new();
    let config = PipelineConfig::default().buffer_size(1).flush_size(1);
    let metrics = PrometheusMetrics::new().unwrap();
    let reporter = metrics.reporter("scripted");
    let db = BatchSql::builder(sink.clone()).config(config).metrics_reporter(reporter).start().unwrap();
    let app = axum_ingest::app(db.clone(), metrics.router(EndpointOptions::new()).unwrap());
    (app, db, sink)
}

async fn post(app: &mut Router, id: &str) -> StatusCode {
    let request = Request::post(format!("/events/{id}")).body(Body::from("body")).unwrap();
    app.call(request).await.unwrap().status()
}

#[tokio::test]
async fn axum_ingest_says_429_when_the_buffer_is_full() {
    let (mut app, db, sink) = ingest();
    sink.script([Step::Hang]);
    assert_eq!(post(&mut app, "1").await, StatusCode::ACCEPTED);
    let begun = async {
        while sink.writes() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.unwrap();
    assert_eq!(post(&mut app, "2").await, StatusCode::TOO_MANY_REQUESTS);
    sink.release(1);
    db.flush().await.unwrap();
    assert_eq!(post(&mut app, "3").await, StatusCode::ACCEPTED);
    assert_eq!(post(&mut app, "three").await, StatusCode::BAD_REQUEST);
    db.close(PATIENCE).await;
    assert_eq!(post(&mut app, "4").await, StatusCode::SERVICE_UNAVAILABLE, "it is closed");
}

#[tokio::test]
async fn axum_ingest_says_503_when_the_buffer_is_full_and_the_database_is_unreachable() {
    let (mut app, db, sink) = ingest();
    sink.script_acquire(std::iter::repeat_n(Step::Fail(ErrorClass::Transient), 10_000));
    db.check_connection().await.unwrap_err();
    assert_eq!(post(&mut app, "1").await, StatusCode::ACCEPTED, "the buffer is for outages");
    assert_eq!(post(&mut app, "2").await, StatusCode::SERVICE_UNAVAILABLE);
}

/// The program, killed unless it has ended.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first line and the body of a response.
fn ask(address: SocketAddr, request: &str, body: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    write!(stream, "{request} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

/// A running server, what it prints, and its address.
fn serve(name: &str, arguments: &[&Path]) -> (Server, BufReader<ChildStdout>, SocketAddr) {
    let mut command = example(name);
    command.args(arguments).env("PORT", "0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = Server(command.spawn().unwrap());
    let mut printed = BufReader::new(server.0.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("listening on ") {
        line.clear();
        assert!(printed.read_line(&mut line).unwrap() > 0, "{name} does not listen");
    }
    let address = line["listening on ".len()..].trim().parse().unwrap();
    (server, printed, address)
}

/// Ends a server by SIGTERM: whether it succeeded, and what it printed since it started.
fn end((mut server, mut printed, _): (Server, BufReader<ChildStdout>, SocketAddr)) -> (bool, String) {
    let kill = Command::new("kill").args(["-TERM", &server.0.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let mut rest = String::new();
    printed.read_to_string(&mut rest).unwrap();
    server.0.stderr.take().unwrap().read_to_string(&mut rest).unwrap();
    (server.0.wait().unwrap().success(), rest)
}

#[test]
fn axum_ingest_serves_its_metrics_and_ends_with_every_row_written() {
    let server = serve("axum_ingest", &[]);
    let address = server.2;
    for id in 0..20 {
        assert_eq!(ask(address, &format!("POST /events/{id}"), "a page was opened").0, "HTTP/1.1 202 Accepted");
    }
    assert_eq!(ask(address, "GET /monitoring/ready", "").1, "ready");
    assert!(ask(address, "GET /monitoring/", "").1.starts_with("<!doctype html>"));
    assert!(ask(address, "GET /monitoring/metrics", "").1.contains("batchsql_build_info"));
    let (is_success, printed) = end(server);
    assert!(is_success && printed.contains("20 accepted, 20 written"), "{printed}");
}

/// Its load test is in `ingest_service`; here the program and the command of its index.
#[test]
fn ingest_service_ends_with_every_row_written_and_replays_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let (database, letters) = (folder.path().join("ingest.db"), folder.path().join("failed.ndjson"));
    let server = serve("ingest_service", &[&database, &letters]);
    let shown = include_str!("../../examples/ingest_service.rs").split('\'').nth(1).unwrap();
    let cold = shown.replace("roof", "lab").replace("20.5", "-300");
    for body in [shown, shown, &cold] {
        assert_eq!(ask(server.2, "POST /readings", body).0, "HTTP/1.1 202 Accepted");
    }
    assert!(ask(server.2, "GET /monitoring/", "").1.starts_with("<!doctype html>"));
    let (is_success, printed) = end(server);
    assert!(!is_success && printed.contains("6 accepted, ") && printed.contains(" 1 rejected"), "{printed}");
    let sums = "SELECT sum(readings) + (SELECT count(*) FROM readings) FROM sensors";
    let sum: i64 = Connection::open(&database).unwrap().query_row(sums, [], |row| row.get(0)).unwrap();
    assert_eq!(sum, 3 + 1);

    Connection::open(&database).unwrap().execute_batch("DROP TABLE readings").unwrap();
    let sound = std::fs::read_to_string(&letters).unwrap().replace("-300", "-30");
    std::fs::write(&letters, sound).unwrap();
    let (is_success, printed) = end(serve("ingest_service", &[&database, &letters]));
    assert!(is_success && printed.contains("0 accepted"), "{printed}");
    assert_eq!(std::fs::read_to_string(&letters).unwrap(), "");
    let (is_success, printed) = run("ingest_service", &[&database]);
    assert!(!is_success && printed.contains("usage: "), "{printed}");
}
