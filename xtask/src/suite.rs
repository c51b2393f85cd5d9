//! Builds a binary of the suite crate and replaces this process by it, or runs it.
//! Must not know what the binary does with its arguments.

use std::{
    ffi::OsString,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, ExitCode, ExitStatus, Stdio},
};

use anyhow::Context;
use serde_json::Value;

use crate::cargo;

/// Arguments that are passed to another program unchanged, including `--help`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<OsString>,
}

/// A binary of the suite crate, and how it is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binary {
    pub(crate) name: &'static str,
    pub(crate) profile: &'static str,
    /// The features of the suite crate that are switched on; `None`: the default ones.
    pub(crate) features: Option<Vec<&'static str>>,
}

impl Binary {
    /// The arguments of cargo.
    fn build_args(&self) -> Vec<String> {
        let mut args: Vec<String> =
            ["build", "--package", "batchsql-suite", "--bin", self.name, "--profile", self.profile]
                .map(str::to_owned)
                .into();
        if let Some(features) = &self.features {
            args.extend(["--no-default-features".to_owned(), format!("--features={}", features.join(","))]);
        }
        args
    }
}

/// Returns only when the binary cannot be built or started.
pub(crate) fn build_and_become(binary: &Binary, args: Vec<OsString>) -> anyhow::Result<ExitCode> {
    build_and_run(binary, |command| {
        command.args(args);
        become_program(command)
    })
}

/// Calls `run` with the binary if the build succeeds.
pub(crate) fn build_and_run(
    binary: &Binary,
    run: impl FnOnce(&mut Command) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    match build(binary)? {
        Built::Executable(path) => {
            let mut command = Command::new(path);
            cargo::forget_this_package(&mut command);
            run(&mut command)
        }
        Built::Failed(status) => Ok(cargo::exit_code(status)),
    }
}

enum Built {
    Executable(PathBuf),
    /// Cargo has printed the reason.
    Failed(ExitStatus),
}

/// Builds the program `batchsql` for release, with everything that `load` can read. `None`: cargo has printed why not.
pub(crate) fn build_program() -> anyhow::Result<Option<PathBuf>> {
    let args = ["build", "--package", "batchsql-server", "--bin", "batchsql", "--release", "--features=arrow"];
    eprintln!("==> building batchsql with optimizations; the first time takes minutes");
    match build_with(&args.map(str::to_owned), "batchsql")? {
        Built::Executable(path) => Ok(Some(path)),
        Built::Failed(_) => Ok(None),
    }
}

fn build(binary: &Binary) -> anyhow::Result<Built> {
    let name = binary.name;
    let with = binary.features.as_ref().map_or(String::new(), |features| format!(" with {}", features.join(", ")));
    let how = if binary.profile == "dev" { "for debugging" } else { "with optimizations" };
    eprintln!("==> building {name}{with} {how}; the first time takes minutes");
    build_with(&binary.build_args(), name)
}

fn build_with(args: &[String], name: &str) -> anyhow::Result<Built> {
    // Progress and diagnostics stay on stderr; stdout has the path of the executable for any target directory
    // or target triple.
    let mut child = cargo::command()
        .args(args)
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo; is it in PATH?")?;
    let stdout = child.stdout.take().expect("stdout is piped");
    let mut executable = None;
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cannot read the output of cargo")?;
        executable = executable_in(&line, name).or(executable);
    }
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() {
        return Ok(Built::Failed(status));
    }
    let path = executable.with_context(|| format!("cargo built {name} but did not report its path"))?;
    Ok(Built::Executable(path))
}

/// The executable in one line of cargo's JSON messages, when the line is about `binary`.
fn executable_in(line: &str, binary: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_binary = message["reason"] == "compiler-artifact" && message["target"]["name"] == binary;
    is_binary.then(|| message["executable"].as_str().map(PathBuf::from))?
}

/// Replaces this process, so that signals and the exit status are those of the program: it drains at
/// Ctrl-C or SIGTERM, and no parent process can end before it.
fn become_program(command: &mut Command) -> anyhow::Result<ExitCode> {
    use std::os::unix::process::CommandExt;

    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", command.get_program().display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<&str>) {
        assert_eq!(executable_in(line, "tool"), expected.map(PathBuf::from), "{line}");
    }

    #[test]
    fn only_the_features_that_are_asked_for_are_built() {
        let mut binary = Binary { name: "tool", profile: "release", features: None };
        assert_eq!(binary.build_args().join(" "), "build --package batchsql-suite --bin tool --profile release");
        binary.features = Some(vec!["redis", "sqlite"]);
        assert!(binary.build_args().ends_with(&["--no-default-features".into(), "--features=redis,sqlite".into()]));
    }

    #[test]
    fn the_executable_is_found_among_the_messages() {
        check(r#"{"reason":"compiler-artifact","target":{"name":"tool"},"executable":"/t/tool"}"#, Some("/t/tool"));
        check(r#"{"reason":"compiler-artifact","target":{"name":"tool"},"executable":null}"#, None);
        check(r#"{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/t/other"}"#, None);
        check(r#"{"reason":"build-finished","success":true}"#, None);
        check("not json", None);
    }
}
