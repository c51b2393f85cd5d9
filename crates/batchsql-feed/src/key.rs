//! The canonical bytes of a key, from which its partition is computed. They are part of the format: see `FORMAT.md`.
//! Must not know how rows are stored.
//!
//! Keys that BatchSQL treats as equal have equal bytes: integers by number, whatever their width; decimals by number;
//! floats with one zero and one `NaN`; text by its bytes. The columns are in the order of their names, so that an upsert and
//! a delete of one table agree.

use std::collections::BTreeSet;
use std::fmt;

use batchsql_core::exhaustive::Value;
use batchsql_core::{Ordering, PipelineConfig, RowBuffer, RowView, Schema, TableName, ValueRef};

/// The key of one row of a buffer; `None` if the schema has no key.
pub fn of_row(rows: &RowBuffer, row: usize, order: &KeyOrder) -> Option<Vec<u8>> {
    match order {
        KeyOrder::None => None,
        KeyOrder::Table => Some(Vec::new()),
        KeyOrder::Columns(columns) => Some(canonical(columns.iter().map(|column| rows.get(row, *column)))),
    }
}

/// The key of one row of a view; `None` if the schema has no key.
pub fn of_view(row: RowView<'_>, order: &KeyOrder) -> Option<Vec<u8>> {
    match order {
        KeyOrder::None => None,
        KeyOrder::Table => Some(Vec::new()),
        KeyOrder::Columns(columns) => Some(canonical(columns.iter().map(|column| row.get(*column)))),
    }
}

/// Which rows of a schema keep their order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "there is no other order")]
pub enum KeyOrder {
    /// None: plain inserts.
    None,
    /// All rows of the table: they count as rows of one key.
    Table,
    /// Those with equal values in these columns.
    Columns(Box<[usize]>),
}

/// The tables that keep the order of all of their rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderedTables {
    by_default: bool,
    /// The tables for which it is the other way.
    others: BTreeSet<String>,
}

impl OrderedTables {
    /// As a pipeline is configured.
    pub fn of(config: &PipelineConfig) -> Self {
        let by_default = config.ordering == Ordering::PerTable;
        let is_other =
            |ordering: Option<Ordering>| ordering.is_some_and(|own| (own == Ordering::PerTable) != by_default);
        let others = config.tables.iter().filter(|(_, table)| is_other(table.ordering));
        Self { by_default, others: others.map(|(name, _)| name.clone()).collect() }
    }

    fn includes(&self, table: &TableName) -> bool {
        self.by_default != self.others.contains(&table.to_string())
    }
}

/// As a source stores it: rows of one key are in one partition, which depends on it.
impl fmt::Display for OrderedTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [ours, theirs] = if self.by_default { ["table", "key"] } else { ["key", "table"] };
        write!(f, "per {ours}")?;
        if !self.others.is_empty() {
            write!(f, ", per {theirs} in {:?}", self.others)?;
        }
        Ok(())
    }
}

impl KeyOrder {
    /// The order of the rows of a schema.
    pub fn of(schema: &Schema, ordered: &OrderedTables) -> Self {
        if ordered.includes(schema.table()) {
            return Self::Table;
        }
        if schema.key_columns().is_empty() {
            return Self::None;
        }
        let mut columns: Box<[usize]> = schema.key_columns().into();
        columns.sort_unstable_by_key(|column| schema.columns()[*column].name());
        Self::Columns(columns)
    }
}

