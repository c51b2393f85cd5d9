//! Owns the statements with which stored rows are locked, read and changed by key.
//! Must not know rows or transactions.

use std::collections::BTreeSet;

use batchsql_core::exhaustive::{Set, SetPart};
use batchsql_core::{Action, ColumnType, Schema, Target};
use batchsql_sql::TableProblems;
use batchsql_sql::mysql::{in_order, quote};

use crate::catalog::{Session, TableColumn, same_name};
use crate::keys::{compared, compared_key, shown};
use crate::listed::Listed;
use crate::members::Members;
use crate::statements::Statements;
use crate::types::{Form, Storage};

/// The statements of a schema whose rule depends on the stored row, and what they need to know of its columns.
pub(crate) struct Locks {
    /// Reads of many keys: keys and version.
    pub(crate) together: Statements,
    /// Reads of one key: the version.
    pub(crate) alone: Statements,
    /// Updates and deletes of existing rows.
    pub(crate) writes: Statements,
    /// Updates of one existing row, whose key is bound twice.
    pub(crate) single_writes: Statements,
    /// Plain inserts of new rows.
    pub(crate) inserts: Statements,
    pub(crate) has_text_key: bool,
    /// Updates of many rows, on MariaDB.
    pub(crate) listed: Option<Listed>,
    version: String,
    values: Vec<String>,
}

impl Locks {
    pub(crate) fn new(schema: &Schema, table: &[TableColumn], storage: &[Storage], session: &Session) -> Self {
        let version = schema.version_column().map(|index| {
            let column = &schema.columns()[index];
            let stored = table.iter().find(|found| same_name(&found.name, column.name()));
            let stored = stored.map_or("", |found| &found.data_type);
            shown(&quote(column.name()), column.column_type(), stored)
        });
        let value = |(index, storage): (usize, &Storage)| {
            let value = storage.form.expression();
            // A key is compared with its column.
            if schema.key_columns().contains(&index) {
                return compared_key(&schema.columns()[index], value, table);
            }
            let is_computed = schema.assignments().iter().any(|assignment| match &assignment.set {
                Set::Overwrite => false,
                Set::Raw(parts) => parts.contains(&SetPart::New(index)),
                _ => assignment.column == Some(index),
            });
            if is_computed { compared(&schema.columns()[index], value, table) } else { value.to_owned() }
        };
        let values: Vec<String> = storage.iter().enumerate().map(value).collect();
        let texts: Vec<&str> = values.iter().map(String::as_str).collect();
        let is_listed = session.is_mariadb && schema.action() == Action::UpdateOnly;
        Self {
            listed: is_listed.then(|| Listed::new(schema, table, storage, &texts)).flatten(),
            together: Statements::default(),
            alone: Statements::default(),
            writes: Statements::default(),
            single_writes: Statements::default(),
            inserts: Statements::default(),
            has_text_key: schema.key_columns().iter().any(|i| is_text(schema, *i, storage[*i].form, table)),
            version: version.unwrap_or_else(|| "1".to_owned()),
            values,
        }
    }

    /// The stored version.
    pub(crate) fn shown_version(&self) -> [String; 1] {
        [self.version.clone()]
    }

    /// The expressions of submitted values in an update without insert.
    pub(crate) fn values(&self) -> Vec<&str> {
        self.values.iter().map(String::as_str).collect()
    }
}

/// Whether the server compares the values of a column as texts.
fn is_text(schema: &Schema, index: usize, form: Form, table: &[TableColumn]) -> bool {
    let column = &schema.columns()[index];
    let is_decimal = |found: &TableColumn| same_name(&found.name, column.name()) && found.data_type == "decimal";
    match column.column_type() {
        ColumnType::Text | ColumnType::Json => true,
        ColumnType::Decimal => !table.iter().any(is_decimal),
        _ => form == Form::UuidText,
    }
}

/// Adds why the rule of a schema cannot be carried out.
pub(crate) fn check_rule(schema: &Schema, table: &[TableColumn], session: &Session, problems: &mut TableProblems) {
    if !session.is_utc() && schema.assignments().iter().any(|assignment| assignment.set == Set::Now) {
        problems.add("Expr::now() needs a session in UTC; set time_zone = '+00:00' on the connections of the pool");
    }
    match schema.target() {
        Target::Key => {}
        Target::Constraint(name) => problems
            .add(format!("the server finds no constraint by name ({name:?}): it applies a rule to every unique index")),
        Target::Partial(_) => problems.add("the server has no partial indexes"),
    }
    if let Some(version) = schema.version_column() {
        let column = &schema.columns()[version];
        let stored = table.iter().find(|found| same_name(&found.name, column.name()));
        if column.column_type() == ColumnType::F32 || stored.is_some_and(|found| found.data_type == "float") {
            problems.add(format!(
                "its column {:?} is a FLOAT, which the server shows with fewer digits than it has; use DOUBLE or an \
                 integer as the version",
                column.name()
            ));
        }
    }
    let is_computed = |set: &Set| matches!(set, Set::Add | Set::Greatest | Set::Least);
    let computed = schema.assignments().iter().filter(|assignment| is_computed(&assignment.set));
    let computed: BTreeSet<usize> =
        computed.filter_map(|assignment| assignment.column).chain(schema.version_column()).collect();
    for column in computed.into_iter().map(|index| &schema.columns()[index]) {
        // The server would add texts as doubles, and compare them by their characters.
        let stored = table.iter().find(|found| same_name(&found.name, column.name()));
        if column.column_type() == ColumnType::Decimal && stored.is_some_and(|found| found.data_type != "decimal") {
            problems.add(format!(
                "its column {:?} stores decimals as text, which the server cannot add up or compare; declare it DECIMAL(p,s)",
                column.name()
            ));
        }
    }
    let reads_keys = schema.version_column().is_some()
        || matches!(schema.action(), Action::Ignore | Action::UpdateOnly | Action::Delete);
    for index in schema.key_columns().iter().filter(|_| reads_keys) {
        let name = schema.columns()[*index].name();
        let stored = table.iter().find(|found| same_name(&found.name, name) && found.data_type == "set");
        if stored.is_some_and(|found| !Members::new(&found.full_type).are_known()) {
            problems.add(format!(
                "its key column {name:?} is a SET with a backslash or a control character in a member, which this rule cannot \
                 compare; use a VARCHAR as the key"
            ));
        }
    }
    if schema.action() != Action::UpdateOnly {
        problems.check(in_order(schema));
        return;
    }
    let is_changed = |name: &str| schema.assignments().iter().any(|assignment| &*assignment.name == name);
    let uses = |part: &SetPart, own: &str| matches!(part, SetPart::Old(old) if &**old != own && is_changed(old));
    let mut raw = schema.assignments().iter().filter_map(|assignment| match &assignment.set {
        Set::Raw(parts) => Some((&*assignment.name, parts)),
        _ => None,
    });
    if let Some((name, _)) = raw.find(|(name, parts)| parts.iter().any(|part| uses(part, name))) {
        problems.add(format!(
            "the raw expression of column {name:?} uses the stored value of a column that is changed too, and the \
             server changes them in no defined order"
        ));
    }
}
