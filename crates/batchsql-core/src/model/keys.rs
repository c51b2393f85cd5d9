//! Owns which rows of a batch are written, and in which order: one row per key if the last one wins, sorted by key if
//! that avoids deadlocks. Must not know outcomes or databases: it takes rows and returns numbers of rows.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::ops::Range;

use crate::model::batch::Rows;
use crate::model::conflict::{Action, Target};
use crate::model::decimal::Number;
use crate::model::exhaustive::Set;
use crate::model::merge;
use crate::model::schema::Schema;
use crate::model::value::one_of_equals;
use crate::model::value_order;
use crate::model::views::{ColumnValues, ColumnView};

impl Rows<'_> {
    /// Splits the rows by key: no key occurs twice in one part, and rows with equal keys are in the order of
    /// the parts. For databases that refuse a statement with the same row twice. One part when every key occurs
    /// once, or when the schema declares no key.
    ///
    /// Keys are equal here when their values are equal; a database may treat more keys as equal (case, collation).
    pub fn waves(&self) -> Vec<Vec<u32>> {
        waves(*self)
    }
}

/// Which rows of a batch are written first, and what comes after them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arranged {
    /// The rows to write, in the order to write them in: all, or one row of each key.
    pub(crate) rows: Box<[u32]>,
    /// For each row of the batch the row of the same key that is behind it: the row before it, or the next older one;
    /// empty when all rows are written.
    pub(crate) previous: Box<[Option<u32>]>,
    /// How rows of one key become one.
    pub(crate) coalescing: Coalescing,
}

/// How rows of one key in a batch become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coalescing {
    /// All are written.
    Off,
    /// The last one overwrites every column that an earlier one could have set.
    Last,
    /// The one with the highest value of this column; of equal ones the first.
    Newest(usize),
    /// One row with their values taken together.
    Merged,
}

impl Coalescing {
    /// The way of a schema.
    pub(crate) fn of(schema: &Schema) -> Self {
        match schema.action() {
            Action::Insert | Action::Ignore => return Self::Off,
            Action::Delete => return Self::Last,
            Action::Replace | Action::Update | Action::UpdateOnly if schema.assignments().is_empty() => {
                return Self::Off;
            }
            Action::Replace | Action::Update | Action::UpdateOnly => {}
        }
        // Rows outside of the index never conflict: one does not stand for another.
        if matches!(schema.target(), Target::Partial(_)) {
            return Self::Off;
        }
        let (key, update) = (schema.key_columns().len(), schema.update_columns().len());
        // Columns that are not updated are those of the row that is inserted.
        let is_whole = key + update == schema.columns().len() || schema.action() == Action::UpdateOnly;
        match schema.version_column() {
            Some(version) if is_whole && schema.only_overwrites() => Self::Newest(version),
            Some(_) => Self::Off,
            None if schema.only_overwrites() => {
                if is_whole {
                    Self::Last
                } else {
                    Self::Off
                }
            }
            None if schema.assignments().iter().all(|a| !matches!(a.set, Set::Raw(_))) => Self::Merged,
            None => Self::Off,
        }
    }
}

/// The rows to write; `None` when they are all rows as they are.
///
/// To choose one row per key, keys are equal only if their values were given in the same form. A database may treat
/// more keys as equal (collations, trailing spaces, `1.5` and `1.50`), but no row may be left out if another database
/// (SQLite, Redis) stores both rows. So all rows of a key with several forms are written: if one row stood for others, they
/// could be sent after a later row in another form.
pub(crate) fn arrange(rows: Rows<'_>, coalescing: Coalescing, sort: bool) -> Option<Arranged> {
    let columns = key_columns(rows);
    if columns.is_empty() {
        return None;
    }
    let chosen = if coalescing == Coalescing::Off { None } else { last_of_each_key(&columns, rows.len()) };
    let chosen = chosen.map(|(winners, previous)| without_other_forms(&columns, winners, previous));
    let chosen = chosen.map(|(winners, previous)| match coalescing {
        Coalescing::Off | Coalescing::Last => (winners, previous),
        Coalescing::Newest(version) => newest_first(&rows.column(version), winners, previous),
        Coalescing::Merged => without_unmergeable(rows, winners, previous),
    });
    let is_whole = chosen.is_none();
    let (winners, previous) = chosen.unwrap_or_else(|| ((0..rows.len()).map(number).collect(), Vec::new()));
    let mut arranged = Arranged { rows: winners.into(), previous: previous.into(), coalescing };
    let is_moved = sort && sort_by_key(&columns, &mut arranged.rows);
    if is_whole && !is_moved { None } else { Some(arranged) }
}

