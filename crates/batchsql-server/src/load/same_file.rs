//! Owns whether two names, or a name and an open file, are one file: also through links.
//! Must not know what is in them.

use std::fs::File;
use std::io;
use std::path::Path;

/// Whether the file still has this name.
#[cfg(unix)]
pub(super) fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    let file = identity(&file.metadata()?);
    match std::fs::metadata(path) {
        Ok(named) => Ok(identity(&named) == file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
pub(super) fn is_named(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

/// Whether both names are of one file. False if one of them is of none.
#[cfg(unix)]
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    match (std::fs::metadata(one), std::fs::metadata(other)) {
        (Ok(one), Ok(other)) => identity(&one) == identity(&other),
        _ => false,
    }
}

#[cfg(not(unix))]
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

#[cfg(unix)]
fn identity(file: &std::fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (file.dev(), file.ino())
}
