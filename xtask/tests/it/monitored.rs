//! The verb `integration-test` with a running monitoring stack, and with one that it starts; the fake suite only prints
//! its arguments.

use std::{
    fs,
    io::Read,
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
};

use serde_json::{Value, json};

use crate::{
    exporter::{Request, answer},
    monitor::Monitor,
    place::{Place, Running, text, within_seconds},
};

/// For a build, it reports itself as the suite. As the suite it prints its arguments, writes a report and ends as the
/// variables tell.
const FAKE_CARGO: &str = r#"#!/bin/sh
case "$*" in *--bin*)
  echo '{"reason":"compiler-artifact","target":{"name":"batchsql-suite"},"executable":"'"${FAKE_SUITE:-$0}"'"}'
  exit ;;
esac
echo "CALL $*"
if [ -n "$FAKE_REPORT" ]; then echo "$FAKE_REPORT" >"$FAKE_REPORT_DIR/report.json"; fi
trap 'echo "HEARD it"; exit "${FAKE_HEARD:-3}"' INT TERM
echo WAITING
while [ -n "$FAKE_WAITS" ] && [ -e "$0" ]; do sleep 0.05; done
exit "${FAKE_STATUS:-0}"
"#;

struct Suite {
    cargo: Place,
    monitor: Monitor,
}

impl Suite {
    fn new() -> Self {
        let cargo = Place::new();
        cargo.program("cargo", FAKE_CARGO);
        Self { cargo, monitor: Monitor::scraping(4321) }
    }

