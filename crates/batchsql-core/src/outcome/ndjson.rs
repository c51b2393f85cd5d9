//! Owns the dead-letter file: one JSON object per failed row and line, written by a thread of its own.
//! Must not know the pipeline.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::outcome::letter::FailedRows;
use crate::outcome::letter_line::DeadLetterLine;

/// How long the thread waits before it tries a file again that could not be written.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// A file that is open for appending.
pub(crate) struct OpenFile(Appending);

/// What is appended to.
trait Target: Write {
    /// Syncs what was written to disk.
    fn sync(&mut self) -> io::Result<()>;
    /// Opens it again.
    fn reopen(&mut self) -> io::Result<()>;
    /// Whether it is still what has its name: it may have been moved, for example to be rotated.
    fn is_current(&self) -> bool;
}

struct Appending {
    file: File,
    path: PathBuf,
    /// The file ends within a line, because a process ended while it wrote. The next line must not continue it.
    is_torn: bool,
}

impl Appending {
    fn open(path: PathBuf) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        // It has values of rows, so a new one is private.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.append(true).create(true).open(&path)?;
        // What cannot be read, such as a pipe, is taken as it is.
        let is_torn = file.metadata().is_ok_and(|file| file.is_file()) && ends_within_line(&path).unwrap_or(false);
        Ok(Self { file, path, is_torn })
    }
}

