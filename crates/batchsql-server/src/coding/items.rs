//! Owns how a body is split: into lines, or into the elements of a JSON array. It holds one item and a part.
//! Must not know what an item means.

/// Of UTF-8. It is no part of the first item.
pub(crate) const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A JSON document per line.
    Lines,
    /// One array, or one object. Elements that are no objects are items too.
    Array,
}

/// The items of a body, from its parts.
#[derive(Debug)]
pub(crate) struct Items {
    form: Form,
    limit: usize,
    /// What has arrived; the first `taken` bytes were returned as items.
    buffer: Vec<u8>,
    taken: usize,
    /// Up to here the buffer was searched.
    searched: usize,
    /// The beginning was looked at.
    has_begun: bool,
    /// Items that were returned.
    number: u64,
    array: Array,
}

/// Where the search for elements is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Array {
    /// Before the first bracket.
    Before,
    /// After a bracket or a comma; `first`: the array may end here.
    Between { first: bool },
    /// In an object or an array.
    Element { depth: usize, text: Text, alone: bool },
    /// In a text, a number, `true`, `false` or `null`.
    Scalar(Text),
    /// After an element.
    AfterElement,
    /// After the end of the array.
    Ended,
}

/// Whether the search is in a text of JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Outside,
    Inside,
    /// After a backslash.
    Escaped,
}

/// Why a body cannot be split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unsplit {
    /// The item with this number is above the limit.
    TooLong(u64),
    /// It is not an array.
    NoArray(String),
}

impl Items {
    /// Items of at most `limit` bytes.
    pub(crate) fn new(form: Form, limit: usize) -> Self {
        let array = Array::Before;
        Self { form, limit, buffer: Vec::new(), taken: 0, searched: 0, has_begun: false, number: 0, array }
    }

    /// Where the next part is appended.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        self.buffer.drain(..self.taken);
        self.searched -= self.taken;
        self.taken = 0;
        &mut self.buffer
    }

    /// The next item that is complete, with its number, from 1. Empty lines count, and are left out.
    ///
    /// # Errors
    /// An item is too long, or the body is no array. Items before it were returned.
    pub(crate) fn next(&mut self, is_end: bool) -> Result<Option<(u64, &[u8])>, Unsplit> {
        if !self.has_begun && !self.begin(is_end) {
            return Ok(None);
        }
        loop {
            let found = match self.form {
                Form::Lines => self.line(is_end),
                Form::Array => self.element(is_end)?,
            };
            let Some((from, to)) = found else {
                return match self.buffer.len() - self.taken > self.limit {
                    true => Err(Unsplit::TooLong(self.number + 1)),
                    false => Ok(None),
                };
            };
            self.number += 1;
            if to - from > self.limit {
                return Err(Unsplit::TooLong(self.number));
            }
            if !self.buffer[from..to].trim_ascii().is_empty() {
                return Ok(Some((self.number, &self.buffer[from..to])));
            }
        }
    }

    /// Leaves a byte order mark out. `false`: more of the body must be there to know.
    fn begin(&mut self, is_end: bool) -> bool {
        if self.buffer.starts_with(BYTE_ORDER_MARK) {
            (self.taken, self.searched) = (BYTE_ORDER_MARK.len(), BYTE_ORDER_MARK.len());
        } else if !is_end && BYTE_ORDER_MARK.starts_with(&self.buffer) {
            return false;
        }
        self.has_begun = true;
        true
    }

    fn line(&mut self, is_end: bool) -> Option<(usize, usize)> {
        let rest = &self.buffer[self.searched..];
        let from = self.taken;
        if let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            let to = self.searched + at;
            (self.searched, self.taken) = (to + 1, to + 1);
            return Some((from, to));
        }
        self.searched = self.buffer.len();
        if is_end && from < self.buffer.len() {
            self.taken = self.buffer.len();
            return Some((from, self.buffer.len()));
        }
        None
    }

    fn element(&mut self, is_end: bool) -> Result<Option<(usize, usize)>, Unsplit> {
        while let Some(&byte) = self.buffer.get(self.searched) {
            let at = self.searched;
            self.searched += 1;
            match self.array {
                Array::Element { depth, text, alone } => {
                    let (depth, text) = step(depth, text, byte);
                    self.array = Array::Element { depth, text, alone };
                    if depth > 0 {
                        continue;
                    }
                    let from = self.taken;
                    self.taken = self.searched;
                    self.array = if alone { Array::Ended } else { Array::AfterElement };
                    return Ok(Some((from, self.taken)));
                }
                Array::Scalar(text) => {
                    self.array = Array::Scalar(step(1, text, byte).1);
                    match (text, byte) {
                        (Text::Inside, b'"') => {}
                        // It has ended before.
                        (Text::Outside, b',' | b']') => self.searched = at,
                        (Text::Outside, _) if byte.is_ascii_whitespace() => self.searched = at,
                        (Text::Outside, _) if !is_of_word(byte) => return Err(Unsplit::NoArray(self.expected())),
                        _ => continue,
                    }
                    let from = self.taken;
                    self.taken = self.searched;
                    self.array = Array::AfterElement;
                    return Ok(Some((from, self.taken)));
                }
                _ if byte.is_ascii_whitespace() => {}
                Array::Before if byte == b'[' => self.array = Array::Between { first: true },
                Array::Before if byte == b'{' => {
                    self.array = Array::Element { depth: 1, text: Text::Outside, alone: true };
                    self.taken = at;
                    continue;
                }
                Array::Between { .. } if matches!(byte, b'{' | b'[' | b'"') || is_of_word(byte) => {
                    self.array = match byte {
                        b'{' | b'[' => Array::Element { depth: 1, text: Text::Outside, alone: false },
                        _ => Array::Scalar(step(1, Text::Outside, byte).1),
                    };
                    self.taken = at;
                    continue;
                }
                Array::Between { first: true } | Array::AfterElement if byte == b']' => self.array = Array::Ended,
                Array::AfterElement if byte == b',' => self.array = Array::Between { first: false },
                _ => return Err(Unsplit::NoArray(self.expected())),
            }
            self.taken = self.searched;
        }
        if is_end && self.array != Array::Ended {
            return Err(Unsplit::NoArray(format!("the body ends too early, in or after element {}", self.number)));
        }
        Ok(None)
    }

    fn expected(&self) -> String {
        let next = self.number + 1;
        match self.array {
            Array::Before => "the body is neither a JSON array of objects nor an object".to_owned(),
            Array::Between { .. } | Array::Scalar(_) => format!("element {next} of the array is not JSON"),
            Array::AfterElement => format!("there is no comma after element {}", self.number),
            Array::Ended | Array::Element { .. } => "there is something after the end of the array".to_owned(),
        }
    }
}

