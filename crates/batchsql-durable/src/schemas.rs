//! Owns the schemas of the program: those that were declared, those of submitted rows, and which of them a logged block has.
//! Must not know blocks or the log.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use batchsql_core::{Action, Schema, TableName};
use tokio::sync::watch;

use crate::block::bytes::Unreadable;
use crate::block::schema_record::{self, LoggedSchema};

/// The schemas of one program.
#[derive(Debug)]
pub(crate) struct Schemas {
    /// They replace the rules of logged rows.
    declared: Vec<Schema>,
    /// Schemas of submitted rows and of `declared`, by their bytes.
    seen: Mutex<HashMap<Vec<u8>, Schema>>,
    /// Changes when there is a new one.
    changed: watch::Sender<()>,
}

/// How the rows of a logged schema are written: the schema, and for each of its columns the number of the logged one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) schema: Schema,
    pub(crate) places: Box<[usize]>,
}

/// Why rows in the log cannot be written by this program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unresolved {
    #[error("the schema of rows in the log cannot be read: {0}")]
    Unreadable(#[from] Unreadable),
    #[error("the schema record of rows in the log is lost; restore the folder from a backup")]
    Lost,
    #[error(
        "the rule of rows in the log has SQL text, and this program has no such schema; give it to DurableOptions::schema"
    )]
    UnknownRule,
    #[error(
        "the schemas of table {0} that were given to DurableOptions::schema do not fit rows in the log (columns, types, or \
         upserts and deletes); give the schema that they were submitted with too"
    )]
    NoneFits(String),
    #[error(
        "{count} schemas of table {table} that were given to DurableOptions::schema fit rows in the log; give the schema that \
         the rows were submitted with, or only one of these"
    )]
    Ambiguous { table: String, count: usize },
}

impl Schemas {
    pub(crate) fn new(declared: Vec<Schema>) -> Self {
        let seen = declared.iter().map(|schema| (schema_record::encode(schema), schema.clone())).collect();
        Self { declared, seen: Mutex::new(seen), changed: watch::Sender::new(()) }
    }

    /// Adds the schema of submitted rows, with its bytes.
    pub(crate) fn add(&self, schema: &Schema, bytes: &[u8]) {
        let is_new = self.seen().insert(bytes.to_vec(), schema.clone()).is_none();
        if is_new {
            self.changed.send_replace(());
        }
    }

