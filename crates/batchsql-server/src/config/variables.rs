//! Owns variables of the environment in the texts of a configuration: `${NAME}` and `${NAME:-default}`.
//! Must not know the settings.

use std::borrow::Cow;

use toml::de::{DeTable, DeValue};

use crate::config::problem::{Problem, SourceText};

/// Puts the values of variables into every text. Keys and comments have no variables. `$${` is a `${` of the text.
pub(crate) fn fill(
    table: &mut DeTable<'_>,
    source: &SourceText,
    variable: &dyn Fn(&str) -> Option<String>,
    problems: &mut Vec<Problem>,
) {
    for (_, value) in table.iter_mut() {
        fill_value(value, source, variable, problems);
    }
}

fn fill_value(
    value: &mut toml::Spanned<DeValue<'_>>,
    source: &SourceText,
    variable: &dyn Fn(&str) -> Option<String>,
    problems: &mut Vec<Problem>,
) {
    let span = value.span();
    match value.get_mut() {
        DeValue::String(text) if text.contains("${") => match expand(text, variable) {
            Ok(filled) => *text = Cow::Owned(filled),
            Err(problem) => problems.push(source.problem(Some(span), problem)),
        },
        DeValue::Array(values) => values.iter_mut().for_each(|value| fill_value(value, source, variable, problems)),
        DeValue::Table(table) => fill(table, source, variable, problems),
        _ => {}
    }
}

/// The text with the values of its variables.
///
/// # Errors
/// A variable is not set and has no default, or a `${` has no end.
fn expand(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let before = &rest[..at];
        let inner = &rest[at + 2..];
        if let Some(before) = before.strip_suffix('$') {
            filled.push_str(before);
            filled.push_str("${");
            rest = inner;
            continue;
        }
        filled.push_str(before);
        let Some((reference, after)) = inner.split_once('}') else {
            return Err("a variable has no end; write ${NAME}, or $${ for the text itself".to_owned());
        };
        let (name, default) =
            reference.split_once(":-").map_or((reference, None), |(name, default)| (name, Some(default)));
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name {
            // What stands there may be a part of a password.
            return Err(
                "what follows a ${ is not a name of a variable; use letters, digits and _, or $${ for the text itself"
                    .to_owned(),
            );
        }
        if default.is_some_and(|default| default.contains("${")) {
            return Err(format!(
                "the default of the variable {name} has a variable; write the default itself, or choose the value before the start"
            ));
        }
        // As in a shell, a default also takes the place of an empty value.
        match (variable(name).filter(|value| default.is_none() || !value.is_empty()), default) {
            (Some(value), _) => filled.push_str(&value),
            (None, Some(default)) => filled.push_str(default),
            (None, None) => {
                return Err(format!("the variable {name} is not set; set it, or write ${{{name}:-default}}"));
            }
        }
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_and_defaults() {
        let variable = |name: &str| match name {
            "HOST" => Some("db.internal".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let check = |text: &str, expected: Result<&str, &str>| match (expand(text, &variable), expected) {
            (Ok(filled), Ok(expected)) => assert_eq!(filled, expected, "{text}"),
            (Err(problem), Err(part)) => assert!(problem.contains(part), "{text}: {problem}"),
            (found, _) => panic!("{text}: {found:?}"),
        };
        check("postgres://${HOST}/a", Ok("postgres://db.internal/a"));
        check("${HOST}${HOST}", Ok("db.internaldb.internal"));
        check("${PORT:-5432}", Ok("5432"));
        check("${EMPTY:-x}", Ok("x"));
        check("${EMPTY}", Ok(""));
        check("${PORT:-}", Ok(""));
        check("a$${HOST}b", Ok("a${HOST}b"));
        check("price: $5", Ok("price: $5"));
        check("${PORT}", Err("the variable PORT is not set"));
        check("${HOST", Err("no end"));
        check("${a b}", Err("not a name"));
        check("${PORT:-${HOST}}", Err("the default of the variable PORT has a variable"));
        check("${HOST:-a${PORT:-b}}", Err("the default of the variable HOST has a variable"));
        assert!(!expand("postgres://u:a${secret@h/x}", &variable).unwrap_err().contains("secret"));
    }
}
