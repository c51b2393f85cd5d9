//! Owns the parts of a type that the server parses from one text: attributes of composite types, elements of arrays, bounds of
//! ranges, and which of them change values.
//! Must not know texts, columns or how types are read.

use std::collections::HashMap;

use crate::geometry::Shape;
use crate::real_type::Modifier;
use crate::times::Keeps;
use crate::value_limit::ValueLimit;

/// What the server parses from a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// It stores every text that it accepts, as far as this is known.
    Whole,
    /// A value without parts, within limits.
    Limited(PartLimit),
    /// `(…,…)`, one part for each attribute.
    Record(Box<[Part]>),
    /// `{…,…}`, also of several dimensions.
    Array(Box<Part>),
    /// `[…,…)`
    Range(Box<Part>),
    /// `{[…,…),…}`
    Multirange(Box<Part>),
}

/// The limit within which a part stores a text unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartLimit {
    Value(ValueLimit),
    /// `numeric(precision, scale)`
    Numeric {
        precision: i32,
        scale: i32,
    },
    Real,
    Double,
    /// `interval(digits)`
    Interval {
        digits: u32,
    },
    /// A time with this many decimal digits of a second. The type may not store every part of a text.
    Time {
        digits: u32,
        keeps: Option<Keeps>,
    },
}

/// A part that changes values in a way that cannot be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unchecked {
    /// The names of the attributes on the way to it.
    pub(crate) path: Vec<String>,
    pub(crate) ty: String,
}

/// A type of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CatalogType {
    /// `pg_type.typtype`
    pub(crate) kind: char,
    pub(crate) name: String,
    pub(crate) is_builtin: bool,
    pub(crate) is_array: bool,
    /// Attributes, or one part: elements, bounds, ranges, the base type of a domain.
    pub(crate) parts: Vec<CatalogPart>,
}

/// A part of a type of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CatalogPart {
    pub(crate) attribute: Option<String>,
    pub(crate) ty: i64,
    pub(crate) modifier: i32,
}

/// The types of a table by object id, those that users made and their parts.
pub(crate) type CatalogTypes = HashMap<i64, CatalogType>;

/// A type within itself is impossible; this ends the search all the same.
const MAX_DEPTH: usize = 64;

/// The parts of a column's type. `None` if it has none that change values, or if its text is checked without them: those
/// of base types, and of arrays and ranges of base types.
pub(crate) fn parts(types: &CatalogTypes, ty: i64, modifier: i32) -> Result<Option<Part>, Unchecked> {
    let (base, modifier) = without_domains(types, ty, modifier);
    let Some(found) = types.get(&base) else { return Ok(None) };
    let element = match found.parts.first().filter(|_| found.is_array) {
        Some(element) => types.get(&without_domains(types, element.ty, element.modifier).0),
        None => Some(found),
    };
    let is_checked_without = |ty: &CatalogType| matches!(ty.kind, 'b' | 'e') && !ty.is_array;
    let is_checked_without =
        |ty: &CatalogType| is_checked_without(ty) || (ty.is_builtin && matches!(ty.kind, 'r' | 'm'));
    if element.is_none_or(is_checked_without) {
        return Ok(None);
    }
    let mut path = Vec::new();
    let part = part(types, base, modifier, &mut path)?;
    Ok(Some(part).filter(|part| *part != Part::Whole))
}

/// The base type of a domain, and the last modifier that was declared.
fn without_domains(types: &CatalogTypes, ty: i64, modifier: i32) -> (i64, i32) {
    let (mut ty, mut modifier) = (ty, modifier);
    for _ in 0..MAX_DEPTH {
        match types.get(&ty) {
            Some(CatalogType { kind: 'd', parts, .. }) if !parts.is_empty() => {
                (ty, modifier) = (parts[0].ty, parts[0].modifier);
            }
            _ => break,
        }
    }
    (ty, modifier)
}

