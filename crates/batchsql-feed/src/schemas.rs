//! Owns the schemas of the program: those that were declared, those of submitted rows, and which of them a stored block has.
//! Must not know blocks or sources.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use batchsql_core::{Action, Schema, StopReason, TableName};
use tokio::sync::watch;

use crate::block::Unreadable;
use crate::block::schema_record::{self, LoggedSchema};

/// The schemas of one program, with which the rows of a source are written.
#[derive(Debug)]
pub struct Schemas {
    /// They replace the rules of stored rows.
    declared: Vec<Schema>,
    /// What a person calls to declare one.
    advice: &'static str,
    /// Schemas of submitted rows and of `declared`, by their bytes.
    seen: Mutex<HashMap<Vec<u8>, Schema>>,
    /// Stored schemas whose rule a declared one has replaced, by their bytes: each was reported.
    replaced: Mutex<HashSet<Vec<u8>>>,
    /// Changes when there is a new one.
    changed: watch::Sender<()>,
}

/// How the rows of a stored schema are written: the schema, and for each of its columns the number of the stored one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) schema: Schema,
    pub(crate) places: Box<[usize]>,
}

/// Why stored rows cannot be written by this program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unresolved {
    #[error("the schema of stored rows cannot be read: {0}")]
    Unreadable(#[from] Unreadable),
    #[error("the schema record of stored rows is lost; restore the source from a backup")]
    Lost,
    #[error("the rule of stored rows has SQL text, and this program has no such schema; give it to {0}")]
    UnknownRule(&'static str),
    #[error(
        "the schemas of table {table} that were given to {advice} do not fit stored rows (columns, types, or upserts and \
         deletes); give the schema that they were submitted with too"
    )]
    NoneFits { table: String, advice: &'static str },
    #[error(
        "the schemas of table {table} that were given to {advice} have another key than stored rows: {stored}; rows are in order by \
         the key that they were stored with, so they are not written with another one; give the schema that they were submitted \
         with too (the table still needs its unique index), or let the program that stored them write them first"
    )]
    OtherKey { table: String, stored: String, advice: &'static str },
    #[error(
        "the schema of table {table} that was given to {advice} has no column {column:?}, which stored rows have; add it there \
         (nullable, if later rows are without it), or let the program that stored them write them first"
    )]
    NoColumn { table: String, column: String, advice: &'static str },
    #[error(
        "{count} schemas of table {table} that were given to {advice} fit stored rows; give the schema that the rows were \
         submitted with, or only one of these"
    )]
    Ambiguous { table: String, count: usize, advice: &'static str },
}

impl Unresolved {
    pub(crate) fn kind(&self) -> StopReason {
        match self {
            Self::Unreadable(_) | Self::Lost => StopReason::Unreadable,
            Self::UnknownRule(_)
            | Self::NoneFits { .. }
            | Self::OtherKey { .. }
            | Self::NoColumn { .. }
            | Self::Ambiguous { .. } => StopReason::Schema,
        }
    }
}

impl Schemas {
    /// The schemas that the program declares: they replace the rules that rows were stored with. `advice` names what a
    /// person calls to declare one, for example `DurableOptions::schema`.
    pub fn new(declared: Vec<Schema>, advice: &'static str) -> Self {
        let seen = declared.iter().map(|schema| (schema_record::encode(schema), schema.clone())).collect();
        Self { declared, advice, seen: Mutex::new(seen), replaced: Mutex::default(), changed: watch::Sender::new(()) }
    }

    /// Adds the schema of submitted rows, with its bytes. Partitions that have stopped for want of it go on.
    pub fn add(&self, schema: &Schema, bytes: &[u8]) {
        let is_new = self.seen().insert(bytes.to_vec(), schema.clone()).is_none();
        if is_new {
            self.changed.send_replace(());
        }
    }

    /// Resolves when there is a schema that was not there before.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The schema that rows of a stored one are written with; `None` if this program has none, so that their partition stops.
    pub fn schema_of(&self, bytes: &[u8]) -> Option<Schema> {
        self.resolve(bytes).ok().map(|resolved| resolved.schema)
    }

