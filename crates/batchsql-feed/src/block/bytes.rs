//! Owns reading and writing the parts of a record: numbers, lists and text, little-endian.
//! Must not know what the parts mean.

/// Why bytes cannot be read: what is wrong, without a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// A newer version wrote them.
    #[error("it was written by a newer version ({0}) of this crate; update the program")]
    NewerVersion(u8),
    /// They make no sense.
    #[error("its bytes make no sense ({0})")]
    Damaged(&'static str),
}

/// Bytes that are read from the front. Nothing is allocated before its bytes were found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Unreadable::Damaged("it is too short"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Unreadable::Damaged("it is too short"))?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Unreadable> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Unreadable> {
        self.array().map(u32::from_le_bytes)
    }

    /// A length, as the number that a slice needs.
    pub(crate) fn length(&mut self) -> Result<usize, Unreadable> {
        self.u32().map(|length| length as usize)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, Unreadable> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Unreadable::Damaged("a flag is neither 0 nor 1")),
        }
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Unreadable> {
        let length = self.length()?;
        utf8(self.take(length)?)
    }

    /// A value that may be missing.
    pub(crate) fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Unreadable>,
    ) -> Result<Option<T>, Unreadable> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    /// A list whose items have at least one byte each.
    pub(crate) fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, Unreadable>,
    ) -> Result<Vec<T>, Unreadable> {
        let count = self.length()?;
        if count > self.0.len() {
            return Err(Unreadable::Damaged("a list is longer than its bytes"));
        }
        (0..count).map(|_| read(self)).collect()
    }

    /// All bytes have been read.
    pub(crate) fn end(self) -> Result<(), Unreadable> {
        if self.0.is_empty() { Ok(()) } else { Err(Unreadable::Damaged("it is too long")) }
    }
}

pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, Unreadable> {
    std::str::from_utf8(bytes).map_err(|_| Unreadable::Damaged("text is not UTF-8"))
}

/// Writes a length. A record is far below 4 GiB: the budget of a pipeline and the log refuse more.
pub(crate) fn put_length(out: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).expect("a record is below 4 GiB, as the byte budget of a pipeline");
    out.extend_from_slice(&length.to_le_bytes());
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_length(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

pub(crate) fn put_optional<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

pub(crate) fn put_list<I: ExactSizeIterator>(out: &mut Vec<u8>, items: I, mut put: impl FnMut(&mut Vec<u8>, I::Item)) {
    put_length(out, items.len());
    items.for_each(|item| put(out, item));
}
