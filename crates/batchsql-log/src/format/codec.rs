//! Owns reading and writing of little-endian fields.
//! Must not know what the fields mean.

/// Reads fields from the start of a slice. Every method returns `None` rather than read past the end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Decoder(bytes)
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn id(&mut self) -> Option<[u8; 16]> {
        self.array()
    }

    /// Bytes behind their length.
    pub(crate) fn slice(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.bytes(usize::try_from(length).ok()?)
    }

    /// Items behind their number. The number is compared with the bytes that are left, so that a wrong one allocates nothing.
    pub(crate) fn list<T>(&mut self, least: usize, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let number = usize::try_from(self.u32()?).ok()?;
        if number.checked_mul(least)? > self.0.len() {
            return None;
        }
        (0..number).map(|_| item(self)).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Bytes behind their length.
pub(crate) fn put_slice(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// The number of items of a list, or of bytes.
pub(crate) fn put_length(out: &mut Vec<u8>, length: usize) {
    put_u32(out, u32::try_from(length).expect("lists and names of the log are far below 4 GiB"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_number_of_items_allocates_nothing() {
        let mut bytes = u32::MAX.to_le_bytes().to_vec();
        bytes.extend([0; 16]);
        assert!(Decoder::new(&bytes).list(8, Decoder::u64).is_none());
        assert!(Decoder::new(&bytes).slice().is_none());
    }

    #[test]
    fn fields_come_back() {
        let mut bytes = Vec::new();
        put_u32(&mut bytes, 7);
        put_u64(&mut bytes, u64::MAX);
        put_slice(&mut bytes, b"name");
        let mut decoder = Decoder::new(&bytes);
        assert_eq!((decoder.u32(), decoder.u64(), decoder.slice()), (Some(7), Some(u64::MAX), Some(&b"name"[..])));
        assert!(decoder.is_empty() && decoder.u8().is_none());
    }
}
