//! Owns the check whether the numbers of a text are doubles: the server stores the coordinates of a geometry so.
//! Must not know columns, rows or geometries.

use batchsql_sql::float_of;

/// Whether a double keeps every number of a text. The shortest spelling of a double is kept: `0.1`.
pub(crate) fn are_kept(text: &str) -> bool {
    let is_of_number = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let mut memory = String::new();
    let mut numbers = text.split(|c| !is_of_number(c)).filter(|token| is_number(token));
    numbers.all(|number| float_of::<f64>(number, &mut memory).is_some())
}

/// Not the name of a shape.
fn is_number(token: &str) -> bool {
    token.trim_start_matches(['+', '-', '.']).starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_no_double_has_are_found() {
        for text in [
            "POINT(1 2)",
            "POINT(0.1 -2.50)",
            "point(1e3 +1.5E-3)",
            "POINT(.5 1.)",
            "LINESTRING(0 0,0.30000000000000004 5e-324)",
            "GEOMETRYCOLLECTION EMPTY",
            "POINT(00100 0e7)",
            "",
        ] {
            assert!(are_kept(text), "{text}");
        }
        for text in [
            "POINT(0.12345678901234567890 1)",
            "POINT(1 9007199254740993)",
            "LINESTRING(0 0,1 -0.1000000000000000055)",
            "POINT(1e400 1)",
            "POINT(1e-400 1)",
            "POINT(0x1p3 1)",
        ] {
            assert!(!are_kept(text), "{text}");
        }
    }
}
