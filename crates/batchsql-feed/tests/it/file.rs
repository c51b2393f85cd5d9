//! A file of lines: what is written, what is bad, and what a restart, an appended, a replaced and a truncated file do.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use batchsql_core::{
    BatchSql, ColumnType, Conflict, DynRow, ErrorClass, Expr, FeedGauges, FeedProgress, MetricsReporter, PartitionKey,
    PipelineConfig, Removed, Schema, StopReason, ValueRef,
};
use batchsql_feed::file::{FileError, FileFeed, FileOptions, TakeOver, WhenReplaced};
use batchsql_testkit::{ScriptedSink, Step};

const LONG: Duration = Duration::from_secs(60);

/// A file, and a database without end.
struct Made {
    folder: tempfile::TempDir,
    sink: ScriptedSink,
}

fn schema() -> Schema {
    Schema::builder("t").column("id", ColumnType::I64).build().unwrap()
}

fn id(row: &DynRow) -> i64 {
    match row.get("id") {
        Some(ValueRef::I64(id)) => id,
        other => panic!("{other:?}"),
    }
}

fn lines(ids: impl IntoIterator<Item = i64>) -> String {
    ids.into_iter().map(|id| format!("{{\"id\":{id}}}\n")).collect()
}

impl Made {
    fn new(text: &str) -> Self {
        let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
        sink.keep_positions();
        let made = Self { folder, sink };
        fs::write(made.path(), text).unwrap();
        made
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("rows.ndjson")
    }

