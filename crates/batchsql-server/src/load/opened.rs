//! Owns how a file is opened to be loaded: the writers of its partitions, what earlier runs have done of it, and its rejected records.
//! Must not know how records are read or written.

use std::path::{Path, PathBuf};

use batchsql::{BatchSql, Ordering, PartitionKey};

use crate::exit::Failure;
use crate::load::claims::{Claims, Order, claim};
use crate::load::exactly::Exactly;
use crate::load::file::Input;
use crate::load::layout::{Done, LEAST_BYTES};
use crate::load::mark::Unsaved;
use crate::load::marked::{Marked, mark_of};
use crate::load::rejects::{self, Elsewhere, Found, Load, Rejects};
use crate::load::writer::Writer;
use crate::table::target::Target;

/// How a file is written.
pub(crate) struct Opened {
    /// Of each partition.
    pub(crate) writers: Vec<Writer>,
    /// The position that moves at the end.
    pub(crate) whole: Option<Exactly>,
    pub(crate) done: Done,
}

impl Opened {
    /// Opens the file of rejected records, and takes back those that are tried again.
    ///
    /// # Errors
    /// It cannot be used, or another process has claimed the file meanwhile.
    pub(crate) async fn rejects(&mut self, path: PathBuf, load: Load) -> Result<Rejects, Failure> {
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

/// Where a file is loaded to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The identity of the database, for a mark that is not in it.
    pub(crate) database: &'a str,
    /// The name of the table in the catalogue of the database.
    pub(crate) table: &'a str,
}

/// Claims the positions of the file, or the mark beside it.
///
/// # Errors
/// They cannot be used, or another process loads the file.
pub(crate) async fn open(
    db: &BatchSql,
    target: &Target,
    input: &Input,
    Place { database, table }: Place<'_>,
    (at_least_once, name): (bool, Option<&str>),
    unsaved: &Unsaved,
) -> Result<Opened, Failure> {
    if db.keeps_positions() && !at_least_once {
        let name = name.map(|name| format!(":{name}")).unwrap_or_default();
        let source = format!("load:{}{name}", &input.digest[..16]);
        let key = PartitionKey::new(source, &*input.digest, table, 0);
        let Claims { writers, whole, done } = claim(db, &key, order(db, target, input)).await?;
        let writers = writers.into_iter().map(|writer| Writer::Exactly(Box::new(writer))).collect();
        return Ok(Opened { writers, whole, done });
    }
    let path = mark_of(&input.path, name);
    let marked = Marked::open(db.clone(), &path, (database, table), &input.digest, unsaved);
    let marked = marked.map_err(|error| error.failure(&path))?;
    let done = marked.done();
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

/// Does something with the file of rejected records, which may be large.
async fn in_file<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await.map_err(Failure::failed)?;
    done.map_err(|error| rejects::failure(path, &error))
}

#[cfg(test)]
mod tests {
    use batchsql::{Claim, ClaimFrom, DynSink, ErrorClass, FieldRules, ValueRef};
    use batchsql_testkit::ScriptedSink;

    use super::*;
    use crate::load::loading::tests::{ids, load, load_into, plain};
    use crate::table::record::tests::orders;

    const RECORDS: i64 = 150_000;

    fn large(folder: &tempfile::TempDir) -> PathBuf {
        let path = folder.path().join("large.csv");
        let lines: String = (1..=RECORDS).map(|id| format!("{id},eu\n")).collect();
        std::fs::write(&path, format!("id,region\n{lines}")).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() > LEAST_BYTES);
        path
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
            let place = Place { database: "shop", table: "orders" };
            let mut late = open(&db, &target, &input, place, (false, None), &Unsaved::default()).await.unwrap();
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
