//! Grafana from the programs of this machine, with the datasource and the dashboards of this repository.
//! Must not know how it is used.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;

use super::{account::Account, find, keeper::Keeper, port::Port, process::Process};
use crate::http;

/// The first start creates all tables, which is slow on a busy disk.
const PATIENCE: Duration = Duration::from_secs(180);

/// The program, and its name before version 9.4.
const NAMES: [&str; 2] = ["grafana", "grafana-server"];

/// Folders with the pages and defaults of the program, relative to its folder or absolute.
const HOMES: [&str; 6] = [
    "..",
    "../share/grafana",
    "/usr/share/grafana",
    "/usr/local/share/grafana",
    "/opt/homebrew/opt/grafana/share/grafana",
    "/usr/local/opt/grafana/share/grafana",
];

/// The programs.
#[derive(Debug)]
pub(crate) struct Programs {
    server: PathBuf,
    home: PathBuf,
}

impl Programs {
    pub(crate) fn find() -> Option<Self> {
        let server = find::program(&NAMES)?;
        let real = server.canonicalize().ok()?;
        let home = HOMES.iter().map(|home| real.parent().unwrap_or(&real).join(home));
        let home = home.into_iter().find(|home| home.join("conf/defaults.ini").is_file())?.canonicalize().ok()?;
        // Packages install scripts in PATH that add options of the system's Grafana, so the program is preferred.
        let beside = NAMES.iter().map(|name| home.join("bin").join(name)).find(|program| program.is_file());
        Some(Self { server: beside.unwrap_or(server), home })
    }

    /// Where it is.
    pub(crate) fn place(&self) -> &Path {
        &self.server
    }

    /// A keeper for it.
    pub(crate) fn keeper(&self) -> anyhow::Result<Keeper> {
        Keeper::new("grafana", Account::unprivileged(&["grafana"])?, "TERM")
    }

    /// Starts it on the loopback interface, with the login `admin`, `admin123`. Dashboards and all of its data are in
    /// the keeper's folder unless `data` names another.
    pub(crate) fn start(
        &self,
        mut keeper: Keeper,
        port: Port,
        monitoring: &Path,
        prometheus: &str,
        data: Option<&Path>,
    ) -> anyhow::Result<Process> {
        let folder = keeper.folder().to_owned();
        copy(&mut keeper, &monitoring.join("grafana"), "grafana")?;
        let data = data.map_or_else(|| folder.join("data"), Path::to_owned);
        keeper.write("grafana.ini", &settings(&folder, &data, port.number()))?;
        let words = [
            // Grafana substitutes these in its files.
            format!("BATCHSQL_PROMETHEUS_URL={prometheus}"),
            format!("BATCHSQL_DASHBOARDS={}", folder.join("grafana/dashboards").display()),
            self.server.display().to_string(),
        ];
        // The old program has no subcommands.
        let command = self.server.file_name().is_some_and(|name| name == "grafana").then(|| "server".to_owned());
        let options = [
            format!("--homepath={}", self.home.display()),
            format!("--config={}", folder.join("grafana.ini").display()),
        ];
        let arguments: Vec<_> = words.into_iter().chain(command).chain(options).collect();
        Process::start_on(port, keeper, Path::new("/usr/bin/env"), &arguments, is_ready, PATIENCE)
    }
}

/// In a file, where other users cannot read the password.
fn settings(folder: &Path, data: &Path, port: u16) -> String {
    let (folder, data) = (folder.display(), data.display());
    format!(
        "\
[paths]
data = {data}
logs = {folder}/logs
plugins = {folder}/plugins
provisioning = {folder}/grafana/provisioning
[server]
http_addr = 127.0.0.1
http_port = {port}
[log]
mode = console
[security]
admin_user = admin
admin_password = admin123
disable_gravatar = true
[users]
allow_sign_up = false
default_theme = system
[auth.anonymous]
enabled = false
[analytics]
reporting_enabled = false
check_for_updates = false
check_for_plugin_updates = false
feedback_links_enabled = false
[news]
news_feed_enabled = false
[plugins]
preinstall_disabled = true
"
    )
}

/// Copies a folder into the keeper's folder, because its user may not be able to read the repository.
fn copy(keeper: &mut Keeper, from: &Path, to: &str) -> anyhow::Result<()> {
    let entries = fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", from.display()))?;
        let name = entry.file_name().into_string().ok().context("the name of a file of Grafana is not UTF-8")?;
        let (path, to) = (entry.path(), format!("{to}/{name}"));
        if path.is_dir() {
            copy(keeper, &path, &to)?;
        } else {
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            keeper.write_within(&to, &text)?;
        }
    }
    Ok(())
}

fn is_ready(_: &Path, port: u16) -> bool {
    let answer = http::get(&format!("http://127.0.0.1:{port}/api/health"), Duration::from_secs(1));
    answer.is_ok_and(|answer| answer.status == 200)
}
