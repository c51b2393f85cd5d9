//! Owns the methods to determine the outcome of each row.
//! Must not know statements or tables.

/// How the outcome of each row is determined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutcomeSource {
    /// Every row is written, or the statement fails.
    Total,
    /// Rows may be ignored; the inserted ones are identified by their keys.
    Keys,
    /// Rows may be ignored and cannot be identified by their keys, or two of them may be one to the server: the statement returns
    /// the numbers of the rows that it has written.
    Numbers,
}
