//! Owns how a compressed file is read.
//! Must not know its form.

use std::io::{self, Read};

use crate::coding::part::Coding;

const PART: usize = 64 << 10;

/// The bytes of a compressed stream.
pub(crate) struct CodedReader<R> {
    from: R,
    coding: Coding,
    input: Vec<u8>,
    /// Of the input, what is not decompressed.
    begin: usize,
    plain: Vec<u8>,
    /// Of the plain bytes, what was not returned.
    returned: usize,
    is_over: bool,
}

impl<R: Read> CodedReader<R> {
    pub(crate) fn new(from: R, coding: Coding) -> Self {
        Self { from, coding, input: Vec::new(), begin: 0, plain: Vec::new(), returned: 0, is_over: false }
    }

    /// More plain bytes, unless it is over.
    fn fill(&mut self) -> io::Result<()> {
        let broken = |text: String| io::Error::new(io::ErrorKind::InvalidData, text.replace("the body", "the file"));
        self.returned = 0;
        self.plain.clear();
        while self.plain.is_empty() && !self.is_over {
            if self.begin == self.input.len() {
                self.input.resize(PART, 0);
                let read = self.from.read(&mut self.input)?;
                self.input.truncate(read);
                self.begin = 0;
                if read == 0 {
                    self.is_over = true;
                    return self.coding.end(&mut self.plain).map_err(broken);
                }
            }
            let mut rest = &self.input[self.begin..];
            self.coding.next(&mut rest, &mut self.plain).map_err(broken)?;
            self.begin = self.input.len() - rest.len();
        }
        Ok(())
    }
}

impl<R: Read> Read for CodedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.returned == self.plain.len() {
            self.fill()?;
        }
        let rest = &self.plain[self.returned..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.returned += length;
        Ok(length)
    }
}
