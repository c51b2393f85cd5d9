//! Owns the binary form of a JSON list for an array column: for COPY, which accepts no text in its binary form.
//! Must not know columns or statements.
//!
//! Only elements that are written as their type writes them are encoded here: `[1,null]`, `["2026-01-31"]`. A batch with
//! another spelling (`[1e3]` for integers), or with an element that the column would change or refuse, is sent as JSON,
//! and the server decides. So both ways have the same result.

use std::borrow::Cow;

use batchsql_core::exhaustive::{bytes_of_text, uuid_of_text};
use batchsql_core::{ColumnType, Time, ValueRef};
use batchsql_sql::float_of;

use crate::calendar::is_read_alike;
use crate::encode::write_field;
use crate::parsed::Parsed;
use crate::real_type::RealType;
use crate::value_fit::check;
use crate::value_limit::{ValueLimit, limit};
use crate::wire::Wire;

/// The most elements of an array (`MaxArraySize` of the server).
const MAX_ELEMENTS: usize = ((1 << 30) - 1) / 8;

/// An array type whose elements can be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct List {
    /// The object id of the type of the elements. The server compares it with that of the column.
    oid: u32,
    element: Element,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    /// It has a binary form of its own.
    Scalar { wire: Wire, limit: ValueLimit },
    /// It is text whose plain spelling is parsed.
    Spelled(Parsed),
}

impl List {
    /// The array type of a column. `None` if its elements have no binary form here, for example those of a domain, of which
    /// the server reports no object id.
    pub(crate) fn of(real: &RealType) -> Option<Self> {
        let oid = real.element_oid.filter(|_| real.receive == "array_recv")?;
        let Some(spelled) = &real.spelled else {
            // Their binary form is text.
            let is_text = real.element == "enum_out" || real.element.ends_with("citextout");
            let element = Element::Scalar { wire: Wire::Text, limit: ValueLimit::None };
            return is_text.then_some(Self { oid, element });
        };
        let base = &*spelled.base;
        let element = match scalar(base) {
            Some((ty, wire)) => {
                let (name, receive) = (base.to_owned(), format!("{base}recv"));
                let of_element = RealType { name, receive, spelled: None, ..real.clone() };
                Element::Scalar { wire, limit: limit(ty, &of_element, wire) }
            }
            None => Element::Spelled(Parsed::of(base, real.modifier >= 0)?),
        };
        Some(Self { oid, element })
    }

    /// Writes a list as an array of one dimension. Returns `None`, perhaps after a partial write, if it is no list, or one of
    /// its elements cannot be encoded.
    pub(crate) fn write(self, json: &str, out: &mut Vec<u8>) -> Option<()> {
        let start = out.len();
        let (mut count, mut has_nulls) = (0, false);
        let mut memory = String::new();
        // Number of dimensions, NULL flag, element type; then the length and the first index of the one dimension.
        out.extend_from_slice(&[0; 20]);
        for element in Elements::of(json)? {
            count += 1;
            let before = out.len();
            self.element.write(element, out, &mut memory)?;
            has_nulls |= out[before..] == (-1_i32).to_be_bytes();
        }
        if count > MAX_ELEMENTS {
            return None;
        }
        let dimensions = i32::from(count > 0);
        let count = i32::try_from(count).ok()?;
        for (index, word) in [dimensions, has_nulls.into(), self.oid as i32, count, 1].into_iter().enumerate() {
            out[start + 4 * index..start + 4 * index + 4].copy_from_slice(&word.to_be_bytes());
        }
        if count == 0 {
            out.truncate(start + 12);
        }
        Some(())
    }
}

