//! Owns what the level of the log may be.
//! Must not know where the log goes.

use tracing_subscriber::EnvFilter;

const LEVELS: &str = "off, error, warn, info, debug and trace";

/// A filter, such as `info` or `warn,batchsql=debug`.
///
/// # Errors
/// It is none.
pub(crate) fn filter(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(level).map_err(|error| {
        format!("the log level {level:?} is no filter: {error}; the levels are {LEVELS}, and `part=level` is for a part of the program")
    })
}

/// As [`filter`], and each word that stands alone is a level: to `tracing` another one is a part of a program, of which everything is
/// logged, and of the rest nothing.
///
/// # Errors
/// It is no filter, or a word is no level.
pub(super) fn check(level: &str) -> Result<(), String> {
    filter(level)?;
    let is_level = |word: &str| {
        let names = ["off", "error", "warn", "info", "debug", "trace"];
        names.iter().any(|name| name.eq_ignore_ascii_case(word)) || matches!(word, "0" | "1" | "2" | "3" | "4" | "5")
    };
    // Fields of a span have commas between them.
    let words = level.split(',').map(str::trim).filter(|_| !level.contains('{'));
    let words = words.filter(|word| !word.is_empty() && !word.contains(['=', '[']));
    match words.clone().find(|word| !is_level(word)) {
        Some(word) => Err(format!(
            "`{word}` is no level of the log; the levels are {LEVELS}, and a part of the program has its own as `{word}=debug`"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_stand_alone_are_levels() {
        for level in [
            "info",
            "WARN",
            "off",
            "warn,batchsql=debug",
            "",
            "batchsql[span]=trace",
            "3",
            "sqlx=warn, info",
            "batchsql[span{field}]=trace, warn",
        ] {
            assert_eq!(check(level), Ok(()), "{level}");
        }
        for (level, part) in [
            ("loud", "`loud` is no level of the log; the levels are off, error, warn, info, debug and trace"),
            ("info,batchsql", "as `batchsql=debug`"),
            ("batchsql=loud,==", "is no filter"),
            ("batchsql=loud", "the levels are off, error"),
        ] {
            assert!(check(level).is_err_and(|text| text.contains(part)), "{level}: {:?}", check(level));
        }
    }
}
