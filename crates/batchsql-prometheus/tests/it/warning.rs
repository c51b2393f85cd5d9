//! Owns the check of the warning about metrics that everyone can read.
//! Must not know other events.

use std::fmt::{Debug, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use batchsql_prometheus::{PrometheusMetrics, ServerOptions};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::set_default;
use tracing::{Event, Level, Metadata, Subscriber};

/// Collects the warnings of a thread.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

struct Text<'a>(&'a mut String);

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = String::new();
        event.record(&mut Text(&mut text));
        self.0.lock().unwrap().push(text);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

async fn warnings_of(options: ServerOptions) -> Vec<String> {
    let warnings = Warnings::default();
    let _guard = set_default(warnings.clone());
    let metrics = PrometheusMetrics::new().unwrap();
    metrics.start_server_with(options.port(0)).await.unwrap();
    metrics.stop_server().await.unwrap();
    warnings.0.lock().unwrap().clone()
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
