//! Owns the rows that cases write: derived from a number, so that both sides can build them.
//! Must not know pipelines or databases.

use std::fmt::Write;
use std::sync::LazyLock;

use batchsql::exhaustive::Type;
use batchsql::{
    ColumnType, Conflict, Date, Decimal, DynRow, Json, Row, RowError, Schema, Time, Timestamp, TimestampTz, TypedRow,
    Value, ValueRef,
};

use crate::database::TableSpec;

/// 2024-01-01 00:00:00 UTC in microseconds.
const EPOCH: i64 = 1_704_067_200_000_000;

/// The suite's plain table: a key, three texts, a number, a boolean and a timestamp.
#[derive(Debug, Clone, Copy, Row)]
#[row(table = "batchsql_suite_events")]
pub struct Event<'a> {
    /// Unique number.
    pub id: i64,
    /// Short text.
    pub name: &'a str,
    /// Text with an index.
    pub email: &'a str,
    /// Longer text with multi-byte characters.
    pub payload: &'a str,
    /// A number.
    pub amount: f64,
    /// A boolean.
    pub active: bool,
    /// Has an index.
    pub created_at: TimestampTz,
}

/// The same table with the rule that keeps the existing row.
#[derive(Debug, Clone, Copy, Row)]
#[row(table = "batchsql_suite_events", key = "id", on_conflict = "ignore")]
pub struct EventIfNew<'a> {
    /// Unique number.
    pub id: i64,
    /// Short text.
    pub name: &'a str,
    /// Text with an index.
    pub email: &'a str,
    /// Longer text with multi-byte characters.
    pub payload: &'a str,
    /// A number.
    pub amount: f64,
    /// A boolean.
    pub active: bool,
    /// Has an index.
    pub created_at: TimestampTz,
}

impl<'a> From<Event<'a>> for EventIfNew<'a> {
    fn from(event: Event<'a>) -> Self {
        let Event { id, name, email, payload, amount, active, created_at } = event;
        Self { id, name, email, payload, amount, active, created_at }
    }
}

/// The same table with the rule that overwrites the existing row.
#[derive(Debug, Clone, Copy, Row)]
#[row(table = "batchsql_suite_events", key = "id", on_conflict = "update")]
pub struct EventUpdate<'a> {
    /// Unique number.
    pub id: i64,
    /// Short text.
    pub name: &'a str,
    /// Text with an index.
    pub email: &'a str,
    /// Longer text with multi-byte characters.
    pub payload: &'a str,
    /// A number.
    pub amount: f64,
    /// A boolean.
    pub active: bool,
    /// Has an index.
    pub created_at: TimestampTz,
}

impl<'a> From<Event<'a>> for EventUpdate<'a> {
    fn from(event: Event<'a>) -> Self {
        let Event { id, name, email, payload, amount, active, created_at } = event;
        Self { id, name, email, payload, amount, active, created_at }
    }
}

/// A key and its value.
#[derive(Debug, Clone, Copy, Row)]
#[row(table = "batchsql_suite_sessions", key = "id", on_conflict = "replace")]
pub struct Session<'a> {
    /// The key.
    pub id: i64,
    /// The value.
    pub payload: &'a str,
}

/// A key and a version, with the rule that overwrites the existing row.
#[derive(Debug, Clone, Copy, Row)]
#[row(table = "batchsql_suite_accounts", key = "id", on_conflict = "update")]
pub struct Account<'a> {
    /// The key.
    pub id: i64,
    /// Number of the row among those with this key.
    pub version: i64,
    /// Text that changes with the version.
    pub owner: &'a str,
    /// `NULL` in every third version.
    pub note: Option<&'a str>,
}

