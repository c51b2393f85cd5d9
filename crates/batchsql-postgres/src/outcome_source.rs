//! Owns the methods to determine the outcome of each row.
//! Must not know statements or tables.

/// How the outcome of each row is determined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutcomeSource {
    /// Every row is written, or the statement fails.
    Total,
    /// Rows may be ignored; the inserted ones are identified by their keys.
    Keys,
    /// Rows may be ignored and cannot be identified by their keys: the statement notes the number of each row before it
    /// inserts it.
    Numbers,
    /// Rows may be ignored, and two of them may be one to the server: they are written in parts that are updated whole or not
    /// at all.
    Parts,
}
