//! Owns how stripes are written to a database without transactions: their rows through the pipeline, then a mark in a file.
//! Must not know the form of the file that is loaded.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use batchsql::{BatchSql, OutcomeKind};
use serde::{Deserialize, Serialize};

use crate::exit::Failure;
use crate::load::parse::Parsed;
use crate::load::tally::Tally;

pub(crate) struct Marked {
    db: BatchSql,
    path: PathBuf,
    mark: Mark,
}

/// How far a file is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// The content of the file.
    file: String,
    table: String,
    record: u64,
}

impl Marked {
    /// Reads the mark. One of another content or table is not used.
    ///
    /// # Errors
    /// The mark cannot be read.
    pub(crate) fn open(db: BatchSql, path: &Path, digest: &str, table: &str) -> io::Result<Self> {
        let mut mark = Mark { file: digest.to_owned(), table: table.to_owned(), record: 0 };
        match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(text) => {
                if let Ok(found) = serde_json::from_slice::<Mark>(&text)
                    && found.file == mark.file
                    && found.table == mark.table
                {
                    mark = found;
                }
            }
        }
        Ok(Self { db, path: path.to_owned(), mark })
    }

    pub(crate) fn reached(&self) -> u64 {
        self.mark.record
    }

    pub(crate) async fn write(&mut self, parsed: &Parsed, tally: &Tally) -> Result<(), Failure> {
        for run in &parsed.runs {
            let outcomes = self.db.submit_rows_tracked([run.rows.clone()]).await;
            let outcomes = outcomes.map_err(|error| match error.submit_error() {
                error if error.row_error().is_some() => Failure::failed(error),
                // It is full, or about to end.
                error => Failure::unavailable(error),
            })?;
            for kind in [OutcomeKind::Written, OutcomeKind::Ignored, OutcomeKind::Superseded, OutcomeKind::Rejected] {
                tally.add(kind, outcomes.counts.get(kind));
            }
            let mut rejected = Vec::new();
            for (index, outcome) in &outcomes.failed {
                let reason =
                    outcome.failure().and_then(|failed| failed.error()).map_or_else(String::new, ToString::to_string);
                if outcome.kind() != OutcomeKind::Rejected {
                    let kind = outcome.kind().name();
                    return Err(Failure::unavailable(format!(
                        "rows were not written ({kind}): {reason}; run the command again to go on"
                    )));
                }
                let record = run.records[*index];
                let (line, text) = parsed.stripe.text(record);
                rejected.push((line, record, reason, text));
            }
            tally.reject(&rejected)?;
        }
        self.mark.record = parsed.stripe.last();
        self.keep().map_err(|error| Failure::unavailable(format!("{} cannot be written: {error}", self.path.display())))
    }

    /// As a whole, so that a crash leaves the old mark or the new one.
    fn keep(&self) -> io::Result<()> {
        let mut temporary = self.path.as_os_str().to_owned();
        temporary.push(".tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&self.mark)?)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &self.path)
    }
}