/// The same table with the rule that keeps the existing row.
#[derive(Debug, Clone, Copy, Row)]
#[row(table = "batchsql_suite_accounts", key = "id", on_conflict = "ignore")]
pub struct AccountIfNew<'a> {
    /// The key.
    pub id: i64,
    /// Number of the row among those with this key.
    pub version: i64,
    /// Text that changes with the version.
    pub owner: &'a str,
    /// `NULL` in every third version.
    pub note: Option<&'a str>,
}

/// Rows with the rule that keeps only the first row of each key.
#[derive(Debug, Clone, Copy, Row)]
#[row(table = "batchsql_suite_visits", key("visitor", "page"), on_conflict = "ignore")]
pub struct Visit<'a> {
    /// First part of the key.
    pub visitor: i64,
    /// Second part of the key.
    pub page: &'a str,
    /// Differs between rows with one key.
    pub nth: i32,
}

/// Text buffers that are reused for every row.
#[derive(Debug, Default)]
pub struct Texts {
    name: String,
    email: String,
    payload: String,
}

impl Texts {
    /// Event number `id`, with `padding` additional bytes in its payload.
    pub fn event(&mut self, id: i64, padding: usize) -> Event<'_> {
        let Self { name, email, payload } = self;
        name.clear();
        email.clear();
        payload.clear();
        write!(name, "user {id}").expect("writing to a String cannot fail");
        write!(email, "user{id}@example.org").expect("writing to a String cannot fail");
        write!(payload, "événement {id} — 事件 {}", id.wrapping_mul(0x9E37_79B9))
            .expect("writing to a String cannot fail");
        payload.extend(std::iter::repeat_n('x', padding));
        self.again(id)
    }

    /// Event number `id`, with a payload that differs between versions.
    pub fn event_version(&mut self, id: i64, version: i64) -> Event<'_> {
        self.event(id, 0);
        write!(self.payload, " v{version}").expect("writing to a String cannot fail");
        self.again(id)
    }

    /// The last built event, if that was number `id`.
    pub fn again(&self, id: i64) -> Event<'_> {
        let created_at = TimestampTz::from_micros_since_epoch(EPOCH + id * 1_000_003 % 31_536_000_000_000);
        Event {
            id,
            name: &self.name,
            email: &self.email,
            payload: &self.payload,
            amount: id as f64 / 8.0,
            active: id % 3 == 0,
            created_at: created_at.expect("within the year 2024"),
        }
    }

    /// Version `version` of account `id`.
    pub fn account(&mut self, id: i64, version: i64) -> Account<'_> {
        let Self { name, payload, .. } = self;
        name.clear();
        payload.clear();
        write!(name, "owner {version} of {id}").expect("writing to a String cannot fail");
        write!(payload, "“note” {version}").expect("writing to a String cannot fail");
        self.account_again(id, version)
    }

    /// The last built account, if that was this version of it.
    pub fn account_again(&self, id: i64, version: i64) -> Account<'_> {
        Account { id, version, owner: &self.name, note: (version % 3 != 0).then_some(&self.payload) }
    }

    /// The `nth` visit of a visitor to one of the pages.
    pub fn visit(&mut self, visitor: i64, nth: i32) -> Visit<'_> {
        self.name.clear();
        write!(self.name, "/page/{}", visitor % 17).expect("writing to a String cannot fail");
        Visit { visitor, page: &self.name, nth }
    }
}

impl Event<'_> {
    /// The values in column order.
    pub fn values(&self) -> [ValueRef<'_>; 7] {
        [
            ValueRef::I64(self.id),
            ValueRef::Text(self.name),
            ValueRef::Text(self.email),
            ValueRef::Text(self.payload),
            ValueRef::F64(self.amount),
            ValueRef::Bool(self.active),
            ValueRef::TimestampTz(self.created_at),
        ]
    }

    /// The table.
    pub fn table() -> TableSpec {
        TableSpec { indexes: &["email", "created_at"], ..TableSpec::new(Self::type_schema().clone(), &["id"]) }
    }
}

