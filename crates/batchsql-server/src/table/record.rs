//! Owns how a JSON object becomes a row of a table.
//! Must not know where it comes from.

use batchsql::{ColumnType, DynRow, JsonRecord, RowError};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::coding::items::BYTE_ORDER_MARK;
use crate::table::document;
use crate::table::target::Target;
use crate::words;

/// A record with the names of columns, and with the defaults.
struct Mapped<'a> {
    record: &'a JsonRecord<'a>,
    target: &'a Target,
}

impl Serialize for Mapped<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { record, target } = self;
        let mut map = serializer.serialize_map(None)?;
        for (field, value) in record.fields() {
            map.serialize_entry(target.column(field), value)?;
        }
        for (column, value) in &target.defaults {
            if !record.fields().any(|(field, _)| target.column(field) == column) {
                map.serialize_entry(column, value)?;
            }
        }
        map.end()
    }
}

impl Target {
    /// Makes a row of the text of a JSON object.
    ///
    /// # Errors
    /// Why it is not a row of this table, without values.
    pub(crate) fn row_of_json(&self, text: &[u8]) -> Result<DynRow, String> {
        // A file may begin so.
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        let record = JsonRecord::parse(text).map_err(|error| error.to_string())?;
        for (field, value) in record.fields() {
            let column = self.schema.column_index(self.column(field)).map(|index| &self.schema.columns()[index]);
            if let Some(column) = column.filter(|column| column.column_type() == ColumnType::Json)
                && let Some(problem) = document::problem(value.get())
            {
                let place = self.place(&record, column.name());
                return Err(format!("{place}: not a JSON document that can be stored: {problem}"));
            }
        }
        let mapped = Mapped { record: &record, target: self };
        self.schema.row_from_with(&mapped, self.rules).map_err(|error| self.reason(&record, &error))
    }

    /// Why a record is no row, with the name of its field: who sends it may not know the columns.
    fn reason(&self, record: &JsonRecord<'_>, error: &RowError) -> String {
        let text = words::of_program(&error.to_string()).into_owned();
        let Some(column) = error.column() else { return text };
        if let Some(why) = self.why_left_out(column) {
            let (table, why) = (error.table(), words::of_program(why));
            return format!(
                "row of table {table:?}: field {column:?} cannot be written: rows cannot carry this column ({why}); leave the field out"
            );
        }
        let (start, named) = (format!("row of table {:?}: ", error.table()), format!("column {column:?} "));
        let rest = text.strip_prefix(&start).and_then(|rest| rest.strip_prefix(&named));
        let is_half = |value: &str| value.starts_with('"') && serde_json::from_str::<String>(value).is_err();
        let rest = match record.fields().find(|(field, _)| self.column(field) == column) {
            Some((_, value)) if is_half(value.get()) => {
                Some("has a text with half a surrogate pair (\\ud800 to \\udfff); send the character")
            }
            _ => rest,
        };
        rest.map_or_else(|| text.clone(), |rest| format!("{start}{} {rest}", self.place(record, column)))
    }

