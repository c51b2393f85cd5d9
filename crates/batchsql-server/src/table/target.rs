//! Owns a table that rows can be made for: the section of the configuration with the columns of the database.
//! Must not know where rows come from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use batchsql::{
    Column, Conflict, DynSink, ErrorClass, Expr, FieldRules, MissingFields, Schema, Sink, SinkError, TableName,
    UnknownFields,
};

use crate::config::problem::closest;
use crate::config::sections::{Missing, Rule, SetTo, Table, Unknown};

/// A table with its schema, and how fields become columns.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// What requests and sources call it.
    pub(crate) name: String,
    pub(crate) schema: Schema,
    /// Field -> column, where the names differ.
    pub(super) fields: BTreeMap<String, String>,
    pub(super) rules: FieldRules,
    /// The table is known to have no unique index, so rows that are inserted need no order.
    pub(crate) has_no_key: bool,
    pub(crate) ignores_unknown: bool,
    /// Columns for rows that have no field for them.
    pub(super) defaults: Vec<(String, serde_json::Value)>,
    /// What the database has and rows cannot carry, with the reason.
    pub(crate) left_out: Vec<(String, String)>,
}

/// The name of a table in the database: `table`, or `schema.table`.
pub(crate) fn table_name(table: &Table) -> TableName {
    let name = table.table.as_deref().unwrap_or_else(|| table.name.get_ref());
    match name.split_once('.') {
        Some((schema, name)) => TableName::qualified(schema, name),
        None => TableName::new(name),
    }
}

/// What is wrong with a table, which is named once: errors of the pipeline name it too.
pub(crate) fn problem(table: &str, text: impl std::fmt::Display) -> String {
    format!("table `{table}`: {}", without_name(table, &text.to_string()))
}

/// What is wrong with a table, where its name is shown already.
pub(crate) fn without_name<'a>(table: &str, text: &'a str) -> &'a str {
    text.strip_prefix(&format!("table {table}: ")).unwrap_or(text)
}

/// Why a table cannot be used. The text says what to do.
#[derive(Debug)]
pub(crate) struct NotOpened {
    text: String,
    /// The database did not answer, so nothing is known of the table.
    pub(crate) is_unavailable: bool,
}

impl NotOpened {
    /// The same, with more at the end of its text.
    pub(crate) fn and(self, more: &str) -> Self {
        Self { text: format!("{}; {more}", self.text), ..self }
    }
}

impl From<String> for NotOpened {
    fn from(text: String) -> Self {
        Self { text, is_unavailable: false }
    }
}

impl From<SinkError> for NotOpened {
    fn from(error: SinkError) -> Self {
        let is_unavailable = matches!(error.class(), ErrorClass::Transient | ErrorClass::Unknown);
        Self { text: error.to_string(), is_unavailable }
    }
}

