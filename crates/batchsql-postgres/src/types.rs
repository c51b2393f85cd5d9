//! Owns which column types accept which values, and in which form these are sent; columns that would change values
//! are rejected.
//! Must not know rows, bytes or statements.

use batchsql_core::ColumnType;
use batchsql_core::exhaustive::Type;
use batchsql_sql::quote;

use crate::copy_form::CopyForm;
use crate::guard::Guard;
use crate::list::List;
use crate::parsed::Parsed;
use crate::real_type::RealType;
use crate::value_limit::{ValueLimit, limit};
use crate::wire::Wire;

/// The conversion of a value on the server before it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cast {
    /// No conversion: it has the column's type.
    No,
    /// It is text that the type parses. The type has no length or precision: these belong to the column and are
    /// checked when the value is assigned. A cast would silently cut off a value that is too long.
    Text { to: String, guard: Option<Guard> },
    /// It is a JSON array: a function splits it, and the element type parses the elements.
    JsonArray { elements: &'static str, to: String, guard: Option<Guard> },
}

const REGCLASS: &str = r#""pg_catalog"."regclass""#;
const REGCLASSES: &str = r#""pg_catalog"."_regclass""#;

/// The relation that a text names. A cast of text looks for a relation in any case, whereas the input function of the type also
/// reads numbers and `-`.
fn regclass(value: &str) -> String {
    format!("pg_catalog.regclassin(({value})::pg_catalog.cstring)")
}

/// How the values of a column are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) wire: Wire,
    cast: Cast,
    /// Whether the column's type reads the binary form itself, as `COPY` needs. See also `parsed`.
    pub(crate) copies: bool,
    /// How COPY writes values that are sent as text or JSON otherwise.
    pub(crate) parsed: Option<CopyForm>,
    /// Whether the column's values are returned as they were sent, so that a row is identified by its key.
    pub(crate) echo: Echo,
    /// The limits of the values.
    pub(crate) limit: ValueLimit,
}

/// Whether a value is returned from its column as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Echo {
    /// Always, byte for byte.
    Same,
    /// If it has at most this many characters: `varchar(n)` cuts off spaces beyond its length.
    UpTo(usize),
    /// It may be rounded, padded or written otherwise.
    Changed,
}

impl Form {
    /// The expression for a placeholder or for the column of a subquery.
    pub(crate) fn expression(&self, value: &str) -> String {
        match &self.cast {
            Cast::No => value.to_owned(),
            Cast::Text { to, guard: None } if to == REGCLASS => regclass(value),
            Cast::Text { to, guard: None } => format!("{value}::{to}"),
            Cast::Text { to, guard: Some(guard) } => guard.expression(value, &format!("{value}::{to}"), to),
            Cast::JsonArray { elements, to, guard: None } if to == REGCLASSES => {
                let of_element = regclass("e");
                let array = format!("ARRAY(SELECT {of_element} FROM pg_catalog.{elements}({value}) AS e)");
                format!("CASE WHEN {value} IS NOT NULL THEN {array} END")
            }
            Cast::JsonArray { elements, to, guard } => {
                let array = format!("ARRAY(SELECT pg_catalog.{elements}({value}))");
                let converted = format!("{array}::{to}");
                let converted = match guard {
                    Some(guard) => guard.expression(&array, &converted, to),
                    None => converted,
                };
                format!("CASE WHEN {value} IS NOT NULL THEN {converted} END")
            }
        }
    }

    /// Whether the server may refuse a value that was accepted here, because its type parses text.
    pub(crate) fn is_parsed_by_server(&self) -> bool {
        !matches!(self.cast, Cast::No) || matches!(self.wire, Wire::Text | Wire::Json | Wire::Jsonb)
    }

    /// Whether the server may read the text of an array, or of a type that may have one inside.
    pub(crate) fn may_read_array(&self) -> bool {
        let Cast::Text { to, .. } = &self.cast else { return false };
        !self.copies && to.strip_prefix("\"pg_catalog\".\"").is_none_or(|name| name.starts_with('_'))
    }

    /// The same form if the server may round and cut off values.
    pub(crate) fn lossy(mut self) -> Self {
        self.limit = self.limit.lossy();
        if let Cast::Text { guard, .. } | Cast::JsonArray { guard, .. } = &mut self.cast {
            *guard = None;
        }
        self
    }

    /// Whether the server itself rejects values that it would change, see [`Guard`].
    pub(crate) fn is_guarded(&self) -> bool {
        matches!(&self.cast, Cast::Text { guard: Some(_), .. } | Cast::JsonArray { guard: Some(_), .. })
    }
}

