//! Owns the check of the compose files of production: they are valid with each override, hardened, limited and pinned.
//! Must not know the programs in the containers.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::program::{ROOT, program, secrets};

const PRODUCTION: &str = "docker/docker-compose.prod.yml";
const CLUSTER: &str = "docker/docker-compose.cluster.yml";
const OVERRIDES: [&str; 3] = ["docker/grafana/tls.yml", "docker/grafana/oauth.yml", "docker/grafana/ldap.yml"];

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(name)).unwrap()
}

/// The plugin of Docker or the older program: both read files without an engine.
fn compose() -> Option<Command> {
    let plugin = Command::new("docker").args(["compose", "version"]).output();
    if plugin.is_ok_and(|output| output.status.success()) {
        let mut command = Command::new("docker");
        command.arg("compose");
        return Some(command);
    }
    program(&["docker-compose"], "BATCHSQL_REQUIRE_COMPOSE").map(Command::new)
}

/// The output of compose for these files, with the shipped settings. `None` without compose.
fn config(files: &[&str]) -> Option<String> {
    let mut command = compose()?;
    let secrets = secrets();
    command.current_dir(ROOT).env("SECRETS", secrets.path());
    command.env("OAUTH_CLIENT_ID", "grafana").env("OAUTH_ISSUER", "https://login.example.com/realms/company");
    command.args(["--env-file", "docker/production.env.example"]);
    for file in files {
        command.args(["-f", file]);
    }
    let output = command.arg("config").output().unwrap();
    assert!(output.status.success(), "{files:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn every_override_fits_the_stack() {
    for file in OVERRIDES {
        let Some(config) = config(&[PRODUCTION, file]) else { return };
        let own = read(file);
        let mut settings = own.lines().filter_map(|line| line.trim().strip_prefix("GF_")?.split_once(':'));
        assert!(settings.all(|(name, _)| config.contains(&format!("GF_{name}:"))), "{file}");
        // The settings below are still in the result.
        assert!(config.contains("GF_SECURITY_ADMIN_PASSWORD__FILE"), "{file}");
    }
}

/// The services of a configuration with their settings.
fn services(config: &str) -> Vec<(&str, String)> {
    let services = config.lines().skip_while(|line| *line != "services:").skip(1);
    let services = services.take_while(|line| line.starts_with(' ') || line.is_empty());
    // A service begins with its name, indented by two spaces.
    let mut blocks: Vec<(&str, String)> = Vec::new();
    for line in services {
        match line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')).and_then(|rest| rest.strip_suffix(':')) {
            Some(name) => blocks.push((name, String::new())),
            None => blocks.last_mut().unwrap().1.extend([line, "\n"]),
        }
    }
    blocks
}

#[test]
fn what_is_started_is_hardened_limited_and_pinned() {
    let production = ["alertmanager-a", "alertmanager-b", "app", "grafana", "prometheus-a", "prometheus-b"];
    let cluster = [
        "front",
        "grafana",
        "nats-1",
        "nats-2",
        "nats-3",
        "postgres",
        "prometheus",
        "worker-1",
        "worker-2",
        "worker-3",
    ];
    for (file, expected) in [(PRODUCTION, &production[..]), (CLUSTER, &cluster[..])] {
        let Some(config) = config(&[file]) else { return };
        let blocks = services(&config);
        assert_eq!(blocks.iter().map(|(name, _)| *name).collect::<Vec<_>>(), expected);
        for (name, block) in &blocks {
            for part in
                ["read_only: true", "no-new-privileges:true", "- ALL", "restart: unless-stopped", "healthcheck:"]
            {
                assert!(block.contains(part), "{name} has no {part}:\n{block}");
            }
            assert_eq!(block.matches("memory: ").count(), 2, "{name} has a limit and a reservation:\n{block}");
            assert!(!block.contains("PASSWORD: ") && !block.contains("privileged"), "{block}");
        }
        let images = config.lines().filter_map(|line| line.trim().strip_prefix("image: "));
        for image in images {
            let (_, version) = image.rsplit_once(':').unwrap_or_else(|| panic!("{image} has no version"));
            let version = version.trim_start_matches('v');
            assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{image} is not pinned");
        }
    }
    // Each Prometheus has its storage and its name.
    let Some(config) = config(&[PRODUCTION]) else { return };
    let blocks = services(&config);
    for (name, replica) in [("prometheus-a", "a"), ("prometheus-b", "b")] {
        let block = &blocks.iter().find(|(other, _)| *other == name).unwrap().1;
        assert!(block.contains(&format!("{name}-data")), "{block}");
        assert!(block.contains(&format!("REPLICA: {replica}")), "{block}");
    }
}