/// The column type and the binary form of a built-in type.
fn scalar(name: &str) -> Option<(ColumnType, Wire)> {
    Some(match name {
        "bool" => (ColumnType::Bool, Wire::Bool),
        "int2" => (ColumnType::I64, Wire::Int2),
        "int4" => (ColumnType::I64, Wire::Int4),
        "int8" => (ColumnType::I64, Wire::Int8),
        "float4" => (ColumnType::F32, Wire::Float4),
        "float8" => (ColumnType::F64, Wire::Float8),
        "numeric" => (ColumnType::Decimal, Wire::Numeric),
        "text" | "varchar" | "bpchar" => (ColumnType::Text, Wire::Text),
        "bytea" => (ColumnType::Bytes, Wire::Bytea),
        "uuid" => (ColumnType::Uuid, Wire::Uuid),
        "json" => (ColumnType::Json, Wire::Json),
        "jsonb" => (ColumnType::Json, Wire::Jsonb),
        "date" => (ColumnType::Date, Wire::Date),
        "time" => (ColumnType::Time, Wire::Time),
        "timestamp" => (ColumnType::Timestamp, Wire::Timestamp),
        "timestamptz" => (ColumnType::TimestampTz, Wire::TimestampTz),
        _ => return None,
    })
}

impl Element {
    /// Writes an element with its length; -1 for `NULL`. `memory` is a reused buffer.
    fn write(self, json: &str, out: &mut Vec<u8>, memory: &mut String) -> Option<()> {
        match self {
            // The elements of an array of JSON are JSON: a null is not NULL.
            Self::Scalar { wire: wire @ (Wire::Json | Wire::Jsonb), limit } => {
                put(ValueRef::Json(json), wire, limit, out, memory)
            }
            Self::Scalar { wire, limit } if json == "null" => put(ValueRef::Null, wire, limit, out, memory),
            Self::Scalar { wire, limit } => write_scalar(json, wire, limit, out, memory),
            Self::Spelled(_) if json == "null" => {
                out.extend_from_slice(&(-1_i32).to_be_bytes());
                Some(())
            }
            Self::Spelled(parsed) => {
                let start = out.len();
                out.extend_from_slice(&[0; 4]);
                parsed.write(&quoted(json)?, out)?;
                let len = i32::try_from(out.len() - start - 4).ok()?;
                out[start..start + 4].copy_from_slice(&len.to_be_bytes());
                Some(())
            }
        }
    }
}

/// Writes a value that its column stores unchanged.
fn put(value: ValueRef<'_>, wire: Wire, limit: ValueLimit, out: &mut Vec<u8>, memory: &mut String) -> Option<()> {
    check(value, limit, wire, memory).ok()?;
    write_field(out, value, wire).ok()
}

fn write_scalar(json: &str, wire: Wire, limit: ValueLimit, out: &mut Vec<u8>, memory: &mut String) -> Option<()> {
    let is_quoted = json.starts_with('"');
    let text = if is_quoted { quoted(json)? } else { Cow::Borrowed(json) };
    let mut put = |value: ValueRef<'_>, memory: &mut String| put(value, wire, limit, out, memory);
    match wire {
        Wire::Bool if !is_quoted => put(ValueRef::Bool(json.parse().ok()?), memory),
        Wire::Int2 | Wire::Int4 | Wire::Int8 if is_integer(&text) => put(ValueRef::I64(text.parse().ok()?), memory),
        Wire::Float4 => put(ValueRef::F32(float(&text, is_quoted, memory)?), memory),
        Wire::Float8 => put(ValueRef::F64(float(&text, is_quoted, memory)?), memory),
        Wire::Numeric if is_decimal(&text) => put(ValueRef::Decimal(&text), memory),
        // The server has its own spelling of numbers.
        Wire::Text if is_quoted => put(ValueRef::Text(&text), memory),
        Wire::Bytea if is_quoted => put(ValueRef::Bytes(&bytes_of_text(&text)?), memory),
        Wire::Uuid if is_quoted => put(ValueRef::Uuid(uuid_of_text(&text)?), memory),
        Wire::Date if is_quoted => put(ValueRef::Text(&text), memory),
        Wire::Time if is_quoted => put(ValueRef::Time(text.parse::<Time>().ok()?), memory),
        Wire::Timestamp | Wire::TimestampTz if is_quoted && is_read_alike(&text, wire) => {
            put(ValueRef::Text(&text), memory)
        }
        _ => None,
    }
}

