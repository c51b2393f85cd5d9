//! Owns tables in memory that follow the conflict rules: what a database would have after some rows.
//! Must not know pipelines or sinks.

use std::collections::BTreeMap;
use std::fmt;

use batchsql_core::{Conflict, DynRow, Row, Value};

/// One row of a table: the columns that were ever given a value.
type Columns = BTreeMap<String, Value>;

/// What a row did to its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It is a new row.
    Inserted,
    /// It changed the row with its key.
    Updated,
    /// There was a row with its key, which did not change.
    Ignored,
}

/// Tables in memory. Rows are applied one after the other, as a database does:
///
/// | conflict rule | a row with its key is there |
/// |---|---|
/// | `None` | it is added: a model has no unique index |
/// | `Ignore` | nothing happens |
/// | `Replace`, `Update` | the columns that it carries and that the rule names are overwritten |
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
        let is_same = |known: &&mut Columns| key.iter().all(|(name, value)| known.get(name) == Some(value));
        let known = if *schema.conflict() == Conflict::None { None } else { table.iter_mut().find(is_same) };
        match known {
            None => {
                table.push((0..schema.columns().len()).map(|index| value(&index)).collect());
                Effect::Inserted
            }
            Some(_) if schema.update_columns().is_empty() => Effect::Ignored,
            Some(known) => {
                known.extend(schema.update_columns().iter().map(value));
                Effect::Updated
            }
        }
    }

    /// The rows of a table (`namespace.table`) in the order of their insertion; none if it is unknown.
    pub fn rows(&self, table: &str) -> &[BTreeMap<String, Value>] {
        self.tables.get(table).map_or(&[], Vec::as_slice)
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
