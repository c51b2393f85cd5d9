//! What each attribute of the derives does to the rows that a database gets.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::fmt::Display;

use batchsql_core::{AsJson, BatchSql, Row as _, RowColumns as _, Schema, TypedRow, Value};
use batchsql_derive::{Encode, Row, RowColumns};
use batchsql_testkit::ScriptedSink;
use serde::Serialize;

/// The columns and values of the rows, as a database gets them.
async fn written<R: batchsql_core::Row>(rows: impl IntoIterator<Item = R>) -> Vec<Vec<(String, Value)>> {
    let sink = ScriptedSink::new();
    let db = BatchSql::builder(sink.clone()).start().unwrap();
    for row in rows {
        db.submit(&row).await.unwrap();
    }
    db.flush().await.unwrap();
    let rows = sink.applied();
    rows.iter().map(|row| row.iter().map(|(name, value)| (name.to_owned(), value.to_value())).collect()).collect()
}

fn columns(values: &[(&str, Value)]) -> Vec<(String, Value)> {
    values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

fn names(schema: &Schema) -> Vec<&str> {
    schema.columns().iter().map(|column| column.name()).collect()
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", rename_all = "camelCase", key = "orderId", on_conflict = "ignore")]
struct Renamed {
    order_id: i64,
    #[row(rename = "as_it_is")]
    other_name: i64,
    r#type: i64,
}

#[tokio::test]
async fn rename_all_names_the_columns_that_have_no_name_of_their_own() {
    assert_eq!(names(Renamed::type_schema()), ["orderId", "as_it_is", "type"]);
    let rows = written([Renamed { order_id: 1, other_name: 2, r#type: 3 }]).await;
    assert_eq!(rows, [columns(&[("orderId", 1_i64.into()), ("as_it_is", 2_i64.into()), ("type", 3_i64.into())])]);
}

#[derive(RowColumns)]
#[row(crate = "batchsql_core", rename_all = "UPPERCASE")]
struct Place<'a> {
    country: &'a str,
    #[row(skip_none)]
    city: Option<&'a str>,
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "inner")]
struct Inner<'a> {
    #[row(flatten)]
    place: Place<'a>,
    size: i32,
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key("id", "COUNTRY"), on_conflict = "update", update("CITY"))]
struct Flat<'a> {
    id: i64,
    #[row(skip_none)]
    before: Option<i64>,
    #[row(flatten)]
    inner: Inner<'a>,
    #[row(skip_none)]
    after: Option<i64>,
}

