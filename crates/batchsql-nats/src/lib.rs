//! NATS JetStream for BatchSQL: publishers put rows into a stream, and workers write them to a database, exactly once or at
//! least once.
//!
//! A pipeline with a [`NatsSink`] is a publisher. A [`Worker`] reads the stream and writes the rows with a pipeline of any
//! driver; any number of workers, on any machines, share the partitions. [`StreamOptions`] makes and checks the stream.
//!
//! # What is promised
//!
//! 1. A row that a publisher reported as `Written` is in the stream, on the disks of as many servers as the stream has replicas.
//!    Whether one disk has synced it is a setting of the server (`sync_interval`).
//! 2. A message whose answer was lost is stored once: it is stored behind the last message of its subject that the publisher
//!    knows, or not at all.
//! 3. Exactly once ([`WorkerOptions::exactly_once`]): each transaction moves the position of its partition in the database. A
//!    worker that has lost a partition, for example because it was frozen, can commit nothing any more.
//! 4. At least once: a message is acknowledged after its rows have ended. A worker that ends without that leaves them to
//!    another one. A frozen worker may write late: use [`Conflict::only_if_newer`](batchsql_core::Conflict::only_if_newer).
//! 5. Rows of a key are written in the order of the stream.
//! 6. Nothing is skipped silently. Exactly once, a partition stops where a message is missing, until
//!    [`WorkerOptions::accept_gaps`]. At least once a purge of messages that were not written is not noticed.
//! 7. Messages of other publishers are rows only with a [`MessageFormat`]; what is no row is in a file before the position passes it. An
//!    item of a message has the same number whatever the settings are: what has ended is not read again with other ones.
//! 8. A worker that does not reach NATS gives its partitions to others after [`WorkerOptions::release_after`] (exactly once), or
//!    the server gives its messages to others after [`WorkerOptions::ack_wait`] (at least once).
//!
//! # Memory
//!
//! A worker holds up to 8 MiB of messages per partition that it has (at least one message), 8 messages that the server sends ahead, and the
//! buffer of its pipeline. A message of another publisher is read in parts: of its rows, these 8 MiB and one part of about 1 MiB are held.
//!
//! # Modules
//!
//! `subject` and `message` have the names and bytes, described in `FORMAT.md`; `partition` the hash of keys; `stream` the settings
//! of a stream. Publishing: `chain` stores a message behind the last one, `sink` makes messages of rows. Reading: `link` makes
//! consumers, `source` is one partition for `batchsql-feed` (`held` is what it has read; `blocks` reads messages of
//! publishers, and `others`, `items` and `format` those of others), `partitions` has those of a worker, and `leases` decides which ones
//! they are; `worker` looks after them, and `closing` says when it has to end. `lag` and `monitor` say how far they are. `letters` has messages of another format, and
//! `bad_log` says which they are.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod acks;
mod bad_log;
mod blocks;
mod chain;
mod closing;
mod contact;
mod error;
mod format;
mod held;
mod items;
mod kept;
mod lag;
mod leases;
mod letters;
mod link;
mod message;
mod monitor;
mod options;
mod others;
mod partition;
mod partitions;
mod reached;
mod settings;
mod sink;
mod source;
mod stats;
mod stray;
mod stream;
mod subject;
mod tallies;
mod token;
mod worker;

/// The client, in the version of this crate. Switch on its features, for example `nkeys` for credentials, by depending on it too.
pub use async_nats;
pub use batchsql_feed::{FeedCounts, StoppedPartition};
pub use error::NatsError;
pub use format::{MessageFormat, MessageItems, OtherMessage, TakeItem};
pub use options::WorkerOptions;
pub use partitions::PartitionStats;
pub use sink::{NatsConn, NatsPlan, NatsSink};
pub use stats::WorkerStats;
pub use stray::StrayMessages;
pub use stream::{StreamCheck, StreamOptions};
pub use worker::Worker;

/// The README is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
