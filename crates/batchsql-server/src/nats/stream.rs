//! Owns how the stream of a configuration is made or checked, and what is said about it.
//! Must not know who reads or writes it.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::Context;
use batchsql::TableName;
use batchsql::nats::NatsError;
use tokio::time::sleep;

use crate::config::nats_options;
use crate::config::nats_sections::Stream;
use crate::exit::Failure;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Makes the stream if it is missing and may be made, and checks it. Waits while the server does not answer.
///
/// # Errors
/// It is missing, or has settings with which rows would be lost.
///
/// # Cancel safety
/// The stream may be made.
pub(crate) async fn ready(context: &Context, stream: &Stream, who: &str) -> Result<(), Failure> {
    let options = nats_options::stream(stream);
    let mut pause = FIRST_PAUSE;
    loop {
        let checked = match stream.create {
            Some(_) => options.create(context).await,
            None => options.check_existing(context).await,
        };
        match checked {
            Ok(_) => return Ok(()),
            Err(error) if error.is_away() => tracing::warn!("{who} waits for NATS: {error}"),
            Err(error) => return Err(Failure::failed(refused(stream, &error))),
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// What is wrong with the stream, in the words of the configuration.
pub(crate) fn refused(stream: &Stream, error: &NatsError) -> String {
    if error.is_missing() {
        return format!(
            "there is no stream {}; correct its name, or give it `create = {{ replicas = 3 }}`, and `run` makes it",
            stream.name
        );
    }
    error.to_string()
}

/// What is to be said if the stream has tables that are not among these, which are written: their rows stay in it.
///
/// # Errors
/// The server does not answer.
///
/// # Cancel safety
/// Dropping it is safe.
pub(crate) async fn unread(
    context: &Context,
    stream: &Stream,
    written: &BTreeSet<String>,
) -> Result<Option<String>, NatsError> {
    let tables = nats_options::stream(stream).tables(context).await?;
    let others = tables.iter().map(ToString::to_string).filter(|table| !written.contains(table));
    let others: Vec<String> = others.collect();
    Ok((!others.is_empty()).then(|| {
        format!(
            "it has rows of tables that are not written here: {}; unless other workers write them, add them to [[tables]], or \
             they stay in the stream until it is full",
            others.join(", ")
        )
    }))
}

/// What is to be said if messages of these tables, or of none, are of no partition of the stream: no worker reads them.
///
/// # Errors
/// The server does not answer.
///
/// # Cancel safety
/// Dropping it is safe.
pub(crate) async fn stray(
    context: &Context,
    stream: &Stream,
    written: &BTreeSet<String>,
) -> Result<Option<String>, NatsError> {
    let is_written = |table: &TableName| written.contains(&table.to_string());
    let found = nats_options::stream(stream).stray_messages(context, is_written).await?;
    let (messages, last) = (found.messages, stream.partitions.saturating_sub(1));
    let mut named: Vec<&str> = found.named.iter().map(String::as_str).collect();
    let more = found.subjects - named.len() as u64;
    let more = format!("{more} more");
    if found.subjects > named.len() as u64 {
        named.push(&more);
    }
    Ok((messages > 0).then(|| {
        format!(
            "{messages} messages are of no partition, so no worker writes them: {}; partitions are 0 to {last}; correct who \
             publishes them, publish them again, and remove them",
            named.join(", ")
        )
    }))
}
