//! Owns the block: some rows of one schema as columns, as bytes and back.
//! Must not know tables or rules.

use batchsql_core::exhaustive::Values;
use batchsql_core::{
    BytesValues, ColumnType, ColumnView, Date, Decimal, Json, Rows, TextValues, Time, Timestamp, TimestampTz, Value,
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
    let mut input = Input::new(bytes);
    match input.u8()? {
        0 => return Err(Unreadable::Damaged("it has no version")),
        VERSION => {}
        newer => return Err(Unreadable::NewerVersion(newer)),
    }
    if input.u32()? != count {
        return Err(Unreadable::Damaged("the number of rows is another one than in its header"));
    }
    if columns.is_empty() || count as usize > MAX_ROWS {
        return Err(Unreadable::Damaged("it has more rows than a block may have"));
    }
    let decoded: Vec<Vec<Value>> = columns
        .iter()
        .map(|(ty, nullable)| read_column(&mut input, *ty, *nullable, count as usize))
        .collect::<Result<_, _>>()?;
    input.end()?;
    let mut decoded: Vec<_> = decoded.into_iter().map(Vec::into_iter).collect();
    let row = |_| decoded.iter_mut().map(|column| column.next().expect("a column has a value for each row")).collect();
    Ok((0..count).map(row).collect())
}

fn read_column(input: &mut Input<'_>, ty: ColumnType, nullable: bool, rows: usize) -> Result<Vec<Value>, Unreadable> {
    let validity = if nullable { Some(input.take(rows.div_ceil(8))?) } else { None };
    let is_present = |row: usize| validity.is_none_or(|bits| bits[row / 8] >> (row % 8) & 1 == 1);
    if let Some(bits) = validity
        && (rows..bits.len() * 8).any(is_present)
    {
        return Err(Unreadable::Damaged("a bit is set behind the last row"));
    }
    let present = (0..rows).filter(|row| is_present(*row)).count();
    let mut values = read_values(input, ty, present)?.into_iter();
    let value = |row| if is_present(row) { values.next().expect("present values were counted") } else { Value::Null };
    Ok((0..rows).map(value).collect())
}

fn read_values(input: &mut Input<'_>, ty: ColumnType, count: usize) -> Result<Vec<Value>, Unreadable> {
    use batchsql_core::exhaustive::Type;

    /// Values of a fixed width, each by a function that may refuse its bytes.
    fn fixed<const N: usize>(
        input: &mut Input<'_>,
        count: usize,
        value: impl Fn([u8; N]) -> Option<Value>,
    ) -> Result<Vec<Value>, Unreadable> {
        let all = input.take(count.checked_mul(N).ok_or(Unreadable::Damaged("it is too short"))?)?;
        let (chunks, _) = all.as_chunks::<N>();
        let values = chunks.iter().map(|chunk| value(*chunk));
        values.collect::<Option<_>>().ok_or(Unreadable::Damaged("a value is outside of its range"))
    }

    fn variable(
        input: &mut Input<'_>,
        count: usize,
        value: impl Fn(&[u8]) -> Result<Value, Unreadable>,
    ) -> Result<Vec<Value>, Unreadable> {
        let lengths = input.take(count.checked_mul(4).ok_or(Unreadable::Damaged("it is too short"))?)?;
        let (lengths, _) = lengths.as_chunks::<4>();
        lengths.iter().map(|length| value(input.take(u32::from_le_bytes(*length) as usize)?)).collect()
    }

    match ty.exhaustive() {
        Type::Bool => fixed(input, count, |[byte]| (byte <= 1).then_some(Value::Bool(byte == 1))),
        Type::I16 => fixed(input, count, |bytes| Some(Value::I16(i16::from_le_bytes(bytes)))),
        Type::I32 => fixed(input, count, |bytes| Some(Value::I32(i32::from_le_bytes(bytes)))),
        Type::I64 => fixed(input, count, |bytes| Some(Value::I64(i64::from_le_bytes(bytes)))),
        Type::U64 => fixed(input, count, |bytes| Some(Value::U64(u64::from_le_bytes(bytes)))),
        Type::F32 => fixed(input, count, |bytes| Some(Value::F32(f32::from_le_bytes(bytes)))),
        Type::F64 => fixed(input, count, |bytes| Some(Value::F64(f64::from_le_bytes(bytes)))),
        Type::Uuid => fixed(input, count, |bytes| Some(Value::Uuid(bytes))),
        Type::Date => {
            fixed(input, count, |bytes| Date::from_days_since_epoch(i32::from_le_bytes(bytes)).map(Value::Date))
        }
        Type::Time => {
            fixed(input, count, |bytes| Time::from_micros_since_midnight(i64::from_le_bytes(bytes)).map(Value::Time))
        }
        Type::Timestamp => fixed(input, count, |bytes| {
            Timestamp::from_micros_since_epoch(i64::from_le_bytes(bytes)).map(Value::Timestamp)
        }),
        Type::TimestampTz => fixed(input, count, |bytes| {
            TimestampTz::from_micros_since_epoch(i64::from_le_bytes(bytes)).map(Value::TimestampTz)
        }),
        Type::Text => variable(input, count, |bytes| utf8(bytes).map(|text| Value::Text(text.to_owned()))),
        Type::Bytes => variable(input, count, |bytes| Ok(Value::Bytes(bytes.to_vec()))),
        Type::Decimal => variable(input, count, |bytes| {
            let number = utf8(bytes)?.parse::<Decimal>();
            number.map(Value::Decimal).map_err(|_| Unreadable::Damaged("a decimal has other characters than digits"))
        }),
        Type::Json => variable(input, count, |bytes| {
            let document = utf8(bytes)?.parse::<Json>();
            document.map(Value::Json).map_err(|_| Unreadable::Damaged("a JSON document is not JSON"))
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
        assert!(matches!(decode(&columns, 2, &bytes), Err(Unreadable::Damaged(_))));
        bytes.push(0);
        assert!(matches!(decode(&columns, 1, &bytes), Err(Unreadable::Damaged(_))));
        bytes[0] = 9;
        assert_eq!(decode(&columns, 1, &bytes), Err(Unreadable::NewerVersion(9)));
    }
}
