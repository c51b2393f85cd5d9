//! Rows that are made from `serde` values.

use std::collections::BTreeMap;

use batchsql_core::{
    BatchSql, ColumnType, Date, FieldRules, Json, MissingFields, Row, Schema, TimestampTz, UnknownFields, Value,
    ValueRef,
};
use batchsql_testkit::ScriptedSink;
use serde::Serialize;
use serde_json::json;

use crate::support::{Recorder, config};

/// One nullable column `v` of the type.
fn one(ty: ColumnType) -> Schema {
    Schema::builder("serde_rows").nullable("v", ty).build().unwrap()
}

fn good<T: Serialize + ?Sized>(ty: ColumnType, field: &T, expected: impl Into<Value>) {
    let row = one(ty).row_from(&BTreeMap::from([("v", field)])).unwrap_or_else(|error| panic!("{ty}: {error}"));
    assert_eq!(row.get("v").map(|v| v.to_value()), Some(expected.into()), "{ty}");
}

/// The field is refused, with an error that names the column and has the text, but not the value.
fn bad<T: Serialize + ?Sized>(ty: ColumnType, field: &T, part: &str) {
    let error = one(ty).row_from(&BTreeMap::from([("v", field)])).expect_err(part);
    assert_eq!(error.column(), Some("v"));
    let message = error.to_string();
    assert!(message.contains(part), "{message:?} does not contain {part:?}");
    let value = serde_json::to_string(field).unwrap();
    let value = value.trim_matches('"');
    assert!(value.len() < 4 || !message.contains(value), "{message:?} has the value");
}

#[test]
fn fields_become_values_of_their_column() {
    good(ColumnType::Bool, &true, true);
    good(ColumnType::I16, &5_u64, 5_i16);
    good(ColumnType::I64, &5.0, 5_i64);
    good(ColumnType::F32, &json!(0.1), 0.1_f32);
    good(ColumnType::F64, &7, 7.0);
    good(ColumnType::Decimal, "19.90", Value::Decimal("19.90".parse().unwrap()));
    good(ColumnType::Decimal, &19.9, Value::Decimal("19.9".parse().unwrap()));
    good(ColumnType::Decimal, &0.1_f32, Value::Decimal("0.1".parse().unwrap()));
    good(ColumnType::Decimal, &u128::MAX, Value::Decimal(u128::MAX.into()));
    good(ColumnType::Text, &'x', "x");
    good(ColumnType::Bytes, "\\x00ff", vec![0_u8, 255]);
    good(ColumnType::Bytes, &vec![0_u8, 255], vec![0_u8, 255]);
    good(ColumnType::Bytes, &[1_u8, 2], vec![1_u8, 2]);
    good(ColumnType::Uuid, "07070707-0707-0707-0707-070707070707", Value::Uuid([7; 16]));
    good(ColumnType::Date, "2026-01-31", Date::from_ymd(2026, 1, 31).unwrap());
    good(ColumnType::Date, &Date::MIN, Date::MIN);
    good(ColumnType::Time, "00:00:00", batchsql_core::Time::MIN);
    good(ColumnType::Timestamp, &batchsql_core::Timestamp::MAX, batchsql_core::Timestamp::MAX);
    good(ColumnType::TimestampTz, "1970-01-01T01:00:00+01:00", TimestampTz::from_micros_since_epoch(0).unwrap());
    for ty in ColumnType::ALL {
        good(ty, &None::<i32>, Value::Null);
        good(ty, &json!(null), Value::Null);
    }
}

