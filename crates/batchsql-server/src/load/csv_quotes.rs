//! Owns how it is found out which records of CSV have text behind the closing quote of a field, which the CSV reader adds to the field.
//! Must not know files or tables.

use std::collections::VecDeque;
use std::io::BufRead;

/// Why such a record is refused.
pub(super) const MISQUOTED: &str =
    "text follows the closing quote of a field; a quote within a quoted field must be doubled";
const BOM: &[u8] = b"\xef\xbb\xbf";
const QUOTE: u8 = b'"';

/// Follows the bytes of a file, from quote to quote.
pub(super) struct Quotes {
    delimiter: u8,
    state: State,
    /// Bytes before the next part.
    begin: u64,
    /// The byte before the next part.
    last: u8,
    /// Where text follows a closing quote, in records that were not taken.
    found: VecDeque<u64>,
    /// Text of the file up to the next part, as far as such a record may have it.
    kept: Vec<u8>,
}

enum State {
    /// A quote opens a field only at its begin.
    Unquoted,
    Quoted,
    /// Behind a quote in a quoted field, which is the first of two or its end.
    Closed,
}

impl Quotes {
    pub(super) fn new(delimiter: u8) -> Self {
        let (found, kept) = (VecDeque::new(), Vec::new());
        Self { delimiter, state: State::Unquoted, begin: 0, last: b'\n', found, kept }
    }

    /// Follows the next part. No record that begins before `from` is asked for any more.
    pub(super) fn follow(&mut self, part: &[u8], from: u64) {
        let was_found = !self.found.is_empty();
        self.find(part);
        let done = from.saturating_sub(self.begin - self.kept.len() as u64).min(self.kept.len() as u64);
        self.kept.drain(..done as usize);
        if was_found || !self.found.is_empty() {
            self.kept.extend_from_slice(part);
        } else {
            // The record that is not complete, if no line feed is in it.
            self.kept.clear();
            let line = part.iter().rposition(|byte| *byte == b'\n').map_or(part.len(), |at| at + 1);
            self.kept.extend_from_slice(&part[line..]);
        }
        self.begin += part.len() as u64;
        self.last = part.last().copied().unwrap_or(self.last);
    }

    fn find(&mut self, part: &[u8]) {
        let ends_field = |byte: u8| byte == self.delimiter || byte == b'\n' || byte == b'\r';
        let mut at = 0;
        while at < part.len() {
            if let State::Closed = self.state {
                match part[at] {
                    QUOTE => {
                        self.state = State::Quoted;
                        at += 1;
                        continue;
                    }
                    byte if ends_field(byte) => {}
                    // From here on the reader takes quotes as they are.
                    _ => self.found.push_back(self.begin + at as u64),
                }
                self.state = State::Unquoted;
            }
            let Some(quote) = position(&part[at..]).map(|found| at + found) else { return };
            at = quote + 1;
            self.state = match self.state {
                State::Quoted => State::Closed,
                _ => {
                    let before = if quote == 0 { self.last } else { part[quote - 1] };
                    let is_behind_mark = self.begin == 0 && part[..quote] == *BOM;
                    if ends_field(before) || is_behind_mark { State::Quoted } else { State::Unquoted }
                }
            };
        }
    }

    /// Whether text follows a closing quote before `end`, in the record that begins here: the record as it is in the file, or
    /// nothing if it is long.
    pub(super) fn take(&mut self, begin: u64, end: u64) -> Option<Vec<u8>> {
        let mut is_found = false;
        while self.found.front().is_some_and(|found| *found < end) {
            self.found.pop_front();
            is_found = true;
        }
        is_found.then(|| {
            let first = self.begin - self.kept.len() as u64;
            let last = (end.min(self.begin) - first) as usize;
            let text = begin.checked_sub(first).and_then(|begin| self.kept.get(begin as usize..last));
            let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
            let text: &[u8] = text.unwrap_or_default();
            let begin = text.iter().position(|byte| !is_end(byte)).unwrap_or(text.len());
            let end = text.iter().rposition(|byte| !is_end(byte)).map_or(begin, |last| last + 1);
            text[begin..end].to_vec()
        })
    }
}

/// The first quote.
fn position(text: &[u8]) -> Option<usize> {
    let mut rest = text;
    let length = rest.skip_until(QUOTE).expect("reading from memory cannot fail");
    (length > 0 && text[length - 1] == QUOTE).then(|| length - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The records in which text follows a closing quote, for parts of every length.
    fn found(text: &str) -> Vec<String> {
        let records: Vec<&str> = text.split_inclusive('\n').collect();
        let all = [1, 3, 4, 7, text.len().max(1)].map(|length| {
            let (mut quotes, mut found, mut begin) = (Quotes::new(b','), Vec::new(), 0);
            let mut parts = text.as_bytes().chunks(length);
            let mut read = 0;
            for record in &records {
                let end = begin + record.len();
                while read < end {
                    let part = parts.next().unwrap();
                    quotes.follow(part, begin as u64);
                    read += part.len();
                }
                found.extend(quotes.take(begin as u64, end as u64));
                begin = end;
            }
            found.into_iter().map(|text| String::from_utf8(text).unwrap()).collect::<Vec<_>>()
        });
        // A record over many parts is not kept.
        let whole = all.last().unwrap().clone();
        assert!(all.iter().all(|found| found.len() == whole.len()), "{text:?}: {all:?}");
        whole
    }

    #[test]
    fn text_behind_a_closing_quote_is_found() {
        for good in [
            "",
            "a,b\n",
            "\"a\",\"b\"\n",
            "\"a\"\r\n\"b\"\r\"c\"",
            "\"a\"\"b\"\n",
            "a\"b\",c\"\n",
            "\"\",\"\"\"\"\n",
            "x, \"a\"b\n",
        ] {
            assert_eq!(found(good), Vec::<String>::new(), "{good:?}");
        }
        assert_eq!(found("\u{feff}\"a,\"\n\"b\"c\n"), ["\"b\"c"]);
        assert_eq!(
            found("1,\"a\"b\n2,\"c\"\n3,\"x\"\"y\"z\"w\"\n4,d\n\"e\" ,\"f\"g\r\n"),
            ["1,\"a\"b", "3,\"x\"\"y\"z\"w\"", "\"e\" ,\"f\"g",]
        );
    }
}
