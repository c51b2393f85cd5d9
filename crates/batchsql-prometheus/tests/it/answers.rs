//! Owns the checks of responses: their heads, HEAD, compression, readiness, and what a browser may do.
//! Must not know which metrics there are.

use std::net::SocketAddr;
use std::time::Duration;

use batchsql_prometheus::{PrometheusMetrics, ServerOptions};

use crate::http::{Connection, free_port, get, get_with, request, serve_again};

const GZIP: (&str, &str) = ("Accept-Encoding", "gzip");

async fn started() -> (PrometheusMetrics, SocketAddr) {
    let metrics = PrometheusMetrics::new().unwrap();
    let address = metrics.start_server(0).await.unwrap();
    (metrics, address)
}

#[tokio::test]
async fn head_and_get_agree_compressed_or_not() {
    let (metrics, address) = started().await;
    let mut connection = Connection::open(address);
    // The size of /metrics changes with the numbers in it.
    let without_size = |headers: Vec<&str>| {
        headers.into_iter().filter(|line| !line.starts_with("content-length")).map(str::to_owned).collect::<Vec<_>>()
    };
    for path in ["/", "/metrics", "/health", "/ready", "/nothing"] {
        for headers in [&[][..], &[GZIP][..]] {
            let get = connection.ask("GET", path, headers);
            let head = connection.ask("HEAD", path, headers);
            assert_eq!(head.status, get.status, "{path}");
            assert!(head.header("content-length").unwrap().parse::<usize>().unwrap() > 0, "{path}");
            if path == "/metrics" {
                assert_eq!(without_size(head.headers()), without_size(get.headers()), "{headers:?}");
            } else {
                assert_eq!(head.headers(), get.headers(), "{path} {headers:?}");
            }
        }
    }
    metrics.stop_server().await.unwrap();
}

#[tokio::test]
async fn what_may_be_large_is_compressed_on_demand() {
    let (metrics, address) = started().await;
    for (path, content_type) in
        [("/metrics", "text/plain; version=0.0.4; charset=utf-8"), ("/", "text/html; charset=utf-8")]
    {
        let plain = get(address, path);
        let compressed = get_with(address, path, &[GZIP]);
        assert_eq!(plain.header("content-encoding"), None, "{path}");
        assert_eq!(compressed.header("content-encoding"), Some("gzip"), "{path}");
        for answer in [&plain, &compressed] {
            assert_eq!(answer.header("vary"), Some("accept-encoding"), "{path}");
            assert_eq!(answer.header("content-type"), Some(content_type), "{path}");
        }
        assert!(compressed.bytes.len() < plain.bytes.len(), "{path}");
        let first = |text: &str| text.lines().next().unwrap().to_owned();
        assert_eq!(first(&compressed.body), first(&plain.body), "{path}");
        let refused = get_with(address, path, &[("Accept-Encoding", "gzip;q=0, deflate")]);
        assert_eq!(refused.header("content-encoding"), None, "{path}");
    }
    metrics.stop_server().await.unwrap();
}

#[tokio::test]
async fn a_browser_may_do_little() {
    let (metrics, address) = started().await;
    for path in ["/", "/metrics", "/health", "/ready", "/nothing"] {
        let answer = get(address, path);
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), None, "{path} is for this origin only");
    }
    let page = get(address, "/");
    let policy = page.header("content-security-policy").unwrap();
    for part in ["default-src 'none'; ", "connect-src 'self'; ", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    for what in ["script-src", "style-src"] {
        let sources = policy.split("; ").find_map(|part| part.strip_prefix(what)).unwrap();
        let hashed = sources.split_whitespace().all(|source| source.starts_with("'sha256-"));
        assert!(hashed && !sources.is_empty(), "{policy}");
    }
    metrics.stop_server().await.unwrap();
}

