//! What must hold before anything is started: ports that are free, and a configuration that Prometheus takes.
//! Must not know how anything is started.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::Context;

use super::{listener, options::Options};
use crate::servers::{self, port};

/// A port, and how another one is chosen.
struct Wanted {
    of: &'static str,
    port: u16,
    option: &'static str,
    variable: &'static str,
}

/// Every port that is needed must be free, and all must differ: each mistake with what to do about it.
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
    let wanted: Vec<_> = [Some(prometheus), with_grafana.then_some(grafana)].into_iter().flatten().collect();
    let mut trouble = same(&wanted, options);
    for wanted in wanted.iter().filter(|wanted| wanted.port != 0 && !port::is_free(wanted.port)) {
        let Wanted { of, port, option, variable } = wanted;
        let who =
            listener::of(*port).unwrap_or_else(|| "another program (of another user, so it cannot be named)".into());
        trouble.push(format!(
            "port {port} of {of} is taken by {who}; stop that, or choose another port with {option} or {variable}"
        ));
    }
    anyhow::ensure!(trouble.is_empty(), "{}", trouble.join("\n       "));
    Ok(())
}

fn same(wanted: &[Wanted], options: &Options) -> Vec<String> {
    let others = [("the suite's metrics", options.metrics_port), ("the application's metrics", options.app_port)];
    let mut trouble = Vec::new();
    for (index, one) in wanted.iter().enumerate().filter(|(_, one)| one.port != 0) {
        let further = wanted[index + 1..].iter().map(|other| (other.of, other.port));
        for (of, _) in further.chain(others).filter(|(_, port)| *port == one.port) {
            trouble.push(format!("{} and {of} cannot both have port {}; give one of them another", one.of, one.port));
        }
    }
    trouble
}

/// What promtool says of the configuration and the rules; None without a promtool.
pub(super) fn configuration(monitoring: &Path) -> anyhow::Result<Option<()>> {
    let file = monitoring.join("prometheus.yml");
    anyhow::ensure!(file.is_file(), "there is no {}", file.display());
    let Some(promtool) = servers::program(&["promtool"]) else { return Ok(None) };
    let mut check = Command::new(&promtool);
    let output = check.args(["check", "config"]).arg(&file).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot start {}", promtool.display()))?;
    let words = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).trim().to_owned();
    anyhow::ensure!(output.status.success(), "promtool refuses {}:\n{words}", file.display());
    Ok(Some(()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

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
    fn ports_differ() {
        let check = |args: [&str; 2], part: &str| {
            let words = trouble(&args.map(str::to_owned), true);
            assert!(words.contains(part), "{words}");
        };
        check(["--prometheus-port=9091", "--grafana-port=0"], "Prometheus and the suite's metrics cannot both");
        check(["--prometheus-port=3999", "--grafana-port=3999"], "Prometheus and Grafana cannot both");
        assert_eq!(trouble(&["--prometheus-port=0".to_owned(), "--grafana-port=0".to_owned()], true), "");
    }

    #[test]
    fn the_configuration_of_this_repository_is_taken() {
        configuration(&crate::cargo::workspace_root().join("monitoring")).unwrap();
        let error = configuration(Path::new("/there-is-no-such-folder")).unwrap_err().to_string();
        assert!(error.contains("/there-is-no-such-folder/prometheus.yml"), "{error}");
    }
}
