//! The options of the stack, from arguments and the environment.
//! Must not know how the stack is started.

use std::{ffi::OsString, path::PathBuf};

use clap::{Parser, builder::FalseyValueParser};

use crate::servers::prometheus;

/// The options of the stack.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Port of Prometheus; 0: any free port
    #[arg(long, env = "BATCHSQL_PROMETHEUS_PORT", default_value_t = 9092, value_name = "PORT")]
    pub(crate) prometheus_port: u16,
    /// Port of Grafana; 0: any free port
    #[arg(long, env = "BATCHSQL_GRAFANA_PORT", default_value_t = 3002, value_name = "PORT")]
    pub(crate) grafana_port: u16,
    /// Port on which the suite serves its metrics
    #[arg(long, env = "PROMETHEUS_PORT", default_value_t = 9091, value_name = "PORT", value_parser = target)]
    pub(crate) metrics_port: u16,
    /// Port on which your application serves its metrics
    #[arg(long, env = "BATCHSQL_APP_PORT", default_value_t = 9090, value_name = "PORT", value_parser = target)]
    pub(crate) app_port: u16,
    /// Use Docker, or fail
    #[arg(long, env = "BATCHSQL_MONITOR_DOCKER", value_parser = FalseyValueParser::new())]
    docker: bool,
    /// Use the programs of this machine, even if Docker is available
    #[arg(long, env = "BATCHSQL_MONITOR_LOCAL", value_parser = FalseyValueParser::new())]
    local: bool,
    /// Run it in the background; `cargo xtask monitor down` stops it
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// Do not install Prometheus if it is missing; BATCHSQL_NO_INSTALL=1 has this effect on every verb
    #[arg(long)]
    pub(crate) no_install: bool,
    /// Keep the history in this folder (programs of this machine; Docker has volumes); default: removed at the end
    #[arg(long, env = "BATCHSQL_MONITOR_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// How long Prometheus keeps history
    #[arg(long, env = "BATCHSQL_RETENTION", default_value = "15d", value_name = "TIME", value_parser = duration)]
    pub(crate) retention: String,
    /// Folder to use instead of `monitoring` of this repository
    #[arg(long, env = "BATCHSQL_MONITORING", hide = true)]
    monitoring: Option<PathBuf>,
    /// Set for the process that --detach starts: the log that it writes until it holds the lock
    #[arg(long, hide = true, value_name = "LOG")]
    pub(crate) in_background: Option<PathBuf>,
    /// Why --detach selected this way
    #[arg(long, hide = true, value_name = "REASON")]
    pub(crate) because: Option<String>,
}

/// The way that the user requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forced {
    Docker,
    Local,
}

impl Options {
    /// The options of the environment.
    ///
    /// # Errors
    /// A variable has an invalid value.
    pub(crate) fn of_environment() -> anyhow::Result<Self> {
        #[derive(Parser)]
        struct Environment {
            #[command(flatten)]
            options: Options,
        }
        Ok(Environment::try_parse_from(["monitor"])?.options)
    }

    /// The required way, if any.
    pub(crate) fn forced(&self) -> anyhow::Result<Option<Forced>> {
        match (self.docker, self.local) {
            (true, true) => anyhow::bail!("--docker and --local exclude each other; pass one of them, or none"),
            (true, false) => Ok(Some(Forced::Docker)),
            (false, true) => Ok(Some(Forced::Local)),
            (false, false) => Ok(None),
        }
    }

    /// The arguments that result in the same options.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["monitor".into(), "up".into()];
        let ports = [
            ("--prometheus-port", self.prometheus_port),
            ("--grafana-port", self.grafana_port),
            ("--metrics-port", self.metrics_port),
            ("--app-port", self.app_port),
        ];
        for (name, port) in ports {
            words.extend([name.into(), port.to_string().into()]);
        }
        words.extend(["--retention".into(), self.retention.clone().into()]);
        for (name, folder) in [("--data", &self.data), ("--monitoring", &self.monitoring)] {
            words.extend(folder.iter().flat_map(|folder| [name.into(), folder.clone().into_os_string()]));
        }
        words.extend(self.no_install.then(|| "--no-install".into()));
        words
    }

    /// The folder with the configuration of Prometheus and Grafana.
    pub(crate) fn monitoring(&self) -> PathBuf {
        self.monitoring.clone().unwrap_or_else(|| crate::cargo::workspace_root().join("monitoring"))
    }
}

fn duration(text: &str) -> Result<String, String> {
    if prometheus::is_duration(text) {
        return Ok(text.to_owned());
    }
    Err("not a Prometheus duration; write 15d, 12h or 1d12h (units: y, w, d, h, m, s, ms)".to_owned())
}

/// The port of a scrape target.
fn target(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) => Err("Prometheus must know it, so 0 (any free port) is not allowed".to_owned()),
        Ok(port) => Ok(port),
        Err(_) => Err("not a port; ports are 1 to 65535".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn parse(args: &[&str]) -> Result<Options, clap::Error> {
        Cli::try_parse_from(std::iter::once(&"monitor").chain(args)).map(|cli| cli.options)
    }

    #[test]
    fn bad_options_say_what_is_wrong() {
        let check = |args: &[&str], part: &str| {
            let message = parse(args).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        };
        check(&["--metrics-port", "0"], "must know it");
        check(&["--app-port", "x"], "1 to 65535");
        check(&["--retention", "15 days"], "write 15d");
        check(&["--prometheus-port", "70000"], "70000");
        let both = parse(&["--docker", "--local"]).unwrap().forced().unwrap_err();
        assert!(both.to_string().contains("exclude each other"));
    }
}
