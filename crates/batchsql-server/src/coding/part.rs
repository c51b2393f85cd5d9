//! Owns how a body is decompressed part by part, so that a small body cannot become a large buffer.
//! Must not know HTTP or rows.

use std::io::Write;

use flate2::write::MultiGzDecoder;

use crate::coding::zstd_frames::ZstdFrames;

/// Deflate makes at most 1032 bytes of one, so a part of this size becomes at most 264 KiB.
const GZIP_PART: usize = 256;
const PLAIN_PART: usize = 64 << 10;

/// The compression of a body.
pub(crate) enum Coding {
    Plain,
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    Zstd(Box<ZstdFrames>),
}

impl Coding {
    /// By the name that HTTP gives it; `None` for one that is not known.
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Some(Self::Plain),
            "gzip" | "x-gzip" => Some(Self::Gzip(Box::new(MultiGzDecoder::new(Vec::new())))),
            "zstd" => Some(Self::Zstd(Box::default())),
            _ => None,
        }
    }

    /// Decompresses the next part of `input`, which it takes away from its front, to the end of `plain`. It may need more
    /// input before it has any output.
    ///
    /// # Errors
    /// The input is not what its compression says.
    pub(crate) fn next(&mut self, input: &mut &[u8], plain: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Self::Plain => {
                let (part, rest) = input.split_at(input.len().min(PLAIN_PART));
                plain.extend_from_slice(part);
                *input = rest;
                Ok(())
            }
            Self::Gzip(decoder) => {
                let (part, rest) = input.split_at(input.len().min(GZIP_PART));
                decoder.write_all(part).map_err(|error| format!("the body is not gzip: {error}"))?;
                *input = rest;
                plain.append(decoder.get_mut());
                Ok(())
            }
            Self::Zstd(frames) => frames.next(input, plain),
        }
    }

    /// The input is over.
    ///
    /// # Errors
    /// It is not complete.
    pub(crate) fn end(&mut self, plain: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Self::Plain => Ok(()),
            Self::Gzip(decoder) => {
                decoder.try_finish().map_err(|error| format!("the body is not complete gzip: {error}"))?;
                plain.append(decoder.get_mut());
                Ok(())
            }
            Self::Zstd(frames) => frames.end(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn decode(coding: &str, input: &[u8], step: usize) -> Result<(Vec<u8>, usize), String> {
        let mut coding = Coding::of(coding).unwrap();
        let (mut all, mut most) = (Vec::new(), 0);
        for mut part in input.chunks(step) {
            while !part.is_empty() {
                let mut plain = Vec::new();
                coding.next(&mut part, &mut plain)?;
                most = most.max(plain.len());
                all.append(&mut plain);
            }
        }
        let mut plain = Vec::new();
        coding.end(&mut plain)?;
        all.append(&mut plain);
        Ok((all, most))
    }

    pub(super) fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn lines() -> Vec<u8> {
        (0..3_000).flat_map(|id| format!("{{\"id\":{id},\"note\":\"{}\"}}\n", id * 7).into_bytes()).collect()
    }

    #[test]
    fn bodies_come_back_in_parts_of_any_size() {
        let text = lines();
        for step in [1, 7, 1000, usize::MAX] {
            for (coding, packed) in [("gzip", gzip(&text)), ("zstd", zstd(&text)), ("identity", text.clone())] {
                assert!(decode(coding, &packed, step).unwrap().0 == text, "{coding} in steps of {step}");
                let twice = [&packed[..], &packed].concat();
                assert_eq!(decode(coding, &twice, step).unwrap().0.len(), 2 * text.len(), "{coding}, two members");
            }
        }
    }

    #[test]
    fn a_bomb_becomes_small_parts() {
        let zeros = vec![0; 12 << 20];
        for (coding, packed) in [("gzip", gzip(&zeros)), ("zstd", zstd(&zeros))] {
            assert!(packed.len() < 1 << 18, "{coding}: {}", packed.len());
            let (all, most) = decode(coding, &packed, usize::MAX).unwrap();
            assert_eq!(all.len(), zeros.len());
            assert!(most <= 9 << 20, "{coding}: a part of {most} bytes");
        }
    }

    #[test]
    fn what_is_not_compressed_is_refused() {
        let check = |coding: &str, input: &[u8], part: &str| {
            let problem = decode(coding, input, 5).unwrap_err();
            assert!(problem.contains(part), "{coding}: {problem}");
        };
        let text = lines();
        check("gzip", b"{\"id\": 1}\n{\"id\": 2}\n", "not gzip");
        check("gzip", &gzip(&text)[..500], "not complete gzip");
        check("zstd", b"{\"id\": 1}\n{\"id\": 2}\n", "not zstd");
        check("zstd", &zstd(&text)[..500], "not complete zstd");
        let mut damaged = zstd(&text);
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        check("zstd", &damaged, "checksum");
        // A frame that needs a window of 64 MiB.
        check("zstd", &[0x28, 0xb5, 0x2f, 0xfd, 0x00, 16 << 3, 0, 0, 0, 0], "window");
        assert!(Coding::of("br").is_none());
    }
}
