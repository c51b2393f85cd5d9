//! Owns the path and the opening of the database: DSN, options, pragmas.
//! Must not know rows or statements.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use batchsql_core::OpenError;
use batchsql_core::dsn::{Parameter, check_once, decoded, parameters, wrong_scheme};
use rusqlite::{Connection, MAIN_DB, OpenFlags, OptionalExtension};

/// When a commit is durable; SQLite's `PRAGMA synchronous`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Synchronous {
    /// A crash of the process loses nothing; a crash of the machine may lose the last commits, never the
    /// file.
    #[default]
    Normal,
    /// Every commit survives a crash of the machine; each one waits for the disk.
    Full,
    /// A crash of the machine may destroy the file. Only for data that can be recreated.
    Off,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Location {
    Memory,
    File(PathBuf),
}

/// Path and options of a database.
///
/// As a DSN: `sqlite::memory:`, `sqlite:relative.db`, `sqlite:///absolute.db`, with the parameters
/// `mode` (`rwc` creates the file and is the default, `rw` needs it to exist, `memory`), `synchronous`
/// (`normal`, `full`, `off`), `busy_timeout` (a duration such as `500ms` or `5s`, the default; without a unit in seconds),
/// `cache_size` (bytes), `wal_autocheckpoint` (pages) and `mmap_size` (bytes), see the methods of these names.
///
/// There is no `connect_lazy`: a file that cannot be opened is an error that should be reported at once.
///
/// ```
/// use batchsql_sqlite::SqliteOptions;
/// let options: SqliteOptions = "sqlite:///var/lib/app.db?mode=rw&synchronous=full".parse()?;
/// assert!("postgres://user:secret@host/db".parse::<SqliteOptions>().is_err());
/// # let _ = options;
/// # Ok::<(), batchsql_sqlite::OpenError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteOptions {
    location: Location,
    create: bool,
    synchronous: Synchronous,
    busy_timeout: Duration,
    cache_size: u64,
    wal_autocheckpoint: u32,
    mmap_size: u64,
}

/// Enough for the indexes of a table with some hundred thousand rows.
const DEFAULT_CACHE_SIZE: u64 = 32 << 20;

/// Four times SQLite's own: pages that several batches change are written into the database once (measured by
/// `examples/pragmas.rs`).
const DEFAULT_WAL_AUTOCHECKPOINT: u32 = 4_000;

/// The name of the product in the errors of a DSN.
const PRODUCT: &str = "sqlite";

/// The parameters of a DSN.
const KNOWN: [&str; 6] = ["mode", "synchronous", "busy_timeout", "cache_size", "wal_autocheckpoint", "mmap_size"];

/// SQLite's limit in milliseconds has 31 bits.
const MAX_BUSY_TIMEOUT: Duration = Duration::from_secs(2_000_000);

