//! A disk that is full or fails: what a start and a submit say, and that nothing is lost.

use std::io::{Error, ErrorKind, Result, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use batchsql_core::{BatchSql, ErrorClass};
use batchsql_durable::{DurableExt, DurableOptions};
use batchsql_log::{Access, File, FileSystem, Lock, LogError, LogErrorKind, RealFileSystem};
use batchsql_testkit::{ScriptedSink, Step};

use crate::support::{LONG, config, in_table, options, plain, row, start, until};

const WELL: u8 = 0;
const FULL: u8 = 1;
const NO_SYNC: u8 = 2;

/// The real file system, until it is said to be full or to fail, with a clock that can be put forward.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    state: Arc<AtomicU8>,
    /// Milliseconds.
    passed: Arc<AtomicU64>,
    reads: Arc<Reads>,
}

/// Each file that is being read has a clone of what is in it.
#[derive(Debug, Default)]
struct Reads(Arc<()>);

impl Disk {
    fn set(&self, state: u8) {
        self.state.store(state, Ordering::SeqCst);
    }

    /// Puts the clock forward.
    pub(crate) fn pass(&self, time: Duration) {
        self.passed.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
    }

    /// Files that are open to be read.
    fn open_reads(&self) -> usize {
        Arc::strong_count(&self.reads.0) - 1
    }

    fn check(&self, fails: u8, kind: ErrorKind) -> Result<()> {
        if self.state.load(Ordering::SeqCst) == fails { Err(Error::from(kind)) } else { Ok(()) }
    }

    fn file(&self, file: Box<dyn File>) -> Box<dyn File> {
        Box::new(OnDisk { file, disk: self.clone(), _read: None })
    }
}

