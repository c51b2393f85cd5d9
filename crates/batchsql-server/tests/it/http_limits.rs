//! Clients that send too much, too slowly, or at the wrong time.

use std::io::{Read, Write};
use std::sync::Arc;

use rustix::process::Signal;
use serde_json::json;

use crate::client::{NDJSON, begin, chunk, head, post, read_rows, send};
use crate::program::{Place, Running, until};

pub(crate) fn place() -> Place {
    let place = Place::new();
    place.sql("CREATE TABLE orders (id INTEGER, note TEXT)");
    place
}

pub(crate) fn config(place: &Place, more: &str) -> String {
    format!("{}[[tables]]\nname = \"orders\"\n[http]\nlisten = \"127.0.0.1:0\"\n{more}", place.database())
}

/// A mebibyte of one letter.
fn gzip(letter: u8) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![letter; 1 << 20]).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn bombs_and_long_lines_are_refused_without_growth() {
    let place = place();
    let program =
        place.start(&config(&place, "limits = { decompressed = \"24MiB\", line = \"1MiB\", body = \"1GiB\" }\n"));
    let at = program.address();
    post(at, "orders/rows", &[NDJSON], "{\"id\":1}\n");
    let before = program.peak_memory();
    // 400 MB of empty lines in a body of 400 kB.
    let bomb = gzip(b'\n').repeat(400);
    assert!(bomb.len() < 2 << 20);
    let response = post(at, "orders/rows", &[NDJSON, ("Content-Encoding", "gzip")], &bomb);
    assert!(response.status == 413 && response.error().contains("http.limits.decompressed"), "{response:?}");
    // A line of 100 MB, plain and packed, in a body that is allowed.
    let line = vec![b'x'; 100 << 20];
    let response = post(at, "orders/rows", &[NDJSON], &line);
    assert!(response.status == 413 && response.error().contains("line 1 is above the limit"), "{response:?}");
    let packed = gzip(b'x').repeat(100);
    let response = post(at, "orders/rows", &[NDJSON, ("Content-Encoding", "gzip")], packed);
    assert!(response.status == 413 && response.error().contains("line 1 is above the limit"), "{response:?}");
    let grown = program.peak_memory() - before;
    assert!(grown < 48 << 20, "it has grown by {} MiB", grown >> 20);
    program.stop();
    // What was accepted before is there, and no part of what was refused.
    assert_eq!(place.number("SELECT count(*) FROM orders"), 1);
}

#[test]
fn slow_clients_are_sent_away() {
    let place = place();
    let limits = "limits = { body_pause = \"200ms\", header_time = \"200ms\", connections = 20 }\n";
    let program = place.start(&config(&place, limits));
    let at = program.address();
    let mut body = begin(at, "POST", "/v1/tables/orders/rows", &[NDJSON], None);
    chunk(&mut body, b"{\"id\":1}\n").unwrap();
    let response = read_rows(body);
    assert_eq!(
        (response.status, response.number("accepted"), response.number("next_line")),
        (408, 1, 2),
        "{response:?}"
    );
    // More connections than are allowed, which send nothing: those that do are served when the others are closed.
    let idle: Vec<_> = (0..300).map(|_| std::net::TcpStream::connect(at).unwrap()).collect();
    let response = post(at, "orders/rows", &[NDJSON], "{\"id\":2}\n");
    assert_eq!(response.status, 200, "{response:?}");
    for mut stream in idle {
        assert!(matches!(stream.read(&mut [0; 100]), Ok(0) | Err(_)), "it was closed");
    }
    assert_eq!(program.stop().0, 0);
    assert_eq!(place.number("SELECT count(*) FROM orders"), 2);
}

#[test]
fn a_full_buffer_is_an_answer() {
    let place = place();
    let settings = "limits = { capacity_time = \"50ms\" }\n[pipeline]\nbuffer_size = 10\nflush_size = 5\n[run]\ndrain_for = \"0s\"\n";
    let program = place.start(&config(&place, settings));
    let db = place.sql("BEGIN IMMEDIATE");
    let at = program.address();
    let lines: String = (0..100).map(|id| format!("{{\"id\":{id}}}\n")).collect();
    let response = post(at, "orders/rows", &[NDJSON], &lines);
    assert_eq!((response.status, response.header("retry-after")), (429, Some("1")), "{response:?}");
    let accepted = response.number("accepted");
    assert!((1..100).contains(&accepted), "{response:?}");
    assert_eq!(response.number("next_line"), accepted + 1, "{response:?}");
    // The client sends the rest again, until there is capacity.
    db.execute_batch("ROLLBACK").unwrap();
    let (mut next, mut total) = (accepted as usize, accepted);
    while next < 100 {
        let rest: String = lines.split_inclusive('\n').skip(next).collect();
        let response = post(at, "orders/rows?wait=written", &[NDJSON], rest);
        total += response.number("accepted");
        next += response.number("accepted") as usize;
    }
    assert_eq!(total, 100);
    program.stop();
    assert_eq!(place.number("SELECT count(DISTINCT id) FROM orders"), 100);
}

