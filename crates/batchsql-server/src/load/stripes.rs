//! Owns how a file is read in stripes of records.
//! Must not know tables or rows.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use csv::ByteRecord;

use crate::load::csv_end::{END, LastRecord, not_closed, without_end};
use crate::load::csv_quotes::{MISQUOTED, Quotes};
use crate::load::csv_records::CsvRecords;
use crate::load::layout::BLOCK;

/// Text of a stripe, after which it ends also within its block.
pub(super) const STRIPE_BYTES: usize = 4 << 20;
/// The longest record.
const LONGEST: usize = 16 << 20;

/// Records of a block that follow each other: they are written together.
#[derive(Debug)]
pub(crate) struct Stripe {
    /// The number of the first record, from 1; the header of a CSV file is none.
    pub(crate) first: u64,
    pub(crate) records: Records,
    /// Bytes of the file that were read until its end.
    pub(crate) read: u64,
}

/// The records, with the number of their line.
#[derive(Debug)]
pub(crate) enum Records {
    Lines(Vec<(u64, Line)>),
    Csv(CsvRecords),
    /// Rows of a Parquet or Arrow file, which has no lines.
    #[cfg(feature = "arrow")]
    Rows(arrow_array::RecordBatch),
}

/// A line of NDJSON.
#[derive(Debug)]
pub(crate) enum Line {
    Text(Vec<u8>),
    /// It is above the limit, and was not kept.
    TooLong,
}

impl Stripe {
    pub(crate) fn len(&self) -> usize {
        match &self.records {
            Records::Lines(lines) => lines.len(),
            Records::Csv(records) => records.len(),
            #[cfg(feature = "arrow")]
            Records::Rows(batch) => batch.num_rows(),
        }
    }

    /// The number of the last record.
    pub(crate) fn last(&self) -> u64 {
        self.first + self.len() as u64 - 1
    }

    /// The line of a record, or the number of a row, and its text, for a person.
    pub(crate) fn text(&self, record: u64) -> (u64, String) {
        let index = (record - self.first) as usize;
        match &self.records {
            Records::Lines(lines) => match &lines[index] {
                (line, Line::Text(text)) => (*line, String::from_utf8_lossy(text).into_owned()),
                (line, Line::TooLong) => (*line, String::new()),
            },
            Records::Csv(records) => {
                let misquoted = records.misquoted.binary_search_by_key(&index, |(index, _)| *index).ok();
                let record = records.get(index);
                if let Some(text) = misquoted.map(|at| &records.misquoted[at].1).filter(|text| !text.is_empty()) {
                    return (record.line, String::from_utf8_lossy(text).into_owned());
                }
                let mut writer = csv::Writer::from_writer(Vec::new());
                let written = writer.write_record(record.fields()).ok().and_then(|()| writer.into_inner().ok());
                (record.line, String::from_utf8_lossy(&written.unwrap_or_default()).trim_end().to_owned())
            }
            #[cfg(feature = "arrow")]
            Records::Rows(batch) => (record, batchsql::arrow::Mapping::text(batch, index)),
        }
    }
}

/// Reads NDJSON. Empty lines are no records. `next` gets each stripe, and says whether it wants more.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn lines(from: impl Read, read: &AtomicU64, mut next: impl FnMut(Stripe) -> bool) -> io::Result<()> {
    let mut from = BufReader::with_capacity(1 << 20, from);
    let (mut line, mut first) = (0, 1);
    let (mut records, mut bytes) = (Vec::new(), 0);
    loop {
        let mut text = Vec::new();
        let is_end = (&mut from).take(LONGEST as u64 + 1).read_until(b'\n', &mut text)? == 0;
        line += 1;
        if text.len() > LONGEST && !text.ends_with(b"\n") {
            skip_line(&mut from)?;
            records.push((line, Line::TooLong));
        } else if !text.trim_ascii().is_empty() {
            text.truncate(text.trim_ascii_end().len());
            bytes += text.len();
            records.push((line, Line::Text(text)));
        }
        if is_full(first, records.len(), bytes) || (is_end && !records.is_empty()) {
            let records = Records::Lines(std::mem::take(&mut records));
            let stripe = Stripe { first, records, read: read.load(Ordering::Relaxed) };
            (first, bytes) = (stripe.last() + 1, 0);
            if !next(stripe) {
                return Ok(());
            }
        }
        if is_end {
            return Ok(());
        }
    }
}

