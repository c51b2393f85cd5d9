//! Databases that cannot be written: read-only connections, files that moved, missing permissions.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

use batchsql_core::{ErrorClass, OutcomeKind};
use batchsql_sqlite::rusqlite::{Connection, OpenFlags, ffi};
use batchsql_sqlite::{SqliteOptions, SqliteSink};

use crate::numbered::{BATCH, Outcomes, create, file, pipeline, plain, submit};
use crate::support::HOUR;
use batchsql_testserver::process::{self, Process};

const ROWS: i64 = 3 * BATCH as i64;
/// Rows with a retried error class would end as expired.
const RETRY_FOR: Duration = Duration::from_secs(1);
/// `SQLITE_READONLY_DIRECTORY`, which some bindings for the system's SQLite do not have.
const READONLY_DIRECTORY: i32 = ffi::SQLITE_READONLY | (6 << 8);

/// Writes rows that must fail at once with this code.
async fn refused(sink: &SqliteSink, what: &str, path: &Path, code: i32) -> Outcomes {
    let db = pipeline(sink, RETRY_FOR);
    let outcomes = submit(&db, &plain(), 0..ROWS).await.outcomes().await;
    outcomes.assert_all(OutcomeKind::Rejected);
    outcomes.assert_failures(ErrorClass::Permission, code);
    outcomes.assert_honest(what, path, db.close(HOUR).await.balance);
    outcomes
}

/// Writes rows, all of which must be written.
async fn written(sink: &SqliteSink, what: &str, path: &Path) {
    let db = pipeline(sink, RETRY_FOR);
    let outcomes = submit(&db, &plain(), 0..ROWS).await.outcomes().await;
    outcomes.assert_all(OutcomeKind::Written);
    outcomes.assert_honest(what, path, db.close(HOUR).await.balance);
}

