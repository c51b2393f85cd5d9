//! The checks before a start: free ports, and a valid configuration of Prometheus.
//! Must not know how anything is started.

use std::{
    io::ErrorKind,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::Context;

use super::{listener, options::Options};
use crate::{
    files,
    servers::{self, port},
};

/// A port, and the option for another one.
struct Wanted {
    of: &'static str,
    port: u16,
    option: &'static str,
    variable: &'static str,
}

impl Wanted {
    /// Why the port cannot be used, and what to do.
    fn trouble(&self) -> Option<String> {
        let error = TcpListener::bind(port::local(self.port)).err().filter(|_| self.port != 0)?;
        Some(self.told(error.kind(), listener::of(self.port)))
    }

    fn told(&self, kind: ErrorKind, listener: Option<String>) -> String {
        let Self { of, port, option, variable } = self;
        let another = format!("choose another port with {option} or {variable}");
        match kind {
            ErrorKind::PermissionDenied => format!("port {port} of {of} needs root; {another}"),
            ErrorKind::AddrInUse => {
                let another_user = || "another program (of another user, so it cannot be named)".into();
                let who = listener.unwrap_or_else(another_user);
                format!("port {port} of {of} is taken by {who}; stop that, or {another}")
            }
            _ => format!("port {port} of {of} cannot be used: {kind}; {another}"),
        }
    }
}

/// Checks that every needed port is free and that all differ; each error says what to do.
pub(super) fn ports(options: &Options, with_grafana: bool) -> anyhow::Result<()> {
    let prometheus = Wanted {
        of: "Prometheus",
        port: options.prometheus_port,
        option: "--prometheus-port",
        variable: "BATCHSQL_PROMETHEUS_PORT",
    };
    let grafana = Wanted {
        of: "Grafana",
        port: options.grafana_port,
        option: "--grafana-port",
        variable: "BATCHSQL_GRAFANA_PORT",
    };
    let app = Wanted {
        of: "the application's metrics",
        port: options.app_port,
        option: "--app-port",
        variable: "BATCHSQL_APP_PORT",
    };
    let ours: Vec<_> = [Some(prometheus), with_grafana.then_some(grafana)].into_iter().flatten().collect();
    let own: Vec<_> = ours.iter().filter_map(Wanted::trouble).collect();
    let trouble = [same(&ours.into_iter().chain([suite(options), app]).collect::<Vec<_>>()), own].concat();
    anyhow::ensure!(trouble.is_empty(), "{}", trouble.join("\n       "));
    Ok(())
}

fn suite(options: &Options) -> Wanted {
    Wanted {
        of: "the suite's metrics",
        port: options.metrics_port,
        option: "--metrics-port",
        variable: "PROMETHEUS_PORT",
    }
}

/// A note about the process that listens on the suite's port. It is not an error, because it may be a suite.
pub(super) fn suite_port(options: &Options) -> Option<String> {
    let taken = TcpListener::bind(port::local(options.metrics_port)).err()?.kind() == ErrorKind::AddrInUse;
    let who = listener::of(options.metrics_port).unwrap_or_else(|| "another program".to_owned());
    taken.then(|| {
        format!(
            "{who} listens on port {}, the port of the suite's metrics; unless it is a suite, stop it, or choose \
             another port with --metrics-port or PROMETHEUS_PORT",
            options.metrics_port
        )
    })
}

fn same(wanted: &[Wanted]) -> Vec<String> {
    let pairs =
        wanted.iter().enumerate().flat_map(|(index, one)| wanted[index + 1..].iter().map(move |other| (one, other)));
    let equal = pairs.filter(|(one, other)| one.port != 0 && one.port == other.port);
    let told = |(one, other): (&Wanted, &Wanted)| {
        format!(
            "{} and {} cannot both have port {}; choose another with {} or {}, {} or {}",
            one.of, other.of, one.port, one.option, one.variable, other.option, other.variable
        )
    };
    equal.map(told).collect()
}

/// Checks the configuration and the rules with promtool; `None` without promtool.
pub(super) fn configuration(monitoring: &Path) -> anyhow::Result<Option<()>> {
    let file = monitoring.join("prometheus.yml");
    anyhow::ensure!(file.is_file(), "there is no {}", file.display());
    // promtool accepts a pattern for rule files that matches none.
    files::yaml(&monitoring.join("rules"), "")?;
    let Some(promtool) = servers::program(&["promtool"]) else { return Ok(None) };
    let mut check = Command::new(&promtool);
    let output = check.args(["check", "config"]).arg(&file).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot start {}", promtool.display()))?;
    let words = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).trim().to_owned();
    anyhow::ensure!(output.status.success(), "promtool rejects {}:\n{words}", file.display());
    Ok(Some(()))
}