fn ends_within_line(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

impl Write for Appending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_torn {
            self.file.write_all(b"\n")?;
            self.is_torn = false;
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Target for Appending {
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn reopen(&mut self) -> io::Result<()> {
        *self = Self::open(self.path.clone())?;
        Ok(())
    }

    #[cfg(unix)]
    fn is_current(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        let identity = |file: std::fs::Metadata| (file.dev(), file.ino());
        match (std::fs::metadata(&self.path), self.file.metadata()) {
            (Ok(named), Ok(open)) => identity(named) == identity(open),
            (Err(_), _) => false,
            (_, Err(_)) => true,
        }
    }

    /// A file that was replaced by another one is not noticed here, a file that was moved is.
    #[cfg(not(unix))]
    fn is_current(&self) -> bool {
        std::fs::exists(&self.path).unwrap_or(true)
    }
}

/// The thread that writes a file. It ends when the channel ends.
pub(crate) struct FileWriter {
    /// `None` while it is waited for.
    finished: Option<mpsc::Receiver<()>>,
    /// Set when `close` no longer waits for the file.
    gives_up: Arc<AtomicBool>,
    /// Rows that were sent to it and are not in the file.
    pending: Arc<AtomicU64>,
}

impl OpenFile {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Appending::open(path.to_owned()).map(Self)
    }

    /// Writes everything that comes.
    /// `pending` has the rows that were sent and are not yet in the file.
    pub(crate) fn write_on_thread(self, rows: FailedRows, pending: Arc<AtomicU64>) -> io::Result<FileWriter> {
        let (done, finished) = mpsc::channel();
        let gives_up = Arc::new(AtomicBool::new(false));
        let (give_up, left) = (Arc::clone(&gives_up), Arc::clone(&pending));
        std::thread::Builder::new().name("batchsql-dead-letters".to_owned()).spawn(move || {
            self.write_all(rows, &give_up, &left);
            // `close` may no longer wait.
            let _ = done.send(());
        })?;
        Ok(FileWriter { finished: Some(finished), gives_up, pending })
    }

    fn write_all(mut self, mut rows: FailedRows, give_up: &AtomicBool, pending: &AtomicU64) {
        let path = self.0.path.clone();
        while let Some(first) = rows.blocking_recv() {
            // The rows that are available now are one burst; each row keeps its capacity until the burst is on disk.
            let mut burst = vec![first];
            let mut lines = DeadLetterLine::of(&burst[0]);
            while burst.len() < 1000
                && let Some(letter) = rows.try_recv()
            {
                lines.push_str(&DeadLetterLine::of(&letter));
                burst.push(letter);
            }
            let is_written = append(&mut self.0, lines.as_bytes(), TRY_AGAIN, &|error| {
                let path = path.display();
                tracing::error!(%path, %error, "the dead-letter file cannot be written; trying again");
                !give_up.load(Ordering::Relaxed)
            });
            if is_written {
                pending.fetch_sub(burst.len() as u64, Ordering::Relaxed);
            }
        }
    }
}

/// Appends and syncs. After an error it tries again while `goes_on` returns true. Returns whether the lines are there.
///
/// A file that was moved is left as it is, and a new one gets the lines: so a file can be rotated while it is written.
///
/// After a failed sync the operating system drops the data that it could not write, and reports success for the next
/// sync (<https://wiki.postgresql.org/wiki/Fsync_Errors>). So the file is reopened and the lines are written again: a
/// line may be there twice, but none is missing.
fn append(target: &mut impl Target, lines: &[u8], pause: Duration, goes_on: &dyn Fn(&io::Error) -> bool) -> bool {
    if !target.is_current() {
        // If it cannot be opened, for example because its folder was moved too, the old file gets the lines.
        let _ = target.reopen();
    }
    let mut left = lines;
    loop {
        let error = match target.write(left) {
            Ok(0) if !left.is_empty() => io::ErrorKind::WriteZero.into(),
            Ok(written) => {
                left = &left[written..];
                if !left.is_empty() {
                    continue;
                }
                match target.sync() {
                    Ok(()) => return true,
                    Err(error) => {
                        left = lines;
                        error
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => error,
        };
        if !goes_on(&error) {
            return false;
        }
        std::thread::sleep(pause);
        if left.len() == lines.len() {
            // If it cannot be opened, the next write returns the error.
            let _ = target.reopen();
        }
    }
}

impl FileWriter {
    /// Waits until everything is written, after the channel has ended; after `patience` the rest is given up. Returns
    /// the rows that are not in the file.
    pub(crate) async fn finish(mut self, patience: Duration) -> u64 {
        let Some(finished) = self.finished.take() else { return 0 };
        // On a thread, so that the time is real: tests may pause the clock of the runtime.
        let waited = tokio::task::spawn_blocking(move || finished.recv_timeout(patience)).await;
        let rows = self.pending.load(Ordering::Relaxed);
        if matches!(waited, Ok(Err(RecvTimeoutError::Timeout))) {
            tracing::error!(rows, "the dead-letter file could not be written; the remaining rows are not in it");
        }
        rows
    }
}

/// `close` no longer waits: a file that cannot be written is not tried again.
impl Drop for FileWriter {
    fn drop(&mut self) {
        self.gives_up.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stores what was synced; a failed sync loses what was written since the last one.
    #[derive(Default)]
    struct Disk {
        cached: Vec<u8>,
        synced: Vec<u8>,
        failing_syncs: usize,
        failing_writes: usize,
        reopened: usize,
        was_moved: bool,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.failing_writes > 0 {
                self.failing_writes -= 1;
                return Err(io::ErrorKind::StorageFull.into());
            }
            let part = bytes.len().min(5);
            self.cached.extend_from_slice(&bytes[..part]);
            Ok(part)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Target for Disk {
        fn sync(&mut self) -> io::Result<()> {
            let written = std::mem::take(&mut self.cached);
            if self.failing_syncs > 0 {
                self.failing_syncs -= 1;
                return Err(io::Error::other("input/output error"));
            }
            self.synced.extend(written);
            Ok(())
        }

        fn reopen(&mut self) -> io::Result<()> {
            self.reopened += 1;
            self.was_moved = false;
            Ok(())
        }

        fn is_current(&self) -> bool {
            !self.was_moved
        }
    }

    #[test]
    fn lines_of_a_failed_sync_are_written_again_to_a_file_that_is_opened_anew() {
        let mut disk = Disk { failing_syncs: 2, failing_writes: 1, ..Disk::default() };
        assert!(append(&mut disk, b"a row\nanother row\n", Duration::ZERO, &|_| true));
        assert_eq!(disk.synced, b"a row\nanother row\n", "everything is written again after a failed sync");
        assert_eq!(disk.reopened, 3, "once before anything was written, twice after a failed sync");
        disk.was_moved = true;
        assert!(append(&mut disk, b"the last row\n", Duration::ZERO, &|_| true));
        assert_eq!(disk.reopened, 4, "once because it was moved");
        let mut disk = Disk { failing_syncs: usize::MAX, ..Disk::default() };
        assert!(!append(&mut disk, b"a row\n", Duration::ZERO, &|_| false));
        assert!(disk.synced.is_empty(), "no retry after the wait has ended");
    }
}
