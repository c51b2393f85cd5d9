//! Owns the parameters of a statement: values from the columns of a batch straight into the packet, and their
//! size there in bytes.
//! Must not know SQL text or outcomes.
//!
//! Binary protocol: <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_stmt_execute.html>.

use batchsql_core::exhaustive::Values;
use batchsql_core::{ColumnView, Date, ErrorClass, Rows, SinkError, Time};
use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::mysql::{MySqlArguments, MySqlTypeInfo};
use sqlx::{Arguments, MySql, Type};

use crate::guard::Guard;
use crate::types::{Form, Storage, bits};

/// Bytes of the packet before its values and their types.
pub(crate) const PACKET_HEADER: usize = 16;

/// The parameters of one statement, row by row.
pub(crate) fn bind_rows(
    rows: Rows<'_>,
    columns: &[usize],
    storage: &[Storage],
    bytes: usize,
) -> Result<MySqlArguments, SinkError> {
    let mut arguments = MySqlArguments::default();
    arguments.reserve(rows.len() * columns.len(), bytes);
    bind_more(&mut arguments, rows, columns, storage)?;
    Ok(arguments)
}

/// Adds the parameters of these columns, row by row.
pub(crate) fn bind_more(
    arguments: &mut MySqlArguments,
    rows: Rows<'_>,
    columns: &[usize],
    storage: &[Storage],
) -> Result<(), SinkError> {
    let views: Vec<(ColumnView<'_>, &Storage)> =
        columns.iter().map(|index| (rows.column(*index), &storage[*index])).collect();
    for row in 0..rows.len() {
        for (view, storage) in &views {
            // Binding fails only for a value that cannot be encoded, and these values always can. The error text
            // is dropped because it could quote the value.
            for _ in 0..storage.form.placeholders() {
                bind(arguments, view, row, storage)
                    .map_err(|_| SinkError::new(ErrorClass::Internal, "a value could not be encoded"))?;
            }
        }
    }
    Ok(())
}

#[inline]
fn bind(
    arguments: &mut MySqlArguments,
    view: &ColumnView<'_>,
    row: usize,
    storage: &Storage,
) -> Result<(), BoxDynError> {
    let form = storage.form;
    if view.is_null(row) {
        return bind_null(arguments, view, form);
    }
    match view.values().exhaustive() {
        Values::Bool(v) => arguments.add(v[row]),
        Values::I16(v) => arguments.add(v[row]),
        Values::I32(v) => arguments.add(v[row]),
        Values::I64(v) => arguments.add(v[row]),
        Values::U64(v) => arguments.add(v[row]),
        Values::F32(v) => arguments.add(v[row]),
        Values::F64(v) => arguments.add(v[row]),
        Values::Text(v) if form == Form::Bits => arguments.add(bits(v.get(row))),
        Values::Text(v) | Values::Decimal(v) | Values::Json(v) => match &storage.guard {
            // The server compares a SET as a text.
            Guard::Members(members) => arguments.add(&*members.stored(v.get(row))),
            _ => arguments.add(v.get(row)),
        },
        Values::Bytes(v) => arguments.add(v.get(row)),
        Values::Uuid(v) if form == Form::UuidText => arguments.add(UuidText(&v[row])),
        Values::Uuid(v) => arguments.add(&v[row][..]),
        Values::Date(v) => arguments.add(CalendarText { date: Some(v[row]), time: None }),
        Values::Time(v) => arguments.add(CalendarText { date: None, time: Some(v[row]) }),
        Values::Timestamp(v) => {
            let (date, time) = v[row].parts();
            arguments.add(CalendarText { date: Some(date), time: Some(time) })
        }
        // The session is in UTC, or the column has no zone and holds UTC, so the offset is left out.
        Values::TimestampTz(v) => {
            let (date, time) = v[row].parts();
            arguments.add(CalendarText { date: Some(date), time: Some(time) })
        }
    }
}

/// `NULL` with the type of the other values, or the server might convert these to text.
fn bind_null(arguments: &mut MySqlArguments, view: &ColumnView<'_>, form: Form) -> Result<(), BoxDynError> {
    match view.values().exhaustive() {
        Values::Bool(_) => arguments.add(None::<bool>),
        Values::I16(_) | Values::I32(_) | Values::I64(_) => arguments.add(None::<i64>),
        Values::U64(_) => arguments.add(None::<u64>),
        Values::Text(_) if form == Form::Bits => arguments.add(None::<u64>),
        Values::F32(_) => arguments.add(None::<f32>),
        Values::F64(_) => arguments.add(None::<f64>),
        Values::Text(_)
        | Values::Decimal(_)
        | Values::Json(_)
        | Values::Bytes(_)
        | Values::Uuid(_)
        | Values::Date(_)
        | Values::Time(_)
        | Values::Timestamp(_)
        | Values::TimestampTz(_) => arguments.add(None::<&str>),
    }
}

/// Size of a row in the packet, in bytes: its values, their types and their NULL bits.
pub(crate) fn row_bytes(views: &[(ColumnView<'_>, Form)], row: usize) -> usize {
    let mut placeholders = 0;
    let value = |(view, form): &(ColumnView<'_>, Form)| {
        placeholders += form.placeholders();
        form.placeholders() * value_bytes(view, row, *form)
    };
    let values: usize = views.iter().map(value).sum();
    values + 2 * placeholders + placeholders.div_ceil(8)
}

/// The columns of some rows, ready for [`row_bytes`].
pub(crate) fn views<'a>(rows: Rows<'a>, storage: &[Storage]) -> Vec<(ColumnView<'a>, Form)> {
    storage.iter().enumerate().map(|(index, storage)| (rows.column(index), storage.form)).collect()
}

fn value_bytes(view: &ColumnView<'_>, row: usize, form: Form) -> usize {
    if view.is_null(row) {
        return 0;
    }
    match view.values().exhaustive() {
        Values::Bool(_) => 1,
        Values::I16(_) => 2,
        Values::I32(_) | Values::F32(_) => 4,
        Values::I64(_) | Values::U64(_) | Values::F64(_) => 8,
        Values::Text(_) if form == Form::Bits => 8,
        Values::Text(v) | Values::Decimal(v) | Values::Json(v) => with_length(v.get(row).len()),
        Values::Bytes(v) => with_length(v.get(row).len()),
        Values::Uuid(_) if form == Form::UuidText => 37,
        Values::Uuid(_) => 17,
        Values::Date(_) => 11,
        Values::Time(_) => 16,
        Values::Timestamp(_) | Values::TimestampTz(_) => 27,
    }
}

/// Size of a value with its length prefix.
fn with_length(len: usize) -> usize {
    len + match len {
        0..=250 => 1,
        251..=0xffff => 3,
        0x1_0000..=0xff_ffff => 4,
        _ => 9,
    }
}

/// A calendar value as ISO text. It is sent as text because `sqlx` exports the type numbers of DATE and DATETIME
/// only together with a date library.
struct CalendarText {
    date: Option<Date>,
    time: Option<Time>,
}

/// A UUID as text of 36 characters.
struct UuidText<'a>(&'a [u8; 16]);

impl Type<MySql> for CalendarText {
    fn type_info() -> MySqlTypeInfo {
        <str as Type<MySql>>::type_info()
    }
}

impl Type<MySql> for UuidText<'_> {
    fn type_info() -> MySqlTypeInfo {
        <str as Type<MySql>>::type_info()
    }
}

