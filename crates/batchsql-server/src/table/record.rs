//! Owns how a JSON object becomes a row of a table.
//! Must not know where it comes from.

use batchsql::{ColumnType, DynRow, JsonRecord};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::table::document;
use crate::table::target::Target;

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
        let record = JsonRecord::parse(text).map_err(|error| error.to_string())?;
        for (field, value) in record.fields() {
            let column = self.schema.column_index(self.column(field)).map(|index| &self.schema.columns()[index]);
            if let Some(column) = column.filter(|column| column.column_type() == ColumnType::Json)
                && let Some(problem) = document::problem(value.get())
            {
                return Err(format!("column {:?}: not a JSON document that can be stored: {problem}", column.name()));
            }
        }
        let mapped = Mapped { record: &record, target: self };
        self.schema.row_from_with(&mapped, self.rules).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use batchsql::{ColumnType, Conflict, FieldRules, MissingFields, Schema, UnknownFields, ValueRef};

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

    #[test]
    fn refused_lines_have_a_reason_without_values() {
        let check = |rules: FieldRules, line: &[u8], part: &str| {
            let reason = orders(rules).row_of_json(line).unwrap_err();
            assert!(reason.contains(part), "{reason}");
            assert!(!reason.contains("secret"), "{reason}");
        };
        let rules = FieldRules::default();
        check(rules, br#"{"id": "secret"}"#, "column \"id\"");
        check(rules, br#"{"id": 1, "color": "secret"}"#, "column \"color\" is not declared");
        check(rules, br#"{"id": 1, "orderId": 1}"#, "twice");
        check(rules, br#"{"total": 1}"#, "column \"id\"");
        check(rules, br#""secret""#, "it is not a JSON object");
        check(rules, br#"{"id": 1} {"id": 2}"#, "it is not JSON: trailing characters at column 11");
        check(rules, br#"{"id": secret}"#, "it is not JSON: expected value at column 8");
        check(rules, br#"{"id": 1"#, "ends too early");
        check(rules, b"{\"id\": 1, \"region\": \"\xff\"}", "it is not UTF-8");
        check(rules.missing(MissingFields::Refuse), br#"{"id": 1}"#, "total");
        let ignoring = orders(rules.unknown(UnknownFields::Ignore));
        assert!(ignoring.row_of_json(br#"{"id": 1, "color": "red"}"#).is_ok());
    }
}