/// Whether a stripe with this first record ends: with its block, or because it has enough text.
fn is_full(first: u64, records: usize, bytes: usize) -> bool {
    let next = first - 1 + records as u64;
    records > 0 && (next.is_multiple_of(BLOCK) || bytes >= STRIPE_BYTES)
}

fn skip_line(from: &mut impl BufRead) -> io::Result<()> {
    loop {
        let part = from.fill_buf()?;
        let (length, is_end) = match part.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (part.len(), part.is_empty()),
        };
        from.consume(length);
        if is_end {
            return Ok(());
        }
    }
}

/// Reads CSV with a header. `header` gets it first, and may refuse it. A quote that is open at the end of the file is marked in the
/// last record.
///
/// # Errors
/// The file cannot be read, or the header is refused.
pub(crate) fn csv(
    from: impl Read,
    delimiter: u8,
    read: &AtomicU64,
    header: impl FnOnce(&csv::StringRecord) -> Result<(), String>,
    mut next: impl FnMut(Stripe) -> bool,
) -> io::Result<()> {
    let since = Arc::new(AtomicU64::new(0));
    let quotes = Quotes::new(delimiter);
    let bounded = Bounded { from, since: Arc::clone(&since), end: None, quotes, record: 0, part: Vec::new(), given: 0 };
    let mut reader = csv::ReaderBuilder::new();
    let mut reader = reader.delimiter(delimiter).flexible(true).buffer_capacity(1 << 20).from_reader(bounded);
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
    let mut names = reader.byte_headers()?.clone();
    let mut ended = Ended::of(&reader, &mut names);
    match LastRecord::of(&names) {
        LastRecord::OpenQuote { line } => return Err(invalid(format!("the header: {}", not_closed(line)))),
        LastRecord::End => return header(&csv::StringRecord::new()).map_err(invalid),
        LastRecord::Other => header(reader.headers()?).map_err(invalid)?,
    }
    let end = reader.position().byte();
    if reader.get_mut().quotes.take(0, end).is_some() {
        return Err(invalid(format!("the header: {MISQUOTED}")));
    }
    let mut first = 1;
    let (mut records, mut record, mut ahead) = (CsvRecords::default(), Found::default(), Found::default());
    let mut next_record = |found: &mut Found| {
        since.store(0, Ordering::Relaxed);
        // What is left of the line of the record before this one is not a line of it.
        let (line, begin) = (reader.position().line() + u64::from(ended == Ended::Return), reader.position().byte());
        reader.get_mut().record = begin;
        let read = reader.read_byte_record(&mut found.record);
        let end = reader.position().byte();
        found.misquoted = reader.get_mut().quotes.take(begin, end);
        read.map_err(|error| match since.load(Ordering::Relaxed) > LONGEST as u64 {
            // Such a record has no position, but the line where it begins.
            true => io::Error::new(io::ErrorKind::InvalidData, format!("line {line}: {error}")),
            false => io::Error::from(error),
        })
        .inspect(|_| ended = Ended::of(&reader, &mut found.record))
    };
    let mut has_more = next_record(&mut record)?;
    loop {
        // The end is known when nothing comes behind the record.
        let has_other = has_more && next_record(&mut ahead)?;
        if has_more && !has_other {
            match LastRecord::of(&record.record) {
                LastRecord::End => has_more = false,
                LastRecord::OpenQuote { line } => {
                    records.open_quote = Some(line);
                    without_end(&mut record.record);
                }
                LastRecord::Other => {}
            }
        }
        if has_more {
            records.misquoted.extend(record.misquoted.take().map(|text| (records.len(), text)));
            records.push(&record.record);
        }
        if is_full(first, records.len(), records.bytes()) || (!has_more && records.len() > 0) {
            let records = Records::Csv(std::mem::take(&mut records));
            let stripe = Stripe { first, records, read: read.load(Ordering::Relaxed) };
            first = stripe.last() + 1;
            if !next(stripe) {
                return Ok(());
            }
        }
        if !has_more {
            return Ok(());
        }
        std::mem::swap(&mut record, &mut ahead);
        has_more = has_other;
    }
}

