//! Owns how the fields of a CSV record, all of them text, become a row of a table.
//! Must not know files.

use batchsql::{ColumnType, DynRow};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use crate::config::problem::closest;
use crate::table::document;
use crate::table::target::Target;
use crate::words;

/// The columns of a file, by its header.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    /// The column of each field; `None`: the field is not written.
    columns: Vec<Option<(String, ColumnType, bool)>>,
}

impl Header {
    /// # Errors
    /// A name is not a field of the table, or is there twice.
    pub(crate) fn new(target: &Target, names: &csv::StringRecord) -> Result<Self, String> {
        let mut columns: Vec<Option<(String, ColumnType, bool)>> = Vec::new();
        for name in names {
            // Spreadsheets write a mark at the start of a file.
            let name = name.trim_start_matches('\u{feff}').trim();
            let column = target.column(name);
            let Some(index) = target.schema.column_index(column) else {
                if target.ignores_unknown {
                    columns.push(None);
                    continue;
                }
                let known: Vec<&str> = target.known_fields().into_iter().collect();
                let what = format!("the header has the field `{name}`, which is not a column of {}", target.name);
                let ignore = "set `unknown_fields = \"ignore\"` (without a configuration `--ignore-unknown`)";
                return Err(match (delimiter(name, &known), closest(name, &known)) {
                    (Some(found), _) => {
                        let argument = if found == '\t' { "$'\\t'".to_owned() } else { format!("'{found}'") };
                        format!("{what}; if its fields are separated by {found:?}, load it with --delimiter {argument}")
                    }
                    (None, Some(meant)) => format!("{what}; did you mean `{meant}`? Or {ignore}"),
                    (None, None) => format!("{what}; map it with `fields`, or {ignore}"),
                });
            };
            if columns.iter().flatten().any(|(known, ..)| known == column) {
                return Err(format!("the header has the column `{column}` twice; rename one of the fields"));
            }
            let found = &target.schema.columns()[index];
            columns.push(Some((column.to_owned(), found.column_type(), found.is_nullable())));
        }
        Ok(Self { columns })
    }
}

/// What separates the fields of a header that was read as one field, if one of its parts is known.
fn delimiter(name: &str, known: &[&str]) -> Option<char> {
    let is_known = |part: &str| known.contains(&part.trim().trim_matches('"'));
    [';', '\t', '|'].into_iter().find(|&found| name.contains(found) && name.split(found).any(is_known))
}

impl Header {
    /// Of each field: the name of its column, its type, and whether it may be `NULL`; `None` if it is not written.
    pub(super) fn fields(&self) -> impl Iterator<Item = Option<(&str, ColumnType, bool)>> {
        self.columns.iter().map(|column| column.as_ref().map(|(name, ty, nullable)| (name.as_str(), *ty, *nullable)))
    }
}

struct Fields<'a> {
    header: &'a Header,
    record: &'a csv::StringRecord,
    target: &'a Target,
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (column, text) in self.header.columns.iter().zip(self.record) {
            let Some((name, ty, nullable)) = column else { continue };
            map.serialize_entry(name, &Field { text, ty: *ty, nullable: *nullable })?;
        }
        for (column, value) in &self.target.defaults {
            if !self.header.columns.iter().flatten().any(|(known, ..)| known == column) {
                map.serialize_entry(column, value)?;
            }
        }
        map.end()
    }
}

/// A text as the type of its column; a text that is not one is passed on, and the row is refused with its column.
struct Field<'a> {
    text: &'a str,
    ty: ColumnType,
    nullable: bool,
}