    /// How the rows of a stored schema are written.
    pub(crate) fn resolve(&self, bytes: &[u8]) -> Result<Resolved, Unresolved> {
        if let Some(schema) = self.seen().get(bytes) {
            return Ok(Resolved { schema: schema.clone(), places: (0..schema.columns().len()).collect() });
        }
        let logged = schema_record::decode(bytes)?;
        match resolve_declared(&logged, &self.declared, self.advice)? {
            Some(resolved) => {
                self.report_replaced(bytes, &logged, &resolved.schema);
                Ok(resolved)
            }
            None => {
                let schema = logged.to_schema().map_err(|_| Unresolved::UnknownRule(self.advice))?;
                Ok(Resolved { places: (0..schema.columns().len()).collect(), schema })
            }
        }
    }

    /// Once for each stored schema with another rule.
    fn report_replaced(&self, bytes: &[u8], logged: &LoggedSchema, schema: &Schema) {
        // A rule with SQL text is in the log without its text.
        let is_same = logged.to_schema().is_ok_and(|logged| logged.conflict() == schema.conflict());
        if is_same || !self.replaced.lock().unwrap_or_else(PoisonError::into_inner).insert(bytes.to_vec()) {
            return;
        }
        let (table, advice) = (schema.table_display(), self.advice);
        tracing::info!(
            table,
            "rows that were stored with another rule are written with that of the schema given to {advice}"
        );
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Schema>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The declared schema that replaces a stored one; `None` if none is declared for rows of its kind.
fn resolve_declared(
    logged: &LoggedSchema,
    declared: &[Schema],
    advice: &'static str,
) -> Result<Option<Resolved>, Unresolved> {
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
        [] if !of_kind.iter().any(|schema| has_same_key(logged, schema)) => {
            Err(Unresolved::OtherKey { table: table_text(&logged.table), stored: key_text(&logged.rule.key), advice })
        }
        [] => Err(match missing_column(logged, &of_kind) {
            Some(column) => Unresolved::NoColumn { table: table_text(&logged.table), column, advice },
            None => Unresolved::NoneFits { table: table_text(&logged.table), advice },
        }),
        [one] => Ok(Some(one.clone())),
        all => match (with_action().next(), with_action().count()) {
            (Some(one), 1) => Ok(Some(one.clone())),
            _ => Err(Unresolved::Ambiguous { table: table_text(&logged.table), count: all.len(), advice }),
        },
    }
}

fn table_text(table: &TableName) -> String {
    format!("{:?}", table.to_string())
}

fn key_text(key: &[String]) -> String {
    match key {
        [] => "none".to_owned(),
        key => format!("{key:?}"),
    }
}

/// The order of rows is that of their key, which has chosen their partition and lane: with another key, the last of two rows would
/// be another one.
fn has_same_key(logged: &LoggedSchema, schema: &Schema) -> bool {
    let sorted = |key: &[String]| {
        let mut key = key.to_vec();
        key.sort_unstable();
        key
    };
    sorted(schema.conflict().key()) == sorted(&logged.rule.key)
}

/// A column of the stored schema that a declared one lacks, if that is why none fits.
fn missing_column(logged: &LoggedSchema, declared: &[&Schema]) -> Option<String> {
    let mut missing = None;
    for schema in declared.iter().filter(|schema| has_same_key(logged, schema)) {
        let column = logged.columns.iter().find(|column| schema.column_index(&column.name).is_none())?;
        missing.get_or_insert_with(|| column.name.clone());
    }
    missing
}

/// A schema for rows with the columns of the stored one, by name; `None` if it has no such columns, another key, or other
/// types.
fn fit(logged: &LoggedSchema, schema: &Schema) -> Option<Resolved> {
    if !has_same_key(logged, schema) {
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
    use std::sync::Arc;

    use batchsql_core::{ColumnType, Conflict, Expr, SchemaBuilder};

    use super::*;

    fn builder() -> SchemaBuilder {
        Schema::builder("t").column("id", ColumnType::I64).nullable("note", ColumnType::Text)
    }

    fn resolve(declared: Vec<Schema>, logged: &Schema) -> Result<Resolved, Unresolved> {
        Schemas::new(declared, "declare").resolve(&schema_record::encode(logged))
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
        let schemas = Schemas::new(vec![], "declare");
        let other = builder().on_conflict(Conflict::ignore(["id"])).build().unwrap();
        schemas.add(&other, &schema_record::encode(&other));
        assert_eq!(schemas.resolve(&schema_record::encode(&logged)).unwrap().schema, logged);
    }

    /// Lines of a log.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_replaced_rule_is_reported_once() {
        let lines = Lines::default();
        let writer = lines.clone();
        let log =
            tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(move || writer.clone()).finish();
        let guard = batchsql_testserver::subscribe(log);
        let with = |rule: Conflict| builder().on_conflict(rule).build().unwrap();
        let (update, ignore, replace) =
            (with(Conflict::update(["id"])), with(Conflict::ignore(["id"])), with(Conflict::replace(["id"])));
        let schemas = Schemas::new(vec![ignore.clone()], "declare");
        for logged in [&update, &update, &replace, &ignore, &update, &ignore.with_columns(["id"]).unwrap()] {
            schemas.resolve(&schema_record::encode(logged)).unwrap();
        }
        drop(guard);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 2, "one for each stored schema with another rule:\n{text}");
        assert!(text.lines().all(|line| line.contains("INFO") && line.contains("declare")), "{text}");
        assert!(text.contains("table=\"t\""), "{text}");
    }

