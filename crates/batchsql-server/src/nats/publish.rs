//! Owns the sink of `[publish]`.
//! Must not know where rows come from.

use batchsql::nats::NatsSink;
use batchsql::{DynSink, Ordering};

use crate::config::nats_options;
use crate::config::settings::{Publish, Settings};
use crate::exit::Failure;
use crate::nats::{connect, stream};
use crate::table::target::table_name;

/// Connects, makes the stream if it is missing and may be made, and opens it. Waits while NATS does not answer.
///
/// # Errors
/// The login is refused, or the stream cannot be used.
///
/// # Cancel safety
/// The stream may be made.
pub(crate) async fn publisher(publish: &Publish, settings: &Settings) -> Result<DynSink, Failure> {
    let who = "[publish]";
    let context = connect::connect_waiting(&publish.nats, who).await?;
    stream::ready(&context, &publish.stream, who).await?;
    let options = nats_options::stream(&publish.stream);
    let sink = NatsSink::new(context, &options).await;
    let sink = sink.map_err(|error| Failure::failed(stream::refused(&publish.stream, &error)))?;
    Ok(DynSink::new(sink.ordered_tables(ordered(settings))))
}

/// The tables that keep the order of all of their rows, so that these are in one partition.
fn ordered(settings: &Settings) -> Vec<String> {
    let pipeline = &settings.pipeline;
    let names = settings.tables.iter().map(|table| table_name(table).to_string());
    let ordering =
        |name: &String| pipeline.tables.get(name).and_then(|table| table.ordering).unwrap_or(pipeline.ordering);
    names.filter(|name| ordering(name) == Ordering::PerTable).collect()
}
