//! `cargo xtask integration-test`: the suite, built with optimizations, with the servers of its databases, on the port that
//! Prometheus scrapes; with `--monitor` together with the monitoring stack.
//! Must not know the suite's arguments, except where its metrics and its report are.

use std::{
    ffi::{OsStr, OsString},
    io::{self, IsTerminal},
    net::IpAddr,
    path::Path,
    process::{ExitCode, ExitStatus},
    time::SystemTime,
};

use anyhow::Context;

use crate::{
    cargo,
    databases::{self, Build, Request},
    interrupt,
    monitor::{self, Options, Stack, Started, State},
    steps, suite,
};

/// Not 9090, the default of the binary, which applications use.
const METRICS_PORT: u16 = 9091;
/// The default of the suite.
const REPORT: &str = "batchsql-report";

const HELP: &str = "\x20     --monitor
          Start Prometheus and Grafana around the run, unless `cargo xtask monitor` runs already, and mark the run in
          Grafana. On a terminal they run until Ctrl-C. Their options come from the environment, see
          `cargo xtask monitor --help`. A stack that runs already is also used without --monitor.
";

pub(crate) fn run(arguments: suite::Arguments) -> anyhow::Result<ExitCode> {
    let mut args = arguments.args;
    let with_monitor = take(&mut args, "--monitor");
    let help = args.iter().any(|arg| arg == "--help" || arg == "-h");
    if with_monitor && !help {
        return monitored(args);
    }
    let mut further = Vec::new();
    let running = if help { None } else { found() };
    if let Some(state) = running {
        steps::heading("monitor");
        say!("{}", monitor::tell(&state));
        further = told_by(&state, &args);
    } else if !chooses(&args, PORT) {
        further = vec![PORT.option.into(), METRICS_PORT.to_string().into()];
    }
    databases::run("integration-test", Build::Suite, [further, args].concat(), HELP)
}

/// The stack, if it is ready. An error while looking for it does not stop the run.
fn found() -> Option<State> {
    let found = monitor::running().unwrap_or_else(|error| {
        eprintln!("without the monitor: {error:#}");
        None
    });
    found.filter(|state| state.ready)
}

/// Runs with a stack that runs already, or that is started now.
fn monitored(args: Vec<OsString>) -> anyhow::Result<ExitCode> {
    let mut options = Options::of_environment()?;
    options.no_install |= args.iter().any(|arg| arg == "--no-install");
    if let Some(port) = value(&args, PORT.option) {
        let port = port.to_str().and_then(|port| port.parse().ok()).filter(|port| *port != 0);
        options.metrics_port =
            port.context("with --monitor the port must be known: set --metrics-port to a number above 0, or omit it")?;
    }
    let folder = value(&args, "--report-dir").unwrap_or_else(|| REPORT.into());
    databases::run_within(Build::Suite, Request::new(args.clone()), |run| {
        interrupt::watch(|_| ()).context("cannot watch for Ctrl-C")?;
        steps::heading("monitor");
        let started = Stack::start(&options)?;
        let state = match &started {
            Started::Now(stack) => stack.state.clone(),
            Started::Already(state) => state.clone(),
        };
        say!("\n{}", monitor::tell(&state));
        let from = SystemTime::now();
        // If the suite did not run, there is nothing to show and the stack stops.
        let status = run.with(&told_by(&state, &args))?;
        mark(&state, from, status, Path::new(&folder));
        if let Started::Now(stack) = started {
            leave(*stack);
        }
        Ok(cargo::exit_code(status))
    })
}

/// On a terminal the stack runs until Ctrl-C; otherwise it stops now.
fn leave(mut stack: Stack) {
    if let Some(trouble) = stack.trouble() {
        eprintln!("{trouble}");
    }
    let person = io::stdin().is_terminal() && io::stdout().is_terminal();
    if !person || interrupt::caught() {
        return stack.stop();
    }
    say!("\nthe suite has ended; the monitor stays until Ctrl-C:\n{}", monitor::tell(&stack.state));
    if let Err(error) = monitor::stay(stack) {
        eprintln!("{error:#}");
    }
    // The exit status is that of the suite.
    interrupt::forget();
}

