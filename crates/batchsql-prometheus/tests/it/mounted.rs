//! Owns the checks of the endpoint in a server of the application: the router, and the handler of plain requests.
//! Must not know how responses are made.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::routing::get;
use batchsql_prometheus::{EndpointOptions, Lingered, PrometheusMetrics};
use http::{Method, Request, StatusCode};
use tower_service::Service;

use crate::http::{Answer, Connection, get as ask, get_with};

const TOKEN: (&str, &str) = ("authorization", "Bearer 5up3r-s3cret.token");
const LIMIT: Duration = Duration::from_secs(30);

fn options() -> EndpointOptions {
    EndpointOptions::new().bearer_token("5up3r-s3cret.token")
}

/// Serves an application of this router as axum does.
async fn serve(app: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// The status and the text of a response to a request without a server.
async fn call(router: &mut Router, method: Method, path: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
    let request = headers.iter().fold(Request::builder(), |request, (name, value)| request.header(*name, *value));
    let request = request.method(method).uri(path).body(Body::empty()).unwrap();
    let response = router.call(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// As a scrape of Prometheus.
const SCRAPE: (&str, &str) = ("x-prometheus-scrape-timeout-seconds", "10");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_router_responds_as_the_server_does() {
    let metrics = PrometheusMetrics::new().unwrap();
    let own =
        metrics.start_server_with(batchsql_prometheus::ServerOptions::new().port(0).bearer_token("5up3r-s3cret.token"));
    let own = own.await.unwrap();
    let mounted = serve(metrics.router(options()).unwrap()).await;
    let shown = |answer: &Answer| {
        let headers = answer.headers().into_iter().filter(|line| !line.starts_with("content-length"));
        // The server of the application keeps connections open unless it is told.
        let headers = headers.filter(|line| !line.starts_with("connection")).map(str::to_owned).collect::<Vec<_>>();
        (answer.status, headers)
    };
    let gzip = ("Accept-Encoding", "gzip");
    for path in ["/", "/metrics", "/health", "/ready"] {
        for headers in [&[][..], &[TOKEN][..], &[TOKEN, gzip][..], &[gzip][..], &[("X-Requested-With", "BatchSQL")][..]]
        {
            for method in ["GET", "HEAD", "POST"] {
                let headers = [headers, &[("Connection", "close")]].concat();
                let [expected, found] =
                    [own, mounted].map(|address| Connection::open(address).ask(method, path, &headers));
                assert_eq!(shown(&found), shown(&expected), "{method} {path} {headers:?}");
                if path != "/metrics" || found.status != 200 {
                    assert_eq!(found.bytes, expected.bytes, "{method} {path} {headers:?}");
                }
            }
        }
    }
    assert!(get_with(mounted, "/metrics", &[TOKEN]).body.contains("batchsql_build_info"));
    assert_eq!(ask(mounted, "/metrics").status, 401);
    metrics.stop_server().await.unwrap();
    assert_eq!(ask(mounted, "/ready").status, 200, "the server of the application is not stopped");
    metrics.set_ready(false);
    assert_eq!(ask(mounted, "/ready").status, 503);
    assert_eq!(ask(mounted, "/health").status, 200);
}

#[tokio::test]
async fn the_router_is_a_part_of_an_application() {
    let metrics = PrometheusMetrics::new().unwrap();
    let own = || Router::new().route("/", get(async || "mine")).fallback(async || (StatusCode::NOT_FOUND, "not here"));
    let mut merged = own().merge(metrics.router(options().live_page(false)).unwrap());
    let mut nested = own().nest("/monitoring/", metrics.router(options()).unwrap());
    for (app, path) in [(&mut merged, ""), (&mut nested, "/monitoring")] {
        assert_eq!(call(app, Method::GET, "/", &[]).await, (StatusCode::OK, "mine".to_owned()), "{path}");
        assert_eq!(call(app, Method::GET, &format!("{path}/health"), &[]).await, (StatusCode::OK, "ok".to_owned()));
        let path = format!("{path}/metrics");
        assert_eq!(call(app, Method::GET, &path, &[]).await, (StatusCode::UNAUTHORIZED, "not authorized\n".to_owned()));
        assert!(call(app, Method::GET, &path, &[TOKEN]).await.1.contains("batchsql_build_info"));
        assert_eq!(call(app, Method::POST, &path, &[TOKEN]).await.0, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(call(app, Method::GET, "/nothing", &[]).await, (StatusCode::NOT_FOUND, "not here".to_owned()));
    }
    let (status, page) = call(&mut nested, Method::GET, "/monitoring/", &[]).await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.starts_with("<!doctype html>"));
}

#[tokio::test]
async fn the_handler_responds_to_plain_requests() {
    let metrics = PrometheusMetrics::new().unwrap();
    let handler = metrics.handler(options()).unwrap();
    let ask = async |path: &str, headers: &[(&str, &str)]| {
        let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
        // Whatever the body of the request is.
        let response = handler.respond(request.body("a body that is ignored").unwrap()).await;
        let (parts, body) = response.into_parts();
        let body = to_bytes(Body::new(body), usize::MAX).await.unwrap();
        (parts.status.as_u16(), parts.headers, String::from_utf8_lossy(&body).into_owned())
    };
    let (status, headers, page) = ask("/metrics", &[TOKEN]).await;
    assert_eq!((status, &headers["content-type"]), (200, &"text/plain; version=0.0.4; charset=utf-8".parse().unwrap()));
    assert_eq!(headers["content-length"], page.len().to_string());
    assert!(page.contains("batchsql_build_info"));
    assert_eq!(ask("/metrics", &[]).await.0, 401);
    assert_eq!(ask("/ready", &[]).await.2, "ready");
    metrics.set_ready(false);
    assert_eq!(
        (ask("/ready", &[]).await.0, ask("/health", &[]).await.0, ask("/nothing", &[]).await.0),
        (503, 200, 404)
    );
}

#[tokio::test]
async fn scrapes_of_the_router_are_waited_for_while_it_exists() {
    let metrics = PrometheusMetrics::new().unwrap();
    let mut app = metrics.router(EndpointOptions::new()).unwrap();
    assert_eq!(call(&mut app, Method::GET, "/metrics", &[SCRAPE]).await.0, StatusCode::OK);
    assert!(metrics.has_watchers());
    let lingering = tokio::spawn({
        let metrics = metrics.clone();
        async move { metrics.linger(LIMIT).await }
    });
    // Scrapes that begin before it waits do not count.
    while !lingering.is_finished() {
        call(&mut app, Method::GET, "/metrics", &[SCRAPE]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(lingering.await.unwrap(), Lingered::Scraped);
    drop(app);
    assert_eq!(metrics.linger(LIMIT).await, Lingered::NobodyWatches, "nothing serves the metrics any more");
}

#[test]
fn mistakes_in_the_options_are_reported_without_the_secret() {
    let metrics = PrometheusMetrics::new().unwrap();
    let both = EndpointOptions::new().bearer_token("5up3r-s3cret.token").basic_auth("prometheus", "hunter2");
    for options in
        [EndpointOptions::new().bearer_token("two words"), EndpointOptions::new().bearer_token(""), both.clone()]
    {
        let error = metrics.router(options.clone()).unwrap_err();
        assert!(error.is_invalid_options(), "{error}");
        assert!(metrics.handler(options).unwrap_err().is_invalid_options());
        assert!(!error.to_string().contains("two words"), "{error}");
    }
    let shown = format!("{both:?}");
    assert!(!shown.contains("s3cret") && !shown.contains("hunter2") && !shown.contains("prometheus"), "{shown}");
}
