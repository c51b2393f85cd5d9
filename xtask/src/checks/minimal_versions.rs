//! `cargo xtask minimal-versions`: the published packages build with the oldest versions of their direct dependencies that
//! the manifests allow. Must not know those versions.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;

use super::tool;
use crate::{cargo, interrupt, steps::Steps, workspace};

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let packages = workspace::published()?;
    let (mut update, mut check) = (tool::cargo_of(tool::NIGHTLY)?, tool::cargo_of(tool::NIGHTLY)?);
    update.args(["update", "--quiet", "-Z", "direct-minimal-versions"]);
    check.args(["check", "--all-features", "--target-dir", tool::NIGHTLY_TARGET]).args(workspace::arguments(&packages));
    // A signal must not end this program before Cargo.lock is restored.
    interrupt::watch(|_| ()).context("cannot watch for Ctrl-C")?;
    let lock = Kept::new(cargo::workspace_root().join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let mut steps = Steps::default();
    steps.run("oldest versions of direct dependencies", update);
    // Otherwise it would check the versions of Cargo.lock as it is.
    if !steps.failed() {
        steps.run("check", check);
    }
    drop(lock);
    Ok(steps.finish())
}

/// A file with the content that it had, which it gets back when this is dropped.
struct Kept {
    path: PathBuf,
    content: Vec<u8>,
}

impl Kept {
    fn new(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_owned();
        Ok(Self { content: fs::read(&path)?, path })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.path, &self.content) {
            say!("cannot restore {}: {error}; git has it", self.path.display());
        }
    }
}
