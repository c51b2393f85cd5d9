//! Types of other crates and network addresses as fields: the values that they become, and the values that are refused.
#![cfg(all(
    feature = "bigdecimal",
    feature = "bytes",
    feature = "chrono",
    feature = "ipnetwork",
    feature = "jiff",
    feature = "time",
))]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use batchsql_core::{ArrayElement, BatchSql, ColumnType, Encode, KeyHasher, Row, RowError, RowWriter, Schema, Value};
use batchsql_testkit::ScriptedSink;

use crate::support::config;

/// A row of one field.
struct One<T> {
    schema: Schema,
    value: T,
}

fn one<T: Encode>(value: T) -> One<T> {
    One { schema: Schema::builder("foreign").nullable("v", T::TYPE).build().unwrap(), value }
}

impl<T: Encode> Row for One<T> {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn variable_len(&self) -> usize {
        self.value.variable_len()
    }

    fn key_hash(&self) -> u64 {
        hash(|hasher| self.value.hash_key(hasher))
    }

    fn write(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        self.value.encode(writer)
    }
}

fn hash(add: impl FnOnce(&mut KeyHasher)) -> u64 {
    let mut hasher = KeyHasher::default();
    add(&mut hasher);
    hasher.finish()
}

/// The field arrives as this value, and has its hash and its length.
async fn arrives<T: Encode>(field: T, ty: ColumnType, expected: Value) {
    assert_eq!(T::TYPE, ty);
    let row = one(field);
    assert_eq!(row.variable_len(), expected.as_ref().variable_len(), "{expected:?}");
    assert_eq!(row.key_hash(), hash(|hasher| hasher.add(expected.as_ref())), "{expected:?}");
    let sink = ScriptedSink::new();
    let db = BatchSql::builder(sink.clone()).config(config()).start().unwrap();
    db.submit(&row).await.unwrap();
    db.flush().await.unwrap();
    assert_eq!(sink.applied()[0].get("v").map(|v| v.to_value()), Some(expected));
}

/// The database would get another value, so the row is refused.
async fn refused<T: Encode>(field: T) {
    let db = BatchSql::builder(ScriptedSink::new()).config(config()).start().unwrap();
    let error = db.submit(&one(field)).await.unwrap_err();
    assert!(error.row_error().is_some_and(RowError::is_out_of_range), "{error}");
}

fn date(text: &str) -> Value {
    Value::Date(text.parse().unwrap())
}

fn clock(text: &str) -> Value {
    Value::Time(text.parse().unwrap())
}

fn local(text: &str) -> Value {
    Value::Timestamp(text.parse().unwrap())
}

fn instant(text: &str) -> Value {
    Value::TimestampTz(text.parse().unwrap())
}

/// A list of the field, and of NULL, is a list of this JSON.
async fn is_element<T: ArrayElement>(field: T, json: &str) {
    arrives(vec![Some(field), None], ColumnType::Json, Value::Json(format!("[{json},null]").parse().unwrap())).await;
}

/// A list of the field is refused as the field is.
async fn is_refused_in_a_list<T: ArrayElement>(field: T, what: &str) {
    let db = BatchSql::builder(ScriptedSink::new()).config(config()).start().unwrap();
    let error = db.submit(&one(vec![field])).await.unwrap_err().to_string();
    assert!(error.contains(what), "{error}");
}