impl<'a> Account<'a> {
    /// The values in column order.
    pub fn values(&self) -> [ValueRef<'_>; 4] {
        let note = self.note.map_or(ValueRef::Null, ValueRef::Text);
        [ValueRef::I64(self.id), ValueRef::I64(self.version), ValueRef::Text(self.owner), note]
    }

    /// The same row, ignored if its key exists.
    pub fn if_new(self) -> AccountIfNew<'a> {
        let Self { id, version, owner, note } = self;
        AccountIfNew { id, version, owner, note }
    }

    /// The table.
    pub fn table() -> TableSpec {
        TableSpec::new(Self::type_schema().clone(), &["id"])
    }
}

impl Visit<'_> {
    /// The values in column order.
    pub fn values(&self) -> [ValueRef<'_>; 3] {
        [ValueRef::I64(self.visitor), ValueRef::Text(self.page), ValueRef::I32(self.nth)]
    }

    /// The table.
    pub fn table() -> TableSpec {
        TableSpec::new(Self::type_schema().clone(), &["visitor", "page"])
    }
}

/// A table with a column of every type, for rows that are built at run time.
pub static SAMPLES: LazyLock<Schema> = LazyLock::new(|| {
    let builder = Schema::builder("batchsql_suite_samples").column("id", ColumnType::I64);
    let builder = ColumnType::ALL.iter().fold(builder, |builder, ty| builder.nullable(format!("v_{ty}"), *ty));
    builder.on_conflict(Conflict::replace(["id"])).build().expect("a schema with one column of each type")
});

/// The table of [`SAMPLES`].
pub fn samples_table() -> TableSpec {
    TableSpec::new(SAMPLES.clone(), &["id"])
}

/// Row `id` of [`SAMPLES`]: some columns `NULL`, in every fourth row some omitted.
///
/// # Errors
/// Never for an `id` that is not negative; the types are those of the schema.
pub fn sample(id: i64) -> Result<DynRow, RowError> {
    let mut row = SAMPLES.row().set("id", id)?;
    for (index, ty) in ColumnType::ALL.iter().enumerate() {
        let column = format!("v_{ty}");
        match (id as usize + index) % 5 {
            0 if id % 4 == 0 => {}
            0 => row = row.set(&column, Value::Null)?,
            _ => row = row.set(&column, sample_value(*ty, id))?,
        }
    }
    row.finish()
}

fn sample_value(ty: ColumnType, id: i64) -> Value {
    let micros = EPOCH + id * 1_000_001;
    match ty.exhaustive() {
        Type::Bool => (id % 2 == 0).into(),
        Type::I16 => ((id % 30_000) as i16).into(),
        Type::I32 => ((id % 2_000_000_000) as i32).into(),
        Type::I64 => (i64::MAX - id).into(),
        Type::U64 => (id as u64).into(),
        Type::F32 => (id as f32 / 4.0).into(),
        Type::F64 => (id as f64 / 3.0).into(),
        Type::Decimal => Decimal::from(id).into(),
        Type::Text => format!("текст {id} 🦀").into(),
        Type::Bytes => id.to_be_bytes().to_vec().into(),
        Type::Uuid => Value::Uuid((id as u128).to_be_bytes()),
        Type::Json => Json::from(&serde_json::json!({ "id": id, "ключ": [1, null] })).into(),
        Type::Date => Date::from_days_since_epoch((id % 20_000) as i32).into(),
        Type::Time => Time::from_micros_since_midnight(id % 86_400_000_000).into(),
        Type::Timestamp => Timestamp::from_micros_since_epoch(micros).into(),
        Type::TimestampTz => TimestampTz::from_micros_since_epoch(micros).into(),
    }
}

/// The values of a dynamic row in the order of its table; omitted columns are `NULL`.
pub fn all_values<'a>(table: &'a Schema, row: &'a DynRow) -> impl Iterator<Item = ValueRef<'a>> {
    table.columns().iter().map(|column| row.get(column.name()).unwrap_or(ValueRef::Null))
}
