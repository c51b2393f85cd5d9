//! Owns how messages of other publishers are read: JSON, as the bodies of requests are, with the same rules for fields.
//! Must not know streams or workers.
//!
//! A message is an array of objects, one object, or lines with an object each. Its bytes alone decide which of these it is: an array
//! begins with a bracket, unless its first line alone shows that no array of all of the message follows; and an object with nothing
//! behind it is one object, also if it has several lines. The number of an item is that of its line or element, whether it is a row or
//! not. So a position names the same item after the settings have changed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use batchsql::nats::{MessageFormat, MessageItems, OtherMessage, TakeItem};
use bytes::Bytes;

use crate::coding::items::{Form, Items, Unsplit};
use crate::coding::part::Coding;
use crate::table::target::Target;

const CONTENT_ENCODING: &str = "Content-Encoding";
/// The numbers that a message has for its items.
const MOST_ITEMS: u64 = 1 << 20;
/// Bytes of a line or an element, unless the message as it was sent has more.
const LONGEST_ITEM: usize = 1 << 20;

/// JSON of other publishers.
pub(crate) struct JsonMessages {
    /// By their names in the database.
    tables: BTreeMap<String, Arc<Target>>,
    /// Bytes of a message after it was decompressed.
    decompressed: u64,
}

/// Without the tables, which have defaults.
impl fmt::Debug for JsonMessages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonMessages").field("decompressed", &self.decompressed).finish_non_exhaustive()
    }
}

impl JsonMessages {
    pub(crate) fn new(tables: Vec<Arc<Target>>, decompressed: u64) -> Self {
        let tables = tables.into_iter().map(|table| (table.schema.table().to_string(), table)).collect();
        Self { tables, decompressed }
    }
}

impl MessageFormat for JsonMessages {
    fn open(&self, message: &OtherMessage, from: u32) -> Result<Box<dyn MessageItems>, String> {
        let name = message.table.to_string();
        let target = self.tables.get(&name).ok_or_else(|| format!("there is no table `{name}` in [[tables]]"))?;
        let (form, last) = form(message, self.decompressed)?;
        let split = Split::new(message, form, self.decompressed)?;
        Ok(Box::new(Rows { split, target: Arc::clone(target), from, last }))
    }
}

/// The items of a message as rows.
struct Rows {
    split: Split,
    target: Arc<Target>,
    from: u32,
    last: Option<u32>,
}

impl MessageItems for Rows {
    fn last(&self) -> Option<u32> {
        self.last
    }

    fn next(&mut self, take: &mut TakeItem<'_>) -> bool {
        let Self { split, target, from, .. } = self;
        loop {
            let taken = split.next(|number, item| {
                let is_new = number >= *from;
                if is_new {
                    take(number, item, target.row_of_json(item));
                }
                is_new
            });
            match taken {
                Ok(Some(true)) => return true,
                Ok(Some(false)) => {}
                // It was read to its end before.
                Ok(None) | Err(_) => return false,
            }
        }
    }
}

/// Reads a message to its end: how it is split, and the number of its last item, from 0.
fn form(message: &OtherMessage, limit: u64) -> Result<(Form, Option<u32>), String> {
    let mut array = Split::new(message, Form::Array, limit)?;
    let as_array = last_of(&mut array);
    let reason = match (as_array, array.first) {
        (Ok((Some(_), false)), _) => return Err("it is no row: none of its elements is an object".to_owned()),
        (Ok((last, _)), _) => return Ok((Form::Array, last)),
        (Err(_), None) if array.is_end => return Err("it is empty".to_owned()),
        (Err(reason), None) => return Err(reason),
        (Err(reason), Some(_)) => reason,
    };
    let begins_with_bracket = array.first == Some(b'[');
    match Split::new(message, Form::Lines, limit)?.next(|_, line| opens_array(line)) {
        Ok(Some(true)) => return Err(reason),
        Err(_) if begins_with_bracket => return Err(reason),
        _ => {}
    }
    match last_of(&mut Split::new(message, Form::Lines, limit)?)? {
        (last, true) => Ok((Form::Lines, last)),
        (_, false) if begins_with_bracket => Err(reason),
        (_, false) => Err("it is no JSON: none of its lines is an object".to_owned()),
    }
}