#[tokio::test(start_paused = true)]
async fn elements_of_lists() {
    let decimal = |text: &str| text.parse::<bigdecimal::BigDecimal>().unwrap();
    let at = jiff::civil::datetime(2026, 2, 28, 23, 59, 58, 7_999);
    let day = time::Date::from_calendar_date(2026, time::Month::February, 28).unwrap();
    let chrono: chrono::DateTime<chrono::FixedOffset> = "2026-02-28T23:59:58+02:00".parse().unwrap();
    is_element(at.date(), r#""2026-02-28""#).await;
    is_element(at.time(), r#""23:59:58.000007""#).await;
    is_element(at, r#""2026-02-28 23:59:58.000007""#).await;
    is_element(jiff::Timestamp::UNIX_EPOCH, r#""1970-01-01 00:00:00.000000+00:00""#).await;
    is_element(day, r#""2026-02-28""#).await;
    is_element(time::OffsetDateTime::UNIX_EPOCH, r#""1970-01-01 00:00:00.000000+00:00""#).await;
    is_element(chrono.date_naive(), r#""2026-02-28""#).await;
    is_element(chrono, r#""2026-02-28 21:59:58.000000+00:00""#).await;
    is_element(decimal("-1.50e3"), r#""-1500""#).await;
    is_element(bytes::Bytes::from_static(b"\x00\xff"), r#""\\x00ff""#).await;
    is_element(Ipv4Addr::LOCALHOST, r#""127.0.0.1""#).await;
    is_element(IpAddr::from(Ipv6Addr::LOCALHOST), r#""::1""#).await;
    is_element("10.0.0.0/8".parse::<ipnetwork::IpNetwork>().unwrap(), r#""10.0.0.0/8""#).await;

    is_refused_in_a_list(jiff::civil::date(0, 1, 1), "outside the years 1 to 9999").await;
    is_refused_in_a_list(Some(jiff::Timestamp::MIN), "outside the years 1 to 9999").await;
    is_refused_in_a_list(decimal("1e200000"), "exponent").await;
    // A value of a dynamic row is not checked: nothing is lost, and the database decides.
    let old = Value::from(vec![jiff::civil::date(-1, 1, 1)]);
    assert_eq!(old, Value::Json(r#"["-000001-01-01"]"#.parse().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn the_time_crate() {
    use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcDateTime, UtcOffset};
    let day = Date::from_calendar_date(2026, Month::February, 28).unwrap();
    let at = Time::from_hms_nano(23, 59, 58, 7_999).unwrap();
    arrives(day, ColumnType::Date, date("2026-02-28")).await;
    arrives(at, ColumnType::Time, clock("23:59:58.000007")).await;
    arrives(PrimitiveDateTime::new(day, at), ColumnType::Timestamp, local("2026-02-28T23:59:58.000007")).await;
    let offset = UtcOffset::from_hms(2, 0, 0).unwrap();
    let zoned = OffsetDateTime::new_in_offset(day, at, offset);
    arrives(zoned, ColumnType::TimestampTz, instant("2026-02-28T21:59:58.000007Z")).await;
    arrives(UtcDateTime::new(day, at), ColumnType::TimestampTz, instant("2026-02-28T23:59:58.000007Z")).await;
    let before = OffsetDateTime::UNIX_EPOCH - time::Duration::nanoseconds(1);
    arrives(before, ColumnType::TimestampTz, instant("1969-12-31T23:59:59.999999Z")).await;
    refused(Date::from_calendar_date(0, Month::January, 1).unwrap()).await;
    refused(OffsetDateTime::new_utc(Date::from_calendar_date(-5, Month::January, 1).unwrap(), at)).await;
}

#[tokio::test(start_paused = true)]
async fn the_jiff_crate() {
    use jiff::civil;
    use jiff::tz::{Offset, TimeZone};
    let at = civil::datetime(2026, 2, 28, 23, 59, 58, 7_999);
    arrives(at.date(), ColumnType::Date, date("2026-02-28")).await;
    arrives(at.time(), ColumnType::Time, clock("23:59:58.000007")).await;
    arrives(at, ColumnType::Timestamp, local("2026-02-28T23:59:58.000007")).await;
    let zoned = at.to_zoned_datetime(TimeZone::fixed(Offset::constant(2))).unwrap();
    arrives(zoned.timestamp(), ColumnType::TimestampTz, instant("2026-02-28T21:59:58.000007Z")).await;
    arrives(zoned, ColumnType::TimestampTz, instant("2026-02-28T21:59:58.000007Z")).await;
    let before = jiff::Timestamp::from_nanosecond(-1).unwrap();
    arrives(before, ColumnType::TimestampTz, instant("1969-12-31T23:59:59.999999Z")).await;
    refused(civil::date(0, 1, 1)).await;
    refused(civil::date(-1, 1, 1).at(0, 0, 0, 0)).await;
    refused(jiff::Timestamp::MIN).await;
}

#[tokio::test(start_paused = true)]
async fn instants_of_chrono_in_any_zone() {
    let at: chrono::DateTime<chrono::FixedOffset> = "2026-02-28T23:59:58+02:00".parse().unwrap();
    arrives(at, ColumnType::TimestampTz, instant("2026-02-28T21:59:58Z")).await;
    arrives(at.to_utc(), ColumnType::TimestampTz, instant("2026-02-28T21:59:58Z")).await;
    // `Local` and the zones of other crates are zones too.
    fn is_column<Tz: chrono::TimeZone>(zone: Tz) -> ColumnType {
        let _ = zone;
        <chrono::DateTime<Tz> as Encode>::TYPE
    }
    assert_eq!(is_column(chrono::Utc), ColumnType::TimestampTz);
}

#[tokio::test(start_paused = true)]
async fn decimals_and_bytes() {
    let decimal = |text: &str| Value::Decimal(text.parse().unwrap());
    for (text, expected) in [("19.90", "19.90"), ("-1e-3", "-0.001"), ("12e3", "12000"), ("0", "0")] {
        let number: bigdecimal::BigDecimal = text.parse().unwrap();
        assert_eq!(Value::from(number.clone()), decimal(expected));
        arrives(number, ColumnType::Decimal, decimal(expected)).await;
    }
    for huge in ["1e200000", "1e-200000"] {
        refused(huge.parse::<bigdecimal::BigDecimal>().unwrap()).await;
    }
    let bytes = bytes::Bytes::from_static(b"\x00\xff");
    assert_eq!(Value::from(bytes.clone()), Value::Bytes(vec![0, 255]));
    arrives(bytes::BytesMut::from(&bytes[..]), ColumnType::Bytes, Value::Bytes(vec![0, 255])).await;
    arrives(bytes, ColumnType::Bytes, Value::Bytes(vec![0, 255])).await;
}

#[tokio::test(start_paused = true)]
async fn network_addresses_are_text() {
    let long = Ipv6Addr::new(0x1111, 0x2222, 0x3333, 0x4444, 0x5555, 0x6666, 0x7777, 0x8888);
    arrives(Ipv4Addr::LOCALHOST, ColumnType::Text, "127.0.0.1".into()).await;
    arrives(long, ColumnType::Text, "1111:2222:3333:4444:5555:6666:7777:8888".into()).await;
    arrives(IpAddr::from(Ipv6Addr::LOCALHOST), ColumnType::Text, "::1".into()).await;
    let scoped = std::net::SocketAddrV6::new(long, 65_535, 0, u32::MAX);
    let text = "[1111:2222:3333:4444:5555:6666:7777:8888%4294967295]:65535";
    arrives(SocketAddr::from(scoped), ColumnType::Text, text.into()).await;
    let network: ipnetwork::IpNetwork = "10.0.0.0/8".parse().unwrap();
    assert_eq!(Value::from(network), "10.0.0.0/8".into());
    assert_eq!(Value::from(IpAddr::from([10, 0, 0, 1])), "10.0.0.1".into());
    arrives(network, ColumnType::Text, "10.0.0.0/8".into()).await;
    let network = ipnetwork::Ipv6Network::new(long, 128).unwrap();
    arrives(network, ColumnType::Text, "1111:2222:3333:4444:5555:6666:7777:8888/128".into()).await;
}
