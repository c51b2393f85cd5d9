//! Owns files of messages and lines of a stream that are no rows (`.foreign`): their form, and what is in them.
//! Must not know how they come into it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use batchsql::LetterLines;
use serde::Deserialize;

use crate::exit::Exit;
use crate::output::Output;
use crate::tools::marked;

/// A line of such a file: a message, or a line or an element of one.
#[derive(Deserialize)]
pub(super) struct Letter {
    /// The same, if the message was read again.
    pub(super) id: String,
    pub(super) subject: String,
    sequence: u64,
    /// Its number in the message, from 1; `None`: all of the message.
    pub(super) line: Option<u64>,
    /// All of the message is in the letter, and rows of it are written, or are in letters before this one.
    #[serde(default)]
    pub(super) partly_written: bool,
    /// Why it is no row, without values.
    reason: String,
    #[serde(default)]
    pub(super) headers: Vec<(String, String)>,
    #[serde(rename = "payload")]
    encoded: String,
}

impl Letter {
    /// # Errors
    /// It was changed to what is no Base64.
    pub(super) fn payload(&self) -> Result<Vec<u8>, String> {
        STANDARD.decode(&self.encoded).map_err(|error| format!("its payload cannot be read: {error}"))
    }
}

/// The letters of a file, each with the byte where it begins.
pub(super) struct Letters(LetterLines);

impl Letters {
    /// # Errors
    /// The file cannot be read.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::open_at(path, 0)
    }

    /// The same, from the begin of a letter on.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn open_at(path: &Path, position: u64) -> io::Result<Self> {
        LetterLines::open_at(path, position).map(Self)
    }

    /// Where the next letter starts.
    pub(super) fn position(&self) -> u64 {
        self.0.position()
    }

    /// Where a last line starts that is not complete, after the end was reached.
    pub(super) fn unfinished(&self) -> Option<u64> {
        self.0.unfinished()
    }
}

impl Iterator for Letters {
    /// A line that cannot be read has a reason instead of a letter.
    type Item = io::Result<(u64, Result<Letter, String>)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (begin, line) = match self.0.next()? {
                Ok(line) => line,
                Err(error) => return Some(Err(error)),
            };
            let letter = match line {
                Ok(line) if line.trim_ascii().is_empty() => continue,
                Ok(line) => serde_json::from_slice(&line).map_err(|_| UNREADABLE.to_owned()),
                Err(error) => Err(format!("{UNREADABLE}: {error}")),
            };
            return Some(Ok((begin, letter)));
        }
    }
}

const UNREADABLE: &str = "it cannot be read";

/// Whether it is such a file, and not one of rows: its first line that can be read says so.
///
/// # Errors
/// The file cannot be read.
pub(super) fn is_in(path: &Path) -> io::Result<bool> {
    #[derive(Deserialize)]
    struct Line {
        #[serde(default)]
        payload: Option<serde::de::IgnoredAny>,
    }
    for line in LetterLines::open_at(path, 0)? {
        if let Ok(line) = line?.1
            && let Ok(Line { payload }) = serde_json::from_slice(&line)
        {
            return Ok(payload.is_some());
        }
    }
    Ok(false)
}

/// Counts the letters by subject and reason, and those that a replay has published.
///
/// # Errors
/// The file cannot be read.
pub(super) fn list(path: &Path) -> io::Result<Exit> {
    let mark = marked::look(path)?;
    let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
    let (mut broken, mut replayed) = (marked::Broken::default(), 0_u64);
    let mut letters = Letters::open(path)?;
    for letter in &mut letters {
        let (position, letter) = letter?;
        replayed += u64::from(mark.has_passed(position));
        match letter {
            Ok(Letter { subject, reason, .. }) => *counts.entry((subject, reason)).or_default() += 1,
            Err(reason) => broken.add(position, reason),
        }
    }
    let total: u64 = counts.values().sum();
    let mut out = Output::lock();
    let _ = writeln!(out, "{:>8}  {:32} reason", "letters", "subject");
    for ((subject, reason), count) in &counts {
        let _ = writeln!(out, "{count:>8}  {subject:32} {reason}");
    }
    let _ = writeln!(out, "{total:>8}  in {}", path.display());
    mark.print(&mut out, replayed, "published again");
    marked::print_unfinished(&mut out, letters.unfinished());
    Ok(broken.print(&mut out))
}

/// Prints letters: their message and why it is not written; what they are only if it is asked for.
///
/// # Errors
/// The file cannot be read.
pub(super) fn show(path: &Path, limit: usize, values: bool) -> io::Result<Exit> {
    let mut out = Output::lock();
    let mut letters = Letters::open(path)?;
    for letter in letters.by_ref().take(limit) {
        let (position, letter) = letter?;
        let _ = match &letter {
            Ok(Letter { subject, sequence, line, reason, encoded, .. }) => {
                let line = line.map_or_else(String::new, |line| format!(", line {line}"));
                let bytes = encoded.len() / 4 * 3;
                writeln!(out, "byte {position}: {subject} message {sequence}{line}: {reason}; about {bytes} bytes")
            }
            Err(reason) => writeln!(out, "byte {position}: {reason}"),
        };
        if Output::is_over() {
            return Ok(Exit::Done);
        }
        if values && let Ok(letter) = letter {
            let text = letter.payload().ok().and_then(|payload| String::from_utf8(payload).ok());
            let text = text.unwrap_or_else(|| format!("(Base64) {}", letter.encoded));
            text.lines().for_each(|line| drop(writeln!(out, "    {line}")));
        }
    }
    marked::print_unfinished(&mut out, letters.unfinished());
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_messages_and_of_rows_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        let check = |text: &str, expected: bool| {
            std::fs::write(&path, text).unwrap();
            assert_eq!(is_in(&path).unwrap(), expected, "{text}");
        };
        check("", false);
        check("{\"table\":\"t\",\"row\":{\"payload\":1}}\n", false);
        check("{\"id\":\"s:1:t.0:7\",\"payload\":\"\"}\n", true);
        // The first line was cut off.
        check("{\"id\":\"s:1:\n{\"id\":\"s:1:t.0:7\",\"payload\":\"\"}\n", true);
    }
}
