//! No space: a page limit, a full file system, a limit on the size of files.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use batchsql_core::{
    BatchSql, Claim, Conflict, ErrorClass, OutcomeKind, PartitionKey, Position, RowBuffer, Schema, Step, ValueRules,
};
use batchsql_sqlite::rusqlite::{Connection, ffi};
use batchsql_sqlite::{SqliteOptions, SqliteSink};

use crate::numbered::{BATCH, Tracked, create, file, ids, numbered, pipeline, plain, submit};
use crate::support::{HOUR, schema};
use batchsql_testserver::process::{self, Process, command_through};

/// Six batches of about seven pages each.
const ROWS: i64 = 6 * BATCH as i64;
/// Far beyond the first delay of a slow retry (250 ms).
const RETRY_FOR: Duration = Duration::from_secs(2);

fn open(path: &Path) -> SqliteSink {
    SqliteSink::with_options(&SqliteOptions::file(path)).unwrap()
}

async fn limit_pages(sink: &SqliteSink, pages: u32) {
    let sql = format!("PRAGMA max_page_count={pages}");
    let limit: u32 = sink.call(move |conn| conn.query_row(&sql, [], |row| row.get(0))).await.unwrap();
    assert_eq!(limit, pages);
}

/// Submits more rows than there is space for, and waits until no more are written.
async fn submit_until_full(db: &BatchSql, schema: &Schema, path: &Path) -> Tracked {
    let tracked = submit(db, schema, 0..ROWS).await;
    let (mut fitting, mut unchanged) = (0, 0);
    while fitting == 0 || unchanged < 10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        unchanged = if fitting == tracked.resolved() { unchanged + 1 } else { 0 };
        fitting = tracked.resolved();
    }
    assert!(fitting < ROWS as usize, "every row fits");
    assert_eq!(ids(path).len(), fitting);
    tracked
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_beyond_the_page_limit_are_written_when_it_is_raised() {
    let (_dir, path) = file();
    let sink = open(&path);
    limit_pages(&sink, 24).await;
    let db = pipeline(&sink, HOUR);
    let tracked = submit_until_full(&db, &plain(), &path).await;
    limit_pages(&sink, 10_000).await;
    let outcomes = tracked.outcomes().await;
    outcomes.assert_all(OutcomeKind::Written);
    outcomes.assert_honest("max_page_count, raised", &path, db.close(HOUR).await.balance);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_beyond_the_page_limit_expire_and_later_ones_are_written() {
    let (_dir, path) = file();
    let sink = open(&path);
    limit_pages(&sink, 24).await;
    let db = pipeline(&sink, RETRY_FOR);
    let mut outcomes = submit(&db, &plain(), 0..ROWS).await.outcomes().await;
    assert!(!outcomes.of(OutcomeKind::Written).is_empty() && !outcomes.of(OutcomeKind::Expired).is_empty());
    outcomes.assert_failures(ErrorClass::Resource, ffi::SQLITE_FULL);
    // Retried, but not in a loop: nothing changes within milliseconds.
    // The number of retries is random: full jitter.
    assert!((2..=20).contains(&outcomes.fewest_attempts()), "{} attempts", outcomes.fewest_attempts());
    assert_eq!(ids(&path), outcomes.of(OutcomeKind::Written));
    limit_pages(&sink, 10_000).await;
    let later = submit(&db, &plain(), ROWS..2 * ROWS).await.outcomes().await;
    later.assert_all(OutcomeKind::Written);
    outcomes.extend(later);
    outcomes.assert_honest("max_page_count beyond retry_for", &path, db.close(HOUR).await.balance);
}

/// Writes to a separate small file system, first with a ballast file in it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a program, started by other tests"]
async fn small_file_system() {
    let Some(arguments) = process::arguments() else { return };
    let [folder] = &arguments[..] else { panic!("folder") };
    let folder = Path::new(folder);
    let ballast = folder.join("ballast");
    let fill = || {
        // Fills the free space, except for about two batches in the WAL.
        std::fs::write(&ballast, vec![1; 1 << 20]).unwrap_err();
        let file = std::fs::File::options().write(true).open(&ballast).unwrap();
        file.set_len(file.metadata().unwrap().len() - 96 * 1024).unwrap();
    };

    let path = folder.join("expires.db");
    create(&path);
    let sink = open(&path);
    sink.call(|conn| conn.execute_batch("INSERT INTO t VALUES (-1, 'makes the WAL')")).await.unwrap();
    fill();
    let db = pipeline(&sink, RETRY_FOR);
    let mut outcomes = submit(&db, &plain(), 0..ROWS).await.outcomes().await;
    assert!(!outcomes.of(OutcomeKind::Written).is_empty() && !outcomes.of(OutcomeKind::Expired).is_empty());
    outcomes.assert_failures(ErrorClass::Resource, ffi::SQLITE_FULL);
    assert_eq!(ids(&path), outcomes.of(OutcomeKind::Written));
    std::fs::remove_file(&ballast).unwrap();
    let later = submit(&db, &plain(), ROWS..ROWS + 70).await.outcomes().await;
    later.assert_all(OutcomeKind::Written);
    outcomes.extend(later);
    outcomes.assert_honest("full tmpfs beyond retry_for", &path, db.close(HOUR).await.balance);
    drop((db, sink));
    std::fs::remove_file(&path).unwrap();

    let path = folder.join("waits.db");
    create(&path);
    let sink = open(&path);
    sink.call(|conn| conn.execute_batch("INSERT INTO t VALUES (-1, 'makes the WAL')")).await.unwrap();
    fill();
    let db = pipeline(&sink, HOUR);
    let tracked = submit_until_full(&db, &plain(), &path).await;
    std::fs::remove_file(&ballast).unwrap();
    let outcomes = tracked.outcomes().await;
    outcomes.assert_all(OutcomeKind::Written);
    outcomes.assert_honest("full tmpfs, ballast removed", &path, db.close(HOUR).await.balance);
    process::tell("done");
}

#[test]
fn a_full_file_system_is_waited_for() {
    // In a mount namespace, so that the mount is gone with the program, however it ends.
    let namespaces: [&[&str]; 2] = [&["unshare", "--mount"], &["unshare", "--mount", "--map-root-user"]];
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let mount = format!("mount -t tmpfs -o size=1m tmpfs '{folder}' && exec \"$@\"");
    let may = |wrapper: &&[&str]| {
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).args(["sh", "-c", &mount, "sh", "true"]);
        command.output().is_ok_and(|output| output.status.success())
    };
    let Some(namespace) = namespaces.into_iter().find(may) else {
        return process::skip("a full file system: this user may not mount one here");
    };
    let wrapper = [namespace, &["sh", "-c", &mount, "sh"]].concat();
    let file = std::env::current_exe().unwrap();
    let program = Process::start(&mut command_through(&wrapper, &file, "full::small_file_system", &[folder]));
    program.unwrap().finish_aloud();
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing was mounted");
}

