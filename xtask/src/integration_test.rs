//! `cargo xtask integration-test`: the suite, built for release, with the servers of its databases, on the port that
//! Prometheus scrapes.
//! Must not know the suite's arguments, except the port that it may have to choose.

use std::{
    ffi::{OsStr, OsString},
    process::ExitCode,
};

use crate::{databases, suite};

/// Not the 9090 of the bare binary: the Prometheus that scrapes the suite listens there.
const METRICS_PORT: &str = "9091";

pub(crate) fn run(arguments: suite::Arguments) -> anyhow::Result<ExitCode> {
    let port_from_env = std::env::var_os("PROMETHEUS_PORT").is_some();
    databases::run("integration-test", "batchsql-suite", with_port(arguments.args, port_from_env))
}

/// The arguments, with the default port in front unless the user chose one.
fn with_port(mut args: Vec<OsString>, port_from_env: bool) -> Vec<OsString> {
    if !port_from_env && !args.iter().any(|arg| chooses_port(arg)) {
        args.splice(0..0, ["--metrics-port".into(), METRICS_PORT.into()]);
    }
    args
}

fn chooses_port(arg: &OsStr) -> bool {
    arg == "--metrics-port" || arg.as_encoded_bytes().starts_with(b"--metrics-port=")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: &[&str], port_from_env: bool, expected: &[&str]) {
        let args = args.iter().map(OsString::from).collect();
        assert_eq!(with_port(args, port_from_env), expected);
    }

    #[test]
    fn the_port_is_added_only_when_nobody_chose_one() {
        check(&[], false, &["--metrics-port", "9091"]);
        check(&["--duration", "5s"], false, &["--metrics-port", "9091", "--duration", "5s"]);
        check(&["--metrics-portal"], false, &["--metrics-port", "9091", "--metrics-portal"]);
        check(&["--metrics-port", "0"], false, &["--metrics-port", "0"]);
        check(&["--metrics-port=0", "-v"], false, &["--metrics-port=0", "-v"]);
        check(&["-v"], true, &["-v"]);
    }
}