/// The form of a column, or why its values cannot be sent. Values that the column would change are rejected.
pub(crate) fn form(ty: ColumnType, real: &RealType) -> Result<Form, &'static str> {
    let form = wire_form(ty, real)?;
    let limit = limit(ty, real, form.wire);
    // Only text that the server parses needs a guard.
    let guard = if form.copies { None } else { Guard::of(real) };
    let cast = match form.cast {
        Cast::Text { to, .. } => Cast::Text { to, guard },
        Cast::JsonArray { elements, to, .. } => Cast::JsonArray { elements, to, guard },
        Cast::No => Cast::No,
    };
    let is_text = matches!(cast, Cast::Text { .. }) && !form.copies && real.namespace == "pg_catalog";
    let parsed = match &cast {
        Cast::JsonArray { .. } => List::of(real).map(CopyForm::List),
        _ if is_text => Parsed::of(&real.name, real.modifier >= 0).map(CopyForm::Text),
        _ => None,
    };
    Ok(Form { limit, cast, parsed, ..form })
}

fn wire_form(ty: ColumnType, real: &RealType) -> Result<Form, &'static str> {
    use Echo::{Changed, Same};
    let is_builtin = real.namespace == "pg_catalog";
    let is = |name: &str| is_builtin && real.name == name;
    let plain =
        |wire, echo| Ok(Form { wire, cast: Cast::No, copies: true, echo, parsed: None, limit: ValueLimit::None });
    // With a precision the server rounds.
    let unrounded = if real.modifier < 0 { Same } else { Changed };
    match ty.exhaustive() {
        Type::Bool if is("bool") => plain(Wire::Bool, Same),
        Type::Bool => Err("need a boolean column"),

        Type::I16 | Type::I32 | Type::I64 | Type::U64 if is("int2") => plain(Wire::Int2, Same),
        Type::I16 | Type::I32 | Type::I64 | Type::U64 if is("int4") => plain(Wire::Int4, Same),
        Type::I16 | Type::I32 | Type::I64 | Type::U64 if is("int8") => plain(Wire::Int8, Same),
        Type::I16 | Type::I32 | Type::I64 | Type::U64 if is("numeric") => plain(Wire::Numeric, unrounded),
        Type::I16 | Type::I32 if is("float8") => plain(Wire::Float8, Changed),
        Type::I16 if is("float4") => plain(Wire::Float4, Changed),
        Type::I16 | Type::I32 | Type::I64 | Type::U64 => Err("need a column of an integer type or numeric"),

        Type::F32 if is("float4") => plain(Wire::Float4, Changed),
        Type::F32 | Type::F64 if is("float8") => plain(Wire::Float8, Changed),
        Type::F64 if is("float4") => Err("would lose digits; declare the column double precision, or send f32"),
        Type::F32 | Type::F64 => Err("need a column of type real or double precision"),

        Type::Decimal if is("numeric") => plain(Wire::Numeric, unrounded),
        Type::Decimal => text_form(real).ok_or("need a column of type numeric or text"),

        Type::Bytes if is("bytea") => plain(Wire::Bytea, Same),
        Type::Bytes => Err("need a bytea column"),

        Type::Uuid if is("uuid") => plain(Wire::Uuid, Same),
        Type::Uuid => Err("need a uuid column"),

        Type::Json if is("json") => plain(Wire::Json, Changed),
        Type::Json if is("jsonb") => plain(Wire::Jsonb, Changed),
        Type::Json | Type::Text if real.category == 'A' && matches!(&*real.element, "nameout" | "charout") => {
            Err("would be cut in its elements, to 63 bytes or to one; declare the column text[]")
        }
        Type::Json if real.category == 'A' => {
            // The elements of a JSON array column are JSON: a text keeps its quotes, a null is not NULL.
            let (wire, elements) = match &*real.element {
                "json_out" => (Wire::Json, "json_array_elements"),
                "jsonb_out" => (Wire::Jsonb, "jsonb_array_elements"),
                "float4out" | "float8out" => (Wire::FlatJson, "json_array_elements_text"),
                _ => (Wire::FlatJsonb, "jsonb_array_elements_text"),
            };
            let cast = Cast::JsonArray { elements, to: sql_name(real), guard: None };
            Ok(Form { wire, cast, copies: false, echo: Changed, parsed: None, limit: ValueLimit::None })
        }
        // They read a list of numbers from text.
        Type::Json if real.is_of_extension("vector") || real.is_of_extension("halfvec") => Ok(Form {
            wire: Wire::Text,
            cast: Cast::Text { to: sql_name(real), guard: None },
            copies: false,
            echo: Changed,
            parsed: None,
            limit: ValueLimit::None,
        }),
        Type::Json => text_form(real).ok_or("need a column of type json, jsonb, text or an array"),

        Type::Date if is("date") => plain(Wire::Date, Same),
        Type::Date => Err("need a date column"),
        Type::Time if is("time") => plain(Wire::Time, unrounded),
        Type::Time => Err("need a column of type time"),
        Type::Timestamp if is("timestamp") => plain(Wire::Timestamp, unrounded),
        Type::Timestamp if is("timestamptz") => Err("have no zone, and the column stores instants; send timestamptz"),
        Type::Timestamp => Err("need a column of type timestamp"),
        Type::TimestampTz if is("timestamptz") => plain(Wire::TimestampTz, unrounded),
        Type::TimestampTz if is("timestamp") => {
            Err("are instants, and the column has no zone; declare it timestamptz, or send timestamp")
        }
        Type::TimestampTz => Err("need a column of type timestamptz"),

        Type::Text if is("json") => plain(Wire::Json, Changed),
        Type::Text if is("jsonb") => plain(Wire::Jsonb, Changed),
        // Only what no calendar value has, or means the same in every session.
        Type::Text if is("date") => plain(Wire::Date, Changed),
        Type::Text if is("timestamp") => plain(Wire::Timestamp, Changed),
        Type::Text if is("timestamptz") => plain(Wire::TimestampTz, Changed),
        Type::Text if is_builtin && has_own_column_type(&real.name) => {
            Err("are not converted; declare them with the type of the column")
        }
        Type::Text if is("char") => Err("would be cut to one byte; declare the column text"),
        Type::Text => Ok(text_form(real).unwrap_or_else(|| Form {
            wire: Wire::Text,
            cast: Cast::Text { to: sql_name(real), guard: None },
            copies: false,
            echo: Changed,
            parsed: None,
            limit: ValueLimit::None,
        })),
    }
}

