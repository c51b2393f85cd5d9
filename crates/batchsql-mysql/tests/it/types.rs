//! Every value type with its extremes and NULL, written and read back by SQL; and values that are rejected.

use batchsql_core::{ColumnType, Conflict, Date, ErrorClass, Schema, Time, Timestamp, TimestampTz, Value};

use crate::support::{Database, outcomes, write};

fn column(ty: ColumnType) -> Schema {
    Schema::builder("t").column("n", ColumnType::I64).nullable("v", ty).build().unwrap()
}

/// Values that are bound, and values in the text of the statement.
const WAYS: [&str; 2] = ["values_in_text=never", "values_in_text=always"];

async fn table(declared: &str, way: &str) -> Database {
    Database::with(&format!("CREATE TABLE t (n BIGINT PRIMARY KEY, v {declared} NULL)"), way).await
}

/// Writes values into a column of the declared type; returns the result of `shown`.
async fn round_trip(declared: &str, ty: ColumnType, values: Vec<Value>, shown: &str) -> Vec<String> {
    let bound = round_trip_by(WAYS[0], declared, ty, values.clone(), shown).await;
    let in_text = round_trip_by(WAYS[1], declared, ty, values, shown).await;
    assert_eq!(bound, in_text, "{ty} in {declared}");
    bound
}

async fn round_trip_by(way: &str, declared: &str, ty: ColumnType, values: Vec<Value>, shown: &str) -> Vec<String> {
    let db = table(declared, way).await;
    let schema = column(ty);
    // NULLs between the values would show a bitmap that is off by one.
    let values: Vec<Value> = values.into_iter().flat_map(|value| [value, Value::Null]).collect();
    let rows = values
        .into_iter()
        .enumerate()
        .map(|(n, value)| schema.row().set("n", n as i64).unwrap().set("v", value).unwrap().finish().unwrap());
    let names = write(&db.sink, rows).await;
    assert!(names.iter().all(|outcome| *outcome == "written"), "{declared}: {names:?}");
    let stored = db.read(&format!("SELECT {shown} FROM t ORDER BY n")).await;
    assert!(stored.iter().skip(1).step_by(2).all(|value| value == "NULL"), "{stored:?}");
    stored.into_iter().step_by(2).collect()
}

async fn check(declared: &str, ty: ColumnType, values: Vec<Value>, expected: &[&str]) {
    assert_eq!(round_trip(declared, ty, values, "v").await, expected, "{ty} in {declared}");
}

/// Each value is rejected as an error of its row only, with this code if the server returned one; nothing of it is
/// stored.
async fn refused(declared: &str, ty: ColumnType, values: Vec<Value>, code: Option<&str>) {
    for way in WAYS {
        refused_by(way, declared, ty, values.clone(), code).await;
    }
}

async fn refused_by(way: &str, declared: &str, ty: ColumnType, values: Vec<Value>, code: Option<&str>) {
    let db = table(declared, way).await;
    let schema = column(ty);
    let count = values.len();
    let good = schema.row().set("n", -1_i64).unwrap().set("v", Value::Null).unwrap().finish().unwrap();
    let bad = values
        .into_iter()
        .enumerate()
        .map(|(n, value)| schema.row().set("n", n as i64).unwrap().set("v", value).unwrap().finish().unwrap());
    let outcomes = outcomes(&db.sink, std::iter::once(good).chain(bad)).await;
    assert!(outcomes[0].is_written(), "{declared}: {:?}", outcomes[0]);
    for outcome in &outcomes[1..] {
        let failed = outcome.failure().unwrap_or_else(|| panic!("{ty} in {declared}: {outcome:?}"));
        assert_eq!((failed.class(), failed.code()), (Some(ErrorClass::Row), code), "{ty} in {declared}: {failed:?}");
    }
    assert_eq!((outcomes.len(), db.read("SELECT COUNT(*) FROM t").await), (count + 1, vec!["1".to_owned()]));
}

