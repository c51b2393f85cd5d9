//! `cargo xtask docs`: the documentation as docs.rs builds it, with nightly and `cfg(docsrs)` for the badges of features.
//! `lint` has the same check with the stable toolchain. Must not know the metadata: it is in the manifests.

use std::process::ExitCode;

use super::tool;
use crate::{steps::Steps, workspace};

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let packages = workspace::published()?;
    let mut command = tool::cargo_of(tool::NIGHTLY)?;
    command.args(["doc", "--no-deps", "--all-features", "--lib", "--target-dir", tool::NIGHTLY_TARGET]);
    command.args(workspace::arguments(&packages)).env("RUSTDOCFLAGS", "--cfg docsrs -D warnings");
    let mut steps = Steps::default();
    steps.run("documentation as on docs.rs", command);
    Ok(steps.finish())
}
