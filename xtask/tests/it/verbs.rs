//! The verbs `test` and `integration-test`, with a fake cargo that only records its arguments.

use std::{fs, net::TcpStream, path::PathBuf, process::Stdio};

use crate::place::{Place, Running, text, within_seconds};

/// For a build, it reports a suite; otherwise it acts as the tests. Both print the servers they got, and wait if a
/// variable tells them to.
const FAKE_CARGO: &str = r#"#!/bin/sh
case "$*" in *"--bin "*)
  echo '{"reason":"compiler-artifact","target":{"name":"batchsql-suite"},"executable":"'"$0"'"}'
  exit ;;
esac
# What tests run as programs is built before them.
case "$*" in "build "*) exit ;; esac
case "$*" in "test "*) echo "     Running tests/it/main.rs (target/debug/deps/it-1)" >&2 ;; esac
echo "CALL $*"
for variable in POSTGRES_DSN MYSQL_DSN REDIS_DSN BATCHSQL_XTASK; do
  eval "echo \"$variable \$$variable\""
done
if [ -n "$BATCHSQL_XTASK" ]; then "$BATCHSQL_XTASK" server redis </dev/null >/dev/null && echo "OWN works"; fi
if [ -n "$FAKE_SLOW_END" ]; then
  mktemp -d >/dev/null
  (
    trap 'sleep 1; echo ended >"$FAKE_SLOW_END"; exit' TERM
    echo >"$FAKE_SLOW_END.begun"
    while [ -e "$0" ]; do sleep 0.05; done
  ) >/dev/null 2>&1 &
  until [ -e "$FAKE_SLOW_END.begun" ]; do sleep 0.01; done
fi
trap 'echo "HEARD it"; exit 3' INT TERM
echo WAITING
# Not longer than the test that made this file.
while [ -n "$FAKE_WAITS" ] && [ -e "$0" ]; do sleep 0.05; done
"#;

/// A cargo in a folder of its own.
struct FakeCargo(Place);

impl FakeCargo {
    fn new() -> Self {
        let place = Place::new();
        place.program("cargo", FAKE_CARGO);
        Self(place)
    }

    fn path(&self) -> PathBuf {
        self.0.0.join("cargo")
    }
}

const VARIABLES: [&str; 3] = ["POSTGRES_DSN", "MYSQL_DSN", "REDIS_DSN"];

fn value<'a>(text: &'a str, word: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(word));
    line.unwrap_or_else(|| panic!("no {word} in {text}")).trim()
}

fn address(dsn: &str) -> &str {
    let address = dsn.rsplit("//").next().unwrap().rsplit('@').next().unwrap();
    address.split('/').next().unwrap()
}

#[test]
fn tests_get_every_server_and_nothing_is_left() {
    let (cargo, place) = (FakeCargo::new(), Place::new());
    let mut command = place.xtask(&["test", "--no-install"]);
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    let output = command.env("CARGO", cargo.path()).stdin(Stdio::null()).output().unwrap();
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert!(value(&text, "POSTGRES_DSN").starts_with("postgres://batchsql:"));
    assert!(value(&text, "MYSQL_DSN").starts_with("mysql://batchsql:"));
    assert!(value(&text, "REDIS_DSN").starts_with("redis://127.0.0.1:"));
    assert!(text.contains("OWN works"), "{text}");
    // From a program, or with Docker.
    for title in ["PostgreSQL: started ", "MySQL or MariaDB: started ", "Redis: started "] {
        assert!(text.contains(title), "{title}: {text}");
    }
    for variable in VARIABLES {
        let address = address(value(&text, variable));
        assert!(TcpStream::connect(address).is_err(), "{variable} still runs");
    }
    assert!(place.is_empty(), "{:?}", place.entries());
}

