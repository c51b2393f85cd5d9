//! The verb `monitor` with programs of this machine: it starts, reports, stops and cleans up, however it ends.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    process::{Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, SystemTime},
};

use serde_json::Value;

use crate::{
    exporter::{answer, exporter, get, query},
    place::{Place, Running, text, within_seconds},
};

const MONITORING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../monitoring");

/// The stack of one test: a folder for its servers, one for its state, and its own ports.
pub(crate) struct Monitor {
    pub(crate) place: Place,
    pub(crate) known: Place,
    metrics_port: u16,
    /// A Docker that does not work, so that tests do not see stacks of the user.
    no_docker: Place,
}

impl Monitor {
    pub(crate) fn new() -> Self {
        Self::scraping(1)
    }

    pub(crate) fn scraping(metrics_port: u16) -> Self {
        let no_docker = Place::new();
        no_docker.program("docker", "#!/bin/sh\nexit 1\n");
        Self { place: Place::new(), known: Place::new(), metrics_port, no_docker }
    }

    /// A verb with the state of this stack only.
    pub(crate) fn xtask(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.xtask(arguments);
        command.env("BATCHSQL_MONITOR_STATE", &self.known.0).env("BATCHSQL_NO_INSTALL", "1");
        command.env("BATCHSQL_PROMETHEUS_PORT", "0").env("BATCHSQL_GRAFANA_PORT", "0").env("BATCHSQL_APP_PORT", "2");
        command.env("PROMETHEUS_PORT", self.metrics_port.to_string()).env_remove("METRICS_BIND");
        self.no_docker.put_first(&mut command);
        for variable in ["DOCKER", "LOCAL", "DATA"] {
            command.env_remove(format!("BATCHSQL_MONITOR_{variable}"));
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.xtask(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Starts in the foreground and waits for the message about the next steps.
    fn up(&self) -> Running {
        let mut running = Running::start(&mut self.xtask(&["monitor", "--local"]));
        running.answer("next:");
        running
    }

    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.known.0.join("state.json")).unwrap()).unwrap()
    }

    fn prometheus(&self) -> String {
        self.state()["prometheus"].as_str().unwrap().to_owned()
    }

    /// Checks that nothing runs and that no state is left.
    pub(crate) fn assert_gone(&self) {
        assert!(self.place.is_empty(), "{:?}", self.place.entries());
        // Before `status`, which would remove it.
        assert!(!self.known.0.join("state.json").exists());
        let left = self.known.entries();
        assert!(!left.iter().any(|name| name.starts_with("xtask") || name.starts_with("log-")), "{left:?}");
        self.assert_not_believed();
    }

    /// Checks that the state of a killed process is not used.
    pub(crate) fn assert_not_believed(&self) {
        let status = self.run(&["monitor", "status"]);
        assert!(!status.status.success() && text(&status).contains("nothing runs"), "{}", text(&status));
    }
}

/// A test that fails leaves nothing running in the background.
impl Drop for Monitor {
    fn drop(&mut self) {
        if thread::panicking() && self.known.0.join("lock").exists() {
            let _ = self.run(&["monitor", "down"]);
        }
    }
}

fn listens(url: &str) -> bool {
    TcpStream::connect(url.trim_start_matches("http://")).is_ok()
}

#[test]
fn it_runs_until_a_signal_and_leaves_nothing() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
        let monitor = Monitor::new();
        let running = monitor.up();
        let url = monitor.prometheus();
        assert!(get(&format!("{url}/-/ready")).contains("Ready"));
        assert_eq!(running.end_by(signal).code(), Some(code));
        assert!(!listens(&url));
        monitor.assert_gone();
    }
}

