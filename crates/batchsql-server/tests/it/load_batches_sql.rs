//! `batchsql load` of a Parquet file into the SQL servers: the values of the file, and those that the database has.

use std::sync::Arc;

use arrow_array::types::Int8Type;
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array,
    Int16Array, Int64Array, StringArray, TimestampMicrosecondArray, TimestampNanosecondArray,
};
use batchsql_testserver::{Kind, Server, dsn, unique};
use parquet::basic::Compression;
use sqlx::{Connection, Row as _};

use crate::load_batches::{batch, parquet};
use crate::program::Place;

/// More than two row groups.
const ROWS: i64 = 2_500;
/// Its price has more digits than the column.
const INEXACT: i64 = 1_234;
/// 2026-01-01, in days since 1970.
const DAY: i32 = 20_454;
const MICROS_OF_DAY: i64 = 86_400_000_000;
/// Beyond every `f64`.
const LARGE: i128 = 123_456_789_012_345_678_901_234_567;
/// What the queries show for `NULL`: the file has other texts.
const NULL: &str = "(null)";

/// One row of the file. The first one is `NULL` wherever it may be.
struct Order {
    id: i64,
    flag: Option<bool>,
    note: Option<String>,
    code: Option<&'static str>,
    small: Option<i16>,
    /// With 10 digits behind the point.
    total: Option<i128>,
    /// With 4 digits behind the point; the column has 2.
    price: Option<i64>,
    ratio: Option<f64>,
    /// Microseconds of the day.
    clock: Option<i64>,
    day: Option<i32>,
    raw: Option<Vec<u8>>,
}

fn order(id: i64) -> Order {
    let unless = |period: i64| (id > 0 && id % period != 0).then_some(());
    let note = match id % 6 {
        0 => String::new(),
        1 => "it's \"quoted\", \\ and\nbroken".to_owned(),
        2 => "größe 数据 🚀".to_owned(),
        3 => "NULL".to_owned(),
        4 => "x".repeat(3_000),
        _ => format!(" {id} "),
    };
    let total = match id % 4 {
        0 => LARGE,
        1 => -LARGE,
        2 => i128::from(id),
        _ => -i128::from(id) * 10_000_000_000,
    };
    Order {
        id,
        flag: unless(3).map(|()| id % 2 == 0),
        note: unless(5).map(|()| note),
        code: unless(7).map(|()| ["new", "paid", "sent"][(id % 3) as usize]),
        small: unless(11).map(|()| if id % 2 == 0 { i16::MIN } else { i16::MAX }),
        total: unless(13).map(|()| total),
        price: unless(17).map(|()| if id == INEXACT { 10_050 } else { id * 100 }),
        ratio: unless(19).map(|()| id as f64 / 8.0),
        clock: unless(23).map(|()| id * 34_000_001),
        day: unless(29).map(|()| (id % 31) as i32),
        raw: unless(31).map(|()| vec![0, id as u8, 0xff, b'\'']),
    }
}

fn file() -> Vec<u8> {
    let orders: Vec<Order> = (0..ROWS).map(order).collect();
    let total = orders.iter().map(|order| order.total).collect::<Decimal128Array>();
    let price = orders.iter().map(|order| order.price.map(i128::from)).collect::<Decimal128Array>();
    let instant = |order: &Order| Some(i64::from(DAY) * MICROS_OF_DAY + order.clock?);
    let at = orders.iter().map(instant).collect::<TimestampMicrosecondArray>();
    let local = orders.iter().map(|order| Some(instant(order)? * 1_000)).collect::<TimestampNanosecondArray>();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(orders.iter().map(|order| Some(order.id)).collect::<Int64Array>())),
        ("flag", Arc::new(orders.iter().map(|order| order.flag).collect::<BooleanArray>())),
        ("note", Arc::new(orders.iter().map(|order| order.note.as_deref()).collect::<StringArray>())),
        ("code", Arc::new(orders.iter().map(|order| order.code).collect::<DictionaryArray<Int8Type>>())),
        ("small", Arc::new(orders.iter().map(|order| order.small).collect::<Int16Array>())),
        ("total", Arc::new(total.with_precision_and_scale(38, 10).unwrap())),
        ("price", Arc::new(price.with_precision_and_scale(20, 4).unwrap())),
        ("ratio", Arc::new(orders.iter().map(|order| order.ratio).collect::<Float64Array>())),
        ("at", Arc::new(at.with_timezone("UTC"))),
        ("local_at", Arc::new(local)),
        ("day", Arc::new(orders.iter().map(|order| Some(DAY + order.day?)).collect::<Date32Array>())),
        ("raw", Arc::new(orders.iter().map(|order| order.raw.as_deref()).collect::<BinaryArray>())),
    ];
    assert!(columns.iter().skip(1).all(|(_, array)| array.null_count() > 0));
    parquet(&batch(columns), Compression::SNAPPY)
}

