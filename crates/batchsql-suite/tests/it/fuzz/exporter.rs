//! Requests to the exporter: any bytes are answered or refused in time, and the next request is served.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use batchsql::prometheus::{PrometheusMetrics, ServerOptions};
use proptest::prelude::*;
use tokio::task::spawn_blocking;

use super::{check_each, config, corpus};

/// Longer than it may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the exporter may answer to a request that it does not serve.
const REFUSALS: [u16; 8] = [400, 401, 404, 405, 408, 413, 414, 431];

/// Bytes of a request, some of which are changed.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let method = prop::sample::select(vec!["GET", "HEAD", "POST", "OPTIONS", "get", "PRI", ""]);
    let path = prop_oneof![
        prop::sample::select(vec!["/metrics", "/", "/health", "/ready", "*", "http://x/metrics", "//", "/metrics?x=%"]),
        Just("/%2e%2e/\u{e9}"),
    ];
    let version = prop::sample::select(vec!["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9", ""]);
    let name = prop_oneof![
        prop::sample::select(vec!["Host", "Accept-Encoding", "Authorization", "Content-Length", "Transfer-Encoding"]),
        prop::sample::select(vec!["Connection", "Upgrade", "Expect", "X-Requested-With", "Range", " Folded", ""]),
    ];
    let value = prop_oneof![
        "[ -~]{0,20}".prop_map(String::into_bytes),
        prop::sample::select(vec![
            "gzip;q=0.5, *;q=9",
            "Basic !!!",
            "Bearer x",
            "-1",
            "99999999999",
            "chunked",
            "close"
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..40),
    ];
    let headers = prop::collection::vec((name, value), 0..6);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    let body = prop::collection::vec(any::<u8>(), 0..60);
    (method, path, version, headers, body, changes).prop_map(|(method, path, version, headers, body, changes)| {
        let mut bytes = format!("{method} {path} {version}\r\n").into_bytes();
        for (name, value) in headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend(value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend(body);
        for (place, byte) in changes {
            let at = place.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![8 => request(), 1 => prop::collection::vec(any::<u8>(), 0..300), 1 => Just(vec![b'a'; 40_000])]
}

/// Sends bytes in two pieces, and reads until the exporter closes the connection. `ends`: nothing more is sent, which makes the
/// exporter give up a request that it has not answered.
fn exchange(address: SocketAddr, bytes: &[u8], cut: usize, ends: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    // The exporter may have refused the first piece and closed the connection.
    let _ = stream.write_all(&bytes[..cut]).and_then(|()| stream.write_all(&bytes[cut..]));
    if ends {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    let mut piece = [0; 4_096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return answer,
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            Err(error) => match error.kind() {
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => panic!("the connection stays open"),
                // It was closed before it had read everything.
                _ => return answer,
            },
        }
    }
}

/// The status of the first answer; `None` if there is none.
fn status(answer: &[u8]) -> Option<u16> {
    let head = String::from_utf8_lossy(answer);
    let line = head.lines().next()?;
    assert!(line.starts_with("HTTP/1."), "{line:?}");
    Some(line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{line:?}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn any_request_is_answered_or_refused() {
    let metrics = PrometheusMetrics::new().unwrap();
    let options = ServerOptions::new().port(0).bearer_token("a-token-of-the-test");
    let address = metrics.start_server_with(options).await.unwrap();
    let cases = (bytes(), any::<prop::sample::Index>());
    let check = async |bytes: Vec<u8>, cut: usize| {
        let answers = spawn_blocking(move || {
            let health = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            (exchange(address, &bytes, cut, true), exchange(address, health, 0, false))
        });
        let (answer, health) = answers.await.expect("no panic");
        let status_of_answer = status(&answer);
        let known = |status: u16| (100..300).contains(&status) || REFUSALS.contains(&status);
        prop_assert!(status_of_answer.is_none_or(known), "{status_of_answer:?}");
        // The random requests have no token.
        prop_assert!(!String::from_utf8_lossy(&answer).contains("# HELP"));
        prop_assert_eq!(status(&health), Some(200));
        Ok(())
    };
    for bytes in corpus("requests.txt") {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let cut = bytes.len() / 2;
        check(bytes, cut).await.unwrap_or_else(|error: TestCaseError| panic!("{text:?}: {error}"));
    }
    check_each(&cases, config(200, file!()), async |(bytes, cut)| {
        let cut = cut.index(bytes.len() + 1);
        check(bytes, cut).await
    });
    metrics.stop_server().await.unwrap();
}