    /// Resolves when there is a schema that was not there before.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// How the rows of a logged schema are written.
    pub(crate) fn resolve(&self, bytes: &[u8]) -> Result<Resolved, Unresolved> {
        if let Some(schema) = self.seen().get(bytes) {
            return Ok(Resolved { schema: schema.clone(), places: (0..schema.columns().len()).collect() });
        }
        let logged = schema_record::decode(bytes)?;
        match resolve_declared(&logged, &self.declared)? {
            Some(resolved) => Ok(resolved),
            None => {
                let schema = logged.to_schema().map_err(|_| Unresolved::UnknownRule)?;
                Ok(Resolved { places: (0..schema.columns().len()).collect(), schema })
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Schema>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The declared schema that replaces a logged one; `None` if none is declared for rows of its kind.
fn resolve_declared(logged: &LoggedSchema, declared: &[Schema]) -> Result<Option<Resolved>, Unresolved> {
    let is_delete = |action: Action| action == Action::Delete;
    let of_kind: Vec<&Schema> = declared
        .iter()
        .filter(|schema| *schema.table() == logged.table && is_delete(schema.action()) == is_delete(logged.rule.action))
        .collect();
    if of_kind.is_empty() {
        return Ok(None);
    }
    let fitting: Vec<Resolved> = of_kind.iter().filter_map(|schema| fit(logged, schema)).collect();
    let with_action = || fitting.iter().filter(|resolved| resolved.schema.action() == logged.rule.action);
    match &*fitting {
        [] => Err(Unresolved::NoneFits(table_text(&logged.table))),
        [one] => Ok(Some(one.clone())),
        all => match (with_action().next(), with_action().count()) {
            (Some(one), 1) => Ok(Some(one.clone())),
            _ => Err(Unresolved::Ambiguous { table: table_text(&logged.table), count: all.len() }),
        },
    }
}

fn table_text(table: &TableName) -> String {
    format!("{:?}", table.to_string())
}

/// A schema for rows with the columns of the logged one, by name; `None` if it has no such columns, another key, or other
/// types.
fn fit(logged: &LoggedSchema, schema: &Schema) -> Option<Resolved> {
    let sorted = |key: &[String]| {
        let mut key = key.to_vec();
        key.sort_unstable();
        key
    };
    // The order of rows is that of their key: another key would be another order.
    if sorted(schema.conflict().key()) != sorted(&logged.rule.key) {
        return None;
    }
    let schema = schema.with_columns(logged.columns.iter().map(|column| &*column.name)).ok()?;
    let place = |column: &batchsql_core::Column| {
        let found = logged.columns.iter().position(|logged| logged.name == column.name())?;
        (logged.columns[found].ty == column.column_type()).then_some(found)
    };
    let places: Box<[usize]> = schema.columns().iter().map(place).collect::<Option<_>>()?;
    Some(Resolved { schema, places })
}

#[cfg(test)]
mod tests {
    use batchsql_core::{ColumnType, Conflict, Expr, SchemaBuilder};

    use super::*;

    fn builder() -> SchemaBuilder {
        Schema::builder("t").column("id", ColumnType::I64).nullable("note", ColumnType::Text)
    }

    fn resolve(declared: Vec<Schema>, logged: &Schema) -> Result<Resolved, Unresolved> {
        Schemas::new(declared).resolve(&schema_record::encode(logged))
    }

    #[test]
    fn a_rule_that_the_log_has_whole_needs_no_declaration() {
        let logged = builder().on_conflict(Conflict::update(["id"])).build().unwrap();
        assert_eq!(resolve(vec![], &logged).unwrap(), Resolved { schema: logged, places: [0, 1].into() });
    }

    #[test]
    fn the_declared_rule_replaces_the_logged_one() {
        let logged = builder().on_conflict(Conflict::update(["id"])).build().unwrap();
        let declared = Schema::builder("t").nullable("note", ColumnType::Text).nullable("more", ColumnType::Text);
        let declared = declared.column("id", ColumnType::I64).on_conflict(Conflict::ignore(["id"])).build().unwrap();
        let resolved = resolve(vec![declared.clone()], &logged).unwrap();
        assert_eq!(resolved.schema, declared.with_columns(["note", "id"]).unwrap());
        assert_eq!(&*resolved.places, [1, 0], "values are matched by the names of their columns");
        // What was submitted in this process, and is not declared, replaces nothing.
        let schemas = Schemas::new(vec![]);
        let other = builder().on_conflict(Conflict::ignore(["id"])).build().unwrap();
        schemas.add(&other, &schema_record::encode(&other));
        assert_eq!(schemas.resolve(&schema_record::encode(&logged)).unwrap().schema, logged);
    }

    #[test]
    fn sql_text_comes_from_the_program() {
        let rule = Conflict::update(["id"]).set("note", Expr::raw("{new} || '!'")).may_add_twice();
        let logged = builder().on_conflict(rule).build().unwrap();
        let bytes = schema_record::encode(&logged);
        let schemas = Schemas::new(vec![]);
        assert_eq!(schemas.resolve(&bytes), Err(Unresolved::UnknownRule));
        let changes = schemas.changes();
        schemas.add(&logged, &bytes);
        assert!(changes.has_changed().unwrap());
        assert_eq!(schemas.resolve(&bytes).unwrap().schema, logged);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let logged = builder().on_conflict(Conflict::update(["id"])).build().unwrap();
        let check = |declared: Vec<Schema>, fits: bool| {
            let resolved = resolve(declared.clone(), &logged);
            assert_eq!(resolved.is_ok(), fits, "{declared:?}: {resolved:?}");
        };
        let id_only = Schema::builder("t").column("id", ColumnType::I64).on_conflict(Conflict::ignore(["id"])).build();
        check(vec![id_only.clone().unwrap()], false);
        let other_type = Schema::builder("t").column("id", ColumnType::I32).nullable("note", ColumnType::Text);
        check(vec![other_type.on_conflict(Conflict::update(["id"])).build().unwrap()], false);
        check(vec![builder().build().unwrap()], false);
        let ignore = builder().on_conflict(Conflict::ignore(["id"])).build().unwrap();
        let replace = builder().on_conflict(Conflict::replace(["id"])).build().unwrap();
        let update = builder().on_conflict(Conflict::update(["id"]).only_if_newer("note")).build();
        assert!(update.is_err(), "a version is a number or a time");
        check(vec![ignore.clone(), replace], false);
        check(vec![ignore.clone(), logged.clone()], true);
        // A declaration of deletes says nothing about upserts.
        check(vec![logged.deletion().unwrap()], true);
        let other_table = Schema::builder("u").column("id", ColumnType::I64).build().unwrap();
        check(vec![other_table], true);
    }

    #[test]
    fn bytes_that_make_no_sense_are_an_error() {
        assert!(matches!(Schemas::new(vec![]).resolve(&[1, 2, 3]), Err(Unresolved::Unreadable(_))));
    }
}