#[tokio::test]
async fn integers_and_booleans() {
    for declared in ["BOOLEAN", "TINYINT", "INT UNSIGNED"] {
        check(declared, ColumnType::Bool, vec![true.into(), false.into()], &["1", "0"]).await;
    }
    let bits = round_trip("BIT(1)", ColumnType::Bool, vec![true.into(), false.into()], "v + 0").await;
    assert_eq!(bits, ["1", "0"]);
    check("SMALLINT", ColumnType::I16, vec![i16::MIN.into(), i16::MAX.into()], &["-32768", "32767"]).await;
    check("INT", ColumnType::I32, vec![i32::MIN.into(), i32::MAX.into()], &["-2147483648", "2147483647"]).await;
    let extremes = ["-9223372036854775808", "9223372036854775807", "9007199254740993"];
    let values = || vec![i64::MIN.into(), i64::MAX.into(), 9_007_199_254_740_993_i64.into()];
    check("BIGINT", ColumnType::I64, values(), &extremes).await;
    check("DECIMAL(19,0)", ColumnType::I64, values(), &extremes).await;
    let unsigned = || vec![0_u64.into(), u64::MAX.into()];
    check("BIGINT UNSIGNED", ColumnType::U64, unsigned(), &["0", "18446744073709551615"]).await;
    check("DECIMAL(20)", ColumnType::U64, unsigned(), &["0", "18446744073709551615"]).await;
    check("BIGINT", ColumnType::U64, vec![(i64::MAX as u64).into()], &["9223372036854775807"]).await;
    refused("BIGINT", ColumnType::U64, vec![u64::MAX.into()], Some("1264")).await;
    refused("TINYINT", ColumnType::I16, vec![128_i16.into(), (-129_i16).into()], Some("1264")).await;
    refused("INT UNSIGNED", ColumnType::I64, vec![(-1_i64).into()], Some("1264")).await;
}

#[tokio::test]
async fn a_zero_in_an_auto_increment_column_stays_a_zero() {
    let db = Database::new("CREATE TABLE t (id BIGINT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(9))").await;
    let schema = crate::support::schema(batchsql_core::Conflict::update(["id"]));
    assert_eq!(write(&db.sink, [crate::support::row(&schema, 0, "zero")]).await, ["written"]);
    assert_eq!(db.read("SELECT id FROM t").await, ["0"]);
}

#[tokio::test]
async fn floats_keep_every_bit() {
    let values = [f64::MIN, f64::MAX, f64::MIN_POSITIVE, 5e-324, 0.1, 1.0 / 3.0, 0.0, 9_007_199_254_740_993.0];
    for way in WAYS {
        let db = table("DOUBLE", way).await;
        let schema = column(ColumnType::F64);
        let row =
            |(n, v): (usize, &f64)| schema.row().set("n", n as i64).unwrap().set("v", *v).unwrap().finish().unwrap();
        assert!(write(&db.sink, values.iter().enumerate().map(row)).await.iter().all(|name| *name == "written"));
        // By the binary protocol, because the text of a server may have fewer digits.
        let query = batchsql_mysql::sqlx::query_scalar::<_, f64>("SELECT v FROM t ORDER BY n");
        let stored = query.fetch_all(db.pool()).await.unwrap();
        assert_eq!(stored.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), values.map(f64::to_bits));
    }
    let values = [f32::MIN, f32::MAX, f32::MIN_POSITIVE, 0.1, 16_777_217.0];
    for (declared, shown) in [("FLOAT", "CAST(v AS DOUBLE)"), ("DOUBLE", "v")] {
        let stored = round_trip(declared, ColumnType::F32, values.map(Value::F32).to_vec(), shown).await;
        for (value, stored) in values.iter().zip(stored) {
            assert_eq!(stored.parse::<f64>().unwrap() as f32, *value, "{declared}");
        }
    }
}

