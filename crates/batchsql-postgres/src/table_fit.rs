//! Owns the check whether the rows of a schema can be written to a table, and all reasons if not.
//! Must not know how a table is read, or how rows are sent.

use std::collections::BTreeSet;

use batchsql_core::exhaustive::Set;
use batchsql_core::{Action, Column, ColumnType, Schema, TableName, Target};
use batchsql_sql::{TableProblems, missing_columns, quote, quoted_names};

use crate::catalog::{Lookup, Table, TableColumn};
use crate::field::Field;
use crate::part::Unchecked;
use crate::settings::LossyValues;
use crate::types::{Form, form};
use crate::wire::Wire;

/// The message for a missing table.
pub(crate) fn missing(name: &TableName, lookup: &Lookup) -> String {
    let advice = match lookup {
        Lookup::CutOff => {
            return "its name is longer than the server's limit (63 bytes), and would mean another table; shorten it"
                .into();
        }
        Lookup::Missing { similar: Some(similar) } if name.namespace().is_none() => {
            let namespace = similar.namespace().unwrap_or_default();
            format!(
                "there is a table {:?} in schema {namespace:?}: name it as TableName::qualified({namespace:?}, {:?}); \
                 names are taken as they are written, with their case and their dots",
                similar.name(),
                similar.name()
            )
        }
        Lookup::Missing { similar: Some(similar) } => {
            format!("there is {similar}; names are taken as they are written, with their case")
        }
        _ => "create it before rows are submitted".into(),
    };
    format!("it does not exist; {advice}")
}

/// # Errors
/// It is not a table that lasts.
pub(crate) fn check_kind(table: &Table) -> Result<(), String> {
    if table.is_temporary {
        return Err(
            "it is temporary: only one session sees it, and its rows end with the session; write to a table that lasts"
                .into(),
        );
    }
    let what = match table.kind {
        'r' | 'p' => return Ok(()),
        'v' => "a view",
        'm' => "a materialized view",
        'f' => "a foreign table",
        'S' => "a sequence",
        'i' | 'I' => "an index",
        _ => "not a table",
    };
    Err(format!("it is {what}; write to the table behind it"))
}

/// # Errors
/// A rule of the table replaces what the conflict rule does, or adds to it.
pub(crate) fn check_rules(action: Action, table: &Table) -> Result<(), String> {
    let (has_rule, verb) = match action {
        Action::UpdateOnly => (table.has_update_rule, "UPDATE"),
        Action::Delete => (table.has_delete_rule, "DELETE"),
        Action::Insert | Action::Ignore | Action::Replace | Action::Update => (table.has_insert_rule, "INSERT"),
    };
    if !has_rule {
        return Ok(());
    }
    Err(format!(
        "it has a rule for {verb}, with which the server's counts are not those of the rows that were sent; \
         drop the rule, use a trigger, or write to the table behind it"
    ))
}

/// The columns of the rows with their forms; `None` if a column does not exist, or does not accept values of its type.
pub(crate) fn fields(
    schema: &Schema,
    table: &Table,
    lossy: LossyValues,
    problems: &mut TableProblems,
) -> Option<Box<[Field]>> {
    let writes_key = inserts(schema);
    let mut fields = Vec::with_capacity(schema.columns().len());
    let mut missing = Vec::new();
    for (index, column) in schema.columns().iter().enumerate() {
        let name = column.name();
        if let Some(found) = find(table, name) {
            let is_written = writes_key || !schema.key_columns().contains(&index);
            fields.extend(problems.check(field(column, found, lossy, is_written, schema.overrides_identity())));
        } else if let Some(similar) =
            table.columns.iter().find(|found| found.name.to_lowercase() == name.to_lowercase())
        {
            problems.add(format!(
                "it has no column {name:?}, but {:?}; names are taken as they are written, with their case",
                similar.name
            ));
        } else {
            missing.push(name);
        }
    }
    problems.extend(missing_columns(&missing, table.columns.iter().map(|found| &*found.name)));
    (fields.len() == schema.columns().len()).then(|| fields.into())
}

/// Adds the columns that store decimals as text, and with which the rule computes: the server would compare their characters.
pub(crate) fn check_decimals(schema: &Schema, fields: Option<&[Field]>, problems: &mut TableProblems) {
    let is_computed = |set: &Set| matches!(set, Set::Add | Set::Greatest | Set::Least);
    let computed = schema.assignments().iter().filter(|assignment| is_computed(&assignment.set));
    let computed: BTreeSet<usize> =
        computed.filter_map(|assignment| assignment.column).chain(schema.version_column()).collect();
    for (index, field) in fields.into_iter().flat_map(|fields| fields.iter().enumerate()) {
        let is_decimal = schema.columns()[index].column_type() == ColumnType::Decimal;
        if computed.contains(&index) && is_decimal && field.form.wire != Wire::Numeric {
            problems.add(format!(
                "its column {:?} stores decimals as text, which the server cannot add up, and compares by its characters; declare it \
                 numeric",
                field.name
            ));
        }
    }
}

/// Whether rows of the schema may be inserted.
fn inserts(schema: &Schema) -> bool {
    !matches!(schema.action(), Action::UpdateOnly | Action::Delete)
}

