//! Owns what an update does with one column: the expressions that a conflict rule may name, and how a raw one is read.
//! Must not know SQL dialects, schemas or rows.

use std::fmt;

/// The new value of a column when the row's key is already in the table. Without an expression a column is overwritten.
///
/// *Stored* is the value in the table, *submitted* the value of the row. A row whose key is not in the table is
/// inserted as it is; expressions apply to existing rows only.
///
/// ```
/// use batchsql_core::{ColumnType, Conflict, Expr, Schema};
/// let visits = Schema::builder("visits")
///     .column("page", ColumnType::Text)
///     .column("hits", ColumnType::I64)
///     .column("last_seen", ColumnType::TimestampTz)
///     .on_conflict(
///         Conflict::update(["page"])
///             .set("hits", Expr::add())
///             .set("last_seen", Expr::greatest())
///             .set("changed_at", Expr::now()),
///     )
///     .build()?;
/// # Ok::<(), batchsql_core::SchemaError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Expr(pub(crate) Kind);

/// What an [`Expr`] computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is the function of Expr with the same name")]
pub enum Kind {
    Overwrite,
    Add,
    Keep,
    UnlessNull,
    Greatest,
    Least,
    Now,
    Raw(&'static str),
}

impl Expr {
    /// The submitted value; what a column without an expression gets.
    pub fn overwrite() -> Self {
        Self(Kind::Overwrite)
    }

    /// Stored plus submitted, for counters: integers, floats and decimals. `NULL` counts as nothing, on either side.
    ///
    /// Rows of one key in a batch are added up before they are sent if the sum is exact (integers and decimals); all of
    /// them end as `Written`. If the database refuses the sum, they are sent one by one. A sum that the column cannot
    /// hold is refused by the database.
    ///
    /// Adding twice is not harmless: if the reply to a write is lost, its rows end as
    /// [`Unknown`](crate::Outcome::Unknown), also with [`Delivery::AtLeastOnce`](crate::Delivery::AtLeastOnce), unless
    /// [`Conflict::may_add_twice`](crate::Conflict::may_add_twice) is set.
    pub fn add() -> Self {
        Self(Kind::Add)
    }

    /// The stored value, or the submitted one if the stored one is `NULL`: the first value of a key is kept.
    pub fn keep() -> Self {
        Self(Kind::Keep)
    }

    /// The submitted value, or the stored one if the submitted one is `NULL`: a missing value overwrites nothing.
    pub fn unless_null() -> Self {
        Self(Kind::UnlessNull)
    }

    /// The larger one of stored and submitted; `NULL` counts as nothing.
    pub fn greatest() -> Self {
        Self(Kind::Greatest)
    }

    /// The smaller one of stored and submitted; `NULL` counts as nothing.
    pub fn least() -> Self {
        Self(Kind::Least)
    }

    /// The time of the database's clock when the row is updated. The column need not be declared in the schema: then its
    /// default applies when a row is inserted. It applies also if several rows of a new key are in one batch, because they
    /// are inserted as one row. So give the column a default such as `CURRENT_TIMESTAMP`, or use
    /// [`Coalesce::Off`](crate::Coalesce::Off), which writes each row.
    pub fn now() -> Self {
        Self(Kind::Now)
    }

    /// An SQL expression of the database, for what is left. `{old}` is the stored value of the column and `{new}` the
    /// submitted one; `{old.other}` and `{new.other}` are those of another column; a brace is written twice.
    ///
    /// The text is a part of the program, never of a row: values reach it through `{new}` only. It is checked when the
    /// schema is built (balanced quotes and brackets, no comment, no `;`, no placeholder), and by the database when the
    /// table is prepared. Rows of one key are sent one after the other. As with [`add`](Self::add), a repeat counts as
    /// harmful.
    ///
    /// ```
    /// use batchsql_core::{Conflict, Expr};
    /// let smoothed = Conflict::update(["sensor"]).set("value", Expr::raw("{old} * 0.9 + {new} * 0.1"));
    /// ```
    pub fn raw(sql: &'static str) -> Self {
        Self(Kind::Raw(sql))
    }

    /// What it computes, for what stores a rule.
    #[doc(hidden)]
    pub fn exhaustive(&self) -> Kind {
        self.0
    }

    /// Whether the expression needs no submitted value, so that the column need not be declared.
    pub(crate) fn needs_no_column(&self) -> bool {
        matches!(self.0, Kind::Now | Kind::Raw(_))
    }

    /// Whether computing it again with the same submitted value changes nothing.
    pub(crate) fn is_repeatable(&self) -> bool {
        !matches!(self.0, Kind::Add | Kind::Raw(_))
    }
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an update does with one column of a table, for drivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The column's name, unquoted.
    pub name: Box<str>,
    /// Its number in the schema; `None` if the rows have no value for it.
    pub column: Option<usize>,
    /// Its new value.
    pub set: Set,
}

/// The new value of a column, for drivers. The functions of [`Expr`] say what each of them means.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the expression of the same name")]
pub enum Set {
    Overwrite,
    Add,
    Keep,
    UnlessNull,
    Greatest,
    Least,
    Now,
    Raw(Box<[SetPart]>),
}

/// A part of a raw expression, for drivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetPart {
    /// SQL text.
    Sql(Box<str>),
    /// The stored value of the column of this name.
    Old(Box<str>),
    /// The submitted value of the column with this number.
    New(usize),
}

