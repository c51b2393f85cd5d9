//! Owns one line of a dead-letter file: how a failed row becomes a line, and a line becomes a row again.
//! Must not know files.

use std::fmt;
use std::str::FromStr;

use serde::de::{DeserializeOwned, IgnoredAny};

use crate::error::ErrorClass;
use crate::model::conflict::Action;
use crate::model::schema::Schema;
use crate::model::table_name::TableName;
use crate::model::temporal::TimestampTz;
use crate::model::value::{ColumnType, Json, Value, ValueRef};
use crate::outcome::letter::DeadLetter;
use crate::outcome::letter_values::{from_json, quoted, to_json};
use crate::outcome::outcomes::{FailedRow, Outcome, OutcomeKind};
use crate::row::dynamic::DynRow;
use crate::row::error::RowError;
use crate::row::traits::Row;

/// The version of the lines. A line of another version is refused, not misread.
const VERSION: u32 = 1;

/// One line of a [dead-letter file](crate::DeadLetters::file), read again.
///
/// ```
/// use batchsql_core::{ColumnType, DeadLetterLine, Schema, ValueRef};
///
/// let line = r#"{"version":1,"time":"2026-11-23T03:09:28.000000Z","outcome":"rejected","namespace":null,
///     "table":"readings","action":"insert","class":"row","code":"2067","error":"UNIQUE constraint failed","attempts":1,
///     "row":{"id":7,"note":"n"},"types":{"id":"i64","note":"text"}}"#;
/// let letter: DeadLetterLine = line.parse()?;
/// let readings = Schema::builder("readings").column("id", ColumnType::I64).nullable("note", ColumnType::Text).build()?;
/// let row = letter.row(&readings)?;
/// assert_eq!(row.get("id"), Some(ValueRef::I64(7)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct DeadLetterLine {
    time: TimestampTz,
    outcome: OutcomeKind,
    table: TableName,
    action: Action,
    class: Option<ErrorClass>,
    code: Option<String>,
    error: Option<String>,
    attempts: u32,
    columns: Vec<Column>,
}

/// One value of the row: its column and type, and its JSON.
#[derive(Clone, PartialEq)]
struct Column {
    name: String,
    ty: ColumnType,
    json: Box<str>,
}

impl DeadLetterLine {
    /// When the line was written.
    pub fn time(&self) -> TimestampTz {
        self.time
    }

    /// How the row ended: rejected, expired, purged or unknown.
    pub fn outcome(&self) -> OutcomeKind {
        self.outcome
    }

    /// The table it was for.
    pub fn table(&self) -> &TableName {
        &self.table
    }

    /// What its rule did with the row: a delete must be submitted again by a schema of deletes, see [`row`](Self::row).
    pub fn action(&self) -> Action {
        self.action
    }

    /// The class of the last error, when there was one.
    pub fn class(&self) -> Option<ErrorClass> {
        self.class
    }

    /// The server's code, when there is one.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// The last error, when there was one.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// How many writes contained it, see [`FailedRow::attempts`](crate::FailedRow::attempts).
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The columns that the row has, with the types that they had.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = (&str, ColumnType)> {
        self.columns.iter().map(|column| (&*column.name, column.ty))
    }

    /// The row, as a row of `schema`: correct it with [`edit`](DynRow::edit), or submit it again. The table may have
    /// changed since, as far as no value is lost: integers may be wider, and columns may be added if they are nullable.
    /// A column that the row left out stays left out. The JSON document `null` becomes SQL `NULL` if the column is
    /// nullable: a line does not distinguish them. The name of the table is not compared.
    ///
    /// The rule of the schema may be another one of the same kind: it inserts rows, updates only, or deletes.
    ///
    /// ```
    /// # use batchsql_core::{Action, ColumnType, Conflict, DeadLetterError, DeadLetterLine, DynRow, Schema, SchemaError};
    /// fn row(letter: &DeadLetterLine, orders: &Schema) -> Result<DynRow, Box<dyn std::error::Error + Send + Sync>> {
    ///     Ok(match letter.action() {
    ///         Action::Delete => letter.row(&orders.deletion()?)?,
    ///         _ => letter.row(orders)?,
    ///     })
    /// }
    /// # let line = r#"{"version":1,"time":"2026-11-23T03:09:28.000000Z","outcome":"expired","table":"orders",
    /// #     "action":"delete","attempts":9,"row":{"id":7},"types":{"id":"i64"}}"#;
    /// # let orders = Schema::builder("orders").column("id", ColumnType::I64).nullable("note", ColumnType::Text);
    /// # let orders = orders.on_conflict(Conflict::update(["id"])).build().unwrap();
    /// # let letter: DeadLetterLine = line.parse().unwrap();
    /// # assert!(row(&letter, &orders).is_ok() && letter.row(&orders).is_err());
    /// ```
    ///
    /// # Errors
    /// The schema has no such column, or a value does not fit its type. Or the rule of the schema is of another kind: a
    /// delete would become an insert.
    pub fn row(&self, schema: &Schema) -> Result<DynRow, DeadLetterError> {
        if let Some(problem) = mismatch(self.action, schema.action()) {
            return Err(DeadLetterError(Kind::Action(problem)));
        }
        let mut row = schema.row();
        for Column { name, ty, json } in &self.columns {
            let mut value = from_json(json, *ty).ok_or_else(|| DeadLetterError::value(name, *ty))?;
            let column = schema.column_index(name).map(|index| &schema.columns()[index]);
            if *ty == ColumnType::Json && value == Value::Null && column.is_some_and(|column| !column.is_nullable()) {
                // The document `null`, which looks like SQL `NULL`.
                value = Value::Json(Json::from(&serde_json::Value::Null));
            }
            row = row.set(name, value)?;
        }
        Ok(row.finish()?)
    }