#[test]
fn the_end_answers_503_and_writes_what_was_accepted() {
    let place = place();
    let program = place
        .start(&config(&place, "[pipeline]\nflush_interval = \"1h\"\nbuffer_size = 100000\nflush_size = 100000\n"));
    let at = program.address();
    let mut open = begin(at, "POST", "/v1/tables/orders/rows", &[NDJSON], None);
    chunk(&mut open, b"{\"id\":1}\n").unwrap();
    // The row of the open request is accepted when the metrics have it in the buffer.
    let metrics = || send(at, "GET", "/metrics", &[], b"").body;
    until(|| metrics().contains("batchsql_buffer_records{database=\"sqlite\"} 1"), metrics);
    let db = place.sql("BEGIN IMMEDIATE");
    let mut program = program;
    program.signal(Signal::TERM);
    program.wait_for("no more rows are accepted");
    let refused = loop {
        let response = post(at, "orders/rows", &[NDJSON], "{\"id\":2}\n");
        if response.status == 503 {
            break response;
        }
    };
    assert_eq!(refused.header("retry-after"), Some("5"), "{refused:?}");
    assert_eq!(send(at, "GET", "/ready", &[], b"").status, 503);
    chunk(&mut open, b"{\"id\":3}\n").unwrap();
    let _ = chunk(&mut open, b"");
    let response = read_rows(open);
    assert_eq!((response.status, response.number("next_line")), (503, 2), "{response:?}");
    db.execute_batch("ROLLBACK").unwrap();
    let (code, log) = program.wait();
    assert_eq!(code, 0, "{log}");
    assert_eq!(place.number("SELECT count(*) FROM orders WHERE id = 1"), 1);
    assert_eq!(place.number("SELECT count(*) FROM orders WHERE id = 3"), 0);
}

#[test]
fn tls_is_served_with_a_certificate() {
    let place = place();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    place.write("tls.crt", made.cert.pem());
    place.write("tls.key", made.signing_key.serialize_pem());
    let program = place.start(&config(&place, "[http.tls]\ncertificates = \"tls.crt\"\nkey = \"tls.key\"\n"));
    let at = program.address();
    let mut roots = tokio_rustls::rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = tokio_rustls::rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let client = tokio_rustls::rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = tokio_rustls::rustls::StreamOwned::new(client, std::net::TcpStream::connect(at).unwrap());
    let row = b"{\"id\":1}\n";
    stream.write_all(head("POST", "/v1/tables/orders/rows", &[NDJSON], Some(row.len())).as_bytes()).unwrap();
    stream.write_all(row).unwrap();
    assert_eq!(read_rows(stream).number("accepted"), 1);
    assert_eq!(program.stop().0, 0);
    assert_eq!(place.number("SELECT count(*) FROM orders"), 1);
}

#[test]
fn systemd_is_told_and_logs_may_be_json() {
    let place = place();
    let socket = std::os::unix::net::UnixDatagram::bind(place.path("notify")).unwrap();
    place.write("b.toml", config(&place, "[log]\nformat = \"json\"\n"));
    let mut command = place.command(&["run", "b.toml"]);
    command.env("NOTIFY_SOCKET", place.path("notify"));
    let mut program = Running::spawn(command);
    let mut state = [0; 100];
    let length = socket.recv(&mut state).unwrap();
    assert_eq!(&state[..length], b"READY=1");
    let line = program.wait_for("listening on");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["level"], json!("INFO"));
    let (code, _) = program.stop();
    let length = socket.recv(&mut state).unwrap();
    assert_eq!((code, &state[..length]), (0, &b"STOPPING=1"[..]));
}

#[test]
fn a_port_that_is_taken_is_an_error() {
    let place = place();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = config(&place, "").replace("127.0.0.1:0", &taken.local_addr().unwrap().to_string());
    place.write("b.toml", text);
    let ran = place.run(&["run", "b.toml"]);
    assert_eq!(ran.code(), 3, "{}", ran.all());
    assert!(ran.err().contains("cannot listen on"), "{}", ran.all());
}