/// Writes while no file may grow beyond a size, which SQLite reports as an I/O error of the commit.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a program, started by other tests"]
async fn small_files() {
    if process::arguments().is_none() {
        return;
    }
    // The result of a failed commit is not known, so plain rows are not retried.
    let (_dir, path) = file();
    let sink = open(&path);
    let db = pipeline(&sink, HOUR);
    let outcomes = submit(&db, &plain(), 0..ROWS).await.outcomes().await;
    assert!(!outcomes.of(OutcomeKind::Written).is_empty() && !outcomes.of(OutcomeKind::Unknown).is_empty());
    outcomes.assert_failures(ErrorClass::Unknown, ffi::SQLITE_IOERR_WRITE);
    outcomes.assert_honest("RLIMIT_FSIZE, plain rows", &path, db.close(HOUR).await.balance);

    // If a retry is harmless, the rows are retried.
    let (_dir, path) = file();
    Connection::open(&path).unwrap().execute_batch("CREATE UNIQUE INDEX one ON t (id)").unwrap();
    let sink = open(&path);
    let db = pipeline(&sink, HOUR);
    let tracked = submit_until_full(&db, &schema(Conflict::ignore(["id"])), &path).await;
    let own = std::process::id().to_string();
    let raised = Command::new("prlimit").args(["--pid", &own, "--fsize=unlimited"]).status();
    if raised.is_ok_and(|status| status.success()) {
        let outcomes = tracked.outcomes().await;
        outcomes.assert_all(OutcomeKind::Written);
        outcomes.assert_honest("RLIMIT_FSIZE, repeatable rows, raised", &path, db.close(HOUR).await.balance);
    } else {
        process::skip("a limit on the size of files that is raised: no prlimit");
    }
    process::tell("done");
}