impl fmt::Display for NotOpened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Reads the columns of a table from the catalogue, unless they are declared, and makes its schema.
///
/// # Errors
/// The database cannot be asked, it has no such table, or the rule does not fit its columns. The text says what to do.
pub(crate) async fn open(catalogue: Option<&DynSink>, table: &Table) -> Result<Target, NotOpened> {
    let name = table_name(table);
    let (schema, columns, left_out, has_no_key) = if table.columns.is_empty() {
        let catalogue = catalogue.ok_or_else(|| "there is no database to read its columns from".to_owned())?;
        let found = catalogue.read_schema(&name).await?;
        if found.builder(Conflict::none()).build().is_err() {
            return Err(none_can_be_written(found.left_out()).into());
        }
        let key = table.key.clone().unwrap_or_else(|| found.key().to_vec());
        if key.is_empty() && table.rule != Rule::Insert {
            let left_out: Vec<String> = found.left_out().map(|(column, why)| format!("{column}: {why}")).collect();
            let remedy = match left_out.is_empty() {
                true => "; add one, or use `insert`".to_owned(),
                // Its key may be among them.
                false => format!(" of columns that rows can carry ({})", left_out.join("; ")),
            };
            let rule = table.rule.name();
            return Err(NotOpened::from(format!(
                "the rule `{rule}` needs a key, and {name} has no primary key and no unique index{remedy}"
            )));
        }
        let left_out = found.left_out().map(|(column, why)| (column.to_owned(), why.to_owned())).collect();
        let columns = found.builder(Conflict::none());
        (found.builder(conflict(table, &key)), columns, left_out, found.key().is_empty() && key.is_empty())
    } else {
        let key = table.key.clone().unwrap_or_default();
        let columns = table.columns.iter().fold(Schema::builder(name.clone()), |columns, column| {
            if column.nullable {
                columns.nullable(column.name.as_str(), column.ty)
            } else {
                columns.column(column.name.as_str(), column.ty)
            }
        });
        (columns.clone().on_conflict(conflict(table, &key)), columns, Vec::new(), false)
    };
    let mut schema = match schema.build() {
        Ok(schema) => schema,
        Err(error) => {
            // The rule is wrong. The columns are known all the same, so mistakes of other keys are found too.
            let others = columns.build().ok().and_then(|columns| check_columns(table, &columns, &left_out).err());
            let of_rule = not_in_rule(table, &left_out);
            let problems: Vec<String> = [error.to_string()].into_iter().chain(of_rule).chain(others).collect();
            return Err(problems.join("; ").into());
        }
    };
    if table.rule == Rule::Delete {
        schema = schema.deletion().map_err(|error| error.to_string())?;
    }
    check_columns(table, &schema, &left_out)?;
    let defaults = table.defaults.iter().map(|(column, value)| (column.clone(), json(value.get_ref()))).collect();
    let fields = table.fields.iter().map(|(field, column)| (field.clone(), column.get_ref().clone())).collect();
    let unknown = match table.unknown_fields {
        Unknown::Refuse => UnknownFields::Refuse,
        Unknown::Ignore => UnknownFields::Ignore,
    };
    let missing = match table.missing_fields {
        Missing::LeaveOut => MissingFields::LeaveOut,
        Missing::Null => MissingFields::Null,
        Missing::Refuse => MissingFields::Refuse,
    };
    let target = Target {
        name: table.name.get_ref().clone(),
        schema,
        fields,
        rules: FieldRules::default().unknown(unknown).missing(missing),
        has_no_key,
        ignores_unknown: table.unknown_fields == Unknown::Ignore,
        defaults,
        left_out,
    };
    target.check_defaults()?;
    Ok(target)
}

/// Why rows can carry no column of a table: the reasons, each with its columns.
fn none_can_be_written<'a>(left_out: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (column, why) in left_out {
        reasons.entry(why).or_default().push(column);
    }
    let reasons: Vec<String> = reasons.iter().map(|(why, columns)| format!("{} ({why})", columns.join(", "))).collect();
    let reasons = if reasons.is_empty() { "it has none".to_owned() } else { reasons.join("; ") };
    format!("rows can write none of its columns: {reasons}; grant the right that is missing, or name another table")
}

fn conflict(table: &Table, key: &[String]) -> Conflict {
    let conflict = match table.rule {
        Rule::Insert => return Conflict::none(),
        Rule::Ignore => Conflict::ignore(key),
        // A deletion is made of it.
        Rule::Delete => Conflict::update(key),
        Rule::Replace => Conflict::replace(key),
        Rule::UpdateOnly => Conflict::update_only(key),
        Rule::Update => match &table.update_columns {
            Some(columns) => Conflict::update_columns(key, columns),
            None => Conflict::update(key),
        },
    };
    let conflict = table.set.iter().fold(conflict, |conflict, (column, to)| {
        let expr = match to {
            SetTo::Add => Expr::add(),
            SetTo::Keep => Expr::keep(),
            SetTo::UnlessNull => Expr::unless_null(),
            SetTo::Greatest => Expr::greatest(),
            SetTo::Least => Expr::least(),
            SetTo::Now => Expr::now(),
        };
        conflict.set(column, expr)
    });
    match &table.only_if_newer {
        Some(version) => conflict.only_if_newer(version),
        None => conflict,
    }
}