/// Whether an array begins in a line and may go on behind it. One that ends in its line, or is none, is a line as others, unless it
/// ends in a byte that something has to follow: then the rest is behind it, also if there is a mistake before.
fn opens_array(line: &[u8]) -> bool {
    if !line.trim_ascii_start().starts_with(b"[") {
        return false;
    }
    if matches!(line.trim_ascii_end().last(), Some(b',' | b'[' | b'{' | b':')) {
        return true;
    }
    let mut items = Items::new(Form::Array, line.len());
    items.buffer().extend_from_slice(line);
    loop {
        match items.next(false) {
            Ok(Some(_)) => {}
            // Refused: the array has not ended.
            Ok(None) => return items.next(true).is_err(),
            Err(_) => return false,
        }
    }
}

/// The number of the last item, and whether any item begins as an object does.
fn last_of(split: &mut Split) -> Result<(Option<u32>, bool), String> {
    let (mut last, mut has_objects) = (None, false);
    while let Some((number, is_object)) =
        split.next(|number, item| (number, item.trim_ascii_start().starts_with(b"{")))?
    {
        last = Some(number);
        has_objects |= is_object;
    }
    Ok((last, has_objects))
}

/// A message that is split into items, part by part.
struct Split {
    payload: Bytes,
    /// How much of it was decompressed.
    taken: usize,
    coding: Coding,
    items: Items,
    longest: usize,
    decompressed: u64,
    limit: u64,
    /// The first byte that is no space.
    first: Option<u8>,
    is_end: bool,
}

impl Split {
    fn new(message: &OtherMessage, form: Form, limit: u64) -> Result<Self, String> {
        let mut headers = message.headers.iter().flat_map(|headers| headers.iter());
        let coding = headers.find(|(name, _)| name.to_string().eq_ignore_ascii_case(CONTENT_ENCODING));
        let coding = coding.and_then(|(_, values)| values.first()).map_or("", |coding| coding.as_str());
        let coding = Coding::of(coding).ok_or_else(|| {
            format!("its {CONTENT_ENCODING} `{coding}` is not known; send gzip, zstd, or no compression")
        })?;
        let longest = message.payload.len().max(LONGEST_ITEM);
        Ok(Self {
            payload: message.payload.clone(),
            taken: 0,
            coding,
            items: Items::new(form, longest),
            longest,
            decompressed: 0,
            limit,
            first: None,
            is_end: false,
        })
    }

    /// Gives the next item to `take`, with its number, from 0. `None`: there is none.
    fn next<T>(&mut self, take: impl FnOnce(u32, &[u8]) -> T) -> Result<Option<T>, String> {
        loop {
            match self.items.next(self.is_end) {
                Ok(Some((number, item))) if number <= MOST_ITEMS => {
                    // It fits: the numbers are 1 to 2^20.
                    return Ok(Some(take((number - 1) as u32, item)));
                }
                Ok(Some(_)) => return Err(format!("it has more than {MOST_ITEMS} lines or elements")),
                Ok(None) if self.is_end => return Ok(None),
                Ok(None) => {}
                Err(Unsplit::TooLong(number)) => {
                    let longest = self.longest;
                    return Err(format!("line or element {number} is above {longest} bytes; send it uncompressed"));
                }
                Err(Unsplit::NoArray(reason)) => return Err(of_message(&reason)),
            }
            self.fill()?;
        }
    }

    /// Decompresses the next part.
    fn fill(&mut self) -> Result<(), String> {
        let buffer = self.items.buffer();
        let before = buffer.len();
        let mut rest = &self.payload[self.taken..];
        let is_end = rest.is_empty();
        let decoded = if is_end { self.coding.end(buffer) } else { self.coding.next(&mut rest, buffer) };
        self.taken = self.payload.len() - rest.len();
        let plain = &buffer[before..];
        self.decompressed += plain.len() as u64;
        if self.first.is_none() {
            self.first = plain.iter().copied().find(|byte| !byte.is_ascii_whitespace());
        }
        decoded.map_err(|reason| of_message(&reason))?;
        self.is_end = is_end;
        if self.decompressed > self.limit {
            let limit = self.limit;
            return Err(format!("it has more than {limit} bytes decompressed (`decompressed` of [sources.jetstream])"));
        }
        Ok(())
    }
}

