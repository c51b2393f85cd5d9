//! Owns the real type of a column from the catalogue: domains are resolved, lengths and precisions are decoded.
//! Must not know values, or how a type is queried.

/// The real type of a column: a domain is already resolved to its base type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RealType {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// `b`ase, `e`num, `r`ange and so on (`pg_type.typtype`).
    pub(crate) kind: char,
    /// `A`rray, `S`tring and so on (`pg_type.typcategory`).
    pub(crate) category: char,
    /// The function that reads its binary form (`pg_type.typreceive`).
    pub(crate) receive: String,
    /// Length, precision or scale, -1 if none is declared. Of an array, those of its elements.
    pub(crate) modifier: i32,
    /// The function that writes an element of it as text, if it is an array (`pg_type.typoutput`). A domain has that
    /// of its base type.
    pub(crate) element: String,
    /// The object id of the type of its elements, if it is an array and they are not of a domain.
    pub(crate) element_oid: Option<u32>,
    /// The SQL spelling of the type, or of the elements of an array, with its modifier and without. Built-in types
    /// only.
    pub(crate) spelled: Option<Spelled>,
}

/// The SQL spelling of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spelled {
    /// `numeric(6,2)[]`, `interval day to second(3)`.
    pub(crate) narrow: String,
    /// `numeric[]`, `interval`.
    pub(crate) wide: String,
    /// The name of the type, or of the elements, in the catalogue: `numeric`, `interval`.
    pub(crate) base: String,
}

impl RealType {
    /// Whether it is this base type of an extension, whose types may be in any schema.
    pub(crate) fn is_of_extension(&self, name: &str) -> bool {
        self.name == name && self.kind == 'b' && self.namespace != "pg_catalog"
    }

    /// Precision and scale of `numeric`, if declared.
    pub(crate) fn numeric(&self) -> Option<(i32, i32)> {
        Modifier(self.modifier).numeric()
    }

    /// Maximum length of a text in characters, if there is a limit.
    pub(crate) fn characters(&self) -> Option<usize> {
        Modifier(self.modifier).characters()
    }

    /// Decimal digits of a second, if declared.
    pub(crate) fn fraction(&self) -> Option<u32> {
        Modifier(self.modifier).fraction()
    }
}

/// The length, precision or scale of a type as the catalogue has it (`pg_attribute.atttypmod`), -1 if none is declared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Modifier(pub(crate) i32);

impl Modifier {
    /// Precision and scale of `numeric`, if declared.
    pub(crate) fn numeric(self) -> Option<(i32, i32)> {
        // A header of four bytes, then 16 bits and 11 bits with a sign.
        let packed = self.0.checked_sub(4).filter(|packed| *packed >= 0)?;
        Some(((packed >> 16) & 0xFFFF, ((packed & 0x7FF) ^ 1024) - 1024))
    }

    /// Maximum length of a text in characters, if there is a limit.
    pub(crate) fn characters(self) -> Option<usize> {
        usize::try_from(self.0).ok().and_then(|modifier| modifier.checked_sub(4))
    }

    /// Decimal digits of a second of an `interval` with all fields; `None` for `interval day` and the like.
    pub(crate) fn interval_fraction(self) -> Option<u32> {
        const ALL_FIELDS: u32 = 0x7FFF;
        const ALL_DIGITS: u32 = 0xFFFF;
        let modifier = u32::try_from(self.0).ok()?;
        let digits = modifier & 0xFFFF;
        (modifier >> 16 == ALL_FIELDS).then_some(if digits == ALL_DIGITS { 6 } else { digits })
    }

    /// Decimal digits of a second, if declared.
    pub(crate) fn fraction(self) -> Option<u32> {
        u32::try_from(self.0).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modifiers_are_read() {
        let of = |modifier| RealType {
            namespace: String::new(),
            name: String::new(),
            kind: 'b',
            category: ' ',
            receive: String::new(),
            modifier,
            element: String::new(),
            element_oid: None,
            spelled: None,
        };
        assert_eq!(of(-1).numeric(), None);
        assert_eq!(of(393_222).numeric(), Some((6, 2)));
        // numeric(3,-2), possible since PostgreSQL 15.
        assert_eq!(of(((3 << 16) | (-2 & 0x7FF)) + 4).numeric(), Some((3, -2)));
        assert_eq!((of(14).characters(), of(-1).characters()), (Some(10), None));
        assert_eq!((of(0).fraction(), of(-1).fraction()), (Some(0), None));
        let interval = |modifier| Modifier(modifier).interval_fraction();
        assert_eq!((interval(0x7FFF_0003), interval(0x7FFF_FFFF)), (Some(3), Some(6)));
        assert_eq!((interval(0x0008_FFFF), interval(-1)), (None, None));
    }
}
