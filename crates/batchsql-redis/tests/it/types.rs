//! Every column type, as the value of a string and as a part of a key.

use batchsql_core::{ColumnType, Date, Schema, Time, Timestamp, TimestampTz, Value};
use batchsql_redis::{Command, Key};
use batchsql_testserver::{Kind, Server};

use crate::support::{ask_at, looker, row, sink_at, write};

#[tokio::test]
async fn values_are_stored_in_their_text_form() {
    // One key is only the value, which must not collide with other tests.
    let server = Server::start(Kind::Redis, &[]);
    let t = "types";
    let date = Date::from_ymd(2026, 2, 28).unwrap();
    let time = Time::from_hms_micro(23, 59, 59, 1).unwrap();
    let cases: Vec<(Value, &[u8])> = vec![
        (true.into(), b"1"),
        (Value::I16(i16::MIN), b"-32768"),
        (Value::I32(i32::MAX), b"2147483647"),
        (Value::I64(i64::MIN), b"-9223372036854775808"),
        (Value::U64(u64::MAX), b"18446744073709551615"),
        (Value::F32(0.1), b"0.1"),
        (Value::F64(1.0 / 3.0), b"0.3333333333333333"),
        (Value::F64(f64::NAN), b"nan"),
        (Value::Decimal("-12345678901234567890.10".parse().unwrap()), b"-12345678901234567890.10"),
        (Value::Text("é\0\r\n$5 😀".into()), "é\0\r\n$5 😀".as_bytes()),
        (Value::Bytes((0..=255).collect()), &const { all_bytes() }),
        (Value::Uuid([0x0f; 16]), b"0f0f0f0f-0f0f-0f0f-0f0f-0f0f0f0f0f0f"),
        (Value::Json("{\"a\": [1, null]}".parse().unwrap()), b"{\"a\": [1, null]}"),
        (Value::Date(date), b"2026-02-28"),
        (Value::Time(time), b"23:59:59.000001"),
        (Value::Timestamp(Timestamp::from_parts(date, time)), b"2026-02-28 23:59:59.000001"),
        (Value::TimestampTz(TimestampTz::from_parts(date, time)), b"2026-02-28 23:59:59.000001+00:00"),
    ];
    let seen: Vec<ColumnType> = cases.iter().filter_map(|(value, _)| value.as_ref().column_type()).collect();
    assert!(ColumnType::ALL.iter().all(|ty| seen.contains(ty)), "every type has a case");
    for (number, (value, expected)) in (0_i64..).zip(cases) {
        let ty = value.as_ref().column_type().unwrap();
        let table = format!("{t}_{number}");
        let schema = Schema::builder(table.as_str()).column("k", ColumnType::I64).column("v", ty).build().unwrap();
        let as_value = sink_at(server.dsn(), &table, Command::set(Key::prefixed(t, ["k"]), "v")).await;
        assert_eq!(write(&as_value, [row(&schema, [number.into(), value.clone()])]).await, ["written"], "{ty}");
        assert_eq!(ask_at::<Vec<u8>>(server.dsn(), &["GET", &format!("{t}:{number}")]).await, expected, "{ty}");
        // The same value as the key: the set contains the name of its own key.
        let as_key = sink_at(server.dsn(), &table, Command::sadd("v", "k")).await;
        assert_eq!(write(&as_key, [row(&schema, [(-1 - number).into(), value])]).await, ["written"], "{ty}");
        let mut exists = redis::cmd("SREM");
        exists.arg(expected).arg(-1 - number);
        let mut conn = looker(server.dsn()).await;
        assert_eq!(exists.query_async::<i64>(&mut conn).await.unwrap(), 1, "{ty}");
    }
}

const fn all_bytes() -> [u8; 256] {
    let mut bytes = [0; 256];
    let mut index = 0;
    while index < bytes.len() {
        bytes[index] = index as u8;
        index += 1;
    }
    bytes
}
