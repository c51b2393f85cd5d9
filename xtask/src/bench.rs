//! `cargo xtask bench`: the benchmarks of the suite crate, built for release, with the servers of their databases.
//! Must not know what the benchmarks measure or which arguments they take, except those that select servers.

use std::{ffi::OsString, process::ExitCode};

use crate::{databases, suite};

/// The group that measures servers even without `--db`.
const DISTANCE: &str = "distance";
const SERVERS_OF_DISTANCE: &str = "--db=postgres,mysql";

pub(crate) fn run(arguments: suite::Arguments) -> anyhow::Result<ExitCode> {
    databases::run("bench", "batchsql-bench", with_servers(arguments.args), "")
}

fn with_servers(mut args: Vec<OsString>) -> Vec<OsString> {
    let names_databases =
        args.iter().filter_map(|arg| arg.to_str()).any(|arg| arg == "--db" || arg.starts_with("--db="));
    if !names_databases && args.iter().any(|arg| arg == DISTANCE) {
        args.push(SERVERS_OF_DISTANCE.into());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_group_has_servers_without_being_told() {
        let check = |args: &[&str], expected: &[&str]| {
            assert_eq!(with_servers(args.iter().map(OsString::from).collect()), expected, "{args:?}");
        };
        check(&["distance", "--quick"], &["distance", "--quick", "--db=postgres,mysql"]);
        check(&["distance", "--db", "mysql"], &["distance", "--db", "mysql"]);
        check(&["--db=mysql", "distance"], &["--db=mysql", "distance"]);
        check(&["scale", "--quick"], &["scale", "--quick"]);
        check(&[], &[]);
    }
}