/// Docker has no cluster, and no server whose socket a test can reach.
#[test]
fn programs_for_servers_of_single_tests_are_installed_even_where_docker_answers() {
    let (cargo, place, programs) = (FakeCargo::new(), Place::new(), Place::new());
    let note = format!("#!/bin/sh\necho \"$@\" >>{}/installed\n", programs.0.display());
    for (name, text) in [("docker", "#!/bin/sh\n"), ("apt-get", "#!/bin/sh\n"), ("sh", &note), ("sudo", &note)] {
        programs.program(name, text);
    }
    let mut command = place.xtask(&["test"]);
    for variable in VARIABLES {
        command.env(variable, "named");
    }
    // An environment in which root or sudo would install.
    command.env("PATH", &programs.0).env("CI", "true").env("CARGO", cargo.path());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let (text, installed) = (text(&output), fs::read_to_string(programs.0.join("installed")).unwrap_or_default());
    assert!(installed.contains(" redis-server"), "{installed}{text}");
    // It is still missing, which is reported for each kind.
    assert!(text.contains("FAILED   Redis Cluster: "), "{text}");
    assert!(!text.contains("FAILED   Redis: "), "Docker has it: {text}");
    assert!(!output.status.success());
    assert!(place.is_empty(), "{:?}", place.entries());
}

#[test]
fn a_variable_forbids_every_verb_to_install() {
    let (cargo, place, programs) = (FakeCargo::new(), Place::new(), Place::new());
    let note = format!("#!/bin/sh\necho \"$@\" >>{}/installed\n", programs.0.display());
    for (name, text) in [("apt-get", "#!/bin/sh\n"), ("sh", &note), ("sudo", &note)] {
        programs.program(name, text);
    }
    let mut command = place.xtask(&["integration-test", "--db", "redis"]);
    command.env_remove("REDIS_DSN").env("BATCHSQL_NO_INSTALL", "1");
    // An environment in which root or sudo would install.
    command.env("PATH", &programs.0).env("CI", "true").env("CARGO", cargo.path());
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    assert!(text(&output).contains("forbids its installation"), "{}", text(&output));
    assert!(!programs.0.join("installed").exists(), "{}", text(&output));
}

#[test]
fn the_quick_tests_need_no_server_and_the_end_says_what_took_the_time() {
    let (cargo, place) = (FakeCargo::new(), Place::new());
    let mut command = place.xtask(&["test", "--quick"]);
    command.env_remove("POSTGRES_DSN");
    let output = command.env("CARGO", cargo.path()).stdin(Stdio::null()).output().unwrap();
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    let calls: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("CALL test --no-fail-fast ")).collect();
    assert!(calls[0].contains("--tests --package batchsql-core "), "{text}");
    assert!(calls[1].contains("--lib --package batchsql-postgres ") && !calls[1].contains("--tests"), "{text}");
    assert_eq!((calls.len(), value(&text, "POSTGRES_DSN")), (2, ""), "{text}");
    assert!(!text.contains("==> servers"), "{text}");
    assert!(text.contains("     Running tests/it/main.rs (target/debug/deps/it-1)\n"), "{text}");
    let table = text.split("==> time").nth(1).unwrap();
    assert!(table.contains("tests without servers ") && table.contains(" s  it-1\n"), "{table}");
}

#[test]
fn the_help_of_test_says_that_variables_are_not_enough() {
    let output = Place::new().xtask(&["test", "--help"]).output().unwrap();
    let words = text(&output).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("The variables alone are not enough"), "{words}");
}

/// Whatever is missing for a release at present: then the verb fails, and shows the order all the same.
#[test]
fn a_dry_run_of_a_release_shows_the_order_and_fails_if_something_is_missing() {
    let output = Place::new().xtask(&["release", "--dry-run"]).output().unwrap();
    let text = text(&output);
    let published: Vec<_> = text
        .lines()
        .filter_map(|line| {
            line.strip_prefix("passed   cargo publish --package ")?.split_once(" --locked: would publish ")
        })
        .map(|(name, _)| name)
        .collect();
    let place =
        |name: &str| published.iter().position(|found| *found == name).unwrap_or_else(|| panic!("{name}: {text}"));
    for (before, after) in
        [("batchsql-core", "batchsql-sql"), ("batchsql-sql", "batchsql-mysql"), ("batchsql-log", "batchsql")]
    {
        assert!(place(before) < place(after), "{text}");
    }
    assert_eq!(output.status.success(), !text.contains("FAILED"), "{text}");
    assert_eq!(text.contains("a release would be refused"), text.contains("FAILED   "), "{text}");
}