    fn beside(&self, ending: &str) -> String {
        let name = format!("rows.ndjson{ending}");
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    fn append(&self, text: &str) {
        OpenOptions::new().append(true).open(self.path()).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn options(&self) -> FileOptions {
        FileOptions::new(self.path(), &schema()).look_every(Duration::from_millis(2))
    }

    fn exactly(&self) -> FileOptions {
        self.options().exactly_once("file")
    }

    async fn start(&self, options: FileOptions) -> Result<FileFeed, FileError> {
        let config = PipelineConfig::default().flush_interval(Duration::from_millis(1));
        FileFeed::start(BatchSql::builder(self.sink.clone()).config(config), options).await
    }

    /// Writes what is in the file, and closes the feed.
    async fn drain(&self, options: FileOptions) -> u64 {
        let feed = self.start(options).await.unwrap();
        let line = tokio::time::timeout(LONG, feed.flush()).await.expect("all lines end").unwrap();
        let report = feed.close(LONG).await;
        assert_eq!((report.lines, report.mark_error), (line, None));
        line
    }

    fn written(&self) -> Vec<i64> {
        self.sink.applied().iter().map(id).collect()
    }
}

/// At least once, and exactly once.
fn both(made: &Made) -> [FileOptions; 2] {
    [made.options(), made.exactly()]
}

#[tokio::test]
async fn lines_are_written_in_their_order_and_a_later_start_goes_on() {
    for guarantee in 0..2 {
        let made = Made::new(&lines(0..2_500));
        let options = || both(&made)[guarantee].clone();
        assert_eq!(made.drain(options()).await, 2_500);
        assert_eq!(made.drain(options()).await, 2_500, "nothing is new");
        made.append(&lines(2_500..2_600));
        assert_eq!(made.drain(options()).await, 2_600);
        assert_eq!(made.written(), (0..2_600).collect::<Vec<_>>(), "guarantee {guarantee}");
    }
}

#[tokio::test]
async fn a_last_line_waits_until_it_has_an_end() {
    for guarantee in 0..2 {
        let made = Made::new("{\"id\":1}\n{\"id\"");
        let feed = made.start(both(&made)[guarantee].clone()).await.unwrap();
        assert_eq!(feed.flush().await.unwrap(), 1);
        made.append(":2}");
        assert_eq!(feed.flush().await.unwrap(), 1);
        made.append("\n");
        assert_eq!(feed.flush().await.unwrap(), 2);
        made.append(&lines([3]));
        assert_eq!(feed.flush().await.unwrap(), 3);
        feed.close(LONG).await;
        assert_eq!(made.written(), [1, 2, 3]);
    }
}

#[tokio::test]
async fn a_file_that_comes_later_is_waited_for() {
    let made = Made::new("");
    fs::remove_file(made.path()).unwrap();
    let starting = made.start(made.exactly());
    tokio::pin!(starting);
    let soon = tokio::time::timeout(Duration::from_millis(20), &mut starting).await;
    assert!(soon.is_err(), "there is no file");
    fs::write(made.path(), "{\"id\":").unwrap();
    let soon = tokio::time::timeout(Duration::from_millis(20), &mut starting).await;
    assert!(soon.is_err(), "its first line has no end");
    made.append("7}\n");
    let feed = starting.await.unwrap();
    assert_eq!(feed.flush().await.unwrap(), 1);
    feed.close(LONG).await;
    assert_eq!(made.written(), [7]);
}

#[tokio::test]
async fn lines_that_are_no_rows_are_kept_with_the_reason() {
    for guarantee in 0..2 {
        let long = format!("{{\"id\":{}}}\n", "1".repeat(200));
        let text = format!("{}{{\"id\":\"x\"}}\n\n[]\n{long}{}", lines([1]), lines([2]));
        let made = Made::new(&text);
        let options = both(&made)[guarantee].clone().max_line_bytes(100);
        let feed = made.start(options).await.unwrap();
        assert_eq!((feed.flush().await.unwrap(), feed.bad_lines()), (6, 3));
        feed.close(LONG).await;
        assert_eq!(made.written(), [1, 2]);
        let bad = made.beside(".bad-lines.ndjson");
        let bad: Vec<serde_json::Value> = bad.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let found: Vec<_> = bad.iter().map(|bad| (bad["line"].as_u64().unwrap(), bad["text"].as_str())).collect();
        assert_eq!(found, [(2, Some("{\"id\":\"x\"}")), (4, Some("[]")), (5, None)]);
        assert!(bad[0]["reason"].as_str().unwrap().contains("column \"id\""), "{bad:?}");
        assert_eq!(bad[2]["reason"], "the line is too long");
    }
}

/// The name of what it was written from, so that a second line for the row is recognized.
#[tokio::test]
async fn rows_that_are_refused_are_in_the_dead_letters() {
    for guarantee in 0..2 {
        let made = Made::new(&lines(0..6));
        made.sink.poison(|row| id(row) == 3);
        assert_eq!(made.drain(both(&made)[guarantee].clone()).await, 6);
        assert_eq!(made.written(), [0, 1, 2, 4, 5]);
        let letters = made.beside(".dead-letters.ndjson");
        assert_eq!(letters.lines().count(), 1);
        assert!(letters.contains(":\\\"t\\\":0:4\""), "{letters}");
    }
}

#[tokio::test]
async fn a_file_that_was_replaced_or_truncated_is_found() {
    let other_second = "{\"id\":1}\n{\"id\":9}\n{\"id\":3}\n";
    for (text, why) in [
        (&*lines([8, 9]), "first line is another one"),
        (&*lines([1]), "it is shorter"),
        ("", "no complete line"),
        (other_second, "are other ones"),
    ] {
        for guarantee in 0..2 {
            let made = Made::new(&lines([1, 2]));
            let options = || both(&made)[guarantee].clone();
            made.drain(options()).await;
            fs::write(made.path(), text).unwrap();
            let error = made.start(options()).await.unwrap_err();
            assert!(error.is_replaced() && error.to_string().contains(why), "{error}");
            if text.is_empty() {
                continue;
            }
            // All lines of the new one are written, although the database has a position of a file with this first line.
            let new: Vec<i64> = text.lines().map(|line| line[6..line.len() - 1].parse().unwrap()).collect();
            assert_eq!(made.drain(options().when_replaced(WhenReplaced::BeginAnew)).await, new.len() as u64);
            assert_eq!(made.drain(options()).await, new.len() as u64);
            assert_eq!(made.written(), [vec![1, 2], new].concat(), "{why}, guarantee {guarantee}");
        }
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_while_it_is_read_stops_after_its_last_line() {
    for guarantee in 0..2 {
        for is_moved in [true, false] {
            let made = Made::new(&lines(0..10));
            let feed = made.start(both(&made)[guarantee].clone()).await.unwrap();
            feed.flush().await.unwrap();
            if is_moved {
                made.append(&lines([10]));
                fs::rename(made.path(), made.folder.path().join("old")).unwrap();
                fs::write(made.path(), lines(20..31)).unwrap();
            } else {
                fs::write(made.path(), lines([20])).unwrap();
            }
            let stopped = loop {
                if let Some(stopped) = feed.stopped() {
                    break stopped;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            };
            assert!(stopped.reason.contains("was replaced or truncated"), "{stopped}");
            assert!(feed.flush().await.unwrap_err().is_stopped());
            let report = feed.close(LONG).await;
            let old = 10 + i64::from(is_moved);
            assert_eq!((report.lines, made.written()), (old as u64, (0..old).collect()));
            let new = both(&made)[guarantee].clone().when_replaced(WhenReplaced::BeginAnew);
            made.drain(new).await;
            let all = (0..old).chain(if is_moved { 20..31 } else { 20..21 });
            assert_eq!(made.written(), all.collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn one_process_at_a_time_feeds_a_file() {
    let made = Made::new(&lines([1]));
    let feed = made.start(made.options()).await.unwrap();
    assert!(made.start(made.exactly()).await.unwrap_err().is_locked());
    feed.close(LONG).await;
    made.drain(made.exactly()).await;
}

/// The file is written anew, longer than before, between two looks at it: no part of it is taken for new lines of the old one.
#[tokio::test]
async fn a_file_that_is_written_anew_between_two_looks_is_found() {
    for guarantee in 0..2 {
        let made = Made::new(&lines(0..10));
        let options = || both(&made)[guarantee].clone().look_every(Duration::from_millis(200));
        let feed = made.start(options()).await.unwrap();
        feed.flush().await.unwrap();
        // As a whole: what is read has the new length at once.
        let mut open = OpenOptions::new().write(true).open(made.path()).unwrap();
        open.write_all(lines(50..70).as_bytes()).unwrap();
        let error = feed.flush().await.unwrap_err();
        assert!(error.is_stopped() && error.to_string().contains("was replaced or truncated"), "{error}");
        feed.close(LONG).await;
        assert!(made.start(options()).await.unwrap_err().is_replaced());
        made.drain(options().when_replaced(WhenReplaced::BeginAnew)).await;
        assert_eq!(made.written(), (0..10).chain(50..70).collect::<Vec<_>>());
    }
}

/// A shorter file has its name before the feed has looked again.
#[tokio::test]
async fn a_flush_does_not_take_another_file_for_one_that_is_written() {
    for guarantee in 0..2 {
        let made = Made::new(&lines(0..10));
        let feed = made.start(both(&made)[guarantee].clone().look_every(Duration::from_millis(200))).await.unwrap();
        feed.flush().await.unwrap();
        fs::rename(made.path(), made.folder.path().join("old")).unwrap();
        fs::write(made.path(), lines([20])).unwrap();
        let error = tokio::time::timeout(LONG, feed.flush()).await.expect("it ends").unwrap_err();
        assert!(error.is_stopped(), "{error}");
        feed.close(LONG).await;
    }
}

/// A file is written anew while it is read up to its middle, the database is away and the window is full.
#[tokio::test]
async fn a_file_that_is_written_anew_while_its_lines_wait_is_found() {
    for guarantee in 0..2 {
        let made = Made::new(&lines(1_000..4_000));
        made.sink.break_table("t", ErrorClass::Transient);
        let options = || both(&made)[guarantee].clone().window_bytes(1);
        let feed = made.start(options()).await.unwrap();
        // One read is 1,000 lines at most.
        until("some lines are read", || made.sink.prepares() + made.sink.writes() > 0).await;
        let mut open = OpenOptions::new().write(true).open(made.path()).unwrap();
        open.write_all(lines(5_000..9_000).as_bytes()).unwrap();
        made.sink.mend_table("t");
        until("it has stopped", || feed.stopped().is_some()).await;
        let stopped = feed.stopped().unwrap();
        assert!(stopped.reason.contains("was replaced or truncated"), "{stopped}");
        feed.close(LONG).await;
        let mut written = made.written();
        // At least once, batches of rows without a key have no order.
        written.sort_unstable();
        assert_eq!(written, (1_000..2_000).collect::<Vec<_>>(), "guarantee {guarantee}");
        assert!(made.start(options()).await.unwrap_err().is_replaced());
    }
}

/// The same between the start and the claim, which waits for the database.
#[tokio::test]
async fn a_file_that_is_written_anew_before_the_claim_is_found() {
    let made = Made::new(&lines(0..10));
    made.drain(made.exactly()).await;
    made.sink.script_claim([Step::Hang]);
    let feed = made.start(made.exactly()).await.unwrap();
    let mut open = OpenOptions::new().write(true).open(made.path()).unwrap();
    open.write_all(lines(50..70).as_bytes()).unwrap();
    made.sink.release(1);
    until("it has stopped", || feed.stopped().is_some()).await;
    let stopped = feed.stopped().unwrap();
    assert!(stopped.reason.contains("or other ones"), "{stopped}");
    feed.close(LONG).await;
    assert_eq!(made.written(), (0..10).collect::<Vec<_>>());
}

/// What was written at least once is not written again when it is to be exactly once from now on.
#[tokio::test]
async fn a_file_that_was_written_at_least_once_goes_on_exactly_once() {
    let made = Made::new(&lines(0..5));
    made.drain(made.options()).await;
    made.append(&lines(5..7));
    assert_eq!(made.drain(made.exactly()).await, 7);
    assert_eq!(made.written(), (0..7).collect::<Vec<_>>());
    assert_eq!(made.sink.position("t", 0), Some(7));
}

/// The position in the database does not know of the lines that were written without it.
#[tokio::test]
async fn a_file_that_was_written_at_least_once_in_between_goes_on_exactly_once() {
    let made = Made::new(&lines(0..5));
    made.drain(made.exactly()).await;
    for end in [7, 9] {
        made.append(&lines(end - 2..end));
        made.drain(made.options()).await;
    }
    // Without new lines, and again after the position has passed the old ones.
    assert_eq!(made.drain(made.exactly()).await, 9);
    assert_eq!(made.sink.position("t", 0), Some(9));
    made.append(&lines(9..10));
    assert_eq!(made.drain(made.exactly()).await, 10);
    assert_eq!(made.written(), (0..10).collect::<Vec<_>>());
    // Now it is a database from a backup as any other.
    made.sink.set_position("t", 0, Some(8));
    assert_eq!(made.drain(made.exactly()).await, 10);
    assert_eq!(made.written(), (0..10).chain(8..10).collect::<Vec<_>>());
}

/// The process ends before the position has passed them: the next one knows of them too.
#[tokio::test]
async fn lines_without_a_position_are_known_until_the_position_has_passed_them() {
    let made = Made::new(&lines(0..5));
    made.drain(made.exactly()).await;
    made.append(&lines(5..7));
    made.drain(made.options()).await;
    made.append(&lines(7..9));
    made.sink.break_table("t", ErrorClass::Transient);
    made.sink.script_claim([Step::Apply, Step::Fail(ErrorClass::Transient)]);
    let feed = made.start(made.exactly()).await.unwrap();
    until("it is claimed", || feed.lines() >= 5).await;
    feed.close(Duration::ZERO).await;
    made.sink.mend_table("t");
    assert_eq!(made.drain(made.exactly()).await, 9);
    assert_eq!(made.written(), (0..9).collect::<Vec<_>>());
}

/// It is not known which of the lines without a position the backup has.
#[tokio::test]
async fn a_database_from_before_lines_without_a_position_stops_the_feed() {
    let made = Made::new(&lines(0..5));
    made.drain(made.exactly()).await;
    made.append(&lines(5..7));
    made.drain(made.options()).await;
    made.sink.set_position("t", 0, Some(4));
    for _ in 0..2 {
        let feed = made.start(made.exactly()).await.unwrap();
        let error = feed.flush().await.unwrap_err();
        assert!(error.is_stopped() && error.to_string().contains("restored from a backup"), "{error}");
        feed.close(LONG).await;
    }
    assert_eq!(made.written(), (0..7).collect::<Vec<_>>());
    // As the error advises.
    fs::remove_file(made.folder.path().join("rows.ndjson.batchsql-mark")).unwrap();
    assert_eq!(made.drain(made.exactly().take_over(TakeOver::Anyone)).await, 7);
    assert_eq!(made.written(), (0..7).chain(4..7).collect::<Vec<_>>());
}

/// The file is truncated in place, and gets another line, before the feed has looked again: that line has not ended.
#[tokio::test]
async fn a_flush_looks_at_a_file_that_was_truncated() {
    for guarantee in 0..2 {
        for text in [lines([20]), lines(20..30), String::new()] {
            let made = Made::new(&lines(10..20));
            let feed = made.start(both(&made)[guarantee].clone().look_every(LONG * 60)).await.unwrap();
            feed.flush().await.unwrap();
            fs::write(made.path(), text).unwrap();
            let error = tokio::time::timeout(LONG, feed.flush()).await.expect("it ends").unwrap_err();
            assert!(error.is_stopped() && error.to_string().contains("was replaced or truncated"), "{error}");
            feed.close(LONG).await;
        }
    }
}

/// A window that has no room for a line: each part is read alone.
#[tokio::test]
async fn a_window_without_room_does_not_stop_a_feed() {
    for guarantee in 0..2 {
        let made = Made::new(&lines(0..5));
        let limits = both(&made)[guarantee].clone().window_bytes(0).max_line_bytes(usize::MAX);
        assert_eq!(made.drain(limits).await, 5);
        assert_eq!(made.written(), (0..5).collect::<Vec<_>>());
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.unwrap_or_else(|_| panic!("not so after {LONG:?}: {what}"));
}

/// The mark is lost, as when the file is moved to another machine.
#[tokio::test]
async fn a_file_without_its_mark_is_taken_over_only_on_request() {
    let made = Made::new(&lines(0..5));
    made.drain(made.exactly()).await;
    fs::remove_file(made.folder.path().join("rows.ndjson.batchsql-mark")).unwrap();
    made.append(&lines(5..8));
    let feed = made.start(made.exactly()).await.unwrap();
    let error = feed.flush().await.unwrap_err();
    assert!(error.is_stopped() && error.to_string().contains("TakeOver::Anyone"), "{error}");
    feed.close(LONG).await;
    assert_eq!(made.drain(made.exactly().take_over(TakeOver::Anyone)).await, 8);
    assert_eq!(made.drain(made.exactly()).await, 8);
    assert_eq!(made.written(), (0..8).collect::<Vec<_>>());
}

/// Another process with a copy of the file: the one that had the position stops.
#[tokio::test]
async fn a_copy_takes_the_position_away() {
    let made = Made::new(&lines(0..5));
    let feed = made.start(made.exactly()).await.unwrap();
    feed.flush().await.unwrap();
    let copy = FileOptions::new(made.folder.path().join("copy"), &schema()).exactly_once("file");
    fs::copy(made.path(), made.folder.path().join("copy")).unwrap();
    made.drain(copy.take_over(TakeOver::Anyone)).await;
    made.append(&lines(5..6));
    let error = feed.flush().await.unwrap_err();
    assert!(error.is_stopped() && error.to_string().contains("another process has claimed"), "{error}");
    feed.close(LONG).await;
    assert_eq!(made.written(), (0..5).collect::<Vec<_>>());
}

/// A database from a backup, with its positions: the lines since then are in the file, and are written again.
#[tokio::test]
async fn a_database_from_a_backup_gets_the_lines_again() {
    let made = Made::new(&lines(0..5));
    made.drain(made.exactly()).await;
    made.sink.set_position("t", 0, Some(2));
    made.append(&lines(5..6));
    assert_eq!(made.drain(made.exactly()).await, 6);
    assert_eq!(made.written(), [0, 1, 2, 3, 4, 2, 3, 4, 5]);
    // Without its positions it is not known what it has.
    made.sink.set_position("t", 0, None);
    let feed = made.start(made.exactly()).await.unwrap();
    let error = feed.flush().await.unwrap_err();
    assert!(error.to_string().contains("has no position"), "{error}");
    feed.close(LONG).await;
}

/// Positions of a file that was replaced are removed, and those of the one that is fed are not.
#[tokio::test]
async fn positions_of_old_files_are_removed() {
    let made = Made::new(&lines(0..5));
    made.drain(made.exactly()).await;
    fs::write(made.path(), lines(7..9)).unwrap();
    let feed = made.start(made.exactly().when_replaced(WhenReplaced::BeginAnew)).await.unwrap();
    feed.flush().await.unwrap();
    let db = feed.pipeline();
    let stored = db.positions("file").await.unwrap();
    assert_eq!(stored.len(), 2);
    for stored in &stored {
        let PartitionKey { source, incarnation, .. } = &stored.key;
        let kept = db.remove_positions(source, incarnation, &[]).await.unwrap();
        assert!(matches!(kept, Removed::Claimed { .. }), "{kept:?}");
    }
    let is_own = |incarnation: &str| incarnation == feed.incarnation();
    let old = stored.iter().find(|stored| !is_own(&stored.key.incarnation)).unwrap();
    let ended = [old.owner.clone().unwrap()];
    let removed = db.remove_positions("file", &old.key.incarnation, &ended).await.unwrap();
    assert_eq!(removed, Removed::Positions(1));
    made.append(&lines(9..10));
    assert_eq!(feed.flush().await.unwrap(), 3);
    feed.close(LONG).await;
    assert_eq!(made.written(), [0, 1, 2, 3, 4, 7, 8, 9]);
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    let made = Made::new(&lines([1]));
    let refused = async |options: FileOptions, part: &str| {
        let error = made.start(options).await.unwrap_err();
        assert!(error.is_invalid_settings() && error.to_string().contains(part), "{error}");
    };
    refused(made.options().exactly_once(""), "1 to 100 characters").await;
    let add = Schema::builder("t").column("id", ColumnType::I64).column("n", ColumnType::I64);
    let add = add.on_conflict(Conflict::update(["id"]).set("n", Expr::add())).build().unwrap();
    refused(FileOptions::new(made.path(), &add), "FileOptions::exactly_once").await;
    let sink = ScriptedSink::new();
    let error = FileFeed::start(BatchSql::builder(sink), made.exactly()).await.unwrap_err();
    assert!(error.to_string().contains("keeps no positions"), "{error}");
    fs::write(made.folder.path().join("rows.ndjson.batchsql-mark"), "batchsql file mark 2\n").unwrap();
    refused(made.options(), "version 2").await;
}

/// Rows of a step whose reply was lost are not written twice, and those behind them are not read twice.
#[tokio::test]
async fn a_lost_reply_doubles_nothing() {
    let made = Made::new(&lines(0..3_000));
    made.sink.script([Step::Late, Step::LoseReply]);
    made.drain(made.exactly()).await;
    assert_eq!(made.written(), (0..3_000).collect::<Vec<_>>());
}

/// Keeps what it is told of the feed.
#[derive(Clone, Default)]
struct Observer(Arc<Mutex<(Vec<FeedGauges>, Vec<FeedProgress>)>>);

impl MetricsReporter for Observer {
    fn feed_gauges(&self, gauges: &FeedGauges) {
        self.0.lock().unwrap().0.push(gauges.clone());
    }

    fn feed_progress(&self, progress: &FeedProgress) {
        self.0.lock().unwrap().1.push(progress.clone());
    }
}

impl Observer {
    fn last(&self) -> FeedGauges {
        self.0.lock().unwrap().0.last().cloned().unwrap_or_default()
    }

    async fn until(&self, what: &str, is_so: impl Fn(&FeedGauges) -> bool) -> FeedGauges {
        let found = async {
            loop {
                let last = self.last();
                if is_so(&last) {
                    return last;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, found).await.unwrap_or_else(|_| panic!("{what}: {:?}", self.last()))
    }
}

/// A line that is no row has no time of its own, and needs no write.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_no_row_is_no_old_row() {
    let made = Made::new(&lines(0..3));
    let observer = Observer::default();
    let config = PipelineConfig::default().flush_interval(Duration::from_millis(1));
    let builder = BatchSql::builder(made.sink.clone()).config(config).metrics_reporter(observer.clone());
    let feed = FileFeed::start(builder, made.exactly()).await.unwrap();
    feed.flush().await.unwrap();
    // The position cannot be moved behind the next line.
    made.sink.set_position("t", 0, Some(7));
    made.append("{\"other\": 1}\n");
    let stopped = observer.until("it has stopped", |gauges| !gauges.tables[0].stopped_partitions.is_empty()).await;
    let table = &stopped.tables[0];
    assert_eq!((table.unsettled_messages, table.oldest_unsettled), (1, None));
    feed.close(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn observers_are_told_how_far_a_file_is_written() {
    let made = Made::new(&(lines(0..10) + "{\"other\": 1}\n" + &lines([11, 12])));
    made.sink.poison(|row| id(row) == 12);
    // The connection that the rows wait for.
    made.sink.script_acquire([Step::Hang]);
    let observer = Observer::default();
    let config = PipelineConfig::default().flush_interval(Duration::from_millis(1));
    let builder = BatchSql::builder(made.sink.clone()).config(config).metrics_reporter(observer.clone());
    let feed = FileFeed::start(builder, made.options()).await.unwrap();
    let lag = |gauges: &FeedGauges| gauges.tables.first().map(|table| table.unsettled_messages);
    let waits = observer.until("the lag is told", |gauges| lag(gauges) == Some(13)).await;
    let table = &waits.tables[0];
    assert_eq!((&*table.table, waits.source_up), ("t", Some(true)));
    assert!(table.oldest_unsettled.is_some(), "{table:?}");
    assert_eq!((table.wanted_partitions, table.held_partitions, table.stopped_partitions.len()), (1, 1, 0));
    made.sink.release(1);
    feed.flush().await.unwrap();
    observer.until("there is no lag", |gauges| lag(gauges) == Some(0)).await;
    // The file is another one: a person must look.
    fs::write(made.path(), lines(100..101)).unwrap();
    let stopped = observer.until("it has stopped", |gauges| !gauges.tables[0].stopped_partitions.is_empty()).await;
    assert_eq!(stopped.tables[0].stopped_partitions.get(&StopReason::OtherSource), Some(&1));
    fs::remove_file(made.path()).unwrap();
    observer.until("the file is gone", |gauges| gauges.source_up == Some(false)).await;
    feed.close(LONG).await;
    let told = observer.0.lock().unwrap();
    let sum = |of: fn(&FeedProgress) -> u64| told.1.iter().map(of).sum::<u64>();
    assert_eq!(told.0.last().unwrap().tables[0].oldest_unsettled, None);
    let sums = [sum(|p| p.read_rows), sum(|p| p.written_rows), sum(|p| p.dead_letters), sum(|p| p.foreign_messages)];
    assert_eq!(sums, [12, 11, 1, 1]);
}