/// The content of a text in quotes.
pub(crate) fn quoted(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(json).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

fn are_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_integer(text: &str) -> bool {
    are_digits(text.strip_prefix('-').unwrap_or(text))
}

/// `[-]digits[.digits]`
fn is_decimal(text: &str) -> bool {
    match text.split_once('.') {
        Some((whole, fraction)) => is_integer(whole) && are_digits(fraction),
        None => is_integer(text),
    }
}

/// A float, if its shortest spelling is the same number: the server refuses other digits.
fn float<T>(text: &str, is_quoted: bool, memory: &mut String) -> Option<T>
where
    T: std::str::FromStr + std::fmt::LowerExp,
{
    if is_quoted {
        // What JSON has no number for.
        return matches!(text, "NaN" | "Infinity" | "-Infinity").then(|| text.parse().ok()).flatten();
    }
    float_of(text, memory)
}

/// The texts of the elements of a JSON array. The text is known to be JSON.
pub(crate) struct Elements<'a> {
    /// `None` after the last element.
    rest: Option<&'a str>,
}

impl<'a> Elements<'a> {
    /// `None` if it is no array.
    pub(crate) fn of(json: &'a str) -> Option<Self> {
        let inner = trimmed(trimmed(json).strip_prefix('[')?.strip_suffix(']')?);
        Some(Self { rest: Some(inner).filter(|inner| !inner.is_empty()) })
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest.take()?;
        let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
        let end = rest.bytes().position(|byte| {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = in_string,
                b'"' => in_string = !in_string,
                _ if in_string => {}
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth = depth.saturating_sub(1),
                b',' => return depth == 0,
                _ => {}
            }
            false
        });
        let Some(end) = end else { return Some(trimmed(rest)) };
        self.rest = Some(&rest[end + 1..]);
        Some(trimmed(&rest[..end]))
    }
}

