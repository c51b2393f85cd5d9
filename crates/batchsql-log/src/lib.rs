//! A segment log on local disk. It stores blocks of rows as bytes, per table and partition, and gives them back in order
//! after a crash.
//!
//! - [`Log::append`] returns a [`Ticket`]: a future that completes when the block is on disk. One thread writes: all that
//!   waits shares one write and one `fdatasync`.
//! - [`Log::append_group`] stores several blocks all or none, also across a crash, and with them keys that say that this was
//!   done: [`Log::key`] knows them for a limited time, also after a restart.
//! - [`Log::reader`] reads a partition back, through a window of bounded size.
//! - [`Log::settle`] says which rows have ended. Segments without other rows are removed.
//! - [`Recovery`] and [`LogStats`] report damage: a torn tail is cut, damaged bytes that were on disk are kept aside and
//!   counted, and missing rows are gaps. Nothing is dropped silently.
//!
//! `FORMAT.md` in the repository describes the files. [`tools`] reads them without opening the log.
//!
//! # Modules
//!
//! `log` (with `append`) and `reader` are what callers hold. `writer` is the thread: it takes what waits (`shared`, `group`) and gives it to
//! `engine`, which writes and syncs, `segments`, which starts and removes files, and `failure`, which handles failed calls; `active` makes
//! bytes of it, and `beginning` what a segment starts with. `upkeep` frees space, and `aside` moves rows that wait for long. `recover` reads a
//! folder at the start, with `scan` and `quarantine`; `folder` has its lock and identity. `catalog` is what is known in
//! memory: numbers per stream and segment; `keys`, the keys. `format` has the bytes, `fs` the file system.

mod active;
mod append;
mod aside;
mod beginning;
mod catalog;
mod completion;
mod end;
mod engine;
mod error;
mod failure;
mod folder;
mod format;
mod fs;
mod group;
mod keys;
mod log;
mod model;
mod options;
mod partition;
mod quarantine;
mod ranges;
mod reader;
mod ready;
mod recover;
mod recovery;
mod scan;
mod segments;
mod shared;
mod space;
mod stats;
pub mod tools;
mod upkeep;
mod watch;
mod writer;

pub use append::{Refused, RefusedGroup};
pub use completion::{Completion, Ticket};
pub use error::{LogError, LogErrorKind};
pub use fs::{Access, File, FileSystem, Lock, RealFileSystem};
pub use log::Log;
pub use model::{Appended, Block, Key, SchemaId, StoredBlock, StoredKey, TableId};
pub use options::{Options, SyncPolicy};
pub use partition::partition_of;
pub use reader::{From, Next, Reader};
pub use ready::Ready;
pub use recovery::{Damage, Gap, PartitionState, Progress, Recovery, UnfinishedSegment};
pub use space::Space;
pub use stats::{LogStats, SYNC_BUCKETS_MICROS, SyncLatency};

/// The README is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
