//! Owns the groups and tables of one pipeline, and their lookup by schema without a lock, which every row does first.
//! Must not know what a table does with rows.

use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::{ArcSwapOption, Guard};

use crate::intake::group::Group;
use crate::intake::table::Table;
use crate::model::schema::{Schema, SchemaId};
use crate::model::table_name::TableName;
use crate::write::ids::GroupId;
use crate::write::sink::Limits;

/// Slots of the first chunk; each further chunk has twice as many as the one before.
const FIRST_CHUNK: usize = 64;
/// Enough chunks for any number of schemas that fits into memory.
const CHUNKS: usize = 40;
/// Below this many groups, idle ones are not searched.
const FEW: usize = 256;

type Chunk = Box<[ArcSwapOption<Known>]>;

/// A group and the table it belongs to.
pub(crate) struct Known {
    pub(crate) group: Arc<Group>,
    pub(crate) table: Arc<Table>,
}

/// Groups by the number of their schema, which is small. A group keeps its schema alive, so a number never means
/// another schema while the pipeline knows it.
pub(crate) struct Groups {
    chunks: [OnceLock<Chunk>; CHUNKS],
    list: Mutex<List>,
}

/// The same groups, and their tables.
#[derive(Default)]
struct List {
    /// With the number of batches that each had sealed at the last search for idle groups.
    groups: Vec<(Arc<Known>, Option<u64>)>,
    tables: HashMap<TableKey, Arc<Table>>,
    by_number: HashMap<usize, Arc<Table>>,
    next_table: usize,
    next_group: usize,
    /// The number of groups at which idle ones are searched.
    sweep_at: usize,
    /// Rows that were accepted by tables that were removed.
    accepted_before: u64,
}

/// Rows with equal table keys keep their order. If all rows of a table keep their order, its key columns do not matter:
/// two schemas of it with different keys are one table.
#[derive(PartialEq, Eq, Hash)]
struct TableKey {
    name: TableName,
    key: Vec<Box<str>>,
}

impl TableKey {
    fn of(schema: &Schema, is_in_order: bool) -> Self {
        let key = schema.key_columns().iter().filter(|_| !is_in_order);
        let key = key.map(|index| schema.columns()[*index].name().into());
        Self { name: schema.table().clone(), key: key.collect() }
    }
}

/// A group that was looked up. Keep it only briefly; to hold it across a wait, use [`into_arc`](Self::into_arc).
pub(crate) struct Found(Guard<Option<Arc<Known>>>);

impl Found {
    pub(crate) fn into_arc(self) -> Arc<Known> {
        Guard::into_inner(self.0).expect("a group that was found is set")
    }
}

impl From<Arc<Known>> for Found {
    fn from(group: Arc<Known>) -> Self {
        Self(Guard::from_inner(Some(group)))
    }
}

impl Deref for Found {
    type Target = Arc<Known>;

    #[inline]
    fn deref(&self) -> &Arc<Known> {
        self.0.as_ref().expect("a group that was found is set")
    }
}

/// A group that was not known before.
pub(crate) struct Added {
    pub(crate) known: Arc<Known>,
    /// How many tables there are now.
    pub(crate) tables: usize,
    /// Schemas whose groups were idle and were removed.
    pub(crate) retired: Vec<SchemaId>,
}

impl Groups {
    pub(crate) fn new() -> Self {
        Self { chunks: [const { OnceLock::new() }; CHUNKS], list: Mutex::default() }
    }

    /// The group of a schema, when it is known.
    #[inline]
    pub(crate) fn get(&self, schema: &Schema) -> Option<Found> {
        let (chunk, slot) = place(schema.id().index());
        let group = self.chunks[chunk].get()?[slot].load();
        group.is_some().then_some(Found(group))
    }

    /// The group of a schema and its table, created if they are not known. `is_in_order`: all rows of the table keep their
    /// order.
    pub(crate) fn get_or_insert(
        &self,
        schema: &Schema,
        limits: Limits,
        is_in_order: bool,
        make_table: impl FnOnce(usize) -> Table,
    ) -> Added {
        let mut list = self.lock();
        let slot = self.slot(schema.id());
        if let Some(group) = slot.load_full() {
            return Added { known: group, tables: list.tables.len(), retired: Vec::new() };
        }
        let retired = if list.groups.len() >= list.sweep_at.max(FEW) { self.sweep(&mut list) } else { Vec::new() };
        let List { groups, tables, by_number, next_table, next_group, .. } = &mut *list;
        let table = tables.entry(TableKey::of(schema, is_in_order)).or_insert_with(|| {
            let table = Arc::new(make_table(*next_table));
            by_number.insert(*next_table, Arc::clone(&table));
            *next_table += 1;
            table
        });
        let group = Arc::new(Group::new(GroupId(*next_group), schema.clone(), limits));
        let known = Arc::new(Known { group, table: Arc::clone(table) });
        *next_group += 1;
        slot.store(Some(Arc::clone(&known)));
        groups.push((Arc::clone(&known), None));
        Added { known, tables: tables.len(), retired }
    }

    /// A table by its number; `None` when it was idle and was removed.
    pub(crate) fn table(&self, number: usize) -> Option<Arc<Table>> {
        self.lock().by_number.get(&number).cloned()
    }

    /// Every table.
    pub(crate) fn tables(&self) -> Vec<Arc<Table>> {
        self.lock().tables.values().cloned().collect()
    }

    /// How many groups there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().groups.len()
    }

    /// Rows accepted since the start.
    pub(crate) fn accepted(&self) -> u64 {
        let list = self.lock();
        list.accepted_before + list.tables.values().map(|table| table.accepted()).sum::<u64>()
    }

    /// Removes groups that have not been used since the last sweep, and tables without a group.
    fn sweep(&self, list: &mut List) -> Vec<SchemaId> {
        let mut retired = Vec::new();
        list.groups.retain_mut(|(known, sealed)| {
            *sealed = known.table.retire_if_idle(&known.group, *sealed);
            if sealed.is_none() {
                self.slot(known.group.schema.id()).store(None);
                retired.push(known.group.schema.id());
            }
            sealed.is_some()
        });
        let List { groups, tables, by_number, accepted_before, .. } = list;
        let used: HashSet<usize> = groups.iter().map(|(known, _)| known.table.number()).collect();
        tables.retain(|_, table| {
            let is_used = used.contains(&table.number());
            if !is_used {
                *accepted_before += table.accepted();
                by_number.remove(&table.number());
            }
            is_used
        });
        list.sweep_at = list.groups.len() * 2;
        retired
    }

    fn slot(&self, id: SchemaId) -> &ArcSwapOption<Known> {
        let (chunk, slot) = place(id.index());
        let make = || (0..FIRST_CHUNK << chunk).map(|_| ArcSwapOption::empty()).collect();
        &self.chunks[chunk].get_or_init(make)[slot]
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The chunk of an index, and the slot in it.
fn place(index: usize) -> (usize, usize) {
    let chunk = (index / FIRST_CHUNK + 1).ilog2() as usize;
    (chunk, index - FIRST_CHUNK * ((1 << chunk) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_has_a_place_of_its_own() {
        let mut expected = (0, 0);
        for index in 0..100_000 {
            assert_eq!(place(index), expected, "index {index}");
            expected.1 += 1;
            if expected.1 == FIRST_CHUNK << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
    }
}