/// The form of text in a column that stores text.
fn text_form(real: &RealType) -> Option<Form> {
    let cast = || Cast::Text { to: sql_name(real), guard: None };
    let form =
        |cast, echo| Some(Form { wire: Wire::Text, cast, copies: true, echo, parsed: None, limit: ValueLimit::None });
    match (real.kind, &*real.receive) {
        ('e', _) => form(cast(), Echo::Same),
        (_, "textrecv") if real.name == "text" => form(Cast::No, Echo::Same),
        // citext is compared without case and stored unchanged.
        (_, "textrecv" | "citextrecv") => form(cast(), Echo::Same),
        (_, "varcharrecv") => form(Cast::No, real.characters().map_or(Echo::Same, Echo::UpTo)),
        (_, "bpcharrecv") => form(cast(), Echo::Changed),
        // A cast to name silently truncates; its binary form is checked.
        (_, "namerecv") => form(Cast::No, Echo::Same).map(|form| Form { wire: Wire::Name, ..form }),
        _ => None,
    }
}

/// Types that have their own `ColumnType`, so that text for them is an error, or would depend on settings of the
/// session (`DateStyle`, `TimeZone`).
fn has_own_column_type(name: &str) -> bool {
    const NAMES: [&str; 9] = ["bool", "int2", "int4", "int8", "float4", "float8", "numeric", "bytea", "time"];
    NAMES.contains(&name)
}

