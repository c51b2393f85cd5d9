//! Owns the block: some rows of one schema as columns, as bytes and back.
//! Must not know tables or rules.

use batchsql_core::exhaustive::Values;
use batchsql_core::{
    BytesValues, ColumnType, ColumnView, Date, Decimal, Json, Rows, TextValues, Time, Timestamp, TimestampTz, Value,
    ValueRef,
};

use crate::block::bytes::{Input, Unreadable, put_length, utf8};

/// The version of blocks.
const VERSION: u8 = 1;

/// The most rows of a block: rows of `NULL` alone take a bit per column, so that few bytes could mean very many rows.
pub const MAX_ROWS: usize = 1 << 16;

/// The bytes of some rows: version, number of rows, and each column. A nullable column starts with a bit per row that is 1
/// where there is a value. The values that are there follow: numbers, or first all lengths and then all bytes.
pub fn encode(rows: Rows<'_>) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_length(&mut out, rows.len());
    for column in 0..rows.schema().columns().len() {
        put_column(&mut out, rows.column(column), rows.len());
    }
    out
}

fn put_column(out: &mut Vec<u8>, column: ColumnView<'_>, rows: usize) {
    if let Some(validity) = column.validity() {
        let byte = |bits: &[bool]| bits.iter().enumerate().fold(0, |byte, (bit, set)| byte | (u8::from(*set) << bit));
        out.extend(validity.chunks(8).map(byte));
    }
    let present = || (0..rows).filter(|row| !column.is_null(*row));
    macro_rules! numbers {
        ($values:ident, $bytes:expr) => {
            present().for_each(|row| out.extend_from_slice(&$bytes($values[row])))
        };
    }
    match column.values().exhaustive() {
        Values::Bool(v) => numbers!(v, |v: bool| [u8::from(v)]),
        Values::I16(v) => numbers!(v, i16::to_le_bytes),
        Values::I32(v) => numbers!(v, i32::to_le_bytes),
        Values::I64(v) => numbers!(v, i64::to_le_bytes),
        Values::U64(v) => numbers!(v, u64::to_le_bytes),
        Values::F32(v) => numbers!(v, f32::to_le_bytes),
        Values::F64(v) => numbers!(v, f64::to_le_bytes),
        Values::Uuid(v) => numbers!(v, |v: [u8; 16]| v),
        Values::Date(v) => numbers!(v, |v: Date| v.days_since_epoch().to_le_bytes()),
        Values::Time(v) => numbers!(v, |v: Time| v.micros_since_midnight().to_le_bytes()),
        Values::Timestamp(v) => numbers!(v, |v: Timestamp| v.micros_since_epoch().to_le_bytes()),
        Values::TimestampTz(v) => numbers!(v, |v: TimestampTz| v.micros_since_epoch().to_le_bytes()),
        Values::Decimal(v) | Values::Text(v) | Values::Json(v) => put_texts(out, v, present),
        Values::Bytes(v) => put_bytes(out, v, present),
    }
}

fn put_texts<I: Iterator<Item = usize>>(out: &mut Vec<u8>, values: TextValues<'_>, present: impl Fn() -> I) {
    present().for_each(|row| put_length(out, values.get(row).len()));
    present().for_each(|row| out.extend_from_slice(values.get(row).as_bytes()));
}

fn put_bytes<I: Iterator<Item = usize>>(out: &mut Vec<u8>, values: BytesValues<'_>, present: impl Fn() -> I) {
    present().for_each(|row| put_length(out, values.get(row).len()));
    present().for_each(|row| out.extend_from_slice(values.get(row)));
}

/// Reads `count` rows with columns of these types; `true` is nullable. Each value is checked as if a program had given it.
///
/// # Errors
/// A newer version wrote them, or they make no sense.
pub fn decode(columns: &[(ColumnType, bool)], count: u32, bytes: &[u8]) -> Result<Vec<Vec<Value>>, Unreadable> {
    let mut rows: Vec<Vec<Value>> = Vec::new();
    read(columns, count, bytes, |_, row, value| {
        if row == rows.len() {
            rows.push(Vec::new());
        }
        rows[row].push(value.to_value());
        Ok::<_, Unreadable>(())
    })?;
    Ok(rows)
}