/// Each value is a byte for its kind, and its bytes; bytes of variable length have their length before them, with 4 bytes.
fn canonical<'a>(values: impl Iterator<Item = ValueRef<'a>>) -> Vec<u8> {
    let mut out = Vec::with_capacity(24);
    let variable = |out: &mut Vec<u8>, kind: u8, bytes: &[u8]| {
        out.push(kind);
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    for value in values {
        match value.exhaustive() {
            Value::Null => out.push(0),
            Value::Bool(v) => out.extend([1, u8::from(v)]),
            Value::I16(v) => integer(&mut out, v.into()),
            Value::I32(v) => integer(&mut out, v.into()),
            Value::I64(v) => integer(&mut out, v.into()),
            Value::U64(v) => integer(&mut out, v.into()),
            Value::F32(v) => float(&mut out, v.into()),
            Value::F64(v) => float(&mut out, v),
            Value::Decimal(v) => variable(&mut out, 4, shortest(v).as_bytes()),
            Value::Text(v) | Value::Json(v) => variable(&mut out, 5, v.as_bytes()),
            Value::Bytes(v) => variable(&mut out, 6, v),
            Value::Uuid(v) => fixed(&mut out, 7, &v),
            Value::Date(v) => fixed(&mut out, 8, &v.days_since_epoch().to_le_bytes()),
            Value::Time(v) => fixed(&mut out, 9, &v.micros_since_midnight().to_le_bytes()),
            Value::Timestamp(v) => fixed(&mut out, 10, &v.micros_since_epoch().to_le_bytes()),
            Value::TimestampTz(v) => fixed(&mut out, 11, &v.micros_since_epoch().to_le_bytes()),
        }
    }
    out
}

fn fixed(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.push(kind);
    out.extend_from_slice(bytes);
}

fn integer(out: &mut Vec<u8>, number: i128) {
    fixed(out, 2, &number.to_le_bytes());
}

fn float(out: &mut Vec<u8>, number: f64) {
    // Adding zero makes `-0.0` to `0.0`. There is one `NaN`, with the same bits on every machine.
    let bits = if number.is_nan() { 0x7ff8_0000_0000_0000 } else { (number + 0.0).to_bits() };
    fixed(out, 3, &bits.to_le_bytes());
}

/// The shortest digits of a decimal: no zeros in front of the number and at the end of its fraction, no `-0`.
fn shortest(digits: &str) -> String {
    let (sign, unsigned) = digits.strip_prefix('-').map_or(("", digits), |unsigned| ("-", unsigned));
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    match (whole, fraction) {
        ("", "") => "0".to_owned(),
        ("", fraction) => format!("{sign}0.{fraction}"),
        (whole, "") => format!("{sign}{whole}"),
        (whole, fraction) => format!("{sign}{whole}.{fraction}"),
    }
}

#[cfg(test)]
mod tests {
    use batchsql_core::{ColumnType, Conflict, Date, Row as _, Timestamp, ValueRules};
    use batchsql_log::partition_of;

    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The vectors of `FORMAT.md`: a change would write rows of a key to two partitions.
    #[test]
    fn keys_have_the_bytes_of_the_format() {
        let check = |values: &[ValueRef<'_>], bytes: &str, of_8: u32| {
            let key = canonical(values.iter().copied());
            assert_eq!((&*hex(&key), partition_of(&key, 8)), (bytes, of_8), "{values:?}");
        };
        let seven = "0207000000000000000000000000000000";
        check(&[ValueRef::I16(7)], seven, 2);
        check(&[ValueRef::U64(7)], seven, 2);
        check(&[ValueRef::I64(-1)], "02ffffffffffffffffffffffffffffffff", 2);
        check(&[ValueRef::Text("a")], "050100000061", 6);
        check(&[ValueRef::Text("a"), ValueRef::Bool(true)], "0501000000610101", 3);
        check(&[ValueRef::Decimal("-01.50")], "04040000002d312e35", 0);
        check(&[ValueRef::F32(-0.0)], "030000000000000000", 5);
        check(&[ValueRef::F64(0.0)], "030000000000000000", 5);
        check(&[ValueRef::F64(-f64::NAN)], "03000000000000f87f", 4);
        check(&[ValueRef::Bytes(&[0xff])], "0601000000ff", 4);
        check(&[ValueRef::Uuid([1; 16])], "0701010101010101010101010101010101", 2);
        check(&[ValueRef::Date(Date::from_days_since_epoch(1).unwrap())], "0801000000", 2);
        let instant = Timestamp::from_micros_since_epoch(1).unwrap();
        check(&[ValueRef::Timestamp(instant)], "0a0100000000000000", 4);
        check(&[ValueRef::Null], "00", 3);
    }

    #[test]
    fn decimals_are_compared_by_number() {
        for (digits, expected) in [
            ("1.50", "1.5"),
            ("-0.0", "0"),
            ("000", "0"),
            ("0.10", "0.1"),
            ("-.5", "-0.5"),
            ("100", "100"),
            ("-007", "-7"),
        ] {
            assert_eq!(shortest(digits), expected, "{digits}");
        }
    }

    #[test]
    fn an_upsert_and_a_delete_have_the_same_key() {
        let schema = Schema::builder("t").column("b", ColumnType::Text).column("v", ColumnType::I64);
        let schema = schema.column("a", ColumnType::I64).on_conflict(Conflict::update(["b", "a"])).build().unwrap();
        let row =
            schema.row().set("a", 1_i64).unwrap().set("b", "x").unwrap().set("v", 2_i64).unwrap().finish().unwrap();
        let gone = batchsql_core::Delete::of(&row).unwrap();
        let key = |row: &dyn batchsql_core::Row| {
            let mut rows = RowBuffer::new(row.schema(), ValueRules::default());
            rows.push(row).unwrap();
            of_row(&rows, 0, &KeyOrder::of(row.schema(), &OrderedTables::of(&PipelineConfig::default()))).unwrap()
        };
        assert_eq!(key(&row), key(&gone));
        assert_eq!(hex(&key(&row)), "0201000000000000000000000000000000050100000078", "a before b");
        assert_eq!(row.schema(), &schema);
    }
}
