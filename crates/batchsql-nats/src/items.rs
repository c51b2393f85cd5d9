//! Owns a message of another publisher while it is read: its items as parts, each of which is rows of one schema, or items that are
//! no rows; and when too many of them are none. Must not know its format, or the stream.

use std::collections::{BTreeMap, VecDeque};
use std::time::SystemTime;

use batchsql_core::{DynRow, Row as _, RowBuffer, RowError, Schema, SharedRows};

use crate::format::{MessageItems, OtherMessage};
use crate::letters::ForeignLetter;

/// Items, and bytes of their rows, that are read at once.
const ITEMS: usize = 8_192;
const BYTES: usize = 1 << 20;
/// Letters of single items; the items behind them are in one letter together. So the letters are not many times as long as the
/// message.
const MOST_LETTERS: u32 = 1_000;

/// Items that are JSON objects and no rows, behind the last item that was a row. If there are many, the fields or columns of the
/// program are the likely cause, and not the items.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unmapped {
    most: usize,
    count: usize,
}

impl Unmapped {
    /// So many of them are set aside.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, count: 0 }
    }

    /// The same, with none yet.
    pub(crate) fn anew(self) -> Self {
        Self::new(self.most)
    }

    pub(crate) fn count(self) -> usize {
        self.count
    }

    /// Whether one more is set aside.
    fn add(&mut self) -> bool {
        let may_add = self.count < self.most;
        self.count += usize::from(may_add);
        may_add
    }
}

/// A message whose items are read.
pub(crate) struct OpenMessage {
    /// Its sequence in the stream.
    pub(crate) sequence: u64,
    pub(crate) time: SystemTime,
    /// The number of its last item.
    pub(crate) last: u32,
    /// What was read and not given away.
    pub(crate) parts: VecDeque<Part>,
    /// As of what was read.
    pub(crate) unmapped: Unmapped,
    /// The first item that is past the limit of these, and why it is no row. Nothing is read from it on.
    pub(crate) misfit: Option<(u32, String)>,
    pub(crate) message: OtherMessage,
    pub(crate) subject: String,
    /// The name and the incarnation of the source.
    source: String,
    items: Box<dyn MessageItems>,
    /// Items that were no rows.
    bad: u32,
    is_over: bool,
}

/// Some items with numbers that follow each other.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) what: Items,
}

#[derive(Debug)]
pub(crate) enum Items {
    Rows(SharedRows),
    /// They are no rows.
    Bad(BadItems),
}

/// Items that are no rows.
#[derive(Debug, Default)]
pub(crate) struct BadItems {
    /// Lines for the file of foreign messages. Empty, if an earlier line has them.
    pub(crate) letters: String,
    /// Why they are no rows: each reason with the number of its first item, and how many there are.
    pub(crate) reasons: BTreeMap<String, (u32, u64)>,
}

/// Makes an empty buffer for rows of a schema.
pub(crate) type Empty<'a> = &'a dyn Fn(&Schema) -> Result<RowBuffer, RowError>;

impl Part {
    pub(crate) fn bytes(&self) -> usize {
        match &self.what {
            Items::Rows(rows) => rows.rows().bytes(),
            Items::Bad(bad) => bad.letters.len(),
        }
    }
}

impl OpenMessage {
    /// `source`: its name and incarnation. `unmapped`: of the messages before it. `None`: the message has no items.
    pub(crate) fn new(
        (sequence, time): (u64, SystemTime),
        (source, subject): (String, String),
        message: OtherMessage,
        items: Box<dyn MessageItems>,
        unmapped: Unmapped,
    ) -> Option<Self> {
        let last = items.last()?;
        Some(Self {
            sequence,
            time,
            last,
            parts: VecDeque::new(),
            unmapped,
            misfit: None,
            message,
            subject,
            source,
            items,
            bad: 0,
            is_over: false,
        })
    }

    pub(crate) fn payload_len(&self) -> usize {
        self.message.payload.len()
    }

