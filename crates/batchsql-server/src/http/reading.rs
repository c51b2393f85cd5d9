//! Owns the two ways in which the lines of a request are accepted: as they come, or together when the body has ended.
//! Must not know HTTP.

use crate::http::held::Held;
use crate::http::ingest::{Ingest, Stop};
use crate::http::progress::Progress;

/// One request.
pub(crate) enum Reading<'a> {
    /// In memory.
    AsTheyCome(Box<Ingest<'a>>),
    /// With a durable intake.
    Together(Box<Held<'a>>),
}

impl Reading<'_> {
    /// The next line.
    ///
    /// # Errors
    /// The rest of the request is not accepted, from the line behind the progress on.
    pub(crate) async fn line(&mut self, line: u64, text: &[u8]) -> Result<(), Stop> {
        match self {
            Self::AsTheyCome(ingest) => ingest.line(line, text).await,
            Self::Together(held) => held.line(line, text).await,
        }
    }

    /// The body is over: everything is submitted.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub(crate) async fn end(&mut self) -> Result<(), Stop> {
        match self {
            Self::AsTheyCome(ingest) => ingest.end().await,
            Self::Together(held) => held.end().await,
        }
    }

    /// Before a part of the body that is awaited, and before an error: rows that need not wait for the end are submitted.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub(crate) async fn flush(&mut self) -> Result<(), Stop> {
        match self {
            Self::AsTheyCome(ingest) => ingest.flush().await,
            Self::Together(_) => Ok(()),
        }
    }

    /// Waits for the outcomes of all rows that were accepted, if the request asks for them.
    pub(crate) async fn await_outcomes(&mut self) {
        if let Self::AsTheyCome(ingest) = self {
            ingest.await_outcomes().await;
        }
    }

    /// What became of the lines so far.
    pub(crate) fn progress(&self) -> &Progress {
        match self {
            Self::AsTheyCome(ingest) => ingest.progress(),
            Self::Together(held) => held.progress(),
        }
    }

    /// Whether an earlier request with the key has accepted lines of it.
    pub(crate) fn is_repeated(&self) -> bool {
        match self {
            Self::AsTheyCome(ingest) => ingest.is_repeated(),
            Self::Together(held) => held.is_repeated(),
        }
    }
}
