//! Owns the header of a segment file.
//! Must not know records.

use super::codec::{Decoder, put_u32, put_u64};

/// Bytes of a segment's header.
pub(crate) const HEADER: usize = 64;
/// The version that this code writes. It reads this one and all before it: version 1 has no groups and no keys.
pub(crate) const VERSION: u32 = 2;
const MAGIC: &[u8; 8] = b"BSQLLOG\n";
/// The offset of `base`.
const BASE_AT: usize = 40;
/// The checksum has this offset in every version, so that a newer version is not taken for damage.
const CHECKSUM_AT: usize = HEADER - 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) version: u32,
    pub(crate) incarnation: [u8; 16],
    pub(crate) tag: u64,
    /// The serial of the first record. Records of earlier segments from it on do not count: they were written again here.
    pub(crate) base: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER);
        out.extend_from_slice(MAGIC);
        put_u32(&mut out, self.version);
        put_u32(&mut out, 0);
        out.extend_from_slice(&self.incarnation);
        put_u64(&mut out, self.tag);
        put_u64(&mut out, self.base);
        out.resize(CHECKSUM_AT, 0);
        let checksum = crc32fast::hash(&out);
        put_u32(&mut out, checksum);
        out
    }

    /// `None` if the bytes are not the header of a segment, or are damaged.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEADER)?;
        let checksum = Decoder::new(&bytes[CHECKSUM_AT..]).u32()?;
        let mut fields = Decoder::new(bytes);
        if fields.bytes(MAGIC.len())? != MAGIC || checksum != crc32fast::hash(&bytes[..CHECKSUM_AT]) {
            return None;
        }
        let version = fields.u32()?;
        fields.u32()?;
        Some(SegmentHeader { version, incarnation: fields.id()?, tag: fields.u64()?, base: fields.u64()? })
    }
}

/// `base`, as the bytes of a header have it that may be cut or damaged.
pub(crate) fn base_of(bytes: &[u8; HEADER]) -> u64 {
    Decoder::new(&bytes[BASE_AT..]).u64().expect("a header has these bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_damage_is_found() {
        assert_eq!(VERSION, 2, "pin the bytes of the new version too");
        let header = SegmentHeader { version: 1, incarnation: [5; 16], tag: 6, base: 7 };
        let bytes = header.encode();
        assert_eq!(bytes.len(), HEADER);
        // The bytes of version 1 never change.
        assert_eq!(
            crate::format::identity::hex(&bytes),
            "4253514c4c4f470a01000000000000000505050505050505050505050505050506000000000000000700000000000000\
             00000000000000000000000044c2f690"
        );
        assert_eq!(SegmentHeader::decode(&bytes), Some(header));
        for bit in 0..HEADER * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&damaged), None, "bit {bit}");
        }
        (0..HEADER).for_each(|length| assert_eq!(SegmentHeader::decode(&bytes[..length]), None));
    }
}
