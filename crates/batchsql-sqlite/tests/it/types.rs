//! Every value type with its extremes and NULL, written and read back.

use batchsql_core::{ColumnType, Date, Schema, Time, Timestamp, TimestampTz, Value};

use crate::support::{HOUR, memory, pipeline, read, write};

/// Writes values into a column of the declared type; returns the stored values.
async fn round_trip(declared: &'static str, ty: ColumnType, values: Vec<Value>) -> Vec<String> {
    let sink = memory("").await;
    sink.call(move |conn| conn.execute_batch(&format!("CREATE TABLE t (n INTEGER PRIMARY KEY, v {declared})")))
        .await
        .unwrap();
    let schema = Schema::builder("t").column("n", ColumnType::I64).nullable("v", ty).build().unwrap();
    // NULLs between the values would show a bitmap that is off by one.
    let values: Vec<Value> = values.into_iter().flat_map(|value| [value, Value::Null]).collect();
    let rows = values
        .into_iter()
        .enumerate()
        .map(|(n, value)| schema.row().set("n", n as i64).unwrap().set("v", value).unwrap().finish().unwrap());
    assert!(write(&sink, rows).await.iter().all(|outcome| *outcome == "written"));
    let stored = read(&sink, "SELECT v FROM t ORDER BY n").await;
    assert!(stored.iter().skip(1).step_by(2).all(|value| value == "NULL"), "{stored:?}");
    stored.into_iter().step_by(2).collect()
}

#[tokio::test]
async fn integers_and_booleans() {
    let all = async |ty, values: Vec<Value>, expected: &[&str]| {
        assert_eq!(round_trip("INTEGER", ty, values.clone()).await, expected, "{ty}");
        assert_eq!(round_trip("BLOB", ty, values.clone()).await, expected, "{ty}");
        assert_eq!(round_trip("NUMERIC", ty, values).await, expected, "{ty}");
    };
    all(ColumnType::Bool, vec![true.into(), false.into()], &["1", "0"]).await;
    all(ColumnType::I16, vec![i16::MIN.into(), i16::MAX.into()], &["-32768", "32767"]).await;
    all(ColumnType::I32, vec![i32::MIN.into(), i32::MAX.into()], &["-2147483648", "2147483647"]).await;
    let extremes = &["-9223372036854775808", "9223372036854775807", "9007199254740993"];
    all(ColumnType::I64, vec![i64::MIN.into(), i64::MAX.into(), 9_007_199_254_740_993_i64.into()], extremes).await;
    all(ColumnType::U64, vec![0_u64.into(), (i64::MAX as u64).into()], &["0", "9223372036854775807"]).await;
}

