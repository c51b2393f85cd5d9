//! Owns the names by which batches, lanes and groups are known within one pipeline.
//! Must not know what they name.

/// One lane of one table, by the table's number and the lane's place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaneId {
    pub(crate) table: usize,
    pub(crate) lane: usize,
}

/// The rows of one schema within one pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GroupId(pub(crate) usize);