/// Whether a number, `true`, `false` or `null` may have it. Whether it is one is not asked here.
fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}

fn step(depth: usize, text: Text, byte: u8) -> (usize, Text) {
    match (text, byte) {
        (Text::Escaped, _) => (depth, Text::Inside),
        (Text::Inside, b'\\') => (depth, Text::Escaped),
        (Text::Inside, b'"') => (depth, Text::Outside),
        (Text::Inside, _) => (depth, Text::Inside),
        (Text::Outside, b'"') => (depth, Text::Inside),
        (Text::Outside, b'{' | b'[') => (depth + 1, Text::Outside),
        (Text::Outside, b'}' | b']') => (depth - 1, Text::Outside),
        (Text::Outside, _) => (depth, Text::Outside),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The items of a body that comes in steps, and how it ended.
    fn split(form: Form, limit: usize, body: &str, step: usize) -> (Vec<(u64, String)>, Option<Unsplit>) {
        let mut items = Items::new(form, limit);
        let mut found = Vec::new();
        let parts = body.as_bytes().chunks(step).map(|part| (part, false)).chain([(&b""[..], true)]);
        for (part, is_end) in parts {
            items.buffer().extend_from_slice(part);
            loop {
                match items.next(is_end) {
                    Ok(Some((number, item))) => found.push((number, String::from_utf8(item.to_vec()).unwrap())),
                    Ok(None) => break,
                    Err(error) => return (found, Some(error)),
                }
            }
        }
        (found, None)
    }

    fn check(form: Form, body: &str, expected: &[(u64, &str)], error: Option<Unsplit>) {
        for step in [1, 3, 1000] {
            let (found, ended) = split(form, 30, body, step);
            let found: Vec<(u64, &str)> = found.iter().map(|(number, item)| (*number, item.as_str())).collect();
            assert_eq!((found.as_slice(), &ended), (expected, &error), "{body} in steps of {step}");
        }
    }

    #[test]
    fn lines() {
        check(Form::Lines, "a\nb\n", &[(1, "a"), (2, "b")], None);
        check(Form::Lines, "a\r\n\n  \nb", &[(1, "a\r"), (4, "b")], None);
        check(Form::Lines, "", &[], None);
        check(Form::Lines, "\u{feff}a\n\u{feff}b", &[(1, "a"), (2, "\u{feff}b")], None);
        check(Form::Lines, "\u{feff}", &[], None);
        let long = format!("a\n{}\nb", "x".repeat(31));
        check(Form::Lines, &long, &[(1, "a")], Some(Unsplit::TooLong(2)));
    }

    #[test]
    fn elements() {
        check(
            Form::Array,
            r#" [ {"a": "}]\"{"} ,{"b":[{}]}] "#,
            &[(1, r#"{"a": "}]\"{"}"#), (2, r#"{"b":[{}]}"#)],
            None,
        );
        check(
            Form::Array,
            r#"[null,{}, -1.5e+3 ,"],\"{" ,[{"a":[]},1],true]"#,
            &[(1, "null"), (2, "{}"), (3, "-1.5e+3"), (4, r#""],\"{""#), (5, r#"[{"a":[]},1]"#), (6, "true")],
            None,
        );
        check(Form::Array, "[]", &[], None);
        check(Form::Array, "\u{feff} [{}]", &[(1, "{}")], None);
        check(Form::Array, r#"{"a":1}"#, &[(1, r#"{"a":1}"#)], None);
        let refused = |body: &str, expected: &[(u64, &str)], text: &str| {
            check(Form::Array, body, expected, Some(Unsplit::NoArray(text.to_owned())));
        };
        refused("", &[], "the body ends too early, in or after element 0");
        refused("7", &[], "the body is neither a JSON array of objects nor an object");
        refused("[{},]", &[(1, "{}")], "element 2 of the array is not JSON");
        refused("[,]", &[], "element 1 of the array is not JSON");
        refused("[nu:l]", &[], "element 1 of the array is not JSON");
        refused("[7", &[], "the body ends too early, in or after element 0");
        refused("[\"7]", &[], "the body ends too early, in or after element 0");
        refused("[7 8]", &[(1, "7")], "there is no comma after element 1");
        refused("[\"7\"8]", &[(1, "\"7\"")], "there is no comma after element 1");
        refused("[{} {}]", &[(1, "{}")], "there is no comma after element 1");
        refused("[{}] x", &[(1, "{}")], "there is something after the end of the array");
        refused("[{}, {\"a\"", &[(1, "{}")], "the body ends too early, in or after element 1");
        let long = format!("[{{}},{{\"a\":\"{}\"}}]", "x".repeat(31));
        check(Form::Array, &long, &[(1, "{}")], Some(Unsplit::TooLong(2)));
    }
}