/// A part of a raw expression as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RawPart {
    Sql(Box<str>),
    /// The stored value of a column; `None` is the column of the expression.
    Old(Option<Box<str>>),
    /// The submitted value of a column.
    New(Option<Box<str>>),
}

/// Splits a raw expression.
///
/// # Errors
/// It could change the statement around it, and how.
pub(crate) fn parse_raw(sql: &str) -> Result<Vec<RawPart>, String> {
    let (mut parts, mut text) = (Vec::new(), String::new());
    let mut open: Vec<char> = Vec::new();
    let mut quote: Option<char> = None;
    let mut chars = sql.chars().peekable();
    if sql.trim().is_empty() {
        return Err("is empty".into());
    }
    while let Some(c) = chars.next() {
        match (c, quote) {
            // Backslashes end a quote in some modes of MySQL and not in others.
            ('\\' | '\0', _) => return Err("contains a backslash or a NUL character".into()),
            ('{' | '}', _) if chars.peek() == Some(&c) => {
                chars.next();
                text.push(c);
            }
            ('{', None) => {
                let name: String = chars.by_ref().take_while(|c| *c != '}').collect();
                let column = |rest: &str| rest.strip_prefix('.').filter(|name| !name.is_empty()).map(Box::from);
                let part = match name.as_str() {
                    "old" => RawPart::Old(None),
                    "new" => RawPart::New(None),
                    _ => match (name.strip_prefix("old").and_then(column), name.strip_prefix("new").and_then(column)) {
                        (Some(column), _) => RawPart::Old(Some(column)),
                        (_, Some(column)) => RawPart::New(Some(column)),
                        _ => return Err("has braces that are not {old}, {new}, {old.column} or {new.column}; write other braces twice".into()),
                    },
                };
                if !text.is_empty() {
                    parts.push(RawPart::Sql(std::mem::take(&mut text).into()));
                }
                parts.push(part);
            }
            ('{' | '}', _) => return Err("has a single brace; write it twice".into()),
            (c, Some(end)) => {
                if c == end {
                    quote = None;
                }
                text.push(c);
            }
            ('\'' | '"' | '`', None) => {
                quote = Some(c);
                text.push(c);
            }
            ('(' | '[', None) => {
                open.push(if c == '(' { ')' } else { ']' });
                text.push(c);
            }
            (')' | ']', None) => {
                if open.pop() != Some(c) {
                    return Err("has brackets that are not balanced".into());
                }
                text.push(c);
            }
            (';' | '?' | '$' | '#', None) => {
                return Err(format!("contains {c:?}; it must be one expression without placeholders"));
            }
            ('-', None) if chars.peek() == Some(&'-') => return Err("contains a comment".into()),
            ('/', None) if chars.peek() == Some(&'*') => return Err("contains a comment".into()),
            (c, None) => text.push(c),
        }
    }
    if quote.is_some() || !open.is_empty() {
        return Err("has quotes or brackets that are not balanced".into());
    }
    if !text.is_empty() {
        parts.push(RawPart::Sql(text.into()));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_expression_is_split_at_its_values() {
        let sql = |text: &str| RawPart::Sql(text.into());
        let check = |raw, expected: &[RawPart]| assert_eq!(parse_raw(raw).unwrap(), expected, "{raw}");
        check("{old} + {new}", &[RawPart::Old(None), sql(" + "), RawPart::New(None)]);
        check("f({new.a b})", &[sql("f("), RawPart::New(Some("a b".into())), sql(")")]);
        check("{old.x} || '{{;--'", &[RawPart::Old(Some("x".into())), sql(" || '{;--'")]);
        check("a[1] - 1 / 2", &[sql("a[1] - 1 / 2")]);
    }

    #[test]
    fn a_raw_expression_cannot_change_the_statement_around_it() {
        let check = |raw, part: &str| {
            let error = parse_raw(raw).unwrap_err();
            assert!(error.contains(part), "{raw}: {error:?}");
        };
        check(" ", "empty");
        check("1; DROP TABLE t", "one expression");
        check("1), x = (2", "not balanced");
        check("(1", "not balanced");
        check("'a", "not balanced");
        check("1 -- x", "comment");
        check("1 /* x", "comment");
        check("1 # x", "one expression");
        check("$1", "one expression");
        check("?", "one expression");
        check("'\\' OR 1'", "backslash");
        check("{odl}", "{old}");
        check("{old.}", "{old}");
        check("}", "single brace");
        check("'{'", "single brace");
    }
}
