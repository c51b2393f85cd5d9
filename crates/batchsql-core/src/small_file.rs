//! Owns how a small file is replaced as a whole, and how names get to disk.
//! Must not know what is in a file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Puts this content in place of the file, or makes it, and returns when it is on disk: a crash leaves the old one or the new one.
/// Only one caller at a time may replace a file. Blocks the thread.
///
/// # Errors
/// The disk refuses it. Nothing else is left in the folder: only a crash leaves `NAME.tmp`, which the next call replaces.
pub fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    let written = write(temporary, content).and_then(|()| fs::rename(temporary, path));
    written.inspect_err(|_| {
        // What is reported is why it was not replaced.
        let _ = fs::remove_file(temporary);
    })?;
    sync_folder(path)
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Without it a power loss may undo that the file was made, renamed or removed.
///
/// # Errors
/// The disk refuses it.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    // NTFS writes names with its own journal, and has no call for a folder.
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mark");
        // A crash has left it.
        fs::write(folder.path().join("mark.tmp"), "a longer one").unwrap();
        for content in ["one", "two"] {
            replace_file(&path, content.as_bytes()).unwrap();
            assert_eq!(
                (names(folder.path()), fs::read_to_string(&path).unwrap()),
                (vec!["mark".into()], content.into())
            );
        }
        // It cannot be renamed to a folder.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        replace_file(&path, b"three").unwrap_err();
        assert_eq!(names(folder.path()), ["mark"]);
    }
}