/// What a record ended with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Feed,
    /// A line feed may follow, which the CSV reader takes as a part of the next record.
    Return,
    Other,
}

impl Ended {
    /// Of the record that was read last. It gets the line of its first field: the reader has that where the record before it has ended,
    /// so before a line feed and empty lines.
    fn of<R: Read>(reader: &csv::Reader<Bounded<R>>, record: &mut ByteRecord) -> Self {
        let end = reader.position();
        let ended = match reader.get_ref().given_before(end.byte()) {
            Some(b'\n') => Self::Feed,
            Some(b'\r') => Self::Return,
            _ => Self::Other,
        };
        let within = record.as_slice().iter().filter(|byte| **byte == b'\n').count() as u64;
        if let Some(mut position) = record.position().cloned() {
            let line = end.line().saturating_sub(within + u64::from(ended == Self::Feed));
            position.set_line(line.max(position.line()));
            record.set_position(Some(position));
        }
        ended
    }
}

/// A record that was read.
#[derive(Default)]
struct Found {
    record: ByteRecord,
    /// Text follows the closing quote of a field.
    misquoted: Option<Vec<u8>>,
}

/// A quote without its end would make one record of the rest of the file, so a record has a limit.
struct Bounded<R> {
    from: R,
    /// Bytes since the last record was complete.
    since: Arc<AtomicU64>,
    /// What is left of `END`, when the file has ended.
    end: Option<&'static [u8]>,
    quotes: Quotes,
    /// Where the record begins that is read.
    record: u64,
    /// The last part that was given: a record ends in it.
    part: Vec<u8>,
    /// Bytes that were given, with this part.
    given: u64,
}

impl<R> Bounded<R> {
    fn give(&mut self, part: &[u8]) {
        if !part.is_empty() {
            self.part.clear();
            self.part.extend_from_slice(part);
            self.given += part.len() as u64;
        }
    }