#[tokio::test]
async fn flatten_inlines_columns_also_of_rows_and_of_what_they_inline() {
    assert_eq!(names(Flat::type_schema()), ["id", "before", "COUNTRY", "CITY", "size", "after"]);
    assert_eq!((Flat::COLUMNS, Flat::OPTIONAL, Inner::type_schema().table_display()), (6, 3, "inner"));
    let flat = |country, city| Flat {
        id: 1,
        before: None,
        inner: Inner { place: Place { country, city }, size: 7 },
        after: Some(9),
    };
    let [id, size, after] = [("id", Value::I64(1)), ("size", Value::I32(7)), ("after", Value::I64(9))];
    let expected = [
        columns(&[id.clone(), ("COUNTRY", "at".into()), ("CITY", "graz".into()), size.clone(), after.clone()]),
        columns(&[id, ("COUNTRY", "de".into()), size, after]),
    ];
    assert_eq!(written([flat("at", Some("graz")), flat("de", None)]).await, expected);
    // The hash has the key columns of flattened fields, as that of a dynamic row has.
    let row = flat("at", None);
    let builder = Flat::type_schema().row().set("id", 1_i64).unwrap().set("COUNTRY", "at").unwrap();
    let dynamic = builder.set("size", 7).unwrap().set("after", 9_i64).unwrap().finish().unwrap();
    assert_eq!((row.schema(), row.key_hash()), (dynamic.schema(), dynamic.key_hash()));
    assert_ne!(row.key_hash(), flat("de", None).key_hash());
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t")]
struct Optional {
    id: i64,
    #[row(skip_none)]
    note: Option<String>,
    #[row(default)]
    state: String,
    #[row(default)]
    count: i64,
    plain: Option<i64>,
}

#[tokio::test]
async fn none_and_defaults_are_left_out() {
    let row = |note: Option<&str>, state: &str, count| Optional {
        id: 1,
        note: note.map(str::to_owned),
        state: state.to_owned(),
        count,
        plain: None,
    };
    let (id, plain) = (("id", Value::I64(1)), ("plain", Value::Null));
    // Groups are written in any order.
    for (row, expected) in [
        (row(None, "", 0), columns(&[id.clone(), plain.clone()])),
        (row(Some("n"), "", 0), columns(&[id.clone(), ("note", "n".into()), plain.clone()])),
        (row(None, "s", 0), columns(&[id.clone(), ("state", "s".into()), plain.clone()])),
        (
            row(Some(""), "s", 5),
            columns(&[id.clone(), ("note", "".into()), ("state", "s".into()), ("count", 5_i64.into()), plain.clone()]),
        ),
    ] {
        assert!(std::ptr::eq(row.schema(), row.schema()), "the schema is made once");
        assert_eq!(row.variable_len(), expected.iter().map(|(_, value)| value.as_ref().variable_len()).sum::<usize>());
        assert_eq!(written([row]).await, [expected]);
    }
}

struct Money {
    cents: i64,
    currency: String,
}

fn cents(money: &Money) -> i64 {
    money.cents
}

mod currency {
    pub(super) fn of(money: &super::Money) -> &str {
        &money.currency
    }

    pub(super) fn maybe(money: &Option<super::Money>) -> Option<&str> {
        money.as_ref().map(of)
    }
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "currency", on_conflict = "ignore")]
struct With {
    #[row(with = cents, rename = "cents")]
    price: Money,
    #[row(with = currency::of, rename = "currency")]
    other: Money,
    #[row(with = currency::maybe, skip_none)]
    maybe: Option<Money>,
    #[row(with = ToString::to_string)]
    text: i64,
}

#[tokio::test]
async fn with_converts_a_field_by_a_function() {
    let money = |cents, currency: &str| Money { cents, currency: currency.to_owned() };
    let row = |maybe| With { price: money(5, "eur"), other: money(6, "usd"), maybe, text: 7 };
    let [cents, currency, text] = [("cents", 5_i64.into()), ("currency", "usd".into()), ("text", "7".into())];
    let full = columns(&[cents.clone(), currency.clone(), ("maybe", "chf".into()), text.clone()]);
    assert_eq!(written([row(Some(money(1, "chf")))]).await, [full]);
    assert_eq!(written([row(None)]).await, [columns(&[cents, currency, text])]);
    let nullable: Vec<bool> = With::type_schema().columns().iter().map(|column| column.is_nullable()).collect();
    assert_eq!(nullable, [false, false, true, false]);
}

