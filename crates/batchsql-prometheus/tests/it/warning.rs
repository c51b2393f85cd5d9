//! Owns the check of the warning about metrics that everyone can read.
//! Must not know other events.

use std::net::{IpAddr, Ipv4Addr};

use batchsql_prometheus::{PrometheusMetrics, ServerOptions};
use batchsql_testserver::{Warnings, subscribe};

async fn warnings_of(options: ServerOptions) -> Vec<String> {
    let warnings = Warnings::of("batchsql_prometheus");
    let _guard = subscribe(warnings.clone());
    let metrics = PrometheusMetrics::new().unwrap();
    metrics.start_server_with(options.port(0)).await.unwrap();
    metrics.stop_server().await.unwrap();
    warnings.taken()
}

#[tokio::test]
async fn what_everyone_can_read_is_a_warning() {
    let everywhere = || ServerOptions::new().bind([IpAddr::from(Ipv4Addr::UNSPECIFIED)]);
    let warnings = warnings_of(everywhere()).await;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("0.0.0.0:") && warnings[0].contains("bearer token or a password"), "{warnings:?}");
    assert_eq!(warnings_of(everywhere().bearer_token("s3cret")).await, [""; 0]);
    assert_eq!(warnings_of(everywhere().basic_auth("u", "s3cret")).await, [""; 0]);
    assert_eq!(warnings_of(ServerOptions::new()).await, [""; 0]);
}
