//! Owns how a file is found at a start: it waits for a first line, and compares the file with the mark of the last start.
//! Must not know how it is read.

use std::fs::File;
use std::io;

use tokio::time::sleep;

use super::blocking::run;
use super::error::FileError;
use super::identity::{of_bytes_before, of_first_line};
use super::mark::{Mark, MarkFile};
use super::options::{FileOptions, WhenReplaced};

/// A file, and the mark to go on with.
pub(super) struct Found {
    pub(super) file: File,
    pub(super) mark: Mark,
    pub(super) mark_file: MarkFile,
}

/// Opens the file and its mark, when the file has a first line.
pub(super) async fn find(options: &FileOptions) -> Result<Found, FileError> {
    let mark_path = options.mark_path();
    let opened = run(move || MarkFile::open(&mark_path)).await;
    let (mark_file, known) = opened.map_err(|error| FileError::io("cannot open the file", error))??;
    let (file, first) = loop {
        let path = options.path.clone();
        let found = run(move || {
            let mut file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                file => file?,
            };
            Ok(of_first_line(&mut file)?.map(|first| (file, first)))
        });
        let found: io::Result<Option<(File, u128)>> = found.await.and_then(|found| found);
        let path = options.path.display();
        let found = found.map_err(|error| FileError::io(&format!("cannot read {path}"), error))?;
        match found {
            Some(found) => break found,
            // It was longer.
            None if known.as_ref().is_some_and(|mark| mark.settled > 0)
                && options.when_replaced == WhenReplaced::Stop =>
            {
                return Err(replaced(options, &mark_file, "it has no complete line"));
            }
            None => sleep(options.look_every).await,
        }
    };
    let (file, mark) = fit(options, &mark_file, known, file, first).await?;
    Ok(Found { file, mark, mark_file })
}

/// Compares the file with the mark, and returns the mark to go on with.
async fn fit(
    options: &FileOptions,
    mark_file: &MarkFile,
    known: Option<Mark>,
    mut file: File,
    first: u128,
) -> Result<(File, Mark), FileError> {
    let new = |replaced| Mark { first, replaced, ..Mark::default() };
    let Some(known) = known else { return Ok((file, new(0))) };
    let (offset, before) = (known.place.offset, known.place.before);
    let compared = run(move || {
        let found = of_bytes_before(&mut file, offset);
        found.map(|found| (file, found))
    });
    let compared = compared.await.and_then(|found| found);
    let (file, found) =
        compared.map_err(|error| FileError::io(&format!("cannot read {}", options.path.display()), error))?;
    let why = match found {
        _ if first != known.first => "its first line is another one",
        None => "it is shorter",
        Some(found) if offset > 0 && found != before => "the lines that were written are other ones",
        Some(_) => return Ok((file, known)),
    };
    match options.when_replaced {
        WhenReplaced::Stop => Err(replaced(options, mark_file, why)),
        WhenReplaced::BeginAnew => {
            let (file_name, lines) = (options.path.display(), known.settled);
            tracing::warn!(file = %file_name, lines, why, "the file was replaced; it is read from its beginning");
            Ok((file, new(known.replaced.saturating_add(1))))
        }
    }
}

fn replaced(options: &FileOptions, mark_file: &MarkFile, why: &str) -> FileError {
    FileError::replaced(format!(
        "{} is not the file of the last start: {why}; restore it, or, if lines of the old one need not be written any more, start \
         once with WhenReplaced::BeginAnew (the mark is {})",
        options.path.display(),
        mark_file.path().display()
    ))
}