#[cfg(test)]
mod tests {
    use std::{
        fs, thread,
        time::{Duration, Instant},
    };

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn trouble(args: &[String], with_grafana: bool) -> String {
        let options = Cli::parse_from(std::iter::once("x".to_owned()).chain(args.iter().cloned())).options;
        ports(&options, with_grafana).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_port_that_is_taken_names_its_process_and_its_option() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let args = ["--prometheus-port=0".to_owned(), format!("--grafana-port={port}")];
        let words = trouble(&args, true);
        for word in [format!("port {port} of Grafana"), "--grafana-port".into(), std::process::id().to_string()] {
            assert!(words.contains(&word), "{words}");
        }
        assert_eq!(trouble(&args, false), "", "no Grafana, no port");
    }

    #[test]
    fn a_suite_may_run_already() {
        // A program that another test starts has every open file for a moment, until it is executed: then it counts as
        // a listener, too.
        let becomes = |what: &str, holds: &dyn Fn() -> bool| {
            let start = Instant::now();
            while !holds() {
                assert!(start.elapsed() < Duration::from_secs(60), "{what}");
                thread::sleep(Duration::from_millis(10));
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let options = || Cli::parse_from(["x", "--metrics-port", &port.to_string()]).options;
        let words = format!("pid {}) listens on port {port}", std::process::id());
        becomes("it is named", &|| suite_port(&options()).is_some_and(|told| told.contains(&words)));
        drop(listener);
        becomes("the port is free", &|| suite_port(&options()).is_none());
    }

    #[test]
    fn ports_differ() {
        let check = |args: [&str; 2], part: &str| {
            let words = trouble(&args.map(str::to_owned), true);
            assert!(words.contains(part), "{words}");
        };
        check(["--prometheus-port=9091", "--grafana-port=0"], "Prometheus and the suite's metrics cannot both");
        check(["--prometheus-port=3999", "--grafana-port=3999"], "Prometheus and Grafana cannot both");
        check(
            ["--prometheus-port=0", "--app-port=9091"],
            "the suite's metrics and the application's metrics cannot both",
        );
        assert_eq!(trouble(&["--prometheus-port=0".to_owned(), "--grafana-port=0".to_owned()], true), "");
    }

    #[test]
    fn a_port_that_may_not_be_used_is_not_called_taken() {
        let wanted = Wanted { of: "Grafana", port: 80, option: "--grafana-port", variable: "BATCHSQL_GRAFANA_PORT" };
        let another = "choose another port with --grafana-port or BATCHSQL_GRAFANA_PORT";
        let told = wanted.told(ErrorKind::PermissionDenied, None);
        assert_eq!(told, format!("port 80 of Grafana needs root; {another}"));
        let told = wanted.told(ErrorKind::AddrInUse, Some("the process nginx (pid 7)".into()));
        assert_eq!(told, format!("port 80 of Grafana is taken by the process nginx (pid 7); stop that, or {another}"));
    }

    #[test]
    fn a_configuration_without_rules_is_refused() {
        let keeper = servers::Keeper::new("test", servers::Account::Caller, "TERM").unwrap();
        keeper.write("prometheus.yml", "rule_files: [rules/*.yml]\n").unwrap();
        let refused = |part: &str| {
            let error = configuration(keeper.folder()).unwrap_err();
            assert!(format!("{error:#}").contains(part), "{error:#}");
        };
        refused("cannot read ");
        fs::create_dir(keeper.folder().join("rules")).unwrap();
        refused("there is no *.yml in ");
    }

    #[test]
    fn the_configuration_of_this_repository_is_taken() {
        configuration(&crate::cargo::workspace_root().join("monitoring")).unwrap();
        let error = configuration(Path::new("/there-is-no-such-folder")).unwrap_err().to_string();
        assert!(error.contains("/there-is-no-such-folder/prometheus.yml"), "{error}");
    }
}
