//! Owns how one file is loaded: its records are read, parsed by several threads, and written by a task for each partition.
//! Must not know the command line.

use std::path::PathBuf;
use std::sync::Arc;

use batchsql::{BatchSql, OutcomeCounts};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};

use crate::exit::Failure;
use crate::load::file::Input;
use crate::load::incomplete::{InTable, changed, damaged};
use crate::load::marked::Unsaved;
use crate::load::opened::{Opened, open};
use crate::load::parse::Parsed;
use crate::load::reader::{Read, Reader};
use crate::load::rejects::Load;
use crate::load::stop::{Stop, stopped};
use crate::load::tally::Tally;
use crate::load::writer::Writer;
use crate::table::target::Target;

/// Stripes of a file with one partition that are parsed while one is written.
const AHEAD: usize = 3;

/// A file and its table.
pub(crate) struct Job {
    pub(crate) db: BatchSql,
    pub(crate) target: Arc<Target>,
    pub(crate) input: Input,
    pub(crate) delimiter: u8,
    /// Where records go that are not written.
    pub(crate) rejects: PathBuf,
    pub(crate) most_rejects: u64,
    /// The identity of the database, for what is kept in files.
    pub(crate) database: String,
    /// The position is kept in a file beside, also where the database could keep it.
    pub(crate) at_least_once: bool,
    /// A name for a load of the same content beside the others.
    pub(crate) name: Option<String>,
    /// Stripes that are written at once; at least 1.
    pub(crate) steps: usize,
    /// What an earlier try of this process could not store.
    pub(crate) unsaved: Unsaved,
    pub(crate) stop: Stop,
}

/// What a load has done.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Records of the file.
    pub(crate) records: u64,
    /// Records that an earlier run has written or rejected.
    pub(crate) before: u64,
    /// Rows of this run.
    pub(crate) counts: OutcomeCounts,
    /// Rejected records, those of earlier runs included.
    pub(crate) rejected: u64,
}

impl Job {
    /// Loads the file, from where an earlier run has ended. `written` gets the number of bytes of the file that are done.
    ///
    /// # Errors
    /// The load could not go on. A later run goes on behind what was written.
    ///
    /// # Cancel safety
    /// What was written is known to a later run.
    pub(crate) async fn run(self, written: impl Fn(u64)) -> Result<Loaded, Failure> {
        let Self {
            db,
            target,
            input,
            delimiter,
            rejects,
            most_rejects,
            database,
            at_least_once,
            name,
            steps,
            unsaved,
            mut stop,
        } = self;
        let how = (at_least_once, name.as_deref());
        let mut opened = tokio::select! {
            biased;
            () = stop.wanted() => return Err(stopped()),
            opened = open(&db, &target, &input, &database, how, &unsaved) => opened?,
        };
        let front = opened.done.front();
        if input.has_changed() {
            return Err(changed(&input, InTable::new(&OutcomeCounts::default(), front)));
        }
        let load = Load {
            file: input.digest[..16].to_owned(),
            database: Some(database),
            table: target.schema.table_display().to_string(),
            again: name.clone(),
        };
        let rejects = opened.rejects(rejects, load).await?;
        let Opened { writers, whole, done } = opened;
        let tally = Arc::new(Tally::new(rejects, most_rejects));
        let ahead = if writers.len() == 1 { AHEAD } else { 1 };
        let steps = Arc::new(Semaphore::new(steps));
        let (report, progress) = mpsc::channel(writers.len());
        let (mut writing, mut partitions) = (JoinSet::new(), Vec::new());
        for writer in writers {
            let (stripes, parsed) = mpsc::channel(ahead);
            partitions.push(stripes);
            writing.spawn(write(writer, parsed, Arc::clone(&steps), Arc::clone(&tally), report.clone(), stop.clone()));
        }
        drop(report);
        let reader = Reader { db, target, input: input.clone(), delimiter, done };
        let handle = Handle::current();
        let reading = tokio::task::spawn_blocking(move || reader.read(&handle, &partitions));
        let ended = all(&mut writing, progress, written).await;
        // After a failure, what the others do ends here; the reader ends when nobody takes its stripes.
        writing.shutdown().await;
        let read = reading.await.map_err(|error| Failure::failed(format!("the file could not be read: {error}")))?;
        ended?;
        let in_table = InTable::new(&tally.counts(), front);
        // An error of the content may be because somebody writes the file.
        if input.has_changed() {
            return Err(changed(&input, in_table));
        }
        let Read { records, before } = read.map_err(|error| damaged(&input, &error, in_table))?;
        if let Some(mut whole) = whole.filter(|whole| whole.reached() < records) {
            whole.advance(records).await?;
        }
        Ok(Loaded { records, before, counts: tally.counts(), rejected: tally.rejected() })
    }
}

