//! Owns how COPY writes a value that is sent as text or JSON otherwise.
//! Must not know columns or statements.

use crate::encode::MAX_VALUE_BYTES;
use crate::list::List;
use crate::parsed::Parsed;

/// The binary form of text or JSON for COPY into the table. A batch with a value that it cannot write is sent otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyForm {
    /// Text that the type parses.
    Text(Parsed),
    /// A JSON list for an array.
    List(List),
}

impl CopyForm {
    /// Whether a value can be written. `memory` is a reused buffer.
    pub(crate) fn reads(self, text: &str, memory: &mut Vec<u8>) -> bool {
        memory.clear();
        // An array may be larger than its JSON.
        self.write(text, memory).is_some() && memory.len() <= MAX_VALUE_BYTES
    }

    /// Writes the binary form. Returns `None`, perhaps after a partial write, if there is none.
    pub(crate) fn write(self, text: &str, out: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Text(parsed) => parsed.write(text, out),
            Self::List(list) => list.write(text, out),
        }
    }
}
