//! Owns the header of a record and its checksums.
//! Must not know what is in payloads.

use super::codec::{Decoder, put_u32, put_u64};

/// Bytes of a record's header.
pub(crate) const HEADER: usize = 72;
/// Records start at multiples of it.
pub(crate) const ALIGN: usize = 8;
const MAGIC: u32 = u32::from_le_bytes(*b"BREC");

/// What a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Snapshot,
    Table,
    Schema,
    Block,
    Settled,
    Moved,
    Close,
    Keys,
}

const KINDS: [(u8, Kind); 8] = [
    (1, Kind::Snapshot),
    (2, Kind::Table),
    (3, Kind::Schema),
    (4, Kind::Block),
    (5, Kind::Settled),
    (6, Kind::Moved),
    (7, Kind::Close),
    (8, Kind::Keys),
];

/// Where a record belongs. It is part of every checksum: a record that was copied to another place is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Context {
    pub(crate) incarnation: [u8; 16],
    /// The number of the segment, with the highest bit set in side segments.
    pub(crate) tag: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) length: u32,
    pub(crate) payload_crc: u32,
    pub(crate) table: u32,
    pub(crate) partition: u32,
    pub(crate) schema: u32,
    /// The number of the record in the log.
    pub(crate) serial: u64,
    /// The highest serial that was known to be synced when this record was written.
    pub(crate) synced: u64,
    pub(crate) first: u64,
    pub(crate) count: u32,
    /// Blocks of the group behind this record: they count together, or not at all. 0 in version 1.
    pub(crate) rest: u32,
    /// Milliseconds since 1970.
    pub(crate) time: u64,
}

impl Header {
    /// A header without a block; the checksum and the length are set by `append`.
    pub(crate) fn new(kind: Kind, serial: u64, synced: u64, time: u64) -> Self {
        Header {
            kind,
            length: 0,
            payload_crc: 0,
            table: 0,
            partition: 0,
            schema: 0,
            serial,
            synced,
            first: 0,
            count: 0,
            rest: 0,
            time,
        }
    }

    /// The last sequence of a block; `None` if its numbers cannot be those of a block.
    pub(crate) fn last(&self) -> Option<u64> {
        if self.first == 0 || self.count == 0 {
            return None;
        }
        self.first.checked_add(u64::from(self.count) - 1).filter(|&last| last < u64::MAX)
    }

    /// Header, payload and padding.
    pub(crate) fn size(&self) -> u64 {
        size(self.length as usize)
    }
}

/// The bytes of a record with a payload of this length.
pub(crate) fn size(length: usize) -> u64 {
    (HEADER + length.next_multiple_of(ALIGN)) as u64
}

/// Adds a record that will be at `offset` of its file.
pub(crate) fn append(out: &mut Vec<u8>, context: &Context, offset: u64, header: &Header, payload: &[u8]) {
    let kind = KINDS.iter().find(|(_, kind)| *kind == header.kind).map_or(0, |(number, _)| *number);
    let mut fields = Vec::with_capacity(HEADER);
    put_u32(&mut fields, u32::try_from(payload.len()).expect("a payload is smaller than a segment"));
    put_u32(&mut fields, crc32fast::hash(payload));
    fields.extend([kind, 0, 0, 0]);
    put_u32(&mut fields, header.table);
    put_u32(&mut fields, header.partition);
    put_u32(&mut fields, header.schema);
    put_u64(&mut fields, header.serial);
    put_u64(&mut fields, header.synced);
    put_u64(&mut fields, header.first);
    put_u32(&mut fields, header.count);
    put_u32(&mut fields, header.rest);
    put_u64(&mut fields, header.time);
    put_u32(out, MAGIC);
    put_u32(out, checksum(context, offset, &fields));
    out.extend_from_slice(&fields);
    out.extend_from_slice(payload);
    out.resize(out.len() + payload.len().next_multiple_of(ALIGN) - payload.len(), 0);
}

/// The header at `offset`, if its checksum is that of this place. `bytes` may have more after it.
pub(crate) fn parse(bytes: &[u8], context: &Context, offset: u64) -> Option<Header> {
    let bytes = bytes.get(..HEADER)?;
    let mut fields = Decoder::new(bytes);
    if fields.u32()? != MAGIC || fields.u32()? != checksum(context, offset, &bytes[8..]) {
        return None;
    }
    let length = fields.u32()?;
    let payload_crc = fields.u32()?;
    let number = fields.u8()?;
    fields.bytes(3)?;
    let kind = KINDS.iter().find(|(known, _)| *known == number).map(|(_, kind)| *kind)?;
    let table = fields.u32()?;
    let partition = fields.u32()?;
    let schema = fields.u32()?;
    let serial = fields.u64()?;
    let synced = fields.u64()?;
    let first = fields.u64()?;
    let count = fields.u32()?;
    let rest = fields.u32()?;
    let time = fields.u64()?;
    Some(Header { kind, length, payload_crc, table, partition, schema, serial, synced, first, count, rest, time })
}

