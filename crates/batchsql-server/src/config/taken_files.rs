//! Owns which files have another use, so that no lines can be added to them: those of the configuration, the database and the log.
//! Must not know whose lines they would be.

use std::path::{Path, PathBuf};

use batchsql::sqlite::SqliteOptions;

use crate::config::settings::Database;
use crate::same_file::{is_same, resolved};

/// What SQLite makes beside the file of a database.
const OF_SQLITE: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// What a program uses beside the files that it reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TakenFiles<'a> {
    pub(crate) configuration: Option<&'a Path>,
    pub(crate) database: Option<&'a Database>,
    /// The folder of `[durable]`.
    pub(crate) durable: Option<&'a Path>,
}

impl TakenFiles<'_> {
    /// What a file is, if it has another use. A name of a file that is not there yet counts too.
    pub(crate) fn uses(&self, path: &Path) -> Option<String> {
        let is = |other: &Path| is_same(path, other) || resolved(path) == resolved(other);
        if let Some(configuration) = self.configuration.filter(|configuration| is(configuration)) {
            return Some(format!("is the configuration {}", configuration.display()));
        }
        if let Some(database) = self.database.and_then(file_of) {
            let mut files = OF_SQLITE.iter().map(|ending| with_ending(&database, ending));
            if files.any(|file| is(&file)) {
                return Some(format!("is a file of the database {}", database.display()));
            }
        }
        let durable = self.durable?;
        let is_of_log = resolved(path).starts_with(resolved(&durable.join("log"))) || is(&durable.join("POSITIONS"));
        is_of_log.then(|| format!("is a file of the log in {}", durable.display()))
    }
}

/// The file of a database that has one, as SQLite names it: without links.
fn file_of(database: &Database) -> Option<PathBuf> {
    let dsn = database.dsn.reveal();
    let options = dsn.starts_with("sqlite:").then(|| dsn.parse::<SqliteOptions>().ok())??;
    options.path().map(resolved)
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::secret::Secret;

    #[test]
    #[cfg(unix)]
    fn files_with_another_use_are_found_by_all_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["a.db", "c.toml"] {
            std::fs::write(path(name), "").unwrap();
        }
        std::os::unix::fs::symlink("a.db", path("link.db")).unwrap();
        std::fs::hard_link(path("c.toml"), path("hard")).unwrap();
        std::fs::create_dir(path("sub")).unwrap();
        let dsn = Secret::new(format!("sqlite:{}", path("link.db").display()));
        let database = Database { dsn, connect_for: Duration::ZERO };
        let (configuration, durable) = (path("c.toml"), path("intake"));
        let taken =
            TakenFiles { configuration: Some(&configuration), database: Some(&database), durable: Some(&durable) };
        let of_log = ["intake/log/x", "intake/log", "sub/../intake/log/1.seg", "intake/POSITIONS"];
        for (names, part) in [
            (&["c.toml", "./c.toml", "sub/../c.toml", "hard"][..], "the configuration"),
            (&["a.db", "link.db", "a.db-wal", "a.db-shm", "sub/../a.db-journal"], "of the database"),
            (&of_log, "of the log"),
        ] {
            for name in names {
                let uses = taken.uses(&path(name)).unwrap_or_default();
                assert!(uses.contains(part), "{name}: {uses:?}");
            }
        }
        for name in ["a.db.ndjson", "letters", "intake/letters.ndjson", "intake/log.ndjson"] {
            assert_eq!(taken.uses(&path(name)), None, "{name}");
        }
    }
}
