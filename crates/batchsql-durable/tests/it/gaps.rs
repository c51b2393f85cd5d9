//! What stops a partition: missing rows, rules that the program no longer has, bytes that make no sense. Nothing is lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use batchsql_core::{BatchSql, ColumnType, Conflict, ErrorClass, Ordering, Schema};
use batchsql_durable::{DurableExt, DurableOptions, LogErrorKind};
use batchsql_log::{Block, Log};
use batchsql_testkit::{ScriptedSink, Step};

use crate::support::{LONG, config, in_table, keyed, options, plain, row, start, table, until};

/// A sink that writes nothing.
fn unreachable() -> ScriptedSink {
    let sink = ScriptedSink::new();
    sink.script_acquire(std::iter::repeat_n(Step::Fail(ErrorClass::Transient), 10_000));
    sink
}

/// Leaves rows in the log.
async fn leave(options: DurableOptions, schema: &Schema, versions: std::ops::Range<i64>) {
    let db = start(&unreachable(), options).await.unwrap();
    for version in versions {
        db.submit(&row(schema, 1, version)).await.unwrap();
    }
    db.close(Duration::ZERO).await;
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder.join("log")).unwrap().map(|file| file.unwrap().path());
    let mut segments: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|ext| ext == "seg")).collect();
    segments.sort();
    segments
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_rows_stop_their_partition_until_a_person_accepts() {
    let dir = tempfile::tempdir().unwrap();
    const MARK: i64 = 0x1122_3344_5566_7788;
    leave(options(dir.path()), &keyed(), 0..5).await;
    leave(options(dir.path()), &keyed(), MARK..MARK + 1).await;
    leave(options(dir.path()), &keyed(), MARK + 1..MARK + 4).await;
    let mark = MARK.to_le_bytes();
    let mut damaged = 0;
    for path in segments(dir.path()) {
        let mut bytes = fs::read(&path).unwrap();
        if let Some(place) = bytes.windows(8).position(|window| window == mark) {
            bytes[place] ^= 1;
            fs::write(&path, bytes).unwrap();
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1);

    let sink = ScriptedSink::new();
    let db = start(&sink, options(dir.path())).await.unwrap();
    db.submit(&row(&plain(), 1, 1)).await.unwrap();
    let error = db.flush().await.unwrap_err();
    assert_eq!(error.stopped_partitions(), db.health().stopped);
    let stopped = &error.stopped_partitions()[0];
    assert!(stopped.table == "\"keyed\"" && stopped.reason.contains("accept_gaps"), "{stopped}");
    until("the rows before the gap and of other partitions are written", || {
        (in_table(&sink, "keyed"), in_table(&sink, "plain")) == (vec![(1, 4)], vec![(1, 1)])
    })
    .await;
    until("they are settled", || db.stats().log.unsettled_rows == 4).await;
    assert!(!db.health().is_ready());
    let report = db.close(LONG).await;
    assert_eq!(report.left_in_log, 4, "the missing row, and those behind it");
    drop(db);

    let sink = ScriptedSink::new();
    let db = start(&sink, options(dir.path()).accept_gaps(true)).await.unwrap();
    db.flush().await.unwrap();
    assert_eq!((in_table(&sink, "keyed"), db.stats().missing), (vec![(1, MARK + 3)], 1));
    assert!(db.health().stopped.is_empty() && db.close(LONG).await.is_drained());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_with_sql_text_waits_until_the_program_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let rule = || Conflict::update(["id"]).on_partial_index("version > 0");
    leave(options(dir.path()), &table("t", rule()), 0..3).await;
    let sink = ScriptedSink::new();
    let db = start(&sink, options(dir.path())).await.unwrap();
    until("its partition has stopped", || !db.health().stopped.is_empty()).await;
    assert!(db.health().stopped[0].reason.contains("DurableOptions::schema"), "{:?}", db.health().stopped);
    assert_eq!(db.stats().log.unsettled_rows, 3);
    // A submitted row brings the schema.
    db.submit(&row(&table("t", rule()), 1, 9)).await.unwrap();
    db.flush().await.unwrap();
    assert_eq!(in_table(&sink, "t"), [(1, 9)]);
    assert_eq!(db.stats().balance.accepted, 4);
    assert!(db.health().stopped.is_empty() && db.close(LONG).await.is_drained());
    drop(db);

    leave(options(dir.path()), &table("t", rule()), 10..13).await;
    let sink = ScriptedSink::new();
    let db = start(&sink, options(dir.path()).schema(&table("t", rule()))).await.unwrap();
    db.flush().await.unwrap();
    assert_eq!(in_table(&sink, "t"), [(1, 12)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_schema_replaces_the_rule_of_waiting_rows() {
    let dir = tempfile::tempdir().unwrap();
    leave(options(dir.path()), &table("t", Conflict::update(["id"])), 0..3).await;
    let wider = Schema::builder("t")
        .nullable("more", ColumnType::Text)
        .column("version", ColumnType::I64)
        .column("id", ColumnType::I64)
        .on_conflict(Conflict::ignore(["id"]))
        .build()
        .unwrap();
    let sink = ScriptedSink::new();
    let db = start(&sink, options(dir.path()).schema(&wider)).await.unwrap();
    db.flush().await.unwrap();
    assert_eq!(in_table(&sink, "t"), [(1, 0)], "the first row stays");
    db.close(LONG).await;
    drop(db);

    leave(options(dir.path()), &table("t", Conflict::update(["id"])), 0..3).await;
    // Another type, and a column less.
    let other = Schema::builder("t").column("id", ColumnType::Text).on_conflict(Conflict::ignore(["id"]));
    let less = (other.clone(), "has no column \"version\", which stored rows have; add it there (nullable");
    for (other, reason) in [(other.column("version", ColumnType::I64), "do not fit"), less] {
        let sink = ScriptedSink::new();
        let db = start(&sink, options(dir.path()).schema(&other.build().unwrap())).await.unwrap();
        until("its partition has stopped", || !db.health().stopped.is_empty()).await;
        assert!(db.health().stopped[0].reason.contains(reason), "{:?}", db.health().stopped);
        assert_eq!(db.close(LONG).await.left_in_log, 3);
    }
}

/// Blocks that this crate did not write, or that a newer version did.
#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_cannot_be_read_stop_their_partition() {
    let dir = tempfile::tempdir().unwrap();
    leave(options(dir.path()), &keyed(), 0..1).await;
    let log = batchsql_log::Options::new(dir.path().join("log")).min_free_bytes(0);
    let (log, recovery) = Log::open(log).unwrap();
    let state = &recovery.partitions[0];
    let mut reader = log.reader(state.table, state.partition, batchsql_log::From::Unsettled).unwrap();
    let batchsql_log::Next::Block(stored) = reader.next().unwrap() else { panic!("there is a block") };
    let partition = (state.partition + 1) % 8;
    let block = Block { table: state.table, partition, schema: stored.schema, count: 1, bytes: vec![200] };
    log.append(block).unwrap().wait().unwrap();
    log.close().wait().unwrap();
    drop(log);
    let sink = ScriptedSink::new();
    let db = start(&sink, options(dir.path())).await.unwrap();
    until("its partition has stopped", || !db.health().stopped.is_empty()).await;
    assert!(db.health().stopped[0].reason.contains("newer version (200)"), "{:?}", db.health().stopped);
    until("the other partition goes on", || sink.applied().len() == 1).await;
    assert_eq!(db.close(LONG).await.left_in_log, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    leave(options(dir.path()), &keyed(), 0..1).await;
    let kind = async |options: DurableOptions| {
        let error = start(&ScriptedSink::new(), options).await.unwrap_err();
        error.log_error().unwrap_or_else(|| panic!("{error}")).kind()
    };
    assert_eq!(kind(options(dir.path()).partitions(3)).await, LogErrorKind::Partitions);
    let identity = dir.path().join("log").join("IDENTITY");
    let text = fs::read_to_string(&identity).unwrap();
    fs::write(&identity, text.replace("batchsql-log 2", "something 1")).unwrap();
    assert_eq!(kind(options(dir.path())).await, LogErrorKind::Foreign);
    fs::write(&identity, text).unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = start(&ScriptedSink::new(), options(&file.join("folder"))).await.unwrap_err();
    assert!(error.to_string().contains("cannot create the folder"), "{error}");
    let db = start(&ScriptedSink::new(), options(dir.path())).await.unwrap();
    db.flush().await.unwrap();
    assert_eq!(db.recovered().rows, 1);
}

/// Rows of one key are in another partition with another ordering, and would be written side by side.
#[tokio::test(flavor = "multi_thread")]
async fn the_ordering_changes_only_when_no_row_waits() {
    let dir = tempfile::tempdir().unwrap();
    let ordered = |ordering| {
        let config = config().ordering(ordering);
        BatchSql::builder(ScriptedSink::new()).config(config).durable(options(dir.path())).start()
    };
    leave(options(dir.path()), &keyed(), 0..3).await;
    let error = ordered(Ordering::PerTable).await.unwrap_err();
    assert!(error.to_string().contains("start with the ordering of before until flush() returns"), "{error}");
    let db = ordered(Ordering::PerKey).await.unwrap();
    assert_eq!(db.recovered().rows, 3);
    db.flush().await.unwrap();
    db.close(LONG).await;
    ordered(Ordering::PerTable).await.unwrap().close(LONG).await;
    ordered(Ordering::PerKey).await.unwrap();
}

/// A kill cannot be told from a cut, but a clean close says what there was.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_cut_off_after_a_close_are_missing() {
    let dir = tempfile::tempdir().unwrap();
    let unreachable = ScriptedSink::new();
    unreachable.script_acquire(std::iter::repeat_n(Step::Fail(ErrorClass::Transient), 10_000));
    let db = start(&unreachable, options(dir.path()).partitions(1)).await.unwrap();
    for version in 0..20 {
        db.submit(&row(&plain(), 1, version)).await.unwrap();
    }
    db.close(Duration::ZERO).await;
    drop(db);
    let segments = || std::fs::read_dir(dir.path().join("log")).unwrap().map(|file| file.unwrap().path());
    let newest = segments().filter(|path| path.extension().is_some_and(|kind| kind == "seg")).max().unwrap();
    std::fs::write(&newest, b"").unwrap();
    let sink = ScriptedSink::new();
    let db = start(&sink, options(dir.path()).partitions(1)).await.unwrap();
    let recovered = db.recovered();
    assert_eq!((recovered.missing, recovered.damaged_parts), (20, 1), "{recovered:?}");
    until("the partition stops", || !db.health().stopped.is_empty()).await;
    assert!(db.health().stopped[0].reason.contains("20 rows are missing in the log"), "{:?}", db.health().stopped);
    db.close(Duration::ZERO).await;
}
