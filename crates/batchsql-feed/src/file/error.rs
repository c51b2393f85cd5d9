//! Owns why a file cannot be fed.
//! Must not know what a program does about it.

use std::io;
use std::sync::Arc;

use batchsql_core::StartError;

/// A file cannot be fed. The text says what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct FileError {
    text: String,
    kind: Kind,
    #[source]
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Settings,
    Locked,
    Replaced,
    Io,
    Stopped,
}

impl FileError {
    pub(super) fn settings(text: impl Into<String>) -> Self {
        Self { text: text.into(), kind: Kind::Settings, source: None }
    }

    pub(super) fn locked(text: impl Into<String>) -> Self {
        Self { text: text.into(), kind: Kind::Locked, source: None }
    }

    pub(super) fn replaced(text: impl Into<String>) -> Self {
        Self { text: text.into(), kind: Kind::Replaced, source: None }
    }

    pub(super) fn stopped(text: impl Into<String>) -> Self {
        Self { text: text.into(), kind: Kind::Stopped, source: None }
    }

    pub(super) fn io(what: &str, error: io::Error) -> Self {
        Self { text: format!("{what}: {error}"), kind: Kind::Io, source: Some(Arc::new(error)) }
    }

    /// Another process feeds the file.
    pub fn is_locked(&self) -> bool {
        self.kind == Kind::Locked
    }

    /// The file is another one than at the last start, or was truncated, see [`WhenReplaced`](crate::file::WhenReplaced).
    pub fn is_replaced(&self) -> bool {
        self.kind == Kind::Replaced
    }

    /// The feed does not go on without a person, or was closed.
    pub fn is_stopped(&self) -> bool {
        self.kind == Kind::Stopped
    }

    /// The options or the settings of the pipeline cannot work: another start will not help.
    pub fn is_invalid_settings(&self) -> bool {
        self.kind == Kind::Settings
    }
}

impl From<StartError> for FileError {
    fn from(error: StartError) -> Self {
        Self { text: error.to_string(), kind: Kind::Settings, source: Some(Arc::new(error)) }
    }
}
