//! Owns the real type of a column, as the catalogue has it: domains are resolved, lengths and precisions are read.
//! Must not know values, or how a type is asked for.

/// The real type of a column: a domain is already resolved to what it is based on.
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
    /// Length, precision or scale, -1 when none is declared. Of an array, those of its elements.
    pub(crate) modifier: i32,
    /// The function that writes an element of it as text, where it is an array (`pg_type.typoutput`). A domain has that
    /// of the type it is based on.
    pub(crate) element: String,
    /// The type, or for an array that of its elements, as SQL spells it with its modifier and without. Built-in types
    /// only.
    pub(crate) spelled: Option<Spelled>,
}

/// How SQL spells a type.
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
    /// Precision and scale of `numeric`, when there are.
    pub(crate) fn numeric(&self) -> Option<(i32, i32)> {
        // A header of four bytes, then 16 bits and 11 bits with a sign.
        let packed = self.modifier.checked_sub(4).filter(|packed| *packed >= 0)?;
        Some(((packed >> 16) & 0xFFFF, ((packed & 0x7FF) ^ 1024) - 1024))
    }

    /// Characters that a text may have, when there is a limit.
    pub(crate) fn characters(&self) -> Option<usize> {
        usize::try_from(self.modifier).ok().and_then(|modifier| modifier.checked_sub(4))
    }

    /// Decimal digits of a second, when they are declared.
    pub(crate) fn fraction(&self) -> Option<u32> {
        u32::try_from(self.modifier).ok()
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
            spelled: None,
        };
        assert_eq!(of(-1).numeric(), None);
        assert_eq!(of(393_222).numeric(), Some((6, 2)));
        // numeric(3,-2), as PostgreSQL 15 has it.
        assert_eq!(of(((3 << 16) | (-2 & 0x7FF)) + 4).numeric(), Some((3, -2)));
        assert_eq!((of(14).characters(), of(-1).characters()), (Some(10), None));
        assert_eq!((of(0).fraction(), of(-1).fraction()), (Some(0), None));
    }
}
