//! Owns the file of records that were not written: one JSON object each, with the number of its line, the reason, and its text.
//! Must not know why.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// One record that was not written.
#[derive(Debug, Serialize, Deserialize)]
struct Reject {
    line: u64,
    record: u64,
    reason: String,
    /// As it is in the file.
    text: String,
}

/// The file. It is made with the first record.
pub(crate) struct Rejects {
    path: PathBuf,
    file: Option<File>,
    /// Records in the file, those of earlier runs included.
    pub(crate) count: u64,
}

impl Rejects {
    /// Opens the file of an earlier run, and keeps the records up to `passed`: those behind it are tried again. Without an
    /// earlier run (`passed` is 0) it begins anew.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub(crate) fn open(path: &Path, passed: u64) -> io::Result<Self> {
        let mut kept = String::new();
        let mut count = 0;
        match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { path: path.to_owned(), file: None, count: 0 });
            }
            Err(error) => return Err(error),
            Ok(text) => {
                for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
                    let reject: Result<Reject, _> = serde_json::from_str(line);
                    if reject.is_ok_and(|reject| reject.record <= passed) {
                        kept.push_str(line);
                        count += 1;
                    }
                }
            }
        }
        if count == 0 {
            std::fs::remove_file(path)?;
            return Ok(Self { path: path.to_owned(), file: None, count: 0 });
        }
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(kept.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        Ok(Self { path: path.to_owned(), file: Some(OpenOptions::new().append(true).open(path)?), count })
    }

    /// Adds records, and returns when they are on disk: only then may the position pass them.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn add(&mut self, records: &[(u64, u64, String, String)]) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(OpenOptions::new().create(true).append(true).open(&self.path)?),
        };
        let mut lines = Vec::new();
        for (line, record, reason, text) in records {
            let reject = Reject { line: *line, record: *record, reason: reason.clone(), text: text.clone() };
            serde_json::to_writer(&mut lines, &reject)?;
            lines.push(b'\n');
        }
        file.write_all(&lines)?;
        file.sync_data()?;
        self.count += records.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_behind_the_position_are_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rejects.ndjson");
        let record = |number: u64| (number + 1, number, "why".to_owned(), "a\n\"b\"".to_owned());
        let mut rejects = Rejects::open(&path, 0).unwrap();
        rejects.add(&[]).unwrap();
        assert!(!path.exists(), "no record, no file");
        rejects.add(&[record(3), record(7)]).unwrap();
        rejects.add(&[record(9)]).unwrap();
        // A crash has torn the last line.
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("{\"line\":11");
        std::fs::write(&path, text).unwrap();
        let mut again = Rejects::open(&path, 8).unwrap();
        assert_eq!(again.count, 2);
        again.add(&[record(9)]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let numbers: Vec<u64> = text.lines().map(|line| serde_json::from_str::<Reject>(line).unwrap().record).collect();
        assert_eq!(numbers, [3, 7, 9]);
        assert_eq!(Rejects::open(&path, 0).unwrap().count, 0);
        assert!(!path.exists(), "a load that begins anew");
    }
}
