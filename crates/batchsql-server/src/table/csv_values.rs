//! Owns the short way from CSV fields to values, for records that are like another one of their file.
//! Must not know files, or why a record is refused: what is not obvious goes the long way.

use batchsql::{
    ColumnType, Date, Decimal, DynRow, KeyHasher, Row, RowError, RowWriter, Schema, Time, Timestamp, TimestampTz,
    Value, ValueRef,
};

use crate::table::csv_record::Header;

/// So many digits are held by an `f64`.
const SHORT: usize = 15;

/// A record of the file as a row: the others have the same columns, and the same values where the file has no field.
pub(crate) struct Like {
    schema: Schema,
    /// The values of columns without a field, which are those of every row; the others are replaced.
    values: Vec<Value>,
    /// Of each field: its column in the row, with its type and whether it may be `NULL`.
    fields: Vec<Option<(usize, ColumnType, bool)>>,
}

impl Like {
    pub(crate) fn new(header: &Header, row: &DynRow) -> Self {
        let of_field = |field: Option<(&str, ColumnType, bool)>| {
            let (name, ty, is_nullable) = field?;
            Some((row.schema().column_index(name)?, ty, is_nullable))
        };
        let fields: Vec<_> = header.fields().map(of_field).collect();
        let columns = row.schema().columns().iter();
        let values = columns.map(|column| row.get(column.name()).map_or(Value::Null, |value| value.to_value()));
        Self { schema: row.schema().clone(), values: values.collect(), fields }
    }

    /// The values of a record, if all of them are obvious.
    pub(crate) fn row<'a>(&'a self, record: impl ExactSizeIterator<Item = &'a [u8]>) -> Option<CsvRow<'a>> {
        if record.len() != self.fields.len() {
            return None;
        }
        let mut values: Vec<ValueRef<'a>> = self.values.iter().map(Value::as_ref).collect();
        for (field, bytes) in self.fields.iter().zip(record) {
            let text = std::str::from_utf8(bytes).ok()?;
            if let Some((column, ty, is_nullable)) = *field {
                values[column] = value(text, ty, is_nullable)?;
            }
        }
        Some(CsvRow { schema: &self.schema, values })
    }
}

/// As `csv_record` reads it. `None`: that has to look.
fn value(text: &str, ty: ColumnType, is_nullable: bool) -> Option<ValueRef<'_>> {
    if text.is_empty() {
        return match ty {
            _ if is_nullable => Some(ValueRef::Null),
            ColumnType::Text => Some(ValueRef::Text(text)),
            _ => None,
        };
    }
    // Whether it is rounded has to be looked at if it has more digits, or an exponent.
    let is_short = text.len() <= SHORT && !text.contains(['e', 'E']);
    let float = |number: f64| (number.is_finite() && is_short).then_some(number);
    match ty {
        ColumnType::I16 => text.parse().ok().map(ValueRef::I16),
        ColumnType::I32 => text.parse().ok().map(ValueRef::I32),
        ColumnType::I64 => text.parse().ok().map(ValueRef::I64),
        ColumnType::U64 => text.parse().ok().map(ValueRef::U64),
        ColumnType::F64 => text.parse().ok().and_then(float).map(ValueRef::F64),
        ColumnType::Bool => match text {
            "true" | "t" | "1" => Some(ValueRef::Bool(true)),
            "false" | "f" | "0" => Some(ValueRef::Bool(false)),
            _ => None,
        },
        ColumnType::Text => Some(ValueRef::Text(text)),
        ColumnType::Decimal => text.parse::<Decimal>().is_ok().then_some(ValueRef::Decimal(text)),
        ColumnType::Date => text.parse::<Date>().ok().map(ValueRef::Date),
        ColumnType::Time => text.parse::<Time>().ok().map(ValueRef::Time),
        ColumnType::Timestamp => text.parse::<Timestamp>().ok().map(ValueRef::Timestamp),
        ColumnType::TimestampTz => text.parse::<TimestampTz>().ok().map(ValueRef::TimestampTz),
        _ => None,
    }
}