/// Without the white space of JSON.
fn trimmed(json: &str) -> &str {
    json.trim_matches([' ', '\n', '\r', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real_type::Spelled;

    fn list(base: &str, modifier: i32) -> Option<List> {
        List::of(&RealType {
            namespace: "pg_catalog".into(),
            name: format!("_{base}"),
            kind: 'b',
            category: 'A',
            receive: "array_recv".into(),
            modifier,
            element: format!("{base}out"),
            element_oid: Some(7),
            spelled: Some(Spelled { narrow: String::new(), wide: String::new(), base: base.into() }),
        })
    }

    #[test]
    fn an_array_has_its_dimension_and_its_elements() {
        let check = |json: &str, words: &[i32]| {
            let mut out = vec![9];
            list("int4", -1).unwrap().write(json, &mut out).unwrap();
            let expected: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            assert_eq!((out[0], &out[1..]), (9, &*expected), "{json}");
        };
        check(" [ ] ", &[0, 0, 7]);
        check("[5]", &[1, 0, 7, 1, 1, 4, 5]);
        check("[ -1 , null,\"2\"]", &[1, 1, 7, 3, 1, 4, -1, -1, 4, 2]);
    }

    #[test]
    fn elements_are_found_between_commas() {
        let check = |json: &str, expected: &[&str]| {
            assert_eq!(Elements::of(json).unwrap().collect::<Vec<_>>(), expected, "{json}");
        };
        check("[]", &[]);
        check(r#"[1, "a,\"]" ,{"b":[1,2]},[3]]"#, &["1", r#""a,\"]""#, r#"{"b":[1,2]}"#, "[3]"]);
        check(r#"["\\",""]"#, &[r#""\\""#, "\"\""]);
        for json in ["{}", "null", "1", "\"[1]\""] {
            assert!(Elements::of(json).is_none(), "{json}");
        }
    }

    #[test]
    fn only_what_the_server_reads_alike_is_encoded() {
        let check = |base: &str, modifier: i32, read: &[&str], left: &[&str]| {
            let list = list(base, modifier).unwrap();
            for json in read {
                assert!(list.write(json, &mut Vec::new()).is_some(), "{base}: {json}");
            }
            for json in left {
                assert!(list.write(json, &mut Vec::new()).is_none(), "{base}: {json}");
            }
        };
        check("bool", -1, &["[true,false]"], &["[\"true\"]", "[1]", "[[true]]", "null"]);
        check("int2", -1, &["[32767,\"-32768\"]"], &["[32768]", "[1.0]", "[1e3]", "[\"+1\"]", "[\" 1\"]", "[true]"]);
        check("int8", -1, &["[9223372036854775807]"], &["[9223372036854775808]", "[{}]"]);
        check(
            "float4",
            -1,
            &["[0.1,-0.0,1e20,16777216,3.4028235e38,1e-45,\"NaN\",\"-Infinity\"]"],
            &["[16777217]", "[0.123456789]", "[1e39]", "[1e-60]", "[\"0.1\"]", "[\"inf\"]"],
        );
        check("float8", -1, &["[0.1,5e-324,0.30000000000000004,1.5E3]"], &["[9007199254740993]", "[1e400]"]);
        check("numeric", -1, &["[1.50,\"-12345678901234567890.1\"]"], &["[1e3]", "[\"NaN\"]", "[\".5\"]"]);
        // numeric(6,2)
        check("numeric", 393_222, &["[1.50,9999.99]"], &["[1.005]", "[10000]"]);
        check("text", -1, &[r#"["a\"\u00e4","",null]"#], &["[1]", "[true]", "[[\"a\"]]"]);
        // varchar(3)
        check("varchar", 7, &["[\"äöü\",\"ab \"]"], &["[\"abcd\"]", "[\"abc \"]"]);
        check("bytea", -1, &[r#"["\\x00fF","\\x"]"#], &[r#"["\\x0"]"#, "[\"ab\"]", r#"["\\xzz"]"#]);
        check(
            "uuid",
            -1,
            &["[\"00000000-0000-0000-0000-00000000000A\",\"0000000000000000000000000000000a\"]"],
            &["[\"0000-0000\"]", "[\"00000000-0000-0000-0000-00000000000g\"]"],
        );
        check("date", -1, &["[\"2026-01-31\",\"-infinity\"]"], &["[\"31 Jan 2026\"]", "[\"20260131\"]", "[20260131]"]);
        check("time", 0, &["[\"12:00:00\"]"], &["[\"12:00:00.5\"]", "[\"24:00:00\"]"]);
        check(
            "timestamp",
            -1,
            &["[\"2026-01-31T12:00:00.5\",\"infinity\"]"],
            &["[\"2026-01-31t12:00:00\"]", "[\"2026-01-31\"]"],
        );
        check(
            "timestamptz",
            -1,
            &["[\"2026-01-31 12:00:00+00:00\",\"2026-01-31T12:00:00-14:59\",\"2026-01-31T12:00:00Z\"]"],
            &["[\"2026-01-31 12:00:00\"]", "[\"2026-01-31 12:00:00+15:00\"]"],
        );
        check("jsonb", -1, &["[1,null,{\"a\":[1]},\"x\"]"], &["{}"]);
        check("inet", -1, &["[\"10.0.0.1\",null]"], &["[\"10.1\"]", "[1]"]);
    }

    #[test]
    fn arrays_without_a_known_form_are_left_to_the_server() {
        for base in ["xml", "money", "tsvector"] {
            assert_eq!(list(base, -1), None, "{base}");
        }
        // It would be rounded.
        assert_eq!(list("interval", 0), None);
        let mut user = RealType { spelled: None, element: "enum_out".into(), ..real() };
        assert!(List::of(&user).is_some());
        user.element_oid = None;
        assert_eq!(List::of(&user), None, "the elements are of a domain");
        let vector = RealType { receive: "int2vectorrecv".into(), ..real() };
        assert_eq!(List::of(&vector), None);
    }

    fn real() -> RealType {
        RealType {
            namespace: "public".into(),
            name: "_kind".into(),
            kind: 'b',
            category: 'A',
            receive: "array_recv".into(),
            modifier: -1,
            element: "int2out".into(),
            element_oid: Some(7),
            spelled: Some(Spelled { narrow: String::new(), wide: String::new(), base: "int2".into() }),
        }
    }
}
