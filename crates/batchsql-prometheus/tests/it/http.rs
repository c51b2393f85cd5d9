//! Owns a minimal blocking HTTP client, so that no test depends on a runtime.
//! Must not know metrics.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use batchsql_prometheus::PrometheusMetrics;
use flate2::read::GzDecoder;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Longer than any response takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    /// As received.
    pub(crate) bytes: Vec<u8>,
    /// As text, decompressed.
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let of_name = |line: &'_ str| line.split_once(": ").is_some_and(|(have, _)| have.eq_ignore_ascii_case(name));
        self.head.lines().find(|line| of_name(line)).and_then(|line| Some(line.split_once(": ")?.1))
    }

    /// Every header line, sorted, without the date.
    pub(crate) fn headers(&self) -> Vec<&str> {
        let mut lines: Vec<_> = self.head.lines().skip(1).filter(|line| !line.starts_with("date: ")).collect();
        lines.sort_unstable();
        lines
    }
}

pub(crate) trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// A connection that stays open between requests.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    address: SocketAddr,
    /// Bytes received after the last response.
    rest: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = connect(address);
        Self { stream: Box::new(stream), address, rest: Vec::new() }
    }

    /// Connects with TLS to `localhost` and trusts `roots`.
    pub(crate) fn open_tls(address: SocketAddr, roots: RootCertStore) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        Self { stream: Box::new(StreamOwned::new(session, connect(address))), address, rest: Vec::new() }
    }

    /// Sends a request without waiting for its response.
    pub(crate) fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.address);
        self.stream.write_all(request.as_bytes()).unwrap();
        self.stream.flush().unwrap();
    }

    /// Reads the response to a request of this method.
    pub(crate) fn receive(&mut self, method: &str) -> Answer {
        let end = loop {
            if let Some(end) = self.rest.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            assert!(self.more() > 0, "the connection ended: {:?}", String::from_utf8_lossy(&self.rest));
        };
        let head = String::from_utf8(self.rest.drain(..end + 4).collect()).unwrap();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a response has a status");
        let mut answer = Answer { status, head, bytes: Vec::new(), body: String::new() };
        let length = answer.header("content-length").and_then(|length| length.parse().ok());
        let length = if method == "HEAD" { 0 } else { length.expect("the server always sends the length") };
        while self.rest.len() < length {
            assert!(self.more() > 0, "the response ended early");
        }
        answer.bytes = self.rest.drain(..length).collect();
        answer.body = match answer.header("content-encoding") {
            Some("gzip") if method != "HEAD" => {
                let mut text = String::new();
                GzDecoder::new(answer.bytes.as_slice()).read_to_string(&mut text).unwrap();
                text
            }
            _ => String::from_utf8(answer.bytes.clone()).unwrap(),
        };
        answer
    }

    pub(crate) fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(method, path, headers);
        self.receive(method)
    }

    fn more(&mut self) -> usize {
        let mut buffer = vec![0; 64 << 10];
        let read = self.stream.read(&mut buffer).unwrap();
        self.rest.extend_from_slice(&buffer[..read]);
        read
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A free port that no other test of this process gets, and outside of the range for outgoing connections.
pub(crate) fn free_port() -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    let mut ports = std::iter::from_fn(|| Some(first + GIVEN.fetch_add(1, Ordering::Relaxed) % 2_000)).take(2_000);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("one of 2,000 ports is free")
}

/// Serves on a port whose server has just stopped. A child process that another test starts may still hold the port
/// for a moment, because it inherits open files and closes them a little later.
pub(crate) async fn serve_again(metrics: &PrometheusMetrics, port: u16) -> SocketAddr {
    let begin = Instant::now();
    loop {
        match metrics.start_server(port).await {
            Err(error) if error.is_port_in_use() && begin.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            started => return started.unwrap(),
        }
    }
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    request(address, "GET", path)
}

pub(crate) fn get_with(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    Connection::open(address).ask("GET", path, &[headers, &[("Connection", "close")]].concat())
}

pub(crate) fn request(address: SocketAddr, method: &str, path: &str) -> Answer {
    Connection::open(address).ask(method, path, &[("Connection", "close")])
}
