//! Owns the check whether the rows of a schema can be written to a table, and the reason if not.
//! Must not know how a table is read, or how rows are sent.

use batchsql_core::{Column, Schema, TableName};

use crate::catalog::{Lookup, Table, TableColumn};
use crate::field::Field;
use crate::settings::LossyValues;
use crate::types::form;

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
/// It is not a table that supports INSERT.
pub(crate) fn check_kind(table: &Table) -> Result<(), String> {
    let what = match table.kind {
        'r' | 'p' if table.has_insert_rule => {
            let text = "it has a rule for INSERT, with which the server's counts are not those of the rows that were \
                        sent; drop the rule, use a trigger, or write to the table behind it";
            return Err(text.into());
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
    schema.columns().iter().map(|column| field(column, table, lossy)).collect()
}

fn field(column: &Column, table: &Table, lossy: LossyValues) -> Result<Field, String> {
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
    if found.is_always_identity {
        return Err(format!(
            "its column {name:?} is GENERATED ALWAYS AS IDENTITY; remove it from the schema, or make it BY DEFAULT"
        ));
    }
    let form = form(column.column_type(), &found.real).map_err(|why| {
        format!("its column {name:?} is declared {:?}: {} values {why}", found.declared, column.column_type())
    })?;
    let form = if lossy == LossyValues::LetDatabaseConvert { form.lossy() } else { form };
    Ok(Field { name: name.into(), form })
}

fn find<'a>(table: &'a Table, name: &str) -> Option<&'a TableColumn> {
    table.columns.iter().find(|found| found.name == name)
}

/// # Errors
/// A column needs a value, and the rows have none.
pub(crate) fn check_given(schema: &Schema, table: &Table) -> Result<(), String> {
    let missing =
        table.columns.iter().find(|column| column.must_be_given && schema.column_index(&column.name).is_none());
    missing.map_or(Ok(()), |column| {
        Err(format!(
            "its column {:?} is NOT NULL without a default, but rows do not carry it; add it to the schema",
            column.name
        ))
    })
}

/// # Errors
/// There is no unique index over exactly the key.
pub(crate) fn check_key(schema: &Schema, table: &Table) -> Result<(), String> {
    let names = || schema.key_columns().iter().map(|index| schema.columns()[*index].name());
    let mut key: Vec<i16> = names().filter_map(|name| find(table, name)).map(|column| column.number).collect();
    key.sort_unstable();
    if key.is_empty() || table.unique.contains(&key) {
        return Ok(());
    }
    Err(format!(
        "rows cannot be inserted with conflict key ({}); a PRIMARY KEY or UNIQUE index over exactly these columns must \
         exist, not deferrable, without WHERE and without expressions",
        names().collect::<Vec<_>>().join(", ")
    ))
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
    lacks(&mut (0..schema.columns().len()), |column| column.may_insert, "INSERT")?;
    lacks(&mut schema.update_columns().iter().copied(), |column| column.may_update, "UPDATE")?;
    // Columns that a conflict rule compares or reads must be readable.
    lacks(&mut schema.key_columns().iter().copied(), |column| column.may_select, "SELECT")?;
    lacks(&mut schema.update_columns().iter().copied(), |column| column.may_select, "SELECT")
}