/// Each has a file of dead letters and a log of its own, and a name.
#[test]
fn parts_of_the_cluster_share_nothing_and_are_all_scraped() {
    let file = read(CLUSTER);
    let targets = read("monitoring/prometheus.cluster.yml");
    for name in ["nats-1", "nats-2", "nats-3", "front", "worker-1", "worker-2", "worker-3"] {
        assert_eq!(file.matches(&format!("'{name}-data:/data'")).count(), 1, "{name}");
        assert_eq!(targets.contains(&format!("'{name}:9090'")), !name.starts_with("nats"), "{name}");
    }
    for name in ["worker-1", "worker-2", "worker-3"] {
        assert!(file.contains(&format!("hostname: {name}")), "{name}");
    }
    // What it mounts is what the script makes.
    let secrets = secrets();
    let mounted: Vec<_> =
        file.split("{file: '${SECRETS:-./secrets}/").skip(1).filter_map(|rest| rest.split('\'').next()).collect();
    assert!(mounted.len() >= 7, "{mounted:?}");
    for name in mounted {
        let content = fs::read_to_string(secrets.path().join(name)).unwrap();
        assert!(!content.is_empty(), "{name}");
    }
}

#[test]
fn nothing_is_published_beyond_the_loopback_interface() {
    let files = [read(PRODUCTION), read(CLUSTER)].concat();
    let ports: Vec<_> = files.lines().filter(|line| line.trim().starts_with("ports:")).collect();
    assert_eq!(ports.len(), 8, "{ports:?}");
    assert!(ports.iter().all(|line| line.contains("['127.0.0.1:${")), "{ports:?}");
}

#[test]
fn the_suite_in_a_container_can_be_published_where_other_containers_reach_it() {
    let check = |address: &str, expected: &str| {
        let Some(mut command) = compose() else { return };
        command.current_dir(ROOT).args(["-f", "docker/docker-compose.integration.yml", "--profile", "suite", "config"]);
        command.env("BATCHSQL_PASSWORD", "x").env("BATCHSQL_METRICS_ADDRESS", address);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let config = String::from_utf8(output.stdout).unwrap();
        let (_, suite) = config.split_once("\n  suite:\n").unwrap();
        // The newer program writes an entry with fields, an older one writes the text.
        let is_so = suite.contains(&format!("host_ip: {expected}\n")) || suite.contains(&format!("{expected}:9091:"));
        assert!(is_so, "{suite}");
    };
    check("", "127.0.0.1");
    check("172.17.0.1", "172.17.0.1");
}

#[test]
fn files_that_the_service_reads_in_kubernetes_are_mounted() {
    let guide = read("docs/production.md");
    let pod = guide.split("```yaml").find(|block| block.contains("METRICS_TOKEN_FILE")).unwrap();
    let after = |line: &str, name: &str| -> Option<String> {
        Some(line.split_once(name)?.1.split([',', '}']).next().unwrap().trim().to_owned())
    };
    let mounts: Vec<_> = pod.lines().filter_map(|line| after(line, "mountPath:")).collect();
    let files: Vec<_> = pod.lines().filter(|l| l.contains("_FILE,")).filter_map(|l| after(l, "value:")).collect();
    assert_eq!(files.len(), 2, "{pod}");
    for file in files.iter().map(Path::new) {
        assert!(mounts.iter().any(|mount| file.parent() == Some(Path::new(mount))), "{file:?} is not in {mounts:?}");
    }
    // The root is read-only.
    assert!(mounts.iter().any(|mount| mount == "/tmp"), "{mounts:?}");
}

#[test]
fn alerts_that_silence_others_are_alerts() {
    let rules = ["monitoring/rules/alerts.yml", "monitoring/rules/prod/alerts.yml"].map(read).concat();
    let routes = read("monitoring/alertmanager.yml");
    let names = routes.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| word.starts_with("BatchSql"));
    let names: Vec<_> = names.collect();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        assert!(rules.contains(&format!("alert: {name}\n")), "monitoring/alertmanager.yml: no rule is named {name}");
    }
    // Every severity of a rule has a route; `warning` takes the default route.
    for line in rules.lines().filter_map(|line| line.trim().strip_prefix("severity: ")) {
        let is_known = line == "warning" || routes.contains(&format!("severity=\"{line}\""));
        assert!(is_known, "no route for the severity {line}");
    }
}

#[test]
fn the_settings_that_are_shipped_are_the_defaults_of_the_files() {
    let file = [PRODUCTION, OVERRIDES[0]].map(read).concat();
    let settings = read("docker/production.env.example");
    let settings: Vec<_> =
        settings.lines().filter(|line| !line.starts_with('#')).filter_map(|l| l.split_once('=')).collect();
    assert!(settings.len() > 10, "{settings:?}");
    for (name, value) in &settings {
        assert!(file.contains(&format!("${{{name}:-{value}}}")), "{name}={value} is not the default of {PRODUCTION}");
    }
    let used: Vec<_> = file.split("${").skip(1).filter_map(|rest| rest.split(":-").next()).collect();
    for name in used {
        assert!(settings.iter().any(|(known, _)| *known == name), "{name} is not in production.env.example");
    }
}
