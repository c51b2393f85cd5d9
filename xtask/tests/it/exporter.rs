//! A program with metrics that a Prometheus scrapes, and what that Prometheus says.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    thread,
    time::Duration,
};

use serde_json::Value;

/// Tells one metric on a port of its own, for as long as this process lives.
pub(crate) fn exporter(metric: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = BufReader::new(connection.unwrap());
            let mut line = String::new();
            while connection.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            let body = format!("{metric} 1\n");
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n";
            let _ = write!(connection.get_mut(), "{head}Content-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    address
}

/// Asks a server, also while it is busy.
pub(crate) fn get(url: &str) -> String {
    let agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(20))).proxy(None).build();
    let mut answer = agent.new_agent().get(url).call().unwrap_or_else(|error| panic!("{url}: {error}"));
    answer.body_mut().read_to_string().unwrap()
}

/// The series that an expression selects, as Prometheus tells them. Nothing in it must need escaping in a URL.
pub(crate) fn query(prometheus: &str, expression: &str) -> Vec<Value> {
    let answer: Value = serde_json::from_str(&get(&format!("{prometheus}/api/v1/query?query={expression}"))).unwrap();
    answer["data"]["result"].as_array().unwrap().clone()
}
