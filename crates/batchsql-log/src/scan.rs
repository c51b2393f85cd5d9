//! Owns reading the records of a segment one after the other, over damaged parts.
//! Must not know what records mean, and never allocates more than a record that fits into its file.

use std::io;

use crate::{
    format::record::{self, ALIGN, Context, HEADER, Header},
    fs::File,
};

const CHUNK: usize = 256 << 10;

#[derive(Debug)]
pub(crate) struct Scanner {
    context: Context,
    /// Where the next record starts.
    offset: u64,
    end: u64,
    buffer: Vec<u8>,
    /// Where the buffer starts in the file.
    start: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Record {
        header: Header,
        offset: u64,
    },
    /// Bytes that are no record. The header is known if only the payload is damaged.
    Damage {
        offset: u64,
        length: u64,
        header: Option<Header>,
    },
    End,
}

impl Scanner {
    pub(crate) fn new(context: Context, offset: u64, end: u64) -> Self {
        Scanner { context, offset, end, buffer: Vec::new(), start: 0 }
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The file has grown, or was cut.
    pub(crate) fn set_end(&mut self, end: u64) {
        self.end = end;
    }

    /// Returns to a record, for example to read it again.
    pub(crate) fn go_to(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// Frees what was read ahead, and keeps the place. The next call reads it again.
    pub(crate) fn release(&mut self) {
        self.buffer = Vec::new();
    }

    /// Bytes of memory that hold a part of the file.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.buffer.capacity()
    }

    /// The next record. The payloads that `is_wanted` chooses are read and checked. Each call moves forward or ends.
    pub(crate) fn next(&mut self, file: &dyn File, is_wanted: impl Fn(&Header) -> bool) -> io::Result<Found> {
        let offset = self.offset;
        if offset >= self.end {
            return Ok(Found::End);
        }
        let Some(header) = self.header_at(file, offset)? else {
            let next = self.search(file, offset)?;
            self.offset = next;
            return Ok(Found::Damage { offset, length: next - offset, header: None });
        };
        // Checked before anything of this size is allocated.
        let size = header.size();
        if size > self.end - offset {
            self.offset = self.end;
            return Ok(Found::Damage { offset, length: self.end - offset, header: Some(header) });
        }
        self.offset = offset + size;
        if is_wanted(&header) {
            let is_intact = self.fill(file, offset, size as usize)?
                && crc32fast::hash(self.payload(offset, &header)) == header.payload_crc;
            if !is_intact {
                return Ok(Found::Damage { offset, length: size, header: Some(header) });
            }
        }
        Ok(Found::Record { header, offset })
    }

    /// The payload of the record that the last call has returned, if it was wanted.
    pub(crate) fn payload(&self, offset: u64, header: &Header) -> &[u8] {
        let from = offset.saturating_sub(self.start) as usize + HEADER;
        self.buffer.get(from..from + header.length as usize).unwrap_or_default()
    }

    fn header_at(&mut self, file: &dyn File, offset: u64) -> io::Result<Option<Header>> {
        if self.end - offset < HEADER as u64 || !self.fill(file, offset, HEADER)? {
            return Ok(None);
        }
        Ok(record::parse(self.buffered(offset), &self.context, offset))
    }

    /// The next place behind `offset` with an intact header whose record fits, or the end.
    fn search(&mut self, file: &dyn File, offset: u64) -> io::Result<u64> {
        let mut offset = offset;
        loop {
            offset = (offset / ALIGN as u64 + 1) * ALIGN as u64;
            if self.end.saturating_sub(offset) < HEADER as u64 || !self.fill(file, offset, HEADER)? {
                return Ok(self.end);
            }
            let bytes = self.buffered(offset);
            if record::may_start(bytes)
                && record::parse(bytes, &self.context, offset).is_some_and(|found| found.size() <= self.end - offset)
            {
                return Ok(offset);
            }
        }
    }

    fn buffered(&self, offset: u64) -> &[u8] {
        &self.buffer[(offset - self.start) as usize..]
    }

    /// Reads so that `length` bytes from `offset` on are in the buffer. `false` if the file ends before; it must not reach
    /// beyond `end`.
    fn fill(&mut self, file: &dyn File, offset: u64, length: usize) -> io::Result<bool> {
        let buffered = self.start..self.start + self.buffer.len() as u64;
        if buffered.contains(&offset) && offset + length as u64 <= buffered.end {
            return Ok(true);
        }
        let wanted = length.max(CHUNK).min(usize::try_from(self.end - offset).unwrap_or(usize::MAX));
        if self.buffer.capacity() > 2 * CHUNK.max(wanted) {
            self.buffer = Vec::new();
        }
        self.buffer.resize(wanted, 0);
        let read = match file.read_at(&mut self.buffer, offset) {
            Ok(read) => read,
            Err(error) => {
                self.buffer.clear();
                return Err(error);
            }
        };
        self.buffer.truncate(read);
        self.start = offset;
        Ok(read >= length)
    }
}