#[test]
fn a_server_that_was_named_is_used_and_its_name_is_not_told() {
    let (cargo, place) = (FakeCargo::new(), Place::new());
    let mut command = place.xtask(&["integration-test", "--db=postgres,mysql", "--db", "redis", "--no-install"]);
    command.env("POSTGRES_DSN", "postgres://u:secret@h/d").env("MYSQL_DSN", "mysql://u:secret@h/d");
    let output = command.env_remove("REDIS_DSN").env("CARGO", cargo.path()).output().unwrap();
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert_eq!(value(&text, "POSTGRES_DSN"), "postgres://u:secret@h/d");
    assert_eq!(value(&text, "MYSQL_DSN"), "mysql://u:secret@h/d");
    assert!(value(&text, "REDIS_DSN").starts_with("redis://127.0.0.1:"));
    assert_eq!(value(&text, "CALL"), "--metrics-port 9091 --db=postgres,mysql --db redis");
    assert!(text.contains("PostgreSQL: from POSTGRES_DSN"), "{text}");
    assert_eq!(text.matches("secret").count(), 2, "only the suite says it here: {text}");
    assert!(place.is_empty(), "{:?}", place.entries());
}

#[test]
fn no_server_is_started_beside_one_that_an_argument_names() {
    let (cargo, place) = (FakeCargo::new(), Place::new());
    let mut command = place.xtask(&["integration-test", "--db", "redis", "--redis-dsn", "redis://h"]);
    let output = command.env_remove("REDIS_DSN").env("CARGO", cargo.path()).output().unwrap();
    let text = text(&output);
    assert_eq!(value(&text, "REDIS_DSN"), "");
    assert_eq!(value(&text, "CALL"), "--metrics-port 9091 --db redis --redis-dsn redis://h");
    assert!(!text.contains("==> servers"), "{text}");
}

#[test]
fn without_a_database_no_server_is_started() {
    let (cargo, place) = (FakeCargo::new(), Place::new());
    let mut command = place.xtask(&["integration-test", "--duration", "1s"]);
    let output = command.env_remove("REDIS_DSN").env("CARGO", cargo.path()).output().unwrap();
    let text = text(&output);
    assert_eq!(value(&text, "REDIS_DSN"), "");
    assert!(!text.contains("==> servers"), "{text}");
}

#[test]
fn an_interrupt_reaches_what_runs_and_then_the_servers_stop() {
    for (verb, signal, code) in [("test", "-INT", 130), ("integration-test", "-TERM", 143)] {
        let (cargo, place) = (FakeCargo::new(), Place::new());
        let mut command = place.xtask(&[verb, "--no-install"]);
        if verb == "integration-test" {
            command.arg("--db=redis");
        }
        command.env_remove("REDIS_DSN").env("CARGO", cargo.path()).env("FAKE_WAITS", "1");
        let mut running = Running::start(&mut command);
        let dsn = running.answer("REDIS_DSN");
        running.answer("WAITING");
        TcpStream::connect(address(&dsn)).unwrap();
        let status = running.interrupt(signal, "HEARD");
        assert_eq!(status.code(), Some(code), "{verb}");
        assert!(TcpStream::connect(address(&dsn)).is_err());
        assert!(place.is_empty(), "{verb}: {:?}", place.entries());
    }
}

/// Killed tests leave their servers, which take a while to stop, and their temporary files.
#[test]
fn what_was_interrupted_is_over_when_the_verb_ends() {
    let (cargo, place) = (FakeCargo::new(), Place::short());
    let ended = cargo.0.0.join("ended");
    let mut command = place.xtask(&["test", "--no-install"]);
    command.envs(VARIABLES.map(|variable| (variable, "named"))).env("CARGO", cargo.path());
    let mut running = Running::start(command.env("FAKE_WAITS", "1").env("FAKE_SLOW_END", &ended));
    running.answer("WAITING");
    assert_eq!(running.interrupt("-TERM", "HEARD").code(), Some(143));
    assert!(ended.exists(), "the verb ended before what it had started");
    assert!(place.is_empty(), "{:?}", place.entries());
}

#[test]
fn servers_stop_when_the_verb_is_killed() {
    let (cargo, place) = (FakeCargo::new(), Place::new());
    let mut command = place.xtask(&["integration-test", "--db", "redis"]);
    command.env_remove("REDIS_DSN").env("CARGO", cargo.path());
    let mut running = Running::start(command.env("FAKE_WAITS", "1"));
    let dsn = running.answer("REDIS_DSN");
    let _ = running.end_by("-KILL");
    within_seconds("the server stops", || TcpStream::connect(address(&dsn)).is_err());
    within_seconds("its folder is removed", || place.is_empty());
}
