//! Owns the ways to know the outcome of each row.
//! Must not know statements or tables.

/// How the outcome of each row is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutcomeSource {
    /// Every row is written, or the statement fails.
    Total,
    /// Rows may be ignored; the inserted ones are known by their keys.
    Keys,
    /// Rows may be ignored, and are not known by their keys: parts are written that are inserted whole or not at all.
    Parts,
}
