//! Owns copies of the shipped files, for tests that change them.
//! Must not know any check.

use std::fs;
use std::path::{Path, PathBuf};

use batchsql_monitoring::lint;
use tempfile::TempDir;

pub(crate) const DASHBOARD: &str = "monitoring/grafana/dashboards/batchsql-performance.json";

/// The root of this repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A copy of `monitoring/` and `docs/`.
pub(crate) struct Tree(TempDir);

impl Tree {
    pub(crate) fn copy() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for folder in ["monitoring", "docs"] {
            copy(&root().join(folder), &tree.0.path().join(folder));
        }
        tree
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    /// Replaces every occurrence of a text; there must be at least one.
    #[track_caller]
    pub(crate) fn edit(&self, file: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(file)).unwrap();
        assert!(text.contains(from), "{file} does not contain {from:?}");
        fs::write(self.path(file), text.replacen(from, to, 1)).unwrap();
    }

    pub(crate) fn append(&self, file: &str, more: &str) {
        let text = fs::read_to_string(self.path(file)).unwrap_or_default();
        fs::write(self.path(file), text + more).unwrap();
    }

    pub(crate) fn remove(&self, file: &str) {
        fs::remove_file(self.path(file)).unwrap();
    }

    /// The findings of the checks.
    pub(crate) fn findings(&self) -> Vec<String> {
        lint(self.0.path()).unwrap().findings.iter().map(ToString::to_string).collect()
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
