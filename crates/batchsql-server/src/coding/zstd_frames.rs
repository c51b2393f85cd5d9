//! Owns how zstd is decompressed block by block as it arrives: the decoder reads whole blocks, so they are put together here.
//! Must not know HTTP or rows.
//!
//! The form is that of RFC 8878: a header of 6 to 18 bytes, blocks with a header of 3 bytes, a checksum.

use std::fmt;

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// What RFC 8878 recommends a decoder to support.
const LARGEST_WINDOW: u64 = 8 << 20;
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const LONGEST_HEADER: usize = 18;
const BLOCK_HEADER: usize = 3;
const CHECKSUM: usize = 4;

/// The frames of a body.
pub(crate) struct ZstdFrames {
    decoder: FrameDecoder,
    /// What has arrived and is not decoded.
    waiting: Vec<u8>,
    state: State,
    /// One was begun.
    has_frame: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Blocks {
        has_checksum: bool,
    },
    /// Bytes of a frame that decoders skip.
    Skip(usize),
}

impl Default for ZstdFrames {
    fn default() -> Self {
        Self { decoder: FrameDecoder::new(), waiting: Vec::new(), state: State::Header, has_frame: false }
    }
}

impl fmt::Debug for ZstdFrames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZstdFrames").field("state", &self.state).finish_non_exhaustive()
    }
}

fn not_zstd(why: impl fmt::Display) -> String {
    format!("the body is not zstd: {why}")
}

impl ZstdFrames {
    /// Decodes at most one block.
    ///
    /// # Errors
    /// The input is no frame, needs a window that is too large, or is damaged.
    pub(super) fn next(&mut self, input: &mut &[u8], plain: &mut Vec<u8>) -> Result<(), String> {
        if let State::Skip(bytes) = self.state {
            let skipped = bytes.min(input.len());
            *input = &input[skipped..];
            self.state = if skipped == bytes { State::Header } else { State::Skip(bytes - skipped) };
            return Ok(());
        }
        // As much as the next step needs, and no more.
        while self.waiting.len() < self.needed()? {
            let missing = self.needed()? - self.waiting.len();
            let (part, rest) = input.split_at(missing.min(input.len()));
            if part.is_empty() {
                return Ok(());
            }
            self.waiting.extend_from_slice(part);
            *input = rest;
        }
        match self.state {
            State::Header => self.begin(),
            State::Blocks { .. } => self.decode_block(plain),
            State::Skip(_) => Ok(()),
        }
    }

    /// # Errors
    /// A frame has no end, or there is none.
    pub(super) fn end(&self) -> Result<(), String> {
        let is_complete = self.has_frame && self.state == State::Header && self.waiting.is_empty();
        if is_complete { Ok(()) } else { Err("the body is not complete zstd".to_owned()) }
    }

    /// The bytes of the next header or block, as far as they are known.
    fn needed(&self) -> Result<usize, String> {
        let waiting = &self.waiting;
        match self.state {
            State::Header if waiting.len() < MAGIC.len() + 1 => Ok(MAGIC.len() + 1),
            State::Header if is_skippable(waiting) => Ok(8),
            State::Header if waiting[..4] != MAGIC => Err(not_zstd("it begins with other bytes")),
            State::Header => Ok(header_bytes(waiting[4])),
            State::Blocks { .. } if waiting.len() < BLOCK_HEADER => Ok(BLOCK_HEADER),
            State::Blocks { has_checksum } => {
                let (is_last, size) = block(waiting);
                Ok(BLOCK_HEADER + size + if is_last && has_checksum { CHECKSUM } else { 0 })
            }
            State::Skip(_) => Ok(0),
        }
    }

    fn begin(&mut self) -> Result<(), String> {
        let header = std::mem::take(&mut self.waiting);
        self.has_frame = true;
        if is_skippable(&header) {
            let bytes = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
            self.state = State::Skip(bytes as usize);
            return Ok(());
        }
        let window = window(&header);
        if window > LARGEST_WINDOW {
            return Err(not_zstd(format!(
                "it needs a window of {window} bytes; compress it with one of 8 MiB at most"
            )));
        }
        self.decoder.reset(&header[..]).map_err(not_zstd)?;
        self.state = State::Blocks { has_checksum: header[4] & 4 != 0 };
        Ok(())
    }

    fn decode_block(&mut self, plain: &mut Vec<u8>) -> Result<(), String> {
        let (is_last, _) = block(&self.waiting);
        self.decoder.decode_blocks(&self.waiting[..], BlockDecodingStrategy::UptoBlocks(1)).map_err(not_zstd)?;
        self.waiting.clear();
        self.decoder.collect_to_writer(plain).map_err(not_zstd)?;
        if is_last {
            self.state = State::Header;
            let stored = self.decoder.get_checksum_from_data();
            if stored.is_some() && stored != self.decoder.get_calculated_checksum() {
                return Err(not_zstd("its checksum is wrong"));
            }
        }
        Ok(())
    }
}

fn is_skippable(header: &[u8]) -> bool {
    header[0] & 0xf0 == 0x50 && header[1..4] == [0x2a, 0x4d, 0x18]
}

/// Magic, descriptor, window, dictionary, content size.
fn header_bytes(descriptor: u8) -> usize {
    let is_single = descriptor & 0x20 != 0;
    let content = match descriptor >> 6 {
        0 => usize::from(is_single),
        1 => 2,
        2 => 4,
        _ => 8,
    };
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    (MAGIC.len() + 1 + usize::from(!is_single) + dictionary + content).min(LONGEST_HEADER)
}

/// The window that a whole header asks for, in bytes.
fn window(header: &[u8]) -> u64 {
    let descriptor = header[4];
    if descriptor & 0x20 == 0 {
        let (exponent, mantissa) = (header[5] >> 3, u64::from(header[5] & 7));
        let base = 1_u64 << (10 + exponent);
        return base + base / 8 * mantissa;
    }
    // A single segment: the size of its content, which is the last field of the header.
    let bytes = match descriptor >> 6 {
        0 => 1,
        1 => 2,
        2 => 4,
        _ => 8,
    };
    let mut content = [0; 8];
    content[..bytes].copy_from_slice(&header[header.len() - bytes..]);
    u64::from_le_bytes(content) + if bytes == 2 { 256 } else { 0 }
}

/// Whether a block is the last one, and the bytes of its content.
fn block(header: &[u8]) -> (bool, usize) {
    let bits = u32::from_le_bytes([header[0], header[1], header[2], 0]);
    let size = (bits >> 3) as usize;
    // A run has one byte.
    (bits & 1 == 1, if bits >> 1 & 3 == 1 { 1 } else { size })
}
