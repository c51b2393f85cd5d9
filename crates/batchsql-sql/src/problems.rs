//! Owns the collection of everything that is wrong with a table, as one message.
//! Must not know how a table is read, or what a database supports.

use std::fmt::Write;

use batchsql_core::ErrorClass;

/// Problems that a message shows; it counts the others.
const SHOWN: usize = 20;

/// Everything that a check found wrong with a table, so that one error says all of it.
///
/// ```
/// use batchsql_core::ErrorClass;
/// use batchsql_sql::{TableProblems, missing_columns};
///
/// let mut problems = TableProblems::default();
/// problems.extend(missing_columns(&["note"], ["id", "total"]));
/// problems.add("its column \"total\" is generated; remove it from the schema");
/// let (class, text) = problems.finish(Some(())).unwrap_err();
/// assert_eq!(class, ErrorClass::Schema);
/// assert!(text.starts_with("2 problems: (1) it has no column \"note\"; add it "));
/// assert!(text.ends_with(" (2) its column \"total\" is generated; remove it from the schema"));
/// ```
#[derive(Debug, Default)]
pub struct TableProblems {
    texts: Vec<String>,
    has_schema_problem: bool,
}

impl TableProblems {
    /// Adds a problem of the table or of the rows.
    pub fn add(&mut self, text: impl Into<String>) {
        self.texts.push(text.into());
        self.has_schema_problem = true;
    }

    /// Adds a right that the user lacks.
    pub fn add_missing_right(&mut self, text: impl Into<String>) {
        self.texts.push(text.into());
    }

    /// The value of a check, or `None` after its problem was added.
    pub fn check<T>(&mut self, checked: Result<T, String>) -> Option<T> {
        checked.map_err(|text| self.add(text)).ok()
    }

    /// The number of problems that were added.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether none was added.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The result of all checks; `checked` may be `None` only if a problem was added.
    ///
    /// # Errors
    /// The text of all problems, of which at most 20 are shown. The class is `Permission` if only rights are missing, otherwise
    /// `Schema`.
    ///
    /// # Panics
    /// `checked` is `None`, and no problem was added.
    pub fn finish<T>(self, checked: Option<T>) -> Result<T, (ErrorClass, String)> {
        let class = if self.has_schema_problem { ErrorClass::Schema } else { ErrorClass::Permission };
        match &*self.texts {
            [] => Ok(checked.expect("a check without a result has added a problem")),
            [text] => Err((class, text.clone())),
            texts => Err((class, numbered(texts))),
        }
    }
}

impl Extend<String> for TableProblems {
    fn extend<T: IntoIterator<Item = String>>(&mut self, texts: T) {
        texts.into_iter().for_each(|text| self.add(text));
    }
}

fn numbered(texts: &[String]) -> String {
    let mut all = format!("{} problems:", texts.len());
    for (number, text) in (1..).zip(texts.iter().take(SHOWN)) {
        let separator = if number == 1 { "" } else { ";" };
        write!(all, "{separator} ({number}) {text}").expect("writing to a String cannot fail");
    }
    if texts.len() > SHOWN {
        write!(all, "; and {} more", texts.len() - SHOWN).expect("writing to a String cannot fail");
    }
    all
}

/// The problem of columns that a table does not have; `known` are those that it has. `None` if none is missing.
pub fn missing_columns<'a>(missing: &[&str], known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let (word, it) = match missing {
        [] => return None,
        [_] => ("column", "it"),
        _ => ("columns", "them"),
    };
    let known = known.into_iter().collect::<Vec<_>>().join(", ");
    let names = quoted_names(missing);
    Some(format!(
        "it has no {word} {names}; add {it} with ALTER TABLE or remove {it} from the schema (the table has {known})"
    ))
}

/// Names in quotes with commas between, for a message.
pub fn quoted_names(names: &[&str]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_problem_is_its_own_message() {
        let mut problems = TableProblems::default();
        assert_eq!(problems.check(Ok(7)), Some(7));
        assert!(problems.is_empty());
        problems.add_missing_right("the user may not INSERT");
        assert_eq!(problems.finish(Some(7)), Err((ErrorClass::Permission, "the user may not INSERT".to_owned())));
        assert_eq!(TableProblems::default().finish(Some(7)), Ok(7));
    }

    #[test]
    fn a_missing_right_beside_another_problem_is_a_schema_error() {
        let mut problems = TableProblems::default();
        problems.add_missing_right("a");
        assert_eq!(problems.check::<()>(Err("b".to_owned())), None);
        assert_eq!(problems.finish::<()>(None), Err((ErrorClass::Schema, "2 problems: (1) a; (2) b".to_owned())));
    }

    #[test]
    fn a_message_is_bounded() {
        let mut problems = TableProblems::default();
        problems.extend((1..=22).map(|number| format!("p{number}")));
        let (_, text) = problems.finish(Some(())).unwrap_err();
        assert!(text.starts_with("22 problems: (1) p1; (2) p2;"), "{text}");
        assert!(text.ends_with("(20) p20; and 2 more"), "{text}");
    }

    #[test]
    fn missing_columns_are_one_problem() {
        assert_eq!(missing_columns(&[], ["id"]), None);
        let expected = "it has no columns \"a\", \"b\"; add them with ALTER TABLE or remove them from the schema \
                        (the table has id, note)";
        assert_eq!(missing_columns(&["a", "b"], ["id", "note"]).as_deref(), Some(expected));
    }
}