    /// Reads more parts, unless it is over. Their number and bytes are bounded.
    pub(crate) fn read(&mut self, empty: Empty<'_>) {
        let mut reading = Reading { open: None, done: VecDeque::new(), bytes: 0 };
        let mut read = 0;
        while !self.is_over && read < ITEMS && reading.bytes < BYTES {
            let Self { items, unmapped, misfit, bad, message, subject, source, sequence, .. } = self;
            let mut take = |number: u32, text: &[u8], row: Result<DynRow, String>| {
                if misfit.is_some() {
                    return;
                }
                let Err(reason) = row.and_then(|row| reading.push(number, &row, empty)) else {
                    *unmapped = unmapped.anew();
                    return;
                };
                if is_object(text) && !unmapped.add() {
                    *misfit = Some((number, reason));
                    return;
                }
                *bad += 1;
                let first = reason.clone();
                let line = match *bad {
                    // The headers are those of the message, and would be in each of its letters.
                    bad if bad < MOST_LETTERS => Some((text, None, reason)),
                    MOST_LETTERS => {
                        let why =
                            "is no row, and many before it are none: it and those behind it are in this message only";
                        let reason = format!("item {} {why}: {reason}", u64::from(number) + 1);
                        Some((&message.payload[..], message.headers.as_ref(), reason))
                    }
                    _ => None,
                };
                let letter = line.map(|(payload, headers, reason)| {
                    let letter = ForeignLetter {
                        source,
                        subject,
                        sequence: *sequence,
                        item: Some(number),
                        // Also if no item is a row: those before it have letters of their own, which are published again too.
                        is_partly_written: *bad == MOST_LETTERS,
                        reason: &reason,
                        headers,
                        payload,
                    };
                    letter.line()
                });
                reading.reject(number, letter.as_deref().unwrap_or_default(), first);
            };
            let has_more = items.next(&mut take);
            self.is_over = !has_more || self.misfit.is_some();
            read += 1;
        }
        reading.close();
        self.parts.extend(reading.done);
    }
}

/// Whether an item was meant as a row, whatever its fields are.
fn is_object(item: &[u8]) -> bool {
    item.trim_ascii_start().starts_with(b"{")
        && serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(item).is_ok()
}

struct Reading {
    /// Rows of one schema, from this number on.
    open: Option<(u32, RowBuffer)>,
    done: VecDeque<Part>,
    bytes: usize,
}

impl Reading {
    fn push(&mut self, number: u32, row: &DynRow, empty: Empty<'_>) -> Result<(), String> {
        let follows = |(first, rows): &(u32, RowBuffer)| {
            rows.schema() == row.schema() && u64::from(*first) + rows.len() as u64 == u64::from(number)
        };
        if !self.open.as_ref().is_some_and(follows) {
            self.close();
        }
        let (first, mut rows) = match self.open.take() {
            Some(open) => open,
            None => (number, empty(row.schema()).map_err(|error| error.to_string())?),
        };
        let before = rows.bytes();
        let pushed = rows.push(row).map_err(|error| error.to_string());
        self.bytes += rows.bytes() - before;
        if !rows.is_empty() {
            self.open = Some((first, rows));
        }
        pushed
    }

    /// Adds an item that is no row, for this reason.
    fn reject(&mut self, number: u32, letter: &str, reason: String) {
        self.close();
        self.bytes += letter.len();
        if let Some(Part { last, what: Items::Bad(bad), .. }) = self.done.back_mut()
            && *last + 1 == number
        {
            *last = number;
            bad.letters.push_str(letter);
            bad.reasons.entry(reason).or_insert((number, 0)).1 += 1;
            return;
        }
        let bad = BadItems { letters: letter.to_owned(), reasons: BTreeMap::from([(reason, (number, 1))]) };
        self.done.push_back(Part { first: number, last: number, what: Items::Bad(bad) });
    }