/// # Errors
/// Fields or defaults name columns that the table does not have; the text has all of them.
fn check_columns(table: &Table, schema: &Schema, left_out: &[(String, String)]) -> Result<(), String> {
    let known: Vec<&str> = schema.columns().iter().map(|column| column.name()).collect();
    let mapped = table.fields.iter().map(|(field, column)| (format!("fields.{field}"), column.get_ref()));
    let given = table.defaults.keys().map(|column| (format!("defaults.{column}"), column));
    let unknown = mapped.chain(given).filter(|(_, column)| !known.contains(&column.as_str()));
    all(unknown.map(|(key, column)| {
        if let Some(why) = why_left_out(left_out, column) {
            return format!(
                "`{key}` names the column `{column}` of {}, which rows cannot carry ({why}); remove it",
                schema.table_display()
            );
        }
        let what = format!("`{key}` names the column `{column}`, which {} does not have", schema.table_display());
        match closest(column, &known) {
            Some(meant) => format!("{what}; did you mean `{meant}`?"),
            None => format!("{what}; its columns are {}", known.join(", ")),
        }
    }))
}

/// The columns of the rule that the database has and rows cannot carry.
fn not_in_rule(table: &Table, left_out: &[(String, String)]) -> Option<String> {
    let named = table.key.iter().flatten().chain(table.update_columns.iter().flatten());
    let named: BTreeSet<&String> = named.chain(&table.only_if_newer).chain(table.set.keys()).collect();
    let reasons =
        named.iter().filter_map(|column| why_left_out(left_out, column).map(|why| format!("{column}: {why}")));
    let reasons: Vec<String> = reasons.collect();
    (!reasons.is_empty()).then(|| format!("rows cannot carry these columns of the rule: {}", reasons.join("; ")))
}

fn why_left_out<'a>(left_out: &'a [(String, String)], column: &str) -> Option<&'a str> {
    left_out.iter().find(|(name, _)| name == column).map(|(_, why)| why.as_str())
}

