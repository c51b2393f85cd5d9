//! Owns how one file is loaded: its records are read, parsed by several threads, and written by a task for each partition.
//! Must not know the command line.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering as AtomicOrdering};
use std::sync::{Arc, OnceLock};

use batchsql::{BatchSql, Ordering, OutcomeCounts, OutcomeKind, PartitionKey};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};

use crate::config::sections::Format;
use crate::exit::{Exit, Failure};
#[cfg(feature = "arrow")]
use crate::load::batches;
use crate::load::claims::{Claims, Order, claim};
use crate::load::exactly::Exactly;
use crate::load::file::Input;
use crate::load::layout::{Done, LEAST_BYTES};
use crate::load::marked::Marked;
use crate::load::parse::{Parsed, Shape, parse};
use crate::load::rejects::{self, Elsewhere, Found, Load, Rejects};
use crate::load::stripes::{self, Stripe};
use crate::load::tally::Tally;
use crate::load::writer::Writer;
use crate::table::csv_record::Header;
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
        let Self { db, target, input, delimiter, rejects, most_rejects, database, at_least_once, name, steps } = self;
        let mut opened = open(&db, &target, &input, &database, (at_least_once, name.as_deref())).await?;
        let front = opened.done.front();
        if input.has_changed() {
            return Err(changed(&input, InTable { rows: 0, before: front }));
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
            writing.spawn(write(writer, parsed, Arc::clone(&steps), Arc::clone(&tally), report.clone()));
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
        let in_table = InTable { rows: written_rows(&tally.counts()), before: front };
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
) -> Result<(), Failure> {
    while let Some(parsing) = stripes.recv().await {
        let parsed = parsing.await.map_err(|error| Failure::failed(format!("records could not be parsed: {error}")))?;
        let step = steps.acquire().await.map_err(Failure::failed)?;
        writer.write(&parsed, &tally).await?;
        drop(step);
        // Whoever shows it may have ended.
        let _ = progress.send(parsed.stripe.read).await;
    }
    Ok(())
}

/// Checks the header, or the fields, of a file before it is loaded.
///
/// # Errors
/// They do not fit the table, or the file cannot be read.
pub(crate) fn check_fields(input: &Input, target: &Target, delimiter: u8) -> Result<(), Failure> {
    let checked = match input.format {
        Format::Ndjson => Ok(()),
        Format::Csv => input.read(|_| {}).and_then(|content| {
            let header = |names: &csv::StringRecord| Header::new(target, names).map(drop);
            stripes::csv(content, delimiter, &AtomicU64::new(0), header, |_| false)
        }),
        #[cfg(feature = "arrow")]
        Format::Parquet | Format::Arrow => batches::rows(input, target, u64::MAX, drop, |_| false).map(drop),
        #[cfg(not(feature = "arrow"))]
        Format::Parquet | Format::Arrow => Ok(()),
    };
    checked.map_err(|error| unreadable(input, &error))
}

fn unreadable(input: &Input, error: &std::io::Error) -> Failure {
    let text = format!("{}: {error}", input.path.display());
    if error.kind() == std::io::ErrorKind::InvalidInput {
        Failure::mistake(text)
    } else if error.raw_os_error().is_some() {
        // Of the system, for example too many open files: the content is not at fault.
        Failure::unavailable(text)
    } else {
        Failure::failed(text)
    }
}

/// What is in the table of a file that cannot be loaded to its end.
#[derive(Clone, Copy)]
struct InTable {
    /// Rows of this run.
    rows: u64,
    /// Records up to this one were written or rejected by earlier runs.
    before: u64,
}

impl InTable {
    fn is_empty(self) -> bool {
        self.rows == 0 && self.before == 0
    }
}

impl fmt::Display for InTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows of it were written", self.rows)?;
        match self.before {
            0 => Ok(()),
            before => write!(f, ", behind record {before} of earlier runs"),
        }
    }
}

fn written_rows(counts: &OutcomeCounts) -> u64 {
    [OutcomeKind::Written, OutcomeKind::Ignored, OutcomeKind::Superseded].iter().map(|kind| counts.get(*kind)).sum()
}

/// The content is at fault, or cannot be read now.
fn damaged(input: &Input, error: &std::io::Error, in_table: InTable) -> Failure {
    let mut failure = unreadable(input, error);
    if failure.exit != Exit::Unavailable && !in_table.is_empty() {
        failure.text.push_str(&format!(
            "; {in_table}: a corrected file is another one, and all of its records would be written; load only those that are \
             missing, or remove these rows first"
        ));
    }
    failure
}

fn changed(input: &Input, in_table: InTable) -> Failure {
    let text = "the file has changed while it was loaded";
    let remedy = match in_table.is_empty() {
        true => "; load it again when it is complete".to_owned(),
        false => format!(
            "; {in_table}: it is another file now, and all of its records would be written; when it is complete, load only the \
             records that are missing, or remove these rows first"
        ),
    };
    Failure::failed(format!("{}: {text}{remedy}", input.path.display()))
}

