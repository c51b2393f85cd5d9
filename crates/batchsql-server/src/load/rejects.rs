//! Owns the file of records that were not written: one JSON object each, with the number of its line, the reason, its text, and its load.
//! Must not know why.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use batchsql::small_file::sync_folder;
use serde::{Deserialize, Serialize};

use crate::draft_file::{DraftFile, remove_abandoned};
use crate::load::layout::Done;
use crate::private_file;

/// One record that was not written.
#[derive(Debug, Serialize, Deserialize)]
struct Reject {
    line: u64,
    record: u64,
    reason: String,
    /// As it is in the file.
    text: String,
    #[serde(flatten)]
    load: Load,
}

/// What a load is: several may have the same file of rejected records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Load {
    /// The begin of the SHA-256 of the content.
    pub(crate) file: String,
    pub(crate) table: String,
    /// Its name, if it loads the same content once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) again: Option<String>,
}

/// How a line begins.
const BEGIN: &str = "{\"line\":";

/// The file. It is made with the first record.
pub(crate) struct Rejects {
    path: PathBuf,
    load: Load,
    file: Option<File>,
    /// Records of the load in the file, those of earlier runs included.
    pub(crate) count: u64,
}

impl Rejects {
    /// Opens the file. Of an earlier run of this load it keeps the records that have `passed`: the others are
    /// tried again. Without an earlier run there are none. Every line that is not of this load stays.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub(crate) fn open(path: &Path, load: Load, passed: &Done) -> io::Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        let (mut kept, mut count) = (String::with_capacity(text.len()), 0);
        for line in text.split_inclusive('\n') {
            if !line.ends_with('\n') {
                // A crash has torn it, so no position has passed it; otherwise a record would be added to a foreign line.
                if !line.starts_with(BEGIN) {
                    kept.push_str(line);
                    kept.push('\n');
                }
                continue;
            }
            let own = serde_json::from_str::<Reject>(line).ok().filter(|reject| reject.load == load);
            match own {
                Some(reject) if !passed.has(reject.record) => continue,
                Some(_) => count += 1,
                None => {}
            }
            kept.push_str(line);
        }
        if kept != text {
            replace(path, &kept)?;
        }
        Ok(Self { path: path.to_owned(), load, file: None, count })
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
            None => {
                let file = private_file::open(OpenOptions::new().create(true).append(true), &self.path)?;
                sync_folder(&self.path)?;
                self.file.insert(file)
            }
        };
        let mut lines = Vec::new();
        for (line, record, reason, text) in records {
            let (reason, text, load) = (reason.clone(), text.clone(), self.load.clone());
            let reject = Reject { line: *line, record: *record, reason, text, load };
            serde_json::to_writer(&mut lines, &reject)?;
            lines.push(b'\n');
        }
        file.write_all(&lines)?;
        file.sync_data()?;
        self.count += records.len() as u64;
        Ok(())
    }
}

/// Puts this content in place of the file, as a whole. Without content there is no file.
fn replace(path: &Path, content: &str) -> io::Result<()> {
    if content.is_empty() {
        remove_abandoned(path);
        std::fs::remove_file(path)?;
        return sync_folder(path);
    }
    let mut file = DraftFile::create(path)?;
    file.write_all(content.as_bytes())?;
    file.replace().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, again: Option<&str>) -> Load {
        Load { file: file.to_owned(), table: "orders".to_owned(), again: again.map(str::to_owned) }
    }

    fn passed(record: u64) -> Done {
        Done::new(vec![record])
    }

    fn record(number: u64) -> (u64, u64, String, String) {
        (number + 1, number, "why".to_owned(), "a\n\"b\"".to_owned())
    }

    #[test]
    fn records_behind_the_position_are_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rejects.ndjson");
        let open = |record| Rejects::open(&path, load("a", None), &passed(record)).unwrap();
        let mut rejects = open(0);
        rejects.add(&[]).unwrap();
        assert!(!path.exists(), "no record, no file");
        rejects.add(&[record(3), record(7)]).unwrap();
        rejects.add(&[record(9)]).unwrap();
        // A crash has torn the last line.
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("{\"line\":11");
        std::fs::write(&path, text).unwrap();
        // So was a run that made the file anew.
        let abandoned = folder.path().join("rejects.ndjson.1-0.tmp");
        std::fs::write(&abandoned, "a value").unwrap();
        let mut again = open(8);
        assert_eq!(again.count, 2);
        assert!(!abandoned.exists(), "it has values that nobody else removes");
        again.add(&[record(9)]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let numbers: Vec<u64> = text.lines().map(|line| serde_json::from_str::<Reject>(line).unwrap().record).collect();
        assert_eq!(numbers, [3, 7, 9]);
        std::fs::write(&abandoned, "a value").unwrap();
        assert_eq!(open(0).count, 0);
        assert!(!path.exists() && !abandoned.exists(), "a load that begins anew");
    }

    #[test]
    fn lines_of_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rejects.ndjson");
        std::fs::write(&path, "a file\nof a person").unwrap();
        let loads = [load("a", None), load("b", None), load("a", Some("second"))];
        for load in &loads {
            let mut rejects = Rejects::open(&path, load.clone(), &passed(0)).unwrap();
            assert_eq!(rejects.count, 0, "those of others do not count");
            rejects.add(&[record(1), record(5)]).unwrap();
        }
        assert_eq!(Rejects::open(&path, loads[1].clone(), &passed(3)).unwrap().count, 1);
        assert_eq!(Rejects::open(&path, loads[0].clone(), &passed(0)).unwrap().count, 0);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("a file\nof a person\n"), "{text}");
        let left: Vec<(Load, u64)> = text
            .lines()
            .skip(2)
            .map(|line| serde_json::from_str(line).unwrap())
            .map(|reject: Reject| (reject.load, reject.record))
            .collect();
        assert_eq!(left, [(loads[1].clone(), 1), (loads[2].clone(), 1), (loads[2].clone(), 5)]);
        // An empty one is left alone too: it may be no file.
        std::fs::write(&path, "").unwrap();
        assert_eq!(Rejects::open(&path, loads[0].clone(), &passed(0)).unwrap().count, 0);
        assert!(path.exists());
    }
}
