//! Starting a server with Docker, up to the engine, and the compose file.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::place::{Place, Running, text, within_seconds};

const COMPOSE_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docker/docker-compose.integration.yml");

/// A fake `docker` that records its calls and responds as if an engine were running.
const FAKE_DOCKER: &str = r#"#!/bin/sh
echo "$*" >>"$FAKE_CALLS"
for word; do
  case $word in */override.json) cat "$word" >"$FAKE_OVERRIDE" ;; esac
done
case "$*" in
  *" create "*)
    if [ -n "$FAKE_SLOW" ]; then sleep "$FAKE_SLOW"; echo created >>"$FAKE_CALLS"; fi
    [ "${#BATCHSQL_PASSWORD}" = 32 ] && env | grep -q "^BATCHSQL_[A-Z]*_PORT=[0-9]*$" ;;
esac
"#;

struct FakeDocker {
    folder: Place,
}

impl FakeDocker {
    fn new() -> Self {
        let folder = Place::new();
        folder.program("docker", FAKE_DOCKER);
        Self { folder }
    }

    fn put_into(&self, command: &mut Command) {
        self.folder
            .put_first(command)
            .env("FAKE_CALLS", self.folder.0.join("calls"))
            .env("FAKE_OVERRIDE", self.settings());
    }

    /// Its calls, without the options that select the project.
    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.folder.0.join("calls")).unwrap_or_default();
        let short = |call: &str| match call.split_once("override.json ") {
            None => call.to_owned(),
            Some((project, verb)) => {
                assert!(project.starts_with("compose -p batchsql-"), "{call}");
                assert!(project.contains("docker/docker-compose.integration.yml -f "), "{call}");
                verb.to_owned()
            }
        };
        calls.lines().map(short).collect()
    }

    /// The additions of a run to the compose file.
    fn settings(&self) -> PathBuf {
        self.folder.0.join("settings.json")
    }
}

#[test]
fn docker_is_asked_for_a_project_and_to_remove_it() {
    let (docker, place) = (FakeDocker::new(), Place::new());
    let mut command = place.server(&["postgres", "--docker", "--", "-c", "max_connections=5"]);
    docker.put_into(&mut command);
    let mut server = Running::server(&mut command);
    assert!(server.dsn.starts_with("postgres://batchsql:"), "{}", server.dsn);
    server.tell("stop", "STOPPED");
    assert_eq!(server.tell("start", "READY"), server.dsn);
    server.tell("kill", "STOPPED");
    drop(server.input.take());
    assert!(server.process.wait().unwrap().success());

    let expected = [
        "compose version",
        "version",
        "create postgres",
        "up --detach --wait --wait-timeout 240 postgres",
        "stop postgres",
        "up --detach postgres",
        "up --detach --wait --wait-timeout 240 postgres",
        "kill postgres",
        "down --volumes --timeout 10",
    ];
    assert_eq!(docker.calls(), expected);
    assert!(fs::read_to_string(docker.settings()).unwrap().contains("max_connections=5"));
    assert!(place.is_empty(), "{:?}", place.entries());
}

#[test]
fn a_container_is_removed_when_the_program_is_killed() {
    let (docker, place) = (FakeDocker::new(), Place::new());
    let mut command = place.server(&["mysql", "--docker"]);
    docker.put_into(&mut command);
    Running::server(&mut command).end_by("-KILL");
    within_seconds("the container is removed", || docker.calls().last().unwrap() == "down --volumes --timeout 10");
    within_seconds("its folder is removed", || place.is_empty());
}

