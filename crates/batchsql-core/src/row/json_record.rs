//! Owns the text of a JSON object as the fields of a row.
//! Must not know schemas.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::error::Category;
use serde_json::value::RawValue;

/// The fields of a JSON object in their order, for example of a line of NDJSON. A field may be there twice, which
/// [`Schema::row_from`](crate::Schema::row_from) refuses. Values stay as text, so that numbers keep all of their digits.
///
/// ```
/// use batchsql_core::{ColumnType, JsonRecord, Schema, ValueRef};
/// let orders = Schema::builder("orders").column("id", ColumnType::I64).build()?;
/// let row = orders.row_from(&JsonRecord::parse(br#"{"id": 7}"#)?)?;
/// assert_eq!(row.get("id"), Some(ValueRef::I64(7)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct JsonRecord<'a>(Vec<(String, &'a RawValue)>);

/// A text is not a JSON object. The message has no value of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct InvalidJsonRecord {
    text: String,
}

impl<'a> JsonRecord<'a> {
    /// Reads one object, with nothing but white space around it.
    ///
    /// # Errors
    /// The text is not UTF-8, not JSON, or not an object.
    pub fn parse(text: &'a [u8]) -> Result<Self, InvalidJsonRecord> {
        serde_json::from_slice(text).map_err(|error| {
            let text = match error.classify() {
                // Its message has the value.
                Category::Data => "it is not a JSON object".to_owned(),
                _ if std::str::from_utf8(text).is_err() => "it is not UTF-8".to_owned(),
                Category::Eof => "it is not JSON: the text ends too early".to_owned(),
                Category::Syntax | Category::Io => format!("it is not JSON: {}", without_line(&error)),
            };
            InvalidJsonRecord { text }
        })
    }

    /// The fields, in their order, with the text of their values.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(field, value)| (&**field, *value))
    }
}

/// A text of one line needs no number of its line.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text.split(" at line ").next().unwrap_or(&text);
    format!("{reason} at column {}", error.column())
}

impl<'de> Deserialize<'de> for JsonRecord<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = JsonRecord<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonRecord<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(JsonRecord(fields))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

impl Serialize for JsonRecord<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (field, value) in &self.0 {
            map.serialize_entry(field, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::schema::Schema;
    use crate::model::value::ColumnType;

    #[test]
    fn a_text_that_is_no_object_has_a_reason_without_its_values() {
        let check = |text: &[u8], part: &str| {
            let reason = JsonRecord::parse(text).unwrap_err().to_string();
            assert!(reason.contains(part) && !reason.contains("secret"), "{reason}");
        };
        check(br#""secret""#, "it is not a JSON object");
        check(br#"{"id": secret}"#, "it is not JSON: expected value at column 8");
        check(br#"{"id": 1} {"id": 2}"#, "it is not JSON: trailing characters at column 11");
        check(br#"{"id": 1"#, "ends too early");
        check(b"{\"id\": \"\xff\"}", "it is not UTF-8");
    }

    #[test]
    fn a_field_that_is_there_twice_is_refused_by_the_row() {
        let record = JsonRecord::parse(br#" {"id": 1, "id": 2} "#).unwrap();
        assert_eq!(record.fields().count(), 2);
        let schema = Schema::builder("t").column("id", ColumnType::I64).build().unwrap();
        assert!(schema.row_from(&record).unwrap_err().to_string().contains("twice"));
    }
}
