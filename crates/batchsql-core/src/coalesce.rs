//! Owns the choice of one row per key: the last one of a batch takes the place of the earlier ones.
//! Must not know outcomes or databases: it takes rows and returns numbers of rows.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use crate::batch::Rows;
use crate::columns::ColumnView;
use crate::schema::{Conflict, Schema};

/// Which rows of a batch are written first, and what comes after them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Coalesced {
    /// The last row of each key, ascending.
    pub(crate) winners: Box<[u32]>,
    /// For each row the row before it with the same key.
    pub(crate) previous: Box<[Option<u32>]>,
}

/// Whether a later row makes an earlier one with the same key void: it must overwrite every column that
/// the earlier one could have set.
pub(crate) fn is_last_wins(schema: &Schema) -> bool {
    let (key, update) = (schema.key_columns().len(), schema.update_columns().len());
    let overwrites = matches!(schema.conflict(), Conflict::Replace { .. } | Conflict::Update { .. });
    overwrites && update > 0 && key + update == schema.columns().len()
}

/// The rows to write; `None` when every key occurs once.
///
/// Keys are equal here when their values are. A database may see more keys as equal (collations, trailing
/// spaces, `1.0` and `1.00`), never fewer.
pub(crate) fn coalesce(rows: Rows<'_>) -> Option<Coalesced> {
    let columns: Vec<ColumnView<'_>> = rows.schema().key_columns().iter().map(|column| rows.column(*column)).collect();
    let mut last: HashMap<Key<'_, '_>, u32> = HashMap::with_capacity(rows.len());
    let mut previous = Vec::new();
    for row in 0..rows.len() {
        let number = u32::try_from(row).expect("buffer_size fits u32");
        if let Some(before) = last.insert(Key { columns: &columns, row }, number) {
            previous.resize(rows.len(), None);
            previous[row] = Some(before);
        }
    }
    if previous.is_empty() {
        return None;
    }
    let mut winners: Vec<u32> = last.into_values().collect();
    winners.sort_unstable();
    Some(Coalesced { winners: winners.into(), previous: previous.into() })
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
    use crate::batch::Batch;
    use crate::columns::ColumnBuffer;
    use crate::row::{Row, RowWriter, ValueRules};
    use crate::value::ColumnType;

    fn schema(conflict: Conflict) -> Schema {
        let schema = Schema::builder("t").column("a", ColumnType::I64).column("b", ColumnType::Text);
        schema.nullable("c", ColumnType::F64).on_conflict(conflict).build().unwrap()
    }

    fn batch(schema: &Schema, keys: &[(i64, &str)]) -> Arc<Batch> {
        let new = |c: &crate::schema::Column| ColumnBuffer::new(c.column_type(), c.is_nullable(), 0, 0);
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
            let chosen = coalesce(Rows::all(&batch(&schema, keys))).unwrap();
            assert_eq!((&*chosen.winners, &*chosen.previous), (winners, previous), "{keys:?}");
        };
        check(&[(1, "x"), (1, "x")], &[1], &[None, Some(0)]);
        check(&[(1, "x"), (1, "y"), (1, "x"), (2, "x")], &[1, 2, 3], &[None, None, Some(0), None]);
        check(&[(1, "x"); 4], &[3], &[None, Some(0), Some(1), Some(2)]);
        assert_eq!(coalesce(Rows::all(&batch(&schema, &[(1, "x"), (1, "X"), (2, "x")]))), None);
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