/// Sorts some of the rows by key. Rows with equal keys keep their order.
pub(crate) fn sort(rows: Rows<'_>, numbers: &mut [u32]) {
    sort_by_key(&key_columns(rows), numbers);
}

/// The rows of these ranges: the first row of each key, then the second row of each key, and so on; and the number of
/// first rows, which is that of all rows if there is no key. Keys are compared as for sorting.
pub(crate) fn by_turn_of_key(rows: Rows<'_>, ranges: &[Range<usize>]) -> (Vec<usize>, usize) {
    let columns = key_columns(rows);
    let all = ranges.iter().cloned().flatten();
    if columns.is_empty() {
        let all: Vec<usize> = all.collect();
        let count = all.len();
        return (all, count);
    }
    let mut sorted: Vec<u32> = all.map(number).collect();
    sort_by_key(&columns, &mut sorted);
    let mut rows: Vec<(usize, u32)> = Vec::with_capacity(sorted.len());
    let (mut turn, mut firsts) = (0, 0);
    for (place, row) in sorted.iter().enumerate() {
        let is_same = place > 0 && compare_keys(&columns, sorted[place - 1] as usize, *row as usize).is_eq();
        turn = if is_same { turn + 1 } else { 0 };
        firsts += usize::from(turn == 0);
        rows.push((turn, *row));
    }
    rows.sort_unstable();
    (rows.into_iter().map(|(_, row)| row as usize).collect(), firsts)
}

/// Whether two rows have the same key, compared as for sorting; false if there is no key.
pub(crate) fn have_same_key(rows: Rows<'_>, a: usize, b: usize) -> bool {
    let columns = &key_columns(rows);
    !columns.is_empty() && compare_keys(columns, a, b).is_eq()
}

/// For each row, whether a later marked row has the same key.
pub(crate) fn has_later(rows: Rows<'_>, marked: &[bool]) -> Vec<bool> {
    let columns = key_columns(rows);
    let mut later = vec![false; rows.len()];
    let mut keys = HashSet::new();
    for row in (0..rows.len()).rev().filter(|_| !columns.is_empty()) {
        let key = Key { columns: &columns, row };
        later[row] = keys.contains(&key);
        if marked[row] {
            keys.insert(key);
        }
    }
    later
}

/// True when that moved rows.
fn sort_by_key(columns: &[ColumnView<'_>], numbers: &mut [u32]) -> bool {
    let compare = |a: &u32, b: &u32| compare_keys(columns, *a as usize, *b as usize);
    if numbers.is_sorted_by(|a, b| compare(a, b).is_le()) {
        return false;
    }
    // Stable: rows with equal keys keep their order.
    numbers.sort_by(compare);
    true
}

/// The rows of one key, from a row on: that row, the one behind it, and so on.
pub(crate) fn chain(previous: &[Option<u32>], row: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(row), |row| previous.get(*row as usize).copied().flatten())
}

