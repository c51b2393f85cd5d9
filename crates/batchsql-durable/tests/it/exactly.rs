//! Exactly once, with a sink that the test controls: lost replies, late packets, restored folders and databases, bad rows.

use std::path::Path;

use batchsql_core::{
    BatchSql, BeyondBudget, Conflict, ErrorClass, Expr, Isolation, PipelineConfig, StoredPosition, ValueRef,
};
use batchsql_durable::{DurableBatchSql, DurableExt, DurableOptions, DurableStartError};
use batchsql_testkit::{ScriptedSink, Step};

use crate::disk::Lines;
use crate::support::{LONG, applied, config, in_table, keyed, numbers, options, plain, row, start, table, until};

fn exact(folder: &Path) -> DurableOptions {
    options(folder).partitions(1).exactly_once("test")
}

fn sink() -> ScriptedSink {
    let sink = ScriptedSink::new();
    sink.keep_positions();
    sink
}

/// The next connection waits for [`ScriptedSink::release`].
fn make_unreachable(sink: &ScriptedSink) {
    sink.script_acquire([Step::Hang]);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(file.file_name());
        match file.file_type().unwrap().is_dir() {
            true => copy(&file.path(), &to),
            false => drop(std::fs::copy(file.path(), to).unwrap()),
        }
    }
}

/// Writes the rows of `first` from a folder, copies it, and writes rows 3 to 7 from the folder itself; the position of these.
async fn go_on(sink: &ScriptedSink, folder: &Path, before: &Path, first: std::ops::Range<i64>) -> StoredPosition {
    let db = start(sink, exact(folder)).await.unwrap();
    submit(&db, first).await;
    db.flush().await.unwrap();
    db.close(LONG).await;
    drop(db);
    copy(folder, before);
    let db = start(sink, exact(folder)).await.unwrap();
    submit(&db, 3..8).await;
    db.flush().await.unwrap();
    let position = db.positions().await.unwrap().remove(0);
    db.close(LONG).await;
    position
}

async fn submit(db: &DurableBatchSql, versions: std::ops::Range<i64>) {
    let rows: Vec<_> = versions.map(|version| row(&plain(), 1, version)).collect();
    db.submit_all(&rows).await.unwrap();
}

fn versions(sink: &ScriptedSink) -> Vec<i64> {
    in_table(sink, "plain").into_iter().map(|(_, version)| version).collect()
}

fn letters(folder: &Path) -> Vec<(i64, i64)> {
    let text = std::fs::read_to_string(folder.join("dead-letters.ndjson")).unwrap();
    let line = |line: &str| numbers(&line.parse::<batchsql_core::DeadLetterLine>().unwrap().row(&plain()).unwrap());
    text.lines().map(line).collect()
}

/// Waits until its only partition has stopped; the reason.
async fn stopped(db: &DurableBatchSql) -> String {
    until("the partition has stopped", || !db.health().stopped.is_empty()).await;
    db.health().stopped[0].reason.clone()
}

