//! Owns JSON documents: their checked text.
//! Must not know other values.

use std::any::type_name;
use std::fmt;
use std::str::FromStr;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error, Serialize, SerializeStruct, Serializer};

/// What `serde_json` calls a part of a document that it keeps as text: `RawValue`.
pub(crate) const RAW: &str = "$serde_json::private::RawValue";

/// A JSON document as text, checked to be valid JSON.
///
/// With `serde` it is the document itself, not its text: objects are objects. `serde_json` reads and writes it as it is, so that
/// numbers keep all of their digits. With other formats, and where `serde` gathers fields first (`flatten`, untagged enums), numbers
/// have the range and precision of `serde_json::Value`, and the keys of objects are in its order.
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
        // Only `serde_json` writes this struct as the text that it has.
        if type_name::<S::Error>() == type_name::<serde_json::Error>() {
            let mut raw = serializer.serialize_struct(RAW, 1)?;
            raw.serialize_field(RAW, &*self.0)?;
            return raw.end();
        }
        let document: serde_json::Value = serde_json::from_str(&self.0).map_err(|_| {
            S::Error::custom("the JSON document has a number that is out of range, or is nested too deeply")
        })?;
        document.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(RAW, Document)
    }
}

/// Gets the text from `serde_json`, and the document itself from others.
struct Document;

impl<'de> Visitor<'de> for Document {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON document")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        serde_json::Value::deserialize(deserializer).map(|document| Json::from(&document))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let Some(first) = map.next_key::<String>()? else { return Ok(Json::of("{}")) };
        if first == RAW {
            // Any format may have an object with this key, and then its text may be anything.
            let json: Json = map.next_value::<String>()?.parse().map_err(de::Error::custom)?;
            return match map.next_key::<de::IgnoredAny>()? {
                None => Ok(json),
                Some(_) => {
                    Err(de::Error::custom("an object with a key of serde_json beside others is no JSON document"))
                }
            };
        }
        let mut object = serde_json::Map::from_iter([(first, map.next_value()?)]);
        while let Some((key, value)) = map.next_entry()? {
            object.insert(key, value);
        }
        Ok(serde_json::Value::Object(object).into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Json, A::Error> {
        self.visit_newtype_struct(SeqAccessDeserializer::new(seq))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Json, E> {
        Ok(serde_json::Value::from(value).into())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Json, E> {
        Ok(serde_json::Value::from(value).into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Json, E> {
        Ok(serde_json::Value::from(value).into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Json, E> {
        Ok(serde_json::Value::from(value).into())
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Json, E> {
        Ok(serde_json::Value::from(value).into())
    }

    fn visit_unit<E: de::Error>(self) -> Result<Json, E> {
        Ok(serde_json::Value::Null.into())
    }

    fn visit_none<E: de::Error>(self) -> Result<Json, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_newtype_struct(RAW, self)
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

    const EXACT: &str = r#"{"b": [1e400, 0.1000000000000000055, 12345678901234567890123], "a": "x"}"#;

    #[test]
    fn serde_json_keeps_the_text() {
        #[derive(serde::Deserialize, serde::Serialize)]
        struct Message {
            details: Option<Json>,
        }
        let json: Json = EXACT.parse().unwrap();
        assert_eq!(serde_json::to_string(&json).unwrap(), EXACT);
        assert_eq!(serde_json::from_str::<Json>(EXACT).unwrap().as_str(), EXACT);
        let message = format!("{{\"details\":{EXACT}}}");
        let read: Message = serde_json::from_str(&message).unwrap();
        assert_eq!(read.details.as_ref().map(Json::as_str), Some(EXACT));
        assert_eq!(serde_json::to_string(&read).unwrap(), message);
        assert!(serde_json::from_str::<Message>("{\"details\":null}").unwrap().details.is_none());
        assert!(serde_json::from_str::<Json>("{").is_err());
    }

    /// `serde` gathers the fields first, as other formats do.
    #[test]
    fn without_its_text_it_is_the_document() {
        #[derive(serde::Deserialize)]
        struct Inner {
            details: Json,
        }
        #[derive(serde::Deserialize)]
        struct Outer {
            #[serde(flatten)]
            inner: Inner,
        }
        let flat = |text: &str| serde_json::from_str::<Outer>(text).unwrap().inner.details;
        for document in [r#"{"a":[1,null,"x",true,1.5,-2]}"#, "[]", "{}", "7", "-7", "1.5", "true", r#""x""#, "null"] {
            assert_eq!(flat(&format!("{{\"details\":{document}}}")).as_str(), document);
            let value: serde_json::Value = serde_json::from_str(document).unwrap();
            assert_eq!(Json::deserialize(&value).unwrap().as_str(), document);
            assert_eq!(serde_json::from_value::<Json>(value.clone()).unwrap().as_str(), document);
            // Formats whose deserializers know no newtypes.
            if let serde_json::Value::Object(object) = &value {
                let entries = object.iter().map(|(key, value)| (key.as_str(), value.clone()));
                let map = serde::de::value::MapDeserializer::<_, serde_json::Error>::new(entries);
                assert_eq!(Json::deserialize(map).unwrap().as_str(), document);
            }
        }
        // An object of another format that looks like a part that `serde_json` keeps as text.
        let read = |entries: &[(&str, &str)]| {
            let entries = entries.iter().map(|(key, value)| (*key, serde_json::Value::from(*value)));
            Json::deserialize(serde::de::value::MapDeserializer::<_, serde_json::Error>::new(entries))
        };
        assert_eq!(read(&[(RAW, "[1]")]).unwrap().as_str(), "[1]");
        for text in ["", "no json", "1 2", "{"] {
            assert!(read(&[(RAW, text)]).is_err(), "{text:?} is no document");
            let outer = serde_json::json!({"details": {RAW: text}}).to_string();
            assert!(serde_json::from_str::<Outer>(&outer).is_err(), "{text:?}");
        }
        assert!(read(&[(RAW, "[1]"), ("b", "2")]).is_err(), "a part of the object would be lost");
        let text = format!("{{\"{RAW}\":\"no json\"}}");
        assert_eq!(serde_json::from_str::<Json>(&text).unwrap().as_str(), text, "serde_json gives the text");
        let value: serde_json::Value = serde_json::to_value("[1,2]".parse::<Json>().unwrap()).unwrap();
        assert_eq!(value, serde_json::json!([1, 2]));
        assert!(serde_json::to_value("1e999".parse::<Json>().unwrap()).is_err(), "a `Value` has no such number");
    }
}