#[tokio::test]
async fn null_does_not_become_the_current_time() {
    for way in WAYS {
        for (declared, conflict) in [
            ("TIMESTAMP(6) NOT NULL", None),
            ("TIMESTAMP NOT NULL DEFAULT '2001-01-01 00:00:00'", Some(Conflict::ignore(["n"]))),
            ("TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP", Some(Conflict::update(["n"]))),
            ("TIMESTAMP(3) NOT NULL DEFAULT '2001-01-01 00:00:00'", Some(Conflict::update_only(["n"]))),
        ] {
            let db = Database::with(&format!("CREATE TABLE t (n BIGINT PRIMARY KEY, v {declared})"), way).await;
            db.run("INSERT INTO t VALUES (2, '2000-01-01 00:00:00'), (3, '2000-01-01 00:00:00')").await;
            let inserts = if conflict.is_none() { 10 } else { 0 };
            let schema = Schema::builder("t").column("n", ColumnType::I64).nullable("v", ColumnType::TimestampTz);
            let schema = match conflict {
                Some(conflict) => schema.on_conflict(conflict),
                None => schema,
            };
            let schema = schema.build().unwrap();
            let row = |n: i64, v: Value| schema.row().set("n", n).unwrap().set("v", v).unwrap().finish().unwrap();
            let at = TimestampTz::from_micros_since_epoch(86_400_000_000).unwrap();
            let ended = outcomes(&db.sink, [row(2 + inserts, Value::Null), row(3 + inserts, at.into())]).await;
            let failed = ended[0].failure().unwrap_or_else(|| panic!("{declared}: {:?}", ended[0]));
            assert_eq!(failed.class(), Some(ErrorClass::Row), "{declared}: {failed}");
            if is_mariadb().await {
                assert!(failed.to_string().contains("replace by the current time"), "{declared}: {failed}");
            }
            assert!(ended[1].failure().is_none(), "{declared}: {:?}", ended[1]);
            let now = db.read("SELECT COUNT(*) FROM t WHERE v > '2000-01-01 00:00:00'").await;
            assert_eq!(now, ["0"], "{declared}");
        }
    }
}

#[tokio::test]
async fn null_is_taken_where_the_rule_keeps_what_is_stored() {
    use batchsql_core::Expr;
    for expression in [Expr::unless_null(), Expr::greatest(), Expr::keep()] {
        let db = Database::new("CREATE TABLE t (n BIGINT PRIMARY KEY, v TIMESTAMP(6) NOT NULL)").await;
        db.run("INSERT INTO t VALUES (1, '2000-01-01 00:00:00')").await;
        let schema = Schema::builder("t").column("n", ColumnType::I64).nullable("v", ColumnType::TimestampTz);
        let schema = schema.on_conflict(Conflict::update_only(["n"]).set("v", expression)).build().unwrap();
        let row = |n: i64| schema.row().set("n", n).unwrap().set("v", Value::Null).unwrap().finish().unwrap();
        let ended = outcomes(&db.sink, [row(1), row(2)]).await;
        assert_eq!(ended.iter().map(|outcome| outcome.kind().name()).collect::<Vec<_>>(), ["written", "ignored"]);
        assert_eq!(db.read("SELECT COUNT(*) FROM t WHERE v = '2000-01-01 00:00:00'").await, ["1"]);
    }
}

#[tokio::test]
async fn a_zero_loses_its_sign_on_mariadb() {
    let expected = if is_mariadb().await { "0" } else { "-0" };
    for declared in ["FLOAT", "DOUBLE"] {
        check(declared, ColumnType::F32, vec![Value::F32(-0.0)], &[expected]).await;
    }
    check("DOUBLE", ColumnType::F64, vec![Value::F64(-0.0)], &[expected]).await;
}

#[tokio::test]
async fn decimals_keep_every_digit_or_are_refused() {
    let digits = |text: &str| Value::Decimal(text.parse().unwrap());
    let long = "-12345678901234567890123456789012345.123456789012345678901234567890";
    check("DECIMAL(65,30)", ColumnType::Decimal, vec![digits(long)], &[long]).await;
    check(
        "DECIMAL(10,2)",
        ColumnType::Decimal,
        vec![digits("1.500000"), digits("-0.01"), digits("7")],
        &["1.50", "-0.01", "7.00"],
    )
    .await;
    check("VARCHAR(90)", ColumnType::Decimal, vec![digits(long)], &[long]).await;
    // The server would round this, with only a note.
    refused("DECIMAL(10,2)", ColumnType::Decimal, vec![digits("1.005"), digits("0.001")], None).await;
    refused("DECIMAL(10,0)", ColumnType::Decimal, vec![digits("0.5")], None).await;
    refused("DECIMAL(4,2)", ColumnType::Decimal, vec![digits("100")], Some("1264")).await;
    refused("DECIMAL(4,2) UNSIGNED", ColumnType::Decimal, vec![digits("-1")], Some("1264")).await;
}