/// The last row of each key, in their order, and the row before each row; `None` when every key occurs once.
fn last_of_each_key(columns: &[ColumnView<'_>], rows: usize) -> Option<(Vec<u32>, Vec<Option<u32>>)> {
    let mut last: HashMap<Key<'_, '_>, u32> = HashMap::with_capacity(rows);
    let mut previous = Vec::new();
    for row in 0..rows {
        if let Some(before) = last.insert(Key { columns, row }, number(row)) {
            previous.resize(rows, None);
            previous[row] = Some(before);
        }
    }
    if previous.is_empty() {
        return None;
    }
    let mut winners: Vec<u32> = last.into_values().collect();
    winners.sort_unstable();
    previous.resize(rows, None);
    Some((winners, previous))
}

/// The newest row of each key instead of the last, and the next older row behind each row.
fn newest_first(
    versions: &ColumnView<'_>,
    mut winners: Vec<u32>,
    mut previous: Vec<Option<u32>>,
) -> (Vec<u32>, Vec<Option<u32>>) {
    for winner in &mut winners {
        let mut chain: Vec<u32> = chain(&previous, *winner).collect();
        // Of equal versions the first row wins.
        let version = |row: &u32| versions.get(*row as usize);
        chain.sort_by(|a, b| value_order::compare(version(b), version(a)).then(a.cmp(b)));
        chain.windows(2).for_each(|pair| previous[pair[0] as usize] = Some(pair[1]));
        chain.last().iter().for_each(|last| previous[**last as usize] = None);
        *winner = chain[0];
    }
    winners.sort_unstable();
    (winners, previous)
}

/// Rows of a key that cannot be merged are all written.
fn without_unmergeable(rows: Rows<'_>, winners: Vec<u32>, previous: Vec<Option<u32>>) -> (Vec<u32>, Vec<Option<u32>>) {
    written_apart(winners, previous, |chain| chain.len() > 1 && merge::values(rows, chain).is_none())
}

/// Rows of a key that other rows have in another form are all written.
fn without_other_forms(
    columns: &[ColumnView<'_>],
    winners: Vec<u32>,
    previous: Vec<Option<u32>>,
) -> (Vec<u32>, Vec<Option<u32>>) {
    let has_forms = |column: &ColumnView<'_>| {
        matches!(column.values(), ColumnValues::Decimal(_) | ColumnValues::F32(_) | ColumnValues::F64(_))
    };
    if !columns.iter().any(has_forms) {
        return (winners, previous);
    }
    let mut sorted = winners.clone();
    sort_by_key(columns, &mut sorted);
    let is_same = |pair: &&[u32]| compare_keys(columns, pair[0] as usize, pair[1] as usize).is_eq();
    let others: HashSet<u32> = sorted.windows(2).filter(is_same).flatten().copied().collect();
    written_apart(winners, previous, |chain| others.contains(&chain[0]))
}

/// All rows of these chains are written.
fn written_apart(
    winners: Vec<u32>,
    mut previous: Vec<Option<u32>>,
    is_apart: impl Fn(&[u32]) -> bool,
) -> (Vec<u32>, Vec<Option<u32>>) {
    let mut written = Vec::with_capacity(winners.len());
    for winner in winners {
        let chain: Vec<u32> = chain(&previous, winner).collect();
        if is_apart(&chain) {
            chain.iter().for_each(|row| previous[*row as usize] = None);
            written.extend(chain);
        } else {
            written.push(winner);
        }
    }
    written.sort_unstable();
    (written, previous)
}

fn waves(rows: Rows<'_>) -> Vec<Vec<u32>> {
    let columns = key_columns(rows);
    if columns.is_empty() {
        return vec![(0..rows.len()).map(number).collect()];
    }
    let mut seen: HashMap<Key<'_, '_>, usize> = HashMap::with_capacity(rows.len());
    let mut waves: Vec<Vec<u32>> = Vec::new();
    for row in 0..rows.len() {
        let times = seen.entry(Key { columns: &columns, row }).or_default();
        if *times == waves.len() {
            waves.push(Vec::new());
        }
        waves[*times].push(number(row));
        *times += 1;
    }
    waves
}

fn key_columns(rows: Rows<'_>) -> Vec<ColumnView<'_>> {
    rows.schema().key_columns().iter().map(|column| rows.column(*column)).collect()
}

fn number(row: usize) -> u32 {
    u32::try_from(row).expect("buffer_size fits u32")
}

/// An order of keys that is the same in every process; it may differ from the database's order. Keys that a database
/// may treat as one key are equal, so that their rows keep their order. This covers only the values: collations of
/// text, and how a database compares JSON documents, are not known here.
fn compare_keys(columns: &[ColumnView<'_>], a: usize, b: usize) -> Ordering {
    // Key columns are never NULL.
    let by_column = columns.iter().map(|column| match column.values() {
        ColumnValues::Bool(v) => v[a].cmp(&v[b]),
        ColumnValues::I16(v) => v[a].cmp(&v[b]),
        ColumnValues::I32(v) => v[a].cmp(&v[b]),
        ColumnValues::I64(v) => v[a].cmp(&v[b]),
        ColumnValues::U64(v) => v[a].cmp(&v[b]),
        ColumnValues::F32(v) => one_of_equals(v[a].into()).total_cmp(&one_of_equals(v[b].into())),
        ColumnValues::F64(v) => one_of_equals(v[a]).total_cmp(&one_of_equals(v[b])),
        ColumnValues::Decimal(v) => Number::of(v.get(a)).cmp(&Number::of(v.get(b))),
        ColumnValues::Text(v) | ColumnValues::Json(v) => v.get(a).cmp(v.get(b)),
        ColumnValues::Bytes(v) => v.get(a).cmp(v.get(b)),
        ColumnValues::Uuid(v) => v[a].cmp(&v[b]),
        ColumnValues::Date(v) => v[a].cmp(&v[b]),
        ColumnValues::Time(v) => v[a].cmp(&v[b]),
        ColumnValues::Timestamp(v) => v[a].cmp(&v[b]),
        ColumnValues::TimestampTz(v) => v[a].cmp(&v[b]),
    });
    by_column.fold(Ordering::Equal, Ordering::then)
}

/// The key of one row.
struct Key<'c, 'a> {
    columns: &'c [ColumnView<'a>],
    row: usize,
}

impl Hash for Key<'_, '_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.columns.iter().for_each(|column| column.get(self.row).hash(state));
    }
}