impl SqliteOptions {
    /// A database file, created if it does not exist.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::at(Location::File(path.into()))
    }

    /// A database in memory, which ends with the sink.
    pub fn in_memory() -> Self {
        Self::at(Location::Memory)
    }

    fn at(location: Location) -> Self {
        Self {
            location,
            create: true,
            synchronous: Synchronous::Normal,
            busy_timeout: Duration::from_secs(5),
            cache_size: DEFAULT_CACHE_SIZE,
            wal_autocheckpoint: DEFAULT_WAL_AUTOCHECKPOINT,
            mmap_size: 0,
        }
    }

    /// Whether a missing file is created; default true.
    #[must_use]
    pub fn create_if_missing(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// When a commit counts as durable; default [`Synchronous::Normal`].
    #[must_use]
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// How long one attempt waits for another process's lock; default 5 s. After it the batch is
    /// retried with backoff.
    #[must_use]
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// How many bytes of pages the writer may keep in memory (`PRAGMA cache_size`); default 32 MiB (SQLite's own is 2
    /// MB). Memory is used only as needed. Indexes with keys in random order need more, see `docs/databases.md`.
    #[must_use]
    pub fn cache_size(mut self, bytes: u64) -> Self {
        self.cache_size = bytes;
        self
    }

    /// After how many pages of the write-ahead log a commit also writes them into the database
    /// (`PRAGMA wal_autocheckpoint`); default 4,000 (16 MB; SQLite's own is 1,000). More is faster for indexes with
    /// keys in random order, and needs a larger file next to the database. With [`Synchronous::Normal`] the commits
    /// since then may be lost if the machine crashes. 0: never; then another process must checkpoint.
    #[must_use]
    pub fn wal_autocheckpoint(mut self, pages: u32) -> Self {
        self.wal_autocheckpoint = pages;
        self
    }

    /// How many bytes of the file are read through memory mapping (`PRAGMA mmap_size`); default 0. A disk error in a
    /// mapped page ends the process.
    #[must_use]
    pub fn mmap_size(mut self, bytes: u64) -> Self {
        self.mmap_size = bytes;
        self
    }

    /// The database's file; `None` in memory.
    pub fn path(&self) -> Option<&Path> {
        match &self.location {
            Location::Memory => None,
            Location::File(path) => Some(path),
        }
    }

    /// Opens the database and sets it up for one writer.
    pub(crate) fn open(&self) -> Result<Connection, OpenError> {
        let access = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let result = match &self.location {
            Location::Memory => Connection::open_in_memory(),
            Location::File(path) if self.create => {
                Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_CREATE)
            }
            Location::File(path) => Connection::open_with_flags(path, access),
        };
        let conn = result.map_err(|error| self.open_error(error))?;
        // SQLite silently opens a write-protected file for reading.
        if conn.is_readonly(MAIN_DB).map_err(|error| self.open_error(error))? {
            return Err(OpenError::new(format!(
                "cannot open sqlite database {}: it is read-only; check its permissions",
                self.path().unwrap_or(Path::new(":memory:")).display()
            )));
        }
        self.set_up(&conn).map_err(|error| self.open_error(error))?;
        Ok(conn)
    }

    fn set_up(&self, conn: &Connection) -> rusqlite::Result<()> {
        conn.busy_timeout(self.busy_timeout)?;
        if let Location::File(path) = &self.location {
            let mode: String = conn.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
            if mode != "wal" {
                tracing::warn!(path = %path.display(), mode, "sqlite refused WAL; readers and the writer block each other");
            }
        }
        let synchronous = match self.synchronous {
            Synchronous::Off => 0,
            Synchronous::Normal => 1,
            Synchronous::Full => 2,
        };
        conn.pragma_update(None, "synchronous", synchronous)?;
        // Negative: in KiB, and not in pages.
        let kib = i64::try_from(self.cache_size.div_ceil(1024)).unwrap_or(i64::MAX).min(i32::MAX.into());
        conn.pragma_update(None, "cache_size", -kib)?;
        // These two pragmas return the value.
        let ask = |pragma: String| conn.query_row(&pragma, [], |_| Ok(())).optional().map(drop);
        ask(format!("PRAGMA wal_autocheckpoint={}", i32::try_from(self.wal_autocheckpoint).unwrap_or(i32::MAX)))?;
        ask(format!("PRAGMA mmap_size={}", i64::try_from(self.mmap_size).unwrap_or(i64::MAX)))?;
        conn.pragma_update(None, "foreign_keys", true)
    }

    fn open_error(&self, error: rusqlite::Error) -> OpenError {
        let Some(path) = self.path() else {
            return OpenError::new("cannot open a sqlite database in memory").caused_by(error);
        };
        let shown = path.display();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let problem = if parent.is_some_and(|parent| !parent.is_dir()) {
            format!("cannot open sqlite database {shown}: its folder does not exist; create the folder first")
        } else if path.is_dir() {
            format!("cannot open sqlite database {shown}: it is a folder; name a file")
        } else if !self.create && !path.exists() {
            format!("cannot open sqlite database {shown}: there is no such file; create it or use mode=rwc")
        } else if error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) {
            format!("cannot open sqlite database {shown}: the file is not a sqlite database; name another file")
        } else {
            format!("cannot open sqlite database {shown}: {error}; check the path and its permissions")
        };
        OpenError::new(problem).caused_by(error)
    }
}

impl FromStr for SqliteOptions {
    type Err = OpenError;

