//! Owns the split of the texts of composite types, arrays and ranges into the texts of their parts, as the server splits them.
//! Must not know types or limits.
//!
//! Grammar: <https://www.postgresql.org/docs/current/rowtypes.html#ROWTYPES-IO-SYNTAX>,
//! <https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO>, <https://www.postgresql.org/docs/current/rangetypes.html#RANGETYPES-IO>.

/// The text of a part; `None` is `NULL`, or a bound that is infinite.
pub(crate) type PartText = Option<String>;

/// A text that is read from its start.
struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn skip_spaces(&mut self) {
        self.rest = trim_start(self.rest);
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    /// Reads this character if it is next.
    fn take(&mut self, expected: char) -> bool {
        match self.rest.strip_prefix(expected) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Whether only spaces are left.
    fn is_at_end(&self) -> bool {
        trim_start(self.rest).is_empty()
    }

    /// An attribute or a bound up to one of `ends`, without its quotes and escapes. Its spaces belong to it.
    fn item(&mut self, ends: &[char]) -> Option<PartText> {
        if self.peek()? == ',' || ends.contains(&self.peek()?) {
            return Some(None);
        }
        let (mut text, mut in_quotes) = (String::new(), false);
        while in_quotes || !(self.peek()? == ',' || ends.contains(&self.peek()?)) {
            match self.next()? {
                '\\' => text.push(self.next()?),
                '"' if in_quotes && self.take('"') => text.push('"'),
                '"' => in_quotes = !in_quotes,
                other => text.push(other),
            }
        }
        Some(Some(text))
    }
}

/// The white space of the server.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches(is_space)
}

/// The attributes of `(1,"a b",)`. `None` if the server would not read the text.
pub(crate) fn record(text: &str) -> Option<Vec<PartText>> {
    let mut reader = Reader { rest: text };
    reader.skip_spaces();
    if !reader.take('(') {
        return None;
    }
    let mut items = Vec::new();
    loop {
        items.push(reader.item(&[')'])?);
        if reader.take(')') {
            break;
        }
        reader.next()?;
    }
    reader.is_at_end().then_some(items)
}

/// The bounds of `[1,2)`; none of `empty`. `None` if the server would not read the text.
pub(crate) fn range(text: &str) -> Option<Vec<String>> {
    let mut reader = Reader { rest: text };
    reader.skip_spaces();
    if let Some((word, rest)) = reader.rest.split_at_checked("empty".len())
        && word.eq_ignore_ascii_case("empty")
    {
        return trim_start(rest).is_empty().then(Vec::new);
    }
    if !reader.take('[') && !reader.take('(') {
        return None;
    }
    let ends = [')', ']'];
    let lower = reader.item(&ends)?;
    if !reader.take(',') {
        return None;
    }
    let upper = reader.item(&ends)?;
    let is_closed = ends.into_iter().any(|end| reader.take(end));
    (is_closed && reader.is_at_end()).then(|| lower.into_iter().chain(upper).collect())
}

/// The texts of the ranges of `{[1,2),[3,4)}`. `None` if the server would not read the text.
pub(crate) fn multirange(text: &str) -> Option<Vec<&str>> {
    let mut reader = Reader { rest: text };
    reader.skip_spaces();
    if !reader.take('{') {
        return None;
    }
    let mut ranges = Vec::new();
    reader.skip_spaces();
    if reader.take('}') {
        return reader.is_at_end().then_some(ranges);
    }
    loop {
        reader.skip_spaces();
        let start = reader.rest;
        if start.get(.."empty".len()).is_some_and(|word| word.eq_ignore_ascii_case("empty")) {
            reader.rest = &start["empty".len()..];
        } else {
            let mut in_quotes = false;
            loop {
                match reader.next()? {
                    '\\' => drop(reader.next()?),
                    '"' => in_quotes = !in_quotes,
                    ')' | ']' if !in_quotes => break,
                    _ => {}
                }
            }
        }
        ranges.push(&start[..start.len() - reader.rest.len()]);
        reader.skip_spaces();
        match reader.next()? {
            ',' => {}
            '}' => return reader.is_at_end().then_some(ranges),
            _ => return None,
        }
    }
}

/// The elements of `{1,"a b",{…}}` in all dimensions, without those that are `NULL`. `None` if the server would not read
/// the text.
pub(crate) fn array(text: &str) -> Option<Vec<String>> {
    let mut reader = Reader { rest: trim_start(text) };
    // The bounds of the dimensions: `[0:1][1:2]={…}`.
    if reader.rest.starts_with('[') {
        let (bounds, rest) = reader.rest.split_once('=')?;
        let is_bound = |c: char| c.is_ascii_digit() || matches!(c, '[' | ']' | ':' | '+' | '-') || is_space(c);
        if !bounds.chars().all(is_bound) {
            return None;
        }
        reader.rest = trim_start(rest);
    }
    let (mut elements, mut depth) = (Vec::new(), 0_usize);
    // Whether an element or a brace may come next, or a comma or the end of a dimension.
    let mut is_before_element = true;
    loop {
        reader.skip_spaces();
        match reader.peek()? {
            '{' if is_before_element => {
                depth += 1;
                reader.next();
                reader.skip_spaces();
                // An empty dimension.
                is_before_element = reader.peek()? != '}';
            }
            '}' if depth > 0 && !is_before_element => {
                depth -= 1;
                reader.next();
                if depth == 0 {
                    return reader.is_at_end().then_some(elements);
                }
            }
            ',' if depth > 0 && !is_before_element => {
                reader.next();
                is_before_element = true;
            }
            _ if depth > 0 && is_before_element => {
                elements.extend(element(&mut reader)?);
                is_before_element = false;
            }
            _ => return None,
        }
    }
}

