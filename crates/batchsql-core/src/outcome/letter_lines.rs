//! Owns the lines of a file of letters: where each begins, which of them is complete, and which is too long to be held.
//! Must not know what is in a line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use serde::de::IgnoredAny;

/// The longest line that is read, with its line feed. A row has at most `buffer_bytes` (32 MiB by default), bytes are two hex
/// digits each; a message of NATS has at most 64 MiB, in Base64.
const MOST_LINE: usize = 128 << 20;

/// The complete lines of a file, from any of them on.
///
/// A last line without a line feed is complete if it is a JSON object: then only the line feed can follow. Another one counts as the
/// end of the file, because it may be in the middle of its writing; [`unfinished`](Self::unfinished) says where it begins.
#[derive(Debug)]
pub struct LetterLines {
    file: BufReader<File>,
    /// Behind the last line that was returned.
    position: u64,
    /// The line before `position` had no line feed when it was read.
    is_open: bool,
    is_unfinished: bool,
    /// Lines that were returned, with that of `begin` as the first one.
    read: u64,
    begin: u64,
    /// Lines before `begin`; they are counted when they are needed.
    before: Option<u64>,
    most: usize,
}

/// Why a line is not returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line} has more than {} MiB, the most that is read; the lines behind it are not affected", .most >> 20)]
pub struct LineTooLong {
    /// Its number, from 1.
    pub line: u64,
    most: usize,
}

/// Where a line begins, and its text.
pub type LetterText = (u64, Result<Vec<u8>, LineTooLong>);

impl LetterLines {
    /// # Errors
    /// The file cannot be opened, or no line starts there: it is another file.
    pub fn open_at(path: &Path, position: u64) -> io::Result<Self> {
        let mut lines = Self::within(path, position.saturating_sub(1))?;
        if position == 0 {
            return Ok(lines);
        }
        let mut before = [0];
        let is_there = lines.file.read_exact(&mut before).is_ok();
        lines.is_open = before != *b"\n";
        if !is_there || (lines.is_open && !matches!(lines.file.fill_buf()?.first(), None | Some(b'\n'))) {
            let text = format!("no line of the dead-letter file starts at byte {position}; it is not the same file");
            return Err(io::Error::new(ErrorKind::InvalidInput, text));
        }
        (lines.position, lines.begin) = (position, position);
        Ok(lines)
    }

    /// The same, where a line is known to start.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn within(path: &Path, position: u64) -> io::Result<Self> {
        let mut file = BufReader::new(File::open(path)?);
        file.seek(SeekFrom::Start(position))?;
        Ok(Self {
            file,
            position,
            is_open: false,
            is_unfinished: false,
            read: 0,
            begin: position,
            before: None,
            most: MOST_LINE,
        })
    }

    /// Where the next line starts.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Where a last line starts that is not complete, after the end was reached.
    pub fn unfinished(&self) -> Option<u64> {
        self.is_unfinished.then_some(self.position)
    }

    fn line(&mut self) -> io::Result<Option<LetterText>> {
        self.is_unfinished = false;
        if self.is_open && !self.file.fill_buf()?.is_empty() {
            self.is_open = false;
            if self.file.fill_buf()?[0] == b'\n' {
                self.file.consume(1);
                self.position += 1;
            }
        }
        let mut line = Vec::new();
        let most = self.most as u64;
        let mut length = (&mut self.file).take(most + 1).read_until(b'\n', &mut line)? as u64;
        if length == 0 {
            return Ok(None);
        }
        let mut is_ended = line.ends_with(b"\n");
        let is_too_long = length > most;
        if is_too_long {
            line = Vec::new();
            if !is_ended {
                let (more, end) = skip_line(&mut self.file)?;
                (length, is_ended) = (length + more, end);
            }
        }
        let is_complete = is_ended || (!is_too_long && is_object(&line));
        if !is_complete {
            // Read again from its start when more of it is there.
            self.file.seek(SeekFrom::Start(self.position))?;
            self.is_unfinished = true;
            return Ok(None);
        }
        let at = self.position;
        self.position += length;
        self.is_open = !is_ended;
        self.read += 1;
        let line = if is_too_long { Err(LineTooLong { line: self.number()?, most: self.most }) } else { Ok(line) };
        Ok(Some((at, line)))
    }

    /// The number of the last line.
    fn number(&mut self) -> io::Result<u64> {
        let before = match self.before {
            Some(before) => before,
            None => {
                self.file.seek(SeekFrom::Start(0))?;
                let before = line_feeds(&mut (&mut self.file).take(self.begin))?;
                self.file.seek(SeekFrom::Start(self.position))?;
                *self.before.insert(before)
            }
        };
        Ok(before + self.read)
    }
}