    /// The line of a row that was not written, with its line break; `None` for other outcomes. With an `id` the line has a
    /// member of this name, by which a reader finds lines that are there twice: for what keeps dead letters by itself.
    pub fn text_of(outcome: &Outcome, id: Option<&str>) -> Option<String> {
        outcome.failure().map(|failed| Self::text(outcome.kind(), failed, id))
    }

    /// The line of a failed row, with its line break.
    pub(crate) fn of(letter: &DeadLetter) -> String {
        Self::text(letter.outcome().kind(), letter.failed_row(), None)
    }

    /// The line of a row that waits in a store and has no outcome yet, with its line break: its outcome is
    /// [`Unknown`](OutcomeKind::Unknown), because it may be in the table already. `time` is when it was stored. It has the values
    /// of its columns, with their types, and a member `id`.
    pub fn text_of_waiting<'a>(
        table: &TableName,
        action: Action,
        values: impl IntoIterator<Item = (&'a str, ColumnType, ValueRef<'a>)>,
        time: TimestampTz,
        id: &str,
    ) -> String {
        let (mut row, mut types) = (Vec::new(), Vec::new());
        for (name, ty, value) in values {
            row.push((name, to_json(value)));
            types.push((name, quoted(&ty)));
        }
        let mut line = start(time, OutcomeKind::Unknown, table, action);
        line.push(("attempts", "0".to_owned()));
        line.extend([("row", object(row)), ("types", object(types)), ("id", quoted(&id))]);
        object(line) + "\n"
    }

    fn text(kind: OutcomeKind, failed: &FailedRow, id: Option<&str>) -> String {
        let schema = failed.row().schema();
        let types = schema.columns().iter().map(|column| (column.name(), quoted(&column.column_type())));
        let mut line = start(TimestampTz::now(), kind, failed.table(), schema.action());
        line.extend([
            ("class", or_null(failed.class().map(ErrorClass::name))),
            ("code", or_null(failed.code())),
            ("error", or_null(failed.error().map(ToString::to_string).as_deref())),
            ("attempts", failed.attempts().to_string()),
            ("row", object(failed.row().iter().map(|(name, value)| (name, to_json(value))).collect())),
            ("types", object(types.collect())),
        ]);
        line.extend(id.map(|id| ("id", quoted(&id))));
        object(line) + "\n"
    }
}

/// The first members of a line.
fn start(time: TimestampTz, kind: OutcomeKind, table: &TableName, action: Action) -> Vec<(&'static str, String)> {
    vec![
        ("version", VERSION.to_string()),
        ("time", quoted(&format_args!("{time:#}"))),
        ("outcome", quoted(&kind)),
        ("namespace", or_null(table.namespace())),
        ("table", quoted(&table.name())),
        ("action", quoted(&action.name())),
    ]
}

fn or_null(text: Option<&str>) -> String {
    text.map_or("null".to_owned(), |text| quoted(&text))
}

