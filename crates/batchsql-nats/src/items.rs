//! Owns a message of another publisher while it is read: its items as parts, each of which is rows of one schema, or items that are
//! no rows. Must not know its format, or the stream.

use std::collections::VecDeque;
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

/// A message whose items are read.
pub(crate) struct OpenMessage {
    /// Its sequence in the stream.
    pub(crate) sequence: u64,
    pub(crate) time: SystemTime,
    /// The number of its last item.
    pub(crate) last: u32,
    /// What was read and not given away.
    pub(crate) parts: VecDeque<Part>,
    message: OtherMessage,
    subject: String,
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
    /// They are no rows: lines for the file of foreign messages. Empty, if an earlier line has them.
    Bad(String),
}

/// Makes an empty buffer for rows of a schema.
pub(crate) type Empty<'a> = &'a dyn Fn(&Schema) -> Result<RowBuffer, RowError>;

impl Part {
    pub(crate) fn bytes(&self) -> usize {
        match &self.what {
            Items::Rows(rows) => rows.rows().bytes(),
            Items::Bad(letters) => letters.len(),
        }
    }
}

impl OpenMessage {
    /// `source`: its name and incarnation. `None`: the message has no items.
    pub(crate) fn new(
        (sequence, time): (u64, SystemTime),
        (source, subject): (String, String),
        message: OtherMessage,
        items: Box<dyn MessageItems>,
    ) -> Option<Self> {
        let last = items.last()?;
        let (parts, bad, is_over) = (VecDeque::new(), 0, false);
        Some(Self { sequence, time, last, parts, message, subject, source, items, bad, is_over })
    }

    pub(crate) fn payload_len(&self) -> usize {
        self.message.payload.len()
    }

    /// Reads more parts, unless it is over. Their number and bytes are bounded.
    pub(crate) fn read(&mut self, empty: Empty<'_>) {
        let mut reading = Reading { open: None, done: VecDeque::new(), bytes: 0 };
        let mut read = 0;
        while !self.is_over && read < ITEMS && reading.bytes < BYTES {
            let Self { items, bad, message, subject, source, sequence, .. } = self;
            let mut take = |number: u32, text: &[u8], row: Result<DynRow, String>| {
                let Err(reason) = row.and_then(|row| reading.push(number, &row, empty)) else { return };
                *bad += 1;
                let line = match *bad {
                    bad if bad < MOST_LETTERS => Some((text, reason)),
                    MOST_LETTERS => {
                        let why =
                            "is no row, and many before it are none: it and those behind it are in this message only";
                        Some((&message.payload[..], format!("item {} {why}: {reason}", u64::from(number) + 1)))
                    }
                    _ => None,
                };
                let letter = line.map(|(payload, reason)| {
                    let letter = ForeignLetter {
                        source,
                        subject,
                        sequence: *sequence,
                        item: Some(number),
                        reason: &reason,
                        headers: message.headers.as_ref(),
                        payload,
                    };
                    letter.line()
                });
                reading.reject(number, letter.unwrap_or_default());
            };
            self.is_over = !items.next(&mut take);
            read += 1;
        }
        reading.close();
        self.parts.extend(reading.done);
    }
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

    fn reject(&mut self, number: u32, letter: String) {
        self.close();
        self.bytes += letter.len();
        if let Some(Part { last, what: Items::Bad(letters), .. }) = self.done.back_mut()
            && *last + 1 == number
        {
            *last = number;
            letters.push_str(&letter);
            return;
        }
        self.done.push_back(Part { first: number, last: number, what: Items::Bad(letter) });
    }

    fn close(&mut self) {
        if let Some((first, rows)) = self.open.take() {
            let last = first + u32::try_from(rows.len()).unwrap_or(u32::MAX) - 1;
            self.done.push_back(Part { first, last, what: Items::Rows(rows.into_rows()) });
        }
    }
}
