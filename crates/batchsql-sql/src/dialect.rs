//! Owns what an update does with each column, as text of a dialect: assignments, and the condition of a newer version.
//! Must not know statements around them, connections or rows.

use batchsql_core::exhaustive::{Assignment, Set, SetPart, Type};
use batchsql_core::{Column, Schema};

/// The alias of the table in statements that refer to stored values.
pub const OLD: &str = "batchsql_old";

/// The alias of the submitted rows in statements that are no inserts.
pub const NEW: &str = "batchsql_new";

/// An expression of SQLite that fails: the absolute value of the smallest integer does not exist.
const SQLITE_ERROR: &str = "abs(-9223372036854775807-1)";

/// The databases with SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// PostgreSQL and SQLite share the text of inserts. Their functions differ.
    Postgres,
    MySql,
    Sqlite,
}

/// How stored and submitted values are written in a statement.
pub(crate) struct Names<'a> {
    pub(crate) dialect: Dialect,
    /// Quotes a name.
    pub(crate) quote: fn(&str) -> String,
    /// The stored value of a column, by its quoted name.
    pub(crate) old: &'a dyn Fn(&str) -> String,
    /// The submitted value of a column, by its number and its quoted name.
    pub(crate) new: &'a dyn Fn(usize, &str) -> String,
    /// Whether the type of a column, by its number, is in `pg_catalog`. Operators of PostgreSQL are found in the search path: one
    /// of another schema may come first, or fit the type better.
    pub(crate) is_built_in: &'a dyn Fn(usize) -> bool,
    /// Whether each value depends on the version: MySQL has no condition for the update of an insert.
    pub(crate) guards_values: bool,
}

/// `column=value` for each column that an update changes.
pub(crate) fn assignments<'s>(
    schema: &Schema,
    assignments: impl IntoIterator<Item = &'s Assignment>,
    names: &Names<'_>,
) -> Vec<String> {
    let guard = guard(schema, names).filter(|_| names.guards_values);
    let text = |assignment: &Assignment| {
        let quoted = (names.quote)(&assignment.name);
        let value = value(schema, assignment, &quoted, names);
        match &guard {
            Some(guard) => format!("{quoted}=IF({guard},{value},{})", (names.old)(&quoted)),
            None => format!("{quoted}={value}"),
        }
    };
    assignments.into_iter().map(text).collect()
}

/// The condition that the submitted version is newer.
pub(crate) fn guard(schema: &Schema, names: &Names<'_>) -> Option<String> {
    let version = schema.version_column()?;
    let column = &schema.columns()[version];
    let quoted = (names.quote)(column.name());
    let (old, new) = ((names.old)(&quoted), (names.new)(version, &quoted));
    let is_given =
        if column.is_nullable() { format!("{old} IS NULL AND {new} IS NOT NULL") } else { format!("{old} IS NULL") };
    let newer = operator(">", (names.is_built_in)(version));
    Some(format!("({new}{newer}{old} OR ({is_given}))"))
}

/// The text of an operator. That of `pg_catalog` for values of its types; other types have their own.
pub(crate) fn operator(plain: &str, is_built_in: bool) -> String {
    if is_built_in { format!(" OPERATOR(pg_catalog.{plain}) ") } else { plain.to_owned() }
}

fn value(schema: &Schema, assignment: &Assignment, quoted: &str, names: &Names<'_>) -> String {
    let column = assignment.column.map(|index| &schema.columns()[index]);
    let old = || (names.old)(quoted);
    let new = || (names.new)(assignment.column.expect("an expression with a submitted value has a column"), quoted);
    // NULL counts as nothing.
    let combined = |both: String| {
        let (old, new) = (old(), new());
        let missing = match column.is_none_or(Column::is_nullable) {
            true => format!(" WHEN {new} IS NULL THEN {old}"),
            false => String::new(),
        };
        format!("CASE WHEN {old} IS NULL THEN {new}{missing} ELSE {both} END")
    };
    match (&assignment.set, names.dialect) {
        (Set::Overwrite, _) => new(),
        (Set::Keep, _) => format!("COALESCE({},{})", old(), new()),
        (Set::UnlessNull, _) => format!("COALESCE({},{})", new(), old()),
        (Set::Greatest, Dialect::Postgres | Dialect::MySql) => combined(format!("GREATEST({},{})", old(), new())),
        (Set::Least, Dialect::Postgres | Dialect::MySql) => combined(format!("LEAST({},{})", old(), new())),
        (Set::Greatest, Dialect::Sqlite) => combined(format!("max({},{})", old(), new())),
        (Set::Least, Dialect::Sqlite) => combined(format!("min({},{})", old(), new())),
        (Set::Add, Dialect::Sqlite) if column.is_some_and(is_integer) => {
            let (old, sum) = (old(), format!("{}+{}", old(), new()));
            // An integer that is too large would silently become a float.
            combined(format!(
                "CASE WHEN typeof({old})='integer' AND typeof({sum})<>'integer' THEN {SQLITE_ERROR} ELSE {sum} END"
            ))
        }
        (Set::Add, _) => {
            let plus = operator("+", assignment.column.is_some_and(names.is_built_in));
            combined(format!("{}{plus}{}", old(), new()))
        }
        (Set::Now, Dialect::Postgres) => "pg_catalog.now()".into(),
        (Set::Now, Dialect::MySql) => "CURRENT_TIMESTAMP(6)".into(),
        (Set::Now, Dialect::Sqlite) => sqlite_now(column).into(),
        (Set::Raw(parts), _) => {
            let part = |part: &SetPart| match part {
                SetPart::Sql(sql) => sql.to_string(),
                SetPart::Old(name) => (names.old)(&(names.quote)(name)),
                SetPart::New(index) => (names.new)(*index, &(names.quote)(schema.columns()[*index].name())),
            };
            format!("({})", parts.iter().map(part).collect::<String>())
        }
    }
}

fn is_integer(column: &Column) -> bool {
    matches!(column.column_type().exhaustive(), Type::I16 | Type::I32 | Type::I64 | Type::U64)
}

/// The text form in which SQLite stores times of each type.
fn sqlite_now(column: Option<&Column>) -> &'static str {
    match column.map(|column| column.column_type().exhaustive()) {
        Some(Type::Date) => "date('now')",
        Some(Type::Time) => "strftime('%H:%M:%f000','now')",
        Some(Type::TimestampTz) => "strftime('%Y-%m-%d %H:%M:%f000+00:00','now')",
        Some(Type::Timestamp) => "strftime('%Y-%m-%d %H:%M:%f000','now')",
        _ => "strftime('%Y-%m-%d %H:%M:%f','now')",
    }
}
