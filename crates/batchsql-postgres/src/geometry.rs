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
}

/// Whether every number of a text is stored unchanged; also of an array of such values.
pub(crate) fn is_kept(text: &str, shape: Shape) -> Result<(), Unfit> {
    // The bounds of an array: `[0:1]={…}`.
    let text = text.split_once('=').map_or(text, |(_, elements)| elements);
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
