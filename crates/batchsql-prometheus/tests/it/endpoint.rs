//! Owns the checks of the server: paths, start and stop, and clients that misbehave.
//! Must not know which metrics there are.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use batchsql_prometheus::{PrometheusMetrics, ServerOptions};

use crate::http::{free_port, get, request, serve_again};

async fn started() -> (PrometheusMetrics, SocketAddr) {
    let metrics = PrometheusMetrics::new().unwrap();
    let address = metrics.start_server(0).await.unwrap();
    (metrics, address)
}

#[tokio::test]
async fn every_path_has_its_answer() {
    let (metrics, address) = started().await;
    assert!(address.ip().is_loopback());

    let page = get(address, "/metrics");
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(page.body.contains("\nbatchsql_build_info{version=\""), "{}", page.body);
    assert!(get(address, "/metrics?name=x").status == 200);

    let health = get(address, "/health");
    assert_eq!((health.status, health.body.as_str()), (200, "ok"));

    let index = get(address, "/");
    assert_eq!(index.status, 200);
    assert!(index.body.contains("BatchSQL") && index.body.to_lowercase().contains("<!doctype html>"), "{}", index.body);

    let head = request(address, "HEAD", "/metrics");
    assert_eq!((head.status, head.body.as_str()), (200, ""));

    for path in ["/metric", "/metrics/", "/favicon.ico", "/../etc/passwd"] {
        assert_eq!(get(address, path).status, 404, "{path}");
    }
    for path in ["/", "/metrics", "/health", "/ready"] {
        for method in ["POST", "PUT", "DELETE"] {
            let answer = request(address, method, path);
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.header("allow"), Some("GET,HEAD"), "{method} {path}");
        }
    }
    metrics.stop_server().await.unwrap();
}

#[tokio::test]
async fn the_server_starts_and_stops_again_and_again_on_one_port() {
    let metrics = PrometheusMetrics::new().unwrap();
    let address = serve_again(&metrics, free_port()).await;
    for _ in 0..10 {
        assert_eq!(get(address, "/health").status, 200);
        assert_eq!(metrics.server_address(), Some(address));
        metrics.stop_server().await.unwrap();
        assert!(TcpStream::connect(address).is_err(), "the port is still open");
        assert_eq!(metrics.server_address(), None);
        assert_eq!(serve_again(&metrics, address.port()).await, address);
    }
    metrics.stop_server().await.unwrap();
    metrics.stop_server().await.expect("stopping twice is not an error");
}

#[tokio::test]
async fn starting_twice_is_a_clear_error() {
    let (metrics, address) = started().await;
    let error = metrics.clone().start_server(0).await.unwrap_err();
    assert!(error.is_already_running() && !error.is_port_in_use());
    assert_eq!(error.address(), Some(address));
    let message = error.to_string();
    assert!(message.contains(&address.to_string()) && message.contains("stop_server()"), "{message}");
    assert_eq!(get(address, "/health").status, 200, "the first one still serves");
    metrics.stop_server().await.unwrap();
}

#[tokio::test]
async fn a_busy_port_is_a_clear_error() {
    let other = TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    let address = other.local_addr().unwrap();
    let metrics = PrometheusMetrics::new().unwrap();
    let error = metrics.start_server(address.port()).await.unwrap_err();
    assert!(error.is_port_in_use() && !error.is_already_running());
    assert_eq!(error.address(), Some(address));
    let message = error.to_string();
    let who = if cfg!(target_os = "linux") { "this process itself (" } else { "another process" };
    for part in [&address.to_string(), who, "already listens there", "another port"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(std::error::Error::source(&error).is_some(), "the error of the system is the source");
    drop(other);
    assert_eq!(serve_again(&metrics, address.port()).await, address, "once the port is free it works");
    metrics.stop_server().await.unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_busy_port_names_the_other_process() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let script = "import socket, sys, time\ns = socket.create_server(('0.0.0.0', 0))\n\
                  print(s.getsockname()[1], flush=True)\nsys.stdin.read()";
    let child = Command::new("python3").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else { return eprintln!("skipped: there is no python3 to listen") };
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let error = PrometheusMetrics::new().unwrap().start_server(line.trim().parse().unwrap()).await.unwrap_err();
    let message = error.to_string();
    let who = format!("the process python3 (pid {}) already listens there", child.id());
    drop(child.stdin.take());
    child.wait().unwrap();
    assert!(message.contains(&who), "{message}");
}

#[tokio::test]
async fn an_address_of_another_machine_is_a_clear_error() {
    let metrics = PrometheusMetrics::new().unwrap();
    // Reserved for documentation (RFC 5737), so no machine has it.
    let options = ServerOptions::new().port(0).bind(["192.0.2.1".parse().unwrap()]);
    let error = metrics.start_server_with(options).await.unwrap_err();
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
}

#[tokio::test]
async fn half_open_connections_do_not_block_others() {
    let hour = Duration::from_secs(3_600);
    let options = ServerOptions::new().header_time(hour).answer_time(hour).connection_age(hour);
    let metrics = PrometheusMetrics::new().unwrap();
    let address = metrics.start_server_with(options.port(0)).await.unwrap();
    let mut mute = Vec::new();
    for _ in 0..16 {
        mute.push(TcpStream::connect(address).unwrap());
        let mut half = TcpStream::connect(address).unwrap();
        half.write_all(b"GET /metrics HTT").unwrap();
        mute.push(half);
        // Sends a request and never reads.
        let mut deaf = TcpStream::connect(address).unwrap();
        deaf.write_all(b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        mute.push(deaf);
    }
    let begin = Instant::now();
    assert_eq!(get(address, "/metrics").status, 200);
    assert!(begin.elapsed() < Duration::from_secs(120), "it waited for their timeout");
    metrics.stop_server().await.unwrap();
}

/// The requests block the only thread of this test's runtime, so no other task runs on it.
#[tokio::test(flavor = "current_thread")]
async fn it_answers_while_the_runtime_of_the_caller_is_stuck() {
    let (metrics, address) = started().await;
    for _ in 0..10 {
        assert_eq!(get(address, "/metrics").status, 200);
    }
    metrics.stop_server().await.unwrap();
}

#[tokio::test]
async fn the_server_ends_with_its_last_owner() {
    let (metrics, address) = started().await;
    let reporter = metrics.reporter("null");
    let clone = metrics.clone();
    drop(metrics);
    assert_eq!(get(address, "/health").status, 200);
    drop(clone);
    let begin = Instant::now();
    while TcpStream::connect(address).is_ok() {
        assert!(begin.elapsed() < Duration::from_secs(30), "the server outlives its owner");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(reporter);
}