#[test]
fn a_container_that_is_being_made_is_removed_as_well() {
    // An interrupt ends the creation; a killed process cannot end it.
    for (signal, seconds, last) in [("-KILL", "1", "created"), ("-INT", "600", "create redis")] {
        let (docker, place) = (FakeDocker::new(), Place::new());
        let mut command = place.server(&["redis", "--docker"]);
        docker.put_into(&mut command);
        let running = Running::start(command.env("FAKE_SLOW", seconds));
        within_seconds("it is being made", || docker.calls().iter().any(|call| call == "create redis"));
        let _ = running.end_by(signal);
        within_seconds("its folder is removed", || place.is_empty());
        let calls = docker.calls();
        assert_eq!(calls[calls.len() - 2..], [last, "down --volumes --timeout 10"], "{signal}: {calls:?}");
    }
}

#[test]
fn an_interrupt_is_heard_while_docker_starts_the_server() {
    let (docker, place) = (FakeDocker::new(), Place::new());
    docker.folder.program("docker", &format!("{FAKE_DOCKER}case \"$*\" in *\" up \"*) exec sleep 600 ;; esac\n"));
    let mut command = place.server(&["redis", "--docker"]);
    docker.put_into(&mut command);
    let running = Running::start(&mut command);
    within_seconds("it is started", || docker.calls().last().is_some_and(|call| call.starts_with("up ")));
    let start = Instant::now();
    assert_eq!(running.end_by("-INT").code(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(300), "{:?}", start.elapsed());
    assert_eq!(docker.calls().last().unwrap(), "down --volumes --timeout 10");
    assert!(place.is_empty(), "{:?}", place.entries());
}

#[test]
fn an_engine_that_does_not_answer_is_named() {
    let (docker, place) = (FakeDocker::new(), Place::new());
    let check = |answers: &str, expected: &str| {
        let program = docker.folder.0.join("docker");
        fs::write(&program, format!("#!/bin/sh\n{answers}\n")).unwrap();
        let mut command = place.server(&["redis", "--docker"]);
        docker.put_into(&mut command);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(!output.status.success());
        assert!(text(&output).contains(expected), "{}", text(&output));
    };
    check("[ \"$1\" = compose ]", "no Docker engine answers");
    check("[ \"$1\" = version ]", "Docker has no `docker compose`");
    check("case $* in *create*) exit 1 ;; esac", "could not create the container");
    check("case $* in *up*) echo why not; exit 1 ;; esac", "why not");
    assert!(place.is_empty(), "{:?}", place.entries());
}

/// The compose file with the additions of a run, read by the real program.
#[test]
fn the_compose_file_is_valid() {
    let Some(compose) = compose_program() else { return };
    for kind in ["postgres", "mysql", "redis"] {
        let (docker, place) = (FakeDocker::new(), Place::new());
        let mut command = place.server(&[kind, "--docker", "--", "--argument", "with $dollar"]);
        docker.put_into(&mut command);
        assert_eq!(Running::server(&mut command).end_by("-TERM").code(), Some(143));

        let mut config = Command::new(compose[0]);
        config.args(&compose[1..]).args(["-f", COMPOSE_FILE, "-f"]).arg(docker.settings()).arg("config");
        let output = config.env("BATCHSQL_PASSWORD", "pw").output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        assert!(text(&output).contains("with $$dollar"), "{}", text(&output));

        let without_password = Command::new(compose[0])
            .args(&compose[1..])
            .args(["-f", COMPOSE_FILE, "config"])
            .env_remove("BATCHSQL_PASSWORD")
            .output()
            .unwrap();
        assert!(!without_password.status.success(), "the file must have no password of its own");
    }
}

pub(crate) fn compose_program() -> Option<&'static [&'static str]> {
    const WAYS: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
    let works = |way: &&&[&str]| {
        let version = Command::new(way[0]).args(&way[1..]).arg("version").output();
        version.is_ok_and(|output| output.status.success())
    };
    let found = WAYS.iter().find(works).copied();
    if found.is_none() {
        let required = std::env::var_os("BATCHSQL_REQUIRE_COMPOSE").is_some_and(|value| value == "1");
        assert!(!required, "neither `docker compose` nor docker-compose is in PATH");
        eprintln!("skipped: neither `docker compose` nor docker-compose is in PATH");
    }
    found
}
