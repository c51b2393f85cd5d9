//! Owns records of CSV that are kept together: their text in one piece, instead of three allocations each.
//! Must not know files or tables.

use csv::{ByteRecord, StringRecord};

/// Records with the number of their line.
#[derive(Debug, Default)]
pub(crate) struct CsvRecords {
    /// The fields of all records, one behind the other.
    text: Vec<u8>,
    /// Where each field ends in its record.
    ends: Vec<usize>,
    /// The line of each record, and where its text and its fields end.
    records: Vec<(u64, usize, usize)>,
    /// The line of the quote that is open at the end of the file, inside of the last record.
    pub(super) open_quote: Option<u64>,
    /// Records in which text follows the closing quote of a field, as they are in the file; one that is long has no text.
    pub(super) misquoted: Vec<(usize, Vec<u8>)>,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CsvRecord<'a> {
    pub(crate) line: u64,
    text: &'a [u8],
    ends: &'a [usize],
}

impl CsvRecords {
    pub(super) fn push(&mut self, record: &ByteRecord) {
        self.text.extend_from_slice(record.as_slice());
        let mut end = 0;
        self.ends.extend(record.iter().map(|field| {
            end += field.len();
            end
        }));
        let line = record.position().map_or(0, csv::Position::line);
        self.records.push((line, self.text.len(), self.ends.len()));
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Bytes of text.
    pub(super) fn bytes(&self) -> usize {
        self.text.len()
    }

    pub(super) fn get(&self, index: usize) -> CsvRecord<'_> {
        let (text, ends) = match index.checked_sub(1) {
            Some(before) => (self.records[before].1, self.records[before].2),
            None => (0, 0),
        };
        let (line, text_end, ends_end) = self.records[index];
        CsvRecord { line, text: &self.text[text..text_end], ends: &self.ends[ends..ends_end] }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = CsvRecord<'_>> {
        (0..self.len()).map(|index| self.get(index))
    }
}

impl<'a> CsvRecord<'a> {
    pub(crate) fn fields(self) -> impl ExactSizeIterator<Item = &'a [u8]> {
        let mut begin = 0;
        self.ends.iter().map(move |end| {
            let field = &self.text[begin..*end];
            begin = *end;
            field
        })
    }

    /// The record as text; `None`: it is not UTF-8.
    pub(super) fn to_text(self) -> Option<StringRecord> {
        StringRecord::from_byte_record(self.fields().collect()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_what_was_pushed() {
        let pushed: [&[&[u8]]; 5] = [&[b"a", b"", b"bc"], &[b""], &[], &[b"\xff", b"d"], &[b"e"]];
        let mut records = CsvRecords::default();
        for fields in pushed {
            records.push(&ByteRecord::from_iter(fields));
        }
        assert_eq!((records.len(), records.bytes()), (5, 6));
        let found: Vec<Vec<&[u8]>> = records.iter().map(|record| record.fields().collect()).collect();
        assert_eq!(found, pushed);
        assert!(records.get(3).to_text().is_none());
        assert_eq!(records.get(0).to_text().unwrap(), vec!["a", "", "bc"]);
    }
}