#[tokio::test]
async fn text_and_json() {
    let texts =
        ["", "plain", "a\0b", "línea\n日本語 🦀 \u{200c}", "007", "1e5", "'); DROP TABLE t; --", "\\", "spaces  "];
    let values = || texts.map(Value::from).to_vec();
    for declared in ["VARCHAR(100)", "TEXT", "LONGTEXT", "VARCHAR(100) CHARACTER SET utf16"] {
        check(declared, ColumnType::Text, values(), &texts).await;
    }
    check("CHAR(10)", ColumnType::Text, vec![" a".into(), "".into()], &[" a", ""]).await;
    let members = ["small", "10", "it's", "日本", "a,b", "back\\slash"];
    let declared = "ENUM('small','10','it''s','日本','a,b','back\\\\slash')";
    check(declared, ColumnType::Text, members.map(Value::from).to_vec(), &members).await;
    let long = "x".repeat(70_000);
    check("MEDIUMTEXT", ColumnType::Text, vec![long.as_str().into()], &[&long]).await;
    let json = r#"{"a":[1,2.50,null],"b":"ü"}"#;
    check("LONGTEXT", ColumnType::Json, vec![Value::Json(json.parse().unwrap())], &[json]).await;
    let stored =
        round_trip("JSON", ColumnType::Json, vec![Value::Json(json.parse().unwrap())], "JSON_EXTRACT(v, '$.a[1]')")
            .await;
    assert_eq!(stored, ["2.50"]);
    refused("VARCHAR(3)", ColumnType::Text, vec!["abcd".into()], Some("1406")).await;
    refused("TINYTEXT", ColumnType::Text, vec!["x".repeat(256).into()], Some("1406")).await;
    refused("VARCHAR(9) CHARACTER SET latin1", ColumnType::Text, vec!["日本".into()], Some("1366")).await;
    refused("VARCHAR(9) CHARACTER SET utf8mb3", ColumnType::Text, vec!["🦀".into()], Some("1366")).await;
    // Values that the server would silently change.
    refused("CHAR(10)", ColumnType::Text, vec!["a ".into()], None).await;
    refused("VARCHAR(3)", ColumnType::Text, vec!["abc  ".into()], None).await;
    let ends = ["\n", "\t", "\r", "\u{b}", "\u{c}", "\r\n", " \n"];
    for declared in ["VARCHAR(3)", "CHAR(3)", "VARCHAR(3) CHARACTER SET latin1", "VARCHAR(3) CHARACTER SET gbk"] {
        let values = ends.map(|end| format!("abc{end}").into());
        refused(declared, ColumnType::Text, values.to_vec(), None).await;
        // As long as the column.
        check(declared, ColumnType::Text, vec!["ab\n".into()], &["ab\n"]).await;
    }
    // The server itself refuses wider spaces.
    refused("VARCHAR(3)", ColumnType::Text, vec!["abc\u{a0}".into(), "abc\u{3000}".into()], Some("1406")).await;
    let long = ends.map(|end| format!("{}{end}", "x".repeat(255)).into());
    refused("TINYTEXT", ColumnType::Text, long.to_vec(), None).await;
    // The server counts the bytes of the column, not those of UTF-8.
    for (set, text) in [("latin1", "ü".repeat(200)), ("gbk", "日".repeat(120)), ("sjis", "ｱ".repeat(200))] {
        let (declared, fits) = (format!("TINYTEXT CHARACTER SET {set}"), format!("{text}\n"));
        check(&declared, ColumnType::Text, vec![fits.as_str().into()], &[&fits]).await;
        let long = format!("{}\n", "x".repeat(255));
        refused(&declared, ColumnType::Text, vec![long.into()], None).await;
    }
    refused("VARCHAR(7)", ColumnType::Json, vec![Value::Json("{\"a\":1}\n".parse().unwrap())], None).await;
    refused("ENUM('small','large')", ColumnType::Text, vec!["huge".into(), "1".into(), "Small".into()], None).await;
}

