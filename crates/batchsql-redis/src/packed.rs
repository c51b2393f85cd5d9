//! Owns one command in its encoded form.
//! Must not know rows or which commands exist.

use crate::types::write_digits;

/// The most memory that a command keeps for reuse, in bytes: one large row must not increase the memory of
/// all others.
const MOST_KEPT: usize = 4096;

/// A command: `$length`, bytes for each argument. The number of arguments is written before them when it is sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Packed {
    bytes: Vec<u8>,
    arguments: usize,
    /// Bytes of all arguments and of the largest one, without the protocol overhead.
    total: usize,
    largest: usize,
}

impl Packed {
    pub(crate) fn clear(&mut self) {
        (self.arguments, self.total, self.largest) = (0, 0, 0);
        self.bytes.clear();
        self.bytes.shrink_to(MOST_KEPT);
    }

    #[inline]
    pub(crate) fn write_arg(&mut self, argument: &[u8]) {
        self.bytes.push(b'$');
        push_number(&mut self.bytes, argument.len());
        self.bytes.extend_from_slice(argument);
        self.bytes.extend_from_slice(b"\r\n");
        self.arguments += 1;
        self.total += argument.len();
        self.largest = self.largest.max(argument.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.arguments
    }

    pub(crate) fn total(&self) -> usize {
        self.total
    }

    pub(crate) fn largest(&self) -> usize {
        self.largest
    }

    /// The arguments, the word of the command first.
    pub(crate) fn arguments(&self) -> Arguments<'_> {
        Arguments(&self.bytes)
    }

    /// The argument with this number; empty if there is none.
    pub(crate) fn argument(&self, number: usize) -> &[u8] {
        self.arguments().nth(number).unwrap_or_default()
    }

    /// Writes it in the protocol's form.
    #[inline]
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        out.push(b'*');
        push_number(out, self.arguments);
        out.extend_from_slice(&self.bytes);
    }
}

/// The arguments of a command.
pub(crate) struct Arguments<'a>(&'a [u8]);

impl<'a> Iterator for Arguments<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let mut length = 0;
        for (index, byte) in self.0.iter().enumerate().skip(1) {
            match byte {
                b'0'..=b'9' => length = length * 10 + usize::from(byte - b'0'),
                _ => {
                    let start = index + 2;
                    let argument = self.0.get(start..start + length)?;
                    self.0 = self.0.get(start + length + 2..)?;
                    return Some(argument);
                }
            }
        }
        None
    }
}

/// Writes digits and the end of the line.
#[inline]
fn push_number(out: &mut Vec<u8>, number: usize) {
    write_digits(out, number as u64);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_packed_as_the_protocol_says_and_read_back() {
        let long = vec![b'x'; 1234];
        let arguments: [&[u8]; 5] = [b"SET", b"", b"a\r\nb$3\r\n", &long, &[0, 255]];
        let mut packed = Packed::default();
        for _ in 0..2 {
            packed.clear();
            arguments.iter().for_each(|argument| packed.write_arg(argument));
            assert_eq!(packed.arguments().collect::<Vec<_>>(), arguments);
            assert_eq!((packed.len(), packed.largest(), packed.total()), (5, 1234, 3 + 8 + 1234 + 2));
            assert_eq!((packed.argument(2), packed.argument(9)), (arguments[2], &[][..]));
            let mut sent = b"before".to_vec();
            packed.append_to(&mut sent);
            assert_eq!(sent[6..], redis::cmd("SET").arg(&arguments[1..]).get_packed_command());
        }
        assert_eq!(Packed::default().arguments().next(), None);
        let mut number = Vec::new();
        push_number(&mut number, usize::MAX);
        assert_eq!(number, format!("{}\r\n", usize::MAX).as_bytes());
    }
}