    /// Without settings of the user.
    fn test(&self, arguments: &[&str]) -> Command {
        let mut command = self.monitor.xtask(&[&["integration-test"], arguments].concat());
        command.env("CARGO", self.cargo.0.join("cargo")).env_remove("PROMETHEUS_PORT");
        command.env("BATCHSQL_MONITOR_LOCAL", "1");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.test(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// A simulated stack in containers: `docker` reports that they run.
    fn pretend(&self, state: &Value) -> String {
        fs::write(self.monitor.known.0.join("state.json"), state.to_string()).unwrap();
        self.cargo.program("docker", "#!/bin/sh\ncase \"$*\" in *' ps --all --quiet') echo 1 ;; esac\n");
        format!("{}:{}", self.cargo.0.display(), std::env::var("PATH").unwrap())
    }
}

fn state(grafana: Option<&str>) -> Value {
    json!({
        "way": "docker", "pid": null, "ready": true, "detached": true, "prometheus": "http://127.0.0.1:1",
        "targets": "http://127.0.0.1:1/targets",
        "grafana": grafana, "metrics_port": 4321, "app_port": 2, "bind": ["127.0.0.1", "127.0.0.2"], "logs": {},
        "data": null,
    })
}

fn call(output: &Output) -> String {
    let text = text(output);
    let call = text.lines().find_map(|line| line.strip_prefix("CALL "));
    call.unwrap_or_else(|| panic!("the suite did not run: {text}")).to_owned()
}

#[test]
fn a_stack_that_runs_is_found() {
    let suite = Suite::new();
    assert_eq!(call(&suite.run(&["--duration", "1s"])), "--metrics-port 9091 --duration 1s");

    let path = suite.pretend(&state(None));
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = suite.test(arguments);
        let output = command.env("PATH", &path).envs(variables.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        output
    };
    let output = run(&["--duration", "1s"], &[]);
    assert_eq!(call(&output), "--metrics-port 4321 --watched --metrics-bind 127.0.0.1,127.0.0.2 --duration 1s");
    for words in ["http://127.0.0.1:4321/", "listen on 127.0.0.1,127.0.0.2, because containers"] {
        assert!(text(&output).contains(words), "{words}: {}", text(&output));
    }
    // The settings of the user are kept, and their effect is printed.
    let output = run(&["--metrics-port=4322", "--metrics-bind", "127.0.0.1"], &[]);
    assert_eq!(call(&output), "--metrics-port=4322 --metrics-bind 127.0.0.1");
    assert!(text(&output).contains("Prometheus scrapes port 4321"), "{}", text(&output));
    let output = run(&[], &[("PROMETHEUS_PORT", "4322"), ("METRICS_BIND", "127.0.0.3")]);
    assert_eq!(call(&output), "");
    assert!(text(&output).contains("Prometheus scrapes port 4321"), "{}", text(&output));
    assert!(text(&output).contains("only if it listens on 127.0.0.1,127.0.0.2"), "{}", text(&output));
}

#[test]
fn a_stack_is_started_around_the_suite() {
    let suite = Suite::new();
    let mut command = suite.test(&["--duration", "1s", "--monitor"]);
    let output = command.env("FAKE_STATUS", "7").stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", text(&output));
    assert_eq!(call(&output), "--metrics-port 9091 --watched --duration 1s");
    let text = text(&output);
    for words in ["Prometheus (", "/targets", "no annotation without Grafana", "stopped"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // Nothing starts before the suite is built.
    assert!(text.find("building batchsql-suite").is_some());
    suite.monitor.assert_gone();
}

#[test]
fn the_suite_hears_an_interrupt_and_then_the_stack_stops() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let suite = Suite::new();
        let mut running = Running::start(suite.test(&["--monitor"]).env("FAKE_WAITS", "1"));
        running.answer("WAITING");
        assert!(suite.monitor.state()["ready"].as_bool().unwrap());
        assert_eq!(running.interrupt(signal, "HEARD").code(), Some(code));
        suite.monitor.assert_gone();
    }
}

/// A suite that only waits for the last scrape has passed when it ends at Ctrl-C.
#[test]
fn an_interrupt_does_not_fail_a_suite_that_passed() {
    let suite = Suite::new();
    let mut command = suite.test(&["--monitor"]);
    let mut running = Running::start(command.env("FAKE_WAITS", "1").env("FAKE_HEARD", "0"));
    running.answer("WAITING");
    assert_eq!(running.interrupt("-INT", "HEARD").code(), Some(0));
    suite.monitor.assert_gone();
}

/// On a terminal the stack would stay after a run.
#[test]
fn a_stack_does_not_stay_for_a_suite_that_never_ran() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    let suite = Suite::new();
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let path = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    let terminal = || fs::File::options().read(true).write(true).open(&path).unwrap();
    let mut command = suite.test(&["--monitor"]);
    command.env("FAKE_SUITE", "/there-is-no-such-suite").stdin(terminal()).stdout(terminal()).stderr(terminal());
    let mut running = Running::of(command.spawn().unwrap());
    // The command holds the other end.
    drop(command);
    let told = thread::spawn(move || {
        let (mut told, mut ours) = (Vec::new(), fs::File::from(ours));
        // Reading a terminal fails when its last user has closed it.
        let _ = ours.read_to_end(&mut told);
        String::from_utf8_lossy(&told).into_owned()
    });
    within_seconds("it ends", || running.process.try_wait().unwrap().is_some());
    let told = told.join().unwrap();
    assert!(told.contains("cannot start the program") && !told.contains("the suite has ended"), "{told}");
    assert_eq!(running.process.wait().unwrap().code(), Some(1));
    suite.monitor.assert_gone();
}

#[test]
fn both_ports_of_what_is_scraped_differ() {
    let suite = Suite::new();
    let output = suite.run(&["--monitor", "--metrics-port", "2"]);
    assert!(!output.status.success() && text(&output).contains("cannot both have port 2"), "{}", text(&output));
    assert!(!text(&output).contains("CALL"), "{}", text(&output));
    suite.monitor.assert_gone();
}

#[test]
fn a_server_of_a_database_is_there_as_well() {
    let suite = Suite::new();
    let mut command = suite.test(&["--db", "redis", "--monitor", "--metrics-port", "4321"]);
    let output = command.env_remove("REDIS_DSN").stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(call(&output), "--watched --db redis --metrics-port 4321");
    assert!(text(&output).contains("Redis: started "), "{}", text(&output));
    suite.monitor.assert_gone();
}

