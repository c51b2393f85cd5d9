//! Owns a small disk in memory (tmpfs) that can be filled. It needs root.
//! Must not know what is on it.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// Its size. A server with its first files takes less than half of it.
const SIZE: &str = "400m";
const BALLAST: &str = "ballast";

/// A mounted disk. It is unmounted when this is dropped.
#[derive(Debug)]
pub(super) struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Mounts a disk.
    ///
    /// # Errors
    /// This process may not mount disks.
    pub(super) fn mount() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("chaos").tempdir().context("cannot create a folder")?;
        // Servers run as other users.
        open_to_all(folder.path())?;
        let options = format!("size={SIZE},mode=1777");
        let mut mount = Command::new("mount");
        let output = mount.args(["-t", "tmpfs", "-o", &options, "batchsql-chaos"]).arg(folder.path()).output();
        succeeded(output.context("cannot run the program mount")?).context("cannot mount a tmpfs, which needs root")?;
        Ok(Self { folder })
    }

    /// Its folder.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Whether a server from programs of this machine has its files here: those of a container are elsewhere. Its keeper
    /// notes the number of its process.
    pub(super) fn has_server(&self) -> bool {
        let folders = std::fs::read_dir(self.path()).into_iter().flatten().flatten();
        folders.map(|folder| folder.path()).any(|folder| folder.join("pid").exists())
    }

    fn ballast(&self) -> PathBuf {
        self.path().join(BALLAST)
    }

    /// Fills it.
    pub(super) fn fill(&self) -> Result<()> {
        let mut file = std::fs::File::create(self.ballast()).context("cannot fill the disk")?;
        for mut size in [1_usize << 20, 1 << 12, 1] {
            let piece = vec![0; size];
            while size > 0 {
                match file.write(&piece) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => size = 0,
                    Err(error) => return Err(error).context("cannot fill the disk"),
                }
            }
        }
        Ok(())
    }

    /// Gives the space back.
    pub(super) fn free(&self) -> Result<()> {
        std::fs::remove_file(self.ballast()).context("cannot free the disk")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A server may still have files open for a moment.
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

fn open_to_all(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let permissions = std::fs::Permissions::from_mode(0o1777);
    std::fs::set_permissions(folder, permissions).context("cannot open the folder to the users of servers")
}

fn succeeded(output: Output) -> Result<()> {
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
