//! Owns the options of the library that settings of streams stand for.
//! Must not know how they are checked or used.

use batchsql::nats::{StreamOptions, WorkerOptions};

use crate::config::nats_sections::{Guarantee, KeepFor, Stream};
use crate::config::settings::JetStream;

pub(crate) fn stream(stream: &Stream) -> StreamOptions {
    let options = StreamOptions::new(&*stream.name).prefix(&*stream.prefix).partitions(stream.partitions);
    let Some(create) = &stream.create else { return options };
    let options = options.replicas(create.replicas);
    match create.max_bytes {
        Some(bytes) => options.max_bytes(bytes),
        None => options,
    }
}

/// Without tables, which are read from the database.
pub(crate) fn worker(source: &JetStream) -> WorkerOptions {
    let options = WorkerOptions::new(stream(&source.stream), &source.dead_letters).source(&*source.source);
    let options = options.lease(source.lease).ack_wait(source.ack_wait).keep_for(match source.keep_for {
        KeepFor::Time(time) => Some(time),
        KeepFor::Forever => None,
    });
    let options = match &source.worker {
        Some(name) => options.owner(&**name),
        None => options,
    };
    match source.guarantee {
        Guarantee::ExactlyOnce => options.exactly_once(),
        Guarantee::AtLeastOnce => options,
    }
}
