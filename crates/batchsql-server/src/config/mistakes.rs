//! Owns the mistakes that the checks of a configuration find.
//! Must not know what is checked.

use std::collections::BTreeSet;

use toml::Spanned;

use crate::config::problem::{Problem, SourceText, closest};

/// Collects what is wrong.
pub(super) struct Mistakes<'a> {
    pub(super) source: &'a SourceText,
    pub(super) found: Vec<Problem>,
}

impl Mistakes<'_> {
    pub(super) fn problem(&mut self, span: std::ops::Range<usize>, text: impl Into<String>) {
        self.found.push(self.source.problem(Some(span), text));
    }

    /// The value, or `None` after the problem was noted.
    pub(super) fn ok<T>(&mut self, span: std::ops::Range<usize>, checked: Result<T, String>) -> Option<T> {
        checked.map_err(|text| self.problem(span, text)).ok()
    }

    /// A name that is used by requests, metrics and files.
    pub(super) fn name(&mut self, name: &Spanned<String>, seen: &mut BTreeSet<String>, what: &str) {
        let text = name.get_ref();
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
        if text.is_empty() || !text.chars().all(is_plain) {
            self.problem(name.span(), format!("`{text}` cannot be {what}; use letters, digits, `_`, `-` and `.`"));
        } else if !seen.insert(text.clone()) {
            self.problem(name.span(), format!("`{text}` is {what} twice; give one of them another name"));
        }
    }
    /// A name of a table that must be one of these.
    pub(super) fn known_table(&mut self, span: std::ops::Range<usize>, name: &str, tables: &[&str]) {
        if !tables.contains(&name) {
            let text = match closest(name, tables) {
                Some(meant) => format!("there is no table `{name}`; did you mean `{meant}`?"),
                None => {
                    format!("there is no table `{name}`; add it to [[tables]], or name one of: {}", tables.join(", "))
                }
            };
            self.problem(span, text);
        }
    }
}