/// Whether `count` rows could be read: without making them, so that a source can tell a damaged block from one that it has.
///
/// # Errors
/// As [`decode`].
pub fn check(columns: &[(ColumnType, bool)], count: u32, bytes: &[u8]) -> Result<(), Unreadable> {
    read(columns, count, bytes, |_, _, _| Ok(()))
}

/// Reads `count` rows, column by column: `put` gets the number of the column, of the row, and the value.
///
/// # Errors
/// A newer version wrote them, or they make no sense; or the first error of `put`.
pub(crate) fn read<E: From<Unreadable>>(
    columns: &[(ColumnType, bool)],
    count: u32,
    bytes: &[u8],
    mut put: impl FnMut(usize, usize, ValueRef<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut input = Input::new(bytes);
    match input.u8()? {
        0 => return Err(Unreadable::Damaged("it has no version").into()),
        VERSION => {}
        newer => return Err(Unreadable::NewerVersion(newer).into()),
    }
    if input.u32()? != count {
        return Err(Unreadable::Damaged("the number of rows is another one than in its header").into());
    }
    if columns.is_empty() || count as usize > MAX_ROWS {
        return Err(Unreadable::Damaged("it has more rows than a block may have").into());
    }
    for (column, (ty, nullable)) in columns.iter().enumerate() {
        let present = Present::read(&mut input, *nullable, count as usize)?;
        read_column(&mut input, *ty, present, |row, value| put(column, row, value))?;
    }
    Ok(input.end()?)
}

/// Which rows have a value in a column.
#[derive(Debug, Clone, Copy)]
struct Present<'a> {
    bits: Option<&'a [u8]>,
    rows: usize,
    count: usize,
}

impl<'a> Present<'a> {
    fn read(input: &mut Input<'a>, nullable: bool, rows: usize) -> Result<Self, Unreadable> {
        if !nullable {
            return Ok(Self { bits: None, rows, count: rows });
        }
        let bits = input.take(rows.div_ceil(8))?;
        let mut present = Self { bits: Some(bits), rows, count: 0 };
        if (rows..bits.len() * 8).any(|row| present.has(row)) {
            return Err(Unreadable::Damaged("a bit is set behind the last row"));
        }
        present.count = bits.iter().map(|byte| byte.count_ones() as usize).sum();
        Ok(present)
    }

    fn has(&self, row: usize) -> bool {
        self.bits.is_none_or(|bits| bits[row / 8] >> (row % 8) & 1 == 1)
    }
}