    fn close(&mut self) {
        if let Some((first, rows)) = self.open.take() {
            let last = first + u32::try_from(rows.len()).unwrap_or(u32::MAX) - 1;
            self.done.push_back(Part { first, last, what: Items::Rows(rows.into_rows()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use async_nats::HeaderMap;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use batchsql_core::{ColumnType, TableName, ValueRules};

    use super::*;

    /// Each line; one that begins with a digit is a row.
    struct Lines(Vec<String>, usize);

    impl MessageItems for Lines {
        fn last(&self) -> Option<u32> {
            self.0.len().checked_sub(1).map(|last| last as u32)
        }

        fn next(&mut self, take: &mut crate::format::TakeItem<'_>) -> bool {
            let Some(line) = self.0.get(self.1) else { return false };
            let why = if line.contains('.') { "no integer" } else { "no number" };
            let row = line.parse::<i64>().map_err(|_| why.to_owned());
            let row = row.map(|id| schema().row().set("id", id).unwrap().finish().unwrap());
            take(self.1 as u32, line.as_bytes(), row);
            self.1 += 1;
            true
        }
    }

    fn schema() -> Schema {
        Schema::builder("t").column("id", ColumnType::I64).build().unwrap()
    }

    fn read(text: &str, unmapped: Unmapped) -> OpenMessage {
        let mut headers = HeaderMap::new();
        headers.insert("Name-Of-Header", "v");
        let message = OtherMessage::new(TableName::new("t"), Some(headers), text.to_owned().into());
        let lines = Box::new(Lines(text.lines().map(str::to_owned).collect(), 0));
        let at = (7, SystemTime::UNIX_EPOCH);
        let mut open = OpenMessage::new(at, ("s".into(), "t.0".into()), message, lines, unmapped).unwrap();
        open.read(&|schema| Ok(RowBuffer::new(schema, ValueRules::default())));
        open
    }

    fn letters(open: &OpenMessage) -> Vec<String> {
        let letters = open.parts.iter().filter_map(|part| match &part.what {
            Items::Bad(bad) => Some(bad.letters.lines().map(str::to_owned)),
            Items::Rows(_) => None,
        });
        letters.flatten().collect()
    }

    #[test]
    fn objects_that_are_no_rows_are_set_aside_up_to_a_limit() {
        let open = read("{}\n{}\n1\n{}\n{\"a\":1}\nPING\n{} {}\n{}\n{}\n5\n", Unmapped::new(3));
        let ends: Vec<_> = open.parts.iter().map(|part| (part.first, part.last)).collect();
        assert_eq!(ends, [(0, 1), (2, 2), (3, 7)], "a row begins the count anew");
        assert_eq!(open.misfit, Some((8, "no number".to_owned())));
        assert_eq!(letters(&open).len(), 7, "what is no object does not count");
        // The count goes on in the next message.
        let open = read("{}\n5\n", open.unmapped);
        assert_eq!((open.misfit.map(|(item, _)| item), open.parts.len()), (Some(0), 0));
        let open = read("PING\n5\n{}\n", open.unmapped);
        assert_eq!((open.misfit, open.parts.len(), open.unmapped.count()), (None, 3, 1));
    }

    #[test]
    fn each_reason_has_its_own_items() {
        let open = read("a\nb.\nc\n1\nd.\n", Unmapped::new(3));
        let reasons = |part: &Part| match &part.what {
            Items::Bad(bad) => bad.reasons.clone().into_iter().collect(),
            Items::Rows(_) => Vec::new(),
        };
        let reason = |text: &str, first: u32, count: u64| (text.to_owned(), (first, count));
        let found: Vec<_> = open.parts.iter().map(reasons).collect();
        let first = vec![reason("no integer", 1, 1), reason("no number", 0, 2)];
        assert_eq!(found, [first, vec![], vec![reason("no integer", 4, 1)]]);
    }

    #[test]
    fn headers_are_in_the_letter_with_all_of_the_message_only() {
        let open = read(&"x\n".repeat(1_200), Unmapped::new(3));
        let letters = letters(&open);
        let with: Vec<usize> = (0..letters.len()).filter(|index| letters[*index].contains("Name-Of-Header")).collect();
        assert_eq!((letters.len(), with), (1_000, vec![999]));
    }

    /// It would repeat them, so it is partly written, although no item of the message is a row.
    #[test]
    fn a_letter_with_all_of_the_message_has_items_of_letters_before_it() {
        let text: String = (0..1_200).map(|number| format!("x{number}\n")).collect();
        let letters = letters(&read(&text, Unmapped::new(3)));
        let (all, single) = letters.split_last().unwrap();
        let payload = |letter: &str| {
            let letter: serde_json::Value = serde_json::from_str(letter).unwrap();
            let payload = STANDARD.decode(letter["payload"].as_str().unwrap()).unwrap();
            (String::from_utf8(payload).unwrap(), letter["partly_written"] == true)
        };
        assert_eq!(payload(all), (text.clone(), true));
        let found: Vec<_> = single.iter().map(|letter| payload(letter)).collect();
        let expected: Vec<_> = text.lines().take(999).map(|item| (item.to_owned(), false)).collect();
        assert_eq!(found, expected);
    }
}