#[tokio::test]
async fn bytes_and_uuids() {
    let bytes: Vec<u8> = (0..=255).collect();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    for declared in ["VARBINARY(256)", "BLOB", "LONGBLOB"] {
        let values = vec![bytes.clone().into(), Vec::<u8>::new().into(), vec![0_u8, 32, 0].into()];
        assert_eq!(round_trip(declared, ColumnType::Bytes, values, "HEX(v)").await, [hex.as_str(), "", "002000"]);
    }
    let exact = round_trip("BINARY(2)", ColumnType::Bytes, vec![vec![0_u8, 0].into()], "HEX(v)").await;
    assert_eq!(exact, ["0000"]);
    refused("BINARY(2)", ColumnType::Bytes, vec![vec![1_u8].into(), Vec::<u8>::new().into()], None).await;
    refused("VARBINARY(2)", ColumnType::Bytes, vec![vec![1_u8; 3].into()], Some("1406")).await;
    let id = || vec![Value::Uuid([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 254, 255])];
    let text = ["00010203-0405-0607-0809-0a0b0c0dfeff"];
    for declared in ["CHAR(36)", "VARCHAR(40)", "TEXT"] {
        check(declared, ColumnType::Uuid, id(), &text).await;
    }
    let stored = round_trip("BINARY(16)", ColumnType::Uuid, id(), "HEX(v)").await;
    assert_eq!(stored, ["000102030405060708090A0B0C0DFEFF"]);
}

#[tokio::test]
async fn mariadb_has_a_uuid_type() {
    let db = Database::new("").await;
    if !db.read("SELECT VERSION()").await[0].contains("MariaDB") {
        return;
    }
    let id = || vec![Value::Uuid([0, 1, 2, 3, 4, 5, 0x16, 7, 0x88, 9, 10, 11, 12, 13, 254, 255])];
    check("UUID", ColumnType::Uuid, id(), &["00010203-0405-1607-8809-0a0b0c0dfeff"]).await;
}

#[tokio::test]
async fn calendar_values() {
    check("DATE", ColumnType::Date, vec![Date::MIN.into(), Date::MAX.into()], &["0001-01-01", "9999-12-31"]).await;
    let times = || vec![Time::MIN.into(), Time::MAX.into()];
    check("TIME(6)", ColumnType::Time, times(), &["00:00:00.000000", "23:59:59.999999"]).await;
    let before = Timestamp::from_micros_since_epoch(-1).unwrap();
    check(
        "DATETIME(6)",
        ColumnType::Timestamp,
        vec![Timestamp::MIN.into(), before.into(), Timestamp::MAX.into()],
        &["0001-01-01 00:00:00.000000", "1969-12-31 23:59:59.999999", "9999-12-31 23:59:59.999999"],
    )
    .await;
    let instant = |micros: i64| Value::from(TimestampTz::from_micros_since_epoch(micros).unwrap());
    let values = || vec![instant(1_000_000), instant(1_700_000_000_123_456)];
    let shown = ["1970-01-01 00:00:01.000000", "2023-11-14 22:13:20.123456"];
    check("DATETIME(6)", ColumnType::TimestampTz, values(), &shown).await;
    check("TIMESTAMP(6)", ColumnType::TimestampTz, values(), &shown).await;
    let unix = round_trip("TIMESTAMP(6)", ColumnType::TimestampTz, values(), "UNIX_TIMESTAMP(v)").await;
    assert_eq!(unix, ["1.000000", "1700000000.123456"]);
    // Columns with fewer digits accept the values that they can hold, and nothing is rounded.
    let noon = Time::from_hms_micro(12, 0, 0, 0).unwrap();
    check("TIME", ColumnType::Time, vec![noon.into()], &["12:00:00"]).await;
    check("DATETIME(3)", ColumnType::TimestampTz, vec![instant(1_500_000)], &["1970-01-01 00:00:01.500"]).await;
    refused("TIME", ColumnType::Time, vec![Time::MAX.into()], None).await;
    // Times that are no time of a day, as text.
    let long =
        || vec!["838:59:59".into(), "-838:59:59".into(), "24:00:00".into(), "-00:00:01.5".into(), "12:00:00".into()];
    let shown = ["838:59:59.000000", "-838:59:59.000000", "24:00:00.000000", "-00:00:01.500000", "12:00:00.000000"];
    check("TIME(6)", ColumnType::Text, long(), &shown).await;
    refused("TIME", ColumnType::Text, vec!["12:00".into(), "1 12:00:00".into(), "12:00:00.5".into(), "".into()], None)
        .await;
    refused("TIME", ColumnType::Text, vec!["839:00:00".into()], Some("1292")).await;
    refused("DATETIME", ColumnType::Timestamp, vec![before.into()], None).await;
    refused("TIMESTAMP(3)", ColumnType::TimestampTz, vec![instant(1_700_000_000_123_456)], None).await;
    refused("TIMESTAMP(6)", ColumnType::TimestampTz, vec![instant(-1_000_000)], Some("1292")).await;
}