/// Waits until all partitions are written. `written` gets how far the file was read when a stripe was read that is written.
///
/// # Errors
/// The first failure.
async fn all(
    writing: &mut JoinSet<Result<(), Failure>>,
    mut progress: mpsc::Receiver<u64>,
    written: impl Fn(u64),
) -> Result<(), Failure> {
    let mut furthest = 0;
    loop {
        tokio::select! {
            Some(read) = progress.recv() => {
                furthest = read.max(furthest);
                written(furthest);
            }
            ended = writing.join_next() => match ended {
                None => return Ok(()),
                Some(Ok(ended)) => ended?,
                Some(Err(error)) => return Err(Failure::failed(format!("records could not be written: {error}"))),
            },
        }
    }
}

/// Writes the stripes of a partition in their order. `steps` are the stripes that may be written at once.
async fn write(
    mut writer: Writer,
    mut stripes: mpsc::Receiver<JoinHandle<Parsed>>,
    steps: Arc<Semaphore>,
    tally: Arc<Tally>,
    progress: mpsc::Sender<u64>,
    mut stop: Stop,
) -> Result<(), Failure> {
    loop {
        let parsing = tokio::select! {
            biased;
            () = stop.wanted() => return Err(stopped()),
            parsing = stripes.recv() => parsing,
        };
        let Some(parsing) = parsing else { return Ok(()) };
        let parsed = parsing.await.map_err(|error| Failure::failed(format!("records could not be parsed: {error}")))?;
        let step = steps.acquire().await.map_err(Failure::failed)?;
        writer.write(&parsed, &tally, &mut stop).await?;
        drop(step);
        // Whoever shows it may have ended.
        let _ = progress.send(parsed.stripe.read).await;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use batchsql::{
        ColumnType, DynRow, DynSink, ErrorClass, FieldRules, OutcomeKind, PipelineConfig, Schema, ValueRef,
    };
    use batchsql_testkit::{ScriptedSink, Step};

    use super::*;
    use crate::exit::{Exit, Remedy};
    use crate::load::stop::Stopper;
    use crate::table::record::tests::orders;

    pub(crate) async fn load(sink: &ScriptedSink, path: &std::path::Path) -> Result<Loaded, Failure> {
        load_into(orders(FieldRules::default()), sink, path).await
    }

    pub(crate) async fn load_into(
        target: Target,
        sink: &ScriptedSink,
        path: &std::path::Path,
    ) -> Result<Loaded, Failure> {
        job(target, sink, path).run(|_| {}).await
    }

    fn job(target: Target, sink: &ScriptedSink, path: &std::path::Path) -> Job {
        let config = PipelineConfig::default().flush_size(5_000).buffer_size(20_000);
        Job {
            db: BatchSql::builder(DynSink::new(sink.clone())).config(config).start().unwrap(),
            target: Arc::new(target),
            input: Input::open(path, None, |_| {}).unwrap(),
            delimiter: b',',
            rejects: path.with_extension("rejects"),
            most_rejects: 1000,
            database: "shop".to_owned(),
            at_least_once: false,
            name: None,
            steps: 4,
            unsaved: Unsaved::default(),
            stop: Stopper::new().watched(),
        }
    }

    /// A pipeline that gives rows up after one try.
    fn impatient(sink: &ScriptedSink) -> BatchSql {
        let config = PipelineConfig::default().retry_for(std::time::Duration::ZERO);
        BatchSql::builder(DynSink::new(sink.clone())).config(config).start().unwrap()
    }

    /// A table without a key.
    pub(crate) fn plain() -> Target {
        let schema = Schema::builder("orders").column("id", ColumnType::I64).column("region", ColumnType::Text);
        let mut target = orders(FieldRules::default());
        target.schema = schema.build().unwrap();
        target.has_no_key = true;
        target
    }

    pub(crate) fn ids(sink: &ScriptedSink) -> Vec<i64> {
        let id = |row: &DynRow| match row.get("id") {
            Some(ValueRef::I64(id)) => id,
            other => panic!("{other:?}"),
        };
        let mut ids: Vec<i64> = sink.applied().iter().map(id).collect();
        ids.sort_unstable();
        ids
    }

    /// A table that breaks in the middle ends the load: its records are not rejected, and a later run loads them.
    #[tokio::test]
    async fn a_table_that_breaks_in_the_middle_rejects_no_record() {
        let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
        let path = folder.path().join("a.csv");
        let lines: String = (0..200).map(|id| format!("{id},eu\n")).collect();
        std::fs::write(&path, format!("id,region\n{lines}")).unwrap();
        sink.keep_positions();
        let id = |row: &DynRow| match row.get("id") {
            Some(ValueRef::I64(id)) => id,
            other => panic!("{other:?}"),
        };
        sink.poison_as(ErrorClass::Schema, move |row| id(row) >= 100);
        let failure = load(&sink, &path).await.unwrap_err();
        assert!(failure.exit == Exit::Failed && failure.text.contains("the table cannot be written"), "{failure:?}");
        assert_eq!(sink.applied().len(), 100);
        // One row of the same class is at fault itself, as others are written after it.
        sink.poison_as(ErrorClass::Schema, move |row| id(row) == 150);
        let loaded = load(&sink, &path).await.unwrap();
        assert_eq!((loaded.before, loaded.rejected, sink.applied().len()), (100, 1, 199));
    }

    /// On a full disk the same rows would be written again by each try, if the mark were first written behind them.
    #[tokio::test]
    async fn without_a_mark_no_row_is_written() {
        let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
        let path = folder.path().join("a.csv");
        std::fs::write(&path, "id,region\n1,eu\n2,eu\n").unwrap();
        let in_the_way = folder.path().join("a.csv.batchsql-load.tmp");
        std::fs::create_dir(&in_the_way).unwrap();
        let failure = load(&sink, &path).await.unwrap_err();
        assert_eq!((failure.exit, failure.remedy), (Exit::Unavailable, Remedy::FileBeside), "{failure:?}");
        assert!(failure.text.contains("a.csv.batchsql-load cannot be written"), "{failure:?}");
        assert_eq!(sink.applied().len(), 0);
        std::fs::remove_dir(&in_the_way).unwrap();
        assert_eq!(load(&sink, &path).await.unwrap().counts.get(OutcomeKind::Written), 2);
        let again = load(&sink, &path).await.unwrap();
        assert_eq!((again.before, sink.applied().len()), (2, 2));
    }

    /// A row that goes on failing is tried again alone, by this process and by a later one. A table whose rows may be written again
    /// gets all of them in their order.
    #[tokio::test]
    async fn rows_that_have_ended_are_not_written_again() {
        let repeatable = || {
            let mut target = plain();
            let schema = Schema::builder("orders").column("id", ColumnType::I64).column("region", ColumnType::Text);
            target.schema = schema.on_conflict(batchsql::Conflict::update(["id"])).build().unwrap();
            target
        };
        let one = [1, 2, 3, 4, 5].to_vec();
        for (target, expected) in [(plain(), one), (repeatable(), [1, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5].to_vec())] {
            let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
            let path = folder.path().join("a.csv");
            std::fs::write(&path, "id,region\n1,eu\n2,eu\n3,eu\n4,eu\n5,eu\n").unwrap();
            // The second one has no outcome, of all and then of those that are left.
            for step in [Step::LeaveRow(1, ErrorClass::Transient), Step::LeaveRow(0, ErrorClass::Transient)] {
                sink.script([step]);
                let job = Job { db: impatient(&sink), ..job(target.clone(), &sink, &path) };
                let failure = job.run(|_| {}).await.unwrap_err();
                assert_eq!(failure.exit, Exit::Unavailable, "{failure:?}");
            }
            let loaded = load_into(target, &sink, &path).await.unwrap();
            assert_eq!((loaded.records, loaded.rejected), (5, 0));
            assert_eq!(ids(&sink), expected);
        }
    }

    /// Only the rejected record is tried again. A file of rejected records that cannot be written is seen before the first row.
    #[tokio::test]
    async fn a_rejected_record_that_cannot_be_stored_repeats_no_row() {
        let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
        let path = folder.path().join("a.csv");
        std::fs::write(&path, "id,region\n1,eu\n2,eu\n3,eu\n4,eu\n").unwrap();
        let of_rejects = folder.path().join("rejects");
        let (gone, in_the_way) = (of_rejects.clone(), folder.path().join("a.csv.batchsql-load.tmp"));
        sink.poison_as(ErrorClass::Row, move |row| {
            let is_bad = matches!(row.get("id"), Some(ValueRef::I64(3)));
            if is_bad {
                let _ = std::fs::remove_dir(&gone);
                let _ = std::fs::create_dir(&in_the_way);
            }
            is_bad
        });
        let unsaved = Unsaved::default();
        let load = || {
            let job =
                Job { rejects: of_rejects.join("a.ndjson"), unsaved: unsaved.clone(), ..job(plain(), &sink, &path) };
            job.run(|_| {})
        };
        let failure = load().await.unwrap_err();
        assert_eq!(failure.remedy, Remedy::FileBeside, "{failure:?}");
        assert_eq!(sink.applied().len(), 0, "the folder is not there before the first row");
        std::fs::create_dir(&of_rejects).unwrap();
        let failure = load().await.unwrap_err();
        assert!(failure.text.contains("the file of rejected records cannot be written"), "{failure:?}");
        assert_eq!(ids(&sink), [1, 2, 4]);
        // The mark could not be stored either, but this process knows it.
        std::fs::create_dir(&of_rejects).unwrap();
        std::fs::remove_dir(folder.path().join("a.csv.batchsql-load.tmp")).unwrap();
        let loaded = load().await;
        let loaded = loaded.unwrap_err();
        assert!(loaded.text.contains("the file of rejected records cannot be written"), "{loaded:?}");
        assert_eq!(ids(&sink), [1, 2, 4]);
        sink.poison_as(ErrorClass::Row, |row| matches!(row.get("id"), Some(ValueRef::I64(3))));
        std::fs::create_dir(&of_rejects).unwrap();
        std::fs::remove_dir(folder.path().join("a.csv.batchsql-load.tmp")).unwrap();
        let loaded = load().await.unwrap();
        assert_eq!((loaded.records, loaded.before, loaded.rejected), (4, 3, 1));
        assert_eq!(ids(&sink), [1, 2, 4]);
        assert_eq!(std::fs::read_to_string(of_rejects.join("a.ndjson")).unwrap().lines().count(), 1);
    }

    /// With a higher limit the load goes on.
    #[tokio::test]
    async fn a_load_with_too_many_rejected_records_repeats_no_row() {
        let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
        let path = folder.path().join("a.csv");
        std::fs::write(&path, "id,region\n1,eu\n2,eu\nx,eu\n4,eu\n").unwrap();
        sink.poison_as(ErrorClass::Row, |row| matches!(row.get("id"), Some(ValueRef::I64(2))));
        let load = |most_rejects| Job { most_rejects, ..job(plain(), &sink, &path) }.run(|_| {});
        for _ in 0..3 {
            let failure = load(1).await.unwrap_err();
            assert!(failure.text.contains("2 records were rejected, which is more than 1"), "{failure:?}");
            assert_eq!(ids(&sink), [1, 4]);
        }
        let loaded = load(2).await.unwrap();
        assert_eq!((loaded.records, loaded.rejected), (4, 2));
        assert_eq!(ids(&sink), [1, 4]);
        assert_eq!(std::fs::read_to_string(path.with_extension("rejects")).unwrap().lines().count(), 2);
    }

    /// What is being written when the load is stopped would be written again by the next one.
    #[tokio::test]
    async fn a_stop_finishes_what_is_being_written() {
        const RECORDS: i64 = 50_000;
        let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
        let path = folder.path().join("a.csv");
        let lines: String = (1..=RECORDS).map(|id| format!("{id},eu\n")).collect();
        std::fs::write(&path, format!("id,region\n{lines}")).unwrap();
        for hangs in 1..=3 {
            let stopper = Stopper::new();
            sink.script([Step::Hang]);
            let (job, tries) = (Job { stop: stopper.watched(), ..job(plain(), &sink, &path) }, sink.writes());
            let loading = tokio::spawn(job.run(|_| {}));
            while sink.writes() == tries {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            stopper.stop();
            sink.release(1);
            let failure = loading.await.unwrap().unwrap_err();
            assert!(failure.text.contains("it was stopped"), "{failure:?}");
            let written = ids(&sink).len() as i64;
            assert!(0 < written && written < RECORDS, "{hangs}: {written}");
        }
        load_into(plain(), &sink, &path).await.unwrap();
        assert_eq!(ids(&sink), (1..=RECORDS).collect::<Vec<_>>());
    }

    fn file(folder: &tempfile::TempDir, records: std::ops::RangeInclusive<i64>) -> PathBuf {
        let path = folder.path().join("a.csv");
        let lines: String = records.map(|id| format!("{id},eu\n")).collect();
        std::fs::write(&path, format!("id,region\n{lines}")).unwrap();
        path
    }

    fn is_in(of: &'static [i64]) -> impl Fn(&DynRow) -> bool {
        move |row| matches!(row.get("id"), Some(ValueRef::I64(id)) if of.contains(&id))
    }

    /// The rows behind it show that the table accepts rows, wherever the load begins.
    #[tokio::test]
    async fn a_bad_record_that_comes_first_is_rejected_alone() {
        // A stripe has 20,000 records.
        for (class, bad, last) in [
            (ErrorClass::Schema, &[1, 2, 20_001], 20_010),
            (ErrorClass::Permission, &[1, 2, 4], 9),
            (ErrorClass::Size, &[1, 2, 9], 9),
        ] {
            let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
            sink.keep_positions();
            sink.poison_as(class, is_in(bad));
            let path = file(&folder, 1..=last);
            let load = |most_rejects| Job { most_rejects, ..job(plain(), &sink, &path) }.run(|_| {});
            let failure = load(2).await.unwrap_err();
            assert!(failure.text.contains("3 records were rejected, which is more than 2"), "{failure:?}");
            let loaded = load(3).await.unwrap();
            assert_eq!((loaded.records, loaded.rejected), (last as u64, 3), "{class:?}");
            assert_eq!(ids(&sink), (1..=last).filter(|id| !bad.contains(id)).collect::<Vec<_>>());
        }
        // The database says that it is the row.
        for class in [ErrorClass::Row, ErrorClass::Size] {
            let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
            sink.keep_positions();
            sink.poison_as(class, |_| true);
            assert_eq!(load_into(plain(), &sink, &file(&folder, 1..=3)).await.unwrap().rejected, 3);
        }
    }

    /// A trigger may raise the code of a deadlock for one row.
    #[tokio::test]
    async fn a_record_that_goes_on_with_a_transient_error_is_rejected_alone() {
        for (class, bad) in [
            (ErrorClass::Transient, &[1][..]),
            (ErrorClass::Unknown, &[7, 8, 300]),
            (ErrorClass::Resource, &[199, 200]),
        ] {
            let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
            sink.keep_positions();
            sink.poison_as(class, is_in(bad));
            let path = file(&folder, 1..=400);
            let config = PipelineConfig::default().retry_for(std::time::Duration::from_millis(60));
            let db = BatchSql::builder(DynSink::new(sink.clone())).config(config).start().unwrap();
            let loaded = Job { db, ..job(plain(), &sink, &path) }.run(|_| {}).await.unwrap();
            assert_eq!((loaded.records, loaded.rejected), (400, bad.len() as u64), "{class:?}");
            assert_eq!(ids(&sink), (1..=400).filter(|id| !bad.contains(id)).collect::<Vec<_>>());
        }
    }

    /// It ends the command, and nothing is lost.
    #[tokio::test]
    async fn a_table_that_accepts_no_row_rejects_no_record() {
        for (class, exit) in [
            (ErrorClass::Schema, Exit::Failed),
            (ErrorClass::Transient, Exit::Unavailable),
            (ErrorClass::Resource, Exit::Unavailable),
        ] {
            let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
            sink.keep_positions();
            sink.poison_as(class, |_| true);
            let path = file(&folder, 1..=400);
            let load = || {
                let config = PipelineConfig::default().retry_for(std::time::Duration::from_millis(60));
                let db = BatchSql::builder(DynSink::new(sink.clone())).config(config).start().unwrap();
                Job { db, ..job(plain(), &sink, &path) }.run(|_| {})
            };
            let failure = load().await.unwrap_err();
            assert_eq!(failure.exit, exit, "{failure:?}");
            assert!(sink.writes() < 400, "{class:?}: {} writes", sink.writes());
            assert!(!path.with_extension("rejects").exists());
            // Behind the rows that were written, too.
            sink.poison_as(class, |row| matches!(row.get("id"), Some(ValueRef::I64(id)) if id > 30));
            assert_eq!(load().await.unwrap_err().exit, exit);
            sink.poison_as(class, |_| false);
            let loaded = load().await.unwrap();
            assert_eq!((loaded.records, loaded.rejected), (400, 0), "{class:?}");
            assert_eq!(ids(&sink), (1..=400).collect::<Vec<_>>());
        }
    }
}
