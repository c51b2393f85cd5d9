//! Every Arrow type: its exact values, and those that are refused.

use std::sync::Arc;

use arrow_array::builder::{FixedSizeBinaryBuilder, Int32Builder, ListBuilder, MapBuilder, StringBuilder};
use arrow_array::types::{Int8Type, Int32Type};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BinaryViewArray, BooleanArray, Date32Array, Date64Array, Decimal128Array,
    Decimal256Array, DictionaryArray, DurationSecondArray, FixedSizeListArray, Float16Array, Float32Array,
    Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, LargeBinaryArray, LargeStringArray, NullArray,
    StringArray, StringViewArray, StructArray, Time32MillisecondArray, Time32SecondArray, Time64MicrosecondArray,
    Time64NanosecondArray, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
    TimestampSecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow_schema::{DataType, Field};
use batchsql_core::{ColumnType, Date, Time, Timestamp, TimestampTz, Value};

use crate::support::{map, values};

/// All values fit; the last one is NULL.
fn exact(array: impl Into<ArrayRef>, ty: ColumnType, expected: impl IntoIterator<Item = Value>) {
    let array = array.into();
    let what = format!("{} as {ty}", array.data_type());
    let (found, refused) = values(Arc::clone(&array), ty);
    let mut expected: Vec<Value> = expected.into_iter().collect();
    expected.push(Value::Null);
    assert_eq!((found, refused), (expected.clone(), vec![]), "{what}");
    // A part of an array has its own values.
    if array.len() > 1 {
        let (found, refused) = values(array.slice(1, array.len() - 1), ty);
        assert_eq!((found, refused), (expected.split_off(1), vec![]), "a part of {what}");
    }
}

/// The last row is refused with this reason, the others are not.
fn refused(array: impl Into<ArrayRef>, ty: ColumnType, part: &str) {
    let array = array.into();
    let last = array.len() - 1;
    let (found, refused) = values(array, ty);
    assert_eq!(found.len(), last, "{refused:?}");
    assert!(refused.len() == 1 && refused[0].0 == last, "{refused:?}");
    assert!(refused[0].1.contains("table \"t\": column \"v\"") && refused[0].1.contains(part), "{refused:?}");
}

fn arc<A: Array + 'static>(array: A) -> ArrayRef {
    Arc::new(array)
}

fn decimals(texts: &[&str]) -> Vec<Value> {
    texts.iter().map(|text| Value::Decimal(text.parse().unwrap())).collect()
}

#[test]
fn booleans_and_numbers() {
    exact(arc(BooleanArray::from(vec![Some(true), Some(false), None])), ColumnType::Bool, [true.into(), false.into()]);
    exact(arc(Int8Array::from(vec![Some(-128), None])), ColumnType::I16, [Value::I16(-128)]);
    exact(arc(UInt8Array::from(vec![Some(255), None])), ColumnType::I16, [Value::I16(255)]);
    exact(arc(Int16Array::from(vec![Some(i16::MIN), None])), ColumnType::I16, [Value::I16(i16::MIN)]);
    exact(arc(UInt16Array::from(vec![Some(u16::MAX), None])), ColumnType::I32, [Value::I32(65_535)]);
    exact(arc(Int32Array::from(vec![Some(7), Some(i32::MAX), None])), ColumnType::I32, [7, i32::MAX].map(Value::I32));
    exact(arc(UInt32Array::from(vec![Some(u32::MAX), None])), ColumnType::I64, [Value::I64(u32::MAX.into())]);
    exact(arc(Int64Array::from(vec![Some(1), Some(i64::MIN), None])), ColumnType::I64, [1, i64::MIN].map(Value::I64));
    exact(arc(UInt64Array::from(vec![Some(u64::MAX), None])), ColumnType::U64, [Value::U64(u64::MAX)]);
    // Between widths, if the number fits.
    exact(arc(Int64Array::from(vec![Some(-5), None])), ColumnType::I16, [Value::I16(-5)]);
    refused(arc(Int64Array::from(vec![32_767, 32_768])), ColumnType::I16, "has a value that i16 cannot hold exactly");
    refused(arc(Int64Array::from(vec![1, -1])), ColumnType::U64, "that u64 cannot hold exactly");
    refused(arc(UInt64Array::from(vec![1, 1 << 63])), ColumnType::I64, "that i64 cannot hold exactly");
    exact(arc(Int64Array::from(vec![Some(1 << 53), None])), ColumnType::F64, [Value::F64(9_007_199_254_740_992.0)]);
    refused(arc(Int64Array::from(vec![1, (1 << 53) + 1])), ColumnType::F64, "that f64 cannot hold exactly");
    exact(arc(Int32Array::from(vec![Some(-40), None])), ColumnType::Decimal, decimals(&["-40"]));
    exact(arc(half()), ColumnType::F32, [Value::F32(1.5)]);
    exact(arc(Float32Array::from(vec![Some(0.1), None])), ColumnType::F32, [Value::F32(0.1)]);
    exact(arc(Float32Array::from(vec![Some(0.5), None])), ColumnType::F64, [Value::F64(0.5)]);
    exact(arc(Float64Array::from(vec![Some(0.1), None])), ColumnType::F64, [Value::F64(0.1)]);
    exact(arc(Float64Array::from(vec![Some(0.25), Some(0.1), None])), ColumnType::F32, [0.25, 0.1].map(Value::F32));
    refused(arc(Float64Array::from(vec![0.5, 0.1 + 0.2])), ColumnType::F32, "that f32 cannot hold exactly");
}