/// `path` has the attributes on the way to the type.
fn part(types: &CatalogTypes, ty: i64, modifier: i32, path: &mut Vec<String>) -> Result<Part, Unchecked> {
    let unchecked = |path: &[String], ty: &str| Unchecked { path: path.to_vec(), ty: ty.to_owned() };
    let (ty, modifier) = without_domains(types, ty, modifier);
    let Some(found) = types.get(&ty) else { return Ok(Part::Whole) };
    if path.len() > MAX_DEPTH {
        return Err(unchecked(path, &found.name));
    }
    let mut inner = |modifier: i32| match found.parts.first() {
        Some(inner) => part(types, inner.ty, modifier, path).map(Box::new),
        None => Ok(Box::new(Part::Whole)),
    };
    let around = match found.kind {
        'c' => {
            let mut attributes = Vec::with_capacity(found.parts.len());
            for attribute in &found.parts {
                path.push(attribute.attribute.clone().unwrap_or_default());
                attributes.push(part(types, attribute.ty, attribute.modifier, path)?);
                path.pop();
            }
            let is_whole = attributes.iter().all(|attribute| *attribute == Part::Whole);
            return Ok(if is_whole { Part::Whole } else { Part::Record(attributes.into()) });
        }
        // The elements have semicolons between them, so the text is checked without a split.
        _ if found.is_array && has_boxes(types, ty) => return inner(modifier).map(|boxes| *boxes),
        // The modifier of an array is that of its elements.
        _ if found.is_array => Part::Array(inner(modifier)?),
        'r' => Part::Range(inner(-1)?),
        'm' => match *inner(-1)? {
            Part::Range(bounds) => Part::Multirange(bounds),
            other => return Ok(other),
        },
        _ => return limited(found, modifier).ok_or_else(|| unchecked(path, &found.name)),
    };
    let is_whole =
        matches!(&around, Part::Array(inner) | Part::Range(inner) | Part::Multirange(inner) if **inner == Part::Whole);
    Ok(if is_whole { Part::Whole } else { around })
}

/// Whether a type is `box`, or an array of such.
fn has_boxes(types: &CatalogTypes, ty: i64) -> bool {
    let mut ty = ty;
    for _ in 0..MAX_DEPTH {
        let Some(found) = types.get(&without_domains(types, ty, -1).0) else { return false };
        match found.parts.first().filter(|_| found.is_array) {
            Some(element) => ty = element.ty,
            None => return found.is_builtin && found.name == "box",
        }
    }
    false
}

