//! The tokens of a source file that matter for imports: words, `::`, string literals and single marks.
//! Must not know what a path or an item is.

/// A token and its line, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) line: usize,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name, a keyword or a number; `r#type` is the word `type`.
    Word(String),
    /// `::`
    PathSeparator,
    /// The source text between the quotes of a string literal.
    Text(String),
    /// Any other character.
    Mark(char),
}

impl Token {
    pub(super) fn word(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }

    pub(super) fn is(&self, mark: char) -> bool {
        self.kind == Kind::Mark(mark)
    }
}

/// The tokens of a file, without comments, character literals and lifetimes.
pub(super) fn tokens(source: &str) -> Vec<Token> {
    let mut reader = Reader { rest: source, line: 1 };
    let mut tokens = Vec::new();
    while let Some(next) = reader.rest.chars().next() {
        let line = reader.line;
        if let Some(kind) = reader.token(next) {
            tokens.push(Token { line, kind });
        }
    }
    tokens
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Reader<'a> {
    /// Reads at least one character. `None`: it is not a token.
    fn token(&mut self, next: char) -> Option<Kind> {
        if self.rest.starts_with("//") {
            self.take(self.rest.find('\n').unwrap_or(self.rest.len()));
            return None;
        }
        if self.rest.starts_with("/*") {
            self.block_comment();
            return None;
        }
        if let Some(text) = self.string() {
            return Some(Kind::Text(text.to_owned()));
        }
        if next == '\'' {
            self.character_or_lifetime();
            return None;
        }
        if self.rest.starts_with("b'") {
            self.take(1);
            self.character_or_lifetime();
            return None;
        }
        if self.rest.starts_with("::") {
            self.take(2);
            return Some(Kind::PathSeparator);
        }
        if is_word(next) {
            let raw = self.rest.strip_prefix("r#").is_some_and(|rest| rest.starts_with(is_word));
            if raw {
                self.take(2);
            }
            let length = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
            return Some(Kind::Word(self.take(length).to_owned()));
        }
        self.take(next.len_utf8());
        (!next.is_whitespace()).then_some(Kind::Mark(next))
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    /// Block comments nest.
    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        while let Some(next) = self.rest.chars().next() {
            if self.rest.starts_with("/*") {
                depth += 1;
                self.take(2);
            } else if self.rest.starts_with("*/") {
                depth -= 1;
                self.take(2);
                if depth == 0 {
                    return;
                }
            } else {
                self.take(next.len_utf8());
            }
        }
    }

    /// A literal with double quotes: plain, raw, of bytes or of C.
    fn string(&mut self) -> Option<&'a str> {
        let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|prefix| {
            let raw = prefix.ends_with('r');
            self.rest.strip_prefix(prefix).is_some_and(|rest| {
                let quote = if raw { rest.trim_start_matches('#') } else { rest };
                quote.starts_with('"')
            })
        })?;
        let rest = &self.rest[prefix.len()..];
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        self.take(prefix.len() + hashes + 1);
        let length = if prefix.ends_with('r') {
            let end = format!("\"{}", "#".repeat(hashes));
            self.rest.find(&end).unwrap_or(self.rest.len())
        } else {
            end_of_plain_string(self.rest)
        };
        let text = self.take(length);
        self.take((1 + hashes).min(self.rest.len()));
        Some(text)
    }

    /// `'a'`, `'\n'`, `'\u{1F600}'`, or the lifetime `'a`.
    fn character_or_lifetime(&mut self) {
        let mut characters = self.rest.char_indices().skip(1);
        let length = match (characters.next(), characters.next()) {
            (Some((at, '\\')), _) => {
                // The character after the backslash may be a quote.
                let after = at + 2;
                self.rest
                    .get(after..)
                    .and_then(|rest| rest.find('\''))
                    .map_or(self.rest.len(), |found| after + found + 1)
            }
            (Some(_), Some((at, '\''))) => at + 1,
            _ => 1 + self.rest[1..].find(|c| !is_word(c)).unwrap_or(self.rest.len() - 1),
        };
        self.take(length);
    }
}

fn end_of_plain_string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, character) in rest.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at,
            _ => {}
        }
    }
    rest.len()
}

fn is_word(character: char) -> bool {
    character == '_' || character.is_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, expected: &[&str]) {
        let show = |token: &Token| match &token.kind {
            Kind::Word(word) => word.clone(),
            Kind::PathSeparator => "::".to_owned(),
            Kind::Text(text) => format!("{text:?}"),
            Kind::Mark(mark) => mark.to_string(),
        };
        assert_eq!(tokens(source).iter().map(show).collect::<Vec<_>>(), expected, "{source}");
    }

    #[test]
    fn words_marks_and_paths() {
        check("use a::{b_1, r#type};", &["use", "a", "::", "{", "b_1", ",", "type", "}", ";"]);
        check("x:&'static T", &["x", ":", "&", "T"]);
    }

    #[test]
    fn comments_are_left_out() {
        check("a // use crate::b;\n/* c /* d */ e */ f /// g", &["a", "f"]);
    }

    #[test]
    fn literals_hide_what_is_in_them() {
        check(r#"f("use crate::a; \" {", b)"#, &["f", "(", "\"use crate::a; \\\\\\\" {\"", ",", "b", ")"]);
        check(r###"f(r#"a " b"#, br"c\", c"d")"###, &["f", "(", "\"a \\\" b\"", ",", "\"c\\\\\"", ",", "\"d\"", ")"]);
        check(r"f('{', '\'', '\u{7b}', b'}', 'a')", &["f", "(", ",", ",", ",", ",", ")"]);
        check("fn f<'a>(x: &'a str)", &["fn", "f", "<", ">", "(", "x", ":", "&", "str", ")"]);
        check("'outer: loop {}", &[":", "loop", "{", "}"]);
    }

    #[test]
    fn lines_are_counted_through_literals_and_comments() {
        let lines = |source| tokens(source).iter().map(|token| token.line).collect::<Vec<_>>();
        assert_eq!(lines("a\n\"b\nc\" /*\n*/ d\n// e\nf"), [1, 2, 4, 6]);
    }
}