/// Waits until its only partition waits; the reason.
async fn waiting(db: &DurableBatchSql) -> String {
    until("the partition waits", || !db.health().waiting.is_empty()).await;
    db.health().waiting[0].reason.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_doubles_nothing() {
    for step in [Step::LoseReply, Step::Fail(ErrorClass::Unknown), Step::Panic, Step::Late] {
        let (dir, sink) = (tempfile::tempdir().unwrap(), sink());
        sink.script([Step::Apply, step, Step::Apply, step]);
        let db = start(&sink, exact(dir.path())).await.unwrap();
        for version in 0..20 {
            submit(&db, version..version + 1).await;
        }
        db.flush().await.unwrap();
        assert_eq!(sink.deliver(), 0, "{step:?}: what arrives late is fenced");
        assert_eq!(versions(&sink), (0..20).collect::<Vec<_>>(), "{step:?}");
        let balance = db.stats().balance;
        assert_eq!((balance.accepted, balance.written()), (20, 20), "{step:?}");
        assert_eq!(sink.position("plain", 0), Some(20));
        assert!(db.close(LONG).await.is_drained());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_to_a_claim_is_claimed_again() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), sink());
    // The claims at the start, then those after a lost reply.
    sink.script_claim([Step::LoseReply, Step::Fail(ErrorClass::Transient), Step::Apply, Step::LoseReply, Step::Apply]);
    sink.script([Step::LoseReply, Step::Fail(ErrorClass::Unknown)]);
    let db = start(&sink, exact(dir.path())).await.unwrap();
    submit(&db, 0..3).await;
    submit(&db, 3..6).await;
    db.flush().await.unwrap();
    assert_eq!(versions(&sink), (0..6).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_are_added_once() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), sink());
    sink.script([Step::LoseReply, Step::Apply, Step::Late, Step::LoseReply]);
    let db = start(&sink, exact(dir.path())).await.unwrap();
    let counter = table("counter", Conflict::update(["id"]).set("version", Expr::add()));
    for _ in 0..50 {
        db.submit_all(&[row(&counter, 1, 1), row(&counter, 2, 10)]).await.unwrap();
    }
    db.flush().await.unwrap();
    sink.deliver();
    assert_eq!(in_table(&sink, "counter"), [(1, 50), (2, 500)]);
    let refused = start(&sink, options(&dir.path().join("other"))).await.unwrap();
    let error = refused.submit(&row(&counter, 1, 1)).await.unwrap_err();
    assert!(error.to_string().contains("DurableOptions::exactly_once"), "{error}");
}

/// A process that ends between the commit and the settling of its rows.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_process_before_has_written_are_skipped() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), sink());
    let (folder, crashed) = (dir.path().join("intake"), dir.path().join("crashed"));
    make_unreachable(&sink);
    let db = start(&sink, exact(&folder)).await.unwrap();
    submit(&db, 0..10).await;
    copy(&folder, &crashed);
    sink.release(1);
    db.flush().await.unwrap();
    assert!(db.close(LONG).await.is_drained());

    std::fs::copy(folder.join("POSITIONS"), crashed.join("POSITIONS")).unwrap();
    let db = start(&sink, exact(&crashed)).await.unwrap();
    assert_eq!(db.recovered().rows, 10);
    submit(&db, 10..12).await;
    db.flush().await.unwrap();
    assert_eq!(versions(&sink), (0..12).collect::<Vec<_>>());
    assert_eq!(db.stats().balance.accepted, 2, "those of before are not written again");
    assert!(db.close(LONG).await.is_drained());
}

#[tokio::test]
async fn a_log_that_has_lost_its_end_goes_on_behind_the_position() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = batchsql_testserver::subscribe(subscriber);
    let (dir, sink) = (tempfile::tempdir().unwrap(), sink());
    let (folder, older) = (dir.path().join("intake"), dir.path().join("older"));
    make_unreachable(&sink);
    let db = start(&sink, exact(&folder)).await.unwrap();
    submit(&db, 0..3).await;
    copy(&folder, &older);
    sink.release(1);
    submit(&db, 3..8).await;
    db.flush().await.unwrap();
    db.close(LONG).await;
    let lost = "the log has lost its end";
    assert_eq!(lines.with(lost), Vec::<String>::new());

    std::fs::copy(folder.join("POSITIONS"), older.join("POSITIONS")).unwrap();
    let db = start(&sink, exact(&older)).await.unwrap();
    db.flush().await.unwrap();
    let said = lines.with(lost);
    assert!(said.len() == 1 && said[0].contains("ERROR") && said[0].contains("position=8 log_ended_at=3"), "{said:?}");
    assert_eq!(versions(&sink), (0..8).collect::<Vec<_>>());
    submit(&db, 20..22).await;
    db.flush().await.unwrap();
    assert_eq!(versions(&sink), (0..8).chain(20..22).collect::<Vec<_>>(), "new rows are not taken for written ones");
    db.close(LONG).await;
}

