//! Owns what a load says of a file that it cannot load to its end, and what of it is in the table.
//! Must not know how a file is read or written.

use std::fmt;

use batchsql::{OutcomeCounts, OutcomeKind};

use crate::exit::{Exit, Failure};
use crate::load::file::Input;

/// What is in the table of a file that cannot be loaded to its end.
#[derive(Clone, Copy)]
pub(crate) struct InTable {
    /// Rows of this run.
    rows: u64,
    /// Records up to this one were written or rejected by earlier runs.
    before: u64,
}

impl InTable {
    /// `counts` are those of this run; records up to `before` were written or rejected by earlier runs.
    pub(crate) fn new(counts: &OutcomeCounts, before: u64) -> Self {
        Self { rows: written_rows(counts), before }
    }

    fn is_empty(self) -> bool {
        self.rows == 0 && self.before == 0
    }
}

impl fmt::Display for InTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows of it were written", self.rows)?;
        match self.before {
            0 => Ok(()),
            before => write!(f, ", behind record {before} of earlier runs"),
        }
    }
}

/// The content is at fault, or cannot be read now.
pub(crate) fn damaged(input: &Input, error: &std::io::Error, in_table: InTable) -> Failure {
    let mut failure = unreadable(input, error);
    if failure.exit != Exit::Unavailable && !in_table.is_empty() {
        failure.text.push_str(&format!(
            "; {in_table}: a corrected file is another one, and all of its records would be written; load only those that are \
             missing, or remove these rows first"
        ));
    }
    failure
}

/// The file is another one than when it was opened.
pub(crate) fn changed(input: &Input, in_table: InTable) -> Failure {
    let text = "the file has changed while it was loaded";
    let remedy = match in_table.is_empty() {
        true => "; load it again when it is complete".to_owned(),
        false => format!(
            "; {in_table}: it is another file now, and all of its records would be written; when it is complete, load only the \
             records that are missing, or remove these rows first"
        ),
    };
    Failure::failed(format!("{}: {text}{remedy}", input.path.display()))
}

/// The file cannot be read, or its content does not fit the table.
pub(crate) fn unreadable(input: &Input, error: &std::io::Error) -> Failure {
    let text = format!("{}: {error}", input.path.display());
    if error.kind() == std::io::ErrorKind::InvalidInput {
        Failure::mistake(text)
    } else if error.raw_os_error().is_some() {
        // Of the system, for example too many open files: the content is not at fault.
        Failure::unavailable(text)
    } else {
        Failure::failed(text)
    }
}

fn written_rows(counts: &OutcomeCounts) -> u64 {
    [OutcomeKind::Written, OutcomeKind::Ignored, OutcomeKind::Superseded].iter().map(|kind| counts.get(*kind)).sum()
}

#[cfg(test)]
mod tests {
    use batchsql::ErrorClass;
    use batchsql_testkit::ScriptedSink;

    use crate::exit::Exit;
    use crate::load::loading::tests::{load_into, plain};

    /// Without a key, loading the file once more would write them twice.
    #[tokio::test]
    async fn rows_of_a_file_that_ends_early_are_told() {
        let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
        sink.keep_positions();
        let text = |records: u64| -> String {
            let lines = (1..=records).map(|id| format!("{id},eu\n"));
            std::iter::once("id,region\n".to_owned()).chain(lines).collect()
        };
        let path = folder.path().join("grows.csv");
        std::fs::write(&path, text(100)).unwrap();
        let (grown, more) = (path.clone(), text(110));
        sink.poison_as(ErrorClass::Row, move |_| {
            std::fs::write(&grown, &more).unwrap();
            false
        });
        let failure = load_into(plain(), &sink, &path).await.unwrap_err();
        sink.poison_as(ErrorClass::Row, |_| false);
        assert!(
            failure
                .text
                .contains("the file has changed while it was loaded; 100 rows of it were written: it is another"),
            "{failure:?}"
        );
        assert_eq!((failure.exit, sink.applied().len()), (Exit::Failed, 100));

        let path = folder.path().join("cut.csv.gz");
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, text(45_000).as_bytes()).unwrap();
        let packed = packed.finish().unwrap();
        std::fs::write(&path, &packed[..packed.len() - 10]).unwrap();
        let failure = load_into(plain(), &sink, &path).await.unwrap_err();
        assert!(
            failure.text.contains("; 40000 rows of it were written: a corrected file is another one"),
            "{failure:?}"
        );
        assert_eq!(sink.applied().len(), 40_100);
        let failure = load_into(plain(), &sink, &path).await.unwrap_err();
        assert!(
            failure.text.contains("; 0 rows of it were written, behind record 40000 of earlier runs"),
            "{failure:?}"
        );

        // Nothing of it is there.
        let path = folder.path().join("bad.csv.gz");
        std::fs::write(&path, "id,region\n1,eu\n").unwrap();
        let failure = load_into(plain(), &sink, &path).await.unwrap_err();
        assert!(!failure.text.contains("were written"), "{failure:?}");
    }
}