/// Marks the run in Grafana. An error does not change the result of the run.
fn mark(state: &State, from: SystemTime, status: ExitStatus, folder: &Path) {
    let Some(grafana) = &state.grafana else {
        return say!("no annotation without Grafana; the live page and Prometheus show the end of each test");
    };
    let report = monitor::report(folder, from);
    match monitor::annotate(grafana, from, SystemTime::now(), status.success(), report.as_ref()) {
        Ok(()) => say!("annotated in Grafana: {grafana}/d/batchsql-performance"),
        Err(error) => eprintln!("the run is not annotated in Grafana: {error:#}"),
    }
}

/// An option of the suite and its variable.
#[derive(Clone, Copy)]
struct Named {
    option: &'static str,
    variable: &'static str,
}

const PORT: Named = Named { option: "--metrics-port", variable: "PROMETHEUS_PORT" };
const BIND: Named = Named { option: "--metrics-bind", variable: "METRICS_BIND" };

/// The arguments with which the Prometheus of a stack can scrape the suite, unless the user set them. Prints a note.
fn told_by(state: &State, args: &[OsString]) -> Vec<OsString> {
    let mut further = Vec::new();
    let port = state.metrics_port;
    let chosen = chosen_port(args).unwrap_or(port);
    if !chooses(args, PORT) {
        further.extend([PORT.option.into(), port.to_string().into()]);
    }
    if chosen == port {
        // A run may be over before the first scrape.
        further.push("--watched".into());
    } else {
        say!("Prometheus scrapes port {port} and not this run; omit {}", PORT.option);
    }
    // The default of the suite is only the loopback interface.
    if state.bind.len() > 1 {
        let addresses: Vec<_> = state.bind.iter().map(IpAddr::to_string).collect();
        let addresses = addresses.join(",");
        if chooses(args, BIND) {
            say!("containers reach the suite only if it listens on {addresses}");
        } else {
            say!("the suite's metrics listen on {addresses}, because containers cannot reach 127.0.0.1");
            further.extend([BIND.option.into(), addresses.into()]);
        }
    }
    further
}

fn chosen_port(args: &[OsString]) -> Option<u16> {
    let given = value(args, PORT.option).or_else(|| std::env::var_os(PORT.variable))?;
    given.to_str()?.parse().ok()
}

/// Whether an argument or a variable sets it.
fn chooses(args: &[OsString], named: Named) -> bool {
    value(args, named.option).is_some() || std::env::var_os(named.variable).is_some()
}

/// The value of an option, written `--option value` or `--option=value`. The last one is used.
fn value(args: &[OsString], option: &str) -> Option<OsString> {
    let after = |arg: &OsStr| {
        let text = arg.to_str()?.strip_prefix(option)?.strip_prefix('=')?;
        Some(OsString::from(text))
    };
    let mut found = None;
    let mut rest = args.iter().take_while(|arg| *arg != "--");
    while let Some(arg) = rest.next() {
        let given = if arg == option { rest.next().cloned().or_else(|| Some(OsString::new())) } else { after(arg) };
        found = given.or(found);
    }
    found
}

/// Removes a word from the arguments before `--`; returns whether it was present.
fn take(args: &mut Vec<OsString>, word: &str) -> bool {
    let end = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    let rest = args.split_off(end);
    let given = args.len();
    args.retain(|arg| arg != word);
    let taken = args.len() < given;
    args.extend(rest);
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(args: &[&str]) -> Vec<OsString> {
        args.iter().map(OsString::from).collect()
    }

    #[test]
    fn an_option_is_found_in_both_forms() {
        let check = |args: &[&str], expected: Option<&str>| {
            assert_eq!(value(&words(args), "--metrics-port").as_deref(), expected.map(OsStr::new), "{args:?}");
        };
        check(&[], None);
        check(&["--metrics-portal", "1"], None);
        check(&["--metrics-port", "0"], Some("0"));
        check(&["-v", "--metrics-port=7", "-q"], Some("7"));
        check(&["--metrics-port=7", "--metrics-port", "8"], Some("8"));
        check(&["--metrics-port"], Some(""));
        check(&["--", "--metrics-port", "8"], None);
    }

    #[test]
    fn a_word_is_taken_before_the_dashes_only() {
        let mut args = words(&["--db", "sqlite", "--monitor", "--", "--monitor"]);
        assert!(take(&mut args, "--monitor"));
        assert_eq!(args, words(&["--db", "sqlite", "--", "--monitor"]));
        assert!(!take(&mut args, "--monitor"));
    }
}
