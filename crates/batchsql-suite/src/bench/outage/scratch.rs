//! Owns the folder of a measurement: it may have gigabytes, and must not stay when the program is killed.
//! Must not know what is in it.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// Waits for the end of its input, which is that of this program, and removes the folder.
const REMOVE: &str = r#"trap "" INT TERM HUP; cat > /dev/null; rm -rf -- "$0""#;

/// A folder that is removed when this is dropped, or when the program ends in another way, for example by `kill -9`.
#[derive(Debug)]
pub(super) struct Scratch {
    folder: Option<TempDir>,
    remover: Child,
}

impl Scratch {
    pub(super) fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("batchsql-outage-").tempdir().context("cannot create a folder")?;
        let remover = Command::new("sh")
            .arg("-c")
            .arg(REMOVE)
            .arg(folder.path())
            // Ctrl-C is not for it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start a shell")?;
        Ok(Self { folder: Some(folder), remover })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.as_ref().map_or(Path::new(""), TempDir::path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.folder.take());
        // The end of its input ends it.
        drop(self.remover.stdin.take());
        let _ = self.remover.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_folder_goes_with_its_owner() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().to_owned();
        std::fs::write(path.join("file"), "x").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn the_folder_goes_without_its_owner() {
        let mut scratch = Scratch::new().unwrap();
        let path = scratch.path().to_owned();
        std::fs::create_dir(path.join("log")).unwrap();
        std::fs::write(path.join("log/file"), "x").unwrap();
        // As when the program is killed: only the input ends.
        drop(scratch.remover.stdin.take());
        let begin = Instant::now();
        while path.exists() {
            assert!(begin.elapsed() < Duration::from_secs(60), "{} is still there", path.display());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