/// The limit of a type without parts; `None` if it changes values in a way that cannot be checked.
fn limited(ty: &CatalogType, modifier: i32) -> Option<Part> {
    let name = &*ty.name;
    if !ty.is_builtin {
        // Types of extensions, which may be in any schema.
        let limit = match name {
            _ if ty.kind != 'b' => None,
            "vector" => Some(ValueLimit::RealElements),
            _ => Shape::of_extension(name).map(ValueLimit::Geometry),
        };
        return Some(limit.map_or(Part::Whole, |limit| Part::Limited(PartLimit::Value(limit))));
    }
    let declared = Modifier(modifier);
    let digits = declared.fraction().unwrap_or(6);
    let time = |keeps| PartLimit::Time { digits, keeps };
    let limit = match name {
        "numeric" => match declared.numeric() {
            Some((precision, scale)) => PartLimit::Numeric { precision, scale },
            None => return Some(Part::Whole),
        },
        "varchar" | "bpchar" => match declared.characters() {
            Some(most) => PartLimit::Value(ValueLimit::Characters { most }),
            None => return Some(Part::Whole),
        },
        "float4" => PartLimit::Real,
        "float8" => PartLimit::Double,
        "date" => PartLimit::Time { digits: 6, keeps: Some(Keeps::Date) },
        "timestamp" => time(Some(Keeps::DateAndTime)),
        "time" => time(Some(Keeps::Time)),
        "timetz" => time(Some(Keeps::TimeAndZone)),
        "timestamptz" => time(None),
        "interval" if modifier < 0 => PartLimit::Value(ValueLimit::Interval),
        "interval" => PartLimit::Interval { digits: declared.interval_fraction()? },
        // `money` depends on a setting of the server, the others are cut.
        "money" | "name" | "char" => return None,
        _ => match Shape::of(name) {
            Some(shape) => PartLimit::Value(ValueLimit::Geometry(shape)),
            None => return Some(Part::Whole),
        },
    };
    Some(Part::Limited(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMERIC_6_2: i32 = 393_222;
    const INTERVAL_3: i32 = 0x7FFF_0003;
    const INTERVAL_DAY: i32 = 0x0008_FFFF;

    fn ty(kind: char, name: &str, is_builtin: bool, parts: &[(Option<&str>, i64, i32)]) -> CatalogType {
        let part = |(attribute, ty, modifier): &(Option<&str>, i64, i32)| CatalogPart {
            attribute: attribute.map(str::to_owned),
            ty: *ty,
            modifier: *modifier,
        };
        let parts = parts.iter().map(part).collect();
        CatalogType { kind, name: name.into(), is_builtin, is_array: name.starts_with('_'), parts }
    }

    fn types() -> CatalogTypes {
        HashMap::from([
            (1, ty('b', "numeric", true, &[])),
            (2, ty('b', "text", true, &[])),
            (3, ty('b', "money", true, &[])),
            (4, ty('b', "timestamp", true, &[])),
            (5, ty('r', "tsrange", true, &[(None, 4, -1)])),
            (20, ty('c', "pair", false, &[(Some("label"), 2, -1), (Some("amount"), 1, NUMERIC_6_2)])),
            (21, ty('b', "_pair", false, &[(None, 20, -1)])),
            (22, ty('d', "pairs", false, &[(None, 21, -1)])),
            (23, ty('c', "named", false, &[(Some("label"), 2, -1)])),
            (24, ty('c', "paid", false, &[(Some("pairs"), 22, -1), (Some("sum"), 3, -1)])),
            (25, ty('d', "price", false, &[(None, 1, NUMERIC_6_2)])),
            (26, ty('r', "prices", false, &[(None, 25, -1)])),
            (27, ty('m', "multiprices", false, &[(None, 26, -1)])),
            (28, ty('b', "_price", false, &[(None, 25, -1)])),
            (29, ty('d', "spans", false, &[(None, 5, -1)])),
            (30, ty('d', "list", false, &[(None, 28, -1)])),
            (31, ty('b', "_list", false, &[(None, 30, -1)])),
            (32, ty('b', "interval", true, &[])),
            (33, ty('c', "waits", false, &[(Some("wait"), 32, INTERVAL_3)])),
            (34, ty('c', "days", false, &[(Some("days"), 32, INTERVAL_DAY)])),
            (35, ty('b', "box", true, &[])),
            (36, ty('b', "_box", true, &[(None, 35, -1)])),
            (37, ty('c', "areas", false, &[(Some("boxes"), 36, -1)])),
        ])
    }

    #[test]
    fn parts_are_found_through_domains_arrays_and_ranges() {
        let amount = || Part::Limited(PartLimit::Numeric { precision: 6, scale: 2 });
        let pair = || Part::Record([Part::Whole, amount()].into());
        let check = |ty, expected: Option<Part>| assert_eq!(parts(&types(), ty, -1), Ok(expected), "{ty}");
        check(20, Some(pair()));
        check(21, Some(Part::Array(pair().into())));
        check(22, Some(Part::Array(pair().into())));
        check(26, Some(Part::Range(amount().into())));
        check(27, Some(Part::Multirange(amount().into())));
        check(33, Some(Part::Record([Part::Limited(PartLimit::Interval { digits: 3 })].into())));
        check(31, Some(Part::Array(Part::Array(amount().into()).into())));
        let boxes = Part::Limited(PartLimit::Value(ValueLimit::Geometry(Shape::Points)));
        check(37, Some(Part::Record([boxes].into())));
        // Nothing changes, or the column itself is checked.
        for ty in [23, 25, 28, 29, 30, 1, 99] {
            check(ty, None);
        }
    }

    #[test]
    fn a_part_that_cannot_be_checked_has_its_path() {
        let unchecked = parts(&types(), 24, -1).unwrap_err();
        assert_eq!(unchecked, Unchecked { path: vec!["sum".into()], ty: "money".into() });
        let unchecked = parts(&types(), 34, -1).unwrap_err();
        assert_eq!(unchecked, Unchecked { path: vec!["days".into()], ty: "interval".into() });
    }

    #[test]
    fn a_type_within_itself_ends() {
        let types = HashMap::from([(20, ty('c', "loop", false, &[(Some("a"), 20, -1)]))]);
        assert_eq!(parts(&types, 20, -1).unwrap_err().ty, "loop");
    }
}
