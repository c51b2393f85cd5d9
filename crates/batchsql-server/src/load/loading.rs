//! Owns how one file is loaded: its records are read, parsed by several threads, and written by a task for each partition.
//! Must not know the command line.

use std::path::PathBuf;
use std::sync::Arc;

use batchsql::{BatchSql, DynSink, OutcomeCounts};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};

use crate::exit::Failure;
use crate::load::file::Input;
use crate::load::found_name::found_name;
use crate::load::incomplete::{InTable, changed, damaged};
use crate::load::mark::Unsaved;
use crate::load::opened::{Opened, Place, open};
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
    /// What it writes to.
    pub(crate) sink: DynSink,
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
            sink,
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
        let limit = db.config().statement_timeout;
        let table = found_name(&sink, target.schema.table(), limit, &mut stop).await?;
        let place = Place { database: &database, table: &table };
        let how = (at_least_once, name.as_deref());
        let mut opened = tokio::select! {
            biased;
            () = stop.wanted() => return Err(stopped()),
            opened = open(&db, &target, &input, place, how, &unsaved) => opened?,
        };
        let front = opened.done.front();
        if input.has_changed() {
            return Err(changed(&input, InTable::new(&OutcomeCounts::default(), front)));
        }
        let load = Load { file: input.digest[..16].to_owned(), database: Some(database), table, again: name.clone() };
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
    use batchsql::{ColumnType, DynRow, ErrorClass, FieldRules, OutcomeKind, PipelineConfig, Schema, ValueRef};
    use batchsql_testkit::ScriptedSink;

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

    pub(crate) fn job(target: Target, sink: &ScriptedSink, path: &std::path::Path) -> Job {
        let config = PipelineConfig::default().flush_size(5_000).buffer_size(20_000);
        let db = BatchSql::builder(DynSink::new(sink.clone())).config(config).start().unwrap();
        Job {
            db,
            sink: DynSink::new(sink.clone()),
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
}