#[test]
fn a_stack_that_does_not_start_ends_the_verb() {
    let suite = Suite::new();
    let mut command = suite.test(&["--monitor"]);
    let output = command.env("BATCHSQL_MONITORING", "/there-is-no-such-folder").output().unwrap();
    assert!(!output.status.success());
    assert!(!text(&output).contains("CALL"), "{}", text(&output));
    let output = suite.run(&["--monitor", "--metrics-port", "0"]);
    assert!(!output.status.success() && text(&output).contains("number above 0"), "{}", text(&output));
    suite.monitor.assert_gone();
}

/// A fake Grafana that records its requests.
fn grafana(status: u16) -> (String, mpsc::Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (send, requests) = mpsc::channel();
    thread::spawn(move || {
        answer(&listener, |request| {
            let _ = send.send(Request { head: request.head.clone(), body: request.body.clone() });
            (status, "{}".to_owned())
        });
    });
    (url, requests)
}

fn annotated(folder: &Path, grafana: &str, suite_status: &str) -> Output {
    let suite = Suite::new();
    let path = suite.pretend(&state(Some(grafana)));
    let report = json!({
        "config": { "databases": ["sqlite"] },
        "summary": { "passed": 1, "total": 2, "records": 5, "duration_seconds": 1.0 },
        "results": [{ "test_name": "large_batch", "database": "sqlite", "success": false, "skipped": false }],
    });
    let mut command = suite.test(&["--monitor", "--report-dir"]);
    command.arg(folder).env("PATH", path).env("FAKE_STATUS", suite_status);
    command.env("FAKE_REPORT", report.to_string()).env("FAKE_REPORT_DIR", folder);
    command.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_run_is_marked_in_grafana() {
    for (status, word) in [("0", "passed"), ("1", "failed")] {
        let (place, (url, requests)) = (Place::new(), grafana(200));
        let output = annotated(&place.0, &url, status);
        assert_eq!(output.status.code().unwrap().to_string(), status);
        let request = requests.try_recv().unwrap_or_else(|_| panic!("there was no request: {}", text(&output)));
        assert!(request.head.starts_with("POST /api/annotations HTTP/1.1\r\n"), "{}", request.head);
        // admin:admin123
        let head = request.head.to_lowercase();
        assert!(head.contains("authorization: basic ywrtaw46ywrtaw4xmjm=\r\n"), "{}", request.head);
        let body: Value = serde_json::from_str(&request.body).unwrap();
        assert_eq!(body["tags"], json!(["batchsql", "integration-test", word]));
        assert!(body["time"].as_u64().unwrap() <= body["timeEnd"].as_u64().unwrap());
        let text = body["text"].as_str().unwrap();
        assert!(text.contains("1 of 2 cases") && text.contains("failed: large_batch on sqlite"), "{text}");
        // A stack that ran before is not stopped.
        assert!(requests.try_recv().is_err());
    }
}

#[test]
fn a_grafana_that_refuses_changes_nothing_about_the_run() {
    for (answers, word) in [(401, "does not accept the login"), (500, "it responded with 500")] {
        let (place, (url, _requests)) = (Place::new(), grafana(answers));
        let output = annotated(&place.0, &url, "0");
        assert!(output.status.success(), "{}", text(&output));
        assert!(
            text(&output).contains("the run is not annotated") && text(&output).contains(word),
            "{}",
            text(&output)
        );
    }
}

#[test]
fn the_help_names_the_option() {
    let suite = Suite::new();
    for arguments in [&["--help"][..], &["--monitor", "--help"]] {
        let output = suite.run(arguments);
        assert!(text(&output).contains("\n      --monitor\n"), "{}", text(&output));
        assert_eq!(call(&output).split_whitespace().last(), Some("--help"));
    }
    suite.monitor.assert_gone();
}
