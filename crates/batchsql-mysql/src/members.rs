//! Owns the members of a SET column: the order in which the server stores those of a value.
//! Must not know columns, rows or statements.

use std::borrow::Cow;

/// The members that a SET column declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Members {
    /// As the server shows the type of the column.
    declared: Box<str>,
    /// In their order; empty if the declaration cannot be read.
    names: Box<[Box<str>]>,
}

impl Members {
    /// `declared` is for example `set('a','it''s')`.
    pub(crate) fn new(declared: &str) -> Self {
        Self { names: names(declared).unwrap_or_default().into(), declared: declared.into() }
    }

    pub(crate) fn declared(&self) -> &str {
        &self.declared
    }

    /// Whether values are spelled as they are stored. Not if a member has a backslash or a control character, which servers
    /// show in different ways.
    pub(crate) fn are_known(&self) -> bool {
        !self.names.is_empty()
    }

    /// A value as the server stores it: each member once, in the order of the declaration. A value that has other members is left
    /// as it is: the server refuses it.
    pub(crate) fn stored<'a>(&self, value: &'a str) -> Cow<'a, str> {
        let is_declared = |member: &str| self.names.iter().any(|name| **name == *member);
        if !value.contains(',') || !value.split(',').all(is_declared) {
            return Cow::Borrowed(value);
        }
        let is_in_value = |name: &str| value.split(',').any(|member| member == name);
        let names: Vec<&str> = self.names.iter().map(|name| &**name).filter(|name| is_in_value(name)).collect();
        Cow::Owned(names.join(","))
    }
}

fn names(declared: &str) -> Option<Vec<Box<str>>> {
    if declared.contains(|c: char| c == '\\' || c.is_control()) {
        return None;
    }
    let mut names = Vec::new();
    let mut rest = declared.split_once('(')?.1;
    loop {
        rest = rest.strip_prefix('\'')?;
        let mut name = String::new();
        loop {
            let (part, after) = rest.split_once('\'')?;
            name.push_str(part);
            match after.strip_prefix('\'') {
                Some(after) => {
                    name.push('\'');
                    rest = after;
                }
                None => {
                    rest = after;
                    break;
                }
            }
        }
        names.push(name.into());
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => return rest.starts_with(')').then_some(names),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_once_and_in_the_order_of_the_declaration() {
        let members = Members::new("set('b','a','it''s','(x)','','''')");
        assert!(members.are_known());
        for (value, expected) in [
            ("", ""),
            ("a", "a"),
            ("b,a", "b,a"),
            ("a,b", "b,a"),
            ("a,b,a", "b,a"),
            ("a,a", "a"),
            ("(x),it's,b", "b,it's,(x)"),
            ("',it's", "it's,'"),
            // The server refuses these.
            ("a,A", "a,A"),
            ("x,b", "x,b"),
        ] {
            assert_eq!(members.stored(value), expected, "{value}");
        }
    }

    #[test]
    fn a_declaration_that_cannot_be_read_changes_nothing() {
        for declared in ["set('b','a\\\\')", "set('b','a\n')", "set('b','a'", "set(b,a)", "set", ""] {
            let members = Members::new(declared);
            assert!(!members.are_known(), "{declared}");
            assert_eq!(members.stored("a,b"), "a,b");
        }
    }
}
