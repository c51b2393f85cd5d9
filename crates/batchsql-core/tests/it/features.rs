//! Values of other crates, behind features: the column values that they become.
#![cfg(all(feature = "chrono", feature = "uuid", feature = "rust_decimal"))]

use std::sync::OnceLock;

use batchsql_core::{ColumnType, DynRow, Encode, Row, RowError, RowWriter, Schema, Value, ValueRef};
use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use uuid::Uuid;

use crate::support::{config, pipeline};

struct Foreign {
    date: NaiveDate,
    local: NaiveDateTime,
    instant: DateTime<Utc>,
    id: Uuid,
    price: rust_decimal::Decimal,
}

impl Row for Foreign {
    fn schema(&self) -> &Schema {
        static SCHEMA: OnceLock<Schema> = OnceLock::new();
        SCHEMA.get_or_init(|| {
            Schema::builder("foreign")
                .column("date", NaiveDate::TYPE)
                .column("local", NaiveDateTime::TYPE)
                .column("instant", <DateTime<Utc>>::TYPE)
                .column("id", Uuid::TYPE)
                .column("price", rust_decimal::Decimal::TYPE)
                .build()
                .unwrap()
        })
    }

    fn variable_len(&self) -> usize {
        self.price.variable_len()
    }

    fn key_hash(&self) -> u64 {
        0
    }

    fn write(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        self.date.encode(writer)?;
        self.local.encode(writer)?;
        self.instant.encode(writer)?;
        self.id.encode(writer)?;
        self.price.encode(writer)
    }
}

#[tokio::test(start_paused = true)]
async fn values_of_other_crates_arrive_as_they_are() {
    let (db, sink) = pipeline(config());
    let local = NaiveDate::from_ymd_opt(2026, 2, 28).unwrap().and_hms_micro_opt(23, 59, 59, 7).unwrap();
    let row = Foreign {
        date: local.date(),
        local,
        instant: local.and_utc(),
        id: Uuid::from_u128(7),
        price: "-12.50".parse().unwrap(),
    };
    db.submit(&row).await.unwrap();
    let beyond = Foreign { date: NaiveDate::from_ymd_opt(20_000, 1, 1).unwrap(), ..row };
    assert!(db.submit(&beyond).await.unwrap_err().row_error().unwrap().is_out_of_range());
    db.flush().await.unwrap();
    let written: &DynRow = &sink.applied()[0];
    let text = |column| match written.get(column).unwrap() {
        ValueRef::Date(v) => v.to_string(),
        ValueRef::Timestamp(v) => v.to_string(),
        ValueRef::TimestampTz(v) => v.to_string(),
        ValueRef::Decimal(v) => v.to_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!(text("date"), "2026-02-28");
    assert_eq!(text("local"), "2026-02-28 23:59:59.000007");
    assert_eq!(text("instant"), "2026-02-28 23:59:59.000007+00:00");
    assert_eq!(text("price"), "-12.50");
    assert_eq!(written.get("id"), Some(ValueRef::Uuid(7_u128.to_be_bytes())));
    assert_eq!(Value::from(Uuid::from_u128(7)), Value::Uuid(7_u128.to_be_bytes()));
    assert_eq!(Value::from(rust_decimal::Decimal::new(15, 1)), Value::Decimal("1.5".parse().unwrap()));
    assert_eq!(ColumnType::Uuid, Uuid::TYPE);
    let list = Value::Json(r#"["1.5",null]"#.parse().unwrap());
    assert_eq!(Value::from(vec![Some(rust_decimal::Decimal::new(15, 1)), None]), list);
}
