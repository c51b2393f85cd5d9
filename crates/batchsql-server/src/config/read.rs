//! Owns how a configuration file becomes settings.
//! Must not know what is checked.

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, Deserializer, Error};

use crate::config::brackets;
use crate::config::checks;
use crate::config::problem::{Problem, Problems, SourceText, advise};
use crate::config::sections::Config;
use crate::config::settings::Settings;
use crate::config::variables;

/// Reads and checks a file.
///
/// # Errors
/// The file cannot be read, or has mistakes: all that are found.
pub(crate) fn read(path: &Path) -> Result<Settings, Problems> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            let source = SourceText::new(path, String::new());
            return Err(source.problem(None, format!("the file cannot be read: {error}")).into());
        }
    };
    let environment = |name: &str| std::env::var(name).ok();
    parse(&SourceText::new(path, text), &environment)
}

/// Reads and checks a text.
///
/// # Errors
/// All mistakes that are found.
pub(crate) fn parse(source: &SourceText, variable: &dyn Fn(&str) -> Option<String>) -> Result<Settings, Problems> {
    let mut table = table(source)?;
    let mut problems: Vec<Problem> = Vec::new();
    brackets::check(table.get_ref(), source, &mut problems);
    variables::fill(table.get_mut(), source, variable, &mut problems);
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    settings(table, source)
}

/// Checks a text that is made of options: it has no variables.
///
/// # Errors
/// All mistakes that are found.
pub(crate) fn parse_options(source: &SourceText) -> Result<Settings, Problems> {
    settings(table(source)?, source)
}

fn table(source: &SourceText) -> Result<Spanned<DeTable<'_>>, Problems> {
    DeTable::parse(source.text()).map_err(|error| mistake(source, &error))
}

fn settings(table: Spanned<DeTable<'_>>, source: &SourceText) -> Result<Settings, Problems> {
    let config = Config::deserialize(Deserializer::from(table)).map_err(|error| mistake(source, &error))?;
    checks::check(config, source)
}

fn mistake(source: &SourceText, error: &Error) -> Problems {
    source.problem(error.span(), advise(error.message())).into()
}
