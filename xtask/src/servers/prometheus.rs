//! Prometheus from the programs of this machine, with the configuration and the rules of this repository.
//! Must not know how it is used.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use serde_json::json;

use super::{account::Account, find, keeper::Keeper, port::Port, process::Process, server::Server};
use crate::{cargo, files, http};

/// The jobs of `monitoring/prometheus.yml`.
const ITSELF: &str = "prometheus";
const SUITE: &str = "batchsql-integration-test";
const APP: &str = "batchsql-app";

/// At start it replays its write-ahead log, which may be long.
const PATIENCE: Duration = Duration::from_secs(120);

/// The programs.
#[derive(Debug)]
pub(crate) struct Programs {
    server: PathBuf,
}

/// The settings of one server.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Addresses of suites, `HOST:PORT`.
    pub(crate) suite: Vec<String>,
    /// Addresses of applications.
    pub(crate) app: Vec<String>,
    /// Replaces every interval of the files, in the syntax of Prometheus: `500ms`, `1s`.
    pub(crate) interval: Option<String>,
    /// Options for the program.
    pub(crate) further: Vec<String>,
}

impl Programs {
    pub(crate) fn find() -> Option<Self> {
        Some(Self { server: find::program(&["prometheus"])? })
    }

    /// The path of the program.
    pub(crate) fn place(&self) -> &Path {
        &self.server
    }
}

impl Settings {
    /// `target=HOST:PORT` and `app=HOST:PORT`, each once per target, and `interval=1s`. Arguments that begin with `-`
    /// are passed to the program.
    pub(crate) fn new(arguments: &[String]) -> anyhow::Result<Self> {
        let mut settings = Self::default();
        for argument in arguments {
            match argument.split_once('=') {
                _ if argument.starts_with('-') => settings.further.push(argument.clone()),
                Some(("target", address)) => settings.suite.push(address.to_owned()),
                Some(("app", address)) => settings.app.push(address.to_owned()),
                Some(("interval", interval)) if is_duration(interval) => settings.interval = Some(interval.to_owned()),
                _ => anyhow::bail!(
                    "Prometheus has no setting {argument:?}; use target=HOST:PORT, app=HOST:PORT or interval=1s"
                ),
            }
        }
        Ok(settings)
    }
}

/// On a free port; all of its files are removed at the end.
pub(crate) fn start(programs: &Programs, arguments: &[String]) -> anyhow::Result<Server> {
    let settings = Settings::new(arguments)?;
    let mut keeper = keeper()?;
    configure(&mut keeper, &cargo::workspace_root().join("monitoring"), &settings)?;
    let command = |keeper: &mut Keeper, port| {
        keeper.write_within(&target_file(ITSELF), &targets(&[format!("127.0.0.1:{port}")]))?;
        Ok(command(port, "data", &settings.further))
    };
    let process = Process::start(keeper, &programs.server, command, is_ready)?;
    let dsn = format!("http://127.0.0.1:{}", process.port());
    Ok(Server::new(process, dsn, None))
}

/// On one port, with the files of a folder; its history is in the keeper's folder unless `data` names another.
pub(crate) fn start_on(
    programs: &Programs,
    mut keeper: Keeper,
    port: Port,
    monitoring: &Path,
    settings: &Settings,
    data: Option<&Path>,
) -> anyhow::Result<Process> {
    configure(&mut keeper, monitoring, settings)?;
    keeper.write_within(&target_file(ITSELF), &targets(&[format!("127.0.0.1:{}", port.number())]))?;
    let data = data.unwrap_or(Path::new("data")).to_str().context("the path of the history is not UTF-8")?;
    let arguments = command(port.number(), data, &settings.further);
    Process::start_on(port, keeper, &programs.server, &arguments, is_ready, PATIENCE)
}

/// A keeper for it.
pub(crate) fn keeper() -> anyhow::Result<Keeper> {
    Keeper::new("prometheus", Account::unprivileged(&["prometheus"])?, "TERM")
}

/// Writes files with targets, for a Prometheus in a container. Its own address is fixed there.
pub(crate) fn write_targets(folder: &Path, settings: &Settings) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
    let itself = ["localhost:9090".to_owned()];
    for (job, addresses) in [(ITSELF, &itself[..]), (SUITE, &settings.suite), (APP, &settings.app)] {
        let path = folder.join(format!("{job}.yml"));
        // In the container another user reads it.
        let readable = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o644));
        let written = fs::write(&path, targets(addresses)).and_then(|()| readable(&path));
        written.with_context(|| format!("cannot write {}", path.display()))?;
    }
    let open = fs::set_permissions(folder, fs::Permissions::from_mode(0o755));
    open.with_context(|| format!("cannot open {} to containers", folder.display()))
}

/// Prometheus rejects duplicate options, so a given option replaces the default of the same name.
fn command(port: u16, data: &str, further: &[String]) -> Vec<String> {
    let own = [
        "--config.file=prometheus.yml".to_owned(),
        format!("--storage.tsdb.path={data}"),
        format!("--web.listen-address=127.0.0.1:{port}"),
        "--log.level=warn".to_owned(),
    ];
    let name = |option: &str| option.split_once('=').map_or(option, |(name, _)| name).to_owned();
    let given = |option: &String| further.iter().any(|other| name(other) == name(option));
    own.into_iter().filter(|option| !given(option)).chain(further.iter().cloned()).collect()
}

