//! Owns the report of a start: what was found, cut, damaged and lost.
//! Must not know how it was found.

use std::path::PathBuf;

use crate::model::TableId;

/// What [`Log::open`](crate::Log::open) has found. [`damages`](Self::damages) and [`gaps`](Self::gaps) are losses: report
/// them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// The random id of the folder. A position that names another one belongs to another log.
    pub incarnation: [u8; 16],
    /// The folder is new.
    pub is_new: bool,
    /// The log was closed, so no segment was read.
    pub is_clean: bool,
    /// Segments that were found.
    pub segments: u64,
    /// Blocks in them.
    pub blocks: u64,
    /// Bytes behind the last sync that were cut: what was being written when the process or the machine stopped. What something
    /// else has cut since looks the same, except below what the last clean close had: that counts as damage.
    pub torn_bytes: u64,
    /// The newest segments, if they are empty or have no more than a part of a header. They had no rows when the process or the
    /// machine stopped, unless something has cut or emptied them since the last clean close.
    pub unfinished_segments: Vec<UnfinishedSegment>,
    /// Damaged parts that had been synced. They are in the folder `quarantine`.
    pub damages: Vec<Damage>,
    /// Rows that are neither settled nor in the log.
    pub gaps: Vec<Gap>,
    /// The partitions of tables that have had rows.
    pub partitions: Vec<PartitionState>,
}

/// A segment that was being begun: [`Recovery::unfinished_segments`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnfinishedSegment {
    /// The segment.
    pub file: String,
    /// Its length, in bytes. A start moves it to the folder `quarantine`, or removes it if it is empty.
    pub length: u64,
}

/// A damaged part of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The segment.
    pub file: String,
    /// Where the part starts, in bytes.
    pub offset: u64,
    /// Its length, in bytes. 0 if the file is missing, or was cut at `offset` since the last clean close.
    pub length: u64,
    /// The copy; `None` if it could not be written.
    pub kept_in: Option<PathBuf>,
    /// An earlier start has kept it already.
    pub was_known: bool,
    /// The rows, if the damage has left their numbers.
    pub rows: Option<Gap>,
}

/// Rows that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// The table.
    pub table: TableId,
    /// The partition.
    pub partition: u32,
    /// The first sequence.
    pub first: u64,
    /// The last sequence.
    pub last: u64,
}

/// What the log knows about one partition of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionState {
    /// The table.
    pub table: TableId,
    /// Its name; empty if its record is lost.
    pub table_name: String,
    /// The partition.
    pub partition: u32,
    /// All rows up to this sequence are settled; 0: none.
    pub settled_up_to: u64,
    /// Rows that are not settled. Rows behind one of them may be settled.
    pub unsettled: u64,
    /// The sequence of the next row.
    pub next: u64,
}

/// How far the start is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes that were read.
    pub bytes: u64,
    /// Bytes of all segments.
    pub total_bytes: u64,
}
