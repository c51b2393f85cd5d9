//! Owns the worker of a source of a stream: its options, and its start.
//! Must not know how it ends.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use batchsql::nats::{Worker, WorkerOptions};
use batchsql::{BatchSqlBuilder, DynSink};

use crate::config::nats_options;
use crate::config::nats_sections::Messages;
use crate::config::settings::JetStream;
use crate::exit::Failure;
use crate::nats::json::JsonMessages;
use crate::nats::{connect, stream};
use crate::table::target::Target;

/// Of the name of this machine in that of a worker.
const LONGEST_HOST: usize = 60;

/// The options without those of a person at the command line.
fn options(source: &JetStream, written: Vec<Arc<Target>>) -> WorkerOptions {
    let options = nats_options::worker(source);
    let options = if source.worker.is_none() { options.owner(new_name()) } else { options };
    let tables: Vec<String> = written.iter().map(|table| table.schema.table().to_string()).collect();
    let options = options.tables(tables);
    let options = written.iter().fold(options, |options, table| options.schema(table.schema.clone()));
    match source.format {
        Messages::Blocks => options,
        Messages::Json => options.format(JsonMessages::new(written, source.decompressed)),
    }
}

/// Connects, and starts the worker. Waits while NATS does not answer.
///
/// # Errors
/// The login is refused, the stream cannot be used, or the dead-letter file cannot be opened.
///
/// # Cancel safety
/// Nothing was read.
pub(crate) async fn start(
    id: &str,
    source: &JetStream,
    builder: BatchSqlBuilder<DynSink>,
    tables: Vec<Arc<Target>>,
    accept_gaps: bool,
) -> Result<Worker, Failure> {
    let who = format!("source {id}");
    let context = connect::connect_waiting(&source.nats, &who).await?;
    stream::ready(&context, &source.stream, &who).await?;
    let written: BTreeSet<String> = tables.iter().map(|table| table.schema.table().to_string()).collect();
    match stream::unread(&context, &source.stream, &written).await {
        Ok(None) => {}
        Ok(Some(text)) => tracing::warn!(source = id, stream = source.stream.name, "{text}"),
        Err(error) => tracing::debug!(%error, source = id, "it is not known which tables the stream has"),
    }
    let options = options(source, tables).accept_gaps(accept_gaps);
    let started = Worker::start(context, builder, options).await;
    started.map_err(|error| Failure::failed(stream::refused(&source.stream, &error)))
}

/// A name that no other process has, now or later: two workers with one name would take the partitions from each other all the
/// time. The number of the process is not enough, as it is 1 in many containers.
fn new_name() -> String {
    let system = rustix::system::uname();
    let host: String =
        system.nodename().to_string_lossy().chars().filter(|letter| !letter.is_control()).take(LONGEST_HOST).collect();
    // The keys of the standard hasher are random.
    let random = RandomState::new().hash_one(std::time::SystemTime::now()) as u32;
    format!("{}-{}-{random:08x}", host.trim(), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_workers_are_told_apart() {
        let (one, other) = (new_name(), new_name());
        assert_ne!(one, other);
        assert!(one.contains(&format!("-{}-", std::process::id())) && one.len() <= 100, "{one}");
    }
}
