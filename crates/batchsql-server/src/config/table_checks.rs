//! Owns the checks of the sections of tables.
//! Must not know databases.

use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;

use crate::config::mistakes::Mistakes;
use crate::config::problem::closest;
use crate::config::sections::{Rule, Table};

/// What knows the columns of tables that declare none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Catalogue {
    Database,
    /// A database that knows no columns.
    Redis,
    /// There is no database.
    Nothing,
}

pub(super) fn check(checks: &mut Mistakes<'_>, sections: Vec<Spanned<Table>>, catalogue: Catalogue) -> Vec<Table> {
    let mut names = BTreeSet::new();
    let mut tables = Vec::new();
    for section in sections {
        let span = section.span();
        let table = section.into_inner();
        checks.name(&table.name, &mut names, "the name of a table");
        if let Some(text) = problem_of_rule(&table) {
            checks.problem(span.clone(), format!("table `{}`: {text}", table.name.get_ref()));
        }
        if let Some(text) = problem_of_columns(&table, catalogue) {
            checks.problem(span, format!("table `{}`: {text}", table.name.get_ref()));
        }
        let mut by_column: BTreeMap<&str, &str> = BTreeMap::new();
        for (field, column) in &table.fields {
            if let Some(other) = by_column.insert(column.get_ref(), field) {
                let text =
                    format!("the fields `{other}` and `{field}` both go to column `{}`; keep one", column.get_ref());
                checks.problem(column.span(), text);
            }
        }
        for (column, value) in &table.defaults {
            if value.get_ref().is_table() || value.get_ref().is_array() {
                checks.problem(value.span(), format!("the default of `{column}` must be a single value"));
            }
        }
        tables.push(table);
    }
    tables
}

/// A table of `[pipeline.tables]`, which has its name in the database.
///
/// # Errors
/// No table has this name there, so its settings would be for nothing.
pub(super) fn has_settings(name: &str, tables: &[Table]) -> Result<(), String> {
    let in_database = |table: &Table| table.table.clone().unwrap_or_else(|| table.name.get_ref().clone());
    let known: Vec<String> = tables.iter().map(in_database).collect();
    if known.iter().any(|known| known == name) {
        return Ok(());
    }
    let renamed = tables.iter().find(|table| table.name.get_ref() == name).map(in_database);
    let names: Vec<&str> = known.iter().map(String::as_str).collect();
    let meant = renamed.as_deref().or_else(|| closest(name, &names));
    Err(match meant {
        Some(meant) => format!(
            "[pipeline.tables] has `{name}`, and no table of [[tables]] is `{name}` in the database; did you mean `{meant}`?"
        ),
        None => format!(
            "[pipeline.tables] has `{name}`, and no table of [[tables]] is `{name}` in the database; remove it, or name one of: {}",
            names.join(", ")
        ),
    })
}

fn problem_of_rule(table: &Table) -> Option<String> {
    let (rule, name) = (table.rule, table.rule.name());
    let updates = matches!(rule, Rule::Update | Rule::UpdateOnly);
    if rule == Rule::Insert && table.key.is_some() {
        return Some("the rule `insert` uses no `key`; remove it, or choose `ignore` or `update`".to_owned());
    }
    if table.key.as_ref().is_some_and(Vec::is_empty) {
        return Some("`key` is empty; name its columns, or remove it to use the primary key".to_owned());
    }
    if table.only_if_newer.is_some() && !updates {
        return Some(format!("`only_if_newer` needs `rule = \"update\"`, not `{name}`"));
    }
    if !table.set.is_empty() && !updates {
        return Some(format!("`set` needs `rule = \"update\"`, not `{name}`"));
    }
    if table.update_columns.is_some() && rule != Rule::Update {
        return Some(format!("`update_columns` needs `rule = \"update\"`, not `{name}`"));
    }
    None
}

fn problem_of_columns(table: &Table, catalogue: Catalogue) -> Option<String> {
    let is_redis = catalogue == Catalogue::Redis;
    if table.columns.is_empty() && catalogue != Catalogue::Database {
        let example = "columns = [{ name = \"id\", type = \"i64\" }]";
        return Some(match catalogue {
            Catalogue::Redis => format!("Redis has no catalogue of columns; declare them: {example}"),
            _ => format!(
                "there is no [database] to read its columns from; declare them as the database of the workers has them: {example}"
            ),
        });
    }
    if is_redis && table.key.is_none() {
        return Some("Redis needs a `key`: the columns that make the key of a row; add it".to_owned());
    }
    if !is_redis && table.redis.is_some() {
        return Some("`redis` needs a database of Redis; remove it".to_owned());
    }
    if !table.columns.is_empty() && table.rule != Rule::Insert && table.key.is_none() {
        return Some("a table with declared columns needs its `key` declared; add it".to_owned());
    }
    let mut names = BTreeSet::new();
    let twice = table.columns.iter().find(|column| !names.insert(&column.name));
    twice.map(|column| format!("the column `{}` is declared twice; remove one", column.name))
}
