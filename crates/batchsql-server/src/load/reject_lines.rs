//! Owns how the lines of a file of rejected records are found, without more of them in memory than their begin and their end.
//! Must not know what becomes of them.

use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;

/// How a line begins.
pub(super) const BEGIN: &[u8] = b"{\"line\":";
/// Of a line, this much is kept: the numbers of its line and its record.
const HEAD: usize = 80;
const PART: usize = 1 << 18;

/// Where a line is, and of what.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) begin: u64,
    /// Behind its line feed, if it has one.
    pub(super) end: u64,
    pub(super) has_feed: bool,
    pub(super) kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// This record of the load.
    Own(u64),
    /// This record of the load, or of one of the same content into another database.
    Either(u64),
    /// It has no end: the last line, which a kill has cut off, or which somebody writes now.
    Torn,
    /// Only spaces: it was taken back.
    Blank,
    /// Of another load, or of a person.
    Other,
}

/// What the lines of a load end with, without the line feed, and no others.
pub(super) struct Endings {
    pub(super) own: Vec<u8>,
    /// Those of an earlier version, which has stored no database. Not longer.
    pub(super) earlier: Vec<u8>,
    /// Where the database is in `own`, if lines with another one in its place may be of the load too.
    pub(super) database: Option<Range<usize>>,
}

impl Endings {
    /// Whether a line with this end may be of the load.
    fn may_be(&self, tail: &[u8]) -> bool {
        let is_elsewhere = |database: &Range<usize>| {
            tail.len() == self.own.len()
                && tail[..database.start] == self.own[..database.start]
                && tail[database.clone()].iter().all(u8::is_ascii_alphanumeric)
                && tail[database.end..] == self.own[database.end..]
        };
        tail.ends_with(&self.earlier) || self.database.as_ref().is_some_and(is_elsewhere)
    }
}

/// Calls `each` with the lines, in their order.
///
/// # Errors
/// The file cannot be read, or `each` fails.
pub(super) fn each(from: impl Read, endings: &Endings, mut each: impl FnMut(Line) -> io::Result<()>) -> io::Result<()> {
    let ending = &endings.own;
    let mut from = BufReader::with_capacity(PART, from);
    let (mut head, mut tail) = (Vec::with_capacity(HEAD), Vec::with_capacity(2 * ending.len()));
    let (mut begin, mut end, mut is_blank) = (0, 0, true);
    loop {
        let part = from.fill_buf()?;
        let at = part.iter().position(|byte| *byte == b'\n');
        let text = &part[..at.unwrap_or(part.len())];
        head.extend_from_slice(&text[..text.len().min(HEAD - head.len())]);
        is_blank = is_blank && text.iter().all(|byte| *byte == b' ');
        tail.extend_from_slice(&text[text.len().saturating_sub(ending.len())..]);
        tail.drain(..tail.len().saturating_sub(ending.len()));
        let (is_end, length) = (part.is_empty(), text.len() + usize::from(at.is_some()));
        from.consume(length);
        end += length as u64;
        if at.is_some() || (is_end && end > begin) {
            // The line feed alone may be missing, after the file was edited.
            let is_whole = at.is_some() || tail.ends_with(b"}");
            let kind = match record(&head) {
                _ if is_blank => Kind::Blank,
                Some(record) if is_whole && tail == *ending => Kind::Own(record),
                Some(record) if is_whole && endings.may_be(&tail) => Kind::Either(record),
                _ if !is_whole && (head.starts_with(BEGIN) || BEGIN.starts_with(&head)) => Kind::Torn,
                _ => Kind::Other,
            };
            each(Line { begin, end, has_feed: at.is_some(), kind })?;
            (begin, is_blank) = (end, true);
            head.clear();
            tail.clear();
        }
        if is_end {
            return Ok(());
        }
    }
}

/// The number of the record in the begin of a line.
fn record(head: &[u8]) -> Option<u64> {
    let (_, rest) = number(head.strip_prefix(BEGIN)?)?;
    let (record, rest) = number(rest.strip_prefix(b",\"record\":")?)?;
    rest.starts_with(b",").then_some(record)
}

fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(digits);
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_whatever_their_length() {
        let endings = Endings {
            own: b",\"file\":\"a\",\"table\":\"t\"}".to_vec(),
            earlier: b",\"file\":\"a\",\"o\":\"t\"}".to_vec(),
            database: None,
        };
        let long = "x".repeat(2 * PART);
        let own = |record: u64| {
            format!(
                "{{\"line\":1,\"record\":{record},\"reason\":\"\",\"text\":\"{long}\",\"file\":\"a\",\"table\":\"t\"}}\n"
            )
        };
        let other = own(3).replace("\"t\"}", "\"t\",\"again\":\"b\"}");
        let earlier = own(4).replace("\"table\":\"t\"}", "\"o\":\"t\"}");
        let spaces = " ".repeat(2 * PART) + "\n";
        let text = [
            "\n".to_owned(),
            own(7),
            other,
            earlier,
            own(8),
            long.clone() + "\n",
            spaces,
            own(9).trim_end().to_owned(),
        ];
        let (mut found, mut begin) = (Vec::new(), 0);
        each(text.concat().as_bytes(), &endings, |line| {
            found.push(line);
            Ok(())
        })
        .unwrap();
        let kinds = [
            Kind::Blank,
            Kind::Own(7),
            Kind::Other,
            Kind::Either(4),
            Kind::Own(8),
            Kind::Other,
            Kind::Blank,
            Kind::Own(9),
        ];
        let expected = text.iter().zip(kinds).map(|(line, kind)| {
            let end = begin + line.len() as u64;
            Line { begin: std::mem::replace(&mut begin, end), end, has_feed: line.ends_with('\n'), kind }
        });
        assert_eq!(found, expected.collect::<Vec<_>>());
        let last = |text: &str| {
            let mut last = None;
            each(text.as_bytes(), &endings, |line| {
                last = Some(line.kind);
                Ok(())
            })
            .unwrap();
            last
        };
        assert_eq!(last(&own(9)[..60]), Some(Kind::Torn));
        assert_eq!(last(r#"{"line":1,"record":3,"text":"of a person"}"#), Some(Kind::Other));
        each(&b""[..], &endings, |line| panic!("{line:?}")).unwrap();
    }
}
