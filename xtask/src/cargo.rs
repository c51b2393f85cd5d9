//! Starts cargo at the workspace root, as from a shell.
//! Must not know any verb.

use std::{
    env,
    path::Path,
    process::{Command, ExitCode, ExitStatus},
};

/// A cargo of the same toolchain that runs this program.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace_root());
    forget_this_package(&mut command);
    command
}

/// Whether `cargo <subcommand>` is installed.
pub(crate) fn has_subcommand(subcommand: &str) -> bool {
    command().args([subcommand, "--version"]).output().is_ok_and(|output| output.status.success())
}

/// Removes the variables that `cargo run` sets for the xtask package. Some build scripts watch them, so a
/// build from here and one from a shell would invalidate each other's cache.
pub(crate) fn forget_this_package(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let about_package = name.to_str().is_some_and(|name| {
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| name.starts_with(prefix))
        });
        if about_package {
            command.env_remove(name);
        }
    }
}

/// The exit status of a program, as the exit code of this one.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

/// The root of this repository.
pub(crate) fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the xtask crate is a folder of the workspace")
}