/// How a file is written.
struct Opened {
    /// Of each partition.
    writers: Vec<Writer>,
    /// The position that moves at the end.
    whole: Option<Exactly>,
    done: Done,
}

impl Opened {
    /// Opens the file of rejected records, and takes back those that are tried again.
    ///
    /// # Errors
    /// It cannot be used, or another process has claimed the file meanwhile.
    async fn rejects(&mut self, path: PathBuf, load: Load) -> Result<Rejects, Failure> {
        let named = path.clone();
        let elsewhere = match &self.writers[..] {
            [Writer::Marked(_)] => Elsewhere::OfOthers,
            _ => Elsewhere::Counted,
        };
        let found = in_file(&path, move || Found::at(&named, load, elsewhere)).await?;
        if found.is_there() {
            // This may have stood still since it has claimed the positions. Then what another process has rejected is not taken back.
            self.claim_again().await?;
        }
        let passed = self.done.clone();
        in_file(&path, move || found.take_back(&passed)).await
    }

    /// Claims once more the position that is claimed first.
    async fn claim_again(&mut self) -> Result<(), Failure> {
        match (&mut self.whole, &mut self.writers[..]) {
            (Some(first), _) => first.claim_again().await,
            (None, [Writer::Exactly(first), ..]) => first.claim_again().await,
            // Its file is locked.
            (None, _) => Ok(()),
        }
    }
}

/// Does something with the file of rejected records, which may be large.
async fn in_file<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await.map_err(Failure::failed)?;
    done.map_err(|error| rejects::failure(path, &error))
}

/// Where the position is kept, if it is in a file.
pub(crate) fn mark_of(path: &Path, name: Option<&str>) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(match name {
        Some(name) => format!(".{name}.batchsql-load"),
        None => ".batchsql-load".to_owned(),
    });
    path.into()
}

async fn open(
    db: &BatchSql,
    target: &Target,
    input: &Input,
    database: &str,
    (at_least_once, name): (bool, Option<&str>),
) -> Result<Opened, Failure> {
    let table = target.schema.table_display();
    if db.keeps_positions() && !at_least_once {
        let name = name.map(|name| format!(":{name}")).unwrap_or_default();
        let source = format!("load:{}{name}", &input.digest[..16]);
        let key = PartitionKey::new(source, &*input.digest, table, 0);
        let Claims { writers, whole, done } = claim(db, &key, order(db, target, input)).await?;
        let writers = writers.into_iter().map(|writer| Writer::Exactly(Box::new(writer))).collect();
        return Ok(Opened { writers, whole, done });
    }
    let path = mark_of(&input.path, name);
    let marked = Marked::open(db.clone(), &path, (database, table), &input.digest);
    let marked = marked.map_err(|error| error.failure(&path))?;
    let done = Done::new(vec![marked.reached()]);
    Ok(Opened { writers: vec![Writer::Marked(Box::new(marked))], whole: None, done })
}

/// Rows of one key keep their order, also where the later one is rejected. A second unique index, a trigger, or a foreign key to the
/// same table needs more than that, so keys are not divided by a hash either. A small file has nothing to divide.
fn order(db: &BatchSql, target: &Target, input: &Input) -> Order {
    let (config, table) = (db.config(), target.schema.table_display());
    let ordering = config.tables.get(table).and_then(|table| table.ordering).unwrap_or(config.ordering);
    let has_no_order = target.has_no_key && target.schema.key_columns().is_empty() && ordering != Ordering::PerTable;
    if has_no_order && input.bytes >= LEAST_BYTES { Order::Free } else { Order::Kept }
}

/// The thread that reads the file.
struct Reader {
    db: BatchSql,
    target: Arc<Target>,
    input: Input,
    delimiter: u8,
    done: Done,
}

/// What was read.
struct Read {
    records: u64,
    /// Records that were done before.
    before: u64,
}

