//! Owns the file of lines that are no rows. They are in it, synced, before a position passes them.
//! Must not know how lines are read.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use super::lines::{Line, Text};
use crate::letters::Letters;

/// A file that is appended to and synced, made with the first line.
#[derive(Debug)]
pub(super) struct BadLines {
    path: PathBuf,
    file: Mutex<Option<Letters>>,
}

impl BadLines {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: Mutex::default() }
    }

    /// Appends lines, and returns when they are on disk. Blocks the thread.
    pub(super) fn append(&self, lines: &str) -> io::Result<()> {
        let mut slot = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let explain = |error: io::Error| {
            io::Error::new(
                error.kind(),
                format!("the file of bad lines {} cannot be written: {error}", self.path.display()),
            )
        };
        let file = match &*slot {
            Some(file) => file,
            None => slot.insert(Letters::open(&self.path).map_err(explain)?),
        };
        file.append(lines).map_err(explain)
    }
}

/// A line of JSON for a line that is no row. Its id is the same when the line is read again.
pub(super) fn letter(line: &Line, reason: &str, (incarnation, table): (&str, &str)) -> String {
    let number = line.number;
    let mut letter = json!({
        "id": format!("{incarnation}:{table}:0:{number}"),
        "line": number,
        "offset": line.begin,
        "length": line.end - line.begin - 1,
        "reason": reason,
    });
    let (Text::Whole(bytes) | Text::TooLong(bytes)) = &line.text;
    let name = if matches!(line.text, Text::Whole(_)) { "text" } else { "beginning" };
    match std::str::from_utf8(bytes) {
        Ok(text) => letter[name] = text.into(),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            letter[format!("{name}_hex")] = hex.into();
        }
    }
    format!("{letter}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_is_kept_as_it_was() {
        let check = |text: Text, name: &str, expected: &str| {
            let line = Line { number: 7, begin: 100, end: 121, text };
            let letter: serde_json::Value = serde_json::from_str(&letter(&line, "why", ("i-0", "\"t\""))).unwrap();
            assert_eq!((&letter["id"], &letter["length"]), (&json!("i-0:\"t\":0:7"), &json!(20)));
            assert_eq!((&letter[name], &letter["reason"]), (&json!(expected), &json!("why")));
        };
        check(Text::Whole(b"{\"a\"".to_vec()), "text", "{\"a\"");
        check(Text::Whole(b"\xff\x00".to_vec()), "text_hex", "ff00");
        check(Text::TooLong(b"[1,".to_vec()), "beginning", "[1,");
        check(Text::TooLong(b"\xc3".to_vec()), "beginning_hex", "c3");
    }
}
