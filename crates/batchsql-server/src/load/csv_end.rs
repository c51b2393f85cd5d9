//! Owns how it is found out whether a CSV file ends inside of quotes.
//! Must not know files or tables.

use csv::ByteRecord;

/// Why the last record is refused.
pub(super) fn not_closed(line: u64) -> String {
    format!("the quote that was opened in line {line} is not closed")
}

/// The CSV reader does not say whether a file ends inside of quotes. So this follows the file: it is a record of its own, or the
/// end of the field whose quote is open. It is no UTF-8, and no delimiter.
pub(super) const END: &[u8] = b"\n\xff";

/// What the last record of a file says of its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LastRecord {
    /// It is `END`: every quote is closed.
    End,
    /// `END` is in its last field, which begins in this line.
    OpenQuote { line: u64 },
    /// It is not the last record.
    Other,
}

impl LastRecord {
    pub(super) fn of(record: &ByteRecord) -> Self {
        let Some(last) = record.iter().next_back() else { return Self::Other };
        if record.len() == 1 && last == &END[1..] {
            return Self::End;
        }
        if !last.ends_with(END) {
            return Self::Other;
        }
        let before = &record.as_slice()[..record.as_slice().len() - last.len()];
        let lines = before.iter().filter(|byte| **byte == b'\n').count() as u64;
        Self::OpenQuote { line: record.position().map_or(1, csv::Position::line) + lines }
    }
}

/// Removes what follows the file from its last field.
pub(super) fn without_end(record: &mut ByteRecord) {
    let mut fields: Vec<Vec<u8>> = record.iter().map(<[u8]>::to_vec).collect();
    if let Some(last) = fields.last_mut() {
        last.truncate(last.len().saturating_sub(END.len()));
    }
    let position = record.position().cloned();
    *record = ByteRecord::from(fields);
    record.set_position(position);
}