/// Rows of a backup have numbers of rows that were written. They are not taken for those, at no start.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_folder_that_went_on_stops() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), sink());
    let (folder, older) = (dir.path().join("intake"), dir.path().join("older"));
    go_on(&sink, &folder, &older, 0..3).await;
    for left in [3, 6, 9] {
        let db = start(&sink, exact(&older)).await.unwrap();
        submit(&db, 20..23).await;
        let reason = stopped(&db).await;
        assert!(reason.contains("backup of a log that went on"), "{reason}");
        assert_eq!(db.close(LONG).await.left_in_log, left);
    }
    assert_eq!(versions(&sink), (0..8).collect::<Vec<_>>());
}

/// As after a power loss on a disk that lies.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_has_lost_its_end_stops_if_its_numbers_were_used_again() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), sink());
    let (folder, lost) = (dir.path().join("intake"), dir.path().join("lost"));
    go_on(&sink, &folder, &lost, 0..3).await;
    std::fs::copy(folder.join("POSITIONS"), lost.join("POSITIONS")).unwrap();
    for left in [50, 100] {
        let db = start(&sink, exact(&lost)).await.unwrap();
        // More than the log has lost, before the partition is claimed.
        submit(&db, 20..70).await;
        let reason = stopped(&db).await;
        assert!(reason.contains("ended at 3 when it was opened") && reason.contains("back to 3"), "{reason}");
        assert_eq!(db.close(LONG).await.left_in_log, left);
    }
    assert_eq!(versions(&sink), (0..8).collect::<Vec<_>>());
    // As the reason advises.
    sink.set_position("plain", 0, Some(3));
    let db = start(&sink, exact(&lost)).await.unwrap();
    db.flush().await.unwrap();
    assert_eq!(versions(&sink), (0..8).chain(20..70).chain(20..70).collect::<Vec<_>>());
    assert!(db.close(LONG).await.is_drained());
}

/// There is no row yet that the position could be compared with.
#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_was_moved_ahead_before_the_claim_passes_no_row_over() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), sink());
    let db = start(&sink, exact(dir.path())).await.unwrap();
    submit(&db, 0..5).await;
    db.flush().await.unwrap();
    db.close(LONG).await;
    drop(db);
    sink.set_position("plain", 0, Some(6));
    for _ in 0..2 {
        let db = start(&sink, exact(dir.path())).await.unwrap();
        if db.recovered().rows == 0 {
            submit(&db, 5..6).await;
        }
        let reason = stopped(&db).await;
        assert!(reason.contains("changed from outside") && reason.contains("back to 5"), "{reason}");
        assert_eq!(db.close(LONG).await.left_in_log, 1);
    }
    sink.set_position("plain", 0, Some(5));
    let db = start(&sink, exact(dir.path())).await.unwrap();
    db.flush().await.unwrap();
    assert_eq!(versions(&sink), (0..6).collect::<Vec<_>>());
    assert!(db.close(LONG).await.is_drained());
}

