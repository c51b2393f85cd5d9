//! Owns how a file is read line by line: complete lines only, and none longer than a limit in memory.
//! Must not know what a line means.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};

/// So much of a line that is too long is kept, in bytes.
const BEGINNING: usize = 1 << 10;

const PART: usize = 64 << 10;

/// A file, and how far it is read. Its calls block the thread.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) file: File,
    longest: usize,
    at: At,
    /// A line that is too long already and has no end yet: its beginning, and the bytes of it that were read.
    endless: Option<(Vec<u8>, u64)>,
}

/// Behind a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct At {
    pub(super) line: u64,
    pub(super) offset: u64,
}

/// A line without its line feed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Its number, from 1.
    pub(super) number: u64,
    /// Where it begins and where the next one begins.
    pub(super) begin: u64,
    pub(super) end: u64,
    pub(super) text: Text,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Text {
    Whole(Vec<u8>),
    /// It is longer than the limit: its beginning.
    TooLong(Vec<u8>),
}

impl Lines {
    /// Lines of at most `longest` bytes.
    pub(super) fn new(file: File, longest: usize) -> Self {
        Self { file, longest, at: At::default(), endless: None }
    }

    /// Behind the last line that was read.
    pub(super) fn at(&self) -> At {
        self.at
    }

    /// The next line is the one behind this place.
    pub(super) fn go_to(&mut self, at: At) {
        self.at = at;
        self.endless = None;
    }

    /// Reads complete lines, at least one if there is one, until they have so many bytes or are so many.
    pub(super) fn read(&mut self, most_lines: usize, most_bytes: usize) -> io::Result<Vec<Line>> {
        let (mut beginning, done) = self.endless.take().unwrap_or_default();
        let mut reader = BufReader::with_capacity(PART, &self.file);
        reader.seek(SeekFrom::Start(self.at.offset + done))?;
        let (mut lines, mut bytes) = (Vec::new(), 0);
        let mut length = done;
        while lines.len() < most_lines && (bytes < most_bytes || lines.is_empty()) {
            let part = reader.fill_buf()?;
            if part.is_empty() {
                break;
            }
            let end = part.iter().position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(part.len());
            let room = self.longest.saturating_add(1).saturating_sub(beginning.len());
            beginning.extend_from_slice(&part[..taken.min(room)]);
            length += taken as u64;
            if length > self.longest as u64 {
                beginning.truncate(BEGINNING);
            }
            let used = taken + usize::from(end.is_some());
            reader.consume(used);
            if end.is_none() {
                continue;
            }
            let begin = self.at.offset;
            self.at = At { line: self.at.line + 1, offset: begin + length + 1 };
            bytes += beginning.len();
            let text = std::mem::take(&mut beginning);
            let text = if length > self.longest as u64 { Text::TooLong(text) } else { Text::Whole(text) };
            lines.push(Line { number: self.at.line, begin, end: self.at.offset, text });
            length = 0;
        }
        if length > self.longest as u64 {
            // It is not read again from its beginning whenever the file grows.
            self.endless = Some((beginning, length));
        }
        Ok(lines)
    }

    /// Goes behind this line. False: the file has fewer complete lines.
    pub(super) fn skip_to(&mut self, line: u64) -> io::Result<bool> {
        self.endless = None;
        let mut reader = BufReader::with_capacity(PART, &self.file);
        reader.seek(SeekFrom::Start(self.at.offset))?;
        let mut offset = self.at.offset;
        while self.at.line < line {
            let part = reader.fill_buf()?;
            if part.is_empty() {
                return Ok(false);
            }
            let end = part.iter().position(|byte| *byte == b'\n');
            let used = end.map_or(part.len(), |end| end + 1);
            offset += used as u64;
            reader.consume(used);
            if end.is_some() {
                self.at = At { line: self.at.line + 1, offset };
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn lines(text: &[u8], longest: usize) -> (Lines, File) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        (Lines::new(file.reopen().unwrap(), longest), file.into_file())
    }

    fn whole(number: u64, begin: u64, text: &str) -> Line {
        let end = begin + text.len() as u64 + 1;
        Line { number, begin, end, text: Text::Whole(text.as_bytes().to_vec()) }
    }

    #[test]
    fn a_last_line_without_an_end_waits() {
        let (mut lines, mut file) = lines(b"one\n\ntw", 10);
        assert_eq!(lines.read(9, 99).unwrap(), [whole(1, 0, "one"), whole(2, 4, "")]);
        assert_eq!(lines.read(9, 99).unwrap(), []);
        file.write_all(b"o\nthree").unwrap();
        assert_eq!(lines.read(9, 99).unwrap(), [whole(3, 5, "two")]);
        assert_eq!(lines.at(), At { line: 3, offset: 9 });
    }

    #[test]
    fn lines_are_read_up_to_a_number_and_a_size() {
        let (mut lines, _file) = lines(b"aaaa\nbbbb\ncccc\ndddd\n", 10);
        assert_eq!(lines.read(1, 99).unwrap().len(), 1);
        assert_eq!(lines.read(9, 5).unwrap().len(), 2);
        assert_eq!(lines.read(9, 0).unwrap(), [whole(4, 15, "dddd")], "one is always read");
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_and_only_its_beginning_is_kept() {
        let long = [vec![b'x'; 3 * PART], b"\n".to_vec(), vec![b'y'; 11], b"\nok\n".to_vec()].concat();
        let (mut lines, _file) = lines(&long, 10);
        let read = lines.read(9, 99_999).unwrap();
        let texts: Vec<_> = read.iter().map(|line| (line.number, &line.text)).collect();
        let (x, y) = (Text::TooLong(vec![b'x'; 11]), Text::TooLong(vec![b'y'; 11]));
        assert_eq!(texts, [(1, &x), (2, &y), (3, &Text::Whole(b"ok".to_vec()))]);
        assert_eq!(read[2].end, long.len() as u64);
    }

    #[test]
    fn a_line_without_an_end_is_not_kept_and_not_read_again() {
        let (mut lines, mut file) = lines(&vec![b'x'; 3 * PART], BEGINNING + 5);
        assert_eq!(lines.read(9, 99).unwrap(), []);
        assert_eq!(lines.endless.as_ref().map(|(kept, read)| (kept.len(), *read)), Some((BEGINNING, 3 * PART as u64)));
        file.write_all(&vec![b'x'; PART]).unwrap();
        assert_eq!(lines.read(9, 99).unwrap(), []);
        file.write_all(b"\nok\n").unwrap();
        let read = lines.read(9, 9_999).unwrap();
        assert_eq!(read[0].text, Text::TooLong(vec![b'x'; BEGINNING]));
        assert_eq!(read[1], whole(2, 4 * PART as u64 + 1, "ok"));
    }

    #[test]
    fn lines_without_a_limit_are_whole() {
        let (mut lines, _file) = lines(b"one\ntwo\n", usize::MAX);
        assert_eq!(lines.read(9, 99).unwrap(), [whole(1, 0, "one"), whole(2, 4, "two")]);
    }

    #[test]
    fn a_place_is_found_by_its_line() {
        let (mut lines, _file) = lines(b"one\ntwo\nthree", 10);
        assert!(lines.skip_to(2).unwrap());
        assert_eq!(lines.at(), At { line: 2, offset: 8 });
        assert!(!lines.skip_to(3).unwrap(), "it has no end");
        lines.go_to(At { line: 1, offset: 4 });
        assert_eq!(lines.read(9, 99).unwrap(), [whole(2, 4, "two")]);
    }
}
