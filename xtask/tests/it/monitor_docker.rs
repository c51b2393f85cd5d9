//! The verb `monitor` with Docker, up to the engine, and the compose file.

use std::{
    fs,
    io::Read,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::{
    docker::compose_program,
    monitor::Monitor,
    place::{Place, Running, text, within_seconds},
};

const COMPOSE_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docker/docker-compose.monitoring.yml");

/// A fake `docker` that records its arguments and variables, and responds as if an engine were running whose bridge is
/// an address of this machine. Containers exist between `up` and `down`.
const FAKE_DOCKER: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "$*" >>"$here/calls"
case "$*" in
  info*) echo "Some Linux" ;;
  "network inspect bridge"*) echo "${FAKE_BRIDGE:-127.0.0.2}" ;;
  *" ps --all --quiet") [ ! -e "$here/up" ] || echo 1234 ;;
  *" ps --services --status running") cat "$here/running" ;;
  *" create "*) env | grep '^BATCHSQL_' | sort >"$here/environment" ;;
  *" up "*)
    env | grep '^BATCHSQL_' | sort >"$here/environment"
    touch "$here/up"
    printf 'prometheus\ngrafana\n' >"$here/running"
    if [ -n "$FAKE_FAILS" ]; then exit 1; fi ;;
  *" down"*) rm -f "$here/up" ;;
  *" logs "*) echo "a log of a container" ;;
esac
"#;

struct Docker {
    program: Place,
    monitor: Monitor,
}

impl Docker {
    fn new(script: &str) -> Self {
        let program = Place::new();
        program.program("docker", script);
        Self { program, monitor: Monitor::scraping(4321) }
    }

    fn xtask(&self, arguments: &[&str]) -> Command {
        let mut command = self.monitor.xtask(arguments);
        self.program.put_first(&mut command);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.xtask(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// The calls that changed something, without the arguments that select the project.
    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.program.0.join("calls")).unwrap_or_default();
        let verb = |call: &str| {
            let (project, verb) = call.split_once("docker-compose.monitoring.yml ")?;
            assert!(project.starts_with("compose -p batchsql-monitoring -f "), "{call}");
            (!verb.starts_with("ps ")).then(|| verb.to_owned())
        };
        calls.lines().filter_map(verb).collect()
    }
}

#[test]
fn containers_run_until_a_signal_and_volumes_stay() {
    for (signal, code) in [("-INT", Some(130)), ("-KILL", None)] {
        let docker = Docker::new(FAKE_DOCKER);
        let mut running = Running::start(&mut docker.xtask(&["monitor"]));
        running.answer("by Docker, docker/docker-compose.monitoring.yml (its engine answers)");
        running.answer("next:");
        let state = docker.monitor.state();
        if cfg!(target_os = "linux") {
            // Containers cannot reach the loopback interface alone, and all interfaces would be too many.
            assert_eq!(state["bind"], serde_json::json!(["127.0.0.1", "127.0.0.2"]));
        }
        let environment = fs::read_to_string(docker.program.0.join("environment")).unwrap();
        let port = state["prometheus"].as_str().unwrap().rsplit(':').next().unwrap();
        assert!(environment.contains(&format!("BATCHSQL_PROMETHEUS_PORT={port}\n")), "{environment}");
        let targets = environment.lines().find_map(|line| line.strip_prefix("BATCHSQL_TARGETS=")).unwrap();
        let suite = fs::read_to_string(format!("{targets}/batchsql-integration-test.yml")).unwrap();
        assert_eq!(suite, "[{\"targets\":[\"host.docker.internal:4321\"]}]\n");

        assert_eq!(running.end_by(signal).code(), code);
        within_seconds("the containers are removed", || docker.calls().last().unwrap() == "down --timeout 10");
        within_seconds("the keeper's folder is removed", || docker.monitor.place.is_empty());
        let expected = ["create prometheus grafana", "up --detach --wait --wait-timeout 240 prometheus grafana"];
        assert_eq!(docker.calls()[..2], expected, "{signal}");
        if code.is_none() {
            docker.monitor.assert_not_believed();
        }
        docker.monitor.assert_gone();
    }
}