impl PartialEq for Key<'_, '_> {
    fn eq(&self, other: &Self) -> bool {
        self.columns.iter().all(|column| column.get(self.row) == column.get(other.row))
    }
}

impl Eq for Key<'_, '_> {}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::batch::Batch;
    use crate::model::columns::ColumnBuffer;
    use crate::model::conflict::Conflict;
    use crate::model::expr::Expr;
    use crate::model::value::ColumnType;
    use crate::row::traits::Row;
    use crate::row::writer::{RowWriter, ValueRules};

    fn schema(conflict: Conflict) -> Schema {
        let schema = Schema::builder("t").column("a", ColumnType::I64).column("b", ColumnType::Text);
        schema.nullable("c", ColumnType::F64).on_conflict(conflict).build().unwrap()
    }

    fn batch(schema: &Schema, keys: &[(i64, &str)]) -> Arc<Batch> {
        let new = |c: &crate::model::column::Column| ColumnBuffer::new(c.column_type(), c.is_nullable(), 0, 0);
        let mut columns: Vec<ColumnBuffer> = schema.columns().iter().map(new).collect();
        for (place, (a, b)) in keys.iter().enumerate() {
            let row = schema.row().set("a", *a).unwrap().set("b", *b).unwrap().set("c", place as f64).unwrap();
            row.finish().unwrap().write(&mut RowWriter::new(schema, &mut columns, ValueRules::default())).unwrap();
        }
        Arc::new(Batch::new(schema.clone(), columns, keys.len(), 0))
    }

    #[test]
    fn the_last_row_of_each_key_wins() {
        let schema = schema(Conflict::replace(["a", "b"]));
        let check = |keys: &[(i64, &str)], winners: &[u32], previous: &[Option<u32>]| {
            let chosen = arrange(Rows::all(&batch(&schema, keys)), Coalescing::Last, false).unwrap();
            assert_eq!((&*chosen.rows, &*chosen.previous), (winners, previous), "{keys:?}");
        };
        check(&[(1, "x"), (1, "x")], &[1], &[None, Some(0)]);
        check(&[(1, "x"), (1, "y"), (1, "x"), (2, "x")], &[1, 2, 3], &[None, None, Some(0), None]);
        check(&[(1, "x"); 4], &[3], &[None, Some(0), Some(1), Some(2)]);
        assert_eq!(arrange(Rows::all(&batch(&schema, &[(1, "x"), (1, "X"), (2, "x")])), Coalescing::Last, false), None);
    }

    #[test]
    fn rows_of_a_key_with_several_forms_are_all_written() {
        let schema = Schema::builder("t").column("k", ColumnType::Decimal).column("n", ColumnType::I64);
        for (rule, coalescing) in [
            (Conflict::update(["k"]), Coalescing::Last),
            (Conflict::update(["k"]).only_if_newer("n"), Coalescing::Newest(1)),
            (Conflict::update(["k"]).set("n", Expr::keep()), Coalescing::Merged),
        ] {
            let schema = schema.clone().on_conflict(rule).build().unwrap();
            let mut buffer = crate::row::row_buffer::RowBuffer::new(&schema, ValueRules::default());
            for (place, key) in ["1.5", "2", "1.50", "2", "1.5", "1.500"].iter().enumerate() {
                let key: crate::model::decimal::Decimal = key.parse().unwrap();
                let row = schema.row().set("k", key).unwrap().set("n", place as i64).unwrap();
                buffer.push(&row.finish().unwrap()).unwrap();
            }
            let rows = buffer.into_rows();
            let chosen = arrange(rows.rows(), coalescing, false).unwrap();
            assert_eq!(
                (&*chosen.rows, &*chosen.previous),
                (&[0, 2, 3, 4, 5][..], &[None, None, None, Some(1), None, None][..])
            );
        }
    }

    #[test]
    fn rows_are_sorted_by_key_where_asked() {
        let schema = schema(Conflict::replace(["b", "a"]));
        let check = |coalescing, keys: &[(i64, &str)], expected: Option<&[u32]>| {
            let arranged = arrange(Rows::all(&batch(&schema, keys)), coalescing, true);
            assert_eq!(arranged.as_ref().map(|arranged| &*arranged.rows), expected, "{keys:?}");
        };
        check(Coalescing::Off, &[(2, "x"), (1, "x"), (1, "a")], Some(&[2, 1, 0]));
        // Equal keys keep their order; what is sorted stays as it is.
        check(Coalescing::Off, &[(1, "x"), (1, "a"), (1, "x"), (1, "a")], Some(&[1, 3, 0, 2]));
        check(Coalescing::Off, &[(1, "a"), (1, "a"), (0, "x")], None);
        check(Coalescing::Last, &[(1, "x"), (1, "a"), (1, "x"), (0, "a")], Some(&[3, 1, 2]));
        check(Coalescing::Last, &[(1, "a"), (1, "a"), (0, "x")], Some(&[1, 2]));
    }

    #[test]
    fn waves_hold_each_key_once_and_keep_its_order() {
        let check = |conflict, keys: &[(i64, &str)], expected: &[&[u32]]| {
            assert_eq!(Rows::all(&batch(&schema(conflict), keys)).waves(), expected, "{keys:?}");
        };
        check(Conflict::update(["a"]), &[(1, "x"), (2, "x")], &[&[0, 1]]);
        check(Conflict::update(["a"]), &[(1, "x"), (2, "x"), (1, "y"), (1, "z")], &[&[0, 1], &[2], &[3]]);
        check(Conflict::none(), &[(1, "x"), (1, "x")], &[&[0, 1]]);
    }

    #[test]
    fn rows_take_turns_by_key() {
        let keys = [(1, "x"), (2, "x"), (1, "x"), (3, "x"), (2, "x"), (1, "x")];
        let check = |conflict, ranges: &[Range<usize>], expected: (&[usize], usize)| {
            let (rows, firsts) = by_turn_of_key(Rows::all(&batch(&schema(conflict), &keys)), ranges);
            assert_eq!((&*rows, firsts), expected, "{ranges:?}");
        };
        check(Conflict::ignore(["a"]), std::slice::from_ref(&(0..6)), (&[0, 1, 3, 2, 4, 5], 3));
        check(Conflict::ignore(["a"]), &[1..2, 2..5], (&[1, 2, 3, 4], 3));
        check(Conflict::none(), &[1..2, 3..5], (&[1, 3, 4], 3));
        let same = |conflict, a, b| have_same_key(Rows::all(&batch(&schema(conflict), &keys)), a, b);
        assert!(same(Conflict::ignore(["a"]), 0, 2) && !same(Conflict::ignore(["a"]), 0, 1));
        assert!(!same(Conflict::none(), 0, 2));
    }

    #[test]
    fn rows_are_marked_that_come_before_marked_ones_with_their_key() {
        let check = |conflict, keys: &[(i64, &str)], marked: &[bool], expected: &[bool]| {
            assert_eq!(has_later(Rows::all(&batch(&schema(conflict), keys)), marked), expected, "{keys:?}");
        };
        let keys = [(1, "x"), (2, "x"), (1, "x"), (1, "y")];
        let key = || Conflict::update(["a"]);
        check(key(), &keys, &[false, false, true, false], &[true, false, false, false]);
        check(key(), &keys, &[true, true, false, true], &[true, false, true, false]);
        check(Conflict::replace(["a", "b"]), &keys, &[false, false, false, true], &[false; 4]);
        check(Conflict::none(), &keys, &[true; 4], &[false; 4]);
    }

    #[test]
    fn gathered_rows_are_counted_from_the_start_of_their_view() {
        let batch = batch(&schema(Conflict::none()), &[(10, "a"), (11, "b"), (12, "c"), (13, "d")]);
        let gathered = Rows::all(&batch).slice(1..4).gather(&[2, 0]);
        let keys: Vec<_> = gathered.rows().iter().map(|row| row.get(0)).collect();
        assert_eq!(keys, [crate::model::value::ValueRef::I64(13), crate::model::value::ValueRef::I64(11)]);
    }

    /// Rows of a key, a version and a number that is added.
    fn versions(rule: Conflict, rows: &[(i64, i64, Option<i32>)]) -> Arc<Batch> {
        let schema = Schema::builder("t").column("a", ColumnType::I64).column("v", ColumnType::I64);
        let schema = schema.nullable("n", ColumnType::I32).on_conflict(rule).build().unwrap();
        let new = |c: &crate::model::column::Column| ColumnBuffer::new(c.column_type(), c.is_nullable(), 0, 0);
        let mut columns: Vec<ColumnBuffer> = schema.columns().iter().map(new).collect();
        for (a, v, n) in rows {
            let row = schema.row().set("a", *a).unwrap().set("v", *v).unwrap().set("n", *n).unwrap();
            row.finish().unwrap().write(&mut RowWriter::new(&schema, &mut columns, ValueRules::default())).unwrap();
        }
        Arc::new(Batch::new(schema, columns, rows.len(), 0))
    }

    #[test]
    fn the_newest_row_of_each_key_wins_and_of_equal_ones_the_first() {
        let check = |rows: &[(i64, i64)], winners: &[u32], previous: &[Option<u32>]| {
            let rows: Vec<_> = rows.iter().map(|(a, v)| (*a, *v, None)).collect();
            let batch = versions(Conflict::update(["a"]).only_if_newer("v"), &rows);
            let chosen = arrange(Rows::all(&batch), Coalescing::of(batch.schema()), false).unwrap();
            assert_eq!((&*chosen.rows, &*chosen.previous), (winners, previous), "{rows:?}");
        };
        check(&[(1, 5), (1, 7), (1, 6)], &[1], &[None, Some(2), Some(0)]);
        check(&[(1, 5), (2, 1), (1, 5)], &[0, 1], &[Some(2), None, None]);
        check(&[(1, 3), (1, 2), (1, 1)], &[0], &[Some(1), Some(2), None]);
    }

    #[test]
    fn rows_are_merged_if_their_sum_is_exact() {
        let check = |rows: &[(i64, i64, Option<i32>)], written: &[u32], previous: &[Option<u32>]| {
            let batch = versions(Conflict::update(["a"]).set("n", Expr::add()), rows);
            let chosen = arrange(Rows::all(&batch), Coalescing::of(batch.schema()), false).unwrap();
            assert_eq!((&*chosen.rows, &*chosen.previous), (written, previous), "{rows:?}");
        };
        check(&[(1, 0, Some(1)), (1, 0, None), (2, 0, Some(1))], &[1, 2], &[None, Some(0), None]);
        let max = Some(i32::MAX);
        check(&[(1, 0, max), (2, 0, max), (1, 0, max), (2, 0, None)], &[0, 2, 3], &[None, None, None, Some(1)]);
    }

    #[test]
    fn each_rule_has_its_way_of_coalescing() {
        let check = |conflict, expected| assert_eq!(Coalescing::of(&schema(conflict)), expected);
        check(Conflict::replace(["a"]), Coalescing::Last);
        check(Conflict::update(["a"]), Coalescing::Last);
        check(Conflict::update_columns(["a"], ["c", "b"]), Coalescing::Last);
        check(Conflict::update_columns(["a"], ["c"]), Coalescing::Off);
        check(Conflict::update_columns(["a"], ["c"]).set("c", Expr::keep()), Coalescing::Merged);
        check(Conflict::update_only(["a", "b"]), Coalescing::Last);
        check(Conflict::update(["a"]).only_if_newer("c"), Coalescing::Newest(2));
        check(Conflict::update_columns(["a"], ["c"]).only_if_newer("c"), Coalescing::Off);
        check(Conflict::update(["a"]).only_if_newer("c").set("b", Expr::keep()), Coalescing::Off);
        check(Conflict::update(["a"]).set("c", Expr::raw("1")), Coalescing::Off);
        check(Conflict::ignore(["a"]), Coalescing::Off);
        check(Conflict::none(), Coalescing::Off);
        check(Conflict::update(["a"]).on_constraint("k"), Coalescing::Last);
        for rule in [
            Conflict::replace(["a"]),
            Conflict::update(["a"]).only_if_newer("c"),
            Conflict::update(["a"]).set("c", Expr::add()),
        ] {
            check(rule.on_partial_index("a > 0"), Coalescing::Off);
        }
        assert_eq!(Coalescing::of(&schema(Conflict::ignore(["a"])).deletion().unwrap()), Coalescing::Last);
        let all_key = Schema::builder("t").column("a", ColumnType::I64).on_conflict(Conflict::update(["a"]));
        assert_eq!(Coalescing::of(&all_key.build().unwrap()), Coalescing::Off);
    }
}