#[tokio::test]
async fn ready_is_what_the_application_says() {
    let metrics = PrometheusMetrics::new().unwrap();
    let address = serve_again(&metrics, free_port()).await;
    let asked = || {
        let answer = get(address, "/ready");
        (answer.status, answer.body)
    };
    assert_eq!(asked(), (200, "ready".to_owned()));
    metrics.clone().set_ready(false);
    assert_eq!(asked(), (503, "not ready".to_owned()));
    metrics.set_ready_detail("source a: waits\nsource b: reads");
    assert_eq!(asked(), (503, "not ready\nsource a: waits\nsource b: reads\n".to_owned()));
    let health = get(address, "/health");
    assert_eq!((health.status, &*health.body), (200, "ok\nsource a: waits\nsource b: reads\n"), "it lives");
    metrics.set_ready_detail("");
    assert_eq!(asked().1, "not ready");
    assert_eq!(get(address, "/health").status, 200, "it is healthy, although it is not ready");
    metrics.stop_server().await.unwrap();
    serve_again(&metrics, address.port()).await;
    assert_eq!(asked().0, 503, "a restart of the server does not change readiness");
    metrics.set_ready(true);
    assert_eq!(asked().0, 200);
    metrics.stop_server().await.unwrap();
}

/// Half of a request is sent before the stop begins, and the other half after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_is_not_ready() {
    use std::io::{Read, Write};
    let (metrics, address) = started().await;
    let mut stream = crate::http::connect(address);
    stream.write_all(b"GET /ready HTTP/1.1\r\nHost: h\r\n").unwrap();
    // The server has read it.
    assert_eq!(get(address, "/health").status, 200);
    let stopping = tokio::spawn(async move { metrics.stop_server().await });
    while std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
        std::thread::sleep(Duration::from_millis(1));
    }
    stream.write_all(b"\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("not ready"), "{answer:?}");
    stopping.await.unwrap().unwrap();
}

#[tokio::test]
async fn without_the_live_page_there_is_nothing_at_its_place() {
    let metrics = PrometheusMetrics::new().unwrap();
    let address = metrics.start_server_with(ServerOptions::new().port(0).live_page(false)).await.unwrap();
    assert_eq!(get(address, "/").status, 404);
    assert_eq!(get(address, "/metrics").status, 200);
    metrics.stop_server().await.unwrap();
}

#[tokio::test]
async fn requests_in_a_row_are_answered_in_their_order() {
    let (metrics, address) = started().await;
    let mut connection = Connection::open(address);
    let paths = ["/health", "/metrics", "/nothing", "/ready", "/metrics"];
    for path in paths.iter().cycle().take(100) {
        connection.send("GET", path, &[]);
    }
    for path in paths.iter().cycle().take(100) {
        let answer = connection.receive("GET");
        let expected = match *path {
            "/health" => "ok",
            "/ready" => "ready",
            "/nothing" => "not found",
            _ => "batchsql_build_info",
        };
        assert!(answer.body.contains(expected), "{path}: {answer:?}");
    }
    metrics.stop_server().await.unwrap();
}

#[tokio::test]
async fn every_address_that_was_asked_for_is_served() {
    let metrics = PrometheusMetrics::new().unwrap();
    let addresses = ["127.0.0.1", "127.0.0.2"].map(|address| address.parse().unwrap());
    let first = metrics.start_server_with(ServerOptions::new().port(0).bind(addresses)).await.unwrap();
    let served = metrics.server_addresses();
    assert_eq!(served.iter().map(SocketAddr::ip).collect::<Vec<_>>(), addresses);
    assert_eq!(served[0], first);
    assert_eq!(metrics.server_address(), Some(first));
    for address in &served {
        assert_eq!(address.port(), first.port());
        assert_eq!(get(*address, "/health").status, 200, "{address}");
    }
    let third = SocketAddr::new("127.0.0.3".parse().unwrap(), first.port());
    assert!(std::net::TcpStream::connect(third).is_err(), "{third} was not in bind()");
    metrics.stop_server().await.unwrap();
    for address in served {
        assert!(std::net::TcpStream::connect(address).is_err(), "{address}");
    }
    assert!(metrics.server_addresses().is_empty());
}

#[tokio::test]
async fn one_place_is_enough_for_two_addresses() {
    let metrics = PrometheusMetrics::new().unwrap();
    let addresses = ["127.0.0.1", "127.0.0.2"].map(|address| address.parse().unwrap());
    let options = ServerOptions::new().port(0).bind(addresses).max_connections(1);
    metrics.start_server_with(options).await.unwrap();
    let served = metrics.server_addresses();
    // A connection to an unused address must not keep its slot.
    for address in [served[1], served[1], served[0], served[0], served[1]] {
        assert_eq!(request(address, "GET", "/health").status, 200, "{address}");
    }
    metrics.stop_server().await.unwrap();
}