#[test]
fn containers_stay_until_down() {
    let docker = Docker::new(FAKE_DOCKER);
    let up = docker.run(&["monitor", "-d"]);
    assert!(up.status.success(), "{}", text(&up));
    assert!(docker.monitor.place.is_empty(), "there is a keeper");
    let again = docker.run(&["monitor"]);
    assert!(again.status.success() && text(&again).contains("it runs already"), "{}", text(&again));
    // The containers are not real.
    let status = docker.run(&["monitor", "status"]);
    assert!(!status.status.success() && text(&status).contains("NOT READY"), "{}", text(&status));
    let logs = docker.run(&["monitor", "logs", "prometheus", "--lines", "7"]);
    assert!(text(&logs).contains("a log of a container"), "{}", text(&logs));
    let down = docker.run(&["monitor", "down"]);
    assert!(down.status.success() && text(&down).contains("stays in Docker's volumes"), "{}", text(&down));
    docker.monitor.assert_gone();
    let expected = ["up --detach --wait --wait-timeout 240", "logs --tail 7 prometheus", "down --timeout 10"];
    assert_eq!(docker.calls(), expected);
}

#[test]
fn volumes_go_when_somebody_says_so() {
    let docker = Docker::new(FAKE_DOCKER);
    assert!(docker.run(&["monitor", "-d"]).status.success());
    let down = docker.run(&["monitor", "down", "--volumes"]);
    assert!(text(&down).contains("the volumes with the history are removed"), "{}", text(&down));
    assert_eq!(docker.calls().last().unwrap(), "down --timeout 10 --volumes");

    // Volumes of a stack in the foreground, which keeps them at its own end.
    let mut running = Running::start(&mut docker.xtask(&["monitor"]));
    running.answer("next:");
    let down = docker.run(&["monitor", "down", "--volumes"]);
    assert!(down.status.success(), "{}", text(&down));
    assert_eq!(running.process.wait().unwrap().code(), Some(143));
    let calls = docker.calls();
    assert_eq!(calls[calls.len() - 2..], ["down --timeout 10", "down --timeout 10 --volumes"]);
    // Volumes of a stack that stopped earlier.
    assert!(docker.run(&["monitor", "down", "--volumes"]).status.success());
    assert_eq!(docker.calls().len(), calls.len() + 1);
}

#[test]
fn a_stack_whose_state_is_lost_is_found_by_its_name() {
    let docker = Docker::new(FAKE_DOCKER);
    assert!(docker.run(&["monitor", "-d"]).status.success());
    fs::remove_file(docker.monitor.known.0.join("state.json")).unwrap();
    let up = docker.run(&["monitor"]);
    assert!(!up.status.success() && text(&up).contains("a stack of this name already"), "{}", text(&up));
    assert!(docker.run(&["monitor", "down"]).status.success());
    assert_eq!(docker.calls().last().unwrap(), "down --timeout 10");
    docker.monitor.assert_gone();
}

/// Containers that have ended are removed only by `down`.
#[test]
fn containers_that_have_ended_are_told_and_removed() {
    let docker = Docker::new(FAKE_DOCKER);
    let mut running = Running::start(docker.xtask(&["monitor"]).stderr(Stdio::piped()));
    running.answer("next:");
    fs::write(docker.program.0.join("running"), "prometheus\n").unwrap();
    within_seconds("it ends", || running.process.try_wait().unwrap().is_some());
    let mut told = String::new();
    running.process.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(told.contains("the container of grafana has ended") && told.contains("a log of a container"), "{told}");
    assert_eq!(docker.calls().last().unwrap(), "down --timeout 10");
    docker.monitor.assert_gone();
}

