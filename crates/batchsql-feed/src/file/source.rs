//! Owns a file as a source: its lines in order, how far they are written, and how a position in the database fits them.
//! Must not know how rows are written.
//!
//! The sequence of a row is the number of its line. A line that is no row, or is empty, needs no write and is settled in its
//! turn.

use std::collections::VecDeque;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use batchsql_core::{BatchSql, Claim, ClaimFrom, StopReason, WarningCounts};
use tokio::sync::watch;
use tokio::time::sleep;

use super::bad_lines::BadLines;
use super::blocking::{lost_thread, run};
use super::error::FileError;
use super::lines::{At, Lines};
use super::mark::{Mark, Place};
use super::name::{identity, is_other};
use super::opening::{Found, find};
use super::options::{FileOptions, TakeOver};
use super::reader::{Opened, Read, go_behind};
use super::rows::Part;
use crate::source::{Begin, Next, NotClaimed, Refusal, Source, SourceError};
use crate::state::{PartitionState, quoted_table};

/// How often the mark is replaced while lines are being written. What was settled since then is found again: in the database,
/// or it is written again.
const MARK_EVERY: Duration = Duration::from_secs(1);

/// The starts that a backup of the database may be behind.
const EARLIER: usize = 100;

/// A file of JSON lines as the only partition of a source, see [`FileFeed`](super::FileFeed).
#[derive(Debug)]
pub struct FileSource {
    of: Arc<Opened>,
    /// `None` while a thread reads, and after a panic of it.
    lines: Option<Lines>,
    /// Whether `lines` is behind the last line that is settled.
    is_placed: bool,
    /// What was read and not returned.
    parts: VecDeque<Part>,
    /// What was returned and is not settled.
    window: VecDeque<Held>,
    window_bytes: usize,
    mark: Mark,
    marked: Option<Instant>,
    owner: String,
    ends: watch::Sender<SeenEnd>,
    /// How often somebody has asked for a look at the end of the file.
    asked: watch::Sender<u64>,
    /// What `asked` was before the last look.
    looked: u64,
    /// The length of the file when its end was seen.
    length: u64,
    /// The fingerprint of the bytes before the next line that is read, when the place is known; `None` if the file was truncated
    /// just then.
    before_next: Option<u128>,
}

/// Lines that were returned and are not settled.
#[derive(Debug)]
struct Held {
    bytes: usize,
    behind: At,
    before: Option<u128>,
}

/// The end of the file, as it was seen.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SeenEnd {
    /// The last complete line.
    pub(super) line: u64,
    /// Looks that were asked for before this one began.
    pub(super) asked: u64,
    /// The file, while it is open. `None` before its end was seen.
    pub(super) file: Option<(u64, u64)>,
}

impl FileSource {
    /// Opens a file for a pipeline. It waits until the file has a first line: that names it.
    ///
    /// # Errors
    /// The file or its mark cannot be used, another process uses it ([`is_locked`](FileError::is_locked)), or it was replaced
    /// ([`is_replaced`](FileError::is_replaced)).
    ///
    /// # Cancel safety
    /// Dropping it is safe.
    pub async fn open(options: FileOptions, pipeline: BatchSql) -> Result<Self, FileError> {
        let fits = pipeline.row_buffer(&options.schema);
        fits.map_err(|error| FileError::settings(error.to_string()))?;
        let Found { file, mark, mark_file } = find(&options).await?;
        let of = Opened {
            incarnation: mark.incarnation(),
            table: quoted_table(options.schema.table()),
            bad_lines: BadLines::new(options.bad_lines_path()),
            bad_count: Arc::default(),
            bad_log: WarningCounts::new("other reasons".to_owned()),
            mark_file,
            options,
            pipeline,
        };
        Ok(Self {
            lines: Some(Lines::new(file, of.options.max_line_bytes)),
            of: Arc::new(of),
            is_placed: false,
            parts: VecDeque::new(),
            window: VecDeque::new(),
            window_bytes: 0,
            mark,
            marked: None,
            owner: owner(),
            ends: watch::Sender::default(),
            asked: watch::Sender::default(),
            looked: 0,
            length: 0,
            before_next: None,
        })
    }

