//! Owns the checks of access: tokens, passwords, and paths that need neither.
//! Must not know how secrets are compared.

use std::net::SocketAddr;

use batchsql_prometheus::{PrometheusMetrics, ServerOptions};

use crate::http::{Answer, Connection, free_port, get, get_with, serve_again};

const TOKEN: &str = "5up3r-s3cret.token";
const BEARER: (&str, &str) = ("Authorization", "Bearer 5up3r-s3cret.token");
/// `prometheus:hunter2`
const BASIC: (&str, &str) = ("Authorization", "Basic cHJvbWV0aGV1czpodW50ZXIy");

async fn started(options: ServerOptions) -> (PrometheusMetrics, SocketAddr) {
    let metrics = PrometheusMetrics::new().unwrap();
    let address = metrics.start_server_with(options.port(0)).await.unwrap();
    (metrics, address)
}

/// Without valid credentials, `/metrics` always sends the same response, which reveals nothing about the secret.
fn refuses(address: SocketAddr, wrong: &[(&str, &str)], challenge: &str) {
    let without = get(address, "/metrics");
    check_refusal(&without, challenge);
    for header in wrong {
        let answer = get_with(address, "/metrics", &[*header]);
        check_refusal(&answer, challenge);
        assert_eq!((answer.headers(), &answer.body), (without.headers(), &without.body), "{header:?}");
    }
    for path in ["/", "/health", "/ready"] {
        assert_eq!(get(address, path).status, 200, "{path} is open");
    }
}

fn check_refusal(answer: &Answer, challenge: &str) {
    assert_eq!(answer.status, 401, "{answer:?}");
    assert_eq!(answer.header("www-authenticate"), Some(challenge));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(!answer.body.contains("batchsql_"), "{answer:?}");
    for secret in [TOKEN, "hunter2", "cHJvbWV0aGV1czpodW50ZXIy"] {
        assert!(!format!("{answer:?}").contains(secret), "{answer:?}");
    }
}

#[tokio::test]
async fn a_bearer_token_opens_the_metrics() {
    let (metrics, address) = started(ServerOptions::new().bearer_token(TOKEN)).await;
    let answer = get_with(address, "/metrics", &[BEARER]);
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("batchsql_build_info"));
    let head = Connection::open(address).ask("HEAD", "/metrics", &[]);
    assert_eq!(head.status, 401, "the head reveals the size, so it needs credentials");
    let wrong = [BASIC, ("Authorization", "Bearer wrong"), ("Authorization", "Bearer"), ("X-Token", TOKEN)];
    refuses(address, &wrong, "Bearer realm=\"batchsql\"");
    metrics.stop_server().await.unwrap();
}

#[tokio::test]
async fn a_user_and_a_password_open_the_metrics() {
    let (metrics, address) = started(ServerOptions::new().basic_auth("prometheus", "hunter2")).await;
    assert_eq!(get_with(address, "/metrics", &[BASIC]).status, 200);
    let wrong = [BEARER, ("Authorization", "Basic cHJvbWV0aGV1czpodW50ZXIz"), ("Authorization", "Basic ???")];
    refuses(address, &wrong, "Basic realm=\"batchsql\", charset=\"UTF-8\"");
    // The live page has its own form for the password.
    let of_page = ("X-Requested-With", "BatchSQL");
    for sent in [&[of_page][..], &[of_page, ("Authorization", "Basic ???")]] {
        check_refusal(&get_with(address, "/metrics", sent), "X-Basic realm=\"batchsql\", charset=\"UTF-8\"");
    }
    assert_eq!(get_with(address, "/metrics", &[of_page, BASIC]).status, 200);
    metrics.stop_server().await.unwrap();
}

#[tokio::test]
async fn what_was_asked_for_once_is_not_asked_for_after_a_restart_without_it() {
    let metrics = PrometheusMetrics::new().unwrap();
    let options = ServerOptions::new().port(free_port()).bearer_token(TOKEN);
    let address = metrics.start_server_with(options).await.unwrap();
    metrics.stop_server().await.unwrap();
    assert_eq!(serve_again(&metrics, address.port()).await, address);
    assert_eq!(get(address, "/metrics").status, 200);
    metrics.stop_server().await.unwrap();
}

#[tokio::test]
async fn the_token_lets_nobody_guess_on_a_kept_connection() {
    let (metrics, address) = started(ServerOptions::new().bearer_token(TOKEN)).await;
    let mut connection = Connection::open(address);
    assert_eq!(connection.ask("GET", "/metrics", &[BEARER]).status, 200);
    assert_eq!(connection.ask("GET", "/metrics", &[]).status, 401, "each request must send it");
    assert_eq!(connection.ask("GET", "/metrics", &[BEARER, BEARER]).status, 401);
    metrics.stop_server().await.unwrap();
}
