//! Owns the file system of the machine.
//! Must not know segments and records.

use std::{
    fs, io,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{Access, File, FileSystem, Lock};

/// The file system of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFileSystem;

#[derive(Debug)]
struct RealFile(fs::File);

/// The lock ends when it is dropped, or when the process is killed. Closing the file alone would not do: a process that another
/// thread is about to start has a copy of the file until it runs its program.
#[derive(Debug)]
struct RealLock {
    file: fs::File,
}

impl Lock for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        // Otherwise it ends with the last copy.
        let _ = self.file.unlock();
    }
}

impl FileSystem for RealFileSystem {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        // The folders that are missing, the last one first; and the folder itself, which may have been made by a process
        // that ended before its name was on disk.
        let mut names: Vec<&Path> = path.ancestors().take_while(|folder| !folder.is_dir()).collect();
        names.retain(|folder| !folder.as_os_str().is_empty());
        if names.is_empty() {
            names.push(path);
        }
        fs::create_dir_all(path)?;
        // Without it a power loss may take the folders away, and with them the log.
        names.into_iter().try_for_each(|folder| match folder.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_folder(parent),
            Some(_) => self.sync_folder(Path::new(".")),
            None => Ok(()),
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(RealLock { file }))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<(String, u64)>> {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry?;
            let metadata = match entry.metadata() {
                // Removed since the folder was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                files.push((name, metadata.len()));
            }
        }
        Ok(files)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut options = fs::OpenOptions::new();
        // It has values of rows, so it is private.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.read(true).write(true).create_new(true).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(access == Access::Write).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    #[cfg(unix)]
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    /// NTFS writes names with its own journal, and has no call for a folder.
    #[cfg(not(unix))]
    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    #[cfg(unix)]
    fn free_bytes(&self, path: &Path) -> io::Result<Option<u64>> {
        let space = rustix::fs::statvfs(path)?;
        Ok(Some(space.f_bavail.saturating_mul(space.f_frsize)))
    }

    #[cfg(not(unix))]
    fn free_bytes(&self, _: &Path) -> io::Result<Option<u64>> {
        Ok(None)
    }

    fn now(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

impl File for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match read_some(&self.0, &mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            match write_some(&self.0, &bytes[written..], offset + written as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

#[cfg(unix)]
fn read_some(file: &fs::File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

#[cfg(unix)]
fn write_some(file: &fs::File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::write_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_some(file: &fs::File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
}

#[cfg(windows)]
fn write_some(file: &fs::File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, bytes, offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_although_a_process_that_is_being_started_has_a_copy_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("LOCK");
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path).unwrap();
        file.try_lock().unwrap();
        let lock = RealLock { file };
        let copy = lock.file.try_clone().unwrap();
        assert!(RealFileSystem.lock(&path).unwrap().is_none());
        drop(lock);
        assert!(RealFileSystem.lock(&path).unwrap().is_some());
        drop(copy);
    }
}
