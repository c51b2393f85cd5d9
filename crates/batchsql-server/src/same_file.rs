//! Owns whether two names, or a name and an open file, are one file: also through links.
//! Must not know what is in them.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Whether the file still has this name.
#[cfg(unix)]
pub(crate) fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    let file = identity(&file.metadata()?);
    match std::fs::metadata(path) {
        Ok(named) => Ok(identity(&named) == file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
pub(crate) fn is_named(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

/// Whether both names are of one file. False if one of them is of none.
#[cfg(unix)]
pub(crate) fn is_same(one: &Path, other: &Path) -> bool {
    match (std::fs::metadata(one), std::fs::metadata(other)) {
        (Ok(one), Ok(other)) => identity(&one) == identity(&other),
        _ => false,
    }
}

#[cfg(not(unix))]
pub(crate) fn is_same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

#[cfg(unix)]
fn identity(file: &std::fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (file.dev(), file.ino())
}

/// A path without links, of which the end may not be there yet.
pub(crate) fn resolved(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let found = whole.ancestors().find_map(|there| Some((there, there.canonicalize().ok()?)));
    match found.and_then(|(there, found)| Some((found, whole.strip_prefix(there).ok()?))) {
        // A path without an end would get a separator.
        Some((found, end)) if end.as_os_str().is_empty() => found,
        Some((found, end)) => found.join(end),
        None => whole,
    }
}
