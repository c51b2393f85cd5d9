//! Owns the payload of a record of keys: those of a group, or all that are known at the start of a segment.
//! Must not know for how long keys are kept.

use std::{fmt, sync::Arc};

use super::codec::{Decoder, put_length, put_slice, put_u64};

/// A key with its value, as a caller has given them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct KeyRecord {
    pub(crate) key: Arc<[u8]>,
    pub(crate) value: Arc<[u8]>,
    /// When it was stored, in milliseconds since 1970.
    pub(crate) time: u64,
}

/// Without the bytes: they are values of the caller.
impl fmt::Debug for KeyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRecord")
            .field("key", &format_args!("{} bytes", self.key.len()))
            .field("value", &format_args!("{} bytes", self.value.len()))
            .field("time", &self.time)
            .finish()
    }
}

/// Bytes of a key beside its key and value.
const OVERHEAD: usize = 16;

impl KeyRecord {
    /// Its bytes in a payload.
    pub(crate) fn size(&self) -> usize {
        size(&self.key, &self.value)
    }
}

/// The bytes of a key in a payload.
pub(crate) fn size(key: &[u8], value: &[u8]) -> usize {
    OVERHEAD + key.len() + value.len()
}

pub(crate) fn encode(keys: &[KeyRecord]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, keys);
    out
}

pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<KeyRecord>> {
    let mut decoder = Decoder::new(bytes);
    let keys = read(&mut decoder)?;
    decoder.is_empty().then_some(keys)
}

pub(crate) fn put(out: &mut Vec<u8>, keys: &[KeyRecord]) {
    put_length(out, keys.len());
    for KeyRecord { key, value, time } in keys {
        put_slice(out, key);
        put_slice(out, value);
        put_u64(out, *time);
    }
}

pub(crate) fn read(decoder: &mut Decoder<'_>) -> Option<Vec<KeyRecord>> {
    decoder.list(OVERHEAD, |d| Some(KeyRecord { key: d.slice()?.into(), value: d.slice()?.into(), time: d.u64()? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_and_their_bytes_are_pinned() {
        let keys = vec![
            KeyRecord { key: (*b"k1").into(), value: (*b"abc").into(), time: 7 },
            KeyRecord { key: (*b"k").into(), value: (*b"").into(), time: 8 },
        ];
        let bytes = encode(&keys);
        assert_eq!(bytes.len(), 4 + keys.iter().map(KeyRecord::size).sum::<usize>());
        assert_eq!(
            crate::format::identity::hex(&bytes),
            "02000000020000006b310300000061626307000000000000000100\
             00006b000000000800000000000000"
        );
        assert_eq!(decode(&bytes), Some(keys));
        (0..bytes.len()).for_each(|length| assert_eq!(decode(&bytes[..length]), None, "{length}"));
    }
}