fn field(
    column: &Column,
    found: &TableColumn,
    lossy: LossyValues,
    writes_identity: bool,
    overrides_identity: bool,
) -> Result<Field, String> {
    let name = column.name();
    if found.is_generated {
        return Err(format!("its column {name:?} is generated; remove it from the schema"));
    }
    if found.is_always_identity && writes_identity && !overrides_identity {
        return Err(format!(
            "its column {name:?} is GENERATED ALWAYS AS IDENTITY; remove it from the schema, make it BY DEFAULT, or \
             set SchemaBuilder::overriding_system_value"
        ));
    }
    let form = form(column.column_type(), &found.real).map_err(|why| {
        format!("its column {name:?} is declared {:?}: {} values {why}", found.declared, column.column_type())
    })?;
    let form = if lossy == LossyValues::LetDatabaseConvert { form.lossy() } else { form };
    let parts = match (lossy, &found.parts) {
        (LossyValues::LetDatabaseConvert, _) => None,
        (LossyValues::Refuse, Ok(parts)) => parts.clone(),
        (LossyValues::Refuse, Err(Unchecked { path, ty })) => {
            return Err(format!(
                "its column {name:?} is declared {:?}, which has a part {:?} of type {ty}: the server may store less of its \
                 values than was sent, and this cannot be checked; declare the part without a precision, use a column of its \
                 own, or let the database convert values (lossy_values=convert)",
                found.declared,
                path.join(".")
            ));
        }
    };
    let ty = format!("{}.{}", quote(&found.real.namespace), quote(&found.real.name)).into();
    let has_one_form = has_one_form(&form, found);
    Ok(Field { name: name.into(), ty, form, parts, has_one_form })
}

fn has_one_form(form: &Form, column: &TableColumn) -> bool {
    match form.wire {
        Wire::Bool | Wire::Int2 | Wire::Int4 | Wire::Int8 | Wire::Bytea | Wire::Uuid => true,
        Wire::Date | Wire::Time | Wire::Timestamp | Wire::TimestampTz => true,
        Wire::Text | Wire::Name => {
            let is_text = matches!(&*column.real.receive, "textrecv" | "varcharrecv" | "namerecv");
            column.is_deterministic && (column.real.kind == 'e' || is_text)
        }
        _ => false,
    }
}

fn find<'a>(table: &'a Table, name: &str) -> Option<&'a TableColumn> {
    table.columns.iter().find(|found| found.name == name)
}

/// Adds the columns that need a value, and for which the rows have none.
pub(crate) fn check_given(schema: &Schema, table: &Table, problems: &mut TableProblems) {
    let is_missing =
        |column: &&TableColumn| column.must_be_given && schema.column_index(&column.name).is_none() && inserts(schema);
    problems.extend(table.columns.iter().filter(is_missing).map(|column| {
        format!(
            "its column {:?} is NOT NULL without a default, but the rows have no value for it; add it to the row type or the schema, or give it a default",
            column.name
        )
    }));
}

/// # Errors
/// There is no unique index over exactly the key, or not the one that the rule names. Not checked if the table lacks a column
/// of the key, which is another problem.
pub(crate) fn check_key(schema: &Schema, table: &Table) -> Result<(), String> {
    let names: Vec<&str> = schema.key_columns().iter().map(|index| schema.columns()[*index].name()).collect();
    let columns = names.iter().map(|name| find(table, name).map(|column| column.number));
    let Some(mut key) = columns.collect::<Option<Vec<i16>>>() else { return Ok(()) };
    key.sort_unstable();
    let of_key = || table.unique.iter().filter(|unique| unique.columns == key);
    let (is_there, what) = match schema.target() {
        _ if key.is_empty() => return Ok(()),
        Target::Key => (
            of_key().any(|unique| !(unique.is_partial || (unique.is_exclusion && inserts(schema)))),
            "a PRIMARY KEY or UNIQUE index over exactly these columns must exist, not deferrable, without WHERE, without \
             expressions and without WITHOUT OVERLAPS (Conflict::ignore can name such a key by on_constraint)"
                .to_owned(),
        ),
        Target::Constraint(name) => (
            of_key().any(|unique| {
                unique.constraint.as_ref() == Some(name) && (!unique.is_exclusion || !inserts(schema) || schema.ignores_existing())
            }),
            format!(
                "there is no constraint {name:?} that is unique over exactly these columns and not deferrable; one WITHOUT OVERLAPS \
                 is only for Conflict::ignore"
            ),
        ),
        Target::Partial(_) => (
            of_key().any(|unique| unique.is_partial),
            "a UNIQUE index over exactly these columns with the WHERE of the rule must exist".to_owned(),
        ),
    };
    if is_there {
        return Ok(());
    }
    Err(format!("rows cannot be written with conflict key ({}); {what}", names.join(", ")))
}

/// Adds the rights that the user lacks.
pub(crate) fn check_rights(schema: &Schema, table: &Table, problems: &mut TableProblems) {
    let mut check = |indexes: &[usize], may: fn(&TableColumn) -> bool, right: &str| {
        let columns = indexes.iter().filter_map(|index| find(table, schema.columns()[*index].name()));
        let lacking: Vec<&str> = columns.filter(|column| !may(column)).map(|column| &*column.name).collect();
        if !lacking.is_empty() {
            let word = if lacking.len() == 1 { "column" } else { "columns" };
            let names = quoted_names(&lacking);
            problems.add_missing_right(format!(
                "the user may not {right} {word} {names}; GRANT {right} on the table to it"
            ));
        }
    };
    if inserts(schema) {
        let all: Vec<usize> = (0..schema.columns().len()).collect();
        check(&all, |column| column.may_insert, "INSERT");
    }
    check(schema.update_columns(), |column| column.may_update, "UPDATE");
    // Columns that a conflict rule compares or reads must be readable. No key column is updated.
    let read = [schema.key_columns(), schema.update_columns()].concat();
    check(&read, |column| column.may_select, "SELECT");
    if schema.action() == Action::Delete && !table.may_delete {
        problems.add_missing_right("the user may not DELETE from it; GRANT DELETE on the table to it");
    }
}