fn sql_name(real: &RealType) -> String {
    format!("{}.{}", quote(&real.namespace), quote(&real.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::real_type::Spelled;

    fn real(name: &str) -> RealType {
        let receive = match name {
            "text" | "varchar" | "bpchar" | "name" => format!("{name}recv"),
            _ => format!("{name}_recv"),
        };
        let category = if name.starts_with('_') { 'A' } else { 'X' };
        let element = name.strip_prefix('_').map(|name| format!("{name}_out")).unwrap_or_default();
        RealType {
            namespace: "pg_catalog".into(),
            name: name.into(),
            kind: 'b',
            category,
            receive,
            modifier: -1,
            element,
            element_oid: None,
            spelled: None,
        }
    }

    #[test]
    fn each_type_has_a_column_type_of_its_own() {
        let names = [
            "bool",
            "int2",
            "int4",
            "int8",
            "numeric",
            "float4",
            "float8",
            "numeric",
            "text",
            "bytea",
            "uuid",
            "jsonb",
            "date",
            "time",
            "timestamp",
            "timestamptz",
        ];
        for (ty, name) in ColumnType::ALL.into_iter().zip(names) {
            let form = form(ty, &real(name)).unwrap();
            assert_eq!((form.wire.sql(), form.copies), (format!("pg_catalog.{name}"), true), "{ty}");
            assert_eq!(form.expression("$1"), "$1");
        }
    }

    #[test]
    fn columns_that_change_values_are_refused() {
        let check = |ty, name, part: &str| {
            let why = form(ty, &real(name)).unwrap_err();
            assert!(why.contains(part), "{ty} in {name}: {why:?}");
        };
        check(ColumnType::F64, "float4", "lose digits");
        check(ColumnType::I64, "float8", "integer type");
        check(ColumnType::Decimal, "float8", "numeric");
        check(ColumnType::Timestamp, "timestamptz", "no zone");
        check(ColumnType::TimestampTz, "timestamp", "no zone");
        check(ColumnType::Text, "time", "not converted");
        check(ColumnType::Text, "char", "one byte");
        check(ColumnType::Bytes, "text", "bytea");
        for (name, element) in [("_name", "nameout"), ("_char", "charout")] {
            for ty in [ColumnType::Text, ColumnType::Json] {
                let why = form(ty, &RealType { element: element.into(), ..real(name) }).unwrap_err();
                assert!(why.contains("declare the column text[]"), "{name}: {why}");
            }
        }
    }

    #[test]
    fn text_becomes_what_the_column_reads() {
        let check = |ty, name, copies, expression: &str| {
            let form = form(ty, &real(name)).unwrap();
            assert_eq!((form.copies, &*form.expression("u.c")), (copies, expression), "{ty} in {name}");
        };
        check(ColumnType::Text, "inet", false, r#"u.c::"pg_catalog"."inet""#);
        check(ColumnType::Text, "timestamptz", true, "u.c");
        check(ColumnType::Text, "_int4", false, r#"u.c::"pg_catalog"."_int4""#);
        check(ColumnType::Text, "bpchar", true, r#"u.c::"pg_catalog"."bpchar""#);
        check(ColumnType::Text, "varchar", true, "u.c");
        check(ColumnType::Json, "text", true, "u.c");
        let vector = RealType { namespace: "public".into(), ..real("vector") };
        assert_eq!(form(ColumnType::Json, &vector).unwrap().expression("u.c"), "u.c::\"public\".\"vector\"");
        let json = form(ColumnType::Json, &real("_int4")).unwrap();
        assert_eq!(json.wire, Wire::FlatJsonb);
        assert!(json.expression("u.c").ends_with(r#"_elements_text(u.c))::"pg_catalog"."_int4" END"#));
        assert!(!json.copies && json.parsed.is_none(), "the type of its elements is not known");
        let spelled = Some(Spelled { narrow: String::new(), wide: String::new(), base: "int4".into() });
        let known = RealType { element_oid: Some(23), receive: "array_recv".into(), spelled, ..real("_int4") };
        assert!(form(ColumnType::Json, &known).unwrap().parsed.is_some());
        let json = form(ColumnType::Json, &RealType { element: "float8out".into(), ..real("_float8") }).unwrap();
        assert_eq!(json.wire, Wire::FlatJson);
        assert!(json.expression("u.c").contains("pg_catalog.json_array_elements_text(u.c)"));
        let json = form(ColumnType::Json, &real("_jsonb")).unwrap();
        assert_eq!(json.wire, Wire::Jsonb);
        assert!(json.expression("u.c").contains("pg_catalog.jsonb_array_elements(u.c)"));
    }

    #[test]
    fn keys_are_known_again_only_where_the_server_keeps_them() {
        let echo = |ty, name, modifier| form(ty, &RealType { modifier, ..real(name) }).unwrap().echo;
        assert_eq!(echo(ColumnType::I64, "int8", -1), Echo::Same);
        assert_eq!(echo(ColumnType::Text, "text", -1), Echo::Same);
        assert_eq!(echo(ColumnType::Text, "varchar", 14), Echo::UpTo(10));
        assert_eq!(echo(ColumnType::Text, "bpchar", 14), Echo::Changed);
        assert_eq!(echo(ColumnType::Decimal, "numeric", -1), Echo::Same);
        assert_eq!(echo(ColumnType::Decimal, "numeric", 655_366), Echo::Changed);
        assert_eq!(echo(ColumnType::Timestamp, "timestamp", 3), Echo::Changed);
        assert_eq!(echo(ColumnType::F64, "float8", -1), Echo::Changed);
    }
}
