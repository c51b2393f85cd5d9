//! Owns how gzip is decompressed part by part as it arrives, member after member, and what is wrong with one that cannot be.
//! Must not know HTTP or rows.

use std::fmt;
use std::io::Write;

use flate2::write::GzDecoder;

/// Deflate makes at most 1032 bytes of one, so a part of this size becomes at most 264 KiB.
const PART: usize = 256;
/// What a member begins with.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The members of a body.
pub(crate) struct GzipMembers {
    decoder: GzDecoder<Vec<u8>>,
    /// Bytes of the member that were compared with `MAGIC`.
    begun: usize,
    /// One was read to its end.
    has_member: bool,
}

impl Default for GzipMembers {
    fn default() -> Self {
        Self { decoder: GzDecoder::new(Vec::new()), begun: 0, has_member: false }
    }
}

impl fmt::Debug for GzipMembers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GzipMembers").field("begun", &self.begun).finish_non_exhaustive()
    }
}

impl GzipMembers {
    /// Decompresses a small part.
    ///
    /// # Errors
    /// The input is no gzip, or is damaged.
    pub(super) fn next(&mut self, input: &mut &[u8], plain: &mut Vec<u8>) -> Result<(), String> {
        let (mut part, rest) = input.split_at(input.len().min(PART));
        *input = rest;
        while !part.is_empty() {
            if self.begun < MAGIC.len() {
                let here = &part[..part.len().min(MAGIC.len() - self.begun)];
                if *here != MAGIC[self.begun..][..here.len()] {
                    return Err(match self.has_member {
                        true => "the body has something else behind its gzip; leave it out".to_owned(),
                        false => "the body is not gzip: it begins with other bytes".to_owned(),
                    });
                }
            }
            match self.decoder.write(part) {
                // The member has ended before it.
                Ok(0) => self.end_member(plain)?,
                Ok(taken) => {
                    self.begun = (self.begun + taken).min(MAGIC.len());
                    part = &part[taken..];
                }
                Err(error) if self.decoder.header().is_none() => return Err(format!("the body is not gzip: {error}")),
                Err(error) => return Err(format!("the body is damaged gzip: {error}")),
            }
        }
        plain.append(self.decoder.get_mut());
        Ok(())
    }

    /// The input is over.
    ///
    /// # Errors
    /// Its end is missing, or it is damaged.
    pub(super) fn end(&mut self, plain: &mut Vec<u8>) -> Result<(), String> {
        if self.begun == 0 && self.has_member {
            return Ok(());
        }
        // Only a whole member takes no more. Nothing is read from it after that.
        match self.decoder.write(&[0]) {
            Ok(0) => self.end_member(plain),
            _ => Err("the body is not complete gzip: its end is missing; send all of it".to_owned()),
        }
    }

    fn end_member(&mut self, plain: &mut Vec<u8>) -> Result<(), String> {
        let ended = self.decoder.try_finish();
        ended.map_err(|_| "the body is damaged gzip: its checksum or its length is wrong".to_owned())?;
        plain.append(self.decoder.get_mut());
        *self = Self { has_member: true, ..Self::default() };
        Ok(())
    }
}