    /// A column, and the fields of the record that become it, where they have other names. Without such a field, those that would.
    fn place(&self, record: &JsonRecord<'_>, column: &str) -> String {
        if self.schema.column_index(column).is_none() {
            return format!("field {column:?}");
        }
        let given = record.fields().map(|(field, _)| field).filter(|field| self.column(field) == column);
        let mut fields: Vec<&str> = given.collect();
        if fields.is_empty() {
            fields = self.fields.iter().filter(|(_, of)| *of == column).map(|(field, _)| &**field).collect();
        }
        if fields.is_empty() || fields == [column] {
            return format!("column {column:?}");
        }
        let fields: Vec<String> = fields.iter().map(|field| format!("{field:?}")).collect();
        format!("field {} (column {column:?})", fields.join(", "))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use batchsql::{ColumnType, Conflict, FieldRules, MissingFields, Schema, UnknownFields, Value, ValueRef};

    use super::*;

    pub(crate) fn orders(rules: FieldRules) -> Target {
        let schema = Schema::builder("orders")
            .column("id", ColumnType::I64)
            .column("region", ColumnType::Text)
            .nullable("total", ColumnType::Decimal)
            .nullable("paid", ColumnType::Bool)
            .nullable("at", ColumnType::TimestampTz)
            .on_conflict(Conflict::update(["id"]))
            .build()
            .unwrap();
        Target {
            name: "orders".to_owned(),
            schema,
            fields: BTreeMap::from([("orderId".to_owned(), "id".to_owned())]),
            rules,
            has_no_key: false,
            ignores_unknown: false,
            defaults: vec![("region".to_owned(), "eu".into())],
            left_out: Vec::new(),
        }
    }

    #[test]
    fn fields_become_columns() {
        let target = orders(FieldRules::default());
        let row = target.row_of_json(br#"{"orderId": 7, "total": "19.90"}"#).unwrap();
        assert_eq!(row.get("id"), Some(ValueRef::I64(7)));
        assert_eq!(row.get("region"), Some(ValueRef::Text("eu")), "a default");
        assert_eq!(row.get("total"), Some(ValueRef::Decimal("19.90")));
        assert_eq!(row.get("paid"), None, "left out");
        let row = target.row_of_json(br#"{"id": 8, "region": "us"}"#).unwrap();
        assert_eq!(row.get("region"), Some(ValueRef::Text("us")));
    }

    /// A default is for rows without the field: who sends `null` has said what the value is.
    #[test]
    fn null_is_a_value_and_takes_no_default() {
        let target = Target { defaults: vec![("total".to_owned(), 5.into())], ..orders(FieldRules::default()) };
        let total = |line: &str| {
            let row = target.row_of_json(line.as_bytes()).unwrap();
            row.get("total").map(|total| total.to_value())
        };
        assert_eq!(total(r#"{"id": 1, "region": "eu", "total": null}"#), Some(Value::Null));
        assert_eq!(total(r#"{"id": 1, "region": "eu"}"#), Some(Value::Decimal("5".parse().unwrap())));
        // A column that allows no NULL refuses it, whatever its default is.
        let reason = orders(FieldRules::default()).row_of_json(br#"{"id": 1, "region": null}"#).unwrap_err();
        assert!(reason.contains("column \"region\" is NULL"), "{reason}");
    }

    #[test]
    fn refused_lines_have_a_reason_without_values() {
        let check = |rules: FieldRules, line: &[u8], part: &str| {
            let reason = orders(rules).row_of_json(line).unwrap_err();
            assert!(reason.contains(part), "{reason}");
            assert!(!reason.contains("secret"), "{reason}");
        };
        let rules = FieldRules::default();
        check(rules, br#"{"id": "secret"}"#, "column \"id\"");
        check(rules, br#"{"id": 1, "color": "secret"}"#, "field \"color\" is not declared");
        check(rules, br#"{"id": 1, "orderId": 1}"#, "twice");
        check(rules, br#"{"total": 1}"#, "column \"id\"");
        check(rules, br#""secret""#, "it is not a JSON object");
        check(rules, br#"{"id": 1} {"id": 2}"#, "it is not JSON: trailing characters at column 11");
        check(rules, br#"{"id": secret}"#, "it is not JSON: expected value at column 8");
        check(rules, br#"{"id": 1"#, "ends too early");
        check(rules, b"{\"id\": 1, \"region\": \"\xff\"}", "it is not UTF-8");
        check(rules.missing(MissingFields::Refuse), br#"{"id": 1}"#, "total");
        // The names of fields, where columns have others.
        check(rules, br#"{"orderId": "secret"}"#, "\"orders\": field \"orderId\" (column \"id\") expects");
        check(rules, br#"{"total": 1}"#, "\"orders\": field \"orderId\" (column \"id\") has no value");
        check(rules, br#"{"id": "secret"}"#, "\"orders\": column \"id\" expects");
        check(rules, br#"{"id": 1, "orderId": 1}"#, "field \"id\", \"orderId\" (column \"id\") is given twice");
        check(rules, br#"{"orderId": null}"#, "field \"orderId\" (column \"id\") is NULL");
        let ignoring = orders(rules.unknown(UnknownFields::Ignore));
        assert!(ignoring.row_of_json(br#"{"id": 1, "color": "red"}"#).is_ok());
    }
}
