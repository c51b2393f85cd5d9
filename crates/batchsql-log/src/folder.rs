//! Owns the folder of a log: its lock and its identity.
//! Must not know segments, except that they are there.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    io,
};

use crate::{
    error::{LogError, LogErrorKind},
    format::{
        identity::{Identity, NotAnIdentity},
        names::{self, IDENTITY, LOCK, TEMPORARY},
        segment::VERSION,
    },
    fs::{Access, Lock, read_exact_at, remove_if_there},
    options::Options,
    partition,
};

/// The identity file is a few lines; a larger one is not ours.
const LARGEST_IDENTITY: u64 = 4 << 10;

/// Creates the folder if it is missing, and locks it.
pub(crate) fn lock(options: &Options) -> Result<Box<dyn Lock>, LogError> {
    let folder = &options.folder;
    let file_system = &*options.file_system;
    file_system.create_folder(folder).map_err(|error| LogError::io("create the folder", folder, error))?;
    let path = folder.join(LOCK);
    let lock = file_system.lock(&path).map_err(|error| LogError::io("lock", &path, error))?;
    lock.ok_or_else(|| {
        let message = format!(
            "the log in {} is used by another process, or is open in this one; give each process a folder of its own",
            folder.display()
        );
        LogError::new(LogErrorKind::Locked, message)
    })
}

/// Reads the identity, or makes one for an empty folder. Returns whether it is new.
pub(crate) fn identity(options: &Options) -> Result<(Identity, bool), LogError> {
    if let Some(identity) = read(options)? {
        return Ok((identity, false));
    }
    let folder = &options.folder;
    let files = options.file_system.list(folder).map_err(|error| LogError::io("list", folder, error))?;
    if let Some((name, _)) = files.iter().find(|(name, _)| name != LOCK && !name.ends_with(TEMPORARY)) {
        let advice = match names::parse(name) {
            Some(_) => {
                "has segments of a log, but its file IDENTITY is missing; restore it from a backup, or move the files"
            }
            None => "has other files; give the log a folder of its own",
        };
        let message = format!("the folder {} {advice} (found {name})", folder.display());
        return Err(LogError::new(LogErrorKind::Foreign, message));
    }
    let hash = partition::HASH.to_owned();
    let identity = Identity { version: VERSION, incarnation: random_id(options), partitions: options.partitions, hash };
    write(options, &identity)?;
    Ok((identity, true))
}

/// The identity of an existing folder, without changing anything. `None` if it has none.
pub(crate) fn read(options: &Options) -> Result<Option<Identity>, LogError> {
    let path = options.folder.join(IDENTITY);
    let read = || -> io::Result<Vec<u8>> {
        let file = options.file_system.open(&path, Access::Read)?;
        let mut text = vec![0; usize::try_from(file.length()?.min(LARGEST_IDENTITY)).unwrap_or_default()];
        read_exact_at(&*file, &mut text, 0)?;
        Ok(text)
    };
    let text = match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|error| LogError::io("read", &path, error))?,
    };
    let refused = |kind, advice: String| LogError::new(kind, format!("the file {} {advice}", path.display()));
    match Identity::decode(&text) {
        Ok(identity) if identity.hash == partition::HASH => Ok(Some(identity)),
        Ok(identity) => {
            let advice =
                format!("names the hash {}, which this program does not know; use a newer program", identity.hash);
            Err(refused(LogErrorKind::NewerFormat, advice))
        }
        Err(NotAnIdentity::Newer(version)) => {
            let advice = format!(
                "has version {version} of the format, this program reads up to version {VERSION}; use a newer program"
            );
            Err(refused(LogErrorKind::NewerFormat, advice))
        }
        Err(NotAnIdentity::Damaged) => {
            let advice =
                "is damaged or is not that of a log; restore it from a backup, the segments are not touched".to_owned();
            Err(refused(LogErrorKind::Foreign, advice))
        }
    }
}

/// Writes the identity as a whole: it has its name only when it is synced.
pub(crate) fn write(options: &Options, identity: &Identity) -> Result<(), LogError> {
    let (folder, file_system) = (&options.folder, &*options.file_system);
    let path = folder.join(IDENTITY);
    let temporary = folder.join(format!("{IDENTITY}{TEMPORARY}"));
    let write = || -> io::Result<()> {
        remove_if_there(file_system, &temporary)?;
        let file = file_system.create(&temporary)?;
        file.write_at(identity.encode().as_bytes(), 0)?;
        file.sync_data()?;
        file_system.rename(&temporary, &path)?;
        file_system.sync_folder(folder)
    };
    write().map_err(|error| LogError::io("write", &path, error))
}

/// 128 bits of the random keys that the standard library gets from the operating system, with the time.
fn random_id(options: &Options) -> [u8; 16] {
    let mut id = [0; 16];
    for half in id.chunks_mut(8) {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u64(options.file_system.now());
        hasher.write_u32(std::process::id());
        half.copy_from_slice(&hasher.finish().to_le_bytes());
    }
    id
}
