//! `cargo xtask chaos`: faults on real servers under load. The program starts its servers with the verb `server`.
//! Must not know faults, or the arguments of the program except `--db` and `--no-install`.

use std::{
    env,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::Context;

use crate::{
    cargo, databases, interrupt,
    servers::{Kind, Sources, is_root},
    suite::{self, Binary},
};

/// With debug assertions and checks of overflow: it looks for defects, and measures nothing.
const PROGRAM: Binary = Binary { name: "batchsql-chaos", profile: "dev", features: None };

pub(crate) fn run(arguments: suite::Arguments) -> anyhow::Result<ExitCode> {
    run_program(&PROGRAM, &[], arguments)
}

/// Builds a program that starts servers by itself, those that `--db` names and further ones, and runs it.
pub(crate) fn run_program(program: &Binary, further: &[Kind], arguments: suite::Arguments) -> anyhow::Result<ExitCode> {
    let this = env::current_exe().context("cannot find this program")?;
    let is_help = arguments.args.iter().any(|arg| arg == "--help" || arg == "-h");
    let (servers, may_install, args) = databases::asked_for(arguments.args);
    if !is_help {
        // Here, because the servers of several databases are started at the same time. If that fails, each server says why.
        let sources = Sources::new(may_install);
        let _ = sources.install_programs(&servers, &[]);
        sources.install(further);
    }
    suite::build_and_run(program, |program| {
        interrupt::watch(|_| ()).context("cannot watch for Ctrl-C")?;
        let mut program = isolated(program.get_program().as_ref());
        cargo::forget_this_package(&mut program);
        program.args(&args).env("BATCHSQL_XTASK", &this).env("BATCHSQL_NO_INSTALL", "1");
        let status = interrupt::status(&mut program).context("cannot start the program")?;
        Ok(cargo::exit_code(status))
    })
}

/// The program; as root in a mount namespace of its own, so that its small disks end with it, in whatever way it ends.
fn isolated(program: &Path) -> Command {
    let mut unshare = Command::new("unshare");
    unshare.arg("--mount").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if is_root() && unshare.arg("true").status().is_ok_and(|status| status.success()) {
        let mut command = Command::new("unshare");
        command.arg("--mount").arg(program);
        return command;
    }
    Command::new(program)
}
