//! Owns the version of the SQLite that is linked: which ones have the WAL-reset bug, and the warning about it.
//! Must not know options, rows or threads.
//!
//! SQLite 3.7.0 to 3.51.2 can corrupt a database in WAL mode when two connections write or checkpoint at the same time:
//! a checkpoint does not see that the log was reset, and rows of the log never reach the database.

use std::sync::Once;

use rusqlite::Connection;

/// SQLite 3.51.3, in the form of `sqlite3_libversion_number`.
const FIRST_FIXED: i32 = 3_051_003;

/// Whether this version of SQLite has the WAL-reset bug. A version whose distribution added the fix counts as well.
fn has_wal_reset_bug(version: i32) -> bool {
    (3_007_000..FIRST_FIXED).contains(&version)
}

/// Warns once per process when the linked SQLite has the bug and the connection uses WAL.
pub(crate) fn warn_of_wal_reset(connection: &Connection) {
    static WARNED: Once = Once::new();
    if !has_wal_reset_bug(rusqlite::version_number()) {
        return;
    }
    // A file that is locked now cannot be asked. That is no reason not to open it.
    let mode = connection.query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0));
    if mode.is_ok_and(|mode| mode == "wal") {
        WARNED.call_once(|| {
            tracing::warn!(
                version = rusqlite::version(),
                "the linked sqlite is older than 3.51.3 and may corrupt a database in WAL mode; switch the feature \
                 bundled on, or link a newer sqlite"
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_from_3_7_0_to_3_51_2_have_the_bug() {
        let check = |version: i32, expected: bool| assert_eq!(has_wal_reset_bug(version), expected, "{version}");
        check(3_006_023, false);
        check(3_007_000, true);
        check(3_046_000, true);
        check(3_051_002, true);
        check(3_051_003, false);
        check(3_052_000, false);
        check(4_000_000, false);
    }

    #[cfg(feature = "bundled")]
    #[test]
    fn the_bundled_sqlite_does_not_have_the_bug() {
        assert!(rusqlite::version_number() >= FIRST_FIXED, "{}", rusqlite::version());
    }
}