impl Reader {
    /// Sends each stripe that has something to do to its partition, while it is parsed.
    fn read(self, handle: &Handle, partitions: &[mpsc::Sender<JoinHandle<Parsed>>]) -> std::io::Result<Read> {
        let Self { db, target, input, delimiter, done } = self;
        let read = Arc::new(AtomicU64::new(0));
        let shape: Arc<OnceLock<Shape>> = Arc::default();
        let front = done.front();
        let (mut records, mut behind) = (0, 0);
        let next = |stripe: Stripe| {
            records = stripe.last();
            let reached = done.reached(stripe.first);
            behind += records.min(reached).saturating_sub(front.max(stripe.first - 1));
            if records <= reached {
                return true;
            }
            let partition = &partitions[done.partition(stripe.first)];
            let (db, target, shape) = (db.clone(), Arc::clone(&target), Arc::clone(&shape));
            let parsing = handle.spawn_blocking(move || parse(stripe, &target, shape.get(), reached, &db));
            // Whoever writes the stripes has ended if nobody takes it.
            partition.blocking_send(parsing).is_ok()
        };
        #[cfg(feature = "arrow")]
        if input.format.has_batches() {
            let mapped = |mapping| drop(shape.set(Shape::Mapping(mapping)));
            let records = batches::rows(&input, &target, front, mapped, next)?;
            return Ok(Read { records, before: front.min(records) + behind });
        }
        let counted = Arc::clone(&read);
        let content = input.read(move |bytes| {
            counted.fetch_add(bytes, AtomicOrdering::Relaxed);
        })?;
        if input.format == Format::Csv {
            let take = |names: &csv::StringRecord| {
                let header = Header::new(&target, names)?;
                let _ = shape.set(Shape::Header(header));
                Ok(())
            };
            stripes::csv(content, delimiter, &read, take, next)?;
        } else {
            stripes::lines(content, &read, next)?;
        }
        Ok(Read { records, before: front.min(records) + behind })
    }
}

#[cfg(test)]
mod tests {
    use batchsql::{
        Claim, ClaimFrom, ColumnType, DynRow, DynSink, ErrorClass, FieldRules, PipelineConfig, Schema, ValueRef,
    };
    use batchsql_testkit::ScriptedSink;

    use super::*;
    use crate::exit::Remedy;
    use crate::table::record::tests::orders;

    async fn load(sink: &ScriptedSink, path: &std::path::Path) -> Result<Loaded, Failure> {
        load_into(orders(FieldRules::default()), sink, path).await
    }

    async fn load_into(target: Target, sink: &ScriptedSink, path: &std::path::Path) -> Result<Loaded, Failure> {
        let config = PipelineConfig::default().flush_size(5_000).buffer_size(20_000);
        let db = BatchSql::builder(DynSink::new(sink.clone())).config(config).start().unwrap();
        let job = Job {
            db,
            target: Arc::new(target),
            input: Input::open(path, None, |_| {}).unwrap(),
            delimiter: b',',
            rejects: path.with_extension("rejects"),
            most_rejects: 1000,
            database: "shop".to_owned(),
            at_least_once: false,
            name: None,
            steps: 4,
        };
        job.run(|_| {}).await
    }

    /// Without a key, loading the file once more would write them twice.
    #[tokio::test]
    async fn rows_of_a_file_that_ends_early_are_told() {
        let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
        sink.keep_positions();
        let text = |records: u64| -> String {
            let lines = (1..=records).map(|id| format!("{id},eu\n"));
            std::iter::once("id,region\n".to_owned()).chain(lines).collect()
        };
        let path = folder.path().join("grows.csv");
        std::fs::write(&path, text(100)).unwrap();
        let (grown, more) = (path.clone(), text(110));
        sink.poison_as(ErrorClass::Row, move |_| {
            std::fs::write(&grown, &more).unwrap();
            false
        });
        let failure = load_into(plain(), &sink, &path).await.unwrap_err();
        sink.poison_as(ErrorClass::Row, |_| false);
        assert!(
            failure
                .text
                .contains("the file has changed while it was loaded; 100 rows of it were written: it is another"),
            "{failure:?}"
        );
        assert_eq!((failure.exit, sink.applied().len()), (Exit::Failed, 100));

        let path = folder.path().join("cut.csv.gz");
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, text(45_000).as_bytes()).unwrap();
        let packed = packed.finish().unwrap();
        std::fs::write(&path, &packed[..packed.len() - 10]).unwrap();
        let failure = load_into(plain(), &sink, &path).await.unwrap_err();
        assert!(
            failure.text.contains("; 40000 rows of it were written: a corrected file is another one"),
            "{failure:?}"
        );
        assert_eq!(sink.applied().len(), 40_100);
        let failure = load_into(plain(), &sink, &path).await.unwrap_err();
        assert!(
            failure.text.contains("; 0 rows of it were written, behind record 40000 of earlier runs"),
            "{failure:?}"
        );

        // Nothing of it is there.
        let path = folder.path().join("bad.csv.gz");
        std::fs::write(&path, "id,region\n1,eu\n").unwrap();
        let failure = load_into(plain(), &sink, &path).await.unwrap_err();
        assert!(!failure.text.contains("were written"), "{failure:?}");
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

