//! Owns the sink of `[publish]`.
//! Must not know where rows come from.

use batchsql::nats::NatsSink;
use batchsql::{DynSink, Ordering};

use crate::config::nats_options;
use crate::config::settings::{Publish, Settings};
use crate::exit::{Exit, Failure};
use crate::nats::opening::OpeningSink;
use crate::nats::publisher::Publisher;
use crate::nats::{connect, stream};
use crate::table::target::table_name;

/// The sink of a stream. Without a log, rows that are accepted are nowhere but in memory: so it waits while NATS does not answer.
/// With a log the stream is opened later.
///
/// # Errors
/// The login is refused, or the stream cannot be used.
///
/// # Cancel safety
/// The stream may be made.
pub(crate) async fn publisher(publish: &Publish, settings: &Settings) -> Result<Publisher, Failure> {
    let (publish, ordered) = (publish.clone(), ordered(settings));
    if settings.durable.is_none() {
        let sink = DynSink::new(open(&publish, ordered).await?);
        return Ok(Publisher { sink, opening: None });
    }
    let sink = OpeningSink::new(publish.stream.partitions);
    let opened = sink.clone();
    let opening = Box::pin(async move {
        opened.open(open(&publish, ordered).await?);
        tracing::info!(stream = publish.stream.name, "publishing to a stream");
        Ok(Exit::Done)
    });
    Ok(Publisher { sink: DynSink::new(sink), opening: Some(opening) })
}

/// Connects, makes the stream if it is missing and may be made, and opens it.
async fn open(publish: &Publish, ordered: Vec<String>) -> Result<NatsSink, Failure> {
    let who = "[publish]";
    let context = connect::connect_waiting(&publish.nats, who).await?;
    stream::ready(&context, &publish.stream, who).await?;
    let sink = NatsSink::new(context, &nats_options::stream(&publish.stream)).await;
    let sink = sink.map_err(|error| Failure::failed(stream::refused(&publish.stream, &error)))?;
    Ok(sink.ordered_tables(ordered))
}

/// The tables that keep the order of all of their rows, so that these are in one partition.
fn ordered(settings: &Settings) -> Vec<String> {
    let pipeline = &settings.pipeline;
    let names = settings.tables.iter().map(|table| table_name(table).to_string());
    let ordering =
        |name: &String| pipeline.tables.get(name).and_then(|table| table.ordering).unwrap_or(pipeline.ordering);
    names.filter(|name| ordering(name) == Ordering::PerTable).collect()
}
