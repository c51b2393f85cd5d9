//! Owns the version of the SQLite that is linked: which ones have the WAL-reset bug, and the warning about it.
//! Must not know options, rows or threads.
//!
//! The bug (<https://www.sqlite.org/wal.html#walresetbug>): two connections to a database in WAL mode write or
//! checkpoint at the same time, and a checkpoint does not see that the log was reset. Rows of the log then never reach
//! the database.

use std::ops::Range;
use std::sync::Once;

use rusqlite::Connection;

/// The versions with the bug, in the form of `sqlite3_libversion_number`: 3.7.0 to 3.51.2 without the releases from
/// 3.44.6 and from 3.50.7 on, which got the fix later.
const AFFECTED: [Range<i32>; 3] = [3_007_000..3_044_006, 3_045_000..3_050_007, 3_051_000..3_051_003];

/// Whether this version of SQLite has the WAL-reset bug. The number of a version to which a distribution added the fix
/// does not show it: such a version counts as affected.
fn has_wal_reset_bug(version: i32) -> bool {
    AFFECTED.iter().any(|versions| versions.contains(&version))
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
                "the linked sqlite has the WAL-reset bug, which may corrupt a database that several connections write or \
                 checkpoint; link 3.51.3 or later: rusqlite 0.39 with its feature bundled, or the system's. `cargo tree -i libsqlite3-sys` \
                 shows what keeps an older one; beside sqlx 0.8 see \"Which SQLite\" in BatchSQL's docs/databases.md"
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_from_3_7_0_to_3_51_2_have_the_bug_except_later_fixes() {
        let check = |version: i32, expected: bool| assert_eq!(has_wal_reset_bug(version), expected, "{version}");
        check(3_006_023, false);
        check(3_007_000, true);
        check(3_044_005, true);
        check(3_044_006, false);
        check(3_045_000, true);
        check(3_046_000, true);
        check(3_050_006, true);
        check(3_050_007, false);
        check(3_051_000, true);
        check(3_051_002, true);
        check(3_051_003, false);
        check(3_053_000, false);
        check(4_000_000, false);
    }
}