/// An element of an array up to the comma or brace after it.
fn element(reader: &mut Reader<'_>) -> Option<PartText> {
    let mut text = String::new();
    if reader.take('"') {
        loop {
            match reader.next()? {
                '\\' => text.push(reader.next()?),
                '"' => return Some(Some(text)),
                other => text.push(other),
            }
        }
    }
    // Spaces at the end do not belong to the element, except escaped ones.
    let (mut kept, mut has_escape) = (0, false);
    while !matches!(reader.peek()?, ',' | '}') {
        match reader.next()? {
            '\\' => {
                text.push(reader.next()?);
                has_escape = true;
                kept = text.len();
            }
            '"' | '{' => return None,
            other => {
                text.push(other);
                if !is_space(other) {
                    kept = text.len();
                }
            }
        }
    }
    text.truncate(kept);
    match &*text {
        "" => None,
        word if !has_escape && word.eq_ignore_ascii_case("null") => Some(None),
        _ => Some(Some(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_split_as_the_server_splits_it() {
        let check = |text: &str, expected: &[Option<&str>]| {
            let found = record(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(found.iter().map(Option::as_deref).collect::<Vec<_>>(), expected, "{text}");
        };
        check("(1,a)", &[Some("1"), Some("a")]);
        check(" \n(1,) ", &[Some("1"), None]);
        check("()", &[None]);
        check("(\"\",,\" \")", &[Some(""), None, Some(" ")]);
        check(r#"("a""b",c\,d, e"f,g"h )"#, &[Some("a\"b"), Some("c,d"), Some(" ef,gh ")]);
        check(r#"("(1,\"2\")",x)"#, &[Some("(1,\"2\")"), Some("x")]);
        check(r"(\\,\))", &[Some("\\"), Some(")")]);
        check("((,[)", &[Some("("), Some("[")]);
        for text in ["", "1,2", "(1", "(1,\"a)", "(1)x", r"(1,\", "{1}"] {
            assert_eq!(record(text), None, "{text}");
        }
    }

    #[test]
    fn a_range_has_its_bounds() {
        let check = |text: &str, expected: &[&str]| assert_eq!(range(text).unwrap(), expected, "{text}");
        check("[1,2)", &["1", "2"]);
        check(" (,2] ", &["2"]);
        check("(,)", &[]);
        check(" EMPTY ", &[]);
        check(r#"["a,b",c\)]"#, &["a,b", "c)"]);
        check("[ 1,2 )", &[" 1", "2 "]);
        for text in ["", "1,2", "[1)", "[1,2,3)", "[1,2", "[1,2)x", "empties"] {
            assert_eq!(range(text), None, "{text}");
        }
    }

    #[test]
    fn a_multirange_has_its_ranges() {
        let check = |text: &str, expected: &[&str]| assert_eq!(multirange(text).unwrap(), expected, "{text}");
        check(" { } ", &[]);
        check(r#"{[1,2), (3,"4)"] ,empty}"#, &["[1,2)", r#"(3,"4)"]"#, "empty"]);
        for text in ["", "[1,2)", "{[1,2)", "{[1,2)[3,4)}", "{[1,2)}x", "{,}"] {
            assert_eq!(multirange(text), None, "{text}");
        }
    }

    #[test]
    fn an_array_has_its_elements() {
        let check = |text: &str, expected: &[&str]| assert_eq!(array(text).unwrap(), expected, "{text}");
        check("{}", &[]);
        check(" { 1 , 2.50,NULL,null } ", &["1", "2.50"]);
        check("[0:1]={1,2}", &["1", "2"]);
        check("[1:1][-2:-1] = {{1,2}}", &["1", "2"]);
        check("{{1},{2},{NULL}}", &["1", "2"]);
        check(r#"{"(1.239,a)","a\"b\\c"," "}"#, &["(1.239,a)", "a\"b\\c", " "]);
        check(r#"{a\,b\ ,"NULL",nu\ll}"#, &["a,b ", "NULL", "null"]);
        for text in ["", "1", "{", "{1", "{1}}", "{1}x", "{,}", "{1,}", "{\"a\"b}", "{a\"b\"}", "[x]={1}", "{{1}2}"] {
            assert_eq!(array(text), None, "{text}");
        }
    }
}