#[tokio::test]
async fn floats_keep_every_bit() {
    let values = [f64::MIN, f64::MAX, f64::MIN_POSITIVE, 5e-324, 0.1, 1.0 / 3.0, f64::INFINITY, f64::NEG_INFINITY];
    let stored = round_trip("REAL", ColumnType::F64, values.iter().map(|v| Value::F64(*v)).collect()).await;
    for (value, stored) in values.iter().zip(stored) {
        assert_eq!(stored.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{value}");
    }
    let values = [f32::MIN, f32::MAX, f32::MIN_POSITIVE, 0.1];
    let stored = round_trip("REAL", ColumnType::F32, values.iter().map(|v| Value::F32(*v)).collect()).await;
    for (value, stored) in values.iter().zip(stored) {
        assert_eq!(stored.parse::<f64>().unwrap(), f64::from(*value));
    }
}

#[tokio::test]
async fn text_bytes_json_and_decimals() {
    let texts = ["", "plain", "a\0b", "línea\n日本語 🦀 \u{200c}", "007", "1e5", "'); DROP TABLE t; --"];
    for declared in ["TEXT", "VARCHAR(3)", "BLOB", ""] {
        let stored = round_trip(declared, ColumnType::Text, texts.iter().map(|t| Value::from(*t)).collect()).await;
        assert_eq!(stored, texts, "{declared}");
    }
    let bytes: Vec<u8> = (0..=255).collect();
    let stored = round_trip("BLOB", ColumnType::Bytes, vec![bytes.clone().into(), Vec::<u8>::new().into()]).await;
    assert_eq!(stored, [format!("{bytes:02x?}"), "[]".to_owned()]);
    let digits = "-123456789012345678901234567890.1234567890";
    let stored = round_trip("TEXT", ColumnType::Decimal, vec![Value::Decimal(digits.parse().unwrap())]).await;
    assert_eq!(stored, [digits]);
    let json = r#"{"a":[1,2.50,null],"b":"ü"}"#;
    assert_eq!(round_trip("TEXT", ColumnType::Json, vec![Value::Json(json.parse().unwrap())]).await, [json]);
}

#[tokio::test]
async fn uuids_as_text_or_bytes_by_column() {
    let id = Value::Uuid([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 254, 255]);
    let text = round_trip("CHAR(36)", ColumnType::Uuid, vec![id.clone()]).await;
    assert_eq!(text, ["00010203-0405-0607-0809-0a0b0c0dfeff"]);
    for declared in ["BLOB", "UUID"] {
        let stored = round_trip(declared, ColumnType::Uuid, vec![id.clone()]).await;
        assert_eq!(stored, ["[00, 01, 02, 03, 04, 05, 06, 07, 08, 09, 0a, 0b, 0c, 0d, fe, ff]"], "{declared}");
    }
}

#[tokio::test]
async fn calendar_values_as_iso_text() {
    let check = async |ty, values: Vec<Value>, expected: &[&str]| {
        for declared in ["TEXT", "DATETIME", ""] {
            assert_eq!(round_trip(declared, ty, values.clone()).await, expected, "{ty} as {declared:?}");
        }
    };
    check(ColumnType::Date, vec![Date::MIN.into(), Date::MAX.into()], &["0001-01-01", "9999-12-31"]).await;
    check(ColumnType::Time, vec![Time::MIN.into(), Time::MAX.into()], &["00:00:00.000000", "23:59:59.999999"]).await;
    let before = Timestamp::from_micros_since_epoch(-1).unwrap();
    check(
        ColumnType::Timestamp,
        vec![Timestamp::MIN.into(), before.into(), Timestamp::MAX.into()],
        &["0001-01-01 00:00:00.000000", "1969-12-31 23:59:59.999999", "9999-12-31 23:59:59.999999"],
    )
    .await;
    check(
        ColumnType::TimestampTz,
        vec![TimestampTz::MIN.into(), TimestampTz::MAX.into()],
        &["0001-01-01 00:00:00.000000+00:00", "9999-12-31 23:59:59.999999+00:00"],
    )
    .await;
}

#[tokio::test]
async fn sqlite_understands_the_calendar_text() {
    let sink = memory("CREATE TABLE t (v TEXT)").await;
    let schema = Schema::builder("t").column("v", ColumnType::TimestampTz).build().unwrap();
    let instant = TimestampTz::from_micros_since_epoch(1_700_000_000_123_456).unwrap();
    write(&sink, [schema.row().set("v", instant).unwrap().finish().unwrap()]).await;
    assert_eq!(read(&sink, "SELECT unixepoch(v) FROM t").await, ["1700000000"]);
}

#[tokio::test]
async fn values_that_sqlite_cannot_hold_are_refused_at_the_caller() {
    let sink = memory("CREATE TABLE t (v)").await;
    let db = crate::support::pipeline(&sink);
    for (ty, value) in [(ColumnType::U64, Value::U64(u64::MAX)), (ColumnType::F64, Value::F64(f64::NAN))] {
        let schema = Schema::builder("t").column("v", ty).build().unwrap();
        let error = db.submit(&schema.row().set("v", value).unwrap().finish().unwrap()).await.unwrap_err();
        assert!(error.row_error().unwrap().is_out_of_range(), "{error}");
    }
    assert_eq!(db.balance().accepted, 0);
}

/// Why a table with a column does not accept values of a type; `None` if it does.
async fn refusal(table: &str, ty: ColumnType) -> Option<String> {
    let sink = memory("").await;
    let sql = format!("CREATE {table}");
    sink.call(move |conn| conn.execute_batch(&sql)).await.unwrap();
    let schema = Schema::builder("t").column("v", ty).build().unwrap();
    let refused = crate::support::pipeline(&sink).prepare(&schema).await.err()?;
    assert_eq!(refused.class(), batchsql_core::ErrorClass::Schema, "{refused}");
    Some(refused.to_string())
}

/// The rows of this table are the declared types, its columns what is written there; `x` is rejected.
#[tokio::test]
async fn columns_that_would_change_or_refuse_values_are_refused_when_the_table_is_read() {
    use ColumnType::{Bool, Bytes, Date, Decimal, F32, F64, I16, I32, I64, Json, Text, Time, Timestamp, U64, Uuid};
    let types = [
        Bool,
        I16,
        I32,
        I64,
        U64,
        F32,
        F64,
        Decimal,
        Text,
        Json,
        Bytes,
        Uuid,
        Date,
        Time,
        Timestamp,
        ColumnType::TimestampTz,
    ];
    for (table, expected) in [
        ("TABLE t (v INTEGER)", ".......xxx..xxxx"),
        ("TABLE t (v REAL)", "...xx..xxx..xxxx"),
        ("TABLE t (v NUMERIC)", ".......xxx......"),
        ("TABLE t (v DECIMAL(10,2))", ".......xxx......"),
        ("TABLE t (v TEXT)", "xxxxxxx........."),
        ("TABLE t (v BLOB)", "................"),
        ("TABLE t (v)", "................"),
        ("TABLE t (v INTEGER PRIMARY KEY)", ".....xxxxxxxxxxx"),
        ("TABLE t (v INT) STRICT", ".....xxxxxxxxxxx"),
        ("TABLE t (v REAL) STRICT", "...xx..xxxxxxxxx"),
        ("TABLE t (v TEXT) STRICT", "xxxxxxx...x....."),
        ("TABLE t (v BLOB) STRICT", "xxxxxxxxxx..xxxx"),
        ("TABLE t (v ANY) STRICT", "................"),
        ("VIRTUAL TABLE t USING rtree (id, v, w, +note)", "..xxx.xxxxxxxxxx"),
        ("VIRTUAL TABLE t USING rtree_i32 (id, v, w)", "...xxxxxxxxxxxxx"),
        ("VIRTUAL TABLE t\nUSING\trtree\n(id, v, w, +note)", "..xxx.xxxxxxxxxx"),
        ("VIRTUAL TABLE \"t\"USING \"rtree_i32\" (id, v, w)", "...xxxxxxxxxxxxx"),
        ("VIRTUAL TABLE t USING rtree (v, a, b)", ".....xxxxxxxxxxx"),
        ("VIRTUAL TABLE t USING rtree (id, a, b, +v)", "................"),
    ] {
        let mut found = String::new();
        for ty in types {
            found.push(if refusal(table, ty).await.is_some() { 'x' } else { '.' });
        }
        assert_eq!(found, expected, "{table}");
    }
    let check = async |table: &str, ty, part: &str| {
        let text = refusal(table, ty).await.unwrap();
        assert!(text.contains(part), "{text}");
    };
    check("TABLE t (v BLOB) STRICT", ColumnType::I64, "declare it INTEGER or ANY").await;
    check("TABLE t (v TEXT) STRICT", ColumnType::Bytes, "declare it BLOB or ANY").await;
    check("TABLE t (v INTEGER) STRICT", ColumnType::F64, "declare it REAL or ANY").await;
    check("TABLE t (v INTEGER PRIMARY KEY)", ColumnType::F64, "send integers").await;
    check("VIRTUAL TABLE t USING rtree (id, v, w)", ColumnType::F64, "send f32").await;
}

#[tokio::test]
async fn what_is_taken_comes_back_as_the_documentation_says() {
    // Whole floats become integers of the same value, and zero loses its sign, except in columns without
    // conversion.
    let floats = || [-0.0, 1.0, 1.5, 9_007_199_254_740_992.0, 1e300].map(Value::F64).to_vec();
    let numbers = ["0", "1", "1.5", "9007199254740992", "1e300"];
    assert_eq!(round_trip("INTEGER", ColumnType::F64, floats()).await, numbers);
    assert_eq!(round_trip("NUMERIC", ColumnType::F64, floats()).await, numbers);
    assert_eq!(
        round_trip("REAL", ColumnType::F64, floats()).await,
        ["0.0", "1.0", "1.5", "9007199254740992.0", "1e300"]
    );
    assert_eq!(round_trip("BLOB", ColumnType::F64, floats()).await[0], "-0.0");
    assert_eq!(round_trip("REAL", ColumnType::I32, vec![i32::MAX.into()]).await, ["2147483647.0"]);
}

#[tokio::test]
async fn an_r_tree_keeps_floats_of_32_bits() {
    let sink = memory("CREATE VIRTUAL TABLE t USING rtree (id, low, high, +note)").await;
    let schema = Schema::builder("t").column("id", ColumnType::I64).column("low", ColumnType::F32);
    let schema = schema.column("high", ColumnType::F32).column("note", ColumnType::Text).build().unwrap();
    let values = [Value::I64(i64::MAX), Value::F32(0.1), Value::F32(0.2), "1.50".into()];
    assert_eq!(write(&sink, [schema.row().set_all(values).unwrap().finish().unwrap()]).await, ["written"]);
    let stored = read(&sink, "SELECT id, low, high, note FROM t").await;
    assert_eq!(stored, [format!("{}|{:?}|{:?}|1.50", i64::MAX, f64::from(0.1_f32), f64::from(0.2_f32))]);
}

/// What docs/databases.md says of a row of defaults.
#[tokio::test]
async fn null_in_the_row_id_gets_the_next_number() {
    let sink = memory("CREATE TABLE t (id INTEGER PRIMARY KEY, note TEXT DEFAULT 'none')").await;
    let db = pipeline(&sink);
    let schema = Schema::builder("t").nullable("id", ColumnType::I64).build().unwrap();
    for _ in 0..3 {
        db.submit(&schema.row().set("id", Value::Null).unwrap().finish().unwrap()).await.unwrap();
    }
    let report = db.close(HOUR).await;
    assert_eq!(report.balance.written(), 3, "{report:?}");
    assert_eq!(read(&sink, "SELECT group_concat(id || note) FROM t").await, ["1none,2none,3none"]);
}