    fn from_str(dsn: &str) -> Result<Self, OpenError> {
        const FORMS: &str = "use sqlite::memory:, sqlite:relative.db or sqlite:///absolute.db";
        let Some(rest) = dsn.strip_prefix("sqlite:") else {
            return Err(wrong_scheme(PRODUCT, dsn.split_once(':').map(|(scheme, _)| scheme), FORMS));
        };
        // Checked as a whole and decoded: a password may contain any character.
        let whole = decoded(PRODUCT, rest, "a part")?;
        if whole.contains('@') && whole.contains(':') {
            return Err(OpenError::invalid_options(format!("a sqlite dsn has no user, password or host; {FORMS}")));
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = path.strip_prefix("//").unwrap_or(path);
        let mut options = if path == ":memory:" {
            Self::in_memory()
        } else if path.is_empty() {
            return Err(OpenError::invalid_options(format!("the sqlite dsn names no file; {FORMS}")));
        } else {
            Self::file(&*decoded(PRODUCT, path, "the path")?)
        };
        let parameters: Vec<Parameter<'_>> = parameters(PRODUCT, query, true).collect();
        check_once(&parameters, |name| KNOWN.chunks(1).find(|known| known[0] == name))?;
        for parameter in parameters {
            options.set(parameter)?;
        }
        Ok(options)
    }
}

impl SqliteOptions {
    fn set(&mut self, parameter: Parameter<'_>) -> Result<(), OpenError> {
        match parameter.name() {
            "mode" => match parameter.choice(&[("rwc", Some(true)), ("rw", Some(false)), ("memory", None)])? {
                Some(create) => self.create = create,
                None => self.location = Location::Memory,
            },
            "synchronous" => {
                self.synchronous = parameter.choice(&[
                    ("normal", Synchronous::Normal),
                    ("full", Synchronous::Full),
                    ("off", Synchronous::Off),
                ])?;
            }
            "busy_timeout" => {
                let timeout = parameter.duration_or_zero()?;
                if timeout > MAX_BUSY_TIMEOUT {
                    return Err(parameter.wrong("a duration of at most 2000000s"));
                }
                self.busy_timeout = timeout;
            }
            "cache_size" => self.cache_size = parameter.number()?,
            "wal_autocheckpoint" => self.wal_autocheckpoint = parameter.number()?,
            "mmap_size" => self.mmap_size = parameter.number()?,
            "connect_timeout" => {
                return Err(parameter.refused("there is no server; use busy_timeout, the time to wait for a lock"));
            }
            _ => return Err(parameter.unknown(&KNOWN)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dsns_name_memory_or_a_file() {
        let check = |dsn: &str, expected: SqliteOptions| assert_eq!(dsn.parse::<SqliteOptions>().unwrap(), expected);
        check("sqlite::memory:", SqliteOptions::in_memory());
        check("sqlite://:memory:", SqliteOptions::in_memory());
        check("sqlite:a.db", SqliteOptions::file("a.db"));
        check("sqlite://a.db?mode=rw", SqliteOptions::file("a.db").create_if_missing(false));
        check("sqlite:///x/a%20b%3F.db", SqliteOptions::file("/x/a b?.db"));
        check(
            "sqlite:a.db?synchronous=full&busy_timeout=250ms",
            SqliteOptions::file("a.db").synchronous(Synchronous::Full).busy_timeout(Duration::from_millis(250)),
        );
    }

    #[test]
    fn mistakes_say_what_to_do_and_show_no_password() {
        let check = |dsn: &str, part: &str| {
            let message = dsn.parse::<SqliteOptions>().unwrap_err().to_string();
            assert!(message.contains(part), "{message:?} does not contain {part:?}");
            assert!(!message.contains("secret"), "{message:?}");
        };
        check("postgres://user:secret@host/db", "scheme \"postgres\"");
        check("user:secret@host", "not for sqlite");
        check("just-a-secret", "no scheme");
        check("sqlite://user:secret@host/db", "no user, password or host");
        check("sqlite://user:x?secret@host/db", "no user, password or host");
        check("sqlite://user%3Asecret%40host/db", "no user, password or host");
        check("sqlite:", "names no file");
        check("sqlite:a.db?mode=secret", "mode in the sqlite dsn is not rwc, rw or memory");
        check("sqlite:a.db?pass=secret", "unknown parameter \"pass\"");
        check("sqlite:a.db?busy_timeout=-1", "not a duration");
        check("sqlite:a.db?busy_timeout=inf", "not a duration");
        check("sqlite:a.db?busy_timeout=2000001s", "at most 2000000s");
        check("sqlite:a.db?busy_timeout_ms=5", "did you mean busy_timeout?");
        check("sqlite:a.db?mode=rw&mode=rw", "mode is given twice");
        check("sqlite:a.db?connect_timeout=5", "use busy_timeout");
        check("sqlite:a.db?cache_size=2MB", "cache_size in the sqlite dsn is not a number");
        check("sqlite:a.db?wal_autocheckpoint=-1", "wal_autocheckpoint in the sqlite dsn");
    }

    #[test]
    fn parameters_reach_the_database() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let ask = |query: &str, pragma: &str| {
            let options: SqliteOptions = format!("sqlite://{}{query}", path.display()).parse().unwrap();
            let conn = options.open().unwrap();
            conn.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!(ask("", "cache_size"), -32_768);
        assert_eq!(ask("?cache_size=1048576", "cache_size"), -1_024);
        assert_eq!((ask("", "wal_autocheckpoint"), ask("?wal_autocheckpoint=50", "wal_autocheckpoint")), (4_000, 50));
        assert_eq!((ask("", "mmap_size"), ask("?mmap_size=1048576", "mmap_size")), (0, 1_048_576));
        assert_eq!(ask("?synchronous=full", "synchronous"), 2);
    }

    #[test]
    fn a_database_that_cannot_be_opened_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let check = |options: SqliteOptions, part: &str| {
            let message = options.open().unwrap_err().to_string();
            assert!(message.contains(part), "{message:?} does not contain {part:?}");
        };
        check(SqliteOptions::file(dir.path().join("no/where.db")), "its folder does not exist");
        check(SqliteOptions::file(dir.path()), "it is a folder");
        check(SqliteOptions::file(dir.path().join("a.db")).create_if_missing(false), "no such file");
        std::fs::write(dir.path().join("text.db"), "this is certainly not a database file".repeat(50)).unwrap();
        check(SqliteOptions::file(dir.path().join("text.db")), "not a sqlite database");
    }
}
