//! Owns tables in memory that follow the conflict rules: what a database would have after some rows.
//! Must not know pipelines or sinks.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use batchsql_core::exhaustive::{Set, compare};
use batchsql_core::{Action, DynRow, Row, Value};

/// One row of a table: the columns that were ever given a value.
type Columns = BTreeMap<String, Value>;

/// What a row did to its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It is a new row.
    Inserted,
    /// It changed the row with its key.
    Updated,
    /// It deleted the row with its key.
    Deleted,
    /// Nothing changed: there was a row with its key that the rule keeps, or none that it could change.
    Ignored,
}

/// Tables in memory. Rows are applied one after the other, as a database does:
///
/// | conflict rule | a row with its key is there |
/// |---|---|
/// | `none` | it is added: a model has no unique index |
/// | `ignore` | nothing happens |
/// | `replace`, `update`, `update_only` | the columns that it carries and that the rule names get their new values |
/// | `delete` | it is removed |
///
/// Without such a row, `update_only` and `delete` do nothing. Expressions are computed, but for `now` and `raw`.
///
/// Columns that a row leaves out have no value after an insert, and keep theirs after an update.
///
/// ```
/// use batchsql_core::{ColumnType, Conflict, Schema};
/// use batchsql_testkit::{Effect, Model};
///
/// let users = Schema::builder("users")
///     .column("id", ColumnType::I64)
///     .nullable("name", ColumnType::Text)
///     .on_conflict(Conflict::update(["id"]))
///     .build()?;
/// let mut model = Model::default();
/// assert_eq!(model.apply(&users.row().set("id", 1_i64)?.set("name", "Ada")?.finish()?), Effect::Inserted);
/// assert_eq!(model.apply(&users.row().set("id", 1_i64)?.finish()?), Effect::Ignored);
/// assert_eq!(model.rows("users")[0]["name"], "Ada".into());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Model {
    tables: BTreeMap<String, Vec<Columns>>,
}

impl Model {
    /// Applies one row.
    pub fn apply(&mut self, row: &DynRow) -> Effect {
        let schema = row.schema();
        let table = self.tables.entry(row.schema().table_display().to_owned()).or_default();
        let value = |index: &usize| {
            let name = schema.columns()[*index].name();
            (name.to_owned(), row.get(name).expect("a row has its columns").to_value())
        };
        let key: Vec<(String, Value)> = schema.key_columns().iter().map(value).collect();
        let is_same = |known: &Columns| key.iter().all(|(name, value)| known.get(name) == Some(value));
        let known = if schema.action() == Action::Insert { None } else { table.iter().position(is_same) };
        match (known, schema.action()) {
            (None, Action::UpdateOnly | Action::Delete) => Effect::Ignored,
            (None, _) => {
                table.push((0..schema.columns().len()).map(|index| value(&index)).collect());
                Effect::Inserted
            }
            (Some(known), Action::Delete) => {
                table.remove(known);
                Effect::Deleted
            }
            (Some(_), _) if schema.ignores_existing() => Effect::Ignored,
            (Some(known), _) => {
                let known = &mut table[known];
                if let Some(version) = schema.version_column() {
                    let (name, submitted) = value(&version);
                    let stored = known.get(&name).cloned().unwrap_or(Value::Null);
                    if compare(submitted.as_ref(), stored.as_ref()) != Ordering::Greater {
                        return Effect::Ignored;
                    }
                }
                let before = known.clone();
                for assignment in schema.assignments() {
                    let stored = before.get(&*assignment.name).cloned().unwrap_or(Value::Null);
                    let column = assignment.column.expect("the model has no column that the rows have no value for");
                    let submitted = value(&column).1;
                    known.insert(assignment.name.to_string(), computed(&assignment.set, stored, submitted));
                }
                Effect::Updated
            }
        }
    }

    /// Whether the row with its key has its values in all columns that its rule writes.
    pub(crate) fn has(&self, row: &DynRow) -> bool {
        let schema = row.schema();
        let written = schema.key_columns().iter().chain(schema.update_columns());
        let names: Vec<&str> = written.map(|index| schema.columns()[*index].name()).collect();
        let value = |name: &str| row.get(name).map(|value| value.to_value());
        let has_all = |known: &Columns| names.iter().all(|name| known.get(*name).cloned() == value(name));
        self.rows(schema.table_display()).iter().any(has_all)
    }

    /// The rows of a table (`namespace.table`) in the order of their insertion; none if it is unknown.
    pub fn rows(&self, table: &str) -> &[BTreeMap<String, Value>] {
        self.tables.get(table).map_or(&[], Vec::as_slice)
    }
}

/// The value of a column after an update.
///
/// # Panics
/// For expressions that only a database can compute, and for a sum that its type cannot hold.
fn computed(set: &Set, stored: Value, submitted: Value) -> Value {
    let larger = compare(submitted.as_ref(), stored.as_ref()) == Ordering::Greater;
    match (set, &stored, &submitted) {
        (Set::Overwrite, ..) => submitted,
        (Set::Keep, Value::Null, _) => submitted,
        (Set::Keep, ..) => stored,
        (Set::UnlessNull, _, Value::Null) => stored,
        (Set::UnlessNull, ..) => submitted,
        (Set::Greatest | Set::Least | Set::Add, Value::Null, _) => submitted,
        (Set::Greatest | Set::Least | Set::Add, _, Value::Null) => stored,
        (Set::Greatest, ..) if larger => submitted,
        (Set::Least, ..) if !larger => submitted,
        (Set::Greatest | Set::Least, ..) => stored,
        (Set::Add, Value::I32(a), Value::I32(b)) => Value::I32(a + b),
        (Set::Add, Value::I64(a), Value::I64(b)) => Value::I64(a + b),
        (Set::Add | Set::Now | Set::Raw(_), ..) => panic!("the model cannot compute {set:?} of these values"),
    }
}

/// Equal when the same tables have the same rows, in any order.
impl PartialEq for Model {
    fn eq(&self, other: &Self) -> bool {
        let names = || self.tables.keys().chain(other.tables.keys());
        names().all(|name| {
            let (here, there) = (self.rows(name), other.rows(name));
            let count = |rows: &[Columns], row: &Columns| rows.iter().filter(|other| *other == row).count();
            here.len() == there.len() && here.iter().all(|row| count(here, row) == count(there, row))
        })
    }
}

/// Shows tables and sizes, never a value.
impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.tables.iter().map(|(name, rows)| (name, rows.len()))).finish()
    }
}
