//! Owns the check whether a geometric type stores the numbers of a text unchanged.
//! Must not know columns or rows.
//!
//! Each number becomes a double. Grammar: <https://www.postgresql.org/docs/current/datatype-geometric.html>.

use batchsql_sql::{Digits, float_of};

use crate::encode::Unfit;

/// What the numbers of a text become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Coordinates and radii, which are stored.
    Points,
    /// `{A,B,C}`, which is stored. From two points, the server computes such a line, and rounds.
    Line,
    /// Bounds of `seg`: a `real` each, of which it shows at most six digits. From `5(+-)1`, the server computes them, and rounds.
    Segment,
}

impl Shape {
    /// The shape of a built-in type, if it is a geometric one.
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name {
            "point" | "lseg" | "box" | "path" | "polygon" | "circle" => Some(Self::Points),
            "line" => Some(Self::Line),
            _ => None,
        }
    }

    /// The shape of a type of the extensions `cube` and `seg`.
    pub(crate) fn of_extension(name: &str) -> Option<Self> {
        match name {
            "cube" => Some(Self::Points),
            "seg" => Some(Self::Segment),
            _ => None,
        }
    }
}

/// The digits that `seg` keeps.
const SEGMENT_DIGITS: i64 = 6;

/// Whether every number of a text is stored unchanged; also of an array of such values.
pub(crate) fn is_kept(text: &str, shape: Shape) -> Result<(), Unfit> {
    // The bounds of an array: `[0:1]={…}`.
    let text = text.split_once('=').map_or(text, |(_, elements)| elements);
    if shape == Shape::Segment {
        return numbers(text).filter(|token| !token.eq_ignore_ascii_case("null")).try_for_each(is_segment_kept);
    }
    let mut memory = String::new();
    let mut count = 0;
    for token in numbers(text) {
        count += 1;
        if Digits::of(token).is_some() {
            if float_of::<f64>(token, &mut memory).is_none() {
                return Err(Unfit::Rounded);
            }
            continue;
        }
        let word = token.trim_start_matches(['+', '-']).to_ascii_lowercase();
        match &*word {
            "nan" | "inf" | "infinity" => {}
            // An element of an array. The server refuses it elsewhere.
            "null" => count -= 1,
            // Other spellings, such as `0x1p3`, are not parsed here.
            _ => return Err(Unfit::Malformed),
        }
    }
    // Each line has three numbers in braces of its own.
    let are_lines = || !text.contains('(') && count % 3 == 0 && text.matches('{').count() >= count / 3;
    if shape == Shape::Line && !are_lines() { Err(Unfit::Rounded) } else { Ok(()) }
}

/// Whether the bounds of a segment are stored unchanged, with the signs of their certainty: `1.5 .. ~2`. The text of a deviation
/// is split at its brackets, so it has a bound `+-`.
fn is_segment_kept(text: &str) -> Result<(), Unfit> {
    let text = text.replace("...", "..");
    let bounds = text.split("..").map(|bound| bound.trim().trim_start_matches(['<', '>', '~']).trim());
    bounds.filter(|bound| !bound.is_empty()).try_for_each(|bound| {
        if bound.contains("+-") {
            return Err(Unfit::Rounded);
        }
        let digits = Digits::of(bound.trim_end_matches('.')).ok_or(Unfit::Malformed)?;
        let count = digits.first_and_last().map_or(0, |(first, last)| first + last);
        let is_kept = count <= SEGMENT_DIGITS && float_of::<f32>(bound, &mut String::new()).is_some();
        if is_kept { Ok(()) } else { Err(Unfit::Rounded) }
    })
}

/// The texts between brackets, commas and quotes. The elements of `box[]` have semicolons between them.
fn numbers(text: &str) -> impl Iterator<Item = &str> {
    let marks = ['(', ')', '[', ']', '{', '}', '<', '>', ',', ';', '"'];
    text.split(marks).map(str::trim).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_no_double_has_are_found() {
        let check = |text: &str, shape, expected| assert_eq!(is_kept(text, shape), expected, "{text}");
        let long = "0.12345678901234567890";
        for kept in [
            "(1,2)",
            " ( 0.1 , -2.50 ) ",
            "1,2",
            "(0.30000000000000004,5e-324)",
            "[(1,2),(3,4)]",
            "<(1,2),0.1>",
            "(NaN,-Infinity)",
            "{\"(1,2)\",NULL}",
            "{(1,1),(0,0);(2,2),(1,1)}",
            "[\"(1,2)\", null]",
            "[0:1]={\"(1,2)\",\"(3,4)\"}",
        ] {
            check(kept, Shape::Points, Ok(()));
        }
        for text in [
            "(@,1)",
            "((1,2),(3,@))",
            "<(1,2),@>",
            "{\"(1,2)\",\"(@,1)\"}",
            "{(1,1),(0,0);(2,2),(1,@)}",
            "[0:0]={\"(1,@)\"}",
        ] {
            check(&text.replace('@', long), Shape::Points, Err(Unfit::Rounded));
        }
        check("(9007199254740993,1)", Shape::Points, Err(Unfit::Rounded));
        check("(1e400,1)", Shape::Points, Err(Unfit::Rounded));
        check("(0x1p3,1)", Shape::Points, Err(Unfit::Malformed));
        check(r"[(1,2\u0033)]", Shape::Points, Err(Unfit::Malformed));
    }

    #[test]
    fn segments_keep_six_digits() {
        let check = |text: &str, expected| assert_eq!(is_kept(text, Shape::Segment), expected, "{text}");
        for kept in [
            "1.5",
            "1.50 .. 2",
            "~1 .. <2.5",
            "-3e10 ..",
            ".. .5",
            "1...5",
            "0.1 ...0.2",
            "123456",
            "1000000",
            "{\"1 .. 2\",NULL}",
        ] {
            check(kept, Ok(()));
        }
        for rounded in ["1.234567", "1 .. 1234567", "5(+-)1", "5 '+-' 1", "16777217", "{1.5,\"1 .. 1.234567\"}"] {
            check(rounded, Err(Unfit::Rounded));
        }
        check("one", Err(Unfit::Malformed));
    }

    #[test]
    fn lines_are_stored_as_their_coefficients() {
        let check = |text: &str, expected| assert_eq!(is_kept(text, Shape::Line), expected, "{text}");
        check("{1,-1,0.1}", Ok(()));
        check("{\"{1,-1,0}\",NULL}", Ok(()));
        check("[-1:0]={\"{1,-1,0}\",\"{2,-1,0}\"}", Ok(()));
        check("[\"{1,-1,0}\", \"{2,-1,0}\"]", Ok(()));
        check("{1,-1,0.12345678901234567890}", Err(Unfit::Rounded));
        for points in
            ["[(0,0),(3,1)]", "(0,0),(3,1)", "0,0,3,1", "{\"(0,0),(3,1)\"}", "{\"0,0,3,1\",\"0,0,3,1\",\"0,0,3,1\"}"]
        {
            check(points, Err(Unfit::Rounded));
        }
    }
}