    /// The byte before this place, which is in the last part.
    fn given_before(&self, end: u64) -> Option<u8> {
        let behind = usize::try_from(self.given.checked_sub(end)?).ok()?;
        self.part.get(self.part.len().checked_sub(behind + 1)?).copied()
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(end) = &mut self.end {
            let length = end.read(buffer)?;
            self.give(&buffer[..length]);
            return Ok(length);
        }
        let length = self.from.read(buffer)?;
        if length == 0 && !buffer.is_empty() {
            let length = self.end.insert(END).read(buffer)?;
            self.give(&buffer[..length]);
            return Ok(length);
        }
        self.give(&buffer[..length]);
        if self.since.fetch_add(length as u64, Ordering::Relaxed) > LONGEST as u64 {
            let text = format!("a record is above {LONGEST} bytes; is there a quote without an end?");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.quotes.follow(&buffer[..length], self.record);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripes_have_the_numbers_of_records_and_lines() {
        let text: String =
            (0..45_000).map(|id| format!("{{\"id\":{id}}}\n{}", if id % 2 == 0 { "\n" } else { "" })).collect();
        let mut stripes = Vec::new();
        lines(text.as_bytes(), &AtomicU64::new(0), |stripe| {
            stripes.push((stripe.first, stripe.len(), stripe.text(stripe.last())));
            true
        })
        .unwrap();
        let texts: Vec<_> =
            stripes.iter().map(|(first, len, (line, text))| (*first, *len, *line, text.as_str())).collect();
        assert_eq!(
            texts,
            [
                (1, 20_000, 30_000, "{\"id\":19999}"),
                (20_001, 20_000, 60_000, "{\"id\":39999}"),
                (40_001, 5000, 67_500, "{\"id\":44999}")
            ]
        );
        let mut found = Vec::new();
        csv(
            "id,note\n1,\"a\nb\"\n2,c\n".as_bytes(),
            b',',
            &AtomicU64::new(0),
            |_| Ok(()),
            |stripe| {
                found.extend([stripe.text(1), stripe.text(2)]);
                true
            },
        )
        .unwrap();
        assert_eq!(found, [(2, "1,\"a\nb\"".to_owned()), (4, "2,c".to_owned())]);
    }

    /// A stripe that was full before its block ended is followed by the rest of the block.
    #[test]
    fn a_stripe_has_records_of_one_block() {
        let line = format!("{{\"note\":\"{}\"}}\n", "x".repeat(400));
        let text = line.repeat(BLOCK as usize + 5);
        let mut stripes = Vec::new();
        lines(text.as_bytes(), &AtomicU64::new(0), |stripe| {
            stripes.push((stripe.first, stripe.last()));
            true
        })
        .unwrap();
        let full = stripes[0].1;
        assert!(full < BLOCK, "{stripes:?}");
        assert_eq!(stripes, [(1, full), (full + 1, BLOCK), (BLOCK + 1, BLOCK + 5)]);
    }

    #[test]
    fn a_record_without_end_is_not_kept() {
        let mut long = vec![b'x'; LONGEST + 10];
        long.extend_from_slice(b"\n{}\n");
        let mut kinds = Vec::new();
        lines(&long[..], &AtomicU64::new(0), |stripe| {
            let Records::Lines(lines) = stripe.records else { panic!("they are lines") };
            kinds.extend(lines.iter().map(|(line, text)| (*line, matches!(text, Line::TooLong))));
            true
        })
        .unwrap();
        assert_eq!(kinds, [(1, true), (2, false)]);
        let endless = std::io::Cursor::new(b"id\n\"").chain(std::io::repeat(b'x'));
        let error = csv(endless, b',', &AtomicU64::new(0), |_| Ok(()), |_| true).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("line 2: a record is above") && text.contains("a quote without an end"), "{text}");
    }

    /// The text of each record, and the line of the open quote.
    fn read_csv(text: &[u8]) -> io::Result<(Vec<String>, Option<u64>)> {
        let (mut texts, mut quote) = (Vec::new(), None);
        csv(
            text,
            b',',
            &AtomicU64::new(0),
            |_| Ok(()),
            |stripe| {
                texts.extend((stripe.first..=stripe.last()).map(|record| stripe.text(record).1));
                let Records::Csv(records) = stripe.records else { panic!("they are of CSV") };
                assert!(quote.is_none(), "only the last stripe has the end");
                quote = records.open_quote;
                true
            },
        )?;
        Ok((texts, quote))
    }

    #[test]
    fn a_quote_that_is_open_at_the_end_is_found() {
        let check = |text: &str, texts: &[&str], quote: Option<u64>| {
            let found = read_csv(text.as_bytes()).unwrap();
            assert_eq!(
                (found.0.iter().map(String::as_str).collect::<Vec<_>>(), found.1),
                (texts.to_vec(), quote),
                "{text:?}"
            );
        };
        for closed in ["id,note\n1,a", "id,note\n1,a\n", "id,note\r\n1,a\r\n", "id,note\n1,a\n\n\n", "id,note\n1,\"a\""]
        {
            check(closed, &["1,a"], None);
        }
        check("", &[], None);
        check("\n\n", &[], None);
        check("id", &[], None);
        check("id\n\n", &[], None);
        check("id,note\n1,a\"b\n", &["1,\"a\"\"b\""], None);
        check("id,note\n1,\"a\"\"\"", &["1,\"a\"\"\""], None);
        check("id,note\n1,a\n2,\"", &["1,a", "2,"], Some(3));
        check("id,note\n1,\"a\n2,b\n3,c", &["1,\"a\n2,b\n3,c\""], Some(2));
        check("id,note\n1,\"a\"\"\n", &["1,\"a\"\"\n\""], Some(2));
        check("id,note\n\"x\ny\",\"a\n2,b\n", &["\"x\ny\",\"a\n2,b\n\""], Some(3));
        let error = read_csv(b"id,\"note\n1,a\n").unwrap_err();
        assert_eq!(error.to_string(), "the header: the quote that was opened in line 1 is not closed");
    }

    /// The line of a record is that of its first field, whatever the lines end with, and with empty lines before it.
    #[test]
    fn records_have_the_lines_that_an_editor_shows() {
        let lines = |text: &str, part: usize| {
            let mut found = Vec::new();
            let parts = text.as_bytes().chunks(part).fold(Box::new(io::empty()) as Box<dyn Read>, |before, part| {
                Box::new(before.chain(part)) as Box<dyn Read>
            });
            let mut quote = None;
            csv(
                parts,
                b',',
                &AtomicU64::new(0),
                |_| Ok(()),
                |stripe| {
                    found.extend((stripe.first..=stripe.last()).map(|record| stripe.text(record).0));
                    let Records::Csv(records) = &stripe.records else { panic!("they are of CSV") };
                    quote = records.open_quote;
                    true
                },
            )
            .unwrap();
            (found, quote)
        };
        for part in [1, 2, 3, 1000] {
            for end in ["\n", "\r\n"] {
                let check = |text: &str, expected: &[u64], quote: Option<u64>| {
                    let text = text.replace('\n', end);
                    assert_eq!(lines(&text, part), (expected.to_vec(), quote), "{text:?} in parts of {part}");
                };
                check("id,n\n1,a\n2,b\n", &[2, 3], None);
                check("id,n\n1,a\n2,b", &[2, 3], None);
                check("\n\nid,n\n\n1,a\n\n\n2,b\n\n", &[5, 8], None);
                check("id,n\n1,\"a\n\nb\"\n2,c\n", &[2, 5], None);
                check("id,\"n\nm\"\n1,a\n\n2,\"b\nc\n", &[3, 5], Some(5));
                check("id,n\n1,\"a\"x\n2,b\n", &[2, 3], None);
            }
        }
        let error = csv(&b"\r\n\r\nid,\"n\r\n1,a\r\n"[..], b',', &AtomicU64::new(0), |_| Ok(()), |_| true).unwrap_err();
        assert_eq!(error.to_string(), "the header: the quote that was opened in line 3 is not closed");
        let endless = io::Cursor::new(b"id\r\n1\r\n\"").chain(io::repeat(b'x'));
        let error = csv(endless, b',', &AtomicU64::new(0), |_| Ok(()), |_| true).unwrap_err();
        assert!(error.to_string().contains("line 3: a record is above"), "{error}");
    }

    /// Also where the stripe before it was full.
    #[test]
    fn an_open_quote_is_in_the_last_stripe() {
        let lines: String = (0..BLOCK).map(|id| format!("{id},a\n")).collect();
        let (texts, quote) = read_csv(format!("id,note\n{lines}7,\"b\n").as_bytes()).unwrap();
        assert_eq!((texts.len() as u64, quote), (BLOCK + 1, Some(BLOCK + 2)));
        let (texts, quote) = read_csv(format!("id,note\n{lines}").as_bytes()).unwrap();
        assert_eq!((texts.len() as u64, quote), (BLOCK, None));
    }
}