/// # Errors
/// All problems as one text, if there are any.
fn all(problems: impl Iterator<Item = String>) -> Result<(), String> {
    let problems: Vec<String> = problems.collect();
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

impl Target {
    /// A default of the wrong type is a mistake of the configuration, not of every row.
    fn check_defaults(&self) -> Result<(), String> {
        all(self.defaults.iter().filter_map(|(column, value)| {
            let row = BTreeMap::from([(column, value)]);
            let one = self.schema.row_from_with(&row, FieldRules::default().missing(MissingFields::LeaveOut));
            // Another column that is missing is no mistake of the default.
            let error = one.err().filter(|error| error.column() == Some(column))?;
            Some(format!("the default does not fit: {error}"))
        }))
    }

    /// What is allowed and loses values in silence: columns that no field becomes, and fields that are left out, so that a mistyped
    /// one is not noticed.
    pub(crate) fn advice(&self) -> Vec<String> {
        let columns: Vec<Filled<'_>> = self.schema.columns().iter().map(|column| self.filled(column)).collect();
        let unfed =
            columns.iter().filter(|column| column.fields.is_empty()).map(|Filled { column, otherwise, .. }| {
                let (other, name) = (self.column(column), self.schema.table_display());
                let what = match otherwise {
                    Otherwise::Refused => "every row is refused, because it needs a value",
                    Otherwise::Default => "every row gets its default",
                    Otherwise::Database => "rows never have a value for it",
                };
                format!(
                    "no field becomes the column `{column}` of {name}, as `fields.{column}` becomes `{other}`: {what}"
                )
            });
        let mut advice: Vec<String> = unfed.collect();
        let names = |is: Otherwise| -> Option<String> {
            let names: Vec<String> =
                columns.iter().filter(|column| column.otherwise == is).map(ToString::to_string).collect();
            (!names.is_empty()).then(|| names.join(", "))
        };
        let [defaults, database, refused] = [Otherwise::Default, Otherwise::Database, Otherwise::Refused].map(names);
        if self.ignores_unknown && (defaults.is_some() || database.is_some()) {
            let refuse = if database.is_some() { "; `missing_fields = \"refuse\"` refuses such rows" } else { "" };
            let ends = [
                defaults.map(|names| format!("{names} gets its default")),
                database.map(|names| format!("{names} gets NULL or the default of the database")),
                refused.map(|names| format!("a row without {names} is refused")),
            ];
            let ends: Vec<String> = ends.into_iter().flatten().collect();
            advice.push(format!(
                "fields that are no columns are left out (`unknown_fields`), also one whose name is mistyped: {}{refuse}",
                ends.join("; ")
            ));
        }
        advice
    }

    fn filled<'a>(&'a self, column: &'a Column) -> Filled<'a> {
        let name = column.name();
        let mapped = self.fields.iter().filter(|(_, of)| *of == name).map(|(field, _)| &**field);
        // A field with the name of the column, unless it becomes another one.
        let own = (self.column(name) == name && !self.fields.contains_key(name)).then_some(name);
        let otherwise = match self.defaults.iter().any(|(of, _)| of == name) {
            true => Otherwise::Default,
            false if column.is_nullable() && !self.refuses_missing() => Otherwise::Database,
            false => Otherwise::Refused,
        };
        Filled { column: name, fields: mapped.chain(own).collect(), otherwise }
    }

    fn refuses_missing(&self) -> bool {
        self.rules == self.rules.missing(MissingFields::Refuse)
    }

    /// The columns without which every row is refused, and which none of these columns is.
    pub(super) fn missing<'a>(&'a self, given: &[&str]) -> Vec<&'a str> {
        let refused = self.schema.columns().iter().map(|column| self.filled(column));
        let refused = refused.filter(|column| column.otherwise == Otherwise::Refused);
        refused.map(|column| column.column).filter(|column| !given.contains(column)).collect()
    }

    /// Why rows cannot carry a column that the database has, if it has one with this name.
    pub(super) fn why_left_out(&self, column: &str) -> Option<&str> {
        why_left_out(&self.left_out, column)
    }

    /// What is wrong with a field of a file whose column rows cannot carry, unless there is no such column.
    pub(crate) fn left_out_field(&self, field: &str) -> Option<String> {
        let column = self.column(field);
        self.why_left_out(column).map(|why| {
            format!(
                "has the field `{field}`, and rows cannot carry the column `{column}` of {} ({why}); remove the field, or set \
                 `unknown_fields = \"ignore\"` (without a configuration `--ignore-unknown`)",
                self.name
            )
        })
    }

    /// The names of fields that a row may have, for the header of a file.
    pub(crate) fn known_fields(&self) -> BTreeSet<&str> {
        let columns = self.schema.columns().iter().map(|column| column.name());
        columns.chain(self.fields.keys().map(String::as_str)).collect()
    }

    /// The column of a field.
    pub(crate) fn column<'a>(&'a self, field: &'a str) -> &'a str {
        self.fields.get(field).map_or(field, String::as_str)
    }
}

/// A column, and where its values come from.
struct Filled<'a> {
    column: &'a str,
    fields: Vec<&'a str>,
    otherwise: Otherwise,
}

/// What becomes of a column without a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Otherwise {
    /// A value of the configuration.
    Default,
    /// `NULL`, or what the database gives.
    Database,
    /// The row is refused.
    Refused,
}

impl fmt::Display for Filled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.column)?;
        let others: Vec<String> =
            self.fields.iter().filter(|field| **field != self.column).map(|field| format!("`{field}`")).collect();
        if others.is_empty() { Ok(()) } else { write!(f, " (field {})", others.join(", ")) }
    }
}

fn json(value: &toml::Value) -> serde_json::Value {
    match value {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Boolean(is) => (*is).into(),
        // ISO 8601, which calendar columns read.
        toml::Value::Datetime(at) => at.to_string().into(),
        toml::Value::Array(_) | toml::Value::Table(_) => unreachable!("the checks of the configuration refuse them"),
    }
}