/// A row of borrowed values.
pub(crate) struct CsvRow<'a> {
    schema: &'a Schema,
    values: Vec<ValueRef<'a>>,
}

impl Row for CsvRow<'_> {
    fn schema(&self) -> &Schema {
        self.schema
    }

    fn variable_len(&self) -> usize {
        self.values.iter().map(ValueRef::variable_len).sum()
    }

    fn key_hash(&self) -> u64 {
        let mut hasher = KeyHasher::default();
        self.schema.key_columns().iter().for_each(|column| hasher.add(self.values[*column]));
        hasher.finish()
    }

    fn write(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        self.values.iter().try_for_each(|value| writer.value(*value))
    }
}

#[cfg(test)]
mod tests {
    use batchsql::{FieldRules, MissingFields};
    use csv::StringRecord;

    use super::*;
    use crate::table::record::tests::orders;

    /// The short way gives what the long way gives, or leaves it to the long way.
    #[test]
    fn both_ways_give_the_same_values() {
        let texts = [
            "",
            "7",
            "-7",
            "007",
            "+7",
            " 7",
            "7.50",
            "1e3",
            "NaN",
            "inf",
            "1e400",
            "1e-400",
            "1.5e-400",
            "9007199254740993",
            "9007199254740992",
            "0.1234567890123456789",
            "-0.0",
            "true",
            "T",
            "yes",
            "x",
            "\u{e9}",
        ];
        let times = ["2026-01-31T12:00:00Z", "2026-01-31 12:00:00+02:00", "2026-01-31", "12:00"];
        let mut short = 0;
        for missing in [MissingFields::LeaveOut, MissingFields::Null] {
            let target = orders(FieldRules::default().missing(missing));
            let names: StringRecord = ["orderId", "note", "paid", "total", "at", "x"].into_iter().collect();
            let mut ignoring = target.clone();
            let table = Schema::builder("orders").column("id", ColumnType::I64).column("region", ColumnType::Text);
            let table = table.nullable("total", ColumnType::Decimal).nullable("paid", ColumnType::Bool);
            let table = table.nullable("at", ColumnType::TimestampTz).nullable("x", ColumnType::F64);
            ignoring.schema = table.build().unwrap();
            ignoring.ignores_unknown = true;
            let header = Header::new(&ignoring, &names).unwrap();
            let first: StringRecord = ["1", "", "true", "1", "2026-01-31T12:00:00Z", "1"].into_iter().collect();
            let like = Like::new(&header, &ignoring.row_of_csv(&header, &first).unwrap());
            for text in texts.iter().chain(&times) {
                for place in 0..6 {
                    let mut fields = ["5", "note", "", "2", "", "0.5"];
                    fields[place] = text;
                    let record: StringRecord = fields.into_iter().collect();
                    let long = ignoring.row_of_csv(&header, &record);
                    let Some(row) = like.row(fields.iter().map(|field| field.as_bytes())) else { continue };
                    short += 1;
                    let long = long.unwrap_or_else(|reason| panic!("{fields:?}: {reason}"));
                    assert_eq!(long.schema(), row.schema(), "{fields:?}");
                    let values: Vec<_> = long.schema().columns().iter().map(|c| long.get(c.name()).unwrap()).collect();
                    assert_eq!(values, row.values, "{fields:?}");
                }
            }
        }
        assert!(short > 60, "most of them are obvious, and {short} were");
        let target = orders(FieldRules::default());
        let header = Header::new(&target, &["id"].into_iter().collect()).unwrap();
        // It would be rounded.
        for text in ["0.1234567890123456789", "9007199254740993.5", "1.5e-400"] {
            assert!(value(text, ColumnType::F64, true).is_none(), "{text}");
        }
        assert_eq!(value("0.1234567890123", ColumnType::F64, true), Some(ValueRef::F64(0.123_456_789_012_3)));
        let like = Like::new(&header, &target.row_of_csv(&header, &["1"].into_iter().collect()).unwrap());
        assert!(like.row([&b"1"[..], b"2"].into_iter()).is_none(), "it has too many fields");
        assert!(like.row([&b"\xff"[..]].into_iter()).is_none(), "it is not UTF-8");
    }
}