/// Steps of exactly once while no file may grow beyond a size: an I/O error of the commit, and one of a statement.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a program, started by other tests"]
async fn small_files_in_steps() {
    let Some(arguments) = process::arguments() else { return };
    let [mode] = &arguments[..] else { panic!("journal mode") };
    // Pages that find no place in a small cache are written before the commit.
    let (pragmas, class) = match &**mode {
        "wal" => ("PRAGMA journal_mode=WAL", ErrorClass::Unknown),
        _ => ("PRAGMA journal_mode=DELETE; PRAGMA cache_size=10", ErrorClass::Resource),
    };
    let (_dir, path) = file();
    let sink = open(&path);
    sink.call(move |conn| conn.execute_batch(pragmas)).await.unwrap();
    let db = pipeline(&sink, HOUR);
    let key = PartitionKey::new("s", "i", "t", 0);
    let position = db.claim(&key, &Claim::of("a").or_begin_at(0)).await.unwrap().position().unwrap();
    let step = async |position: Position, ids: std::ops::Range<i64>| {
        let mut rows = RowBuffer::new(&plain(), ValueRules::default());
        for id in ids.clone() {
            rows.push(&numbered(&plain(), id)).unwrap();
        }
        db.write_step(rows.into_rows().rows(), &Step::new(position, ids.end)).await
    };
    step(position, 0..20).await.unwrap();
    let position = Position { sequence: 20, ..position };
    let refused = step(position, 20..520).await.unwrap_err();
    assert_eq!((refused.error.class(), refused.error.code()), (class, Some("778")), "{mode}: {refused}");
    assert_eq!(ids(&path), (0..20).collect::<Vec<_>>(), "{mode}");
    // What a feed does after an unknown end; the limit still holds.
    let position = db.claim(&key, &Claim::of("a")).await.unwrap().position().unwrap();
    assert_eq!(position.sequence, 20, "{mode}");
    let own = std::process::id().to_string();
    let raised = Command::new("prlimit").args(["--pid", &own, "--fsize=unlimited"]).status();
    if raised.is_ok_and(|status| status.success()) {
        step(position, 20..520).await.unwrap();
        assert_eq!(ids(&path), (0..520).collect::<Vec<_>>(), "{mode}");
        let again = step(position, 20..520).await.unwrap_err();
        assert!(again.error.is_fenced(), "{mode}: {again}");
        assert_eq!(ids(&path).len(), 520, "{mode}");
    } else {
        process::skip("a limit on the size of files that is raised: no prlimit");
    }
    process::tell("done");
}

#[test]
fn a_step_that_an_io_error_ends_leaves_nothing() {
    for mode in ["wal", "delete"] {
        with_small_files("full::small_files_in_steps", &[mode]);
    }
}

#[test]
fn a_limit_on_the_size_of_files_is_told_honestly() {
    with_small_files("full::small_files", &[]);
}

/// Runs a program whose files have a limit.
fn with_small_files(program: &str, arguments: &[&str]) {
    // 100 KiB, in blocks of 512 bytes. The signal that comes with the error would end the program.
    let wrapper = ["sh", "-c", "trap '' XFSZ && ulimit -S -f 200 && exec \"$@\"", "sh"];
    let file = std::env::current_exe().unwrap();
    let program = Process::start(&mut command_through(&wrapper, &file, program, arguments));
    program.unwrap().finish_aloud();
}