/// From the bits, as the crate of the type is not used here: 1.5 is 0x3e00.
fn half() -> Float16Array {
    let bits = UInt16Array::from(vec![Some(0x3e00), None]).to_data();
    Float16Array::from(bits.into_builder().data_type(DataType::Float16).build().unwrap())
}

#[test]
fn decimals_keep_every_digit() {
    let array = Decimal128Array::from(vec![Some(12_345), Some(-5), None]).with_precision_and_scale(38, 3).unwrap();
    exact(arc(array), ColumnType::Decimal, decimals(&["12.345", "-0.005"]));
    let array = Decimal128Array::from(vec![Some(12), None]).with_precision_and_scale(10, -2).unwrap();
    exact(arc(array), ColumnType::Decimal, decimals(&["1200"]));
    let whole = || Decimal128Array::from(vec![7, 1 << 70]).with_precision_and_scale(38, 0).unwrap();
    refused(arc(whole()), ColumnType::I64, "that i64 cannot hold exactly");
    let digits = "12345678901234567890123456789012345678901234567890";
    let large: Decimal256Array = [Some(digits.parse().unwrap()), None].into_iter().collect();
    let large = large.with_precision_and_scale(76, 10).unwrap();
    exact(arc(large), ColumnType::Decimal, decimals(&["1234567890123456789012345678901234567890.1234567890"]));
    let fraction = Decimal128Array::from(vec![7]).with_precision_and_scale(10, 1).unwrap();
    assert!(map(arc(fraction), ColumnType::I64).is_err(), "decimals with a fraction are no integers");
}