impl Serialize for Field<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { text, ty, nullable } = *self;
        if text.is_empty() && (nullable || !matches!(ty, ColumnType::Text | ColumnType::Bytes)) {
            return serializer.serialize_none();
        }
        match ty {
            ColumnType::Bool => match text {
                "true" | "t" | "1" | "TRUE" | "True" | "yes" | "y" => serializer.serialize_bool(true),
                "false" | "f" | "0" | "FALSE" | "False" | "no" | "n" => serializer.serialize_bool(false),
                _ => serializer.serialize_str(text),
            },
            ColumnType::I16 | ColumnType::I32 | ColumnType::I64 | ColumnType::U64 => {
                match (text.parse::<i64>(), text.parse::<u64>()) {
                    (Ok(number), _) => serializer.serialize_i64(number),
                    (_, Ok(number)) => serializer.serialize_u64(number),
                    _ => serializer.serialize_str(text),
                }
            }
            ColumnType::F32 => match text.parse::<f32>() {
                Ok(number) if is_in_range(text, number.into()) => serializer.serialize_f32(number),
                _ => serializer.serialize_str(text),
            },
            ColumnType::F64 => match text.parse::<f64>() {
                Ok(number) if is_in_range(text, number) => serializer.serialize_f64(number),
                _ => serializer.serialize_str(text),
            },
            // As it was given: numbers keep all of their digits.
            ColumnType::Json => match serde_json::from_str::<&RawValue>(text) {
                Ok(document) if document::problem(document.get()).is_none() => document.serialize(serializer),
                _ => serializer.serialize_str(text),
            },
            _ => serializer.serialize_str(text),
        }
    }
}

/// A number of digits that is too large becomes an infinite one, which nobody has written.
fn is_in_range(text: &str, number: f64) -> bool {
    number.is_finite() || !text.bytes().any(|byte| byte.is_ascii_digit())
}

impl Target {
    /// Makes a row of a record.
    ///
    /// # Errors
    /// Why it is not a row of this table, without values.
    pub(crate) fn row_of_csv(&self, header: &Header, record: &csv::StringRecord) -> Result<DynRow, String> {
        let (fields, columns) = (record.len(), header.columns.len());
        if fields != columns {
            return Err(format!("it has {fields} fields, but the header has {columns}"));
        }
        self.schema
            .row_from_with(&Fields { header, record, target: self }, self.rules)
            .map_err(|error| words::of_program(&error.to_string()).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use batchsql::{FieldRules, ValueRef};

    use super::*;
    use crate::table::record::tests::orders;

    fn record(fields: &[&str]) -> csv::StringRecord {
        fields.iter().copied().collect()
    }

    #[test]
    fn texts_become_values_of_their_columns() {
        let target = orders(FieldRules::default());
        let header = Header::new(&target, &record(&["\u{feff}orderId", "paid", "total", "at"])).unwrap();
        let row = |fields: &[&str]| target.row_of_csv(&header, &record(fields));
        let full = row(&["7", "true", "19.90", "2026-01-31T12:00:00Z"]).unwrap();
        assert_eq!(full.get("id"), Some(ValueRef::I64(7)));
        assert_eq!(full.get("paid"), Some(ValueRef::Bool(true)));
        assert_eq!(full.get("total"), Some(ValueRef::Decimal("19.90")));
        assert_eq!(full.get("region"), Some(ValueRef::Text("eu")), "a default");
        let empty = row(&["7", "", "", ""]).unwrap();
        assert!(empty.get("paid").is_some_and(|paid| paid.is_null()));
        let refused = |fields: &[&str], part: &str| {
            let reason = row(fields).unwrap_err();
            assert!(reason.contains(part), "{reason}");
        };
        refused(&["secret", "", "", ""], "column \"id\"");
        refused(&["", "", "", ""], "column \"id\"");
        refused(&["7", "maybe", "", ""], "column \"paid\"");
        refused(&["7"], "it has 1 fields, but the header has 4");
    }

    #[test]
    fn a_number_of_digits_is_never_infinite() {
        let check = |text: &str, is: bool| assert_eq!(is_in_range(text, text.parse().unwrap()), is, "{text}");
        check("1e400", false);
        check("-1e400", false);
        check("1e300", true);
        check("inf", true);
        check("NaN", true);
    }

    #[test]
    fn a_header_names_columns() {
        let target = orders(FieldRules::default());
        let refused = |names: &[&str], part: &str| {
            let reason = Header::new(&target, &record(names)).unwrap_err();
            assert!(reason.contains(part), "{reason}");
        };
        refused(&["id", "regin"], "did you mean `region`?");
        refused(&["id", "orderId"], "the column `id` twice");
        refused(&["id", "zzz"], "map it with `fields`");
        refused(&["id", "zzz"], "(without a configuration `--ignore-unknown`)");
        refused(&["id;region"], "if its fields are separated by ';', load it with --delimiter ';'");
        refused(&["x\tregion"], "separated by '\\t', load it with --delimiter $'\\t'");
        refused(&["x;y"], "map it with `fields`");
    }
}
