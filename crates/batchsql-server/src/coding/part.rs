//! Owns how a body is decompressed part by part, so that a small body cannot become a large buffer.
//! Must not know HTTP or rows.

use crate::coding::gzip_members::GzipMembers;
use crate::coding::zstd_frames::ZstdFrames;

const PLAIN_PART: usize = 64 << 10;

/// The compression of a body.
pub(crate) enum Coding {
    Plain,
    Gzip(Box<GzipMembers>),
    Zstd(Box<ZstdFrames>),
}

impl Coding {
    /// By the name that HTTP gives it; `None` for one that is not known.
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Some(Self::Plain),
            "gzip" | "x-gzip" => Some(Self::Gzip(Box::default())),
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
            Self::Gzip(members) => members.next(input, plain),
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
            Self::Gzip(members) => members.end(plain),
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

    /// Something was compressed, in contrast to a body that is cut off before its begin.
    #[test]
    fn nothing_may_be_compressed() {
        let skipped = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7];
        for (coding, packed) in
            [("gzip", gzip(b"")), ("zstd", zstd(b"")), ("zstd", skipped.to_vec()), ("identity", Vec::new())]
        {
            assert!(decode(coding, &packed, 2).unwrap().0.is_empty(), "{coding}");
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
        check("gzip", b"short", "the body is not gzip: it begins with other bytes");
        check("gzip", b"\x1f\x8c", "not gzip");
        check("gzip", b"\x1f\x8b\x07 and no method", "not gzip");
        let (whole, missing) = (gzip(&text), "the body is not complete gzip: its end is missing");
        for end in [0, 1, 2, 9, 10, 11, 500, whole.len() - 9, whole.len() - 8, whole.len() - 7, whole.len() - 1] {
            check("gzip", &whole[..end], missing);
            if end > 0 {
                check("gzip", &[&whole[..], &whole[..end]].concat(), missing);
            }
        }
        for last in [1, 8] {
            let mut damaged = whole.clone();
            let place = damaged.len() - last;
            damaged[place] ^= 1;
            check("gzip", &damaged, "damaged gzip: its checksum or its length");
            check("gzip", &[&damaged[..], &whole].concat(), "damaged gzip: its checksum or its length");
        }
        let mut damaged = whole.clone();
        damaged[10] = 0xff;
        check("gzip", &damaged, "damaged gzip");
        check("gzip", &[&whole[..], b"{}"].concat(), "something else behind its gzip");
        check("zstd", b"{\"id\": 1}\n{\"id\": 2}\n", "not zstd");
        for end in [0, 3, 500] {
            check("zstd", &zstd(&text)[..end], "not complete zstd");
        }
        let mut damaged = zstd(&text);
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        check("zstd", &damaged, "checksum");
        // A frame that needs a window of 64 MiB.
        check("zstd", &[0x28, 0xb5, 0x2f, 0xfd, 0x00, 16 << 3, 0, 0, 0, 0], "window");
        assert!(Coding::of("br").is_none());
    }
}
