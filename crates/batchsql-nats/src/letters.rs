//! Owns the file with messages that are not of this format, and items of messages that are no rows. They are in it, synced, before
//! the partition goes on.
//! Must not know how messages are read.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use async_nats::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use batchsql_feed::Letters;
use serde_json::json;

/// A file that is appended to and synced, as that of dead letters.
#[derive(Debug)]
pub(crate) struct ForeignLetters {
    path: PathBuf,
    /// `None` until the first message.
    file: Mutex<Option<Letters>>,
}

/// A message for the file, or an item of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ForeignLetter<'a> {
    /// The name and the incarnation of the source.
    pub(crate) source: &'a str,
    pub(crate) subject: &'a str,
    pub(crate) sequence: u64,
    /// The number of the item, from 0; `None`: all of the message.
    pub(crate) item: Option<u32>,
    /// All of the message is in the letter, and items of it have ended, or may have: rows are written, or letters of single items are before
    /// this one. Whoever publishes all of it again has these twice.
    pub(crate) is_partly_written: bool,
    pub(crate) reason: &'a str,
    /// Of the message, if all of it is in the letter.
    pub(crate) headers: Option<&'a HeaderMap>,
    /// Of the message or the item.
    pub(crate) payload: &'a [u8],
}

impl ForeignLetter<'_> {
    /// A line of JSON. Its id is the same when the message is read again.
    pub(crate) fn line(&self) -> String {
        let headers = self.headers.into_iter().flat_map(|headers| headers.iter());
        let headers: Vec<_> = headers
            .flat_map(|(name, values)| values.iter().map(move |value| json!([name.to_string(), value.as_str()])))
            .collect();
        let mut line = json!({
            "id": format!("{}:{}:{}", self.source, self.subject, self.sequence),
            "subject": self.subject,
            "sequence": self.sequence,
            "reason": self.reason,
            "headers": headers,
            "payload": STANDARD.encode(self.payload),
        });
        if self.is_partly_written {
            line["partly_written"] = true.into();
        }
        if let Some(item) = self.item {
            // As people count.
            let number = u64::from(item) + 1;
            line["id"] = format!("{}:{}:{}:{number}", self.source, self.subject, self.sequence).into();
            line["line"] = number.into();
        }
        format!("{line}\n")
    }
}

impl ForeignLetters {
    /// The file is made with the first message.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, file: Mutex::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a line, and returns when it is on disk. Blocks the thread.
    pub(crate) fn append(&self, line: &str) -> io::Result<()> {
        let mut slot = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Some(file) => file.append(line),
            None => slot.insert(Letters::open(&self.path)?).append(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_kept_as_it_was() {
        let mut headers = HeaderMap::new();
        headers.insert("A", "b");
        let letter = ForeignLetter {
            source: "s:1",
            subject: "ingest.t.0",
            sequence: 7,
            item: None,
            is_partly_written: false,
            reason: "why",
            headers: Some(&headers),
            payload: b"\0\xff",
        };
        let of_item: serde_json::Value =
            serde_json::from_str(&ForeignLetter { item: Some(2), ..letter }.line()).unwrap();
        assert_eq!(of_item["partly_written"], serde_json::Value::Null);
        let partly: serde_json::Value =
            serde_json::from_str(&ForeignLetter { is_partly_written: true, ..letter }.line()).unwrap();
        assert_eq!(partly["partly_written"], true);
        assert_eq!((&of_item["id"], &of_item["line"]), (&json!("s:1:ingest.t.0:7:3"), &json!(3)));
        let line: serde_json::Value = serde_json::from_str(&letter.line()).unwrap();
        assert_eq!((&line["id"], &line["line"]), (&json!("s:1:ingest.t.0:7"), &serde_json::Value::Null));
        assert_eq!((&line["headers"][0][0], &line["headers"][0][1]), (&json!("A"), &json!("b")));
        assert_eq!(STANDARD.decode(line["payload"].as_str().unwrap()).unwrap(), b"\0\xff");
    }

    #[test]
    fn a_line_that_was_cut_off_does_not_take_the_next_one_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("foreign");
        ForeignLetters::new(path.clone()).append("{\"a\":").unwrap();
        ForeignLetters::new(path.clone()).append("{}\n").unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().last(), Some("{}"));
    }

    #[test]
    fn a_file_that_was_moved_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("foreign");
        let letters = ForeignLetters::new(path.clone());
        letters.append("{}\n").unwrap();
        std::fs::rename(&path, folder.path().join("old")).unwrap();
        letters.append("[]\n").unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "[]\n");
    }
}