/// The start that stores them cannot ask the database, and the next one finds them in the log.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_were_used_again_are_known_at_later_starts() {
    for had_rows in [true, false] {
        let (dir, sink) = (tempfile::tempdir().unwrap(), sink());
        let (folder, lost) = (dir.path().join("intake"), dir.path().join("lost"));
        let claim = go_on(&sink, &folder, &lost, if had_rows { 0..3 } else { 0..0 }).await;
        let position = sink.position("plain", 0).unwrap();
        for _ in 0..2 {
            let unreachable = self::sink();
            unreachable.script_claim([Step::Hang]);
            let db = start(&unreachable, exact(&lost)).await.unwrap();
            submit(&db, 20..70).await;
            db.close(std::time::Duration::ZERO).await;
        }
        // The last owner may be known: it was the process on the folder before it was put back.
        let known = format!("claims 0 {} {}\n", claim.owner.unwrap(), claim.key.table.escape_default());
        let mut claims = std::fs::OpenOptions::new().append(true).open(lost.join("POSITIONS")).unwrap();
        std::io::Write::write_all(&mut claims, known.as_bytes()).unwrap();
        let db = start(&sink, exact(&lost)).await.unwrap();
        let reason = stopped(&db).await;
        let ended_at = if had_rows { 3 } else { 0 };
        assert!(reason.contains(&format!("ended at {ended_at} when it was opened")), "{reason}");
        assert_eq!(db.close(LONG).await.left_in_log, 100);
        assert_eq!((sink.position("plain", 0), versions(&sink).last()), (Some(position), Some(&7)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_stops_the_partition() {
    for restored in [Some(4), None] {
        let (dir, sink) = (tempfile::tempdir().unwrap(), sink());
        let db = start(&sink, exact(dir.path())).await.unwrap();
        submit(&db, 0..10).await;
        db.flush().await.unwrap();
        db.close(LONG).await;
        drop(db);
        sink.set_position("plain", 0, restored);

        let db = start(&sink, exact(dir.path())).await.unwrap();
        submit(&db, 10..12).await;
        let reason = stopped(&db).await;
        assert!(reason.contains("restored") && reason.contains("accept_gaps"), "{reason}");
        assert_eq!(db.close(LONG).await.left_in_log, 2);
        drop(db);
        assert_eq!(versions(&sink).len(), 10);

        let db = start(&sink, exact(dir.path()).accept_gaps(true)).await.unwrap();
        db.flush().await.unwrap();
        assert_eq!(versions(&sink).len(), 12);
        assert_eq!(db.stats().missing, if restored.is_some() { 6 } else { 0 });
        assert!(db.close(LONG).await.is_drained());
    }
}

/// A person has changed it, which the guide forbids: rows that are not written are not passed over, at no start.
#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_was_moved_ahead_passes_no_row_over() {
    // Where it is moved to: beyond the next step, to its end, and into it.
    for (moved_to, rows, accepts) in [(9, 1, false), (9, 1, true), (6, 1, false), (7, 5, false), (7, 5, true)] {
        let (dir, sink) = (tempfile::tempdir().unwrap(), sink());
        let db = start(&sink, exact(dir.path())).await.unwrap();
        submit(&db, 0..5).await;
        db.flush().await.unwrap();
        sink.set_position("plain", 0, Some(moved_to));
        submit(&db, 5..5 + rows).await;
        let reason = stopped(&db).await;
        assert!(reason.contains("changed from outside") && reason.contains("set it back to 5"), "{reason}");
        submit(&db, 5 + rows..15).await;
        assert_eq!(db.close(LONG).await.left_in_log, 10);
        drop(db);
        for _ in 0..2 {
            let db = start(&sink, exact(dir.path())).await.unwrap();
            let reason = stopped(&db).await;
            assert!(reason.contains("moved only to 5") && reason.contains("set it back to 5"), "{reason}");
            assert!(reason.contains("with DurableOptions::accept_gaps"), "{reason}");
            assert_eq!(db.close(LONG).await.left_in_log, 10);
        }
        if !accepts {
            sink.set_position("plain", 0, Some(5));
        }
        let db = start(&sink, exact(dir.path()).accept_gaps(accepts)).await.unwrap();
        db.flush().await.unwrap();
        assert_eq!(
            versions(&sink),
            if accepts { (0..5).chain(moved_to..15).collect() } else { (0..15).collect::<Vec<_>>() }
        );
        assert_eq!(db.stats().missing, if accepts { moved_to as u64 - 5 } else { 0 });
        db.close(LONG).await;
        drop(db);
        let db = start(&sink, exact(dir.path())).await.unwrap();
        db.flush().await.unwrap();
        assert!(db.close(LONG).await.is_drained(), "it is accepted once");
    }
}

/// The backup has the owner of an earlier start, which the folder still knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_from_before_the_last_starts_stops_the_partition_as_restored() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), sink());
    let run = async |rows: std::ops::Range<i64>| {
        let db = start(&sink, exact(dir.path())).await.unwrap();
        submit(&db, rows).await;
        db.flush().await.unwrap();
        let stored = db.positions().await.unwrap().remove(0);
        db.close(LONG).await;
        stored
    };
    let backup = run(0..4).await;
    for start in 1..4 {
        run(4 * start..4 * start + 4).await;
    }
    let restore = async || {
        let owner = batchsql_core::Claim::of(backup.owner.clone().unwrap()).from(batchsql_core::ClaimFrom::Anyone);
        let db = BatchSql::builder(sink.clone()).start().unwrap();
        db.claim(&backup.key, &owner).await.unwrap().position().unwrap();
        sink.set_position("plain", 0, Some(backup.position.sequence));
    };
    restore().await;
    let db = start(&sink, exact(dir.path())).await.unwrap();
    submit(&db, 16..18).await;
    let reason = stopped(&db).await;
    assert!(reason.contains("restored") && reason.contains("accept_gaps"), "{reason}");
    db.close(LONG).await;
    drop(db);

    let db = start(&sink, exact(dir.path()).accept_gaps(true)).await.unwrap();
    db.flush().await.unwrap();
    assert_eq!((versions(&sink).len(), db.stats().missing), (18, 12));
    // While it runs: the next start knows the owner again.
    restore().await;
    submit(&db, 18..19).await;
    let reason = stopped(&db).await;
    assert!(reason.contains("another process") && reason.contains("start the program again"), "{reason}");
    db.close(LONG).await;
    drop(db);
    let db = start(&sink, exact(dir.path())).await.unwrap();
    let reason = stopped(&db).await;
    assert!(reason.contains("restored") && reason.contains("accept_gaps"), "{reason}");
    db.close(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_rows_go_to_the_dead_letters_before_the_position_passes_them() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), sink());
    let is_bad = |version: i64| version % 10 == 3 || version == 29;
    sink.poison(move |row| matches!(row.get("version"), Some(ValueRef::I64(version)) if is_bad(version)));
    make_unreachable(&sink);
    let db = start(&sink, exact(dir.path())).await.unwrap();
    submit(&db, 0..30).await;
    sink.release(1);
    db.flush().await.unwrap();
    assert_eq!(versions(&sink), (0..30).filter(|version| !is_bad(*version)).collect::<Vec<_>>());
    assert_eq!(letters(dir.path()), [(1, 3), (1, 13), (1, 23), (1, 29)]);
    assert_eq!(sink.position("plain", 0), Some(30), "the last row is bad, and is passed too");
    let stats = db.stats();
    assert_eq!((stats.balance.accepted, stats.balance.rejected(), stats.dead_letters), (30, 4, 4));
    assert!(db.close(LONG).await.is_drained());
}