    /// Which file it is: for [`FeedOptions::new`](crate::FeedOptions::new).
    pub fn incarnation(&self) -> &str {
        &self.of.incarnation
    }

    /// How far it is, for [`Feeds::start`](crate::Feeds::start).
    pub fn state(&self) -> PartitionState {
        // Exactly once, the position in the database says it.
        let settled = if self.of.options.exactly_once.is_some() { 0 } else { self.mark.settled };
        PartitionState::new(&*self.of.table, 0, settled)
    }

    /// Stores how far it is written, when its feed has returned it.
    ///
    /// # Errors
    /// The mark cannot be written: the next start writes lines again, or asks the database.
    ///
    /// # Cancel safety
    /// The mark is stored or not.
    pub async fn close(mut self) -> Result<(), FileError> {
        self.of.say_rest();
        let stored = self.store().await;
        let path = self.of.mark_file.path().display().to_string();
        stored.map_err(|error| FileError::io(&format!("cannot write the mark {path}"), error))
    }

    pub(super) fn ends(&self) -> watch::Receiver<SeenEnd> {
        self.ends.subscribe()
    }

    /// Who adds 1 gets an end that was seen after that.
    pub(super) fn asked(&self) -> watch::Sender<u64> {
        self.asked.clone()
    }

    /// Lines that are no rows, since the start.
    pub(super) fn bad_lines(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.of.bad_count)
    }

    /// Replaces the mark.
    async fn store(&mut self) -> io::Result<()> {
        let (of, mark) = (Arc::clone(&self.of), self.mark.clone());
        run(move || of.mark_file.store(&mark)).await??;
        self.marked = Some(Instant::now());
        Ok(())
    }

    /// Goes behind this line. False: the file has not so many, or other ones before the place of the mark.
    async fn place_behind(&mut self, line: u64) -> io::Result<bool> {
        let Some(mut lines) = self.lines.take() else { return Err(lost_thread()) };
        let known = At { line: self.mark.place.line, offset: self.mark.place.offset };
        let start = if known.line <= line { known } else { At::default() };
        let known_before = self.mark.place.before;
        let (lines, found) = run(move || {
            let found = go_behind(&mut lines, start, line, (known, known_before));
            (lines, found)
        })
        .await?;
        let at = lines.at();
        self.lines = Some(lines);
        let Some(before) = found? else { return Ok(false) };
        self.parts.clear();
        self.window.clear();
        self.window_bytes = 0;
        self.mark.settled = line;
        self.mark.place = Place { line, offset: at.offset, before };
        (self.is_placed, self.before_next) = (true, Some(before));
        Ok(true)
    }

    /// Reads more lines. Those that are no rows are in their file when it returns. False: the file is another one by now.
    async fn read(&mut self) -> io::Result<bool> {
        let (of, before_next) = (Arc::clone(&self.of), self.before_next);
        let asked = *self.asked.borrow();
        let Some(mut lines) = self.lines.take() else { return Err(lost_thread()) };
        let (lines, read) = run(move || {
            let begin = lines.at();
            let read = of.read(&mut lines, before_next);
            if read.is_err() {
                // The lines come again.
                lines.go_to(begin);
            }
            (lines, read)
        })
        .await?;
        let (line, open) = (lines.at().line, lines.file.metadata());
        self.lines = Some(lines);
        match read? {
            Read::Parts(parts) => {
                self.before_next = parts.last().and_then(|last| last.before);
                self.parts.extend(parts);
            }
            Read::End(length, before) => {
                (self.length, self.before_next, self.looked) = (length, before, asked);
                self.ends.send_replace(SeenEnd { line, asked, file: Some(identity(&open?)) });
            }
            Read::Other => return Ok(false),
        }
        Ok(true)
    }

    /// The next part that was read.
    fn take_part(&mut self) -> Option<Next> {
        let Part { next, bytes, behind, before } = self.parts.pop_front()?;
        self.window.push_back(Held { bytes, behind, before });
        self.window_bytes += bytes;
        Some(next)
    }

    /// Whether the name of the file leads to another file by now, or the file was truncated.
    async fn is_replaced(&mut self) -> io::Result<bool> {
        let path = self.of.options.path.clone();
        let Some(lines) = self.lines.take() else { return Err(lost_thread()) };
        let (lines, is_other) = run(move || {
            let is_other = is_other(&lines.file, &path, lines.at().offset);
            (lines, is_other)
        })
        .await?;
        self.lines = Some(lines);
        is_other
    }
}

