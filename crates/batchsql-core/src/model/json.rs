//! Owns JSON documents: their checked text.
//! Must not know other values.

use std::str::FromStr;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Error, Serialize, Serializer};

/// A JSON document as text, checked to be valid JSON.
///
/// With `serde` it is the document itself, not its text: objects are objects. Numbers then have the range and precision
/// of `serde_json::Value`, and the keys of objects are in its order; [`as_str`](Self::as_str) changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Json(Box<str>);

impl Json {
    /// Serialises any `serde` value.
    ///
    /// # Errors
    /// When the value cannot be represented as JSON, for example a map with non-string keys.
    pub fn from_serialize<T: serde::Serialize + ?Sized>(value: &T) -> Result<Self, InvalidJson> {
        serde_json::to_string(value).map(|text| Self(text.into())).map_err(|_| InvalidJson)
    }

    /// From text that was checked before.
    pub(crate) fn of(text: &str) -> Self {
        Self(text.into())
    }

    /// The document as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is not one valid JSON document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid JSON document")]
pub struct InvalidJson;

impl FromStr for Json {
    type Err = InvalidJson;

    fn from_str(text: &str) -> Result<Self, InvalidJson> {
        serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|_| InvalidJson)?;
        Ok(Self(text.into()))
    }
}

impl From<serde_json::Value> for Json {
    fn from(value: serde_json::Value) -> Self {
        Self::from(&value)
    }
}

impl From<&serde_json::Value> for Json {
    fn from(value: &serde_json::Value) -> Self {
        Self(value.to_string().into())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let document: serde_json::Value = serde_json::from_str(&self.0).map_err(|_| {
            S::Error::custom("the JSON document has a number that is out of range, or is nested too deeply")
        })?;
        document.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde_json::Value::deserialize(deserializer).map(|document| Self::from(&document))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_checked() {
        assert!(r#"{"a":[1,null]}"#.parse::<Json>().is_ok());
        for bad in ["", "{", "{} {}", "nul"] {
            assert!(bad.parse::<Json>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn with_serde_it_is_the_document() {
        let json: Json = r#"{"a": [1, null, "x"]}"#.parse().unwrap();
        let text = serde_json::to_string(&json).unwrap();
        assert_eq!(text, r#"{"a":[1,null,"x"]}"#);
        assert_eq!(serde_json::from_str::<Json>(&text).unwrap().as_str(), text);
        let huge: Json = "1e999".parse().unwrap();
        assert!(serde_json::to_string(&huge).unwrap_err().to_string().contains("out of range"));
    }
}