#[derive(Serialize)]
struct Details {
    tags: Vec<&'static str>,
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t")]
struct WithJson {
    #[row(json)]
    details: Details,
    #[row(json)]
    maybe: Option<Details>,
    #[row(json, skip_none)]
    left_out: Option<Details>,
    value: serde_json::Value,
    wrapped: AsJson<BTreeMap<&'static str, i32>>,
}

#[tokio::test]
async fn json_takes_any_serde_value() {
    let row = WithJson {
        details: Details { tags: vec!["a", "b"] },
        maybe: None,
        left_out: None,
        value: serde_json::Value::Null,
        wrapped: AsJson(BTreeMap::from([("a", 1)])),
    };
    let json = |text: &str| Value::Json(text.parse().unwrap());
    let expected = columns(&[
        ("details", json(r#"{"tags":["a","b"]}"#)),
        ("maybe", Value::Null),
        ("value", json("null")),
        ("wrapped", json(r#"{"a":1}"#)),
    ]);
    assert_eq!(written([row]).await, [expected]);
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t")]
struct BadJson {
    #[row(json)]
    details: BTreeMap<(i32, i32), i32>,
}

#[tokio::test]
async fn a_value_that_cannot_be_json_refuses_its_row() {
    let db = BatchSql::builder(ScriptedSink::new()).start().unwrap();
    let error = db.submit(&BadJson { details: BTreeMap::from([((1, 2), 3)]) }).await.unwrap_err();
    assert_eq!(error.row_error().and_then(|error| error.column()), Some("details"), "{error}");
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key = "key", on_conflict = "update")]
struct Generic<'a, K: batchsql_core::Encode, V, const N: usize>
where
    V: Display,
{
    key: K,
    #[row(with = ToString::to_string)]
    value: V,
    name: &'a str,
    #[row(with = first::<N>)]
    list: [i64; N],
}

fn first<const N: usize>(list: &[i64; N]) -> i64 {
    list[0]
}

#[tokio::test]
async fn each_type_of_a_generic_row_has_a_schema_of_its_own() {
    let name = String::from("n");
    let numbers = Generic { key: 1_i64, value: 'v', name: &name, list: [7] };
    let texts = Generic { key: "k", value: 2.5, name: &name, list: [8, 9] };
    let (value, name) = (("value", "v".into()), ("name", Value::from("n")));
    let list = ("list", 7_i64.into());
    assert_eq!(written([numbers]).await, [columns(&[("key", 1_i64.into()), value, name.clone(), list])]);
    let (value, list) = (("value", "2.5".into()), ("list", 8_i64.into()));
    assert_eq!(written([texts]).await, [columns(&[("key", "k".into()), value, name, list])]);
}

#[derive(Encode)]
#[row(crate = "batchsql_core")]
struct UserId(i64);

#[derive(Encode)]
#[row(crate = "batchsql_core")]
struct Name<T> {
    text: T,
}

#[derive(Encode, Clone, Copy)]
#[row(crate = "batchsql_core", rename_all = "snake_case")]
enum State {
    Open,
    PaidOut,
    #[row(rename = "x")]
    Cancelled,
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", key("user", "state"), on_conflict = "ignore")]
struct Newtypes {
    user: UserId,
    name: Name<Option<String>>,
    state: State,
    maybe: Option<State>,
}

#[tokio::test]
async fn newtypes_are_their_value_and_enums_are_text() {
    let row = |state, maybe| Newtypes { user: UserId(1), name: Name { text: None }, state, maybe };
    for (state, text) in [(State::Open, "open"), (State::PaidOut, "paid_out"), (State::Cancelled, "x")] {
        let common = [("user", 1_i64.into()), ("name", Value::Null), ("state", text.into())];
        let (null, some) =
            ([&common[..], &[("maybe", Value::Null)]].concat(), [&common[..], &[("maybe", text.into())]]);
        assert_eq!(written([row(state, None)]).await, [columns(&null)]);
        assert_eq!(written([row(state, Some(state))]).await, [columns(&some.concat())]);
        let dynamic = Newtypes::type_schema().row().set("user", 1_i64).unwrap().set("state", text).unwrap();
        assert_eq!(row(state, None).key_hash(), dynamic.finish().unwrap().key_hash());
    }
}

#[derive(Row)]
#[row(crate = "batchsql_core", table = "t", returning("id": i64))]
struct Generated {
    name: &'static str,
}

#[tokio::test]
async fn a_row_gets_the_values_that_the_database_returns() {
    let sink = ScriptedSink::new();
    sink.return_values(|row, column| if column == "id" { Value::I64(length(row) as i64) } else { Value::Null });
    sink.poison(|row| length(row) == 1);
    sink.report_rows();
    let db = BatchSql::builder(sink).start().unwrap();
    let mut ids = Vec::new();
    let mut receipts = Vec::new();
    for name in ["abc", "a", "ab"] {
        receipts.push(db.submit_tracked(&Generated { name }).await.unwrap());
    }
    for receipt in receipts {
        let (_, returned) = receipt.with_returned().await;
        ids.push(returned.and_then(|returned| returned.get("id").map(|id| id.to_value())));
    }
    // The second row is rejected.
    assert_eq!(ids, [Some(Value::I64(3)), None, Some(Value::I64(2))]);
}

fn length(row: &batchsql_core::DynRow) -> usize {
    match row.get("name") {
        Some(batchsql_core::ValueRef::Text(name)) => name.len(),
        other => panic!("{other:?}"),
    }
}
