//! Random passwords and numbers.
//! Must not know their purpose.

use std::{fs::File, io::Read};

use anyhow::Context;

/// 128 bits in hexadecimal digits, which need no escaping in a DSN, in SQL or in a file.
pub(crate) fn password() -> anyhow::Result<String> {
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes()?)))
}

/// A random number.
pub(crate) fn number() -> anyhow::Result<u32> {
    Ok(u32::from_ne_bytes(bytes()?))
}

fn bytes<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("cannot read /dev/urandom")?;
    Ok(bytes)
}
