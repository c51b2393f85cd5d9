//! Owns which rows of a batch are written, and in which order: one row per key if the last one wins, sorted by key if
//! that avoids deadlocks. Must not know outcomes or databases: it takes rows and returns numbers of rows.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::ops::Range;

use crate::model::batch::Rows;
use crate::model::conflict::Conflict;
use crate::model::decimal::Number;
use crate::model::schema::Schema;
use crate::model::value::one_of_equals;
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
    /// The rows to write, in the order to write them in: all, or the last row of each key.
    pub(crate) rows: Box<[u32]>,
    /// For each row of the batch the row before it with the same key; empty when all rows are written.
    pub(crate) previous: Box<[Option<u32>]>,
}

/// Whether a later row replaces an earlier one with the same key: it must overwrite every column that the earlier one
/// could have set.
pub(crate) fn is_last_wins(schema: &Schema) -> bool {
    let (key, update) = (schema.key_columns().len(), schema.update_columns().len());
    let overwrites = matches!(schema.conflict(), Conflict::Replace { .. } | Conflict::Update { .. });
    overwrites && update > 0 && key + update == schema.columns().len()
}

/// The rows to write; `None` when they are all rows as they are.
///
/// To choose one row per key, keys are equal only if their values were given in the same form. A database may treat
/// more keys as equal (collations, trailing spaces, `1.5` and `1.50`), but no row may be left out if another database
/// (SQLite, Redis) stores both rows.
pub(crate) fn arrange(rows: Rows<'_>, last_wins: bool, sort: bool) -> Option<Arranged> {
    let columns = key_columns(rows);
    if columns.is_empty() {
        return None;
    }
    let chosen = if last_wins { last_of_each_key(&columns, rows.len()) } else { None };
    let is_whole = chosen.is_none();
    let mut arranged = chosen.unwrap_or_else(|| {
        let all = (0..rows.len()).map(number);
        Arranged { rows: all.collect(), previous: Box::default() }
    });
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

/// The last row of each key, in their order; `None` when every key occurs once.
fn last_of_each_key(columns: &[ColumnView<'_>], rows: usize) -> Option<Arranged> {
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
    Some(Arranged { rows: winners.into(), previous: previous.into() })
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
    use crate::model::value::ColumnType;
    use crate::row::traits::Row;
    use crate::row::writer::{RowWriter, ValueRules};

    fn schema(conflict: Conflict) -> Schema {
        let schema = Schema::builder("t").column("a", ColumnType::I64).column("b", ColumnType::Text);
        schema.nullable("c", ColumnType::F64).on_conflict(conflict).build().unwrap()
    }

    fn batch(schema: &Schema, keys: &[(i64, &str)]) -> Arc<Batch> {
        let new = |c: &crate::model::schema::Column| ColumnBuffer::new(c.column_type(), c.is_nullable(), 0, 0);
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
            let chosen = arrange(Rows::all(&batch(&schema, keys)), true, false).unwrap();
            assert_eq!((&*chosen.rows, &*chosen.previous), (winners, previous), "{keys:?}");
        };
        check(&[(1, "x"), (1, "x")], &[1], &[None, Some(0)]);
        check(&[(1, "x"), (1, "y"), (1, "x"), (2, "x")], &[1, 2, 3], &[None, None, Some(0), None]);
        check(&[(1, "x"); 4], &[3], &[None, Some(0), Some(1), Some(2)]);
        assert_eq!(arrange(Rows::all(&batch(&schema, &[(1, "x"), (1, "X"), (2, "x")])), true, false), None);
    }

    #[test]
    fn rows_are_sorted_by_key_where_asked() {
        let schema = schema(Conflict::replace(["b", "a"]));
        let check = |last_wins, keys: &[(i64, &str)], expected: Option<&[u32]>| {
            let arranged = arrange(Rows::all(&batch(&schema, keys)), last_wins, true);
            assert_eq!(arranged.as_ref().map(|arranged| &*arranged.rows), expected, "{keys:?}");
        };
        check(false, &[(2, "x"), (1, "x"), (1, "a")], Some(&[2, 1, 0]));
        // Equal keys keep their order; what is sorted stays as it is.
        check(false, &[(1, "x"), (1, "a"), (1, "x"), (1, "a")], Some(&[1, 3, 0, 2]));
        check(false, &[(1, "a"), (1, "a"), (0, "x")], None);
        check(true, &[(1, "x"), (1, "a"), (1, "x"), (0, "a")], Some(&[3, 1, 2]));
        check(true, &[(1, "a"), (1, "a"), (0, "x")], Some(&[1, 2]));
    }

    #[test]
    fn waves_hold_each_key_once_and_keep_its_order() {
        let check = |conflict, keys: &[(i64, &str)], expected: &[&[u32]]| {
            assert_eq!(Rows::all(&batch(&schema(conflict), keys)).waves(), expected, "{keys:?}");
        };
        check(Conflict::update(["a"]), &[(1, "x"), (2, "x")], &[&[0, 1]]);
        check(Conflict::update(["a"]), &[(1, "x"), (2, "x"), (1, "y"), (1, "z")], &[&[0, 1], &[2], &[3]]);
        check(Conflict::None, &[(1, "x"), (1, "x")], &[&[0, 1]]);
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
        check(Conflict::None, &[1..2, 3..5], (&[1, 3, 4], 3));
        let same = |conflict, a, b| have_same_key(Rows::all(&batch(&schema(conflict), &keys)), a, b);
        assert!(same(Conflict::ignore(["a"]), 0, 2) && !same(Conflict::ignore(["a"]), 0, 1));
        assert!(!same(Conflict::None, 0, 2));
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
        check(Conflict::None, &keys, &[true; 4], &[false; 4]);
    }

    #[test]
    fn gathered_rows_are_counted_from_the_start_of_their_view() {
        let batch = batch(&schema(Conflict::None), &[(10, "a"), (11, "b"), (12, "c"), (13, "d")]);
        let gathered = Rows::all(&batch).slice(1..4).gather(&[2, 0]);
        let keys: Vec<_> = gathered.rows().iter().map(|row| row.get(0)).collect();
        assert_eq!(keys, [crate::model::value::ValueRef::I64(13), crate::model::value::ValueRef::I64(11)]);
    }

    #[test]
    fn only_rules_that_overwrite_everything_make_earlier_rows_void() {
        assert!(is_last_wins(&schema(Conflict::replace(["a"]))));
        assert!(is_last_wins(&schema(Conflict::update(["a"]))));
        assert!(is_last_wins(&schema(Conflict::update_columns(["a"], ["c", "b"]))));
        assert!(!is_last_wins(&schema(Conflict::update_columns(["a"], ["c"]))));
        assert!(!is_last_wins(&schema(Conflict::ignore(["a"]))));
        assert!(!is_last_wins(&schema(Conflict::None)));
        let all_key = Schema::builder("t").column("a", ColumnType::I64).on_conflict(Conflict::update(["a"]));
        assert!(!is_last_wins(&all_key.build().unwrap()));
    }
}