impl FileSource {
    /// Whether something was behind the last line that was read, before the file was replaced or truncated.
    async fn has_open_end(&self) -> bool {
        let Some(lines) = &self.lines else { return false };
        let (path, read) = (self.of.options.path.clone(), lines.at().offset);
        let named = run(move || std::fs::metadata(path)).await.and_then(|found| found);
        match lines.file.metadata() {
            // It was moved away, and is as it was.
            Ok(open) if named.map_or(true, |named| identity(&named) != identity(&open)) => open.len() > read,
            _ => self.length > read,
        }
    }
}

impl Source for FileSource {
    async fn next(&mut self) -> Result<Next, SourceError> {
        let path = self.of.options.path.clone();
        let failed = |error: io::Error| SourceError::again(format!("{}: {error}", path.display()));
        if !self.is_placed && !self.place_behind(self.mark.settled).await.map_err(failed)? {
            return Err(SourceError::stop(
                StopReason::OtherSource,
                format!(
                    "{} has fewer lines than were written, or other ones: it was truncated; restore it, or remove the mark {} to \
                 write it from its beginning",
                    path.display(),
                    self.of.mark_file.path().display()
                ),
            ));
        }
        if self.is_full() {
            return Ok(Next::Nothing);
        }
        let mut is_same = !self.parts.is_empty() || self.read().await.map_err(failed)?;
        if let Some(next) = self.take_part() {
            return Ok(next);
        }
        if is_same && self.is_replaced().await.map_err(failed)? {
            // It may have got lines between the read and its replacement.
            self.read().await.map_err(failed)?;
            if let Some(next) = self.take_part() {
                return Ok(next);
            }
            is_same = false;
        }
        if !is_same {
            let end =
                if self.has_open_end().await { ", and its last line without a line feed was not read" } else { "" };
            return Err(SourceError::stop(
                StopReason::OtherSource,
                format!(
                    "{} was replaced or truncated after line {} was read{end}; end the feed when all lines are written, and start it \
                     with WhenReplaced::BeginAnew for the new file",
                    path.display(),
                    self.lines.as_ref().map_or(0, |lines| lines.at().line)
                ),
            ));
        }
        Ok(Next::Nothing)
    }

    async fn ready(&mut self) {
        let (path, length, every) = (&self.of.options.path, self.length, self.of.options.look_every);
        let open = self.lines.as_ref().and_then(|lines| lines.file.metadata().ok()).map(|open| identity(&open));
        let (mut asked, looked) = (self.asked.subscribe(), self.looked);
        loop {
            tokio::select! {
                () = sleep(every) => {}
                // When the window is full, what is settled next leads to the look.
                Ok(_) = asked.wait_for(|asked| *asked > looked), if !self.is_full() => return,
            }
            let path = path.clone();
            // What cannot be looked at is for `next` to report.
            let now = run(move || std::fs::metadata(path)).await.and_then(|found| found);
            if now.map_or(true, |found| found.len() != length || Some(identity(&found)) != open) {
                return;
            }
        }
    }

