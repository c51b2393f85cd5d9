//! Owns reading the rows of one partition back, block by block, with a bound for what is not settled.
//! Must not know writing.

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use crate::{
    catalog::StreamView,
    error::LogError,
    format::{names, record::Header, record::Kind, snapshot::Place},
    fs::{Access, File},
    model::{FileKey, SchemaId, StoredBlock, Stream, TableId},
    quarantine,
    ready::Ready,
    recovery::Gap,
    scan::{Found, Scanner},
    shared::Shared,
};

/// How many files may disappear during one call.
const MISSING_FILES: usize = 8;

/// Blocks of a window whose memory is kept.
const LEAST_WINDOW: usize = 16;

/// Where a reader starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum From {
    /// At the first row that is not settled. Settled blocks are left out.
    Unsettled,
    /// At this sequence, whether rows are settled or not: for a position that is stored elsewhere. The first block may start
    /// before it.
    Sequence(u64),
}

/// What a reader has found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Next {
    /// The next block.
    Block(StoredBlock),
    /// Rows are missing here. The next call continues after them; they are not reported again to this reader.
    Gap(Gap),
    /// There is nothing more at present; [`Reader::ready`] waits for more.
    End,
    /// The blocks that were returned fill the window; [`Reader::ready`] waits until some are settled.
    WindowFull,
}

/// Reads one partition of a table, in order; from [`Log::reader`](crate::Log::reader).
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    stream: Stream,
    only_unsettled: bool,
    /// The next row.
    expected: u64,
    open: Option<Open>,
    /// Blocks that were returned and are not settled: first and last row, bytes.
    window: VecDeque<(u64, u64, u64)>,
    window_bytes: u64,
    /// What was known at the last call of `next`.
    seen: u64,
}

#[derive(Debug)]
struct Open {
    key: FileKey,
    /// Only while there are blocks to read: a file that is removed meanwhile needs its space for as long as it is open.
    file: Option<Box<dyn File>>,
    /// Stays at its place while the file is closed.
    scanner: Scanner,
}

