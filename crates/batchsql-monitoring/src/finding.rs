//! Owns the findings of checks: the place, the mistake, and what to do.
//! Must not know any check.

use std::fmt;

/// One mistake in one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, relative to the root of the repository.
    pub file: String,
    /// The panel, rule or line; empty for the whole file.
    pub place: String,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, place, message } = self;
        if place.is_empty() { write!(f, "{file}: {message}") } else { write!(f, "{file}: {place}: {message}") }
    }
}

/// Findings of one file.
#[derive(Debug)]
pub(crate) struct Findings<'a> {
    file: &'a str,
    all: &'a mut Vec<Finding>,
}

impl<'a> Findings<'a> {
    pub(crate) fn of(file: &'a str, all: &'a mut Vec<Finding>) -> Self {
        Self { file, all }
    }

    pub(crate) fn add(&mut self, place: impl Into<String>, message: impl Into<String>) {
        self.all.push(Finding { file: self.file.to_owned(), place: place.into(), message: message.into() });
    }

    /// Adds a finding unless `holds`.
    pub(crate) fn expect(&mut self, holds: bool, place: &str, message: impl Into<String>) {
        if !holds {
            self.add(place, message);
        }
    }

    pub(crate) fn extend(&mut self, place: &str, messages: impl IntoIterator<Item = String>) {
        messages.into_iter().for_each(|message| self.add(place, message));
    }
}
