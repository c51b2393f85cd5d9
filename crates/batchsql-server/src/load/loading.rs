//! Owns how one file is loaded: its records are read, parsed by several threads, and written in their order.
//! Must not know the command line.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use batchsql::{BatchSql, OutcomeCounts, PartitionKey};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::sections::Format;
use crate::exit::Failure;
#[cfg(feature = "arrow")]
use crate::load::batches;
use crate::load::exactly::Exactly;
use crate::load::file::Input;
use crate::load::marked::Marked;
use crate::load::parse::{Parsed, Shape, parse};
use crate::load::rejects::{Load, Rejects};
use crate::load::stripes::{self, Stripe};
use crate::load::tally::Tally;
use crate::load::writer::Writer;
use crate::table::csv_record::Header;
use crate::table::target::Target;

/// Stripes that are parsed while one is written.
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
    /// The position is kept in a file beside, also where the database could keep it.
    pub(crate) at_least_once: bool,
    /// A name for a load of the same content beside the others.
    pub(crate) name: Option<String>,
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
    /// Loads the file, from where an earlier run has ended. `written` is told the bytes of the file that are done.
    ///
    /// # Errors
    /// The load could not go on. A later run goes on behind what was written.
    ///
    /// # Cancel safety
    /// What was written is known to a later run.
    pub(crate) async fn run(self, written: impl Fn(u64)) -> Result<Loaded, Failure> {
        let Self { db, target, input, delimiter, rejects, most_rejects, at_least_once, name } = self;
        let mut writer = writer(&db, &target, &input, (at_least_once, name.as_deref())).await?;
        if input.has_changed() {
            return Err(changed(&input));
        }
        let before = writer.reached();
        let load = Load {
            file: input.digest[..16].to_owned(),
            table: target.schema.table_display().to_string(),
            again: name.clone(),
        };
        let rejects = Rejects::open(&rejects, load, before).map_err(|error| {
            Failure::unavailable(format!("the file of rejected records {} cannot be used: {error}", rejects.display()))
        })?;
        let mut tally = Tally { rejects, most_rejects, counts: OutcomeCounts::default() };
        let (stripes, mut parsed) = mpsc::channel::<JoinHandle<Parsed>>(AHEAD);
        let reader = Reader { db, target, input: input.clone(), delimiter, after: before };
        let handle = Handle::current();
        let reading = tokio::task::spawn_blocking(move || reader.read(&handle, &stripes));
        while let Some(parsed) = parsed.recv().await {
            let parsed =
                parsed.await.map_err(|error| Failure::failed(format!("records could not be parsed: {error}")))?;
            writer.write(&parsed, &mut tally).await?;
            written(parsed.stripe.read);
        }
        let read = reading.await.map_err(|error| Failure::failed(format!("the file could not be read: {error}")))?;
        let records = read.map_err(|error| {
            let text = format!("{}: {error}", input.path.display());
            if error.kind() == std::io::ErrorKind::InvalidInput {
                Failure::mistake(text)
            } else if error.raw_os_error().is_some() {
                // Of the system, for example too many open files: the content is not at fault.
                Failure::unavailable(text)
            } else {
                Failure::failed(text)
            }
        })?;
        if input.has_changed() {
            return Err(changed(&input));
        }
        Ok(Loaded { records, before, counts: tally.counts, rejected: tally.rejects.count })
    }
}

fn changed(input: &Input) -> Failure {
    let text = "the file has changed while it was loaded; load it again when it is complete";
    Failure::failed(format!("{}: {text}", input.path.display()))
}

async fn writer(
    db: &BatchSql,
    target: &Target,
    input: &Input,
    (at_least_once, name): (bool, Option<&str>),
) -> Result<Writer, Failure> {
    let table = target.schema.table_display();
    if db.keeps_positions() && !at_least_once {
        let name = name.map(|name| format!(":{name}")).unwrap_or_default();
        let source = format!("load:{}{name}", &input.digest[..16]);
        let key = PartitionKey::new(source, &*input.digest, table, 0);
        return Ok(Writer::Exactly(Box::new(Exactly::claim(db.clone(), key).await?)));
    }
    let mut path = input.path.as_os_str().to_owned();
    path.push(match name {
        Some(name) => format!(".{name}.batchsql-load"),
        None => ".batchsql-load".to_owned(),
    });
    let path = PathBuf::from(path);
    let marked = Marked::open(db.clone(), &path, &input.digest, table);
    let marked = marked.map_err(|error| Failure::unavailable(format!("{} cannot be read: {error}", path.display())))?;
    Ok(Writer::Marked(Box::new(marked)))
}

/// The thread that reads the file.
struct Reader {
    db: BatchSql,
    target: Arc<Target>,
    input: Input,
    delimiter: u8,
    /// Records up to this one are done.
    after: u64,
}

impl Reader {
    /// Sends each stripe that has something to do, while it is parsed. Returns the number of records.
    fn read(self, handle: &Handle, stripes: &mpsc::Sender<JoinHandle<Parsed>>) -> std::io::Result<u64> {
        let Self { db, target, input, delimiter, after } = self;
        let read = Arc::new(AtomicU64::new(0));
        let shape: Arc<OnceLock<Shape>> = Arc::default();
        let mut records = 0;
        let next = |stripe: Stripe| {
            records = stripe.last();
            if records <= after {
                return true;
            }
            let (db, target, shape) = (db.clone(), Arc::clone(&target), Arc::clone(&shape));
            let parsing = handle.spawn_blocking(move || parse(stripe, &target, shape.get(), after, &db));
            // Whoever writes the stripes has ended if nobody takes it.
            stripes.blocking_send(parsing).is_ok()
        };
        #[cfg(feature = "arrow")]
        if input.format.has_batches() {
            return batches::rows(&input, &target, after, |mapping| drop(shape.set(Shape::Mapping(mapping))), next);
        }
        let counted = Arc::clone(&read);
        let content = input.read(move |bytes| {
            counted.fetch_add(bytes, Ordering::Relaxed);
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
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use batchsql::{DynRow, DynSink, ErrorClass, FieldRules, ValueRef};
    use batchsql_testkit::ScriptedSink;

    use super::*;
    use crate::exit::Exit;
    use crate::table::record::tests::orders;

    async fn load(sink: &ScriptedSink, path: &std::path::Path) -> Result<Loaded, Failure> {
        let db = BatchSql::builder(DynSink::new(sink.clone())).start().unwrap();
        let job = Job {
            db,
            target: Arc::new(orders(FieldRules::default())),
            input: Input::open(path, None, |_| {}).unwrap(),
            delimiter: b',',
            rejects: path.with_extension("rejects"),
            most_rejects: 1000,
            at_least_once: false,
            name: None,
        };
        job.run(|_| {}).await
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
}
