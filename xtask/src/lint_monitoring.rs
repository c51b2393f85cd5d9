//! `cargo xtask lint-monitoring`: the static checks of monitoring/, docs/ and docker/.
//! Must not know any rule: `batchsql-monitoring` and the programs of Prometheus and Docker have them.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::Context;

use crate::{
    cargo, files, interrupt, servers,
    servers::Sources,
    steps::Steps,
    tools::{self, Expectation, Tool},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Do not install missing programs: promtool, amtool and docker-compose
    #[arg(long)]
    no_install: bool,
    /// Check the files of another tree than this repository
    #[arg(long, value_name = "FOLDER")]
    root: Option<PathBuf>,
}

/// Values for variables that compose files require; nothing is started with them.
const SETTINGS: [(&str, &str); 1] = [("BATCHSQL_PASSWORD", "only-checked")];
const SETTINGS_FILE: &str = "docker/production.env.example";

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    interrupt::watch(|_| ()).context("cannot watch for Ctrl-C")?;
    let root = arguments.root.as_deref().unwrap_or(cargo::workspace_root());
    let root = root.canonicalize().with_context(|| format!("cannot read {}", root.display()))?;
    let mut steps = Steps::default();
    let wanted = [&tools::PROMTOOL, &tools::AMTOOL, &tools::COMPOSE];
    let packages: Vec<_> = wanted.iter().filter_map(|tool| tool.missing_package()).collect();
    let refusal = Sources::new(!arguments.no_install).install_programs(&[], &packages).err();
    let mut with = |tool: &Tool, check: &dyn Fn(&mut Steps) -> anyhow::Result<()>| -> anyhow::Result<()> {
        match tool.expectation(refusal) {
            Expectation::Present => check(&mut steps)?,
            Expectation::Optional(advice) => steps.skip(tool.name, advice),
            Expectation::Required(advice) => steps.impossible(tool.name, advice),
        }
        Ok(())
    };
    with(&tools::PROMTOOL, &|steps| promtool(steps, &root))?;
    with(&tools::AMTOOL, &|steps| amtool(steps, &root))?;
    with(&tools::COMPOSE, &|steps| compose(steps, &root))?;

    let mut lint = cargo::command();
    lint.args(["run", "--quiet", "--package", "batchsql-monitoring", "--", "lint", "--root"]).arg(&root);
    steps.run("queries, rules, dashboards, runbooks", lint);
    Ok(steps.finish())
}

fn promtool(steps: &mut Steps, root: &Path) -> anyhow::Result<()> {
    let promtool = |args: &[&str]| {
        let mut command = program(&["promtool"], root);
        command.args(args);
        command
    };
    steps.run("prometheus.yml", promtool(&["check", "config", "--lint-fatal", "monitoring/prometheus.yml"]));
    // Their secrets exist only where they run; their rules are checked below.
    for name in ["prometheus.prod.yml", "prometheus.cluster.yml"] {
        steps.run(name, promtool(&["check", "config", "--syntax-only", &format!("monitoring/{name}")]));
    }
    let mut rules = promtool(&["check", "rules", "--lint=all", "--lint-fatal"]);
    rules.args(files(root, "monitoring/rules", "")?).args(files(root, "monitoring/rules/prod", "")?);
    steps.run("rules", rules);
    let mut tests = promtool(&["test", "rules"]);
    tests.args(files(root, "monitoring/rules/tests", "")?);
    steps.run("tests of rules", tests);
    Ok(())
}

fn amtool(steps: &mut Steps, root: &Path) -> anyhow::Result<()> {
    let mut command = program(&["amtool"], root);
    command.args(["check-config", "monitoring/alertmanager.yml"]);
    steps.run("alertmanager.yml", command);
    Ok(())
}

fn compose(steps: &mut Steps, root: &Path) -> anyhow::Result<()> {
    for file in files(root, "docker", "docker-compose")? {
        let mut command = if tools::has_compose_plugin() {
            let mut docker = program(&["docker"], root);
            docker.arg("compose");
            docker
        } else {
            program(&["docker-compose"], root)
        };
        if root.join(SETTINGS_FILE).exists() {
            command.args(["--env-file", SETTINGS_FILE]);
        }
        command.args(["--file", &file, "config", "--quiet"]).envs(SETTINGS);
        steps.run(file, command);
    }
    Ok(())
}

/// The first available program, with the root of the tree as its folder.
fn program(names: &[&str], root: &Path) -> Command {
    let mut command = Command::new(servers::program(names).unwrap_or_else(|| names[0].into()));
    command.current_dir(root);
    command
}

/// The YAML files of a folder that begin with `prefix`, relative to the root, by name.
fn files(root: &Path, folder: &str, prefix: &str) -> anyhow::Result<Vec<String>> {
    let found = files::yaml(&root.join(folder), prefix)?;
    let name = |path: &PathBuf| path.file_name().map(|name| format!("{folder}/{}", name.display()));
    Ok(found.iter().filter_map(name).collect())
}
