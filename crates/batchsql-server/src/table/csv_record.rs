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
                if let Some(problem) = target.left_out_field(name) {
                    return Err(format!("the header {problem}"));
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
        let given: Vec<&str> = columns.iter().flatten().map(|(column, ..)| column.as_str()).collect();
        // A file without a header has no records.
        let missing = if columns.is_empty() { Vec::new() } else { target.missing(&given) };
        if !missing.is_empty() {
            return Err(format!(
                "the header has no field for {}, without which every record of {} is refused; add it to the file, or to `defaults`",
                missing.iter().map(|column| format!("`{column}`")).collect::<Vec<_>>().join(", "),
                target.name
            ));
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
            ColumnType::F32 | ColumnType::F64 => match (text.parse::<f64>(), json_number(text)) {
                // Its digits, so that a number that the column does not hold is refused.
                (Ok(_), Some(number)) => match serde_json::from_str::<&RawValue>(&number) {
                    Ok(number) => number.serialize(serializer),
                    Err(_) => serializer.serialize_str(text),
                },
                // Infinite, or no number.
                (Ok(number), None) => serializer.serialize_f64(number),
                (Err(_), _) => serializer.serialize_str(text),
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

/// A text that Rust reads as a float, as JSON has it: without a plus, with digits before the point, and none that mean nothing.
/// `None`: it has no digits.
fn json_number(text: &str) -> Option<String> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (digits, exponent) = text.split_at(text.find(['e', 'E']).unwrap_or(text.len()));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if !digits.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole = Some(whole.trim_start_matches('0')).filter(|whole| !whole.is_empty()).unwrap_or("0");
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{sign}{whole}{point}{fraction}{exponent}"))
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
    fn a_number_is_not_rounded() {
        let mut target = orders(FieldRules::default());
        let table = batchsql::Schema::builder("t").column("region", ColumnType::Text);
        target.schema = table.nullable("x", ColumnType::F64).nullable("y", ColumnType::F32).build().unwrap();
        let header = Header::new(&target, &record(&["x", "y"])).unwrap();
        let row = |fields: [&str; 2]| target.row_of_csv(&header, &record(&fields));
        let json = |field: &str, text: &str| target.row_of_json(format!("{{\"{field}\":{text}}}").as_bytes());
        let exact = [
            ("0.5", 0.5),
            ("+7", 7.0),
            ("-0", 0.0),
            ("007.50", 7.5),
            (".25", 0.25),
            ("3.", 3.0),
            ("1e3", 1000.0),
            ("0e-999", 0.0),
            ("inf", f64::INFINITY),
            ("-inf", f64::NEG_INFINITY),
        ];
        for (text, number) in exact {
            let row = row([text, text]).unwrap_or_else(|reason| panic!("{text}: {reason}"));
            assert_eq!(row.get("x"), Some(ValueRef::F64(number)), "{text}");
            assert_eq!(row.get("y"), Some(ValueRef::F32(number as f32)), "{text}");
        }
        assert!(matches!(row(["NaN", ""]).unwrap().get("x"), Some(ValueRef::F64(x)) if x.is_nan()));
        for text in ["1e400", "-1e400", "1e-400", "9007199254740993"] {
            for reason in [row([text, ""]).unwrap_err(), json("x", text).unwrap_err()] {
                assert!(reason.contains("column \"x\" has a value that f64 cannot hold exactly"), "{text}: {reason}");
            }
        }
        for text in ["16777217", "3.14159265358979", "1e-50", "1e39", "1e-400"] {
            for reason in [row(["", text]).unwrap_err(), json("y", text).unwrap_err()] {
                assert!(reason.contains("column \"y\" has a value that f32 cannot hold exactly"), "{text}: {reason}");
            }
        }
        assert!(row(["1,5", ""]).unwrap_err().contains("column \"x\""));
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
        refused(
            &["region", "paid"],
            "the header has no field for `id`, without which every record of orders is refused",
        );
        let mut target = target.clone();
        target.left_out.push(("number".to_owned(), "it is generated".to_owned()));
        let reason = Header::new(&target, &record(&["id", "number"])).unwrap_err();
        assert!(reason.contains("rows cannot carry the column `number` of orders (it is generated)"), "{reason}");
        assert!(Header::new(&target, &csv::StringRecord::new()).is_ok(), "an empty file");
    }
}
