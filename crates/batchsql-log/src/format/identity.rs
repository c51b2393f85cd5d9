//! Owns the text of the identity file: the version, the random id and the partitioning of a folder.
//! Must not know files.

use std::fmt::Write as _;

use super::segment::VERSION;

const TITLE: &str = "batchsql-log";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) version: u32,
    pub(crate) incarnation: [u8; 16],
    pub(crate) partitions: u32,
    pub(crate) hash: String,
}

/// Why a text is not an identity that this version reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotAnIdentity {
    Newer(u32),
    Damaged,
}

impl Identity {
    pub(crate) fn encode(&self) -> String {
        let Identity { version, incarnation, partitions, hash } = self;
        let body = format!("{TITLE} {version}\nid {}\npartitions {partitions}\nhash {hash}\n", hex(incarnation));
        let checksum = crc32fast::hash(body.as_bytes());
        format!("{body}crc {checksum:08x}\n")
    }

    pub(crate) fn decode(text: &[u8]) -> Result<Self, NotAnIdentity> {
        let text = str::from_utf8(text).map_err(|_| NotAnIdentity::Damaged)?;
        // The first line and the last one have these forms in every version.
        let (body, checksum) = text.rsplit_once("crc ").ok_or(NotAnIdentity::Damaged)?;
        if checksum.trim_end() != format!("{:08x}", crc32fast::hash(body.as_bytes())) {
            return Err(NotAnIdentity::Damaged);
        }
        let field = |name: &str| body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let version = match field(TITLE).and_then(|version| version.parse().ok()) {
            Some(version @ 1..=VERSION) => version,
            Some(version @ 1..) => return Err(NotAnIdentity::Newer(version)),
            _ => return Err(NotAnIdentity::Damaged),
        };
        let decoded = || {
            Some(Identity {
                version,
                incarnation: parse_hex(field("id")?)?,
                partitions: field("partitions")?.parse().ok().filter(|&partitions| partitions > 0)?,
                hash: field("hash")?.to_owned(),
            })
        };
        decoded().ok_or(NotAnIdentity::Damaged)
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn parse_hex(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 16];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_comes_back_and_every_change_is_found() {
        let identity =
            Identity { version: VERSION, incarnation: [0xa5; 16], partitions: 8, hash: "fnv1a64-fold32".to_owned() };
        let text = identity.encode();
        assert_eq!(Identity::decode(text.as_bytes()), Ok(identity));
        for index in 0..text.len() - 1 {
            let mut damaged = text.clone().into_bytes();
            damaged[index] ^= 1;
            assert!(Identity::decode(&damaged).is_err(), "byte {index}");
            assert!(Identity::decode(&text.as_bytes()[..index]).is_err(), "length {index}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let body = "batchsql-log 3\nsomething else\n";
        let text = format!("{body}crc {:08x}\n", crc32fast::hash(body.as_bytes()));
        assert_eq!(Identity::decode(text.as_bytes()), Err(NotAnIdentity::Newer(3)));
    }
}