/// A table that refuses every row is no reason to reject them, whatever code its refusals have.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_table_keeps_its_rows() {
    for class in [ErrorClass::Schema, ErrorClass::Permission, ErrorClass::Internal, ErrorClass::Row] {
        let (dir, sink) = (tempfile::tempdir().unwrap(), sink());
        sink.poison_as(class, |_| true);
        let isolation = Isolation::Bisect { max_statements: 8, beyond: BeyondBudget::Park };
        let builder = BatchSql::builder(sink.clone()).config(config().isolation(isolation));
        make_unreachable(&sink);
        let db = builder.durable(exact(dir.path())).start().await.unwrap();
        submit(&db, 0..20).await;
        sink.release(1);
        let reason = waiting(&db).await;
        assert!(reason.contains("its table cannot be written"), "{class}: {reason}");
        assert_eq!((versions(&sink).len(), letters(dir.path()).len()), (0, 0), "{class}");
        sink.poison(|_| false);
        until("its rows are written", || versions(&sink).len() == 20).await;
        until("it goes on", || db.health().waiting.is_empty()).await;
        assert!(db.close(LONG).await.is_drained());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_row_with_the_code_of_a_broken_table_is_rejected() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), sink());
    sink.poison_as(ErrorClass::Schema, |row| row.get("version") == Some(ValueRef::I64(0)));
    make_unreachable(&sink);
    let db = start(&sink, exact(dir.path())).await.unwrap();
    submit(&db, 0..10).await;
    sink.release(1);
    db.flush().await.unwrap();
    assert_eq!((versions(&sink), letters(dir.path())), ((1..10).collect(), vec![(1, 0)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_on_copies_of_a_log_do_not_both_write() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), sink());
    let (folder, other) = (dir.path().join("intake"), dir.path().join("other"));
    let first = start(&sink, exact(&folder)).await.unwrap();
    submit(&first, 0..5).await;
    first.flush().await.unwrap();
    copy(&folder, &other);
    let second = start(&sink, exact(&other)).await.unwrap();
    submit(&second, 5..7).await;
    second.flush().await.unwrap();
    submit(&first, 100..102).await;
    let reason = stopped(&first).await;
    assert!(reason.contains("another process has claimed it"), "{reason}");
    assert_eq!(versions(&sink), (0..7).collect::<Vec<_>>());
    assert_eq!(first.close(LONG).await.left_in_log, 2, "its rows are in its log");
    drop(first);
    // A start does not take it away from the other one.
    let first = start(&sink, exact(&folder)).await.unwrap();
    stopped(&first).await;
    assert_eq!(first.close(LONG).await.left_in_log, 2);
    submit(&second, 7..9).await;
    second.flush().await.unwrap();
    assert_eq!(versions(&sink), (0..9).collect::<Vec<_>>());
}

