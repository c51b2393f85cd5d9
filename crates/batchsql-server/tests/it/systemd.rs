//! The unit of systemd: what it says about the program is so.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::program::{LONG, Place, Running};

const UNIT: &str = include_str!("../../../../packaging/batchsql.service");
const GUIDE: &str = include_str!("../../../../docs/guides/run-as-a-service.md");

/// The values of a key of the section `[Service]`.
fn service(key: &str) -> &'static str {
    let section = UNIT.split("[Service]").nth(1).unwrap().split("\n[").next().unwrap();
    let mut values = section.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("the unit has no {key}"));
    assert_eq!(values.next(), None, "{key} is there twice");
    value
}

/// The words of the command.
fn command() -> Vec<&'static str> {
    service("ExecStart").split(' ').collect()
}

#[test]
fn systemd_accepts_the_unit() {
    let place = Place::new();
    // Its program must be there.
    let program = command()[0];
    let unit = place.write("batchsql.service", UNIT.replace(program, env!("CARGO_BIN_EXE_batchsql")));
    let verify = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output();
    let Ok(verified) = verify else {
        eprintln!("skipped: there is no systemd-analyze here, so only the other tests of this file look at the unit");
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    let of_unit: Vec<&str> = said.lines().filter(|line| line.contains("batchsql")).collect();
    assert!(verified.status.success() && of_unit.is_empty(), "{said}");
}

#[test]
fn the_unit_starts_this_program_with_options_that_it_has() {
    let place = Place::new();
    let [program, verb, options @ ..] = &command()[..] else { panic!("{UNIT}") };
    let name = std::path::Path::new(env!("CARGO_BIN_EXE_batchsql")).file_name().unwrap();
    assert_eq!(std::path::Path::new(program).file_name(), Some(name));
    let help = place.run(&["--help"]);
    let has = |help: &str, word: &str| help.lines().any(|line| line.split_whitespace().next() == Some(word));
    assert!(has(&help.out(), verb), "{}", help.all());
    let of_verb = place.run(&[verb, "--help"]).out();
    for option in options.iter().filter(|option| option.starts_with('-')) {
        assert!(has(&of_verb, option.split('=').next().unwrap()), "{option}: {of_verb}");
    }
    // The exit codes on which systemd decides.
    for (key, meaning) in [
        ("RestartPreventExitStatus", "the command line or the configuration is wrong"),
        ("SuccessExitStatus", "rows wait in the durable intake for the next start"),
    ] {
        let line = format!("  {}  {meaning}", service(key));
        assert!(help.out().lines().any(|found| found.starts_with(&line)), "{key}: {}", help.all());
    }
    place.write("wrong.toml", "[http]\nlisten = 8\n");
    let wrong = place.run(&[verb, "wrong.toml"]);
    assert_eq!(wrong.code().to_string(), service("RestartPreventExitStatus"), "{}", wrong.all());
}

#[test]
fn the_paths_of_the_unit_are_those_of_its_installation() {
    let comment: String =
        UNIT.lines().take_while(|line| line.starts_with('#')).map(|line| format!("{line} ")).collect();
    let command = command();
    let (program, config) = (command[0], *command.last().unwrap());
    let folder = |path: &str| path.rsplit_once('/').unwrap().0.to_owned();
    let (credential, source) = service("LoadCredential").split_once(':').unwrap();
    for path in [&folder(program), config, source, &format!("/var/lib/{}", service("StateDirectory"))] {
        assert!(comment.contains(path), "{path} is not in {comment}");
    }
    assert_eq!(service("WorkingDirectory"), format!("/var/lib/{}", service("StateDirectory")));
    // The password is where the comment says that the configuration finds it.
    let setting = comment.split('`').find(|part| part.starts_with("password_file")).unwrap();
    assert!(setting.contains(&format!("/{credential}\"")), "{setting}");
    let place = Place::new();
    place.write(
        "b.toml",
        format!("[database]\ndsn = \"postgres://app@db/shop\"\n{setting}\n[[tables]]\nname = \"orders\"\n[http]\n"),
    );
    let check = || {
        let mut check = place.command(&["check", "b.toml", "--offline"]);
        crate::program::Ran(check.env("CREDENTIALS_DIRECTORY", place.folder()).output().unwrap())
    };
    let missing = check();
    assert!(missing.code() == 2 && missing.all().contains(credential), "{}", missing.all());
    place.write(credential, "s3cret\n");
    let there = check();
    assert!(there.code() == 0 && !there.all().contains("s3cret"), "{}", there.all());
}

#[test]
fn the_unit_waits_for_what_the_program_tells_it() {
    assert_eq!((service("Type"), service("NotifyAccess")), ("notify", "main"));
    let place = Place::new();
    place.sql("CREATE TABLE orders (id INTEGER)");
    let socket = UnixDatagram::bind(place.path("notify")).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    place.write(
        "b.toml",
        format!("{}[[tables]]\nname = \"orders\"\n[http]\nlisten = \"127.0.0.1:0\"\n", place.database()),
    );
    // As the unit does it, with another path.
    let words = command();
    let arguments: Vec<&str> = words[1..words.len() - 1].iter().copied().chain(["b.toml"]).collect();
    let mut program = place.command(&arguments);
    program.env("NOTIFY_SOCKET", place.path("notify")).stdout(Stdio::null());
    let program = Running::spawn(program);
    let told = || {
        let mut state = [0; 100];
        let length = socket.recv(&mut state).unwrap();
        String::from_utf8_lossy(&state[..length]).into_owned()
    };
    assert_eq!(told(), "READY=1");
    // The end of an ordinary service has this code, and the unit gives it the time.
    let (code, log) = program.stop();
    assert_eq!((code, told()), (0, "STOPPING=1".to_owned()), "{log}");
    let drain_for = GUIDE.lines().find_map(|line| line.strip_prefix("| `[run]` | `drain_for` | `")).unwrap();
    let drain_for: u64 = drain_for.split('s').next().unwrap().parse().unwrap();
    let stop = Duration::from_secs(service("TimeoutStopSec").parse().unwrap());
    let last_answers_and_dead_letters = Duration::from_secs(5 + 5);
    assert!(stop > Duration::from_secs(drain_for) + last_answers_and_dead_letters, "{stop:?}");
}