impl FileSystem for Disk {
    fn create_folder(&self, path: &Path) -> Result<()> {
        RealFileSystem.create_folder(path)
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Lock>>> {
        RealFileSystem.lock(path)
    }

    fn list(&self, folder: &Path) -> Result<Vec<(String, u64)>> {
        RealFileSystem.list(folder)
    }

    fn create(&self, path: &Path) -> Result<Box<dyn File>> {
        Ok(self.file(RealFileSystem.create(path)?))
    }

    fn open(&self, path: &Path, access: Access) -> Result<Box<dyn File>> {
        let (file, disk) = (RealFileSystem.open(path, access)?, self.clone());
        let _read = (access == Access::Read).then(|| Arc::clone(&self.reads.0));
        Ok(Box::new(OnDisk { file, disk, _read }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        RealFileSystem.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        RealFileSystem.remove(path)
    }

    fn sync_folder(&self, path: &Path) -> Result<()> {
        RealFileSystem.sync_folder(path)
    }

    fn free_bytes(&self, path: &Path) -> Result<Option<u64>> {
        RealFileSystem.free_bytes(path)
    }

    fn now(&self) -> u64 {
        RealFileSystem.now() + self.passed.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
struct OnDisk {
    file: Box<dyn File>,
    disk: Disk,
    _read: Option<Arc<()>>,
}

impl File for OnDisk {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.disk.check(FULL, ErrorKind::StorageFull)?;
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> Result<()> {
        self.disk.check(NO_SYNC, ErrorKind::Other)?;
        self.file.sync_data()
    }

    fn set_length(&self, length: u64) -> Result<()> {
        self.file.set_length(length)
    }

    fn length(&self) -> Result<u64> {
        self.file.length()
    }
}

fn on(disk: &Disk, folder: &Path) -> DurableOptions {
    options(folder).partitions(1).file_system(Arc::new(disk.clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_disk_says_so_and_loses_nothing() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    disk.set(FULL);
    let fresh = dir.path().join("fresh");
    let error = start(&ScriptedSink::new(), on(&disk, &fresh)).await.unwrap_err();
    let text = error.to_string();
    assert!(!error.is_invalid_settings() && !error.is_locked(), "another start may help: {text}");
    assert_eq!(error.log_error().map(LogError::kind), Some(LogErrorKind::Io));
    assert!(text.starts_with("cannot write") && text.contains("fresh") && text.contains("no storage space"), "{text}");
    disk.set(WELL);
    start(&ScriptedSink::new(), on(&disk, &fresh)).await.unwrap().close(LONG).await;

    let used = dir.path().join("used");
    let unreachable = ScriptedSink::new();
    unreachable.script_acquire([Step::Fail(ErrorClass::Transient); 1000]);
    let db = start(&unreachable, on(&disk, &used)).await.unwrap();
    for version in 0..20 {
        db.submit(&row(&plain(), 1, version)).await.unwrap();
    }
    db.close(Duration::ZERO).await;
    drop(db);
    disk.set(FULL);
    // Rows that wait need no space to be written, so it starts. Others find no space.
    let db = start(&unreachable, on(&disk, &used)).await.unwrap();
    assert_eq!(db.recovered().rows, 20);
    let error = db.try_submit(&row(&plain(), 1, 20)).await.unwrap_err();
    assert!(error.is_full() && !error.is_undetermined(), "{error}");
    assert!(error.to_string().starts_with("the disk of the log is full; free some space"), "{error}");
    db.close(Duration::ZERO).await;
    drop(db);
    disk.set(WELL);
    let sink = ScriptedSink::new();
    let db = start(&sink, on(&disk, &used)).await.unwrap();
    assert_eq!(db.recovered().rows, 20);
    db.flush().await.unwrap();
    assert_eq!(in_table(&sink, "plain").len(), 20);
    assert!(db.close(LONG).await.is_drained());
}

/// The rows were handed to the log, and the disk does not say whether it has them.
#[tokio::test(flavor = "multi_thread")]
async fn a_submit_whose_sync_fails_is_undetermined() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let sink = ScriptedSink::new();
    let db = start(&sink, on(&disk, dir.path())).await.unwrap();
    db.submit(&row(&plain(), 1, 0)).await.unwrap();
    disk.set(NO_SYNC);
    let error = db.submit(&row(&plain(), 1, 1)).await.unwrap_err();
    assert!(error.is_undetermined() && !error.is_full() && !error.is_closed(), "{error}");
    let error = db.try_submit_all([row(&plain(), 1, 2), row(&plain(), 1, 3)]).await.unwrap_err();
    // The log refuses rows until it has tried the disk again, so they may be known not to be stored.
    let reason = error.submit_error();
    assert!(error.row().is_none() && (reason.is_full() || reason.is_undetermined()), "{error}");
    disk.set(WELL);
    // A row that fits no table was not handed to the log.
    let other = batchsql_core::Schema::builder("plain").column("id", batchsql_core::ColumnType::Text).build().unwrap();
    let long = other.row().set("id", "x".repeat(100 << 20)).unwrap().finish().unwrap();
    let error = db.submit(&long).await.unwrap_err();
    assert!(!error.is_undetermined(), "{error}");
    assert!(!db.close(LONG).await.to_string().is_empty());
    assert!(!db.submit(&row(&plain(), 1, 9)).await.unwrap_err().is_undetermined());
}

/// As a single row. No other sync fails before: the log would refuse the rows then.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_stored_together_are_undetermined_when_their_sync_fails() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let unreachable = ScriptedSink::new();
    unreachable.script_acquire([Step::Fail(ErrorClass::Transient); 1000]);
    let db = start(&unreachable, on(&disk, dir.path())).await.unwrap();
    db.submit(&row(&plain(), 1, 0)).await.unwrap();
    disk.set(NO_SYNC);
    let error = db.try_submit_all([row(&plain(), 1, 1), row(&plain(), 1, 2)]).await.unwrap_err();
    let reason = error.submit_error();
    assert!(error.row().is_none() && reason.is_undetermined() && !reason.is_full(), "{error}");
    db.close(Duration::ZERO).await;
}

/// What is logged on this thread.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Lines {
    /// Those with a text.
    pub(crate) fn with(&self, text: &str) -> Vec<String> {
        let all = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        all.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }
}

/// A call that waits for the disk may wait for long, and whoever made it sees nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_space_and_its_end_are_logged() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = batchsql_testserver::subscribe(subscriber);
    let (waits, goes_on) = ("rows are not accepted: the log has no space", "rows are accepted again");
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let db = start(&ScriptedSink::new(), on(&disk, dir.path())).await.unwrap();
    db.submit(&row(&plain(), 1, 0)).await.unwrap();
    disk.set(FULL);
    let error = db.try_submit(&row(&plain(), 1, 1)).await.unwrap_err();
    assert!(error.is_full(), "{error}");
    assert_eq!(lines.with(waits).len(), 0, "a call that does not wait has an error");
    // Two calls wait, and the disk has space again when that is said.
    let (one, two) = (row(&plain(), 1, 2), row(&plain(), 1, 3));
    let mend = async {
        until("the wait is logged", || !lines.with(waits).is_empty()).await;
        assert_eq!(lines.with(goes_on).len(), 0);
        disk.set(WELL);
    };
    let (one, two, ()) = tokio::join!(db.submit(&one), db.submit(&two), mend);
    one.unwrap();
    two.unwrap();
    let said = lines.with(waits);
    assert_eq!(said.len(), 1, "{said:?}");
    for part in ["WARN", "the disk of the log is full; free some space", "free=", "min_free=", "used=", "limit="] {
        assert!(said[0].contains(part), "{part} in {said:?}");
    }
    assert!(number(&said[0], "needed=") > 0, "{said:?}");
    let said = lines.with(goes_on);
    assert!(said.len() == 1 && said[0].contains("INFO") && said[0].contains("after="), "{said:?}");
    db.submit(&row(&plain(), 1, 4)).await.unwrap();
    assert_eq!(lines.with(goes_on).len(), 1);
    db.close(LONG).await;
}

fn number(line: &str, name: &str) -> u64 {
    let number = line.split(name).nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    number.parse().unwrap_or_else(|_| panic!("{name} in {line:?}"))
}

/// A write that fails for want of space needs as much as one that is not tried; of a group, the bytes of all rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_for_space_after_a_failed_write_names_its_bytes() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = batchsql_testserver::subscribe(subscriber);
    let waits = "rows are not accepted: the log has no space";
    for (said_before, rows) in [1, 100].into_iter().enumerate() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
        let db = start(&ScriptedSink::new(), on(&disk, dir.path()).min_free_bytes(7)).await.unwrap();
        db.submit(&row(&plain(), 1, 0)).await.unwrap();
        disk.set(FULL);
        let mend = async {
            until("the wait is logged", || lines.with(waits).len() > said_before).await;
            disk.set(WELL);
        };
        if rows == 1 {
            let row = row(&plain(), 1, 1);
            let (stored, ()) = tokio::join!(db.submit(&row), mend);
            stored.unwrap();
        } else {
            let mut group = db.group();
            (0..rows).for_each(|number| group.push(&row(&plain(), 1, number)).unwrap());
            let (stored, ()) = tokio::join!(db.submit_group(&group), mend);
            stored.unwrap();
        }
        let said = lines.with(waits);
        let least = rows as u64 * 16;
        assert!(number(&said[said_before], "needed=") >= least, "two numbers of 8 bytes for each row: {said:?}");
        assert_eq!(number(&said[said_before], "min_free="), 7, "{said:?}");
        db.close(LONG).await;
    }
}

/// A removed file needs its space for as long as it is open.
#[tokio::test(flavor = "multi_thread")]
async fn no_file_is_open_when_all_rows_are_written_or_wait_for_their_table() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let unreachable = ScriptedSink::new();
    unreachable.script_acquire(std::iter::repeat_n(Step::Fail(ErrorClass::Transient), 10_000));
    let exact = || on(&disk, &dir.path().join("exact")).exactly_once("test");
    let plainly = || on(&disk, &dir.path().join("plain"));
    let exactly = ScriptedSink::new();
    exactly.keep_positions();
    exactly.poison_as(ErrorClass::Permission, |_| true);
    for (options, sink) in [(plainly(), unreachable.clone()), (exact(), exactly.clone())] {
        let db = start(&sink, options).await.unwrap();
        for block in 0..20 {
            let rows: Vec<_> = (0..40).map(|number| row(&plain(), 1, 40 * block + number)).collect();
            db.submit_all(&rows).await.unwrap();
        }
        db.close(Duration::ZERO).await;
    }
    // More rows wait than a transaction takes, and they are read from the log.
    let builder = BatchSql::builder(exactly.clone()).config(config().max_batch_rows(100));
    let db = builder.durable(exact()).start().await.unwrap();
    until("it waits for its table", || !db.health().waiting.is_empty()).await;
    until("no file is open", || disk.open_reads() == 0).await;
    exactly.poison(|_| false);
    db.flush().await.unwrap();
    assert_eq!(in_table(&exactly, "plain").len(), 800);
    until("no file is open", || disk.open_reads() == 0).await;
    db.close(LONG).await;

    let sink = ScriptedSink::new();
    let db = start(&sink, plainly()).await.unwrap();
    db.flush().await.unwrap();
    assert_eq!(in_table(&sink, "plain").len(), 800);
    until("no file is open", || disk.open_reads() == 0).await;
    db.close(LONG).await;
}
