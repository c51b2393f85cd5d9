//! Owns the ids of lanes and groups within one pipeline.
//! Must not know what they identify.

/// One lane of one table, by the table's number and the lane's position in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaneId {
    pub(crate) table: usize,
    pub(crate) lane: usize,
}

/// The rows of one schema within one pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GroupId(pub(crate) usize);