impl Encode<'_, MySql> for CalendarText {
    fn encode_by_ref(&self, packet: &mut Vec<u8>) -> Result<IsNull, BoxDynError> {
        with_len_before(packet, |packet| push_calendar(packet, self.date, self.time));
        Ok(IsNull::No)
    }
}

impl Encode<'_, MySql> for UuidText<'_> {
    fn encode_by_ref(&self, packet: &mut Vec<u8>) -> Result<IsNull, BoxDynError> {
        with_len_before(packet, |packet| push_uuid(packet, self.0));
        Ok(IsNull::No)
    }
}

/// Writes a short text with a length prefix of one byte.
fn with_len_before(packet: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = packet.len();
    packet.push(0);
    write(packet);
    packet[start] = u8::try_from(packet.len() - start - 1).expect("a calendar value and a UUID are short");
}

/// `2026-01-31 23:59:59.000001`, or only the date or the time.
pub(crate) fn push_calendar(text: &mut Vec<u8>, date: Option<Date>, time: Option<Time>) {
    if let Some(date) = date {
        let (year, month, day) = date.ymd();
        let year = year.unsigned_abs();
        push_two(text, year / 100);
        push_two(text, year % 100);
        text.push(b'-');
        push_two(text, month);
        text.push(b'-');
        push_two(text, day);
    }
    if let Some(time) = time {
        if date.is_some() {
            text.push(b' ');
        }
        let micros = time.micros_since_midnight().unsigned_abs();
        let (seconds, micros) = ((micros / 1_000_000) as u32, (micros % 1_000_000) as u32);
        push_two(text, seconds / 3600);
        text.push(b':');
        push_two(text, seconds / 60 % 60);
        text.push(b':');
        push_two(text, seconds % 60);
        text.push(b'.');
        push_two(text, micros / 10_000);
        push_two(text, micros / 100 % 100);
        push_two(text, micros % 100);
    }
}

pub(crate) fn push_uuid(text: &mut Vec<u8>, uuid: &[u8; 16]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for (index, byte) in uuid.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push(b'-');
        }
        text.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
}

/// Writes a number below 100 as two digits.
fn push_two(text: &mut Vec<u8>, number: u32) {
    text.extend_from_slice(&[b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use batchsql_core::{Timestamp, TimestampTz};

    #[test]
    fn calendar_text_is_what_display_writes() {
        let check = |date: Option<Date>, time: Option<Time>, expected: String| {
            let mut text = Vec::new();
            push_calendar(&mut text, date, time);
            assert_eq!(String::from_utf8(text).unwrap(), expected);
        };
        for date in [Date::MIN, Date::MAX, Date::from_ymd(2024, 2, 29).unwrap()] {
            check(Some(date), None, date.to_string());
        }
        for time in [Time::MIN, Time::MAX, Time::from_hms_micro(1, 2, 3, 40_506).unwrap()] {
            check(None, Some(time), time.to_string());
        }
        for micros in [Timestamp::MIN.micros_since_epoch(), -1, 0, 1_700_000_000_123_456] {
            let at = Timestamp::from_micros_since_epoch(micros).unwrap();
            let (date, time) = at.parts();
            check(Some(date), Some(time), at.to_string());
            let zoned = TimestampTz::from_micros_since_epoch(micros).unwrap();
            assert_eq!(zoned.parts(), at.parts());
        }
    }

    #[test]
    fn uuid_text_is_the_usual_one() {
        let mut text = Vec::new();
        push_uuid(&mut text, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 254, 255]);
        assert_eq!(String::from_utf8(text).unwrap(), "00010203-0405-0607-0809-0a0b0c0dfeff");
    }

    #[test]
    fn lengths_take_as_many_bytes_as_the_protocol_says() {
        let lengths = [0, 250, 251, 0xffff, 0x1_0000, 0xff_ffff, 0x100_0000];
        assert_eq!(lengths.map(|len| with_length(len) - len), [1, 1, 3, 3, 4, 4, 9]);
    }
}
