//! An exporter that a Prometheus scrapes, and queries to that Prometheus.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    thread,
    time::Duration,
};

use serde_json::Value;

/// Serves one metric on its own port until this process ends.
pub(crate) fn exporter(metric: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || answer(&listener, |_| (200, format!("{metric} 1\n"))));
    address
}

/// A request: its first line, its headers and its body.
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Responds to every request with a status and a body, one after the other.
pub(crate) fn answer(listener: &TcpListener, reply: impl Fn(&Request) -> (u16, String)) {
    for connection in listener.incoming() {
        let mut connection = BufReader::new(connection.unwrap());
        let mut head = String::new();
        while connection.read_line(&mut head).is_ok_and(|read| read > 2) {}
        let length =
            head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        if connection.read_exact(&mut body).is_err() {
            continue;
        }
        let (status, text) = reply(&Request { head, body: String::from_utf8_lossy(&body).into_owned() });
        let head = "Content-Type: text/plain; version=0.0.4\r\nConnection: close\r\n";
        let length = text.len();
        let _ = write!(connection.get_mut(), "HTTP/1.1 {status} X\r\n{head}Content-Length: {length}\r\n\r\n{text}");
    }
}

/// Sends a request, with retries while the server is busy.
pub(crate) fn get(url: &str) -> String {
    let agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(60))).proxy(None).build();
    let mut answer = agent.new_agent().get(url).call().unwrap_or_else(|error| panic!("{url}: {error}"));
    answer.body_mut().read_to_string().unwrap()
}

/// The series of an expression, from Prometheus. The expression must need no escaping in a URL.
pub(crate) fn query(prometheus: &str, expression: &str) -> Vec<Value> {
    let answer: Value = serde_json::from_str(&get(&format!("{prometheus}/api/v1/query?query={expression}"))).unwrap();
    answer["data"]["result"].as_array().unwrap().clone()
}
