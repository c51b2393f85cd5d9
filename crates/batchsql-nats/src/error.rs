//! Owns the errors of streams and workers.
//! Must not know what caused them.

use std::error::Error as StdError;
use std::fmt;

/// Why a stream or a worker cannot be used. The text says what to do.
#[derive(Clone)]
pub struct NatsError {
    text: String,
    is_away: bool,
    is_missing: bool,
    source: Option<std::sync::Arc<dyn StdError + Send + Sync>>,
}

impl NatsError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_away: false, is_missing: false, source: None }
    }

    /// There is no such stream.
    pub(crate) fn missing(text: impl Into<String>) -> Self {
        Self { is_missing: true, ..Self::new(text) }
    }

    /// The server did not answer.
    pub(crate) fn unreachable(text: impl Into<String>, source: impl StdError + Send + Sync + 'static) -> Self {
        Self { text: text.into(), is_away: true, is_missing: false, source: Some(std::sync::Arc::new(source)) }
    }

    /// Whether the server did not answer, so that the same call may succeed later. Otherwise a person has to do something.
    pub fn is_away(&self) -> bool {
        self.is_away
    }

    /// Whether there is no such stream.
    pub fn is_missing(&self) -> bool {
        self.is_missing
    }
}

impl fmt::Display for NatsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for NatsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl StdError for NatsError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