/// Where the next rows are.
#[derive(Debug)]
enum Target {
    End,
    Missing(u64),
    In(FileKey, Place, u64),
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, stream: Stream, from: From) -> Self {
        let (only_unsettled, expected) = match from {
            From::Unsettled => (true, 1),
            From::Sequence(first) => (false, first),
        };
        Reader {
            shared,
            stream,
            only_unsettled,
            expected,
            open: None,
            window: VecDeque::new(),
            window_bytes: 0,
            seen: 0,
        }
    }

    /// The next block. It reads from the file on this thread; call it where blocking is allowed.
    ///
    /// # Errors
    ///
    /// If the file system fails. The call can be repeated. Damaged blocks are no error: they are kept in `quarantine`,
    /// counted, and reported as [`Next::Gap`].
    #[expect(clippy::should_implement_trait, reason = "an iterator would end at Next::End, where this goes on")]
    pub fn next(&mut self) -> Result<Next, LogError> {
        let next = self.find_next();
        match next {
            Ok(Next::Block(_)) => {}
            // Blocks that were read ahead follow as soon as rows are settled.
            Ok(Next::WindowFull) => self.close_file(),
            _ => self.go_idle(),
        }
        next
    }

    fn find_next(&mut self) -> Result<Next, LogError> {
        self.seen = self.shared.readable.version();
        let mut missing = 0;
        loop {
            match self.target() {
                Err(next) => return Ok(next),
                Ok(Target::End) => return Ok(Next::End),
                Ok(Target::Missing(before)) => return Ok(self.gap(before)),
                Ok(Target::In(key, place, length)) => match self.read(key, &place, length) {
                    Ok(Some(next)) => return Ok(next),
                    Ok(None) => {}
                    // Removed between looking it up and opening it: its rows were settled or moved.
                    Err(error) if error.kind() == io::ErrorKind::NotFound && missing < MISSING_FILES => {
                        self.open = None;
                        missing += 1;
                    }
                    Err(error) => {
                        self.open = None;
                        return Err(LogError::io("read", &self.shared.path(key), error));
                    }
                },
            }
        }
    }

    /// Goes on behind rows that the caller has in memory, because it has just appended them, so that they are not read from the
    /// file. They count in the window with `bytes`. Returns false and changes nothing if `first` is not the next row, or the
    /// window is full.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # use batchsql_log::{Block, From, Log, Next, Options};
    /// # let (log, _) = Log::open(Options::new(folder.path().join("log")).min_free_bytes(0))?;
    /// # let (table, schema) = (log.table("events")?, log.schema(b"id, note")?);
    /// let block = |bytes: &[u8]| Block { table, partition: 0, schema, count: 1, bytes: bytes.to_vec() };
    /// let mut reader = log.reader(table, 0, From::Unsettled)?;
    /// let appended = log.append(block(b"in memory"))?.wait()?;
    /// assert!(reader.pass(appended.first, appended.last, 9));
    /// log.append(block(b"read back"))?.wait()?;
    /// let Next::Block(block) = reader.next()? else { panic!("there is a block") };
    /// assert_eq!(block.bytes, b"read back");
    /// # Ok(())
    /// # }
    /// ```
    pub fn pass(&mut self, first: u64, last: u64, bytes: u64) -> bool {
        let shared = Arc::clone(&self.shared);
        let catalog = shared.catalog();
        let Some(view) = catalog.streams.get(&self.stream) else { return false };
        if self.is_full(view) || self.expected != first || last >= view.end {
            return false;
        }
        self.expected = last + 1;
        self.window.push_back((first, last, bytes));
        self.window_bytes += bytes;
        self.go_idle();
        true
    }

    /// Closes the file and frees what was read ahead. A file that is removed needs its space for as long as it is open: call this
    /// after a block if [`next`](Self::next) is not called again soon. It keeps its place; the next call opens the file again.
    pub fn release(&mut self) {
        self.go_idle();
    }

    /// Keeps the place in the file, and nothing that was read ahead: there are as many readers as partitions.
    fn go_idle(&mut self) {
        self.close_file();
        if let Some(open) = &mut self.open {
            open.scanner.release();
        }
    }

    /// Keeps the place in the file.
    fn close_file(&mut self) {
        if let Some(open) = &mut self.open {
            open.file = None;
        }
    }

    /// Updates the window and the next row. Whether the window is full.
    fn is_full(&mut self, view: &StreamView) -> bool {
        while let Some(&(first, last, bytes)) = self.window.front() {
            if !view.settled.contains(first, last) {
                break;
            }
            self.window.pop_front();
            self.window_bytes -= bytes;
        }
        // What an outage needed: a block of one row fills little of the window.
        if self.window.len() < self.window.capacity() / 4 {
            self.window.shrink_to((2 * self.window.len()).max(LEAST_WINDOW));
        }
        if self.window_bytes >= self.shared.options.window_bytes && !self.window.is_empty() {
            return true;
        }
        if self.only_unsettled {
            self.expected = view.settled.first_missing(self.expected);
        }
        false
    }

    /// Updates the window, and finds the next rows.
    fn target(&mut self) -> Result<Target, Next> {
        let shared = Arc::clone(&self.shared);
        let catalog = shared.catalog();
        let Some(view) = catalog.streams.get(&self.stream) else { return Ok(Target::End) };
        if self.is_full(view) {
            return Err(Next::WindowFull);
        }
        let located = view.locate(self.expected).filter(|(_, place)| {
            // Rows behind those that are written again wait for them.
            place.first <= self.expected || view.rewritten_from.is_none_or(|from| place.first <= from)
        });
        Ok(match located {
            None if view.rewritten_from.is_some_and(|from| self.expected >= from) => Target::End,
            None if self.expected >= view.end => Target::End,
            None => Target::Missing(view.rewritten_from.map_or(view.end, |from| from.min(view.end))),
            Some((_, place)) if place.first > self.expected => {
                let next = if self.only_unsettled {
                    view.settled.first_present(self.expected).map_or(place.first, |settled| settled.min(place.first))
                } else {
                    place.first
                };
                Target::Missing(next)
            }
            Some((key, place)) => Target::In(key, place, catalog.files.get(&key).map_or(0, |file| file.length)),
        })
    }

    /// `None`: look again.
    fn read(&mut self, key: FileKey, place: &Place, length: u64) -> io::Result<Option<Next>> {
        let stream = self.stream;
        let is_ours = |header: &Header| {
            header.kind == Kind::Block && (header.table, header.partition) == (stream.table, stream.partition)
        };
        let open = self.open.take().filter(|open| open.key == key);
        let (file, mut scanner) = open.map_or_else(
            || (None, Scanner::new(self.shared.context(key), place.offset, length)),
            |open| (open.file, open.scanner),
        );
        let file = match file {
            Some(file) => file,
            None => self.shared.options.file_system.open(&self.shared.path(key), Access::Read)?,
        };
        scanner.set_end(length);
        loop {
            let expected = self.expected;
            let wanted = |header: &Header| is_ours(header) && header.last().is_some_and(|last| last >= expected);
            match scanner.next(&*file, wanted)? {
                Found::Record { header, .. } if !wanted(&header) => {}
                Found::Record { header, offset } if header.first > self.expected => {
                    // Rows before this block are lost. The record is read again by the next call.
                    scanner.go_to(offset);
                    self.open = Some(Open { key, file: Some(file), scanner });
                    return Ok(self.missing_before(header.first));
                }
                Found::Record { header, offset } => {
                    let block = self.block(&header, scanner.payload(offset, &header).to_vec());
                    self.expected = block.last() + 1;
                    let is_left_out = self.only_unsettled && self.is_settled(block.first, block.last());
                    if is_left_out {
                        continue;
                    }
                    self.window.push_back((block.first, block.last(), header.size()));
                    self.window_bytes += header.size();
                    self.open = Some(Open { key, file: Some(file), scanner });
                    return Ok(Some(Next::Block(block)));
                }
                Found::Damage { offset, length, .. } => self.damaged(key, &*file, offset, length),
                Found::End => {
                    // The file should have had them up to the end of this place.
                    let is_behind = self.expected <= place.last;
                    self.open = Some(Open { key, file: Some(file), scanner });
                    return Ok(if is_behind { self.missing_before(place.last + 1) } else { None });
                }
            }
        }
    }

    fn is_settled(&self, first: u64, last: u64) -> bool {
        self.shared.catalog().streams.get(&self.stream).is_some_and(|view| view.settled.contains(first, last))
    }

    /// `None` if the next missing row is settled: look again.
    fn missing_before(&mut self, before: u64) -> Option<Next> {
        let mut before = before;
        if self.only_unsettled {
            let catalog = self.shared.catalog();
            let view = catalog.streams.get(&self.stream)?;
            self.expected = view.settled.first_missing(self.expected);
            if self.expected >= before {
                return None;
            }
            before = view.settled.first_present(self.expected).map_or(before, |settled| settled.min(before));
            drop(catalog);
        }
        Some(self.gap(before))
    }

    fn gap(&mut self, before: u64) -> Next {
        let Stream { table, partition } = self.stream;
        let first = std::mem::replace(&mut self.expected, before);
        self.shared.catalog().streams.entry(self.stream).or_default().lost.insert(first, before - 1);
        Next::Gap(Gap { table: TableId(table), partition, first, last: before - 1 })
    }

    fn block(&self, header: &Header, bytes: Vec<u8>) -> StoredBlock {
        StoredBlock {
            first: header.first,
            count: header.count,
            schema: SchemaId(header.schema),
            schema_bytes: self.shared.catalog().schemas.get(header.schema).cloned(),
            time: UNIX_EPOCH + Duration::from_millis(header.time),
            bytes,
        }
    }

    /// Keeps and counts a damaged part, once for all readers.
    fn damaged(&self, key: FileKey, file: &dyn File, offset: u64, length: u64) {
        let options = &self.shared.options;
        let name = names::segment(key);
        let segment = (name.as_str(), file);
        let kept = quarantine::keep(&*options.file_system, &options.folder, segment, offset, length);
        if !kept.is_ok_and(|kept| kept.was_known) {
            let mut stats = self.shared.stats();
            stats.quarantined += 1;
            stats.quarantined_bytes += length;
        }
    }

    /// Completes when [`next`](Self::next) may have something else to say than at its last call.
    pub fn ready(&self) -> Ready {
        Ready::new(Arc::clone(&self.shared), self.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{log::Log, model::Block, options::Options};

    /// There is a reader for each partition of each table.
    #[test]
    fn a_reader_with_nothing_to_read_keeps_no_bytes_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let (log, _) = Log::open(Options::new(folder.path()).min_free_bytes(0).window_bytes(4 << 10)).unwrap();
        let (table, schema) = (log.table("notes").unwrap(), log.schema(b"note").unwrap());
        let append = || {
            let block = Block { table, partition: 0, schema, count: 1, bytes: vec![1; 1_000] };
            log.append(block).unwrap().wait().unwrap().first
        };
        let settle = |row| log.settle(table, 0, row..=row).unwrap();
        let mut reader = log.reader(table, 0, From::Unsettled).unwrap();
        let held = |reader: &Reader| reader.open.as_ref().map_or(0, |open| open.scanner.held());
        let is_block = |next: Next, row: u64| matches!(next, Next::Block(block) if block.first == row);
        (1..=5).for_each(|row| assert_eq!(append(), row));
        (1..=4).for_each(|row| assert!(is_block(reader.next().unwrap(), row)));
        assert_eq!(reader.next().unwrap(), Next::WindowFull);
        assert!(held(&reader) >= 1_000, "the next block was read ahead");
        settle(1);
        assert!(is_block(reader.next().unwrap(), 5));
        (2..=5).for_each(settle);
        assert_eq!((reader.next().unwrap(), held(&reader)), (Next::End, 0));
        // It goes on where it was, and takes what follows from memory.
        append();
        assert!(is_block(reader.next().unwrap(), 6) && held(&reader) >= 1_000);
        append();
        assert!(reader.pass(7, 7, 1_000));
        assert_eq!(held(&reader), 0);
        append();
        assert!(is_block(reader.next().unwrap(), 8));
        // A window of many small blocks.
        (6..=8).for_each(settle);
        let small = || Block { table, partition: 0, schema, count: 1, bytes: vec![1] };
        let last = (0..40).fold(0, |_, _| log.append(small()).unwrap().wait().unwrap().last);
        while let Next::Block(_) = reader.next().unwrap() {}
        assert!(reader.window.capacity() >= 20, "{reader:?}");
        (9..=last).for_each(settle);
        while let Next::Block(_) = reader.next().unwrap() {}
        assert!(reader.window.capacity() <= LEAST_WINDOW, "{reader:?}");
    }
}
