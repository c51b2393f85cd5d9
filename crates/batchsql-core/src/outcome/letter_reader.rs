//! Owns the reading of a dead-letter file, line by line, from any position.
//! Must not know what is done with the rows.

use std::io;
use std::path::Path;

use crate::outcome::letter_line::{DeadLetterError, DeadLetterLine};
use crate::outcome::letter_lines::LetterLines;

/// Reads a [dead-letter file](crate::DeadLetters::file). The positions are bytes from the start of the file; a position
/// can be kept, and the reading continued there in another process.
///
/// ```no_run
/// use batchsql_core::DeadLetterReader;
///
/// for entry in DeadLetterReader::open("failed.ndjson")? {
///     let (position, letter) = entry?;
///     match letter {
///         Ok(letter) => println!("{position}: {} {:?}", letter.table(), letter.error()),
///         Err(error) => eprintln!("{position}: {error}"),
///     }
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// A last line without a line feed is read if it is a complete JSON object. Another one may be in the middle of its writing: it counts
/// as the end of the file, and [`unfinished`](Self::unfinished) says where it begins. A line of more than 128 MiB is an error with its
/// number; the lines behind it are read. A line of nothing but spaces, as an editor leaves it, is no letter.
#[derive(Debug)]
pub struct DeadLetterReader(LetterLines);

impl DeadLetterReader {
    /// Opens a file at its start.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::open_at(path, 0)
    }

    /// Opens a file at a position that [`position`](Self::position) returned.
    ///
    /// # Errors
    /// The file cannot be opened, or no line starts there: it is another file.
    pub fn open_at(path: impl AsRef<Path>, position: u64) -> io::Result<Self> {
        LetterLines::open_at(path.as_ref(), position).map(Self)
    }

    /// The same, where a line is known to start.
    pub(crate) fn within(path: &Path, position: u64) -> io::Result<Self> {
        LetterLines::within(path, position).map(Self)
    }

    /// Where the next line starts.
    pub fn position(&self) -> u64 {
        self.0.position()
    }

    /// Where a last line starts that is not complete; `None` until the end was reached, and if all lines are complete.
    pub fn unfinished(&self) -> Option<u64> {
        self.0.unfinished()
    }
}

/// Each line with its position.
impl Iterator for DeadLetterReader {
    type Item = io::Result<(u64, Result<DeadLetterLine, DeadLetterError>)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (position, line) = match self.0.next()? {
                Ok(line) => line,
                Err(error) => return Some(Err(error)),
            };
            let letter = match line {
                Ok(line) if line.trim_ascii().is_empty() => continue,
                Ok(line) => String::from_utf8_lossy(&line).parse(),
                Err(error) => Err(DeadLetterError::new(error.to_string())),
            };
            return Some(Ok((position, letter)));
        }
    }
}
