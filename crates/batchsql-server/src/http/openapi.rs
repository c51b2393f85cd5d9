//! Owns the description of the interface, for programs that make clients of it.
//! Must not know how requests are answered: a test compares the two.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use serde_json::Value;

use crate::http::answer;

const DOCUMENT: &str = include_str!("openapi.json");

/// The document with the version of the program.
pub(crate) fn document() -> Value {
    let mut document: Value = serde_json::from_str(DOCUMENT).expect("a test reads it");
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    document
}

pub(crate) async fn get() -> Response<Body> {
    answer::with_json(StatusCode::OK, &document())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_is_there() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let mut references = Vec::new();
        collect(&document, &mut references);
        assert!(references.len() > 5, "{references:?}");
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    fn collect(value: &Value, references: &mut Vec<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| match value {
                Value::String(reference) if name == "$ref" => references.push(reference.clone()),
                value => collect(value, references),
            }),
            Value::Array(values) => values.iter().for_each(|value| collect(value, references)),
            _ => {}
        }
    }
}
