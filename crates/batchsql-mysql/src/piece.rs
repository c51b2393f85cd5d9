//! Owns the split of rows into statements that the server accepts.
//! Must not know connections or transactions.

use std::ops::Range;

use batchsql_core::{ErrorClass, Rows, SinkError};
use batchsql_sql::pieces;

use crate::bind::{PACKET_HEADER, row_bytes, views};
use crate::classify::Failed;
use crate::plan::MySqlPlan;

/// Rows that fit into one statement.
pub(crate) struct Piece {
    pub(crate) rows: Range<usize>,
    pub(crate) bytes: usize,
    /// The size of each row in bytes.
    row_bytes: Vec<usize>,
}

impl Piece {
    /// Splits the piece into statements that stay prepared.
    pub(crate) fn split(self, plan: &MySqlPlan) -> impl Iterator<Item = Self> {
        let (len, first) = (self.rows.len(), self.rows.start);
        let mut next = first;
        plan.split(len).into_iter().map(move |size| {
            let start = next;
            next += size;
            let row_bytes = self.row_bytes[start - first..next - first].to_vec();
            Self { rows: start..next, bytes: row_bytes.iter().sum(), row_bytes }
        })
    }
}

/// The rows that are larger than a packet.
pub(crate) fn too_large(plan: &MySqlPlan, rows: Rows<'_>) -> Vec<(u32, SinkError)> {
    let views = views(rows, &plan.storage);
    let large = |row: u32| Some(row_bytes(&views, row as usize)).filter(|bytes| *bytes > packet_limit(plan));
    let rows = u32::try_from(rows.len()).expect("buffer_size fits u32");
    (0..rows).filter_map(|row| Some((row, size_error(plan, large(row)?)))).collect()
}

fn packet_limit(plan: &MySqlPlan) -> usize {
    plan.max_allowed_packet.saturating_sub(PACKET_HEADER)
}

fn size_error(plan: &MySqlPlan, bytes: usize) -> SinkError {
    let text = format!(
        "a row of {bytes} bytes exceeds the server's max_allowed_packet = {}; raise it, or split the row",
        plan.max_allowed_packet
    );
    SinkError::new(ErrorClass::Size, text)
}

/// Splits rows into statements that the server accepts.
pub(crate) fn cut(plan: &MySqlPlan, rows: Rows<'_>) -> Result<Vec<Piece>, Failed> {
    let views = views(rows, &plan.storage);
    let bytes: Vec<usize> = (0..rows.len()).map(|row| row_bytes(&views, row)).collect();
    let sum = |rows: &Range<usize>| bytes[rows.clone()].iter().sum();
    let pieces: Vec<Piece> = pieces(bytes.iter().copied(), plan.max_rows, plan.max_bytes)
        .into_iter()
        .map(|rows| Piece { bytes: sum(&rows), row_bytes: bytes[rows.clone()].to_vec(), rows })
        .collect();
    // A row larger than the preferred size is its own piece; only the server's limit applies to it.
    match pieces.iter().find(|piece| piece.bytes > packet_limit(plan)) {
        None => Ok(pieces),
        Some(piece) => Err(Failed::unsent(size_error(plan, piece.bytes))),
    }
}
