//! Traces: the span of each batch goes to OpenTelemetry, linked to the requests that submitted its rows.
//!
//! ```sh
//! cargo run -p batchsql --example opentelemetry --features sqlite
//! ```
//!
//! The exporter prints to stdout. A service takes `opentelemetry-otlp` and a batch exporter instead; nothing else
//! changes. `docs/guides/tracing.md` lists the fields.

use std::time::Duration;

use batchsql::sqlite::SqliteSink;
use batchsql::{BatchSql, Row};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Instrument, info_span};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Row)]
#[row(table = "orders", key = "id", on_conflict = "update")]
struct Order {
    id: i64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let provider =
        SdkTracerProvider::builder().with_simple_exporter(opentelemetry_stdout::SpanExporter::default()).build();
    // The spans of batches have the level debug and the target `batchsql`.
    let wanted = Targets::new().with_target("batchsql", tracing::Level::DEBUG).with_default(tracing::Level::INFO);
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("shop")).with_filter(wanted);
    tracing_subscriber::registry().with(layer).init();

    let sink = SqliteSink::open("sqlite::memory:")?;
    sink.call(|connection| connection.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY)")).await?;
    let db = BatchSql::builder(sink).start()?;

    // Two requests, one batch. Only tracked rows are linked, and the span must still be open when the batch is written,
    // as it is while the request waits for the outcome.
    let request = async |id| {
        let receipt = db.submit_tracked(&Order { id }).await?;
        Ok::<_, batchsql::SubmitError>(receipt.await)
    };
    let (first, second) = tokio::join!(
        request(1).instrument(info_span!("POST /orders", order = 1)),
        request(2).instrument(info_span!("POST /orders", order = 2)),
    );
    eprintln!("{}, {}", first?, second?);

    db.close(Duration::from_secs(10)).await;
    // Sends what was not sent yet.
    provider.shutdown()?;
    Ok(())
}