/// A connection with a rollback journal.
fn rollback_journal(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.query_row("PRAGMA journal_mode=DELETE", [], |_| Ok(())).unwrap();
    conn
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_not_written_into_a_file_that_is_gone_with_a_write_ahead_log_either() {
    let (_dir, path) = file();
    let sink = SqliteSink::with_options(&SqliteOptions::file(&path)).unwrap();
    written(&sink, "in place", &path).await;
    let moved = path.with_extension("moved");
    std::fs::rename(&path, &moved).unwrap();
    let db = pipeline(&sink, RETRY_FOR);
    let outcomes = submit(&db, &plain(), 1000..1000 + ROWS).await.outcomes().await;
    outcomes.assert_all(OutcomeKind::Rejected);
    outcomes.assert_failures(ErrorClass::Permission, ffi::SQLITE_READONLY_DBMOVED);
    db.close(HOUR).await;
    std::fs::rename(&moved, &path).unwrap();
    let db = pipeline(&sink, RETRY_FOR);
    submit(&db, &plain(), 2000..2000 + ROWS).await.outcomes().await.assert_all(OutcomeKind::Written);
    db.close(HOUR).await;
    // Another file replaced it.
    std::fs::copy(&path, &moved).unwrap();
    std::fs::rename(&moved, &path).unwrap();
    let db = pipeline(&sink, RETRY_FOR);
    submit(&db, &plain(), 3000..3000 + ROWS).await.outcomes().await.assert_all(OutcomeKind::Rejected);
    db.close(HOUR).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_may_only_query_rejects_rows_until_it_may_write() {
    let (_dir, path) = file();
    let sink = SqliteSink::with_options(&SqliteOptions::file(&path)).unwrap();
    sink.call(|conn| conn.pragma_update(None, "query_only", true)).await.unwrap();
    refused(&sink, "query_only", &path, ffi::SQLITE_READONLY).await;
    sink.call(|conn| conn.pragma_update(None, "query_only", false)).await.unwrap();
    written(&sink, "query_only off again", &path).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_connections_reject_rows() {
    for parameter in ["mode=ro", "immutable=1"] {
        let (_dir, path) = file();
        let uri = format!("file:{}?{parameter}", path.display());
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI;
        let sink = SqliteSink::from_connection(Connection::open_with_flags(uri, flags).unwrap()).unwrap();
        refused(&sink, parameter, &path, ffi::SQLITE_READONLY).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_moved_is_not_written_until_it_is_back() {
    let (_dir, path) = file();
    let sink = SqliteSink::from_connection(rollback_journal(&path)).unwrap();
    let moved = path.with_extension("moved");
    std::fs::rename(&path, &moved).unwrap();
    refused(&sink, "file moved", &moved, ffi::SQLITE_READONLY_DBMOVED).await;
    std::fs::rename(&moved, &path).unwrap();
    written(&sink, "file moved back", &path).await;
}

/// Everything about permissions. It runs as an unprivileged user, so it creates its own files.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a program, started by other tests"]
async fn unprivileged() {
    if process::arguments().is_none() {
        return;
    }
    let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();

    // SQLite silently opens such a file for reading.
    for journal in ["WAL", "DELETE"] {
        let (_dir, path) = file();
        Connection::open(&path).unwrap().query_row(&format!("PRAGMA journal_mode={journal}"), [], |_| Ok(())).unwrap();
        mode(&path, 0o444);
        let error = SqliteSink::with_options(&SqliteOptions::file(&path)).unwrap_err().to_string();
        assert!(error.contains("it is read-only"), "{journal}: {error}");
        // An existing connection is used unchanged.
        let sink = SqliteSink::from_connection(Connection::open(&path).unwrap()).unwrap();
        refused(&sink, &format!("file 0444, {journal}"), &path, ffi::SQLITE_READONLY).await;
    }

    // WAL needs files next to the database from the start.
    let (dir, path) = file();
    mode(dir.path(), 0o555);
    let error = SqliteSink::with_options(&SqliteOptions::file(&path)).unwrap_err().to_string();
    assert!(error.contains("check the path and its permissions"), "{error}");
    mode(dir.path(), 0o755);

    // A rollback journal is created for each transaction.
    let (dir, path) = file();
    let sink = SqliteSink::from_connection(rollback_journal(&path)).unwrap();
    mode(dir.path(), 0o555);
    refused(&sink, "directory 0555, DELETE", &path, READONLY_DIRECTORY).await;
    mode(dir.path(), 0o755);
    written(&sink, "directory 0755 again, DELETE", &path).await;

    // Permissions are checked when a file is opened: a process that has it open can still write.
    let (dir, path) = file();
    let sink = SqliteSink::with_options(&SqliteOptions::file(&path)).unwrap();
    sink.call(|conn| conn.execute_batch("INSERT INTO t VALUES (-1, 'opens every file')")).await.unwrap();
    mode(&path, 0o444);
    mode(dir.path(), 0o555);
    written(&sink, "file 0444 and directory 0555 while open", &path).await;
    mode(dir.path(), 0o755);
    process::tell("done");
}

#[test]
fn missing_permissions_are_told_honestly() {
    const NOBODY: u32 = 65_534;
    let dir = tempfile::tempdir().unwrap();
    let probe = dir.path().join("probe");
    std::fs::write(&probe, "").unwrap();
    std::fs::set_permissions(&probe, PermissionsExt::from_mode(0o000)).unwrap();
    let mut command = if std::fs::File::open(&probe).is_err() {
        process::command("readonly::unprivileged", &[])
    } else {
        // Permissions do not restrict this user. Another one may have no access to the build folder.
        let copy = dir.path().join("tests");
        std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let mut command = process::command_through(&[], &copy, "readonly::unprivileged", &[]);
        command.uid(NOBODY).gid(NOBODY).current_dir(dir.path());
        command
    };
    match Process::start(&mut command) {
        Ok(program) => program.finish_aloud(),
        Err(error) => process::skip(&format!("missing permissions: no program as another user: {error}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a program, started by other tests"]
async fn wanderer() {
    if process::arguments().is_none() {
        return;
    }
    let path = std::env::current_dir().unwrap().join("here.db");
    create(&path);
    let sink = SqliteSink::open("sqlite:here.db").unwrap();
    std::env::set_current_dir("/").unwrap();
    written(&sink, "another folder", &path).await;
    process::tell("done");
}

#[test]
fn a_process_that_changes_its_folder_writes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = process::command("readonly::wanderer", &[]);
    command.current_dir(dir.path());
    Process::start(&mut command).unwrap().finish_aloud();
}
