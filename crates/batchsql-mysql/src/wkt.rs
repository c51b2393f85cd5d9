//! Owns the check whether a text ends with its geometry: MariaDB ignores what follows.
//! Must not know columns, rows or numbers.

/// Whether only white space follows the first geometry of a text. Text that is no geometry is left to the server.
pub(crate) fn ends_with_geometry(text: &str) -> bool {
    // `GEOMETRYCOLLECTION EMPTY`
    let mut words = text.split(is_space).filter(|word| !word.is_empty()).skip(1);
    if let Some(word) = words.next()
        && word.get(..EMPTY.len()).is_some_and(|start| start.eq_ignore_ascii_case(EMPTY))
    {
        return word.len() == EMPTY.len() && words.next().is_none();
    }
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' if depth <= 1 => return text[at + 1..].chars().all(is_space),
            b')' => depth -= 1,
            _ => {}
        }
    }
    true
}

const EMPTY: &str = "EMPTY";

fn is_space(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\u{b}'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_behind_a_geometry_is_found() {
        for text in [
            "POINT(1 2)",
            " point ( 1 2 ) \t\r\n\u{b}",
            "POLYGON((0 0,1 0,1 1,0 0),(0 0,1 0,1 1,0 0))",
            "GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))",
            "GEOMETRYCOLLECTION EMPTY",
            " GeometryCollection  empty ",
            "GEOMETRYCOLLECTION()",
            // The server refuses these.
            "",
            "garbage",
            "POINT(1 2",
            "POINT((1 2)",
        ] {
            assert!(ends_with_geometry(text), "{text}");
        }
        for text in [
            "POINT(1 2),POINT(3 4)",
            "POINT(1 2) x",
            "POINT(1 2);",
            "POINT(1 2))",
            "POINT(1 2)\0",
            "POINT(1 2)\u{a0}",
            "POLYGON((0 0,1 0,1 1,0 0)) ,(5 5,6 5,6 6,5 5)",
            "LINESTRING(0 0,1 1),(2 2)",
            "MULTIPOINT(1 2,3 4) 5 6",
            "GEOMETRYCOLLECTION(POINT(1 2)) POINT(3 4)",
            "GEOMETRYCOLLECTION EMPTY x",
            "GEOMETRYCOLLECTION empty;",
            "GEOMETRYCOLLECTION EMPTY,POINT(1 2)",
            "GEOMETRYCOLLECTION EMPTY (POINT(1 2))",
        ] {
            assert!(!ends_with_geometry(text), "{text}");
        }
    }
}
