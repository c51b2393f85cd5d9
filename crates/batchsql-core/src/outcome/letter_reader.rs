//! Owns the reading of a dead-letter file, line by line, from any position.
//! Must not know what is done with the rows.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Seek, SeekFrom};
use std::path::Path;

use crate::outcome::letter_line::{DeadLetterError, DeadLetterLine};

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
#[derive(Debug)]
pub struct DeadLetterReader {
    file: BufReader<File>,
    position: u64,
}

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
        let mut file = BufReader::new(File::open(path)?);
        if position > 0 {
            let mut before = [0];
            file.seek(SeekFrom::Start(position - 1))?;
            let is_line = io::Read::read_exact(&mut file, &mut before).is_ok() && before == *b"\n";
            if !is_line {
                let text =
                    format!("no line of the dead-letter file starts at byte {position}; it is not the same file");
                return Err(io::Error::new(ErrorKind::InvalidInput, text));
            }
        }
        Ok(Self { file, position })
    }

    /// Where the next line starts.
    pub fn position(&self) -> u64 {
        self.position
    }
}

/// Each line with its position. A line that is not complete, because it is being written, counts as the end of the file.
impl Iterator for DeadLetterReader {
    type Item = io::Result<(u64, Result<DeadLetterLine, DeadLetterError>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = Vec::new();
        let read = match self.file.read_until(b'\n', &mut line) {
            Ok(read) if line.ends_with(b"\n") => read,
            Ok(_) => {
                // Read again from its start when more of it is there.
                let back = self.file.seek(SeekFrom::Start(self.position));
                return back.err().map(Err);
            }
            Err(error) => return Some(Err(error)),
        };
        let at = self.position;
        self.position += read as u64;
        Some(Ok((at, String::from_utf8_lossy(&line).parse())))
    }
}
