//! Owns the options of a file that is fed.
//! Must not know how it is read.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use batchsql_core::{FieldRules, Schema};

/// How a file of JSON lines is fed.
#[derive(Debug, Clone)]
#[must_use]
pub struct FileOptions {
    pub(super) path: PathBuf,
    pub(super) schema: Schema,
    pub(super) fields: FieldRules,
    pub(super) exactly_once: Option<String>,
    pub(super) mark: Option<PathBuf>,
    pub(super) bad_lines: Option<PathBuf>,
    pub(super) dead_letters: Option<PathBuf>,
    pub(super) max_line_bytes: usize,
    pub(super) window_bytes: usize,
    pub(super) look_every: Duration,
    pub(super) when_replaced: WhenReplaced,
    pub(super) take_over: TakeOver,
}

/// What a start does if the file is not the one of the last start: it was replaced or truncated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenReplaced {
    /// It returns an error: lines of the old file may not be written yet.
    #[default]
    Stop,
    /// The new file is read from its beginning. Lines of the old one that were not written are lost.
    BeginAnew,
}

/// From whom a start takes the position of the file in the database, if rows are written exactly once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TakeOver {
    /// From the processes that the mark names: those before on this file, on this machine.
    #[default]
    Known,
    /// From whoever has it, for one start, for example a process with a copy of the file. Whoever reads the file elsewhere stops.
    /// The mark must show that the file has the lines that were written: without it, another file with the same beginning would be
    /// taken for it. Give such a file another name with [`FileOptions::exactly_once`].
    Anyone,
    /// The same without a mark: after it was lost, or the file was moved to another machine without it. Only the first line is
    /// compared. If it is another file with the same first line, as many of its lines as the other one had are lost.
    AnyoneUnchecked,
}

impl FileOptions {
    /// Feeds the lines of a file as rows of `schema`, at least once. Each line is a JSON object with a field for each column
    /// ([`Schema::row_from`]).
    pub fn new(path: impl Into<PathBuf>, schema: &Schema) -> Self {
        Self {
            path: path.into(),
            schema: schema.clone(),
            fields: FieldRules::default(),
            exactly_once: None,
            mark: None,
            bad_lines: None,
            dead_letters: None,
            max_line_bytes: 1 << 20,
            window_bytes: 4 << 20,
            look_every: Duration::from_millis(250),
            when_replaced: WhenReplaced::Stop,
            take_over: TakeOver::Known,
        }
    }

    /// Writes every row exactly once, on PostgreSQL, MySQL, MariaDB and SQLite: the number of the last line is in the table
    /// `batchsql_positions` of the database, in the transaction of the rows. `source` names the file there, at most 100
    /// characters; it must stay the same. Default: at least once. A file that was written at least once, until now or since the
    /// option was taken away, goes on behind the last line that has ended.
    pub fn exactly_once(mut self, source: impl Into<String>) -> Self {
        self.exactly_once = Some(source.into());
        self
    }

    /// What happens with fields that are not columns, and columns without a field. Default: [`FieldRules::default`].
    pub fn fields(mut self, rules: FieldRules) -> Self {
        self.fields = rules;
        self
    }

    /// The file that remembers how far the file is written and which file it is; default the path with `.batchsql-mark`. It
    /// must be on a disk that is there after a restart. Beside it is a file that locks it, with `.lock`.
    pub fn mark(mut self, path: impl Into<PathBuf>) -> Self {
        self.mark = Some(path.into());
        self
    }

    /// The file of lines that are no rows; default the path with `.bad-lines.ndjson`.
    pub fn bad_lines(mut self, path: impl Into<PathBuf>) -> Self {
        self.bad_lines = Some(path.into());
        self
    }

    /// The file of rows that the database has refused; default the path with `.dead-letters.ndjson`.
    pub fn dead_letters(mut self, path: impl Into<PathBuf>) -> Self {
        self.dead_letters = Some(path.into());
        self
    }

    /// The longest line, in bytes; default 1 MiB. A longer one is no row.
    pub fn max_line_bytes(mut self, bytes: usize) -> Self {
        self.max_line_bytes = bytes;
        self
    }

    /// Bytes of lines that are read ahead of what has been written; default 4 MiB. A line that is longer is read alone.
    pub fn window_bytes(mut self, bytes: usize) -> Self {
        self.window_bytes = bytes;
        self
    }

    /// How often it checks whether the file has grown; default 250 ms.
    pub fn look_every(mut self, interval: Duration) -> Self {
        self.look_every = interval;
        self
    }

    /// What a start does if the file was replaced or truncated since the last one; default [`WhenReplaced::Stop`].
    pub fn when_replaced(mut self, then: WhenReplaced) -> Self {
        self.when_replaced = then;
        self
    }

    /// From whom the position in the database is taken; default [`TakeOver::Known`].
    pub fn take_over(mut self, from: TakeOver) -> Self {
        self.take_over = from;
        self
    }

    pub(super) fn mark_path(&self) -> PathBuf {
        self.mark.clone().unwrap_or_else(|| beside(&self.path, ".batchsql-mark"))
    }

    pub(super) fn bad_lines_path(&self) -> PathBuf {
        self.bad_lines.clone().unwrap_or_else(|| beside(&self.path, ".bad-lines.ndjson"))
    }

    pub(super) fn dead_letters_path(&self) -> PathBuf {
        self.dead_letters.clone().unwrap_or_else(|| beside(&self.path, ".dead-letters.ndjson"))
    }
}

/// The path with an ending after its name.
pub(super) fn beside(path: &Path, ending: impl AsRef<OsStr>) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