#[test]
fn anything_can_be_a_document() {
    #[derive(Serialize)]
    struct Details {
        gift: bool,
        tags: Vec<&'static str>,
    }
    let document = |text: &str| Value::Json(text.parse().unwrap());
    good(ColumnType::Json, &Details { gift: true, tags: vec!["a"] }, document(r#"{"gift":true,"tags":["a"]}"#));
    good(ColumnType::Json, "x", document(r#""x""#));
    good(ColumnType::Json, &1.5, document("1.5"));
    good(ColumnType::Json, &"[1,2]".parse::<Json>().unwrap(), document("[1,2]"));
    let error = one(ColumnType::Json).row_from(&BTreeMap::from([("v", BTreeMap::from([((1, 2), 3)]))])).unwrap_err();
    assert!(error.column() == Some("v") && error.to_string().contains("Serialize"), "{error}");
}

#[test]
fn nothing_is_lost() {
    bad(ColumnType::I16, &40_000, "cannot hold exactly");
    bad(ColumnType::U64, &-1, "cannot hold exactly");
    bad(ColumnType::I64, &1234.5, "cannot hold exactly");
    bad(ColumnType::F32, &0.123_456_789, "cannot hold exactly");
    bad(ColumnType::F64, &9_007_199_254_740_993_u64, "cannot hold exactly");
    bad(ColumnType::Decimal, &(0.1 + 0.2), "cannot hold exactly");
    bad(ColumnType::Text, &1234, "expects text but got i64");
    bad(ColumnType::I64, "12345", "expects i64 but got text");
    bad(ColumnType::Bool, &1, "expects bool but got i64");
    bad(ColumnType::Decimal, "1234e5", "expected [-]digits");
    bad(ColumnType::Uuid, "12345", "not a UUID");
    bad(ColumnType::Date, "2026-02-30", "expected YYYY-MM-DD");
    bad(ColumnType::Timestamp, "2026-01-31T01:02:03Z", "without a zone");
    bad(ColumnType::TimestampTz, "2026-01-31T01:02:03", "RFC 3339");
    bad(ColumnType::TimestampTz, "2026-01-31T01:02:03.1234567Z", "six fractional digits");
    bad(ColumnType::Bytes, "00ff", "not bytes");
    bad(ColumnType::Bytes, &[256], "expects bytes but got a list of other things");
    bad(ColumnType::Text, &["abcd"], "expects text but got a list");
    bad(ColumnType::Text, &json!({"a": "bcde"}), "expects text but got an object");
}

/// A number as `serde_json` shows it with `arbitrary_precision`.
#[derive(Serialize)]
#[serde(rename = "$serde_json::private::Number")]
struct Digits {
    #[serde(rename = "$serde_json::private::Number")]
    digits: &'static str,
}

#[test]
fn numbers_of_any_precision_keep_it() {
    let digits = "12345678901234567890.123456789";
    good(ColumnType::Decimal, &Digits { digits }, Value::Decimal(digits.parse().unwrap()));
    good(ColumnType::I64, &Digits { digits: "7" }, 7_i64);
    good(ColumnType::F64, &Digits { digits: "0.1" }, 0.1);
    let error = one(ColumnType::Text).row_from(&BTreeMap::from([("v", Digits { digits })])).unwrap_err();
    assert!(error.is_type_mismatch(), "{error}");
}

/// A part of a document that `serde_json` keeps as text.
#[test]
fn raw_values_lose_nothing() {
    let raw = |text: &str| serde_json::value::RawValue::from_string(text.to_owned()).unwrap();
    let json = |text: &str| Value::Json(text.parse().unwrap());
    for text in
        ["1e400", "0.1000000000000000055", "12345678901234567890", r#"{"b": 1.10, "a": [1e400]}"#, r#""\u00e9""#]
    {
        good(ColumnType::Json, &raw(text), json(text));
        good(ColumnType::Json, &text.parse::<Json>().unwrap(), json(text));
    }
    let decimal = |digits: &str| Value::Decimal(digits.parse().unwrap());
    good(ColumnType::Decimal, &raw("12345678901234567890.123456789"), decimal("12345678901234567890.123456789"));
    good(ColumnType::Decimal, &raw("1.10"), decimal("1.10"));
    good(ColumnType::Decimal, &raw("\"1.10\""), decimal("1.10"));
    good(ColumnType::U64, &raw("18446744073709551615"), Value::U64(u64::MAX));
    good(ColumnType::I64, &raw("-9223372036854775808"), i64::MIN);
    good(ColumnType::I32, &raw("2e3"), 2000);
    good(ColumnType::F64, &raw("0.1000000000000000056"), 0.1);
    good(ColumnType::F32, &raw("0.1"), 0.1_f32);
    good(ColumnType::Text, &raw(r#""a\u00e9\n""#), "a\u{e9}\n");
    good(ColumnType::Bool, &raw("true"), true);
    good(ColumnType::Bytes, &raw("[1, 2]"), vec![1_u8, 2]);
    good(ColumnType::Bytes, &raw(r#""\\x01ff""#), vec![1_u8, 0xff]);
    let zero = one(ColumnType::F64).row_from(&BTreeMap::from([("v", raw("-0"))])).unwrap();
    assert!(matches!(zero.get("v"), Some(batchsql_core::ValueRef::F64(zero)) if zero.is_sign_negative()));
    let null = one(ColumnType::F64).row_from(&BTreeMap::from([("v", raw("null"))])).unwrap();
    assert!(null.get("v").is_some_and(|value| value.is_null()));
    bad(ColumnType::F64, &raw("12345e400"), "cannot hold exactly");
    bad(ColumnType::F64, &raw("1e-400"), "cannot hold exactly");
    bad(ColumnType::F64, &raw("0.1000000000000000055"), "cannot hold exactly");
    bad(ColumnType::F32, &raw("12345e300"), "cannot hold exactly");
    bad(ColumnType::I64, &raw("12345678901234567890"), "cannot hold exactly");
    bad(ColumnType::I64, &raw("12345.5"), "cannot hold exactly");
    bad(ColumnType::Text, &raw("12345"), "expects text but got i64");
    bad(ColumnType::Text, &raw("12345e1"), "expects text but got f64");
    bad(ColumnType::I64, &raw("\"12345\""), "expects i64 but got text");
    bad(ColumnType::Text, &raw("[12345]"), "expects text but got a list");
    bad(ColumnType::Text, &raw("{\"a\": 12345}"), "expects text but got an object");
    bad(ColumnType::Text, &raw(r#""12345\ud800""#), "Serialize");
}

fn three() -> Schema {
    let builder = Schema::builder("serde_rows").column("id", ColumnType::I64);
    builder.nullable("note", ColumnType::Text).nullable("size", ColumnType::I32).build().unwrap()
}

#[test]
fn the_rules_decide_about_unknown_and_missing_fields() {
    #[derive(Serialize)]
    struct Message {
        color: &'static str,
        size: i32,
        id: i64,
    }
    let message = Message { color: "red", size: 3, id: 7 };
    let error = three().row_from(&message).unwrap_err();
    assert!(error.to_string().contains("\"color\" is not declared; the columns are id, note, size"), "{error}");
    let lenient = FieldRules::default().unknown(UnknownFields::Ignore);
    let columns = |rules| {
        let row = three().row_from_with(&message, rules).unwrap();
        row.iter().map(|(name, value)| format!("{name}={:?}", value.to_value())).collect::<Vec<_>>()
    };
    assert_eq!(columns(lenient), ["id=I64(7)", "size=I32(3)"]);
    assert_eq!(columns(lenient.missing(MissingFields::Null)), ["id=I64(7)", "note=Null", "size=I32(3)"]);
    let error = three().row_from_with(&message, lenient.missing(MissingFields::Refuse)).unwrap_err();
    assert!(error.column() == Some("note") && error.is_null(), "{error}");
    for missing in [MissingFields::LeaveOut, MissingFields::Null, MissingFields::Refuse] {
        let error = three().row_from_with(&json!({"size": 1}), lenient.missing(missing)).unwrap_err();
        assert!(error.column() == Some("id") && error.is_null(), "{missing:?}: {error}");
    }
    let error = three().row_from(&json!({"id": null})).unwrap_err();
    assert!(error.column() == Some("id") && error.is_null(), "{error}");
}

#[test]
fn structs_maps_and_what_wraps_them_are_rows() {
    #[derive(Serialize)]
    struct Inner {
        note: &'static str,
    }
    #[derive(Serialize)]
    struct Flat {
        id: i64,
        #[serde(flatten)]
        inner: Inner,
        #[serde(skip_serializing_if = "Option::is_none")]
        size: Option<i32>,
    }
    #[derive(Serialize)]
    struct Wrapped(Flat);
    let flat = Wrapped(Flat { id: 1, inner: Inner { note: "n" }, size: None });
    let row = three().row_from(&Some(flat)).unwrap();
    assert_eq!((row.get("note"), row.get("size")), (Some(ValueRef::Text("n")), None));
    let map: serde_json::Map<String, serde_json::Value> = [("id".to_owned(), json!(1))].into_iter().collect();
    assert_eq!(three().row_from(&map).unwrap().schema().columns().len(), 1);

    for value in [json!(1), json!("text"), json!(null), json!([{"id": 1}]), json!(true)] {
        let error = three().row_from(&value).unwrap_err();
        assert!(error.column().is_none() && error.to_string().contains("not a struct or a map"), "{error}");
    }
    let error = three().row_from(&BTreeMap::from([(1, 2)])).unwrap_err();
    assert!(error.to_string().contains("keys that are not text"), "{error}");
}

#[test]
fn a_field_that_is_given_twice_is_refused() {
    #[derive(Serialize)]
    struct Twice {
        id: i64,
        #[serde(flatten)]
        more: BTreeMap<&'static str, i64>,
    }
    let error = three().row_from(&Twice { id: 1, more: BTreeMap::from([("id", 2)]) }).unwrap_err();
    assert!(error.to_string().contains("\"id\" is given twice"), "{error}");
}

#[test]
fn messages_of_a_failing_serialize_are_not_shown() {
    struct Failing;
    impl Serialize for Failing {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("the secret"))
        }
    }
    let error = one(ColumnType::Text).row_from(&BTreeMap::from([("v", Failing)])).unwrap_err();
    assert!(error.column() == Some("v") && !error.to_string().contains("secret"), "{error}");
    assert!(!one(ColumnType::Text).row_from(&Failing).unwrap_err().to_string().contains("secret"));
}

#[tokio::test(start_paused = true)]
async fn values_are_submitted_and_refused_ones_are_reported() {
    let (sink, recorder) = (ScriptedSink::new(), Recorder::default());
    let db = BatchSql::builder(sink.clone()).config(config()).metrics_reporter(recorder.clone()).start().unwrap();
    db.submit_serde(&three(), &json!({"id": 1, "note": "n"})).await.unwrap();
    let error = db.submit_serde(&three(), &json!({"id": "x"})).await.unwrap_err();
    assert_eq!(error.row_error().and_then(|error| error.column()), Some("id"));
    assert_eq!(db.flush().await.unwrap().written(), 1);
    assert_eq!(recorder.0.lock().unwrap().refused, ["invalid"]);
    assert_eq!(sink.applied().len(), 1);
}
