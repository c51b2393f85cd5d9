//! What the derive generates, and what it refuses.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::borrow::Cow;

use batchsql_core::{
    ColumnType, Conflict, Date, Decimal, DynRow, Json, Row as _, RowError, RowWriter, Time, Timestamp, TimestampTz,
    TypedRow, Value,
};
use batchsql_derive::Row;

#[derive(Row)]
#[row(crate = "batchsql_core", table = "orders", key = "id", on_conflict = "update")]
struct Order<'a> {
    id: i64,
    customer: &'a str,
    #[row(rename = "total")]
    total_cents: i64,
    note: Option<&'a str>,
    #[row(skip)]
    _cached: usize,
}

#[derive(Row)]
#[row(
    crate = "batchsql_core",
    table = "all",
    schema = "audit",
    on_conflict = "update",
    key("a", "r#type"),
    update("b")
)]
#[allow(dead_code)]
struct Everything<'a> {
    a: bool,
    #[row(rename = "r#type")]
    r#type: u8,
    b: Option<Cow<'a, str>>,
    c: i16,
    d: u16,
    e: u32,
    f: u64,
    g: f32,
    h: f64,
    i: Decimal,
    j: Vec<u8>,
    k: &'a [u8],
    l: Json,
    m: Date,
    n: Time,
    o: Timestamp,
    p: Option<TimestampTz>,
    q: String,
    r: Box<str>,
}

#[test]
fn the_schema_is_the_struct() {
    let schema = Order::type_schema();
    let columns: Vec<_> = schema.columns().iter().map(|c| (c.name(), c.column_type(), c.is_nullable())).collect();
    assert_eq!(
        columns,
        [
            ("id", ColumnType::I64, false),
            ("customer", ColumnType::Text, false),
            ("total", ColumnType::I64, false),
            ("note", ColumnType::Text, true),
        ]
    );
    assert_eq!(schema.conflict(), &Conflict::update(["id"]));
    let all = Everything::type_schema();
    assert_eq!(all.table_display(), "audit.all");
    assert_eq!(all.conflict(), &Conflict::update_columns(["a", "r#type"], ["b"]));
    assert_eq!(all.columns().len(), 19);
}

#[test]
fn typed_and_dynamic_rows_agree_on_size_and_key() {
    let order = Order { id: 7, customer: "ada", total_cents: 995, note: Some("n"), _cached: 1 };
    let values = [Value::I64(7), "ada".into(), Value::I64(995), "n".into()];
    let dynamic: DynRow = Order::type_schema().row().set_all(values).unwrap().finish().unwrap();
    assert_eq!(order.schema(), dynamic.schema());
    assert_eq!(order.variable_len(), 4);
    assert_eq!(order.variable_len(), dynamic.variable_len());
    assert_eq!(order.key_hash(), dynamic.key_hash());
    // Adjacent keys may share a hash.
    let other = Order { id: 8_000, ..order };
    assert_ne!(other.key_hash(), dynamic.key_hash());
}

/// A field type with its own `Encode`.
struct Cents(i64);

impl batchsql_core::Encode for Cents {
    const TYPE: ColumnType = ColumnType::I64;

    fn hash_key(&self, hasher: &mut batchsql_core::KeyHasher) {
        self.0.hash_key(hasher);
    }

    fn encode(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        writer.i64(self.0)
    }
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "prices")]
struct Price {
    cents: Cents,
}

#[test]
fn field_types_of_ones_own_are_welcome() {
    assert_eq!(Price { cents: Cents(5) }.schema().columns()[0].column_type(), ColumnType::I64);
}

#[test]
fn mistakes_are_compile_errors_at_the_right_place() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}

/// Their text depends on whether the component rust-src is installed.
#[test]
fn no_expected_message_has_a_place_in_the_standard_library() {
    for file in std::fs::read_dir("tests/ui").unwrap().map(|entry| entry.unwrap().path()) {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!text.contains("$RUST"), "{}", file.display());
    }
}