    async fn settle(&mut self, rows: RangeInclusive<u64>) -> Result<(), SourceError> {
        let (before, end) = (self.mark.settled, *rows.end());
        if self.of.options.exactly_once.is_none() {
            if self.mark.has_position {
                self.mark.apart.get_or_insert(before);
            }
        } else if end >= before {
            // The position has passed the lines that were written without it.
            self.mark.apart = None;
        }
        self.mark.settled = before.max(end);
        while self.window.front().is_some_and(|held| held.behind.line <= self.mark.settled)
            && let Some(Held { bytes, behind, before }) = self.window.pop_front()
        {
            self.window_bytes -= bytes;
            if let Some(before) = before {
                self.mark.place = Place { line: behind.line, offset: behind.offset, before };
            }
        }
        let is_due = self.marked.is_none_or(|marked| marked.elapsed() >= MARK_EVERY);
        let is_idle = self.window.is_empty() && self.parts.is_empty();
        if (is_due || is_idle) && self.is_placed {
            self.store().await.map_err(|error| {
                SourceError::again(format!(
                    "the mark {} cannot be written: {error}",
                    self.of.mark_file.path().display()
                ))
            })?;
        }
        Ok(())
    }

    async fn claim(&mut self) -> Result<Claim, Refusal> {
        let from = match self.of.options.take_over {
            TakeOver::Known => ClaimFrom::Owners(self.mark.owners.clone()),
            TakeOver::Anyone | TakeOver::AnyoneUnchecked => ClaimFrom::Anyone,
        };
        let mut claim = Claim::of(&*self.owner).from(from);
        if !self.mark.has_position {
            // Not 0: it may have been written at least once until now.
            claim = claim.or_begin_at(i64::try_from(self.mark.settled).unwrap_or(i64::MAX));
        }
        if !self.mark.owners.contains(&self.owner) {
            self.mark.owners.push(self.owner.clone());
        }
        // Before the claim: otherwise a process that ends right after it would not know the position as its own.
        self.store_claim().await?;
        Ok(claim)
    }

    fn not_claimed(&mut self, why: NotClaimed) -> Refusal {
        let (file, mark) = (self.of.options.path.display(), self.of.mark_file.path().display());
        let way = if self.mark.has_position { "Anyone" } else { "AnyoneUnchecked" };
        let (kind, text) = match why {
            NotClaimed::Missing => (
                StopReason::Position,
                format!(
                    "the database has no position of {file}, although it had one: it was made anew, or restored from a backup, or row \
                 level security hides it; restore a newer one, let this user see it, or remove the mark {mark} to write the file from its beginning"
                ),
            ),
            _ => (
                StopReason::Fenced,
                format!(
                    "another process has claimed the position of {file}, or it is that of another file with the same first line: give \
                     such a file another name with FileOptions::exactly_once; if the other process reads a copy of this file, or \
                     the mark {mark} was lost, end the other one, and start once with TakeOver::{way}"
                ),
            ),
        };
        Refusal::Stop(kind, text)
    }

