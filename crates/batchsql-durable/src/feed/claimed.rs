//! Owns what the partitions share that are written exactly once, with the file that says which of them had a position in the
//! database.
//! Must not know databases.
//!
//! Without the file a database that was made anew, or restored from before exactly once was chosen, would look like one that has
//! never had a row, and its rows would be missed by nobody.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// What the partitions of an intake share that is written exactly once.
#[derive(Debug)]
pub(crate) struct ExactlyOnce {
    /// In the table of positions.
    pub(crate) source: String,
    /// Of this process.
    pub(crate) owner: String,
    pub(crate) claimed: Claimed,
    /// Steps that are under way at once.
    pub(crate) permits: tokio::sync::Semaphore,
}

/// The partitions that were claimed.
#[derive(Debug)]
pub(crate) struct Claimed {
    file: std::path::PathBuf,
    known: Mutex<HashSet<String>>,
}

const FILE: &str = "POSITIONS";

impl Claimed {
    /// Reads the file of a folder.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(FILE);
        let mut text = String::new();
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        file.read_to_string(&mut text)?;
        if !text.is_empty() && !text.ends_with('\n') {
            // The line was not complete, so its partition had no position yet.
            file.write_all(b"\n")?;
        }
        file.sync_all()?;
        sync_folder(folder)?;
        // A partial last line is no name of a partition: it is only one that was never asked for.
        Ok(Self { file: path, known: Mutex::new(text.lines().map(str::to_owned).collect()) })
    }

    pub(crate) fn has(&self, table: &str, partition: u32) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(&line(table, partition))
    }

    /// Returns when it is on disk. Blocks the thread.
    pub(crate) fn add(&self, table: &str, partition: u32) -> io::Result<()> {
        let line = line(table, partition);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(&line) {
            let mut file = OpenOptions::new().append(true).open(&self.file)?;
            file.write_all(format!("{line}\n").as_bytes())?;
            file.sync_data()?;
            known.insert(line);
        }
        Ok(())
    }
}

fn line(table: &str, partition: u32) -> String {
    // Names may have any character; escaped ones are on one line.
    format!("{partition} {}", table.escape_default())
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_claimed_is_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let claimed = Claimed::open(dir.path()).unwrap();
        claimed.add("\"a\nb\"", 1).unwrap();
        claimed.add("\"a\nb\"", 1).unwrap();
        let claimed = Claimed::open(dir.path()).unwrap();
        assert!(claimed.has("\"a\nb\"", 1) && !claimed.has("\"a\nb\"", 2) && !claimed.has("\"a\"", 1));
        // A line that was cut off counts for nothing, and does not join the next one.
        let path = dir.path().join(FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}2 \\\"c")).unwrap();
        let claimed = Claimed::open(dir.path()).unwrap();
        assert!(!claimed.has("\"c\"", 2));
        claimed.add("\"c\"", 2).unwrap();
        assert!(Claimed::open(dir.path()).unwrap().has("\"c\"", 2));
    }
}
