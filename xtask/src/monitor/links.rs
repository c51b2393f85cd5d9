//! Messages for the user: addresses, next steps, and what stays at the end.
//! Must not know how the stack runs.

use std::{fmt::Write, net::IpAddr};

use super::state::{State, Way};

/// The addresses.
pub(crate) fn tell(state: &State) -> String {
    let State { targets, grafana, metrics_port, app_port, .. } = state;
    let mut text = String::new();
    let mut line = |name: &str, rest: &str| {
        let _ = writeln!(text, "  {name:<14}{rest}");
    };
    match grafana {
        Some(grafana) => line("Grafana", &format!("{grafana}/d/batchsql-performance    login: admin / admin123")),
        None => line("Grafana", "not on this machine; the live page shows the same curves"),
    }
    line("Prometheus", targets);
    line("Live page", &format!("http://127.0.0.1:{metrics_port}/    while the suite runs"));
    line("Metrics", &format!("http://127.0.0.1:{metrics_port}/metrics"));
    line("Application", &format!("http://127.0.0.1:{app_port}/metrics    scraped as well, if one of yours is there"));
    let addresses: Vec<_> = state.bind.iter().map(IpAddr::to_string).collect();
    if addresses.len() > 1 {
        let addresses = addresses.join(" and ");
        line("Reach", &format!("containers reach only {addresses}; integration-test listens there"));
    }
    text
}

/// The next steps, and how to stop.
pub(super) fn next(state: &State) -> String {
    let run = if state.metrics_port == 9091 {
        "cargo xtask integration-test"
    } else {
        "cargo xtask integration-test    (knows the port)"
    };
    let end = if state.detached { "cargo xtask monitor down    stops it" } else { "Ctrl-C    stops it" };
    format!("next:  {run}\n       cargo xtask monitor status\n       {end}\n")
}

/// What stays after the stop.
pub(super) fn what_stays(state: &State) -> String {
    match (state.way, &state.data) {
        (Way::Docker, _) => {
            "history stays in Docker's volumes; `cargo xtask monitor down --volumes` removes it".to_owned()
        }
        (Way::Local, Some(data)) => format!("history stays in {}", data.display()),
        (Way::Local, None) => "nothing stays (--data DIR keeps history)".to_owned(),
    }
}