#[test]
fn texts_and_what_they_mean() {
    let texts = ["a", "", "\u{1f600}"];
    let expected = || texts.map(Value::from);
    let with_null = || texts.into_iter().map(Some).chain([None]);
    exact(arc(with_null().collect::<StringArray>()), ColumnType::Text, expected());
    exact(arc(with_null().collect::<LargeStringArray>()), ColumnType::Text, expected());
    exact(arc(with_null().collect::<StringViewArray>()), ColumnType::Text, expected());
    exact(arc(with_null().collect::<DictionaryArray<Int8Type>>()), ColumnType::Text, expected());
    exact(arc([None::<&str>].into_iter().collect::<DictionaryArray<Int32Type>>()), ColumnType::Text, []);
    let names = Arc::new(StringArray::from(vec![Some("x"), None]));
    let keys = Int32Array::from(vec![Some(0), Some(1)]);
    exact(arc(DictionaryArray::new(keys, names)), ColumnType::Text, ["x".into()]);

    let check = |ty, text: &str, value: Value, bad: &str, why: &str| {
        exact(arc(StringArray::from(vec![Some(text), None])), ty, [value]);
        refused(arc(StringArray::from(vec![text, bad])), ty, why);
    };
    check(ColumnType::Decimal, "1.50", Value::Decimal("1.50".parse().unwrap()), "1e5", "has text that is no decimal");
    let id = Value::Uuid([0x11; 16]);
    check(ColumnType::Uuid, "11111111-1111-1111-1111-111111111111", id, "1111", "has text that is no uuid");
    check(
        ColumnType::Json,
        r#"{"a": 1}"#,
        Value::Json(r#"{"a": 1}"#.parse().unwrap()),
        "{",
        "has text that is no json",
    );
    check(ColumnType::Date, "2026-01-31", Value::Date(Date::from_ymd(2026, 1, 31).unwrap()), "2026-02-30", "no date");
    let noon = Time::from_hms_micro(12, 0, 0, 0).unwrap();
    check(ColumnType::Time, "12:00:00", Value::Time(noon), "25:00:00", "no time");
    let at = "2026-01-31T12:00:00";
    check(ColumnType::Timestamp, at, Value::Timestamp(at.parse().unwrap()), "noon", "no timestamp");
    let at = "2026-01-31T12:00:00+02:00";
    check(ColumnType::TimestampTz, at, Value::TimestampTz(at.parse().unwrap()), "2026-01-31", "no timestamptz");
    let (_, refused) = values(arc(StringArray::from(vec!["secret"])), ColumnType::Date);
    assert!(!refused[0].1.contains("secret"), "{refused:?}");
}

#[test]
fn bytes_and_uuids() {
    let bytes = || vec![Some(&b"\x00\xff"[..]), None];
    exact(arc(BinaryArray::from(bytes())), ColumnType::Bytes, [Value::Bytes(vec![0, 255])]);
    exact(arc(LargeBinaryArray::from(bytes())), ColumnType::Bytes, [Value::Bytes(vec![0, 255])]);
    exact(arc(BinaryViewArray::from_iter(bytes())), ColumnType::Bytes, [Value::Bytes(vec![0, 255])]);
    let fixed = || {
        let mut fixed = FixedSizeBinaryBuilder::new(16);
        fixed.append_value([7; 16]).unwrap();
        fixed.append_null();
        fixed.finish()
    };
    exact(arc(fixed()), ColumnType::Uuid, [Value::Uuid([7; 16])]);
    exact(arc(fixed()), ColumnType::Bytes, [Value::Bytes(vec![7; 16])]);
    let mut short = FixedSizeBinaryBuilder::new(4);
    short.append_value([7; 4]).unwrap();
    assert!(map(arc(short.finish()), ColumnType::Uuid).is_err());
}

#[test]
fn times_in_every_unit_and_never_rounded() {
    let date = Value::Date(Date::from_ymd(2026, 1, 31).unwrap());
    let days = 20_484;
    exact(arc(Date32Array::from(vec![Some(days), None])), ColumnType::Date, [date.clone()]);
    exact(arc(Date64Array::from(vec![Some(i64::from(days) * 86_400_000), None])), ColumnType::Date, [date]);
    refused(arc(Date64Array::from(vec![0, 1])), ColumnType::Date, "a time of day, which a date cannot hold");
    refused(arc(Date32Array::from(vec![0, i32::MAX])), ColumnType::Date, "outside the years 1 to 9999");

    let time = |micros| Value::Time(Time::from_micros_since_midnight(micros).unwrap());
    exact(arc(Time32SecondArray::from(vec![Some(1), None])), ColumnType::Time, [time(1_000_000)]);
    exact(arc(Time32MillisecondArray::from(vec![Some(1), None])), ColumnType::Time, [time(1_000)]);
    exact(arc(Time64MicrosecondArray::from(vec![Some(1), None])), ColumnType::Time, [time(1)]);
    exact(arc(Time64NanosecondArray::from(vec![Some(1_000), None])), ColumnType::Time, [time(1)]);
    refused(arc(Time64NanosecondArray::from(vec![0, 1_001])), ColumnType::Time, "digits below a microsecond");
    refused(arc(Time32SecondArray::from(vec![0, 86_400])), ColumnType::Time, "outside");

    let naive = |micros| Value::Timestamp(Timestamp::from_micros_since_epoch(micros).unwrap());
    let zoned = |micros| Value::TimestampTz(TimestampTz::from_micros_since_epoch(micros).unwrap());
    exact(arc(TimestampSecondArray::from(vec![Some(-1), None])), ColumnType::Timestamp, [naive(-1_000_000)]);
    exact(arc(TimestampMillisecondArray::from(vec![Some(-1), None])), ColumnType::Timestamp, [naive(-1_000)]);
    exact(arc(TimestampMicrosecondArray::from(vec![Some(-1), None])), ColumnType::Timestamp, [naive(-1)]);
    exact(arc(TimestampNanosecondArray::from(vec![Some(-1_000), None])), ColumnType::Timestamp, [naive(-1)]);
    refused(arc(TimestampNanosecondArray::from(vec![0, -1])), ColumnType::Timestamp, "digits below a microsecond");
    refused(arc(TimestampSecondArray::from(vec![0, i64::MAX])), ColumnType::Timestamp, "outside the years 1 to 9999");
    let in_zone = TimestampMillisecondArray::from(vec![Some(5), None]).with_timezone("Europe/Berlin");
    exact(arc(in_zone), ColumnType::TimestampTz, [zoned(5_000)]);
}

#[test]
fn lists_of_scalars_are_json() {
    let mut lists = ListBuilder::new(Int32Builder::new());
    lists.append_value([Some(1), None, Some(3)]);
    lists.append_value([]);
    lists.append_null();
    let json = |text: &str| Value::Json(text.parse().unwrap());
    exact(arc(lists.finish()), ColumnType::Json, [json("[1,null,3]"), json("[]")]);
    let mut lists = ListBuilder::new(StringBuilder::new());
    lists.append_value([Some("a \"b\"")]);
    lists.append_null();
    exact(arc(lists.finish()), ColumnType::Json, [json(r#"["a \"b\""]"#)]);
    let field = Arc::new(Field::new_list_field(DataType::Float64, true));
    let fixed = FixedSizeListArray::new(field, 2, arc(Float64Array::from(vec![0.5, f64::INFINITY])), None);
    let (found, refused) = values(arc(fixed), ColumnType::Json);
    assert_eq!((found, refused.len()), (vec![json(r#"[0.5,"Infinity"]"#)], 0));
}

#[test]
fn null_columns_and_nested_ones() {
    exact(arc(NullArray::new(1)), ColumnType::I64, []);
    let check = |array: ArrayRef, ty, parts: [&str; 2]| {
        let error = map(array, ty).unwrap_err();
        assert_eq!(error.column(), Some("v"));
        let text = error.to_string();
        assert!(
            text.starts_with("table \"t\": column \"v\" expects ") && parts.iter().all(|part| text.contains(part)),
            "{text}"
        );
    };
    let field = Arc::new(Field::new("a", DataType::Int32, true));
    let nested = || arc(StructArray::from(vec![(Arc::clone(&field), arc(Int32Array::from(vec![1])))]));
    check(nested(), ColumnType::Json, ["expects json", "it is nested"]);
    check(nested(), ColumnType::Text, ["Struct", "make a column of each of its fields"]);
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    map.append(true).unwrap();
    check(arc(map.finish()), ColumnType::Json, ["Map", "it is nested"]);
    let mut lists = ListBuilder::new(ListBuilder::new(Int32Builder::new()));
    lists.append(true);
    check(arc(lists.finish()), ColumnType::Json, ["List", "only lists of scalars"]);
    let naive = TimestampSecondArray::from(vec![0]);
    check(arc(naive.clone()), ColumnType::TimestampTz, ["expects timestamptz", "no time zone"]);
    check(arc(naive.with_timezone("UTC")), ColumnType::Timestamp, ["expects timestamp", "it has a time zone"]);
    check(arc(Float64Array::from(vec![0.5])), ColumnType::Decimal, ["expects decimal", "not an exact decimal"]);
    check(arc(DurationSecondArray::from(vec![1])), ColumnType::Time, ["Duration", "cast it"]);
    check(arc(BooleanArray::from(vec![true])), ColumnType::I16, ["Boolean", "cast it"]);
}
