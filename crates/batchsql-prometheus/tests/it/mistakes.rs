//! Owns the checks of invalid options: each mistake has its own message, and none shows a secret.
//! Must not know certificates; `tls` does.

use std::net::IpAddr;
use std::time::Duration;

use batchsql_prometheus::{PrometheusError, PrometheusMetrics, ServerOptions};

async fn refused(options: ServerOptions) -> PrometheusError {
    let metrics = PrometheusMetrics::new().unwrap();
    let error = metrics.start_server_with(options.port(0)).await.unwrap_err();
    assert_eq!(metrics.server_address(), None, "nothing is served after {error}");
    error
}

fn addresses<const N: usize>(addresses: [&str; N]) -> [IpAddr; N] {
    addresses.map(|address| address.parse().unwrap())
}

#[tokio::test]
async fn each_mistake_says_what_is_wrong() {
    let new = ServerOptions::new;
    for (options, part) in [
        (new().bind([]), "at least one to bind(), or omit bind() for 127.0.0.1"),
        (new().bind(addresses(["127.0.0.1", "127.0.0.1"])), "bind() has 127.0.0.1 twice"),
        (new().bind(addresses(["127.0.0.1", "0.0.0.0"])), "0.0.0.0 already means every address"),
        (new().bind(addresses(["::", "127.0.0.1"])), ":: already means every address"),
        (new().bearer_token("t0ken").basic_auth("u", "t0ken"), "both a bearer token and basic auth"),
        (new().bearer_token(""), "the bearer token is empty"),
        (new().bearer_token("t0ken\n"), "a character at byte 6"),
        (new().bearer_token("t0ken with spaces"), "a character at byte 6"),
        (new().bearer_token("t0kén"), "a character at byte 4"),
        (new().bearer_token("t0ken".repeat(2_000)), "the bearer token would take more than 8 KiB"),
        (new().basic_auth("u", "t0ken".repeat(2_000)), "the user and password of basic auth would take more"),
        (new().basic_auth("", "t0ken"), "the user of basic auth is empty"),
        (new().basic_auth("a:b", "t0ken"), "has a colon"),
        (new().basic_auth("u", ""), "the password of basic auth is empty"),
        (new().basic_auth("u", "t0ken\r\n"), "control character"),
        (new().max_connections(0), "max_connections is 0"),
        (new().header_time(Duration::ZERO), "header_time is zero"),
        (new().answer_time(Duration::ZERO), "answer_time is zero"),
        (new().connection_age(Duration::ZERO), "connection_age is zero"),
    ] {
        let error = refused(options).await;
        let message = error.to_string();
        assert!(message.contains(part), "{message:?} does not contain {part:?}");
        assert!(error.is_invalid_options(), "{message}");
        assert!(!message.contains("t0k"), "{message}");
        assert_eq!(format!("{error:?}"), message, "as a main that returns the error prints it");
    }
}

#[tokio::test]
async fn an_address_of_another_machine_keeps_the_others_from_being_served() {
    // Reserved for documentation (RFC 5737), so no machine has it.
    let error = refused(ServerOptions::new().bind(addresses(["127.0.0.1", "192.0.2.1"]))).await;
    assert_eq!(error.address().unwrap().ip(), addresses(["192.0.2.1"])[0]);
    assert!(error.to_string().contains("this machine has no such address"), "{error}");
    assert!(!error.is_invalid_options(), "it may be valid on another machine");
}

#[tokio::test]
async fn limits_without_end_are_no_mistake() {
    let metrics = PrometheusMetrics::new().unwrap();
    let options = ServerOptions::new().port(0).max_connections(usize::MAX);
    let options = options.header_time(Duration::MAX).answer_time(Duration::MAX).connection_age(Duration::MAX);
    let address = metrics.start_server_with(options).await.unwrap();
    assert_eq!(crate::http::get(address, "/metrics").status, 200);
    metrics.stop_server().await.unwrap();
}

#[test]
fn options_are_shown_without_secrets() {
    let options = ServerOptions::new().bearer_token("t0ken").basic_auth("somebody", "pa55word");
    let shown = format!("{:?}", options.clone().tls_pem("certificate text", "pr1vate key text"));
    assert!(shown.contains("9090") && shown.contains("127.0.0.1") && shown.contains("Some(hidden)"), "{shown}");
    for secret in ["t0ken", "somebody", "pa55word", "certificate", "pr1vate"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    let shown = format!("{:?}", options.tls_pem_files("/etc/tls/cert.pem", "/etc/tls/key.pem"));
    assert!(shown.contains("/etc/tls/cert.pem"), "{shown}");
}