/// Copies the configuration into the keeper's folder, because its user may not be able to read the repository.
fn configure(keeper: &mut Keeper, monitoring: &Path, settings: &Settings) -> anyhow::Result<()> {
    let mut copy = |name: &str, path: &Path| {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let changed = settings.interval.as_ref().map(|interval| with_interval(&text, interval));
        keeper.write_within(name, &changed.unwrap_or(text))
    };
    copy("prometheus.yml", &monitoring.join("prometheus.yml"))?;
    for rules in files::yaml(&monitoring.join("rules"), "")? {
        let name = rules.file_name().and_then(OsStr::to_str).context("the name of a rule file is not UTF-8")?;
        copy(&format!("rules/{name}"), &rules)?;
    }
    keeper.write_within(&target_file(SUITE), &targets(&settings.suite))?;
    keeper.write_within(&target_file(APP), &targets(&settings.app))
}

fn target_file(job: &str) -> String {
    format!("targets/{job}.yml")
}

/// The text of a file with targets; JSON is YAML.
fn targets(addresses: &[String]) -> String {
    if addresses.is_empty() { "[]\n".to_owned() } else { format!("{}\n", json!([{ "targets": addresses }])) }
}

/// The same file with one interval for everything. A timeout may not be above it, so the timeout gets the same value.
fn with_interval(text: &str, interval: &str) -> String {
    let line = |line: &str| {
        let words = line.trim_start().trim_start_matches("- ");
        let (key, _) = words.split_once(':')?;
        match key {
            "scrape_interval" | "evaluation_interval" | "interval" => {
                let before = &line[..line.len() - words.len()];
                Some(format!("{before}{key}: {interval}"))
            }
            "scrape_timeout" => None,
            _ => Some(line.to_owned()),
        }
    };
    let without_key = |text: &str| (!text.contains(':')).then(|| text.to_owned());
    let lines: Vec<_> = text.lines().filter_map(|text| without_key(text).or_else(|| line(text))).collect();
    lines.join("\n") + "\n"
}

/// Whether a text is a duration of Prometheus: digits with a unit, each unit at most once, the longest first.
pub(crate) fn is_duration(text: &str) -> bool {
    let mut units = ["y", "w", "d", "h", "m", "s", "ms"].into_iter();
    let mut rest = text;
    while !rest.is_empty() {
        let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let unit = &after[..after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len())];
        if after.len() == rest.len() || !units.any(|known| known == unit) {
            return false;
        }
        rest = &after[unit.len()..];
    }
    !text.is_empty()
}

fn is_ready(_: &Path, port: u16) -> bool {
    let answer = http::get(&format!("http://127.0.0.1:{port}/-/ready"), Duration::from_secs(1));
    answer.is_ok_and(|answer| answer.status == 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(arguments: &[&str]) -> anyhow::Result<Settings> {
        Settings::new(&arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn settings_are_read() {
        let words = ["target=127.0.0.1:1", "app=h:2", "target=h:3", "interval=500ms", "--web.enable-lifecycle"];
        let expected = Settings {
            suite: vec!["127.0.0.1:1".into(), "h:3".into()],
            app: vec!["h:2".into()],
            interval: Some("500ms".into()),
            further: vec!["--web.enable-lifecycle".into()],
        };
        assert_eq!(settings(&words).unwrap(), expected);
        for wrong in ["targets=x", "x", "interval=", "interval=1", "interval=s", "interval=1s\nrule_files: x"] {
            let error = settings(&[wrong]).unwrap_err().to_string();
            assert!(error.contains("use target=HOST:PORT"), "{wrong}: {error}");
        }
    }

    #[test]
    fn durations_are_those_of_prometheus() {
        for right in ["1s", "1m30s", "100ms", "15d", "2w", "1y3d", "1s5ms"] {
            assert!(is_duration(right), "{right}");
        }
        for wrong in ["", "1d1", "5 s", "s", "15", "15 days", "15days", "1d1w", "1d1d", "-1d", "1.5d", "1µs"] {
            assert!(!is_duration(wrong), "{wrong}");
        }
    }

    #[test]
    fn every_interval_is_replaced_and_nothing_else() {
        let text = "global:\n  scrape_interval: 15s # often\n  evaluation_interval: 15s\n  scrape_timeout: 4s\n\
                    groups:\n  - name: x\n    interval: 30s\n  - interval: 5s\n    rules:\n      - expr: a[5m]\n# end";
        let expected = "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\n\
                        groups:\n  - name: x\n    interval: 1s\n  - interval: 1s\n    rules:\n      - expr: a[5m]\n\
                        # end\n";
        assert_eq!(with_interval(text, "1s"), expected);
    }

    #[test]
    fn an_option_that_was_given_replaces_that_of_the_same_name() {
        let options = command(1, "data", &["--log.level=debug".to_owned(), "--web.enable-lifecycle".to_owned()]);
        let levels: Vec<_> = options.iter().filter(|option| option.starts_with("--log.level")).collect();
        assert_eq!(levels, ["--log.level=debug"]);
        assert_eq!(options.len(), 5);
    }

    #[test]
    fn targets_are_yaml() {
        assert_eq!(targets(&[]), "[]\n");
        assert_eq!(targets(&["h:1".into(), "i:2".into()]), "[{\"targets\":[\"h:1\",\"i:2\"]}]\n");
    }
}
