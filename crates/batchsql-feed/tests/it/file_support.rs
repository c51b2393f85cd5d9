//! A file of lines and a database for it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use batchsql_core::{BatchSql, ColumnType, DynRow, PipelineConfig, Schema, ValueRef};
use batchsql_feed::file::{FileError, FileFeed, FileOptions};
use batchsql_testkit::ScriptedSink;

pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A file, and a database without end.
pub(crate) struct Made {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) sink: ScriptedSink,
}

pub(crate) fn schema() -> Schema {
    Schema::builder("t").column("id", ColumnType::I64).build().unwrap()
}

pub(crate) fn id(row: &DynRow) -> i64 {
    match row.get("id") {
        Some(ValueRef::I64(id)) => id,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn lines(ids: impl IntoIterator<Item = i64>) -> String {
    ids.into_iter().map(|id| format!("{{\"id\":{id}}}\n")).collect()
}

impl Made {
    pub(crate) fn new(text: &str) -> Self {
        let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
        sink.keep_positions();
        let made = Self { folder, sink };
        fs::write(made.path(), text).unwrap();
        made
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("rows.ndjson")
    }

    pub(crate) fn beside(&self, ending: &str) -> String {
        let name = format!("rows.ndjson{ending}");
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    pub(crate) fn append(&self, text: &str) {
        OpenOptions::new().append(true).open(self.path()).unwrap().write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn options(&self) -> FileOptions {
        FileOptions::new(self.path(), &schema()).look_every(Duration::from_millis(2))
    }

    pub(crate) fn exactly(&self) -> FileOptions {
        self.options().exactly_once("file")
    }

    pub(crate) async fn start(&self, options: FileOptions) -> Result<FileFeed, FileError> {
        let config = PipelineConfig::default().flush_interval(Duration::from_millis(1));
        FileFeed::start(BatchSql::builder(self.sink.clone()).config(config), options).await
    }

    /// Writes what is in the file, and closes the feed.
    pub(crate) async fn drain(&self, options: FileOptions) -> u64 {
        let feed = self.start(options).await.unwrap();
        let line = tokio::time::timeout(LONG, feed.flush()).await.expect("all lines end").unwrap();
        let report = feed.close(LONG).await;
        assert_eq!((report.lines, report.mark_error), (line, None));
        line
    }

    pub(crate) fn written(&self) -> Vec<i64> {
        self.sink.applied().iter().map(id).collect()
    }
}

/// At least once, and exactly once.
pub(crate) fn both(made: &Made) -> [FileOptions; 2] {
    [made.options(), made.exactly()]
}

pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.unwrap_or_else(|_| panic!("not so after {LONG:?}: {what}"));
}