    async fn begin_at(&mut self, position: u64) -> Result<Begin, Refusal> {
        let path = self.of.options.path.display().to_string();
        let before = self.mark.settled;
        let begin = match self.mark.apart {
            Some(apart) if position < apart => {
                return Err(Refusal::Stop(
                    StopReason::Position,
                    format!(
                        "the position in the database is line {position}, but it was line {apart} or a later one, and then lines up \
                         to {before} were written at least once, without it: the database was restored from a backup, and which of \
                         them it has is not known; restore a newer one, or remove the mark {} and start once with \
                         TakeOver::AnyoneUnchecked to write all lines behind {position} again",
                        self.of.mark_file.path().display()
                    ),
                ));
            }
            // The position is moved behind them before any other line is written.
            Some(_) if position < before => Begin::behind(before, 0),
            _ => Begin::default(),
        };
        if position > 0 && !self.is_known(position) {
            if self.of.options.take_over != TakeOver::AnyoneUnchecked {
                return Err(Refusal::Stop(
                    StopReason::OtherSource,
                    format!(
                        "the position in the database is line {position}, and without the mark of that file only the first line \
                         shows that it is {path}: if it is another file with the same first line, give it another name with \
                         FileOptions::exactly_once; if it is the same one, start once with TakeOver::AnyoneUnchecked"
                    ),
                ));
            }
            tracing::warn!(file = path, lines = position, "lines are passed of which only the first one was compared");
        }
        let placed = self.place_behind(position.max(begin.passed)).await;
        let placed = placed.map_err(|error| Refusal::Wait(format!("{path}: {error}; trying again")))?;
        if !placed {
            return Err(Refusal::Stop(
                StopReason::OtherSource,
                format!(
                    "the position in the database is line {position}, but {path} has fewer lines, or other ones: it was truncated or \
                 is another file; restore it, or give it another name with FileOptions::exactly_once"
                ),
            ));
        }
        if position.max(begin.passed) < before {
            let (file, lines) = (&path, before - position);
            tracing::warn!(file, lines, "the database is older than the file; its lines are written again");
        }
        self.mark.has_position = true;
        // The others were it before: a database from a backup may have one of them.
        self.mark.owners.retain(|owner| *owner != self.owner);
        self.mark.owners.push(self.owner.clone());
        let forgotten = self.mark.owners.len().saturating_sub(EARLIER);
        self.mark.owners.drain(..forgotten);
        self.store_claim().await?;
        Ok(begin)
    }
}

impl FileSource {
    /// No more lines are read until some are settled.
    fn is_full(&self) -> bool {
        !self.window.is_empty() && self.window_bytes >= self.of.options.window_bytes
    }

    /// Whether the mark has had the position, or shows that so many lines of this file were written: otherwise only the first line of
    /// the file is known.
    fn is_known(&self, position: u64) -> bool {
        self.mark.has_position || position <= self.mark.settled
    }

    async fn store_claim(&mut self) -> Result<(), Refusal> {
        let stored = self.store().await;
        stored.map_err(|error| {
            let mark = self.of.mark_file.path().display();
            Refusal::Wait(format!("the mark {mark} cannot be written: {error}; trying again"))
        })
    }
}

/// Another process has another id or another time; another source of this process, another number.
fn owner() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{}-{nanos}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use batchsql_core::{ColumnType, Schema};
    use batchsql_testkit::ScriptedSink;
    use batchsql_testserver::{Warnings, subscribe};

    use super::*;
    use crate::file::identity::of_bytes_before;

    #[tokio::test]
    async fn lines_that_are_no_rows_for_one_reason_are_counted_in_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.ndjson");
        std::fs::write(&path, "{\"id\":\"x\"}\n".repeat(900)).unwrap();
        let schema = Schema::builder("t").column("id", ColumnType::I64).build().unwrap();
        let pipeline = BatchSql::builder(ScriptedSink::new()).start().unwrap();
        let mut source = FileSource::open(FileOptions::new(&path, &schema), pipeline.clone()).await.unwrap();
        let warnings = Warnings::of("batchsql_feed");
        let _guard = subscribe(warnings.clone());
        let mut lines = source.lines.take().unwrap();
        let before = of_bytes_before(&mut lines.file, 0).unwrap();
        assert!(matches!(source.of.read(&mut lines, before), Ok(Read::Parts(_))));
        source.close().await.unwrap();
        let said = warnings.taken();
        assert!(said[0].contains("line=1 ") && said[0].contains("a line is not a valid row"), "{said:?}");
        let count = |line: &String| line.split("lines=").nth(1)?.split(' ').next()?.parse::<u64>().ok();
        let rest = said[1..].iter().map(count).collect::<Option<Vec<_>>>();
        assert_eq!(rest.map(|rest| rest.iter().sum()), Some(899), "{said:?}");
        pipeline.close(std::time::Duration::ZERO).await;
    }
}