/// A gap behind rows that were written is still shown after they were.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_behind_written_rows_is_not_forgotten() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), sink());
    let db = start(&sink, exact(dir.path())).await.unwrap();
    submit(&db, 0..3).await;
    db.flush().await.unwrap();
    db.close(LONG).await;
    drop(db);
    make_unreachable(&sink);
    let config = config_with(1 << 20);
    let db = BatchSql::builder(sink.clone()).config(config).durable(exact(dir.path())).start().await.unwrap();
    let schema =
        batchsql_core::Schema::builder("texts").column("text", batchsql_core::ColumnType::Text).build().unwrap();
    let text = |len: usize| schema.row().set("text", "x".repeat(len)).unwrap().finish().unwrap();
    for len in [1, 2, 100_000, 3] {
        db.submit(&text(len)).await.unwrap();
    }
    db.close(std::time::Duration::ZERO).await;
    drop(db);
    sink.release(2);
    // The limit is lower now, so one of the rows cannot be written.
    let config = config_with(50_000);
    let db = BatchSql::builder(sink.clone()).config(config).durable(exact(dir.path())).start().await.unwrap();
    let reason = stopped(&db).await;
    assert!(reason.contains("row 3 of the log cannot be written"), "{reason}");
    until("the rows before it are written", || sink.tables().rows("texts").len() == 2).await;
    assert!(db.flush().await.is_err() && !db.health().stopped.is_empty());
    assert_eq!(db.close(LONG).await.left_in_log, 2);
}

fn config_with(buffer_bytes: usize) -> PipelineConfig {
    config().buffer_bytes(buffer_bytes).flush_bytes(buffer_bytes)
}

