//! Owns what a way of writing stripes does for a load.
//! Must not know databases or files.

use batchsql::OutcomeCounts;

use crate::exit::Failure;
use crate::load::exactly::Exactly;
use crate::load::marked::Marked;
use crate::load::parse::Parsed;
use crate::load::rejects::Rejects;

/// How stripes are written, and how it is kept which of them are.
pub(crate) enum Writer {
    /// The position is in the database, in the transaction of the rows: each row is written once.
    Exactly(Box<Exactly>),
    /// The position is in a file: after a crash the rows of one stripe are written again.
    Marked(Box<Marked>),
}

/// What was done, and what may be.
pub(crate) struct Tally {
    pub(crate) rejects: Rejects,
    /// More rejected records end the load: a wrong column would reject all of them.
    pub(crate) most_rejects: u64,
    pub(crate) counts: OutcomeCounts,
}

impl Tally {
    /// Records that were not written: line, record, reason, text.
    ///
    /// # Errors
    /// The file cannot be written, or there are too many.
    pub(crate) fn reject(&mut self, records: &[(u64, u64, String, String)]) -> Result<(), Failure> {
        let failed = |error| Failure::unavailable(format!("the file of rejected records cannot be written: {error}"));
        self.rejects.add(records).map_err(failed)?;
        if self.rejects.count <= self.most_rejects {
            return Ok(());
        }
        let count = self.rejects.count;
        let last = records.last().map(|(line, _, reason, _)| format!("line {line}: {reason}")).unwrap_or_default();
        Err(Failure::failed(format!(
            "{count} records were rejected, which is more than --max-rejects; the last one: {last}"
        )))
    }
}

impl Writer {
    /// The last record that is known to be written or rejected.
    pub(crate) fn reached(&self) -> u64 {
        match self {
            Self::Exactly(writer) => writer.reached(),
            Self::Marked(writer) => writer.reached(),
        }
    }

    /// Writes a stripe. When it returns, a later run begins behind it.
    ///
    /// # Errors
    /// The load cannot go on. What was written is known to a later run.
    pub(crate) async fn write(&mut self, parsed: &Parsed, tally: &mut Tally) -> Result<(), Failure> {
        let record = |(record, reason): &(u64, String)| {
            let (line, text) = parsed.stripe.text(*record);
            (line, *record, reason.clone(), text)
        };
        let refused: Vec<_> = parsed.refused.iter().map(record).collect();
        tally.reject(&refused)?;
        match self {
            Self::Exactly(writer) => writer.write(parsed, tally).await,
            Self::Marked(writer) => writer.write(parsed, tally).await,
        }
    }
}
