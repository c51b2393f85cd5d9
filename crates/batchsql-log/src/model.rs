//! Owns the names of tables and streams, and the blocks that go in and come out.
//! Must not know files and threads.

use std::{fmt, sync::Arc, time::SystemTime};

/// A table, as the log numbers it; from [`Log::table`](crate::Log::table).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub(crate) u32);

/// A schema, as the log numbers it; from [`Log::schema`](crate::Log::schema).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaId(pub(crate) u32);

/// A partition of a table: what has an order and sequences of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Stream {
    pub(crate) table: u32,
    pub(crate) partition: u32,
}

/// A segment: one of the log itself, or the rows of one stream that were moved out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileKey {
    pub(crate) number: u64,
    pub(crate) side: Option<Stream>,
}

impl FileKey {
    pub(crate) fn main(number: u64) -> Self {
        FileKey { number, side: None }
    }

    /// The number of the segment as it goes into checksums.
    pub(crate) fn tag(self) -> u64 {
        const SIDE: u64 = 1 << 63;
        if self.side.is_some() { self.number | SIDE } else { self.number }
    }
}

/// Some rows of one table and partition, as bytes that the log does not look into.
#[derive(Clone, PartialEq, Eq)]
pub struct Block {
    /// The table of the rows.
    pub table: TableId,
    /// The partition, below [`Options::partitions`](crate::Options::partitions).
    pub partition: u32,
    /// How the bytes are read.
    pub schema: SchemaId,
    /// The number of rows, at least 1. Each has a sequence of its own.
    pub count: u32,
    /// The rows.
    pub bytes: Vec<u8>,
}

/// Without the bytes: they are values of the caller.
impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("table", &self.table)
            .field("partition", &self.partition)
            .field("schema", &self.schema)
            .field("count", &self.count)
            .field("bytes", &format_args!("{} bytes", self.bytes.len()))
            .finish()
    }
}

impl Block {
    pub(crate) fn stream(&self) -> Stream {
        Stream { table: self.table.0, partition: self.partition }
    }
}

/// Bytes that are stored with a group of blocks, and known for as long as [`Options::keys`](crate::Options::keys) says; for
/// [`Log::append_group`](crate::Log::append_group). The log does not look into them.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// What it is found by, 1 to 1,024 bytes. A later group with the same key takes its place.
    pub key: Vec<u8>,
    /// What is returned, up to 1,024 bytes.
    pub value: Vec<u8>,
}

/// Without the bytes: they are values of the caller.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("key", &format_args!("{} bytes", self.key.len()))
            .field("value", &format_args!("{} bytes", self.value.len()))
            .finish()
    }
}

/// A key that is known; from [`Log::key`](crate::Log::key).
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredKey {
    /// As it was given.
    pub value: Vec<u8>,
    /// When it was stored.
    pub time: SystemTime,
}

/// Without the bytes: they are values of the caller.
impl fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredKey")
            .field("value", &format_args!("{} bytes", self.value.len()))
            .field("time", &self.time)
            .finish()
    }
}

/// Where the rows of a block are in their partition. Sequences start at 1 and have no holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// The sequence of the first row.
    pub first: u64,
    /// The sequence of the last row.
    pub last: u64,
    /// When the block was written, as [`StoredBlock::time`].
    pub time: SystemTime,
}

/// A block that was read back.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredBlock {
    /// The sequence of the first row.
    pub first: u64,
    /// The number of rows.
    pub count: u32,
    /// The schema, as the log numbers it.
    pub schema: SchemaId,
    /// The bytes that [`Log::schema`](crate::Log::schema) was given; `None` if their record is lost.
    pub schema_bytes: Option<Arc<[u8]>>,
    /// When the block was written.
    pub time: SystemTime,
    /// The rows.
    pub bytes: Vec<u8>,
}

/// Without the bytes: they are values of the caller.
impl fmt::Debug for StoredBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredBlock")
            .field("first", &self.first)
            .field("count", &self.count)
            .field("schema", &self.schema)
            .field("time", &self.time)
            .field("bytes", &format_args!("{} bytes", self.bytes.len()))
            .finish()
    }
}

impl StoredBlock {
    /// The sequence of the last row.
    pub fn last(&self) -> u64 {
        self.first + u64::from(self.count) - 1
    }
}
