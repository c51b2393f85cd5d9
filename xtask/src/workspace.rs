//! The packages of this workspace, as cargo knows them, and which of them are published.
//! Must not know any verb.

use anyhow::Context;
use cargo_metadata::{MetadataCommand, Package};

use crate::cargo;

/// Every package of the workspace.
///
/// # Errors
/// Cargo does not say what is in the workspace.
pub(crate) fn packages() -> anyhow::Result<Vec<Package>> {
    let mut command = MetadataCommand::new();
    command.cargo_path(cargo::command().get_program()).current_dir(cargo::workspace_root()).no_deps();
    Ok(command.exec().context("cargo does not say what is in the workspace")?.packages)
}

/// The packages without `publish = false`.
///
/// # Errors
/// Those of [`packages`].
pub(crate) fn published() -> anyhow::Result<Vec<Package>> {
    Ok(packages()?.into_iter().filter(is_published).collect())
}

/// The published packages that have no program.
///
/// # Errors
/// Those of [`packages`].
pub(crate) fn libraries() -> anyhow::Result<Vec<Package>> {
    let has_program = |package: &Package| package.targets.iter().any(cargo_metadata::Target::is_bin);
    Ok(published()?.into_iter().filter(|package| !has_program(package)).collect())
}

/// `--package NAME` for each package.
pub(crate) fn arguments(packages: &[Package]) -> impl Iterator<Item = &str> {
    packages.iter().flat_map(|package| ["--package", package.name.as_str()])
}

fn is_published(package: &Package) -> bool {
    package.publish.as_ref().is_none_or(|registries| !registries.is_empty())
}