/// A row as the queries below show it.
fn shown(order: Order) -> String {
    fn or_null<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
        value.map_or(NULL.to_owned(), text)
    }
    let scaled = |value: i128, digits: u32| {
        let (sign, value, unit) = (if value < 0 { "-" } else { "" }, value.unsigned_abs(), 10_u128.pow(digits));
        format!("{sign}{}.{:0width$}", value / unit, value % unit, width = digits as usize)
    };
    let clock = |micros: i64| {
        let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
        format!("2026-01-01 {:02}:{:02}:{:02}.{micros:06}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    };
    let texts = [
        order.id.to_string(),
        or_null(order.flag, |flag| u8::from(flag).to_string()),
        or_null(order.note, |note| note),
        or_null(order.code, str::to_owned),
        or_null(order.small, |small| small.to_string()),
        or_null(order.total, |total| scaled(total, 10)),
        or_null(order.price, |price| scaled(i128::from(price) / 100, 2)),
        or_null(order.ratio, |ratio| ratio.to_string()),
        or_null(order.clock, clock),
        or_null(order.clock, clock),
        or_null(order.day, |day| format!("2026-01-{:02}", day + 1)),
        or_null(order.raw, |raw| raw.iter().map(|byte| format!("{byte:02X}")).collect()),
    ];
    texts.join("|")
}

/// Loads the file into a table that has these columns, and compares what the query shows.
fn loads(dsn: &str, columns: &str, shows: &[&str], execute: impl Fn(&str), texts: impl Fn(&str) -> Vec<String>) {
    let (place, table) = (Place::new(), unique("parquet"));
    execute(&format!("CREATE TABLE {table} ({columns})"));
    place.write("a.parquet", file());
    let load = || place.run(&["load", "a.parquet", "--database", dsn, "--table", &table]);
    let ran = load();
    let written = ROWS - 1;
    assert!(ran.code() == 1 && ran.out().contains(&format!("{written} written, 1 rejected")), "{}", ran.all());
    let reject = std::fs::read_to_string(place.path("a.parquet.rejects.ndjson")).unwrap();
    let reject: serde_json::Value = serde_json::from_str(&reject).unwrap();
    assert_eq!(reject["line"], INEXACT + 1, "{reject}");
    assert!(reject["reason"].as_str().unwrap().contains("price"), "{reject}");

    let shown_columns: Vec<String> = shows.iter().map(|show| format!("COALESCE({show}, '{NULL}')")).collect();
    let found = texts(&format!("SELECT CONCAT_WS('|', {}) FROM {table} ORDER BY id", shown_columns.join(", ")));
    let expected: Vec<String> = (0..ROWS).filter(|id| *id != INEXACT).map(order).map(shown).collect();
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
    // Without a key, a row that is written again would show.
    let again = load();
    assert!(again.code() == 1 && again.out().contains("already loaded, 1 rejected"), "{}", again.all());
    assert_eq!(texts(&format!("SELECT CONCAT(COUNT(*), '') FROM {table}")), [written.to_string()]);
    execute(&format!("DROP TABLE {table}"));
}

macro_rules! server {
    ($connection:ty, $dsn:expr, $columns:expr, $shows:expr) => {{
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connection = std::cell::RefCell::new(runtime.block_on(<$connection>::connect($dsn)).unwrap());
        let execute = |sql: &str| {
            runtime.block_on(sqlx::query(sql).execute(&mut *connection.borrow_mut())).unwrap();
        };
        let texts = |sql: &str| -> Vec<String> {
            let rows = runtime.block_on(sqlx::query(sql).fetch_all(&mut *connection.borrow_mut())).unwrap();
            rows.iter().map(|row| row.get(0)).collect()
        };
        loads($dsn, $columns, $shows, execute, texts);
    }};
}

#[test]
fn postgres() {
    let columns = "id BIGINT NOT NULL, flag BOOLEAN, note TEXT, code VARCHAR(10), small SMALLINT, total NUMERIC(38, 10), price \
                   NUMERIC(12, 2), ratio DOUBLE PRECISION, at TIMESTAMPTZ, local_at TIMESTAMP, day DATE, raw BYTEA";
    let shows = [
        "id::text",
        "flag::int::text",
        "note",
        "code",
        "small::text",
        "total::text",
        "price::text",
        "ratio::text",
        "to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')",
        "to_char(local_at, 'YYYY-MM-DD HH24:MI:SS.US')",
        "to_char(day, 'YYYY-MM-DD')",
        "upper(encode(raw, 'hex'))",
    ];
    server!(sqlx::PgConnection, &dsn(Kind::Postgres), columns, &shows);
}

#[test]
fn mysql() {
    let columns = "id BIGINT NOT NULL, flag BOOLEAN, note TEXT, code VARCHAR(10), small SMALLINT, total DECIMAL(38, 10), price \
                   DECIMAL(12, 2), ratio DOUBLE, at TIMESTAMP(6) NULL, local_at DATETIME(6), day DATE, raw VARBINARY(10)";
    let format = "'%Y-%m-%d %H:%i:%s.%f'";
    let (at, local) = (format!("DATE_FORMAT(at, {format})"), format!("DATE_FORMAT(local_at, {format})"));
    let shows = [
        "id",
        "flag",
        "note",
        "code",
        "small",
        "total",
        "price",
        "ratio",
        &at,
        &local,
        "DATE_FORMAT(day, '%Y-%m-%d')",
        "HEX(raw)",
    ];
    // Exactly once needs a server that keeps what it has committed.
    let server = Server::start(Kind::MySql, &["--innodb-flush-log-at-trx-commit=1"]);
    server!(sqlx::MySqlConnection, server.dsn(), columns, &shows);
}
