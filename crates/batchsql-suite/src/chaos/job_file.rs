//! Owns files of JSON with which a conductor and its processes tell each other something.
//! Must not know what they have.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes a value into a file.
///
/// # Errors
/// The file cannot be written.
pub(super) fn write<T: Serialize>(value: &T, file: &Path) -> Result<()> {
    let text = serde_json::to_string(value).context("cannot write JSON")?;
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Reads it.
///
/// # Errors
/// The file cannot be read, or has something else.
pub(super) fn read<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} has something else", file.display()))
}
