//! Owns what a way of writing the stripes of one partition does for a load.
//! Must not know databases or files.

use crate::exit::Failure;
use crate::load::exactly::Exactly;
use crate::load::marked::Marked;
use crate::load::parse::Parsed;
use crate::load::stop::{Stop, stopped};
use crate::load::tally::Tally;

/// How stripes are written, and how it is kept which of them are.
pub(crate) enum Writer {
    /// The position is in the database, in the transaction of the rows: each row is written once.
    Exactly(Box<Exactly>),
    /// The position is in a file: after a crash the rows of one stripe are written again.
    Marked(Box<Marked>),
}

impl Writer {
    /// Writes a stripe. When it returns, a later run begins behind it.
    ///
    /// # Errors
    /// The load cannot go on, or is to end. What was written is known to a later run.
    pub(crate) async fn write(&mut self, parsed: &Parsed, tally: &Tally, stop: &mut Stop) -> Result<(), Failure> {
        match self {
            Self::Exactly(writer) => {
                tally.reject(&parsed.refused(|_| true))?;
                tokio::select! {
                    biased;
                    // The position says how far it is written, wherever this ends.
                    () = stop.wanted() => Err(stopped()),
                    written = writer.write(parsed, tally) => written,
                }
            }
            Self::Marked(writer) => writer.write(parsed, tally, stop).await,
        }
    }
}