fn object(members: Vec<(&str, String)>) -> String {
    let members = members.into_iter().map(|(name, json)| format!("{}:{json}", quoted(&name)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

impl FromStr for DeadLetterLine {
    type Err = DeadLetterError;

    fn from_str(line: &str) -> Result<Self, DeadLetterError> {
        let members = members(line).ok_or_else(|| DeadLetterError::new("it is not a JSON object"))?;
        match optional::<u32>(&members, "version")? {
            Some(VERSION) => {}
            Some(other) => return Err(DeadLetterError::new(format!("its version is {other}, not {VERSION}"))),
            None => return Err(DeadLetterError::new(format!("it has no version; this version reads {VERSION}"))),
        }
        let outcome = required::<String>(&members, "outcome")?;
        let outcome = OutcomeKind::ALL.into_iter().find(|kind| kind.name() == outcome);
        let action = required::<String>(&members, "action")?;
        let action = Action::ALL.into_iter().find(|known| known.name() == action);
        let class = optional::<String>(&members, "class")?;
        let time = required::<String>(&members, "time")?.parse().ok();
        let table = required::<String>(&members, "table")?;
        let object = |name| find(&members, name).and_then(self::members).ok_or_else(|| DeadLetterError::member(name));
        let types = object("types")?;
        let column = |(name, json): (String, &str)| {
            let ty = optional::<String>(&types, &name)?;
            let ty = ColumnType::ALL.into_iter().find(|known| Some(known.name()) == ty.as_deref());
            let ty = ty.ok_or_else(|| DeadLetterError::new(format!("column {name:?} has no known type")))?;
            Ok(Column { name, ty, json: json.into() })
        };
        Ok(Self {
            time: time.ok_or_else(|| DeadLetterError::member("time"))?,
            outcome: outcome.ok_or_else(|| DeadLetterError::member("outcome"))?,
            table: match optional::<String>(&members, "namespace")? {
                Some(namespace) => TableName::qualified(namespace, table),
                None => TableName::new(table),
            },
            action: action.ok_or_else(|| DeadLetterError::member("action"))?,
            class: class.and_then(|class| ErrorClass::ALL.into_iter().find(|known| known.name() == class)),
            code: optional(&members, "code")?,
            error: optional(&members, "error")?,
            attempts: required(&members, "attempts")?,
            columns: object("row")?.into_iter().map(column).collect::<Result<_, DeadLetterError>>()?,
        })
    }
}

/// Shows the table and the columns, never a value.
impl fmt::Debug for DeadLetterLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetterLine")
            .field("outcome", &self.outcome)
            .field("table", &self.table)
            .field("action", &self.action)
            .field("columns", &self.columns().map(|(name, _)| name).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Why a row that was submitted for one action is no row of a schema with another one.
fn mismatch(letter: Action, schema: Action) -> Option<String> {
    let advice = match (letter, schema) {
        (Action::Delete, Action::Delete) | (Action::UpdateOnly, Action::UpdateOnly) => return None,
        (Action::Delete, _) => "would write a row with this key; use the schema of deletes, schema.deletion()",
        (_, Action::Delete) => "would delete the row; use the schema that the row was submitted with",
        (Action::UpdateOnly, _) => "may insert the row; use a schema with Conflict::update_only",
        (_, Action::UpdateOnly) => "does not insert the row; use a schema with the rule that it was submitted with",
        _ => return None,
    };
    Some(format!("its action is {}, and the rule of the schema, {}, {advice}", letter.name(), schema.name()))
}

/// The members of a JSON object with the text of their values: a value may be a number that no Rust type can hold.
fn members(object: &str) -> Option<Vec<(String, &str)>> {
    let mut members = Vec::new();
    let mut rest = object.trim_start().strip_prefix('{')?.trim_start();
    if let Some(end) = rest.strip_prefix('}') {
        return end.trim().is_empty().then_some(members);
    }
    loop {
        let (name, _, after) = first_value::<String>(rest)?;
        let (_, json, after) = first_value::<IgnoredAny>(after.trim_start().strip_prefix(':')?)?;
        members.push((name, json));
        rest = match after.trim_start().strip_prefix(',') {
            Some(next) => next.trim_start(),
            None => return after.trim_start().strip_prefix('}')?.trim().is_empty().then_some(members),
        };
    }
}

/// The first JSON value of a text, its own text, and what follows it.
fn first_value<T: DeserializeOwned>(text: &str) -> Option<(T, &str, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<T>();
    let value = values.next()?.ok()?;
    let (json, after) = text.split_at(values.byte_offset());
    Some((value, json.trim(), after))
}

fn find<'a>(members: &[(String, &'a str)], name: &str) -> Option<&'a str> {
    members.iter().find(|(member, _)| member == name).map(|(_, json)| *json)
}

fn optional<T: DeserializeOwned>(members: &[(String, &str)], name: &str) -> Result<Option<T>, DeadLetterError> {
    let Some(json) = find(members, name) else { return Ok(None) };
    serde_json::from_str(json).map_err(|_| DeadLetterError::member(name))
}

fn required<T: DeserializeOwned>(members: &[(String, &str)], name: &str) -> Result<T, DeadLetterError> {
    optional(members, name)?.ok_or_else(|| DeadLetterError::member(name))
}

/// A line is not a dead letter, or its row does not fit the schema. No values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct DeadLetterError(Kind);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Kind {
    #[error("the line cannot be read as a dead letter: {0}")]
    Line(String),
    #[error("the dead letter does not fit the schema: {0}")]
    Action(String),
    #[error("the dead letter does not fit the schema: {0}")]
    Row(RowError),
}

impl DeadLetterError {
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Self(Kind::Line(problem.into()))
    }

    fn member(name: &str) -> Self {
        Self::new(format!("{name:?} is missing or invalid"))
    }

    fn value(column: &str, ty: ColumnType) -> Self {
        Self::new(format!("column {column:?} holds no {ty}"))
    }

    /// Why the row does not fit the columns of the schema, if the line itself is sound.
    pub fn row_error(&self) -> Option<&RowError> {
        match &self.0 {
            Kind::Row(error) => Some(error),
            Kind::Line(_) | Kind::Action(_) => None,
        }
    }
}

impl From<RowError> for DeadLetterError {
    fn from(error: RowError) -> Self {
        Self(Kind::Row(error))
    }
}