/// Bytes of the mark at the end of a clean close.
pub(crate) const CLOSE_MARK: usize = 16;
const CLOSE_MAGIC: u32 = u32::from_le_bytes(*b"BEND");

/// The last bytes of a file that was closed: where its last record starts.
pub(crate) fn close_mark(context: &Context, offset: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(CLOSE_MARK);
    put_u64(&mut out, offset);
    put_u32(&mut out, CLOSE_MAGIC);
    let checksum = checksum(context, offset, &out);
    put_u32(&mut out, checksum);
    out
}

/// Where the last record of a file starts whose last bytes these are, if it was closed.
pub(crate) fn parse_close_mark(bytes: &[u8], context: &Context) -> Option<u64> {
    let offset = Decoder::new(bytes).u64()?;
    (bytes == close_mark(context, offset)).then_some(offset)
}

/// Whether a header may start here: a cheap test before the checksum.
pub(crate) fn may_start(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC.to_le_bytes())
}

fn checksum(context: &Context, offset: u64, fields: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&context.incarnation);
    hasher.update(&context.tag.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(fields);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: Context = Context { incarnation: [7; 16], tag: 3 };

    fn sample() -> Header {
        Header {
            length: 5,
            payload_crc: crc32fast::hash(b"bytes"),
            table: 1,
            partition: 2,
            schema: 3,
            first: 10,
            count: 4,
            ..Header::new(Kind::Block, 9, 8, 1_700_000_000_000)
        }
    }

    #[test]
    fn a_record_comes_back_and_is_aligned() {
        let mut bytes = Vec::new();
        append(&mut bytes, &CONTEXT, 64, &sample(), b"bytes");
        assert_eq!(bytes.len() as u64, sample().size());
        assert_eq!(bytes.len() % ALIGN, 0);
        assert_eq!(parse(&bytes, &CONTEXT, 64), Some(sample()));
        assert_eq!(sample().last(), Some(13));
    }

    /// The bytes of version 1 never change: folders of older programs must stay readable. A block alone has the same in version 2.
    #[test]
    fn the_bytes_of_a_record_are_pinned() {
        let mut bytes = Vec::new();
        append(&mut bytes, &CONTEXT, 64, &sample(), b"bytes");
        assert_eq!(
            crate::format::identity::hex(&bytes),
            "42524543563f06bf05000000ce4399b10400000001000000020000000300000009000000000000000800000000000000\
             0a0000000000000004000000000000000068e5cf8b0100006279746573000000"
        );
        assert_eq!(crate::format::identity::hex(&close_mark(&CONTEXT, 64)), "400000000000000042454e44743a5b3d");
    }

    #[test]
    fn a_record_of_a_group_says_how_many_blocks_follow() {
        let mut bytes = Vec::new();
        let header = Header { rest: 7, ..sample() };
        append(&mut bytes, &CONTEXT, 64, &header, b"bytes");
        assert_eq!(parse(&bytes, &CONTEXT, 64), Some(header));
        assert_eq!(bytes[60..64], [7, 0, 0, 0]);
    }

    #[test]
    fn a_record_of_another_place_is_refused() {
        let mut bytes = Vec::new();
        append(&mut bytes, &CONTEXT, 64, &sample(), b"bytes");
        assert_eq!(parse(&bytes, &CONTEXT, 72), None);
        assert_eq!(parse(&bytes, &Context { tag: 4, ..CONTEXT }, 64), None);
        assert_eq!(parse(&bytes, &Context { incarnation: [8; 16], ..CONTEXT }, 64), None);
    }

    #[test]
    fn every_changed_bit_of_a_header_is_found() {
        let mut bytes = Vec::new();
        append(&mut bytes, &CONTEXT, 64, &sample(), b"bytes");
        for bit in 0..HEADER * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&damaged, &CONTEXT, 64), None, "bit {bit}");
        }
        (0..HEADER).for_each(|length| assert_eq!(parse(&bytes[..length], &CONTEXT, 64), None));
    }
}
