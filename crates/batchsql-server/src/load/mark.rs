//! Owns what a mark says of a load, how marks are stored, and those that could not be stored.
//! Must not know rows.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::exit::Failure;
use crate::load::layout::Ranges;

/// Why a mark cannot be used.
#[derive(Debug)]
pub(crate) enum MarkError {
    /// Another load writes with it now.
    InUse,
    /// An earlier version has made the mark, which did not store the database.
    NoDatabase {
        /// It would be this one.
        database: String,
        /// How the mark is found in the file.
        entry: String,
    },
    /// Something else is in the file.
    Unreadable,
    Io(io::Error),
}

impl MarkError {
    /// As the end of a load, for the mark with this path.
    pub(crate) fn failure(&self, path: &Path) -> Failure {
        let path = path.display();
        match self {
            Self::InUse => Failure::unavailable(format!(
                "{path}: another process loads this file now, or another source of this one; wait for its end, then run the \
                 command again"
            )),
            Self::NoDatabase { database, entry } => Failure::failed(format!(
                "{path}: an earlier version has made the entry with {entry}, which does not say into which database the file was \
                 loaded; if into this one, write \"database\":\"{database}\", behind the brace that begins this entry; if into another \
                 one, remove only this entry, and the file is loaded from its begin; start a service again after that"
            )),
            Self::Unreadable => Failure::failed(format!(
                "{path} does not say how far the file is loaded; remove it, and the file is loaded from its begin"
            )),
            Self::Io(error) => Failure::of_file_beside(format!("{path} cannot be read or made: {error}")),
        }
    }
}

impl From<io::Error> for MarkError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// How far a content is written into a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Its identity. An earlier version has stored none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) database: Option<String>,
    /// The content of the file.
    pub(super) file: String,
    pub(super) table: String,
    pub(super) record: u64,
    /// Records behind it that have ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) ended: Ranges,
}

impl Mark {
    /// What tells it from the others without a database.
    pub(super) fn entry(&self) -> String {
        let table = serde_json::Value::from(&*self.table);
        format!("\"file\":\"{}\",\"table\":{table}", self.file)
    }
}

/// What is in the file.
#[derive(Serialize)]
pub(super) struct Marks<'a> {
    pub(super) loads: Vec<&'a Mark>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Stored {
    Several {
        loads: Vec<Mark>,
    },
    /// Of an earlier version, which had one.
    One(Mark),
}

impl Stored {
    pub(super) fn read(text: &[u8]) -> Result<Vec<Mark>, MarkError> {
        // It was made for its lock only, or its only mark was removed.
        if text.trim_ascii().is_empty() {
            return Ok(Vec::new());
        }
        match serde_json::from_slice(text).map_err(|_| MarkError::Unreadable)? {
            Self::Several { loads } => Ok(loads),
            Self::One(mark) => Ok(vec![mark]),
        }
    }
}

/// Marks that could not be stored, by their files, for the next try of this process. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unsaved(Arc<Mutex<HashMap<PathBuf, Mark>>>);

impl Unsaved {
    /// Forgets those of other files.
    pub(crate) fn retain(&self, paths: impl Iterator<Item = PathBuf>) {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !marks.is_empty() {
            let paths: HashSet<PathBuf> = paths.collect();
            marks.retain(|path, _| paths.contains(path));
        }
    }

    pub(super) fn set(&self, path: &Path, mark: Option<Mark>) {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match mark {
            Some(mark) => marks.insert(path.to_owned(), mark),
            None => marks.remove(path),
        };
    }

    /// The one of the same load, if it is not behind `mark`.
    pub(super) fn of(&self, path: &Path, mark: &Mark) -> Option<Mark> {
        let marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same =
            |other: &&Mark| (&other.database, &other.file, &other.table) == (&mark.database, &mark.file, &mark.table);
        marks.get(path).filter(is_same).filter(|other| other.record >= mark.record).cloned()
    }
}
