//! `cargo xtask bench`: the benchmarks of the suite crate, built for release, with the servers of their databases.
//! Must not know what the benchmarks measure or which arguments they take, except those that select servers.

use std::{ffi::OsString, process::ExitCode};

use crate::{
    chaos,
    databases::{self, Build},
    suite,
};

/// The groups that measure servers even without `--db`, and which.
const SERVERS: [(&str, &str); 3] =
    [("distance", "--db=postgres,mysql"), (LOAD, "--db=postgres,mysql,sqlite"), (OUTAGE, "--db=postgres")];
/// The group that measures the program `batchsql`.
const LOAD: &str = "load";
/// The group that stops its server, so it starts one by itself.
const OUTAGE: &str = "outage";
const PROGRAM: suite::Binary = suite::Binary { name: "batchsql-bench", profile: "release", features: None };

pub(crate) fn run(arguments: suite::Arguments) -> anyhow::Result<ExitCode> {
    let mut args = with_servers(arguments.args);
    if args.iter().any(|arg| arg == OUTAGE) {
        return chaos::run_program(&PROGRAM, &[], suite::Arguments { args });
    }
    if needs_program(&args) {
        let Some(program) = suite::build_program()? else { return Ok(ExitCode::FAILURE) };
        args.extend(["--program".into(), program.into()]);
    }
    databases::run("bench", Build::Bench, args, "")
}

fn is_help(arg: &OsString) -> bool {
    arg == "--help" || arg == "-h"
}

/// Whether the program has to be built.
fn needs_program(args: &[OsString]) -> bool {
    let is_given = |arg: &OsString| arg.to_str().is_some_and(|arg| arg == "--program" || arg.starts_with("--program="));
    args.iter().any(|arg| arg == LOAD) && !args.iter().any(|arg| is_given(arg) || is_help(arg))
}

fn with_servers(mut args: Vec<OsString>) -> Vec<OsString> {
    let names_databases =
        args.iter().filter_map(|arg| arg.to_str()).any(|arg| arg == "--db" || arg.starts_with("--db="));
    if !names_databases
        && let Some((_, servers)) = SERVERS.iter().find(|(group, _)| args.iter().any(|arg| arg == group))
    {
        args.push((*servers).into());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_servers_without_being_told() {
        let check = |args: &[&str], expected: &[&str]| {
            assert_eq!(with_servers(args.iter().map(OsString::from).collect()), expected, "{args:?}");
        };
        check(&["distance", "--quick"], &["distance", "--quick", "--db=postgres,mysql"]);
        check(&["distance", "--db", "mysql"], &["distance", "--db", "mysql"]);
        check(&["--db=mysql", "distance"], &["--db=mysql", "distance"]);
        check(&["load"], &["load", "--db=postgres,mysql,sqlite"]);
        check(&["outage"], &["outage", "--db=postgres"]);
        check(&["scale", "--quick"], &["scale", "--quick"]);
        check(&[], &[]);
    }

    #[test]
    fn only_the_group_that_loads_files_needs_the_program() {
        let needs = |args: &[&str]| needs_program(&args.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(needs(&["load", "--rounds", "1"]));
        assert!(!needs(&["load", "--program", "a"]) && !needs(&["load", "--program=a"]) && !needs(&["load", "--help"]));
        assert!(!needs(&["scale"]) && !needs(&[]));
    }
}