    #[test]
    fn sql_text_comes_from_the_program() {
        let rule = Conflict::update(["id"]).set("note", Expr::raw("{new} || '!'")).may_add_twice();
        let logged = builder().on_conflict(rule).build().unwrap();
        let bytes = schema_record::encode(&logged);
        let schemas = Schemas::new(vec![], "declare");
        assert_eq!(schemas.resolve(&bytes), Err(Unresolved::UnknownRule("declare")));
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
        let missing = resolve(vec![id_only.clone().unwrap()], &logged).unwrap_err();
        assert!(matches!(&missing, Unresolved::NoColumn { column, .. } if column == "note"), "{missing}");
        let other_type = Schema::builder("t").column("id", ColumnType::I32).nullable("note", ColumnType::Text);
        check(vec![other_type.on_conflict(Conflict::update(["id"])).build().unwrap()], false);
        check(vec![builder().build().unwrap()], false);
        let both = Schema::builder("t").column("id", ColumnType::I64).column("note", ColumnType::Text);
        let other_key = resolve(vec![both.on_conflict(Conflict::ignore(["id", "note"])).build().unwrap()], &logged);
        let other_key = other_key.unwrap_err().to_string();
        assert!(other_key.contains("another key than stored rows: [\"id\"]"), "{other_key}");
        let none = resolve(vec![logged.clone()], &builder().build().unwrap()).unwrap_err().to_string();
        assert!(none.contains("another key than stored rows: none"), "{none}");
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

    /// As the error of another key advises.
    #[test]
    fn rows_of_an_earlier_key_are_written_with_its_schema_beside_the_new_one() {
        let stored = builder().on_conflict(Conflict::update(["id"])).build().unwrap();
        let new = Schema::builder("t").column("id", ColumnType::I64).column("note", ColumnType::Text);
        let new = new.on_conflict(Conflict::update(["id", "note"])).build().unwrap();
        for declared in [vec![new.clone(), stored.clone()], vec![stored.clone(), new.clone()]] {
            for logged in [&stored, &new, &stored.with_columns(["id"]).unwrap()] {
                assert_eq!(resolve(declared.clone(), logged).unwrap().schema, *logged);
            }
        }
    }

    #[test]
    fn bytes_that_make_no_sense_are_an_error() {
        assert!(matches!(Schemas::new(vec![], "declare").resolve(&[1, 2, 3]), Err(Unresolved::Unreadable(_))));
    }
}
