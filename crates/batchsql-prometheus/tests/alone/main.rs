//! Owns the checks that clients cannot make the process grow: threads, open files, tasks, series and memory.
//! Must not share its process with another test, because it counts resources of the whole process.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, which clippy does not see")]

#[allow(dead_code, reason = "the other tests use the rest of it")]
#[path = "../it/http.rs"]
mod http;

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use batchsql_prometheus::{PrometheusMetrics, ServerOptions};
use http::{Connection, connect, free_port, get, get_with, serve_again};

/// Memory that the allocator may keep. A leak of a runtime, a stack or a page of metrics per round would be larger.
const SLACK: u64 = 2 << 20;

/// The current resources of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Has {
    threads: u64,
    files: usize,
    tasks: usize,
    resident: u64,
}

impl Has {
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let number = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
            line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        Self {
            threads: number("Threads:"),
            files: std::fs::read_dir("/proc/self/fd").unwrap().count(),
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
            resident: number("VmRSS:") << 10,
        }
    }

    /// Waits for threads and connections that are about to end, then compares.
    async fn expect_no_more_than(self, what: &str) {
        let begin = Instant::now();
        loop {
            let now = Self::now();
            let counted = now.threads <= self.threads && now.files <= self.files && now.tasks <= self.tasks;
            if counted && now.resident <= self.resident + SLACK {
                eprintln!("{what}: resident {} KiB, before {} KiB", now.resident >> 10, self.resident >> 10);
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{what}: before {self:?}, now {now:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// One test, so that no part changes the counts of another part.
#[tokio::test]
async fn nothing_grows() {
    starts_and_stops().await;
    starts_and_stops_under_load().await;
    random_paths().await;
    wrong_tokens().await;
    heads_that_are_too_long().await;
    whole_exporters_come_and_go().await;
}

async fn starts_and_stops() {
    let metrics = PrometheusMetrics::new().unwrap();
    let port = free_port();
    let mut before = Has::now();
    for round in 0..220 {
        if round == 20 {
            before = Has::now();
        }
        let address = serve_again(&metrics, port).await;
        assert_eq!(get(address, "/metrics").status, 200);
        metrics.stop_server().await.unwrap();
    }
    before.expect_no_more_than("200 starts and stops").await;
}

/// When the server stops, clients are connected, in the middle of a request, or waiting for a response.
async fn starts_and_stops_under_load() {
    let metrics = PrometheusMetrics::new().unwrap();
    let round = async || {
        let address = metrics.start_server_with(ServerOptions::new().port(0).max_connections(8)).await.unwrap();
        let mut clients: Vec<TcpStream> = (0..12).map(|_| connect(address)).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            let request = b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n";
            client.write_all(&request[..request.len() * (number % 3) / 2]).unwrap();
        }
        metrics.stop_server().await.unwrap();
        assert!(TcpStream::connect(address).is_err(), "the port is still open");
    };
    for _ in 0..5 {
        round().await;
    }
    let before = Has::now();
    for _ in 0..50 {
        round().await;
    }
    before.expect_no_more_than("50 stops with clients").await;
}

fn series(address: SocketAddr) -> usize {
    get(address, "/metrics").body.lines().filter(|line| !line.starts_with('#')).count()
}

async fn random_paths() {
    let metrics = PrometheusMetrics::new().unwrap();
    let address = metrics.start_server(0).await.unwrap();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut path = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        match random % 4 {
            0 => format!("/{random:x}"),
            1 => format!("/metrics/{random:x}?a={random}"),
            2 => format!("/%{:02x}/../{random:x}", random % 256),
            _ => format!("/{}", format!("{random:x}/").repeat(20)),
        }
    };
    let mut ask = |requests: usize| {
        let mut connection = Connection::open(address);
        for number in 0..requests {
            if number % 100 == 99 {
                connection = Connection::open(address);
            }
            assert_eq!(connection.ask("GET", &path(), &[]).status, 404);
        }
    };
    ask(500);
    let (before, series_before) = (Has::now(), series(address));
    ask(10_000);
    assert_eq!(series(address), series_before, "a path created a series");
    before.expect_no_more_than("10,000 random paths").await;
    metrics.stop_server().await.unwrap();
}

async fn wrong_tokens() {
    let metrics = PrometheusMetrics::new().unwrap();
    let address = metrics.start_server_with(ServerOptions::new().port(0).bearer_token("right")).await.unwrap();
    let ask = |requests: usize| {
        for number in 0..requests {
            let wrong = format!("Bearer wrong-{number}");
            let answer = get_with(address, "/metrics", &[("Authorization", &wrong)]);
            assert_eq!(answer.status, 401);
        }
    };
    ask(100);
    let before = Has::now();
    ask(1_000);
    before.expect_no_more_than("1,000 wrong tokens").await;
    assert_eq!(get_with(address, "/metrics", &[("Authorization", "Bearer right")]).status, 200, "nobody is blocked");
    metrics.stop_server().await.unwrap();
}

async fn heads_that_are_too_long() {
    let metrics = PrometheusMetrics::new().unwrap();
    let address = metrics.start_server(0).await.unwrap();
    let long = "x".repeat(1 << 20);
    let ask = |requests: usize| {
        for number in 0..requests {
            let mut client = connect(address);
            let head = if number % 2 == 0 {
                format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n")
            } else {
                format!("GET /metrics HTTP/1.1\r\nHost: h\r\nCookie: {long}\r\n\r\n")
            };
            // The server may reject it before all of it is sent.
            let _ = client.write_all(head.as_bytes());
            let mut answer = Vec::new();
            match std::io::Read::read_to_end(&mut client, &mut answer) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "the server does not answer"),
            }
            let answer = String::from_utf8_lossy(&answer).into_owned();
            // Empty if the reset, caused by unread data, arrives before the response.
            let refused = ["HTTP/1.1 431", "HTTP/1.1 414"].iter().any(|status| answer.starts_with(status));
            assert!(answer.is_empty() || refused, "{answer:?}");
        }
    };
    ask(20);
    let before = Has::now();
    ask(200);
    before.expect_no_more_than("200 heads of a mebibyte").await;
    assert_eq!(get(address, "/metrics").status, 200);
    metrics.stop_server().await.unwrap();
}

async fn whole_exporters_come_and_go() {
    let round = async || {
        let metrics = PrometheusMetrics::new().unwrap();
        let address = metrics.start_server(0).await.unwrap();
        assert_eq!(get(address, "/health").status, 200);
    };
    for _ in 0..20 {
        round().await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = Has::now();
    for _ in 0..100 {
        round().await;
    }
    before.expect_no_more_than("100 exporters, dropped without a stop").await;
}