/// An engine that accepts requests and never responds.
#[test]
fn an_engine_that_does_not_answer_holds_nobody_up() {
    let docker = Docker::new(FAKE_DOCKER);
    assert!(docker.run(&["monitor", "-d"]).status.success());
    docker.program.program("docker", "#!/bin/sh\nexec sleep 600\n");
    docker.program.program("cargo", "#!/bin/sh\nexit 0\n");
    let start = Instant::now();
    let check = |verb: &Output| {
        assert!(!verb.status.success());
        assert!(text(verb).contains("Docker did not respond for 15 s"), "{}", text(verb));
    };
    let verbs = [&["monitor", "status"][..], &["monitor", "down"], &["integration-test"]].map(|verb| {
        let mut command = docker.xtask(verb);
        command.env("CARGO", docker.program.0.join("cargo")).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    verbs.into_iter().for_each(|verb| check(&verb.wait_with_output().unwrap()));
    check(&docker.run(&["monitor"]));
    assert!(start.elapsed() < Duration::from_secs(300), "{:?}", start.elapsed());
    // It is unknown whether it has ended.
    assert!(docker.monitor.known.0.join("state.json").exists());
}

#[test]
fn containers_that_do_not_become_ready_are_removed_and_their_log_is_shown() {
    for arguments in [&["monitor"][..], &["monitor", "-d"]] {
        let docker = Docker::new(FAKE_DOCKER);
        let mut command = docker.xtask(arguments);
        let output = command.env("FAKE_FAILS", "1").stdin(Stdio::null()).output().unwrap();
        assert!(!output.status.success());
        for word in ["did not become ready", "a log of a container"] {
            assert!(text(&output).contains(word), "{word}: {}", text(&output));
        }
        assert_eq!(docker.calls().last().unwrap(), "down --timeout 10");
        docker.monitor.assert_gone();
    }
}

/// The reason against Docker is printed and the programs of this machine are used, unless Docker is required.
#[test]
fn without_an_engine_it_goes_on_with_programs() {
    let check = |script: &str, bridge: &str, why: &str| {
        let docker = Docker::new(script);
        let mut command = docker.xtask(&["monitor"]);
        let mut running = Running::start(command.env("FAKE_BRIDGE", bridge));
        let line = running.answer("from programs of this machine (");
        assert!(line.contains(why), "{line}");
        running.answer("next:");
        assert_eq!(docker.monitor.state()["bind"], serde_json::json!(["127.0.0.1"]));
        assert_eq!(running.end_by("-INT").code(), Some(130));

        let mut command = docker.xtask(&["monitor", "--docker"]);
        let forced = command.env("FAKE_BRIDGE", bridge).stdin(Stdio::null()).output().unwrap();
        assert!(!forced.status.success());
        for word in ["cannot use Docker", why, "without --docker"] {
            assert!(text(&forced).contains(word), "{word}: {}", text(&forced));
        }
        assert_eq!(docker.calls(), [""; 0]);
        docker.monitor.assert_gone();
    };
    check("#!/bin/sh\n[ \"$1\" = compose ] && [ \"$2\" = version ]\n", "", "no Docker engine answers");
    if cfg!(target_os = "linux") {
        // An address reserved for documentation.
        check(FAKE_DOCKER, "192.0.2.1", "containers cannot reach this machine");
        check(FAKE_DOCKER, "nothing", "does not report the address of its bridge");
    }
}

/// The compose file, read by the real program.
#[test]
fn the_compose_file_of_the_monitor_is_valid() {
    let Some(compose) = compose_program() else { return };
    let config = |variables: &[(&str, &str)]| {
        let mut config = Command::new(compose[0]);
        config.args(&compose[1..]).args(["-f", COMPOSE_FILE, "config"]).envs(variables.iter().copied());
        let output = config.output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    let plain = config(&[]);
    for port in ["9092", "3002"] {
        assert!(plain.contains(port), "{port}: {plain}");
    }
    assert_eq!(plain.matches("no-new-privileges").count(), 2, "{plain}");
    assert!(!plain.contains(":latest"), "{plain}");
    let changed = config(&[
        ("BATCHSQL_PROMETHEUS_PORT", "4001"),
        ("BATCHSQL_GRAFANA_PORT", "4002"),
        ("BATCHSQL_TARGETS", "/of/a/test"),
        ("BATCHSQL_RETENTION", "3h"),
    ]);
    for word in ["4001", "4002", "/of/a/test", "retention.time=3h"] {
        assert!(changed.contains(word), "{word}: {changed}");
    }
    // Every port is on the loopback interface.
    for text in [&plain, &changed] {
        assert!(!text.contains("0.0.0.0"), "{text}");
        assert_eq!(text.matches("127.0.0.1").count(), 4, "two ports and two health checks: {text}");
    }
}
