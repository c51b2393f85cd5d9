//! Owns the values of `rename_all`: how the name of a field or a variant becomes the name of a column or a text.
//! Must not know attributes.

/// How names are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    Lower,
    Upper,
    Pascal,
    Camel,
    Snake,
    ScreamingSnake,
    Kebab,
    ScreamingKebab,
}

impl Case {
    const ALL: [(&'static str, Self); 8] = [
        ("lowercase", Self::Lower),
        ("UPPERCASE", Self::Upper),
        ("PascalCase", Self::Pascal),
        ("camelCase", Self::Camel),
        ("snake_case", Self::Snake),
        ("SCREAMING_SNAKE_CASE", Self::ScreamingSnake),
        ("kebab-case", Self::Kebab),
        ("SCREAMING-KEBAB-CASE", Self::ScreamingKebab),
    ];

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, case)| *case)
    }

    /// The names that can be parsed.
    pub(crate) fn names() -> String {
        Self::ALL.map(|(name, _)| name).join(", ")
    }

    /// A field, in snake case, or a variant, in Pascal case.
    pub(crate) fn apply(self, name: &str) -> String {
        let words = words(name);
        let join = |separator: &str| words.join(separator);
        match self {
            Self::Lower => join(""),
            Self::Upper => join("").to_uppercase(),
            Self::Pascal => words.iter().map(|word| capitalized(word)).collect(),
            Self::Camel => {
                let (first, rest) = words.split_first().map_or(("", &[][..]), |(first, rest)| (first, rest));
                rest.iter().fold(first.to_owned(), |name, word| name + &capitalized(word))
            }
            Self::Snake => join("_"),
            Self::ScreamingSnake => join("_").to_uppercase(),
            Self::Kebab => join("-"),
            Self::ScreamingKebab => join("-").to_uppercase(),
        }
    }
}

/// The words of a name, in lower case. A word begins after `_` and at each upper-case letter.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for letter in name.chars() {
        if (letter == '_' || letter.is_uppercase()) && words.last().is_some_and(|word| !word.is_empty()) {
            words.push(String::new());
        }
        if letter != '_'
            && let Some(word) = words.last_mut()
        {
            word.extend(letter.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_variants_are_renamed_as_by_serde() {
        let check = |name: &str, expected: [&str; 8]| {
            for ((case_name, case), expected) in Case::ALL.iter().zip(expected) {
                assert_eq!(case.apply(name), expected, "{name} in {case_name}");
                assert_eq!(Case::parse(case_name), Some(*case));
            }
        };
        let two = ["placedat", "PLACEDAT", "PlacedAt", "placedAt", "placed_at", "PLACED_AT", "placed-at", "PLACED-AT"];
        check("placed_at", two);
        check("PlacedAt", two);
        check("id", ["id", "ID", "Id", "id", "id", "ID", "id", "ID"]);
        check("_x2_y", ["x2y", "X2Y", "X2Y", "x2Y", "x2_y", "X2_Y", "x2-y", "X2-Y"]);
        assert_eq!(Case::parse("Snake"), None);
    }
}