fn read_column<E: From<Unreadable>>(
    input: &mut Input<'_>,
    ty: ColumnType,
    present: Present<'_>,
    mut put: impl FnMut(usize, ValueRef<'_>) -> Result<(), E>,
) -> Result<(), E> {
    use batchsql_core::exhaustive::Type;

    /// Values of a fixed width, each by an expression that may refuse its bytes.
    macro_rules! fixed {
        ($width:literal, $value:expr) => {{
            let bytes = input.take(present.count.checked_mul($width).ok_or(Unreadable::Damaged("it is too short"))?)?;
            let mut chunks = bytes.as_chunks::<$width>().0.iter();
            for row in 0..present.rows {
                if !present.has(row) {
                    put(row, ValueRef::Null)?;
                    continue;
                }
                let value: Option<ValueRef<'_>> = $value(*chunks.next().expect("present values were counted"));
                put(row, value.ok_or(Unreadable::Damaged("a value is outside of its range"))?)?;
            }
            Ok(())
        }};
    }

    /// Values with a length, each by an expression that may refuse its bytes.
    macro_rules! variable {
        ($value:expr) => {{
            let bytes = input.take(present.count.checked_mul(4).ok_or(Unreadable::Damaged("it is too short"))?)?;
            let mut lengths = bytes.as_chunks::<4>().0.iter();
            for row in 0..present.rows {
                if !present.has(row) {
                    put(row, ValueRef::Null)?;
                    continue;
                }
                let length = u32::from_le_bytes(*lengths.next().expect("present values were counted"));
                put(row, $value(input.take(length as usize)?)?)?;
            }
            Ok(())
        }};
    }

    match ty.exhaustive() {
        Type::Bool => fixed!(1, |[byte]: [u8; 1]| (byte <= 1).then_some(ValueRef::Bool(byte == 1))),
        Type::I16 => fixed!(2, |bytes| Some(ValueRef::I16(i16::from_le_bytes(bytes)))),
        Type::I32 => fixed!(4, |bytes| Some(ValueRef::I32(i32::from_le_bytes(bytes)))),
        Type::I64 => fixed!(8, |bytes| Some(ValueRef::I64(i64::from_le_bytes(bytes)))),
        Type::U64 => fixed!(8, |bytes| Some(ValueRef::U64(u64::from_le_bytes(bytes)))),
        Type::F32 => fixed!(4, |bytes| Some(ValueRef::F32(f32::from_le_bytes(bytes)))),
        Type::F64 => fixed!(8, |bytes| Some(ValueRef::F64(f64::from_le_bytes(bytes)))),
        Type::Uuid => fixed!(16, |bytes| Some(ValueRef::Uuid(bytes))),
        Type::Date => fixed!(4, |bytes| Date::from_days_since_epoch(i32::from_le_bytes(bytes)).map(ValueRef::Date)),
        Type::Time => {
            fixed!(8, |bytes| { Time::from_micros_since_midnight(i64::from_le_bytes(bytes)).map(ValueRef::Time) })
        }
        Type::Timestamp => fixed!(8, |bytes| {
            Timestamp::from_micros_since_epoch(i64::from_le_bytes(bytes)).map(ValueRef::Timestamp)
        }),
        Type::TimestampTz => fixed!(8, |bytes| {
            TimestampTz::from_micros_since_epoch(i64::from_le_bytes(bytes)).map(ValueRef::TimestampTz)
        }),
        Type::Text => variable!(|bytes| utf8(bytes).map(ValueRef::Text)),
        Type::Bytes => variable!(|bytes| Ok::<_, Unreadable>(ValueRef::Bytes(bytes))),
        Type::Decimal => variable!(|bytes| {
            let digits = utf8(bytes)?;
            let parsed = digits.parse::<Decimal>().map(|_| ValueRef::Decimal(digits));
            parsed.map_err(|_| Unreadable::Damaged("a decimal has other characters than digits"))
        }),
        Type::Json => variable!(|bytes| {
            let text = utf8(bytes)?;
            let parsed = text.parse::<Json>().map(|_| ValueRef::Json(text));
            parsed.map_err(|_| Unreadable::Damaged("a JSON document is not JSON"))
        }),
    }
}

#[cfg(test)]
mod tests {
    use batchsql_core::{Conflict, RowBuffer, Schema, ValueRules};

    use super::*;

    #[test]
    fn the_version_and_the_number_of_rows_are_compared() {
        let schema =
            Schema::builder("t").column("id", ColumnType::I64).on_conflict(Conflict::ignore(["id"])).build().unwrap();
        let mut rows = RowBuffer::new(&schema, ValueRules::default());
        rows.push(&schema.row().set("id", 7_i64).unwrap().finish().unwrap()).unwrap();
        let mut bytes = encode(rows.into_rows().rows());
        let columns = [(ColumnType::I64, false)];
        assert_eq!(decode(&columns, 1, &bytes), Ok(vec![vec![Value::I64(7)]]));
        assert_eq!(check(&columns, 1, &bytes), Ok(()));
        assert!(check(&columns, 2, &bytes).is_err());
        assert!(matches!(decode(&columns, 2, &bytes), Err(Unreadable::Damaged(_))));
        bytes.push(0);
        assert!(matches!(decode(&columns, 1, &bytes), Err(Unreadable::Damaged(_))));
        bytes[0] = 9;
        assert_eq!(decode(&columns, 1, &bytes), Err(Unreadable::NewerVersion(9)));
    }
}
