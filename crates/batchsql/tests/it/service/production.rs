//! Owns the check of the production stack that its files describe, with local programs in place of containers: two
//! Prometheus, two Alertmanagers, TLS and passwords everywhere, and one message for one problem.
//! Must not know what the service does.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::program::{ROOT, program, secrets, service};

const PATIENCE: Duration = Duration::from_secs(60);

/// How Prometheus finds the service among containers.
const DISCOVERY: &str = "    dns_sd_configs:
      - names: [app]
        type: A
        port: 9090
        refresh_interval: 15s
";

/// A problem that is always there; the routes are those of the shipped file.
const PROBLEM: &str = "groups:
  - name: problem
    interval: 1s
    rules:
      - alert: SomethingIsWrong
        expr: vector(1)
        labels: {severity: critical, job: batchsql-app}
";

/// A program that ends with the test, whatever the result of the test is.
struct Running(Child);

impl Running {
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = fs::File::create(log).unwrap();
        let errors = log.try_clone().unwrap();
        Self(command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, if its configuration was invalid.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Stack {
    folder: TempDir,
    secrets: TempDir,
    promtool: PathBuf,
    prometheus: PathBuf,
    alertmanager: PathBuf,
}

impl Stack {
    /// The files of the repository in a folder of their own, with secrets. `None` without the programs.
    fn new() -> Option<Self> {
        let prometheus = program(&["prometheus"], "BATCHSQL_REQUIRE_PROMTOOL")?;
        let promtool = program(&["promtool"], "BATCHSQL_REQUIRE_PROMTOOL")?;
        let alertmanager = program(&["prometheus-alertmanager", "alertmanager"], "BATCHSQL_REQUIRE_ALERTMANAGER")?;
        Some(Self { folder: tempfile::tempdir().unwrap(), secrets: secrets(), promtool, prometheus, alertmanager })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn secret_file(&self, name: &str) -> PathBuf {
        self.secrets.path().join(name)
    }

    fn secret(&self, name: &str) -> String {
        fs::read_to_string(self.secret_file(name)).unwrap()
    }

    /// A file of the repository with other paths and addresses.
    fn adapt(&self, from: &str, to: &str, changes: &[(&str, &str)]) -> PathBuf {
        let mut text = fs::read_to_string(Path::new(ROOT).join(from)).unwrap();
        let secrets = self.secrets.path().display().to_string();
        for (old, new) in [&[("/run/secrets", secrets.as_str())], changes].concat() {
            assert!(text.contains(old) || old == "/run/secrets", "{from} has no {old:?} any more");
            text = text.replace(old, new);
        }
        fs::write(self.path(to), text).unwrap();
        self.path(to)
    }

    /// The settings of TLS and password for one of the two programs, as the compose file mounts them.
    fn web_config(&self, program: &str) -> PathBuf {
        let text = self.secret("web-config.yml");
        let changed =
            text.replace("server.pem", &format!("{program}.pem")).replace("server.key", &format!("{program}.key"));
        let file = self.secret_file(&format!("web-config-{program}.yml"));
        fs::write(&file, changed).unwrap();
        file
    }

    /// What curl gets, with the password and the authority; `None` if there is no answer.
    fn get(&self, port: u16, path: &str) -> Option<String> {
        let account = format!("batchsql:{}", self.secret("monitoring_password"));
        self.ask(port, path, &["--user", &account])
    }

    fn ask(&self, port: u16, path: &str, more: &[&str]) -> Option<String> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--fail", "--max-time", "5", "--cacert"]).arg(self.secret_file("ca.pem"));
        let output = curl.args(more).arg(format!("https://127.0.0.1:{port}{path}")).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    fn wait_for(&self, what: &str, log: &str, mut is_so: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !is_so() {
            let said = || fs::read_to_string(self.path(log)).unwrap_or_default();
            assert!(begin.elapsed() < PATIENCE, "{what} did not happen; {log}:\n{}", said());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Ports that were just free, below the range that the system assigns to others.
fn ports<const N: usize>() -> [u16; N] {
    let mut next = 20_000 + (std::process::id() % 8_000) as u16;
    std::array::from_fn(|_| {
        loop {
            next += 1;
            if TcpListener::bind(("127.0.0.1", next)).is_ok() {
                return next;
            }
        }
    })
}

/// A receiver of messages: it returns every body that is posted.
fn receiver() -> (u16, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (told, messages) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if told.send(posted(stream.unwrap())).is_err() {
                return;
            }
        }
    });
    (port, messages)
}

fn posted(stream: TcpStream) -> Value {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[test]
fn everybody_is_watched_and_one_problem_seen_by_two_prometheus_is_told_once() {
    let Some(stack) = Stack::new() else { return };
    let [prometheus_a, prometheus_b, alertmanager_a, alertmanager_b, gossip_a, gossip_b, app] = ports();
    let (told_port, messages) = receiver();

    // The routes are as they are shipped; the receiver of critical alerts gets an address, and waits are shorter.
    let receiver = format!(
        "  - name: critical\n    webhook_configs:\n      - url: http://127.0.0.1:{told_port}/\n        send_resolved: false\n"
    );
    let changes = [("  - name: critical\n", receiver.as_str()), ("group_wait: 10s", "group_wait: 2s")];
    let config = stack.adapt("monitoring/alertmanager.yml", "alertmanager.yml", &changes);
    let web = stack.web_config("alertmanager");
    let peers = [gossip_a, gossip_b].map(|port| format!("--cluster.peer=127.0.0.1:{port}"));
    let _alertmanagers =
        [("a", alertmanager_a, gossip_a), ("b", alertmanager_b, gossip_b)].map(|(name, port, gossip)| {
            let mut command = Command::new(&stack.alertmanager);
            command.arg(format!("--config.file={}", config.display()));
            command.arg(format!("--web.config.file={}", web.display()));
            command.arg(format!("--storage.path={}", stack.path(&format!("alertmanager-{name}")).display()));
            command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
            command.arg(format!("--cluster.listen-address=127.0.0.1:{gossip}"));
            // The second one waits this long for a message of the first: 15 s otherwise.
            command.args(&peers).args(["--cluster.peer-timeout=4s", "--cluster.settle-timeout=20s"]);
            Running::start(&mut command, &stack.path(&format!("alertmanager-{name}.log")))
        });
    for (name, port) in [("a", alertmanager_a), ("b", alertmanager_b)] {
        stack.wait_for("a cluster of two", &format!("alertmanager-{name}.log"), || {
            let status = stack.get(port, "/api/v2/status").unwrap_or_default();
            let status: Value = serde_json::from_str(&status).unwrap_or_default();
            status["cluster"]["status"] == "ready"
                && status["cluster"]["peers"].as_array().is_some_and(|p| p.len() == 2)
        });
    }
    assert_eq!(stack.ask(alertmanager_a, "/api/v2/status", &[]), None, "access needs a password");
    if let Some(amtool) = program(&["amtool"], "BATCHSQL_REQUIRE_AMTOOL") {
        let http = stack.adapt("docker/health-check-http.yml", "http.yml", &[]);
        let mut health_check = Command::new(amtool);
        health_check.arg(format!("--alertmanager.url=https://localhost:{alertmanager_a}"));
        health_check.arg(format!("--http.config.file={}", http.display())).args(["cluster", "show"]);
        let output = health_check.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    let mut service = service();
    service.env("PROMETHEUS_PORT", app.to_string()).env("METRICS_TOKEN_FILE", stack.secret_file("metrics_token"));
    service.env("METRICS_TLS_CERT_FILE", stack.secret_file("app.pem"));
    service.env("METRICS_TLS_KEY_FILE", stack.secret_file("app.key"));
    let _app = Running::start(&mut service, &stack.path("app.log"));

    fs::create_dir(stack.path("rules")).unwrap();
    fs::write(stack.path("rules/problem.yml"), PROBLEM).unwrap();
    let alertmanagers = format!("'127.0.0.1:{alertmanager_a}', '127.0.0.1:{alertmanager_b}'");
    let prometheuses = format!("'127.0.0.1:{prometheus_a}', '127.0.0.1:{prometheus_b}'");
    let app = format!("    static_configs: [{{targets: ['127.0.0.1:{app}']}}]\n");
    let changes = [
        ("'alertmanager-a:9093', 'alertmanager-b:9093'", alertmanagers.as_str()),
        ("'prometheus-a:9090', 'prometheus-b:9090'", prometheuses.as_str()),
        (DISCOVERY, app.as_str()),
        ("scrape_interval: 15s", "scrape_interval: 1s"),
        ("scrape_timeout: 10s", "scrape_timeout: 1s"),
    ];
    let config = stack.adapt("monitoring/prometheus.prod.yml", "prometheus.yml", &changes);
    let check = Command::new(&stack.promtool).args(["check", "config"]).arg(&config).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    let web = stack.web_config("prometheus");
    let check = Command::new(&stack.promtool).args(["check", "web-config"]).arg(&web).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    let is_old = is_before_version_3(&stack.prometheus);
    let _prometheuses = [("a", prometheus_a), ("b", prometheus_b)].map(|(name, port)| {
        let mut command = Command::new(&stack.prometheus);
        command.env("REPLICA", name).env("CLUSTER", "test");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--web.config.file={}", web.display()));
        command.arg(format!("--storage.tsdb.path={}", stack.path(&format!("prometheus-{name}")).display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        // An alert that fires before the Alertmanagers are known is sent again after a minute otherwise.
        command.arg("--rules.alert.resend-delay=2s");
        if is_old {
            command.arg("--enable-feature=expand-external-labels");
        }
        Running::start(&mut command, &stack.path(&format!("prometheus-{name}.log")))
    });
    for (name, port) in [("a", prometheus_a), ("b", prometheus_b)] {
        let log = format!("prometheus-{name}.log");
        // Both scrape all five, by TLS, with the password or the token, and both see the problem.
        stack.wait_for("a scrape of everybody", &log, || {
            let up = stack.get(port, "/api/v1/query?query=sum(up)");
            up.is_some_and(|answer| answer.contains(",\"5\"]"))
        });
        stack.wait_for("the alert", &log, || {
            stack.get(port, "/api/v1/alerts").is_some_and(|answer| answer.contains("\"state\":\"firing\""))
        });
        let config = stack.get(port, "/api/v1/status/config").unwrap();
        assert!(config.contains(&format!("replica: {name}")), "{config}");
    }
    assert_eq!(stack.ask(prometheus_a, "/api/v1/alerts", &[]), None, "access needs a password");

    let message = messages.recv_timeout(PATIENCE).expect("the receiver gets a message");
    assert_eq!(message["receiver"], "critical");
    let alerts = message["alerts"].as_array().unwrap();
    // Two would be the same problem with the names of two Prometheus.
    assert_eq!(alerts.len(), 1, "{alerts:#?}");
    assert_eq!(alerts[0]["labels"]["alertname"], "SomethingIsWrong");
    assert_eq!(alerts[0]["labels"]["cluster"], "test");
    assert_eq!(alerts[0]["labels"]["replica"], Value::Null);
    // The second Alertmanager has had time to send, and has sent no message.
    let second = messages.recv_timeout(Duration::from_secs(12));
    assert!(second.is_err(), "sent twice: {second:#?}");
    for port in [alertmanager_a, alertmanager_b] {
        let alerts = stack.get(port, "/api/v2/alerts").unwrap();
        assert!(alerts.contains("SomethingIsWrong"), "both know of it: {alerts}");
    }
}

/// Before 3, variables in external labels were an experiment.
fn is_before_version_3(prometheus: &Path) -> bool {
    let output = Command::new(prometheus).arg("--version").output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let version = said.split("version ").nth(1).expect("it prints its version");
    version.split('.').next().and_then(|major| major.parse::<u32>().ok()).expect("a number") < 3
}
