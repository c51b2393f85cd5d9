//! Owns how the next lines of a file become what a feed gets, with the letters of those that are no rows.
//! Must not know what is settled.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use batchsql_core::{BatchSql, Counted, WarningCounts};

use super::bad_lines::{BadLines, letter};
use super::identity::of_bytes_before;
use super::lines::{At, Lines};
use super::mark::MarkFile;
use super::options::FileOptions;
use super::rows::{Part, parts};

/// Lines and bytes that are read at once.
const MOST_LINES: usize = 1_000;
const MOST_BYTES: usize = 256 << 10;
/// The most characters of a reason by which it is told from others.
const LONGEST_REASON: usize = 200;

/// What does not change.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) options: FileOptions,
    pub(super) pipeline: BatchSql,
    pub(super) mark_file: MarkFile,
    pub(super) bad_lines: BadLines,
    pub(super) bad_count: Arc<AtomicU64>,
    /// By their reasons.
    pub(super) bad_log: WarningCounts<String>,
    pub(super) incarnation: String,
    /// Quoted.
    pub(super) table: String,
}

/// What a read has found.
pub(super) enum Read {
    Parts(Vec<Part>),
    /// The end of the file, its length, and the fingerprint of the bytes before the next line.
    End(u64, Option<u128>),
    /// The lines that were read are no longer there.
    Other,
}

impl Opened {
    /// The next lines. `before_next`: the fingerprint of the bytes before them, as they were when it was read up to there;
    /// `None`: it was truncated just then.
    pub(super) fn read(&self, lines: &mut Lines, before_next: Option<u128>) -> io::Result<Read> {
        let begin = lines.at();
        // Before the lines: it may grow meanwhile.
        let length = lines.file.metadata()?.len();
        let read = lines.read(MOST_LINES, MOST_BYTES)?;
        let offset = lines.at().offset;
        let before = of_bytes_before(&mut lines.file, offset)?;
        // After the lines: it may have been truncated and written anew, also while they were read.
        if of_bytes_before(&mut lines.file, begin.offset)? != before_next {
            lines.go_to(begin);
            return Ok(Read::Other);
        }
        if read.is_empty() {
            return Ok(Read::End(length, before));
        }
        let (mut letters, mut bad) = (String::new(), Vec::new());
        let name = (&*self.incarnation, &*self.table);
        let empty = |schema: &batchsql_core::Schema| self.pipeline.row_buffer(schema);
        let mut parts = parts(&read, &self.options.schema, self.options.fields, &empty, |line, reason| {
            letters.push_str(&letter(line, reason, name));
            bad.push((line.number, reason.to_owned()));
        });
        if !letters.is_empty() {
            // If it fails, the lines come again.
            self.bad_lines.append(&letters)?;
            self.bad_count.fetch_add(bad.len() as u64, Ordering::Relaxed);
            bad.iter().for_each(|(line, reason)| self.say_bad(*line, reason));
        }
        if let Some(last) = parts.last_mut() {
            last.before = before;
        }
        Ok(Read::Parts(parts))
    }

    /// Says the first line for each reason, then how many more there were.
    fn say_bad(&self, line: u64, reason: &str) {
        match self.bad_log.add(reason.chars().take(LONGEST_REASON).collect(), 1) {
            Counted::First => {
                let file = self.options.path.display();
                tracing::warn!(%file, line, reason, "a line is not a valid row; more for this reason are counted");
            }
            Counted::Later => {}
            Counted::Due(reason, lines) => self.say_more(&reason, lines),
        }
    }

    /// Says what no line of the log has told.
    pub(super) fn say_rest(&self) {
        self.bad_log.take().iter().for_each(|(reason, lines)| self.say_more(reason, *lines));
    }

    fn say_more(&self, reason: &str, lines: u64) {
        tracing::warn!(file = %self.options.path.display(), lines, reason, "more lines are no valid rows");
    }
}

/// Goes from `start` behind a line, and returns the fingerprint of the bytes before the next one. `None`: there is no such line,
/// or the bytes before the known place are other ones: it may have been truncated and written anew since the start.
pub(super) fn go_behind(
    lines: &mut Lines,
    start: At,
    line: u64,
    (known, before): (At, u128),
) -> io::Result<Option<u128>> {
    if known.offset > 0 && of_bytes_before(&mut lines.file, known.offset)? != Some(before) {
        return Ok(None);
    }
    lines.go_to(start);
    if !lines.skip_to(line)? {
        return Ok(None);
    }
    let offset = lines.at().offset;
    of_bytes_before(&mut lines.file, offset)
}
