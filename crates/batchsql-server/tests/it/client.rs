//! A client of HTTP that sends what it is told, also what is wrong.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::described;
use crate::program::LONG;

pub(crate) const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson");
pub(crate) const JSON: (&str, &str) = ("Content-Type", "application/json");

/// A response.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")))?;
        Some(line.split_once(':')?.1.trim())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn number(&self, field: &str) -> u64 {
        self.json()[field].as_u64().unwrap_or_else(|| panic!("no {field}: {self:?}"))
    }

    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no error: {self:?}")).to_owned()
    }
}

/// Sends a request with a body of known length.
pub(crate) fn send(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let mut stream = begin(address, method, path, headers, Some(body.len()));
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(body);
    read(stream)
}

/// Posts rows of a table. The answer is as it is described.
pub(crate) fn post(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Response {
    let response = send(address, "POST", &format!("/v1/tables/{path}"), headers, body.as_ref());
    described::check(&response);
    response
}

/// Sends the head of a request; without a length the body is chunked.
pub(crate) fn begin(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    length: Option<usize>,
) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(head(method, path, headers, length).as_bytes()).unwrap();
    stream
}

pub(crate) fn head(method: &str, path: &str, headers: &[(&str, &str)], length: Option<usize>) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match length {
        Some(length) => head.push_str(&format!("Content-Length: {length}\r\n\r\n")),
        None => head.push_str("Transfer-Encoding: chunked\r\n\r\n"),
    }
    head
}

/// A part of a chunked body.
pub(crate) fn chunk(stream: &mut TcpStream, part: &[u8]) -> std::io::Result<()> {
    stream.write_all(format!("{:x}\r\n", part.len()).as_bytes())?;
    stream.write_all(part)?;
    stream.write_all(b"\r\n")
}

/// As [`read`], of a request with rows. The answer is as it is described.
pub(crate) fn read_rows(stream: impl Read) -> Response {
    let response = read(stream);
    described::check(&response);
    response
}

/// Reads the response to its end.
pub(crate) fn read(mut stream: impl Read) -> Response {
    let mut answer = Vec::new();
    // A server that closes early resets the connection; what it has sent may have been read.
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Response { status, head: head.to_owned(), body: body.to_owned() }
}