/// Texts about the bodies of requests, for messages.
fn of_message(reason: &str) -> String {
    reason.replace("the body", "the message")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use async_nats::HeaderMap;
    use batchsql::{FieldRules, TableName};

    use super::*;
    use crate::table::record::tests::orders;

    /// The numbers of the items from this one on, and why some are no rows; the number of the last one.
    type Found = (Vec<(u32, Option<String>)>, Option<u32>);

    fn read(payload: impl Into<Bytes>, coding: Option<&str>, from: u32) -> Result<Found, String> {
        let format = JsonMessages::new(vec![Arc::new(orders(FieldRules::default()))], 8 << 20);
        let headers = coding.map(|coding| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_ENCODING, coding);
            headers
        });
        let message = OtherMessage::new(TableName::new("orders"), headers, payload.into());
        let mut items = format.open(&message, from)?;
        let mut found = Vec::new();
        while items.next(&mut |number, _, row| found.push((number, row.err()))) {}
        Ok((found, items.last()))
    }

    fn numbers(payload: &str) -> (Vec<u32>, Option<u32>) {
        let (found, last) = read(payload.to_owned(), None, 0).unwrap();
        assert!(found.iter().all(|(_, reason)| reason.is_none()), "{payload}: {found:?}");
        (found.into_iter().map(|(number, _)| number).collect(), last)
    }

    #[test]
    fn the_bytes_decide_how_a_message_is_split() {
        assert_eq!(numbers("{\"id\":1}"), (vec![0], Some(0)));
        assert_eq!(numbers("\n{\n \"id\":\n1 }\n\n"), (vec![0], Some(0)), "one object in several lines");
        assert_eq!(numbers("{\"id\":1}\n{\"id\":2}"), (vec![0, 1], Some(1)));
        assert_eq!(numbers("\n{\"id\":1}\r\n \n{\"id\":2}\n\n"), (vec![1, 3], Some(3)), "empty lines have numbers");
        assert_eq!(numbers(" [{\"id\":1},\n{\"id\":2}] "), (vec![0, 1], Some(1)));
        assert_eq!(numbers("[]"), (vec![], None));
    }

    #[test]
    fn items_that_are_no_rows_have_numbers_too() {
        let lines = "{\"id\":1}\nsecret\n{\"id\":\"secret\"}\n{\"id\":3}\n";
        let (found, last) = read(lines, None, 0).unwrap();
        let reasons: Vec<bool> = found.iter().map(|(_, reason)| reason.is_some()).collect();
        assert_eq!((reasons, last), (vec![false, true, true, false], Some(3)));
        assert!(found.iter().flat_map(|(_, reason)| reason).all(|reason| !reason.contains("secret")), "{found:?}");
        let (found, last) = read(&b"{\"id\":1,\"region\":\"\xff\"}\n{\"id\":2}\n"[..], None, 0).unwrap();
        assert_eq!((found[0].1.as_deref(), found[1].1.as_deref(), last), (Some("it is not UTF-8"), None, Some(1)));
        let (found, last) = read("[null, {\"id\":1}, \"secret\"]", None, 0).unwrap();
        let reasons: Vec<bool> = found.iter().map(|(_, reason)| reason.is_some()).collect();
        assert_eq!((reasons, last), (vec![true, false, true], Some(2)));
        assert!(found.iter().flat_map(|(_, reason)| reason).all(|reason| !reason.contains("secret")), "{found:?}");
        // After a restart.
        let (found, last) = read(lines, None, 2).unwrap();
        assert_eq!((found.iter().map(|(number, _)| *number).collect(), last), (vec![2, 3], Some(3)));
    }

    #[test]
    fn messages_without_rows_have_a_reason() {
        let check = |payload: &[u8], reason: &str| {
            let found = read(payload.to_vec(), None, 0).unwrap_err();
            assert!(found.contains(reason), "{found}");
        };
        check(b"", "it is empty");
        check(b" \n\n", "it is empty");
        check(b"PING", "it is no JSON");
        check(b"7\n8\n", "it is no JSON");
        check(b"\x00\xff\xfe\n\x01", "it is no JSON");
        check(b"[7, null, [{}]]", "none of its elements is an object");
        check(b"[{\"id\":1}, nu:l]", "element 2 of the array is not JSON");
        check(b"[{\"id\":1}", "the message ends too early");
        check(&b"{}\n".repeat((1 << 20) + 1), "more than 1048576 lines");
        let long = [b"{\"id\":1}\n{\"id\":2,\"region\":\"", &b"x".repeat(3)[..]].concat();
        assert_eq!(read(long, None, 0).unwrap().1, Some(1), "a line without an end is an item that is no row");
    }

    /// A line that is no row does not keep the others from being written, wherever it is.
    #[test]
    fn a_first_line_that_is_an_array_is_a_line_that_is_no_row() {
        for first in
            ["[7]", "[{\"id\":1}]", "[]", "[INFO] started", "[2026-01-01 12:00] a", "[nu:l", " [[7]]\r", "\u{feff}[7]"]
        {
            for text in [format!("{first}\n{{\"id\":4}}\n\n{{\"id\":5}}"), format!("\n{first}\n\n{{\"id\":5}}\n")] {
                let (found, last) = read(text.clone(), None, 0).unwrap_or_else(|error| panic!("{text:?}: {error}"));
                let bad: Vec<u32> = found.iter().filter(|(_, why)| why.is_some()).map(|(number, _)| *number).collect();
                let at = u32::from(text.starts_with('\n'));
                assert_eq!((bad, last, found.len() as u32), (vec![at], Some(3), 3 - at), "{text:?}: {found:?}");
            }
        }
        // An array that is broken: what is in its lines is not written alone.
        for text in [
            "[\n{\"id\":1},\n{\"id\":2}\n",
            "\u{feff}[\n{\"id\":2}\n",
            "[\"a\n{\"id\":2}\n",
            "[7,\n{\"id\":2}\n]\n{\"id\":3}",
            // The mistake is in its first line.
            "[{\"id\":1}},\n{\"id\":2},\n{\"id\":3}\n]",
            "\n [{\"id\":1}}, \r\n{\"id\":2},\r\n{\"id\":3}\r\n]",
            "[{\"id\":1}},{\n\"id\":2},\n{\"id\":3}\n]",
            "[{\"id\":1}},{\"id\":\n2},\n{\"id\":3}\n]",
            "[nu:l,[\n{\"id\":2}],\n{\"id\":3}\n]",
        ] {
            read(text, None, 0).unwrap_err();
        }
    }

    #[test]
    fn compressed_messages_are_read_within_the_limit() {
        let gzip = |text: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        };
        let zstd = |text: &[u8]| ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest);
        let lines: Vec<u8> = (0..50_000).flat_map(|id| format!("{{\"id\":{id}}}\n").into_bytes()).collect();
        for (coding, packed) in [("gzip", gzip(&lines)), ("zstd", zstd(&lines))] {
            let (found, last) = read(packed, Some(coding), 49_000).unwrap();
            assert_eq!((found.len(), last), (1_000, Some(49_999)), "{coding}");
        }
        let bomb = b"{\"id\":1}\n".repeat(1 << 20);
        for (coding, packed) in [("gzip", gzip(&bomb)), ("zstd", zstd(&bomb))] {
            let reason = read(packed, Some(coding), 0).unwrap_err();
            assert!(reason.contains("more than 8388608 bytes"), "{coding}: {reason}");
        }
        let long = gzip(&[b"{\"id\":1}\n{\"region\":\"", &b"x".repeat(2 << 20)[..], b"\"}"].concat());
        let reason = read(long, Some("gzip"), 0).unwrap_err();
        assert!(reason.contains("line or element 2 is above 1048576 bytes"), "{reason}");
        let reason = read(lines, Some("gzip"), 0).unwrap_err();
        assert!(reason.contains("the message is not gzip"), "{reason}");
        assert!(read("{}", Some("br"), 0).unwrap_err().contains("`br` is not known"));
    }
}
