//! Owns copies of damaged bytes.
//! Must not know why they are damaged.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    format::names::{QUARANTINE, TEMPORARY},
    fs::{File, FileSystem, remove_if_there},
};

const CHUNK: u64 = 1 << 20;

/// A copy of a damaged part.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) path: PathBuf,
    pub(crate) was_known: bool,
}

/// Copies a part of a segment to the folder of damaged bytes, once: the name says which part it is.
pub(crate) fn keep(
    file_system: &dyn FileSystem,
    folder: &Path,
    segment: (&str, &dyn File),
    offset: u64,
    length: u64,
) -> io::Result<Kept> {
    let quarantine = folder.join(QUARANTINE);
    let (name, file) = segment;
    let kept = format!("{name}-{offset}-{length}.bin");
    let path = quarantine.join(&kept);
    if file_system.list(&quarantine)?.iter().any(|(known, size)| *known == kept && *size == length) {
        return Ok(Kept { path, was_known: true });
    }
    file_system.create_folder(&quarantine)?;
    let temporary = quarantine.join(format!("{kept}{TEMPORARY}"));
    remove_if_there(file_system, &temporary)?;
    let copied = copy(file_system, file, offset, length, &temporary);
    if let Err(error) = copied.and_then(|()| file_system.rename(&temporary, &path)) {
        // On a full disk new rows need the space.
        let _ = remove_if_there(file_system, &temporary);
        return Err(error);
    }
    file_system.sync_folder(&quarantine)?;
    Ok(Kept { path, was_known: false })
}

fn copy(file_system: &dyn FileSystem, file: &dyn File, offset: u64, length: u64, to: &Path) -> io::Result<()> {
    let copy = file_system.create(to)?;
    let mut done = 0;
    while done < length {
        let mut buffer = vec![0; usize::try_from(CHUNK.min(length - done)).unwrap_or_default()];
        let read = file.read_at(&mut buffer, offset + done)?;
        if read == 0 {
            break;
        }
        copy.write_at(&buffer[..read], done)?;
        done += read as u64;
    }
    copy.sync_data()
}

/// Bytes of all copies.
pub(crate) fn bytes(file_system: &dyn FileSystem, folder: &Path) -> io::Result<u64> {
    Ok(file_system.list(&folder.join(QUARANTINE))?.iter().map(|(_, size)| size).sum())
}