    /// A load that stands still behind its claim takes back nothing of the one that has taken its place.
    #[tokio::test]
    async fn a_load_that_has_lost_its_file_takes_back_no_rejected_record() {
        let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
        sink.keep_positions();
        let small = folder.path().join("small.csv");
        std::fs::write(&small, "id,region\n1,eu\nx,eu\n3,eu\n").unwrap();
        let in_order = (small, orders(FieldRules::default()), "\"record\":2,");
        let path = large(&folder);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("\n7,eu", "\nx,eu", 1)).unwrap();
        for (path, target, record) in [in_order, (path, plain(), "\"record\":7,")] {
            let db = BatchSql::builder(DynSink::new(sink.clone())).start().unwrap();
            let input = Input::open(&path, None, |_| {}).unwrap();
            let mut late = open(&db, &target, &input, "shop", (false, None)).await.unwrap();
            let of_file = Load {
                file: input.digest[..16].to_owned(),
                database: Some("shop".to_owned()),
                table: target.schema.table_display().to_string(),
                again: None,
            };
            assert_eq!(load_into(target, &sink, &path).await.unwrap().rejected, 1);
            let rejects = path.with_extension("rejects");
            let text = std::fs::read_to_string(&rejects).unwrap();
            assert!(text.contains(record), "{text}");
            let failure = late.rejects(rejects.clone(), of_file).await.map(drop).unwrap_err();
            assert!(failure.text.contains("another process loads this file"), "{}", failure.text);
            assert_eq!(std::fs::read_to_string(&rejects).unwrap(), text);
        }
    }

    /// A table without a key.
    fn plain() -> Target {
        let schema = Schema::builder("orders").column("id", ColumnType::I64).column("region", ColumnType::Text);
        let mut target = orders(FieldRules::default());
        target.schema = schema.build().unwrap();
        target.has_no_key = true;
        target
    }

    fn ids(sink: &ScriptedSink) -> Vec<i64> {
        let id = |row: &DynRow| match row.get("id") {
            Some(ValueRef::I64(id)) => id,
            other => panic!("{other:?}"),
        };
        let mut ids: Vec<i64> = sink.applied().iter().map(id).collect();
        ids.sort_unstable();
        ids
    }

    const RECORDS: i64 = 150_000;

    fn large(folder: &tempfile::TempDir) -> PathBuf {
        let path = folder.path().join("large.csv");
        let lines: String = (1..=RECORDS).map(|id| format!("{id},eu\n")).collect();
        std::fs::write(&path, format!("id,region\n{lines}")).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() > LEAST_BYTES);
        path
    }

    /// An earlier version has one position, which this one goes on from.
    #[tokio::test]
    async fn a_load_of_an_earlier_version_goes_on() {
        let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
        let path = large(&folder);
        sink.keep_positions();
        let db = BatchSql::builder(DynSink::new(sink.clone())).start().unwrap();
        let digest = Input::open(&path, None, |_| {}).unwrap().digest;
        let key = PartitionKey::new(format!("load:{}", &digest[..16]), &*digest, "orders", 0);
        db.claim(&key, &Claim::of("earlier").from(ClaimFrom::Anyone).or_begin_at(30_000)).await.unwrap();
        let loaded = load_into(plain(), &sink, &path).await.unwrap();
        assert_eq!((loaded.records, loaded.before), (RECORDS as u64, 30_000));
        assert_eq!(ids(&sink), (30_001..=RECORDS).collect::<Vec<_>>());
        let again = load_into(plain(), &sink, &path).await.unwrap();
        assert_eq!((again.before, ids(&sink).len()), (RECORDS as u64, RECORDS as usize - 30_000));
        let of_file = db.positions(&key.source).await.unwrap();
        assert_eq!(of_file.len(), 5, "the whole file, and four partitions: {of_file:?}");
    }

    /// Partitions that are ahead of others would be written over by rows before them, if these have to keep an order now.
    #[tokio::test]
    async fn what_was_begun_without_an_order_needs_none_to_go_on() {
        let (folder, sink) = (tempfile::tempdir().unwrap(), ScriptedSink::new());
        let path = large(&folder);
        sink.keep_positions();
        sink.poison_as(ErrorClass::Schema, |row| matches!(row.get("id"), Some(ValueRef::I64(id)) if id >= 90_000));
        load_into(plain(), &sink, &path).await.unwrap_err();
        let written = ids(&sink).len();
        assert!(written > 0);
        sink.poison_as(ErrorClass::Schema, |_| false);
        let keyed = load(&sink, &path).await.unwrap_err();
        assert!(keyed.text.contains("without an order"), "{}", keyed.text);
        assert_eq!(ids(&sink).len(), written, "nothing was written");
        let loaded = load_into(plain(), &sink, &path).await.unwrap();
        assert_eq!(loaded.before, written as u64);
        assert_eq!(ids(&sink), (1..=RECORDS).collect::<Vec<_>>());
        // When it is complete, the order does not matter any more.
        assert_eq!(load(&sink, &path).await.unwrap().before, RECORDS as u64);
    }
}
