//! `monitor check`: whether everything needed for a start is present; for a running stack, whether it works.
//! Must not know the queries of panels.

use std::process::ExitCode;

use anyhow::Context;

use super::{
    api,
    compose::Reach,
    options::Options,
    preflight,
    state::{self, State, Way},
    status, way,
};
use crate::{
    cargo, interrupt,
    servers::{docker, grafana, prometheus},
    steps::Steps,
};

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    interrupt::watch(|_| ()).context("cannot watch for Ctrl-C")?;
    let mut findings = Steps::brief();
    match preflight::configuration(&options.monitoring()) {
        Ok(Some(())) => findings.holds("configuration and rules", "promtool accepts them"),
        Ok(None) => findings.skip("configuration and rules", "there is no promtool; install the package `prometheus`"),
        Err(error) => findings.impossible("configuration and rules", format!("{error:#}")),
    }
    match state::running()? {
        Some(state) => running(&mut findings, &state),
        None => stopped(&mut findings, options)?,
    }
    Ok(findings.finish())
}

fn stopped(findings: &mut Steps, options: &Options) -> anyhow::Result<()> {
    let choice = way::choose(options.forced()?, docker::engine, Reach::find);
    let grafana = grafana::Programs::find();
    let mut with_grafana = grafana.is_some();
    match choice {
        Ok(choice) if choice.way == Way::Docker => {
            with_grafana = true;
            findings.holds("way", format!("Docker: {}", choice.why));
        }
        Ok(choice) => match prometheus::Programs::find() {
            Some(programs) => {
                findings
                    .holds("way", format!("programs of this machine: {} ({})", programs.place().display(), choice.why));
            }
            None => {
                let why = choice.why;
                let advice = "`cargo xtask monitor` installs it if run as root; otherwise install the package";
                findings.impossible(
                    "way",
                    format!("{why}, and `prometheus` is not on this machine; {advice} `prometheus`"),
                );
            }
        },
        Err(error) => findings.impossible("way", format!("{error:#}")),
    }
    match grafana {
        Some(programs) => findings.holds("Grafana", programs.place().display().to_string()),
        None if with_grafana => findings.holds("Grafana", "in a container"),
        None => findings.skip("Grafana", "it is not on this machine; the live page shows the same curves"),
    }
    match preflight::ports(options, with_grafana) {
        Ok(()) => findings.holds("ports", "they are free"),
        Err(error) => findings.impossible("ports", format!("{error:#}")),
    }
    Ok(())
}

fn running(findings: &mut Steps, state: &State) {
    match api::is_ready(&format!("{}/-/ready", state.prometheus)) {
        Ok(()) => findings.holds("Prometheus", state.prometheus.clone()),
        Err(why) => findings.impossible("Prometheus", why),
    }
    match state.grafana.as_ref().map(|grafana| (grafana, api::is_ready(&format!("{grafana}/api/health")))) {
        None => findings.skip("Grafana", "it is not on this machine"),
        Some((grafana, Ok(()))) => findings.holds("Grafana", grafana.clone()),
        Some((_, Err(why))) => findings.impossible("Grafana", why),
    }
    match api::rules(&state.prometheus) {
        Ok(rules) if rules.broken.is_empty() => {
            findings.holds("rules", format!("{} recording, {} alerting", rules.recording, rules.alerting));
        }
        Ok(rules) => findings.impossible("rules", rules.broken.join("; ")),
        Err(error) => findings.impossible("rules", format!("{error:#}")),
    }
    match api::targets(&state.prometheus) {
        Ok(targets) => match status::unreachable(state, &targets) {
            Some(trouble) => findings.impossible("targets", trouble),
            None if targets.iter().any(|target| target.job != "prometheus" && target.health == "up") => {
                findings.holds("targets", "scraped");
                panels(findings, state);
            }
            None => {
                let advice = "run `cargo xtask integration-test` at the same time";
                findings.skip("targets", format!("neither a suite nor an application runs; {advice}"));
                findings.skip("panels", format!("without a suite there is nothing to show; {advice}"));
            }
        },
        Err(error) => findings.impossible("targets", format!("{error:#}")),
    }
}

/// Every panel of the dashboard.
fn panels(findings: &mut Steps, state: &State) {
    let mut panels = cargo::command();
    panels.args(["run", "--quiet", "--package", "batchsql-monitoring", "--", "panels", "--prometheus"]);
    match interrupt::status(panels.arg(&state.prometheus)) {
        Ok(status) if status.success() => findings.holds("panels", "all of them have data"),
        Ok(_) => findings.impossible("panels", "some of them have no data, see above"),
        Err(error) => findings.impossible("panels", format!("cannot start cargo: {error}")),
    }
}
