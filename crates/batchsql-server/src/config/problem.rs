//! Owns what is wrong with a configuration: where it stands, and what to do about it.
//! Must not know the settings.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The text of a configuration file, for places in it.
#[derive(Debug, Clone)]
pub(crate) struct SourceText {
    path: PathBuf,
    text: String,
    origin: Origin,
}

/// Who has written the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    File,
    /// The program, from options: places in it mean nothing to a person.
    Options,
}

impl SourceText {
    pub(crate) fn new(path: &Path, text: String) -> Self {
        Self { path: path.to_owned(), text, origin: Origin::File }
    }

    /// A text that the program has made of options of the command line.
    pub(crate) fn of_options(text: String) -> Self {
        Self { path: PathBuf::from("command line"), text, origin: Origin::Options }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The file, if a person has written it.
    pub(crate) fn file(&self) -> Option<&Path> {
        (self.origin == Origin::File).then_some(&*self.path)
    }

    /// The folder that relative paths of the file start at.
    pub(crate) fn folder(&self) -> PathBuf {
        self.path.parent().map(Path::to_owned).unwrap_or_default()
    }

    /// A problem at these bytes of the file, or with the file as a whole.
    pub(crate) fn problem(&self, span: Option<Range<usize>>, text: impl Into<String>) -> Problem {
        let place = span.filter(|_| self.origin == Origin::File).map(|span| {
            let before = self.text.get(..span.start).unwrap_or(&self.text);
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
        });
        Problem { path: self.path.clone(), place, text: text.into() }
    }
}

/// One mistake. It shows no value of a setting that may be a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    path: PathBuf,
    /// Line and column, from 1.
    place: Option<(usize, usize)>,
    text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.text)
    }
}

/// What is wrong with a configuration; at least one mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problems(pub(crate) Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

/// The message of the TOML reader in the words of a person who writes the file: with a suggestion for a misspelt key, and
/// without values, which may be secrets.
pub(crate) fn advise(message: &str) -> String {
    let message = message.trim_end();
    if let Some((name, known)) = unknown(message, "unknown field `") {
        return match (closest(name, &known), known.is_empty()) {
            (Some(meant), _) => format!("the key `{name}` is not known; did you mean `{meant}`?"),
            (None, true) => format!("the key `{name}` is not known here; remove it"),
            (None, false) => format!("the key `{name}` is not known; the keys here are {}", known.join(", ")),
        };
    }
    if let Some((name, known)) = unknown(message, "unknown variant `") {
        let choice = known.join(", ");
        return match closest(name, &known) {
            Some(meant) => format!("`{name}` is not known; did you mean `{meant}`? The choice is {choice}"),
            None => format!("`{name}` is not known; the choice is {choice}"),
        };
    }
    if let Some(name) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        return format!("the key `{name}` is missing");
    }
    without_values(message)
}

/// The name in a message such as ``unknown field `a`, expected one of `b`, `c` ``, and what was expected.
fn unknown<'a>(message: &'a str, start: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let (name, rest) = message.strip_prefix(start)?.split_once('`')?;
    Some((name, rest.split('`').skip(1).step_by(2).collect()))
}

/// The known name that was probably meant.
pub(crate) fn closest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let similarity = |known: &&str| strsim::jaro_winkler(&name.to_lowercase(), &known.to_lowercase());
    let best = known.iter().max_by(|one, other| similarity(one).total_cmp(&similarity(other)))?;
    (similarity(best) > 0.82).then_some(*best)
}

/// ``invalid type: string "...", expected a map`` has the value, which may be a secret: so may a number.
fn without_values(message: &str) -> String {
    for (kind, name) in [("integer `", "integer"), ("floating point `", "number"), ("boolean `", "boolean")] {
        if let Some((before, rest)) = message.split_once(kind)
            && let Some((_, after)) = rest.split_once('`')
        {
            return format!("{before}{name}{after}");
        }
    }
    let Some((before, rest)) = message.split_once("string \"") else { return message.to_owned() };
    // The value is printed with escapes, so the first quote without a backslash ends it.
    let mut is_escaped = false;
    let end = rest.char_indices().find_map(|(at, letter)| match letter {
        '"' if !is_escaped => Some(at + 1),
        _ => {
            is_escaped = letter == '\\' && !is_escaped;
            None
        }
    });
    format!("{before}text{}", &rest[end.unwrap_or(rest.len())..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_advice_without_values() {
        let check = |message: &str, advice: &str| assert_eq!(advise(message), advice);
        check(
            "unknown field `flush_sise`, expected one of `flush_size`, `buffer_size`",
            "the key `flush_sise` is not known; did you mean `flush_size`?",
        );
        check("unknown field `zzz`, expected `dsn`", "the key `zzz` is not known; the keys here are dsn");
        check("unknown field `zzz`, there are no fields", "the key `zzz` is not known here; remove it");
        check(
            "unknown variant `upsert`, expected one of `insert`, `update`",
            "`upsert` is not known; the choice is insert, update",
        );
        check("missing field `name`", "the key `name` is missing");
        check(
            r#"invalid type: string "postgres://u:hun\"ter2@h", expected struct DatabaseSection"#,
            "invalid type: text, expected struct DatabaseSection",
        );
        check("invalid type: integer `12345678`, expected a string", "invalid type: integer, expected a string");
        check("invalid type: floating point `1.5`, expected a string", "invalid type: number, expected a string");
        check("invalid type: boolean `true`, expected a string", "invalid type: boolean, expected a string");
    }

    #[test]
    fn places_count_lines_and_letters() {
        let source = SourceText::new(Path::new("a.toml"), "ä = 1\n  bcd = 2\n".to_owned());
        let at = |part: &str| source.text().find(part).map(|start| start..start + 1);
        assert_eq!(source.problem(at("bcd"), "x").to_string(), "a.toml:2:3: x");
        assert_eq!(source.problem(at("= 1"), "x").to_string(), "a.toml:1:3: x");
        assert_eq!(source.problem(None, "x").to_string(), "a.toml: x");
        let options = SourceText::of_options(source.text().to_owned());
        assert_eq!(options.problem(at("bcd"), "x").to_string(), "command line: x");
    }
}