#[test]
fn what_it_scrapes_is_told() {
    let monitor = Monitor::scraping(exporter("fake_suite").port());
    let running = monitor.up();
    let url = monitor.prometheus();
    within_seconds("the suite is scraped", || !query(&url, "fake_suite").is_empty());
    assert_eq!(query(&url, "fake_suite")[0]["metric"]["job"], "batchsql-integration-test");
    let port = monitor.metrics_port;
    let up = format!("up       http://127.0.0.1:{port}/metrics");
    within_seconds("and said to be up", || text(&monitor.run(&["monitor", "status"])).contains(&up));
    within_seconds("a missing application is not an error", || {
        text(&monitor.run(&["monitor", "status"])).contains("(no application runs there: ")
    });
    let status = monitor.run(&["monitor", "status"]);
    assert!(status.status.success(), "{}", text(&status));
    // The path depends on the version of Prometheus.
    let page = monitor.state()["targets"].as_str().unwrap().to_owned();
    assert!(page.ends_with("/targets") && text(&status).contains(&page), "{}", text(&status));
    assert!(get(&page).contains("batchsql-integration-test") || get(&page).contains("<div id=\"root\">"), "{page}");

    let logs = monitor.run(&["monitor", "logs", "prometheus"]);
    assert!(text(&logs).contains("Server is ready"), "{}", text(&logs));
    let again = monitor.run(&["monitor", "up", "--local"]);
    assert!(again.status.success() && text(&again).contains("it runs already"), "{}", text(&again));
    assert!(text(&again).contains(&url), "{}", text(&again));
    assert_eq!(running.end_by("-INT").code(), Some(130));
    monitor.assert_gone();
}

#[test]
fn it_stays_in_the_background_until_down() {
    let monitor = Monitor::new();
    let up = monitor.run(&["monitor", "up", "--local", "--detach"]);
    assert!(up.status.success(), "{}", text(&up));
    assert!(text(&up).contains("next:") && text(&up).contains("cargo xtask monitor down"), "{}", text(&up));
    let url = monitor.prometheus();
    assert!(listens(&url));
    let pid = monitor.state()["pid"].as_u64().unwrap();
    // A session of its own, so that the end of a terminal does not end it.
    let session = Command::new("ps").args(["-o", "sess=", "-p", &pid.to_string()]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&session.stdout).trim(), pid.to_string());
    assert!(monitor.run(&["monitor", "status"]).status.success());

    let down = monitor.run(&["monitor", "down"]);
    assert!(down.status.success() && text(&down).contains("stopped"), "{}", text(&down));
    assert!(!listens(&url));
    monitor.assert_gone();
    let again = monitor.run(&["monitor", "down"]);
    assert!(again.status.success() && text(&again).contains("nothing runs"), "{}", text(&again));
}

#[test]
fn down_stops_one_in_the_foreground() {
    let monitor = Monitor::new();
    let mut running = monitor.up();
    let down = monitor.run(&["monitor", "down"]);
    assert!(down.status.success(), "{}", text(&down));
    assert_eq!(running.process.wait().unwrap().code(), Some(143));
    monitor.assert_gone();
}

#[test]
fn in_the_background_it_says_why_it_does_not_start() {
    let monitor = Monitor::new();
    let mut command = monitor.xtask(&["monitor", "--local", "--detach"]);
    let output = command.env("BATCHSQL_MONITORING", "/there-is-no-such-folder").output().unwrap();
    assert!(!output.status.success());
    assert!(text(&output).contains("there is no /there-is-no-such-folder/prometheus.yml"), "{}", text(&output));
    monitor.assert_gone();
}

#[test]
fn nothing_is_left_when_it_is_killed_and_nobody_believes_its_state() {
    let monitor = Monitor::new();
    let running = monitor.up();
    let url = monitor.prometheus();
    let _: ExitStatus = running.end_by("-KILL");
    assert!(monitor.known.0.join("state.json").exists(), "it was killed before it could remove it");
    within_seconds("Prometheus stops", || !listens(&url));
    within_seconds("its folder is removed", || monitor.place.is_empty());
    monitor.assert_not_believed();
    monitor.assert_gone();
    // The next one starts normally.
    assert_eq!(monitor.up().end_by("-INT").code(), Some(130));
    monitor.assert_gone();
}

