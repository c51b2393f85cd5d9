//! Owns the error of the log.
//! Must not know files and threads.

use std::{error::Error, fmt, io, path::Path, sync::Arc};

/// Why a call to the log failed. The message says what to do; it has no bytes of blocks.
#[derive(Debug, Clone)]
pub struct LogError {
    kind: LogErrorKind,
    lacks: Lacks,
    message: String,
    source: Option<Arc<io::Error>>,
}

/// What an error of the kind `Full` lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lacks {
    Nothing,
    Disk,
    Queue,
}

/// The kind of a [`LogError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogErrorKind {
    /// Another process, or another `Log` of this process, uses the folder.
    Locked,
    /// A newer version of this crate wrote the folder.
    NewerFormat,
    /// The folder, or a segment in it, belongs to something else, or its identity is damaged.
    Foreign,
    /// The folder has rows that are not settled, and another number of partitions.
    Partitions,
    /// An option, or an argument of a call, cannot be used.
    Invalid,
    /// There is no space: the disk budget, the free space of the disk, or the queue of the writer. Nothing was stored.
    Full,
    /// The rows may be in the log, or not: the disk failed after they were handed to it.
    Undetermined,
    /// The log is closed.
    Closed,
    /// The file system failed.
    Io,
}

impl LogError {
    pub(crate) fn new(kind: LogErrorKind, message: impl Into<String>) -> Self {
        let lacks = if kind == LogErrorKind::Full { Lacks::Disk } else { Lacks::Nothing };
        LogError { kind, lacks, message: message.into(), source: None }
    }

    /// The queue of the writer is full.
    pub(crate) fn queue_full(message: String) -> Self {
        LogError { lacks: Lacks::Queue, ..LogError::new(LogErrorKind::Full, message) }
    }

    pub(crate) fn with_source(mut self, source: io::Error) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    pub(crate) fn io(doing: &str, path: &Path, source: io::Error) -> Self {
        LogError::new(LogErrorKind::Io, format!("cannot {doing} {}", path.display())).with_source(source)
    }

    /// The first write after a start has failed.
    pub(crate) fn at_start(self, folder: &Path) -> Self {
        let is_full = self.source.as_deref().is_some_and(is_no_space);
        let kind = if is_full || self.is_full() { LogErrorKind::Full } else { LogErrorKind::Io };
        let message = format!(
            "the log in {} cannot write; free some space, move the folder to a larger disk, or repair the disk, and start again; nothing of \
             the log is lost",
            folder.display()
        );
        LogError { source: self.source, ..LogError::new(kind, message) }
    }

    pub(crate) fn closed() -> Self {
        LogError::new(LogErrorKind::Closed, "the log is closed")
    }

    /// The kind, to match on.
    pub fn kind(&self) -> LogErrorKind {
        self.kind
    }

    /// Whether there is no space. Nothing was stored; [`Log::space`](crate::Log::space) waits until there is.
    pub fn is_full(&self) -> bool {
        self.kind == LogErrorKind::Full
    }

    /// Whether there is no space on the disk or in the disk budget, or the disk fails: for as long as nobody frees some, or rows are
    /// settled. `false` if only the queue of the writer is full, which ends by itself.
    pub fn is_of_disk(&self) -> bool {
        self.lacks == Lacks::Disk
    }

    /// Whether the rows may be in the log or not. A caller that submits them again may double them.
    pub fn is_undetermined(&self) -> bool {
        self.kind == LogErrorKind::Undetermined
    }

    /// Whether another process uses the folder.
    pub fn is_locked(&self) -> bool {
        self.kind == LogErrorKind::Locked
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.source.as_ref().map_or(Ok(()), |source| write!(f, ": {source}"))
    }
}

impl Error for LogError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// Whether a disk, or the part of it that the user may have, is full.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
