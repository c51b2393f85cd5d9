//! Owns how the values that `serde` has no exact form for are serialised: bytes, UUIDs, and floats that are no number.
//! Must not know columns, rows or databases.

/// Bytes: `\\x` and hexadecimal digits in text formats.
pub(crate) mod bytes {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::{Serialize, Serializer};

    use crate::model::hex;

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            hex::of_bytes(bytes).serialize(serializer)
        } else {
            bytes.serialize(serializer)
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        if !deserializer.is_human_readable() {
            return Vec::deserialize(deserializer);
        }
        let text = String::deserialize(deserializer)?;
        hex::to_bytes(&text).ok_or_else(|| D::Error::custom("not bytes: expected \\x and pairs of hexadecimal digits"))
    }
}

/// UUIDs: with hyphens in text formats.
pub(crate) mod uuid {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::{Serialize, Serializer};

    use crate::model::hex;

    pub(crate) fn serialize<S: Serializer>(id: &[u8; 16], serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { hex::of_uuid(id).serialize(serializer) } else { id.serialize(serializer) }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 16], D::Error> {
        if !deserializer.is_human_readable() {
            return <[u8; 16]>::deserialize(deserializer);
        }
        let text = String::deserialize(deserializer)?;
        hex::to_uuid(&text).ok_or_else(|| D::Error::custom("not a UUID: expected 32 hexadecimal digits"))
    }
}

/// Floats: `NaN`, `inf` and `-inf` are text in text formats, because JSON has no such numbers.
pub(crate) mod float {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::{Serialize, Serializer};

    pub(crate) fn serialize<F, S>(float: &F, serializer: S) -> Result<S::Ok, S::Error>
    where
        F: Copy + Into<f64> + Serialize,
        S: Serializer,
    {
        let wide: f64 = (*float).into();
        if wide.is_finite() || !serializer.is_human_readable() {
            float.serialize(serializer)
        } else {
            serializer.collect_str(&wide)
        }
    }

    pub(crate) fn deserialize<'de, F, D>(deserializer: D) -> Result<F, D::Error>
    where
        F: Deserialize<'de> + std::str::FromStr,
        D: Deserializer<'de>,
    {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Form<F> {
            Number(F),
            Text(String),
        }

        if !deserializer.is_human_readable() {
            return F::deserialize(deserializer);
        }
        match Form::deserialize(deserializer)? {
            Form::Number(number) => Ok(number),
            Form::Text(text) if matches!(&*text, "NaN" | "inf" | "-inf") => {
                text.parse().map_err(|_| D::Error::custom("not a number"))
            }
            Form::Text(_) => Err(D::Error::custom("not a number: expected a number, NaN, inf or -inf")),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::model::value::{ColumnType, Value};

    #[test]
    fn every_value_is_read_back_as_it_was() {
        let check = |value: Value, text: &str| {
            assert_eq!(serde_json::to_string(&value).unwrap(), text);
            let read: Value = serde_json::from_str(text).unwrap();
            // `NaN` is not equal to itself.
            assert_eq!(format!("{read:?}"), format!("{value:?}"));
            if let Some(ty) = value.as_ref().column_type() {
                assert!(text.starts_with(&format!("{{\"{}\":", ty.name())), "{text} has the tag {ty}");
            }
        };
        check(Value::Null, r#""null""#);
        check(Value::Bool(true), r#"{"bool":true}"#);
        check(Value::I16(-5), r#"{"i16":-5}"#);
        check(Value::I32(-5), r#"{"i32":-5}"#);
        check(Value::I64(i64::MIN), r#"{"i64":-9223372036854775808}"#);
        check(Value::U64(u64::MAX), r#"{"u64":18446744073709551615}"#);
        check(Value::F32(0.1), r#"{"f32":0.1}"#);
        check(Value::F32(f32::NEG_INFINITY), r#"{"f32":"-inf"}"#);
        check(Value::F64(0.1), r#"{"f64":0.1}"#);
        check(Value::F64(f64::NAN), r#"{"f64":"NaN"}"#);
        check(Value::Decimal("1.50".parse().unwrap()), r#"{"decimal":"1.50"}"#);
        check("x".into(), r#"{"text":"x"}"#);
        check(Value::Bytes(vec![0, 255]), r#"{"bytes":"\\x00ff"}"#);
        check(Value::Uuid([7; 16]), r#"{"uuid":"07070707-0707-0707-0707-070707070707"}"#);
        check(Value::Json(r#"{"a":1}"#.parse().unwrap()), r#"{"json":{"a":1}}"#);
        check(Value::Date("2026-01-31".parse().unwrap()), r#"{"date":"2026-01-31"}"#);
        check(Value::Time("01:02:03".parse().unwrap()), r#"{"time":"01:02:03.000000"}"#);
        check(
            Value::Timestamp("2026-01-31 01:02:03".parse().unwrap()),
            r#"{"timestamp":"2026-01-31T01:02:03.000000"}"#,
        );
        check(
            Value::TimestampTz("2026-01-31 01:02:03Z".parse().unwrap()),
            r#"{"timestamptz":"2026-01-31T01:02:03.000000Z"}"#,
        );
        for bad in [r#"{"f64":"1.5"}"#, r#"{"i16":40000}"#, r#"{"uuid":"7"}"#, r#"{"bytes":"00"}"#, r#"{"i64":1.5}"#] {
            assert!(serde_json::from_str::<Value>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn column_types_are_their_names() {
        for ty in ColumnType::ALL {
            let text = serde_json::to_string(&ty).unwrap();
            assert_eq!(text, format!("{:?}", ty.name()));
            assert_eq!(serde_json::from_str::<ColumnType>(&text).unwrap(), ty);
        }
    }
}
