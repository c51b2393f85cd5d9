//! The bytes of blocks never change within a version: files that an earlier build wrote are read, and are written again
//! as they were. `BATCHSQL_GOLDEN=write` makes new ones, for a new version only.

use std::fs;
use std::path::PathBuf;

use batchsql_core::{
    ColumnType, Conflict, Date, Decimal, DynRow, Expr, Json, RowBuffer, Schema, TableName, Time, Timestamp,
    TimestampTz, Value, ValueRules,
};

use crate::block::{rows, schema_record};

fn schema() -> Schema {
    let mut builder = Schema::builder(TableName::qualified("audit", "all \"types\""));
    for ty in ColumnType::ALL {
        builder = builder.column(ty.name(), ty).nullable(format!("nullable_{ty}"), ty);
    }
    let rule = Conflict::update(["i64", "text"])
        .only_if_newer("timestamptz")
        .set("u64", Expr::greatest())
        .set("nullable_text", Expr::unless_null())
        .on_constraint("all_types_key");
    builder.on_conflict(rule).build().unwrap()
}

fn values(seed: i64) -> [Value; 16] {
    let text = |what: &str| format!("{what} {seed} é");
    [
        Value::Bool(seed % 2 == 0),
        Value::I16(-7 - seed as i16),
        Value::I32(i32::MIN + seed as i32),
        Value::I64(i64::MAX - seed),
        Value::U64(u64::MAX - seed as u64),
        Value::F32(-0.5 * seed as f32),
        Value::F64(1e300 / (seed + 1) as f64),
        Value::Decimal(format!("-12345678901234567890.{seed}50").parse::<Decimal>().unwrap()),
        Value::Text(text("text")),
        Value::Bytes(vec![0xff, 0, seed as u8]),
        Value::Uuid([seed as u8; 16]),
        Value::Json(format!("{{\"n\": {seed}.10}}").parse::<Json>().unwrap()),
        Value::Date(Date::from_ymd(2026, 11, 1 + seed as u32).unwrap()),
        Value::Time(Time::from_micros_since_midnight(86_399_999_999 - seed).unwrap()),
        Value::Timestamp(Timestamp::from_micros_since_epoch(-1 - seed).unwrap()),
        Value::TimestampTz(TimestampTz::from_micros_since_epoch(1_795_000_000_000_000 + seed).unwrap()),
    ]
}

/// Ten rows: each nullable column is NULL in every third.
fn all_rows(schema: &Schema) -> Vec<DynRow> {
    (0..10)
        .map(|seed| {
            let of = |value: Value| [value.clone(), if seed % 3 == 1 { Value::Null } else { value }];
            schema.row().set_all(values(seed).into_iter().flat_map(of)).unwrap().finish().unwrap()
        })
        .collect()
}

/// Compares bytes with a file of the repository.
fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).join(name);
    if std::env::var_os("BATCHSQL_GOLDEN").is_some() {
        fs::write(&path, bytes).unwrap();
    }
    let golden = fs::read(&path).unwrap();
    assert!(golden == bytes, "{name} is written in another way than before: {bytes:02x?}");
    golden
}

#[test]
fn blocks_are_read_and_written_as_ever() {
    let schema = schema();
    let mut buffer = RowBuffer::new(&schema, ValueRules::default());
    all_rows(&schema).iter().for_each(|row| buffer.push(row).unwrap());
    let bytes = golden("rows-1.bin", &rows::encode(buffer.into_rows().rows()));
    let columns: Vec<_> = schema.columns().iter().map(|column| (column.column_type(), column.is_nullable())).collect();
    let decoded = rows::decode(&columns, 10, &bytes).unwrap();
    let decoded: Vec<DynRow> =
        decoded.into_iter().map(|values| schema.row().set_all(values).unwrap().finish().unwrap()).collect();
    assert!(decoded == all_rows(&schema), "the rows are the same");
}

#[test]
fn schemas_are_read_and_written_as_ever() {
    let known = schema();
    let bytes = golden("schema-1.bin", &schema_record::encode(&known));
    assert_eq!(schema_record::decode(&bytes).unwrap().to_schema(), Ok(known));
    let raw = Schema::builder("t").column("id", ColumnType::I64).column("v", ColumnType::I64).overriding_system_value();
    let rule = Conflict::update_columns(["id"], ["v"]).set("v", Expr::raw("{old} + {new}")).may_add_twice();
    let raw = raw.on_conflict(rule.on_partial_index("v > 0")).build().unwrap();
    let bytes = golden("schema-raw-1.bin", &schema_record::encode(&raw));
    assert_eq!(schema_record::decode(&bytes).unwrap().rule.key, ["id"]);
}