/// A row that is refused with the code of a broken table is compared with rows of another shape.
#[tokio::test(flavor = "multi_thread")]
async fn one_bad_row_between_rows_of_other_schemas_is_rejected() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), sink());
    sink.poison_as(ErrorClass::Schema, |row| row.get("version") == Some(ValueRef::I64(5)));
    make_unreachable(&sink);
    let db = start(&sink, exact(dir.path())).await.unwrap();
    let (one, other) = (keyed(), table("keyed", Conflict::replace(["id"])));
    for version in [4, 5, 6] {
        db.submit(&row(if version == 5 { &other } else { &one }, version, version)).await.unwrap();
    }
    sink.release(1);
    db.flush().await.unwrap();
    assert_eq!(in_table(&sink, "keyed"), [(4, 4), (6, 6)]);
    assert_eq!(db.stats().dead_letters, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_from_before_exactly_once_was_chosen_are_written_from_where_they_are() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), sink());
    let db = start(&sink, options(dir.path()).partitions(1)).await.unwrap();
    submit(&db, 0..10).await;
    db.flush().await.unwrap();
    db.close(LONG).await;
    drop(db);
    let db = start(&sink, exact(dir.path())).await.unwrap();
    submit(&db, 10..12).await;
    db.flush().await.unwrap();
    assert_eq!((versions(&sink), sink.position("plain", 0)), ((0..12).collect(), Some(12)));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_several_schemas_keep_their_order() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), sink());
    make_unreachable(&sink);
    let db = start(&sink, exact(dir.path())).await.unwrap();
    let (one, other) = (keyed(), table("keyed", Conflict::replace(["id"])));
    for version in 0..10 {
        db.submit(&row(if version % 3 == 0 { &other } else { &one }, version % 2, version)).await.unwrap();
    }
    sink.release(1);
    db.flush().await.unwrap();
    assert_eq!(in_table(&sink, "keyed"), [(0, 8), (1, 9)]);
    let written: Vec<i64> = applied(&sink).into_iter().map(|(_, version)| version).collect();
    assert!(written.is_sorted(), "{written:?}");
    let balance = db.stats().balance;
    assert_eq!(balance.written() + balance.superseded(), 10);
}

#[tokio::test]
async fn what_cannot_be_exactly_once_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |result: Result<DurableBatchSql, DurableStartError>| result.unwrap_err().to_string();
    let without = refused(start(&ScriptedSink::new(), exact(dir.path())).await);
    assert!(without.contains("scripted keeps no positions"), "{without}");
    let atomic = BatchSql::builder(sink()).config(PipelineConfig::default().isolation(Isolation::AtomicBatch));
    let atomic = refused(atomic.durable(exact(dir.path())).start().await);
    assert!(atomic.contains("Isolation::Bisect"), "{atomic}");
    for source in [String::new(), "x".repeat(101), "a\0b".to_owned(), "a ".to_owned()] {
        let named = refused(start(&sink(), options(dir.path()).exactly_once(source)).await);
        assert!(named.contains("1 to 100 characters"), "{named}");
    }
    let unsynced = exact(dir.path()).sync_policy(batchsql_durable::SyncPolicy::Os);
    let unsynced = refused(start(&sink(), unsynced).await);
    assert!(unsynced.contains("SyncPolicy::Always"), "{unsynced}");
}

/// Rows that were written without a position would be written again.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_keeps_its_guarantee() {
    let (dir, sink) = (tempfile::tempdir().unwrap(), sink());
    make_unreachable(&sink);
    let db = start(&sink, options(dir.path()).partitions(1)).await.unwrap();
    submit(&db, 0..2).await;
    db.close(std::time::Duration::ZERO).await;
    drop(db);
    let text = |result: Result<DurableBatchSql, DurableStartError>| result.unwrap_err().to_string();
    let early = text(start(&sink, exact(dir.path())).await);
    assert!(early.contains("start without it until flush() returns"), "{early}");
    sink.release(1);
    let db = start(&sink, options(dir.path()).partitions(1)).await.unwrap();
    db.flush().await.unwrap();
    db.close(LONG).await;
    drop(db);
    let db = start(&sink, exact(dir.path())).await.unwrap();
    db.close(LONG).await;
    drop(db);
    let back = text(start(&sink, options(dir.path()).partitions(1)).await);
    assert!(back.contains("keep DurableOptions::exactly_once"), "{back}");
    let other = text(start(&sink, options(dir.path()).partitions(1).exactly_once("other")).await);
    assert!(other.contains("keep it in place of"), "{other}");
}