impl Iterator for LetterLines {
    type Item = io::Result<LetterText>;

    fn next(&mut self) -> Option<Self::Item> {
        self.line().transpose()
    }
}

/// No beginning of an object is one, so it is all of it.
fn is_object(line: &[u8]) -> bool {
    line.trim_ascii_start().starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(line).is_ok()
}

/// The bytes up to the end of the line, and whether it has a line feed.
fn skip_line(file: &mut impl BufRead) -> io::Result<(u64, bool)> {
    let mut skipped = 0;
    loop {
        let part = file.fill_buf()?;
        let end = part.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(part.len(), |end| end + 1);
        if length == 0 {
            return Ok((skipped, false));
        }
        file.consume(length);
        skipped += length as u64;
        if end.is_some() {
            return Ok((skipped, true));
        }
    }
}

fn line_feeds(file: &mut impl BufRead) -> io::Result<u64> {
    let mut count = 0;
    loop {
        let part = file.fill_buf()?;
        if part.is_empty() {
            return Ok(count);
        }
        count += part.iter().filter(|byte| **byte == b'\n').count() as u64;
        let length = part.len();
        file.consume(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is returned of a file with this text, from a position on, if lines have at most 20 bytes.
    fn read(text: &str, position: u64) -> (Vec<Result<String, u64>>, Option<u64>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        std::fs::write(&path, text).unwrap();
        let mut lines = LetterLines::open_at(&path, position).unwrap();
        lines.most = 20;
        let mut found = Vec::new();
        for line in &mut lines {
            let (at, line) = line.unwrap();
            if let Ok(line) = &line {
                assert!(text.as_bytes()[at as usize..].starts_with(line));
            }
            found.push(line.map(|line| String::from_utf8(line).unwrap()).map_err(|error| error.line));
        }
        (found, lines.unfinished())
    }

    #[test]
    fn a_line_that_is_too_long_takes_no_other_with_it() {
        let long = "x".repeat(20_000);
        let line = |text: &str| Ok(text.to_owned());
        let exact = format!("{}\n", "y".repeat(19));
        let text = format!("{{}}\n{long}\n{exact}{long}\n{}\nlast\n", "z".repeat(20));
        let all = vec![line("{}\n"), Err(2), line(&exact), Err(4), Err(5), line("last\n")];
        assert_eq!(read(&text, 0), (all.clone(), None));
        assert_eq!(read(&text, 3), (all[1..].to_vec(), None), "its number is that in the file");
        // Whether it is complete cannot be known.
        assert_eq!(read(&format!("{{}}\n{{\"a\":\"{long}\"}}"), 0), (vec![line("{}\n")], Some(3)));
        let text = LineTooLong { line: 7, most: MOST_LINE }.to_string();
        assert!(text.starts_with("line 7 has more than 128 MiB"), "{text}");
    }

    #[test]
    fn a_last_line_without_a_line_feed_is_complete_if_it_is_an_object() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        let open = |position| LetterLines::open_at(&path, position);
        for part in ["{\"a\":1", "{\"a\":{}", "1", "", "{\"a\":\"}"] {
            std::fs::write(&path, format!("{{}}\n{part}")).unwrap();
            let mut lines = open(0).unwrap();
            assert!(lines.next().is_some() && lines.next().is_none(), "{part}");
            assert_eq!(lines.unfinished(), (!part.is_empty()).then_some(3), "{part}");
        }
        std::fs::write(&path, "{}\n{\"a\":1}").unwrap();
        let mut lines = open(0).unwrap();
        assert_eq!(lines.by_ref().count(), 2);
        assert_eq!((lines.position(), lines.unfinished()), (10, None));
        let mut later = open(10).unwrap();
        assert!(later.next().is_none());
        // Its line feed is no line.
        std::fs::write(&path, "{}\n{\"a\":1}\n").unwrap();
        for mut lines in [lines, later, open(10).unwrap()] {
            assert!(lines.next().is_none());
            assert_eq!(lines.position(), 11);
        }
        std::fs::write(&path, "{}\n{\"a\":1}\n{\"b\":1}\n").unwrap();
        let (at, line) = open(10).unwrap().next().unwrap().unwrap();
        assert_eq!((at, line.unwrap()), (11, b"{\"b\":1}\n".to_vec()));
    }
}