#[tokio::test]
async fn values_that_mysql_cannot_hold_are_refused_at_the_caller() {
    let db = table("DOUBLE", WAYS[0]).await;
    let pipeline = crate::support::pipeline(&db.sink);
    let schema = column(ColumnType::F64);
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let row = schema.row().set("n", 1_i64).unwrap().set("v", value).unwrap().finish().unwrap();
        let error = pipeline.submit(&row).await.unwrap_err();
        assert!(error.row_error().unwrap().is_out_of_range(), "{error}");
    }
    assert_eq!(pipeline.balance().accepted, 0);
}

#[tokio::test]
async fn bits_years_and_sets() {
    let text = |values: &[&str]| values.iter().map(|text| Value::from(*text)).collect::<Vec<_>>();
    let bits = round_trip("BIT(8)", ColumnType::Text, text(&["10000001", "0", "11"]), "LPAD(BIN(v), 8, '0')").await;
    assert_eq!(bits, ["10000001", "00000000", "00000011"]);
    let all = "1".repeat(64);
    assert_eq!(round_trip("BIT(64)", ColumnType::Text, text(&[&all]), "BIN(v)").await, [all.as_str()]);
    assert_eq!(
        round_trip("BIT(64)", ColumnType::U64, vec![u64::MAX.into(), 0_u64.into()], "v+0").await,
        ["18446744073709551615", "0"]
    );
    assert_eq!(round_trip("BIT(8)", ColumnType::I32, vec![255_i32.into()], "v+0").await, ["255"]);
    refused("BIT(8)", ColumnType::Text, text(&["100000000", "2", "", "true"]), None).await;
    refused("BIT(8)", ColumnType::I64, vec![256_i64.into()], Some("1406")).await;
    refused("BIT(64)", ColumnType::I64, vec![(-1_i64).into()], None).await;
    for ty in [ColumnType::I16, ColumnType::I64] {
        let values = |years: &[i16]| -> Vec<Value> {
            let value = |year: i16| if ty == ColumnType::I16 { year.into() } else { i64::from(year).into() };
            years.iter().map(|year| value(*year)).collect()
        };
        check("YEAR", ty, values(&[1901, 2155, 0]), &["1901", "2155", "0000"]).await;
        refused("YEAR", ty, values(&[1, 99, 1900, 2156, -1]), None).await;
    }
    check("YEAR", ColumnType::Text, text(&["2024", "0000"]), &["2024", "0000"]).await;
    refused("YEAR", ColumnType::Text, text(&["24", "2024.5", "", "2156", "year"]), None).await;
    check("SET('a','b c','10')", ColumnType::Text, text(&["a", "", "10,a", "b c"]), &["a", "", "a,10", "b c"]).await;
    // 1 would be the first member.
    refused("SET('a','b c','10')", ColumnType::Text, text(&["1", "A", "a,zz", "a "]), None).await;
    check("ENUM('s','10')", ColumnType::Text, text(&["s", "10"]), &["s", "10"]).await;
    refused("ENUM('s','10')", ColumnType::Text, text(&["1", "S", "x"]), None).await;
}

