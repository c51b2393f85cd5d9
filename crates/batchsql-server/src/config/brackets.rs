//! Owns whether a section may be there several times, which its brackets say: `[name]` or `[[name]]`.
//! Must not know the settings.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::problem::{Problem, SourceText};

/// Those that may.
const SEVERAL: [&str; 4] = ["tables", "sources", "tables.columns", "http.tokens"];

/// Adds sections with the wrong brackets to the problems.
pub(super) fn check(table: &DeTable<'_>, source: &SourceText, problems: &mut Vec<Problem>) {
    section(table, "", source, problems);
}

/// `before`: the name of the section with a dot at its end.
fn section(table: &DeTable<'_>, before: &str, source: &SourceText, problems: &mut Vec<Problem>) {
    for (key, value) in table {
        let name = format!("{before}{}", key.get_ref());
        let tables: Vec<&DeTable<'_>> = tables_in(value);
        let several = SEVERAL.contains(&&*name);
        let wrong = match value.get_ref() {
            DeValue::Array(_) if !several && !tables.is_empty() => {
                Some(format!("there is one section {name} at most; write [{name}] in place of [[{name}]]"))
            }
            DeValue::Table(_) if several => {
                Some(format!("there may be several {name}; write [[{name}]] in place of [{name}]"))
            }
            _ => None,
        };
        match wrong {
            Some(text) => problems.push(source.problem(Some(key.span()), text)),
            None => tables.into_iter().for_each(|table| section(table, &format!("{name}."), source, problems)),
        }
    }
}

fn tables_in<'a, 'de>(value: &'a Spanned<DeValue<'de>>) -> Vec<&'a DeTable<'de>> {
    match value.get_ref() {
        DeValue::Table(table) => vec![table],
        DeValue::Array(values) => values.iter().flat_map(tables_in).collect(),
        _ => Vec::new(),
    }
}
