//! The verb `server`: servers respond, follow commands, and are removed, however their keeper ends.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use crate::place::{Place, Running, text, within_seconds};

fn redis(address: &str, command: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_server_obeys_and_goes_with_the_end_of_its_input() {
    let place = Place::new();
    let mut server = Running::server(&mut place.server(&["redis", "--", "--appendonly", "yes", "--maxmemory", "12mb"]));
    let address = server.address();
    assert!(redis(&address, "CONFIG GET maxmemory").unwrap().contains("12582912"), "its arguments are used");
    assert!(redis(&address, "SET key kept").unwrap().starts_with("+OK"));

    assert_eq!(server.tell("stop", "STOPPED"), "");
    assert!(TcpStream::connect(&address).is_err());
    assert_eq!(server.tell("start", "READY"), server.dsn);
    assert!(redis(&address, "GET key").unwrap().contains("kept"));
    server.tell("kill", "STOPPED");
    assert!(TcpStream::connect(&address).is_err());
    server.tell("launch", "LAUNCHED");
    within_seconds("it starts again", || redis(&address, "PING").is_ok_and(|answer| answer.contains("PONG")));

    drop(server.input.take());
    assert!(server.process.wait().unwrap().success());
    assert!(place.is_empty(), "{:?}", place.entries());
    assert!(TcpStream::connect(&address).is_err());
}

/// Commands for the server behind a pooler leave the pooler alone.
#[test]
fn a_server_behind_another_one_obeys_too() {
    let place = Place::new();
    let mut server = Running::server(&mut place.server(&["pgbouncer"]));
    let address = server.address();
    let behind = server.tell("start behind", "BEHIND");
    let behind = behind.rsplit_once('@').unwrap().1.split('/').next().unwrap().to_owned();
    assert_ne!(behind, address);
    server.tell("stop behind", "STOPPED");
    assert!(TcpStream::connect(&behind).is_err());
    TcpStream::connect(&address).unwrap();
    server.tell("start behind", "BEHIND");
    TcpStream::connect(&behind).unwrap();
    assert_eq!(server.end_by("-TERM").code(), Some(143));
    assert!(place.is_empty(), "{:?}", place.entries());
}

#[test]
fn a_command_that_comes_twice_changes_nothing() {
    let place = Place::new();
    let mut server = Running::server(&mut place.server(&["redis"]));
    let address = server.address();
    assert!(redis(&address, "SET key kept").unwrap().starts_with("+OK"));
    for (command, answer) in [("start", "READY"), ("launch", "LAUNCHED"), ("start", "READY")] {
        server.tell(command, answer);
        assert!(redis(&address, "GET key").unwrap().contains("kept"), "{command}");
    }
    for command in ["stop", "stop", "kill", "kill"] {
        server.tell(command, "STOPPED");
        assert!(TcpStream::connect(&address).is_err(), "{command}");
    }
    server.tell("launch", "LAUNCHED");
    server.tell("start", "READY");
    server.tell("start", "READY");
    drop(server.input.take());
    assert!(server.process.wait().unwrap().success());
    assert!(TcpStream::connect(&address).is_err());
    assert!(place.is_empty(), "{:?}", place.entries());
}

#[test]
fn a_paused_server_keeps_its_connections_and_answers_later() {
    let place = Place::new();
    let mut server = Running::server(&mut place.server(&["redis"]));
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let mut answer = [0; 7];
    stream.write_all(b"PING\r\n").unwrap();
    stream.read_exact(&mut answer).unwrap();
    server.tell("pause", "PAUSED");
    stream.write_all(b"PING\r\n").unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(stream.read(&mut answer).is_err(), "it answers while it is paused");
    server.tell("resume", "RESUMED");
    stream.set_read_timeout(None).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");

    // One that is paused is stopped too.
    server.tell("pause", "PAUSED");
    drop(server.input.take());
    assert!(server.process.wait().unwrap().success());
    assert!(place.is_empty(), "{:?}", place.entries());
}

#[test]
fn nothing_is_left_when_the_program_is_killed() {
    let place = Place::new();
    let server = Running::server(&mut place.server(&["redis"]));
    let address = server.address();
    assert!(redis(&address, "PING").unwrap().contains("PONG"));
    assert!(!place.is_empty());
    assert_eq!(server.end_by("-KILL").code(), None);
    within_seconds("the server stops", || TcpStream::connect(&address).is_err());
    within_seconds("its folder is removed", || place.is_empty());
}

/// As `.ci/run` does: the program ends with the script that started it, even if that is killed.
#[cfg(target_os = "linux")]
#[test]
fn nothing_is_left_when_the_script_that_asks_for_it_is_killed() {
    let place = Place::new();
    let program = place.server(&["redis"]);
    let script = "export BATCHSQL_END_WITH=$$; exec 3<&0; \"$@\" <&3 & wait";
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(program.get_program()).args(program.get_args());
    shell.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut server = Running::server(&mut shell);
    let address = server.address();
    assert!(redis(&address, "PING").unwrap().contains("PONG"));
    // Its input stays open: only the end of the script ends it.
    let input = server.input.take();
    assert_eq!(server.end_by("-KILL").code(), None);
    within_seconds("the server stops", || TcpStream::connect(&address).is_err());
    within_seconds("its folder is removed", || place.is_empty());
    drop(input);
}

#[test]
fn nothing_is_left_when_the_program_is_killed_while_it_prepares_the_server() {
    let places: Vec<_> = ["postgres", "mysql", "pgbouncer"].into_iter().map(|kind| (kind, Place::new())).collect();
    for moment in 0..4 {
        for (kind, place) in &places {
            let running = Running::start(&mut place.server(&[kind]));
            within_seconds("its folder is made", || !place.is_empty());
            thread::sleep(Duration::from_millis(moment * 120));
            let _ = running.end_by("-KILL");
        }
    }
    for (kind, place) in &places {
        within_seconds("its folders are removed", || place.is_empty());
        // No process that it started creates them again.
        thread::sleep(Duration::from_millis(500));
        assert!(place.is_empty(), "{kind}: {:?}", place.entries());
    }
}

#[test]
fn nothing_is_left_after_an_interrupt() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
        let place = Place::new();
        let server = Running::server(&mut place.server(&["postgres"]));
        let address = server.address();
        TcpStream::connect(&address).unwrap();
        assert_eq!(server.end_by(signal).code(), Some(code));
        assert!(place.is_empty(), "{:?}", place.entries());
        assert!(TcpStream::connect(&address).is_err());
    }
}

