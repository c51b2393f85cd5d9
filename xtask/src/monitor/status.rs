//! `monitor status`: what runs, and its state according to Prometheus.
//! Must not know how anything was started.

use std::process::ExitCode;

use super::{
    api::{self, Target},
    background, links,
    state::{self, Lock, State, Way},
};

/// The job of the user's application, which need not run.
const APP: &str = "batchsql-app";
const SUITE: &str = "batchsql-integration-test";

pub(super) fn run() -> anyhow::Result<ExitCode> {
    let Some(state) = state::running()? else {
        if Lock::is_held() {
            let who = state::holder();
            say!("{who} is starting it, or has lost its state; `cargo xtask monitor down` stops it");
        } else {
            say!("nothing runs; start it with `cargo xtask monitor`");
            if background::has_failed() {
                say!("the last one in the background has failed; `cargo xtask monitor logs` shows its end");
            }
        }
        return Ok(ExitCode::FAILURE);
    };
    let way = match state.way {
        Way::Docker => "by Docker",
        Way::Local => "from programs of this machine",
    };
    let whose = state.pid.map_or_else(String::new, |pid| format!(", process {pid}"));
    say!("monitor {way}{whose}\n\n{}", links::tell(&state));
    let ready = components(&state);
    say!("");
    let told = tell_prometheus(&state);
    Ok(if ready && told { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints a line for each component; returns whether all are ready.
fn components(state: &State) -> bool {
    let prometheus = Some(("Prometheus", format!("{}/-/ready", state.prometheus)));
    let grafana = state.grafana.as_ref().map(|grafana| ("Grafana", format!("{grafana}/api/health")));
    let mut ready = state.ready;
    for (name, url) in prometheus.into_iter().chain(grafana) {
        let outcome = api::is_ready(&url);
        say!("  {name:<14}{}", outcome.as_ref().map_or_else(|why| format!("NOT READY  {why}"), |()| "ready".into()));
        ready &= outcome.is_ok();
    }
    ready
}

/// Prints targets, rules and alerts; returns whether Prometheus reported them and can evaluate its rules.
fn tell_prometheus(state: &State) -> bool {
    let tell = || {
        let (targets, rules) = (api::targets(&state.prometheus)?, api::rules(&state.prometheus)?);
        let alerts = api::alerts(&state.prometheus)?;
        for target in &targets {
            say!("{}", line(target));
        }
        if targets.is_empty() {
            say!("  {:<26}none yet; Prometheus reads them within seconds", "targets");
        }
        if let Some(trouble) = unreachable(state, &targets) {
            say!("  {:<26}{trouble}", "note");
        }
        say!("  {:<26}{} recording, {} alerting", "rules", rules.recording, rules.alerting);
        for broken in &rules.broken {
            say!("  {:<26}BROKEN  {broken}", "");
        }
        for alert in &alerts {
            say!("  {:<26}{:<9}{}", alert.name, alert.state, alert.summary);
        }
        if alerts.is_empty() {
            say!("  {:<26}none", "alerts");
        }
        anyhow::Ok(rules.broken.is_empty())
    };
    tell().unwrap_or_else(|error| {
        say!("  Prometheus does not report its targets: {error:#}");
        false
    })
}

fn line(target: &Target) -> String {
    let Target { job, url, health, trouble } = target;
    // These may not be started yet; that is not an error.
    let note = match (health.as_str(), job.as_str()) {
        ("down", SUITE) => format!("  (no suite runs there: {})", end(trouble)),
        ("down", APP) => format!("  (no application runs there: {})", end(trouble)),
        _ if trouble.is_empty() => String::new(),
        _ => format!("  {trouble}"),
    };
    format!("  {job:<26}{health:<9}{url}{note}")
}

/// The last cause of an error: `Get "http://…": dial tcp …: connect: connection refused`.
fn end(trouble: &str) -> &str {
    trouble.rsplit(": ").next().unwrap_or(trouble)
}

/// What to do about a running suite that Prometheus cannot reach.
pub(super) fn unreachable(state: &State, targets: &[Target]) -> Option<String> {
    let suite = targets.iter().find(|target| target.job == SUITE && target.health == "down")?;
    let here = api::is_ready(&format!("http://127.0.0.1:{}/health", state.metrics_port)).is_ok();
    let addresses: Vec<_> = state.bind.iter().map(ToString::to_string).collect();
    here.then(|| {
        format!(
            "a suite runs on port {}, and Prometheus cannot reach it ({}); it must listen on {} (--metrics-bind), and a \
             firewall must let containers in",
            state.metrics_port,
            suite.trouble,
            addresses.join(" and ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_down_says_whether_that_matters() {
        let target = |job: &str, health: &str, trouble: &str| Target {
            job: job.into(),
            url: "http://h/metrics".into(),
            health: health.into(),
            trouble: trouble.into(),
        };
        let down = line(&target(SUITE, "down", "Get \"http://h\": dial tcp: connect: connection refused"));
        assert!(down.contains("no suite runs there: connection refused"), "{down}");
        let itself = line(&target("prometheus", "down", "refused"));
        assert!(itself.contains("down     http://h/metrics  refused"), "{itself}");
        assert!(line(&target(APP, "up", "")).ends_with("up       http://h/metrics"));
    }
}
