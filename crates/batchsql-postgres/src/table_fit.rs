//! Owns the check whether the rows of a schema can be written to a table, and the reason if not.
//! Must not know how a table is read, or how rows are sent.

use batchsql_core::{Action, Column, Schema, TableName, Target};
use batchsql_sql::quote;

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
/// It is not a table that supports what the rule does.
pub(crate) fn check_kind(action: Action, table: &Table) -> Result<(), String> {
    let (has_rule, verb) = match action {
        Action::UpdateOnly => (table.has_update_rule, "UPDATE"),
        Action::Delete => (table.has_delete_rule, "DELETE"),
        Action::Insert | Action::Ignore | Action::Replace | Action::Update => (table.has_insert_rule, "INSERT"),
    };
    let what = match table.kind {
        'r' | 'p' if has_rule => {
            let text = format!(
                "it has a rule for {verb}, with which the server's counts are not those of the rows that were sent; \
                 drop the rule, use a trigger, or write to the table behind it"
            );
            return Err(text);
        }
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

/// The columns of the rows with their forms.
///
/// # Errors
/// A column does not exist, or does not accept values of its type.
pub(crate) fn fields(schema: &Schema, table: &Table, lossy: LossyValues) -> Result<Box<[Field]>, String> {
    let writes_key = inserts(schema);
    let field = |(index, column)| {
        let is_written = writes_key || !schema.key_columns().contains(&index);
        field(column, table, lossy, is_written, schema.overrides_identity())
    };
    schema.columns().iter().enumerate().map(field).collect()
}

/// Whether rows of the schema may be inserted.
fn inserts(schema: &Schema) -> bool {
    !matches!(schema.action(), Action::UpdateOnly | Action::Delete)
}

fn field(
    column: &Column,
    table: &Table,
    lossy: LossyValues,
    writes_identity: bool,
    overrides_identity: bool,
) -> Result<Field, String> {
    let name = column.name();
    let Some(found) = find(table, name) else {
        let similar = table.columns.iter().find(|found| found.name.to_lowercase() == name.to_lowercase());
        if let Some(similar) = similar {
            return Err(format!(
                "it has no column {name:?}, but {:?}; names are taken as they are written, with their case",
                similar.name
            ));
        }
        let known: Vec<&str> = table.columns.iter().map(|found| found.name.as_str()).collect();
        return Err(format!(
            "it has no column {name:?}; add it with ALTER TABLE or remove it from the schema (the table has {})",
            known.join(", ")
        ));
    };
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
                 own, or let the database convert values (LossyValues)",
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

/// # Errors
/// A column needs a value, and the rows have none.
pub(crate) fn check_given(schema: &Schema, table: &Table) -> Result<(), String> {
    let is_missing =
        |column: &&TableColumn| column.must_be_given && schema.column_index(&column.name).is_none() && inserts(schema);
    let missing = table.columns.iter().find(is_missing);
    missing.map_or(Ok(()), |column| {
        Err(format!(
            "its column {:?} is NOT NULL without a default, but the rows have no value for it; add it to the row type or the schema, or give it a default",
            column.name
        ))
    })
}

/// # Errors
/// There is no unique index over exactly the key, or not the one that the rule names.
pub(crate) fn check_key(schema: &Schema, table: &Table) -> Result<(), String> {
    let names = || schema.key_columns().iter().map(|index| schema.columns()[*index].name());
    let mut key: Vec<i16> = names().filter_map(|name| find(table, name)).map(|column| column.number).collect();
    key.sort_unstable();
    let of_key = || table.unique.iter().filter(|unique| unique.columns == key);
    let (is_there, what) = match schema.target() {
        _ if key.is_empty() => return Ok(()),
        Target::Key => (
            of_key().any(|unique| !unique.is_partial),
            "a PRIMARY KEY or UNIQUE index over exactly these columns must exist, not deferrable, without WHERE and \
             without expressions"
                .to_owned(),
        ),
        Target::Constraint(name) => (
            of_key().any(|unique| unique.constraint.as_ref() == Some(name)),
            format!("there is no constraint {name:?} that is unique over exactly these columns and not deferrable"),
        ),
        Target::Partial(_) => (
            of_key().any(|unique| unique.is_partial),
            "a UNIQUE index over exactly these columns with the WHERE of the rule must exist".to_owned(),
        ),
    };
    if is_there {
        return Ok(());
    }
    Err(format!("rows cannot be written with conflict key ({}); {what}", names().collect::<Vec<_>>().join(", ")))
}

/// # Errors
/// A right is missing.
pub(crate) fn check_rights(schema: &Schema, table: &Table) -> Result<(), String> {
    let column = |index: usize| find(table, schema.columns()[index].name());
    let lacks = |indexes: &mut dyn Iterator<Item = usize>, may: fn(&TableColumn) -> bool, right: &str| {
        let lacking = indexes.filter_map(column).find(|column| !may(column));
        lacking.map_or(Ok(()), |column| {
            Err(format!("the user may not {right} column {:?}; GRANT {right} on the table to it", column.name))
        })
    };
    if inserts(schema) {
        lacks(&mut (0..schema.columns().len()), |column| column.may_insert, "INSERT")?;
    }
    if schema.action() == Action::Delete && !table.may_delete {
        return Err("the user may not DELETE from it; GRANT DELETE on the table to it".into());
    }
    lacks(&mut schema.update_columns().iter().copied(), |column| column.may_update, "UPDATE")?;
    // Columns that a conflict rule compares or reads must be readable.
    lacks(&mut schema.key_columns().iter().copied(), |column| column.may_select, "SELECT")?;
    lacks(&mut schema.update_columns().iter().copied(), |column| column.may_select, "SELECT")
}
