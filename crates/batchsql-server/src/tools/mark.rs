//! Owns the mark beside a file of letters: which of its lines were replayed.
//! Must not know what a line is.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// What a replay has left beside the file; without a replay it has passed nothing.
#[derive(Debug, Default, serde::Deserialize, serde::Serialize)]
pub(super) struct Mark {
    #[serde(skip)]
    pub(super) path: PathBuf,
    /// Every line before this byte was replayed, or is in `failed`.
    pub(super) position: u64,
    pub(super) failed: BTreeSet<u64>,
}

impl Mark {
    /// # Errors
    /// The mark of this file is there and cannot be read.
    pub(super) fn of(letters: &Path) -> io::Result<Self> {
        let mut path = letters.as_os_str().to_owned();
        path.push(".mark");
        let path = PathBuf::from(path);
        let mark: Self = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)?,
            Err(error) if error.kind() == ErrorKind::NotFound => Self::default(),
            Err(error) => return Err(error),
        };
        Ok(Self { path, ..mark })
    }

    pub(super) fn has_passed(&self, position: u64) -> bool {
        position < self.position && !self.failed.contains(&position)
    }

    /// Replaces it as a whole, so that a crash leaves the old one or the new one. Blocks the thread.
    ///
    /// # Errors
    /// It cannot be written.
    #[cfg(feature = "nats")]
    pub(super) fn write(&self) -> io::Result<()> {
        use std::io::Write as _;

        let mut new = self.path.as_os_str().to_owned();
        new.push(".new");
        let mut file = std::fs::File::create(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        std::fs::rename(new, &self.path)
    }
}