/// With slow programs instead of those that prepare a server.
#[test]
fn an_interrupt_is_heard_while_a_server_is_prepared() {
    let (programs, place) = (Place::new(), Place::new());
    for (name, text) in [("postgres", ""), ("initdb", "echo prepares >&2\nexec sleep 600\n")] {
        programs.program(name, &format!("#!/bin/sh\n{text}"));
    }
    let mut command = place.server(&["postgres"]);
    let running = Running::start(programs.put_first(&mut command));
    within_seconds("it is prepared", || {
        let logs = place.entries().into_iter().map(|folder| place.0.join(folder).join("log"));
        logs.into_iter().any(|log| std::fs::read_to_string(log).is_ok_and(|log| log.contains("prepares")))
    });
    let start = Instant::now();
    assert_eq!(running.end_by("-INT").code(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(300), "{:?}", start.elapsed());
    assert!(place.is_empty(), "{:?}", place.entries());
}

#[test]
fn a_server_that_does_not_start_shows_its_log_and_leaves_nothing() {
    let place = Place::new();
    let output = place.server(&["redis", "--", "--no-such-setting", "1"]).stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    assert!(text(&output).contains("no-such-setting"), "{}", text(&output));
    assert!(place.is_empty(), "{:?}", place.entries());
}

#[test]
fn what_is_missing_is_named() {
    let place = Place::new();
    let mut command = place.server(&["redis", "--no-install"]);
    let output = command.env("PATH", "/there-is-no-such-folder").stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    for word in ["Redis", "Docker is not installed", "--no-install", "`redis-server`", "REDIS_DSN"] {
        assert!(text(&output).contains(word), "{word}: {}", text(&output));
    }
    assert!(place.is_empty(), "{:?}", place.entries());
}

/// Every kind: its certificate, and the user of its processes.
#[test]
fn every_kind_starts_as_a_user_without_rights() {
    for kind in ["postgres", "pgbouncer", "mysql", "redis", "redis-cluster", "prometheus", "nats"] {
        let place = Place::new();
        let server = Running::server(&mut place.server(&[kind]));
        TcpStream::connect(server.address()).unwrap_or_else(|error| panic!("{kind}: {error}"));
        for folder in place.entries() {
            let folder = place.0.join(folder);
            assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", folder.display());
            // In a container the image sets the user; the log here is that of Docker.
            let in_container = folder.join("override.json").exists();
            assert!(in_container || owner(&folder.join("log")) != 0, "{} runs as root", folder.display());
        }
        assert_eq!(server.end_by("-TERM").code(), Some(143));
        assert!(place.is_empty(), "{kind}: {:?}", place.entries());
    }
}

fn owner(file: &Path) -> u32 {
    file.metadata().unwrap().uid()
}