#[tokio::test]
async fn geometries_come_from_text() {
    let text = |values: &[&str]| values.iter().map(|text| Value::from(*text)).collect::<Vec<_>>();
    let shapes = [
        "POINT(1.5 -2)",
        "LINESTRING(0 0,1 1)",
        "POLYGON((0 0,0 1,1 1,0 0))",
        "MULTIPOINT(0 0,1 1)",
        "MULTILINESTRING((0 0,1 1))",
        "MULTIPOLYGON(((0 0,0 1,1 1,0 0)))",
        "GEOMETRYCOLLECTION(POINT(1 1))",
    ];
    let stored = round_trip("GEOMETRY", ColumnType::Text, text(&shapes), "ST_ASTEXT(v)").await;
    let points = |shape: &str| shape.replace("((0 0),(1 1))", "(0 0,1 1)");
    assert_eq!(stored.iter().map(|shape| points(shape)).collect::<Vec<_>>(), shapes);
    for shape in shapes {
        let declared = shape.split('(').next().unwrap();
        let stored = round_trip(declared, ColumnType::Text, text(&[shape]), "ST_ASTEXT(v)").await;
        assert_eq!(points(&stored[0]), shape);
    }
    // MariaDB would convert them to NULL.
    let code = if is_mariadb().await { "1416" } else { "3037" };
    refused("GEOMETRY", ColumnType::Text, text(&["garbage", "", "POINT(1"]), Some(code)).await;
    // MariaDB would leave the rest out.
    let tails = ["POINT(1 2) x", "POINT(1 2),POINT(3 4)", "POINT(1 2);", "LINESTRING(0 0,1 1),(2 2)"];
    refused("GEOMETRY", ColumnType::Text, text(&tails), None).await;
    refused("GEOMETRY", ColumnType::Text, text(&["GEOMETRYCOLLECTION EMPTY POINT(3 4)"]), None).await;
    // A coordinate that the server would round.
    let kept = ["POINT(0.1 0.30000000000000004)"];
    assert_eq!(round_trip("POINT", ColumnType::Text, text(&kept), "ST_ASTEXT(v)").await, kept);
    for ty in ["POINT", "GEOMETRY"] {
        refused(ty, ColumnType::Text, text(&["POINT(0.12345678901234567890 1)", "POINT(1 9007199254740993)"]), None)
            .await;
    }
    if is_mariadb().await {
        refused("POINT", ColumnType::Text, text(&["LINESTRING(0 0,1 1)"]), Some("1366")).await;
    }
}

async fn is_mariadb() -> bool {
    Database::new("").await.read("SELECT VERSION()").await[0].contains("MariaDB")
}

#[tokio::test]
async fn mariadb_has_types_for_addresses() {
    if !is_mariadb().await {
        return;
    }
    let text = |values: &[&str]| values.iter().map(|text| Value::from(*text)).collect::<Vec<_>>();
    check("INET4", ColumnType::Text, text(&["10.0.0.255", "0.0.0.0"]), &["10.0.0.255", "0.0.0.0"]).await;
    check("INET6", ColumnType::Text, text(&["::1", "2001:db8::ff"]), &["::1", "2001:db8::ff"]).await;
    let id = "00010203-0405-1607-8809-0a0b0c0dfeff";
    check("UUID", ColumnType::Text, text(&[id, &id.to_uppercase()]), &[id, id]).await;
    refused("INET4", ColumnType::Text, text(&["10.0.0.256", "", "::1"]), Some("1292")).await;
    refused("INET6", ColumnType::Text, text(&["zz", ""]), Some("1292")).await;
    refused("UUID", ColumnType::Text, text(&["zz", "0001"]), Some("1292")).await;
}

#[tokio::test]
async fn mariadb_keeps_the_history_of_rows_with_a_key() {
    if !is_mariadb().await {
        return;
    }
    for versioned in [
        "rs TIMESTAMP(6) GENERATED ALWAYS AS ROW START, re TIMESTAMP(6) GENERATED ALWAYS AS ROW END,
         PERIOD FOR SYSTEM_TIME (rs, re)) WITH SYSTEM VERSIONING",
        "more INT) WITH SYSTEM VERSIONING",
    ] {
        let db =
            Database::new(&format!("CREATE TABLE t (id BIGINT PRIMARY KEY, note VARCHAR(9) UNIQUE, {versioned}")).await;
        for (conflict, expected) in [
            (batchsql_core::Conflict::none(), "written"),
            (batchsql_core::Conflict::update(["id"]), "written"),
            (batchsql_core::Conflict::replace(["id"]), "written"),
            (batchsql_core::Conflict::ignore(["id"]), "ignored"),
        ] {
            let note = db.read("SELECT COUNT(*) FROM t FOR SYSTEM_TIME ALL").await.remove(0);
            let schema = crate::support::schema(conflict);
            assert_eq!(write(&db.sink, [crate::support::row(&schema, 1, note)]).await, [expected]);
        }
        assert_eq!(db.read("SELECT id, note FROM t").await, ["1|2"]);
        assert_eq!(db.read("SELECT note FROM t FOR SYSTEM_TIME ALL ORDER BY note").await, ["0", "1", "2"]);
    }
}