#[test]
fn a_port_that_is_taken_names_its_process() {
    let (monitor, listener) = (Monitor::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = listener.local_addr().unwrap().port().to_string();
    for verb in ["up", "check"] {
        let output = monitor.run(&["monitor", verb, "--local", "--prometheus-port", &port]);
        assert!(!output.status.success());
        let pid = format!("(pid {})", std::process::id());
        for word in
            [pid.as_str(), "--prometheus-port", "BATCHSQL_PROMETHEUS_PORT", &format!("port {port} of Prometheus")]
        {
            assert!(text(&output).contains(word), "{word}: {}", text(&output));
        }
    }
    monitor.assert_gone();
}

#[test]
fn ports_are_looked_at_before_anything_is_installed() {
    let (monitor, programs, listener) = (Monitor::new(), Place::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let note = format!("#!/bin/sh\necho \"$@\" >>{}/installed\n", programs.0.display());
    for (name, text) in [("apt-get", "#!/bin/sh\n"), ("sh", &note), ("sudo", &note)] {
        programs.program(name, text);
    }
    let port = listener.local_addr().unwrap().port();
    let run = |port: u16| {
        let mut command = monitor.xtask(&["monitor", "--local", "--prometheus-port", &port.to_string()]);
        // An environment in which root or sudo would install.
        command.env_remove("BATCHSQL_NO_INSTALL").env("PATH", &programs.0).env("CI", "true");
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(!output.status.success());
        text(&output)
    };
    let told = run(port);
    assert!(told.contains(&format!("port {port} of Prometheus is taken")), "{told}");
    assert!(!programs.0.join("installed").exists(), "{told}");
    let told = run(0);
    assert!(programs.0.join("installed").exists(), "{told}");
    monitor.assert_gone();
}

/// The files of this repository, which a test may change.
fn copied_monitoring() -> Place {
    let place = Place::new();
    let files = format!("{MONITORING}/.");
    assert!(Command::new("cp").args(["-R", &files]).arg(&place.0).status().unwrap().success());
    fs::create_dir_all(place.0.join("rules")).unwrap();
    place
}

#[test]
fn a_broken_rule_is_told_before_anything_starts() {
    let (monitor, files) = (Monitor::new(), copied_monitoring());
    let rule = "groups: [{name: broken, rules: [{record: a:b, expr: 'sum(('}]}]\n";
    fs::write(files.0.join("rules/broken.yml"), rule).unwrap();
    for verb in ["up", "check"] {
        let mut command = monitor.xtask(&["monitor", verb, "--local"]);
        let output = command.env("BATCHSQL_MONITORING", &files.0).output().unwrap();
        assert!(!output.status.success());
        for word in ["promtool rejects", "broken.yml", "could not parse expression"] {
            assert!(text(&output).contains(word), "{word}: {}", text(&output));
        }
        monitor.assert_gone();
    }
}

/// Without promtool, Prometheus itself rejects the configuration: its message is shown, and the verb ends.
#[test]
fn what_prometheus_says_is_shown_when_it_does_not_start() {
    let (monitor, files, programs) = (Monitor::new(), copied_monitoring(), Place::new());
    fs::write(files.0.join("prometheus.yml"), "scrape_configs: [{job_nam: x}]\n").unwrap();
    for program in ["prometheus", "sh", "id", "mkdir", "dirname", "cat", "mv", "sleep", "rm", "test"] {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
        let path = String::from_utf8(found.stdout).unwrap();
        if path.starts_with('/') {
            std::os::unix::fs::symlink(path.trim(), programs.0.join(program)).unwrap();
        }
    }
    let mut command = monitor.xtask(&["monitor", "--local"]);
    let output = command.env("BATCHSQL_MONITORING", &files.0).env("PATH", &programs.0).output().unwrap();
    assert!(!output.status.success());
    assert!(text(&output).contains("job_nam"), "{}", text(&output));
    monitor.assert_gone();
}

#[test]
fn without_any_prometheus_every_way_is_named() {
    let monitor = Monitor::new();
    let mut command = monitor.xtask(&["monitor", "--no-install"]);
    let output = command.env("PATH", "/there-is-no-such-folder").output().unwrap();
    assert!(!output.status.success());
    for word in ["Docker is not installed", "--no-install forbids", "`prometheus`", "into PATH"] {
        assert!(text(&output).contains(word), "{word}: {}", text(&output));
    }
    monitor.assert_gone();
}

#[test]
fn history_stays_where_a_person_wants_it() {
    let (monitor, data) = (Monitor::scraping(exporter("fake_kept").port()), Place::new());
    let folder = data.0.join("history");
    let up = || {
        let mut command = monitor.xtask(&["monitor", "--local", "--data"]);
        let mut running = Running::start(command.arg(&folder));
        running.answer("next:");
        running
    };
    let running = up();
    let url = monitor.prometheus();
    within_seconds("it is scraped", || !query(&url, "fake_kept").is_empty());
    assert_eq!(running.end_by("-INT").code(), Some(130));
    monitor.assert_gone();
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let running = up();
    let url = monitor.prometheus();
    // The samples themselves, because computed values have their own steps.
    let samples = || query(&url, "fake_kept[1h]");
    within_seconds("there is something", || !samples().is_empty());
    let first = samples()[0]["values"][0][0].as_f64();
    assert!(first.is_some_and(|first| first < seconds), "{first:?} {seconds}");
    assert_eq!(running.end_by("-INT").code(), Some(130));
}

#[test]
fn down_does_not_remove_the_history_of_a_person() {
    let (monitor, data) = (Monitor::new(), Place::new());
    let folder = data.0.join("history");
    let up = monitor.xtask(&["monitor", "--local", "-d", "--data"]).arg(&folder).output().unwrap();
    assert!(up.status.success(), "{}", text(&up));
    let down = monitor.run(&["monitor", "down", "--volumes"]);
    assert!(text(&down).contains("remove it if you no longer need it"), "{}", text(&down));
    assert!(folder.join("prometheus/wal").exists());
    monitor.assert_gone();
}

/// A fake Grafana that only records its arguments; this test responds in its place.
#[test]
fn grafana_is_started_where_it_is_installed() {
    let (monitor, home, files) = (Monitor::new(), Place::new(), copied_monitoring());
    fs::create_dir_all(files.0.join("grafana/dashboards")).unwrap();
    fs::write(files.0.join("grafana/dashboards/of a test.json"), "{}").unwrap();
    for folder in ["bin", "conf"] {
        fs::create_dir(home.0.join(folder)).unwrap();
    }
    fs::write(home.0.join("conf/defaults.ini"), "").unwrap();
    let script = "#!/bin/sh\nenv >environment\necho \"$@\" >words\nmv words called\nexec sleep 60\n";
    home.program("bin/grafana", script);
    let mut command = monitor.xtask(&["monitor", "--local"]);
    command.env("BATCHSQL_MONITORING", &files.0);
    command.env("PATH", format!("{}/bin:{}", home.0.display(), std::env::var("PATH").unwrap()));
    let mut running = Running::start(&mut command);
    let folder = || {
        let name = monitor.place.entries().into_iter().find(|name| name.starts_with("batchsql-grafana"));
        name.map(|name| monitor.place.0.join(name)).filter(|folder| folder.join("called").exists())
    };
    within_seconds("it is started", || folder().is_some());
    let folder = folder().unwrap();
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let settings = read("grafana.ini");
    let port = settings.lines().find_map(|line| line.strip_prefix("http_port = ")).unwrap().parse().unwrap();
    assert!(settings.contains("http_addr = 127.0.0.1\n") && settings.contains("check_for_updates = false\n"));
    assert!(read("called").starts_with("server --homepath="), "{}", read("called"));
    let prometheus = monitor.prometheus();
    assert!(read("environment").contains(&format!("BATCHSQL_PROMETHEUS_URL={prometheus}\n")));
    let dashboards = folder.join("grafana/dashboards");
    assert!(read("environment").contains(&format!("BATCHSQL_DASHBOARDS={}\n", dashboards.display())));
    assert!(dashboards.join("of a test.json").is_file());

    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    thread::spawn(move || answer(&listener, |_| (200, "{}".to_owned())));
    assert!(running.answer("  Grafana").contains(&format!("127.0.0.1:{port}/d/batchsql-performance")));
    running.answer("next:");
    assert!(monitor.run(&["monitor", "status"]).status.success());
    assert_eq!(running.end_by("-TERM").code(), Some(143));
    monitor.assert_gone();
}

#[test]
fn a_part_that_dies_is_told_and_the_rest_is_stopped() {
    let monitor = Monitor::new();
    let mut running = monitor.up();
    let folder = monitor.place.0.join(&monitor.place.entries()[0]);
    let pid = fs::read_to_string(folder.join("pid")).unwrap();
    assert!(Command::new("kill").args(["-KILL", pid.trim()]).status().unwrap().success());
    within_seconds("it ends", || running.process.try_wait().unwrap().is_some());
    assert_eq!(running.process.wait().unwrap().code(), Some(1));
    monitor.assert_gone();
}

/// As `cargo clean` does it.
#[test]
fn it_ends_when_the_folder_with_its_state_is_removed() {
    let monitor = Monitor::new();
    let up = monitor.run(&["monitor", "--local", "-d"]);
    assert!(up.status.success(), "{}", text(&up));
    let url = monitor.prometheus();
    fs::remove_dir_all(&monitor.known.0).unwrap();
    // The state of another stack that starts meanwhile must stay.
    fs::create_dir(&monitor.known.0).unwrap();
    for name in ["lock", "state.json"] {
        fs::write(monitor.known.0.join(name), "another one's").unwrap();
    }
    within_seconds("Prometheus stops", || !listens(&url));
    within_seconds("its folder is removed", || monitor.place.is_empty());
    thread::sleep(Duration::from_millis(200));
    assert_eq!(monitor.known.entries().len(), 2, "{:?}", monitor.known.entries());
    // A state file that cannot be read does not prevent a start.
    let again = monitor.run(&["monitor", "--local", "-d"]);
    assert!(again.status.success(), "{}", text(&again));
    assert!(monitor.run(&["monitor", "down"]).status.success());
    monitor.assert_gone();
}

#[test]
fn one_whose_state_cannot_be_read_is_stopped() {
    let monitor = Monitor::new();
    let up = monitor.run(&["monitor", "--local", "-d"]);
    assert!(up.status.success(), "{}", text(&up));
    let (url, pid) = (monitor.prometheus(), monitor.state()["pid"].to_string());
    fs::write(monitor.known.0.join("state.json"), "{").unwrap();
    let status = monitor.run(&["monitor", "status"]);
    assert!(!status.status.success() && text(&status).contains(&format!("process {pid} ")), "{}", text(&status));
    let down = monitor.run(&["monitor", "down"]);
    assert!(down.status.success() && text(&down).contains("stopped"), "{}", text(&down));
    assert!(!listens(&url));
    monitor.assert_gone();
}

/// Without --local.
#[test]
fn in_the_background_it_says_why_docker_is_not_used() {
    let monitor = Monitor::new();
    let up = monitor.run(&["monitor", "-d"]);
    assert!(up.status.success(), "{}", text(&up));
    let told = text(&up);
    assert!(told.contains("from programs of this machine (Docker has no `docker compose`)"), "{told}");
    assert_eq!(told.matches("next:").count(), 1, "{told}");
    assert!(monitor.run(&["monitor", "down"]).status.success());
    monitor.assert_gone();
}

#[test]
fn one_in_the_background_that_died_is_told() {
    let monitor = Monitor::new();
    assert!(monitor.run(&["monitor", "--local", "-d"]).status.success());
    let folder = monitor.place.0.join(&monitor.place.entries()[0]);
    let pid = fs::read_to_string(folder.join("pid")).unwrap();
    assert!(Command::new("kill").args(["-KILL", pid.trim()]).status().unwrap().success());
    within_seconds("it ends", || monitor.place.is_empty() && !monitor.known.0.join("state.json").exists());
    let died = || text(&monitor.run(&["monitor", "status"])).contains("the last one in the background has failed");
    within_seconds("status reports it", died);
    assert!(text(&monitor.run(&["monitor", "logs"])).contains("Prometheus has ended"));
    monitor.assert_gone();
}

/// As `monitor status | head -1`.
#[test]
fn nobody_needs_to_read_what_it_tells() {
    let monitor = Monitor::new();
    let running = monitor.up();
    for (verb, code) in [("status", 0), ("check", 0), ("up", 0), ("down", 0), ("status", 1)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = monitor.xtask(&["monitor", verb]);
        let output = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{verb}: {}", text(&output));
    }
    drop(running);
    monitor.assert_gone();
}

/// The suite and an application on one port would be counted twice.
#[test]
fn ports_of_what_is_scraped_differ() {
    let monitor = Monitor::new();
    let mut command = monitor.xtask(&["monitor", "--local"]);
    let output = command.env("PROMETHEUS_PORT", "2").stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    let words = "the suite's metrics and the application's metrics cannot both have port 2";
    assert!(text(&output).contains(words) && text(&output).contains("--app-port"), "{}", text(&output));
    monitor.assert_gone();
}

/// Two starts at the same time: one starts, the other finds it.
#[test]
fn it_runs_once() {
    let monitor = Monitor::new();
    let start = || monitor.xtask(&["monitor", "--local", "-d"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let both = [start().unwrap(), start().unwrap()];
    let outputs = both.map(|child| child.wait_with_output().unwrap());
    assert!(outputs.iter().any(|output| output.status.success()), "{outputs:?}");
    let process = format!("process {} is starting", monitor.state()["pid"]);
    for output in &outputs {
        let told = text(output);
        let expected = if output.status.success() { "/targets" } else { &process };
        assert!(told.contains(expected), "{told}");
    }
    let folders = monitor.place.entries();
    assert_eq!(folders.len(), 1, "{folders:?} {}{}", text(&outputs[0]), text(&outputs[1]));
    assert!(monitor.run(&["monitor", "down"]).status.success());
    monitor.assert_gone();
}
