//! Runs a program of the suite crate with the servers of the databases that its `--db` names.
//! Must not know the program's other arguments, except those that name a server.

use std::{
    ffi::OsString,
    process::{Command, ExitCode, ExitStatus},
};

use anyhow::Context;

use crate::{
    cargo, interrupt,
    servers::{Kind, Purpose, Sources},
    steps, suite,
};

/// Builds the program and runs it with the servers that it needs, until all have ended.
pub(crate) fn run(verb: &str, binary: Build, args: Vec<OsString>, options: &str) -> anyhow::Result<ExitCode> {
    let request = Request::new(args);
    if request.help {
        say!("{}", help(verb, options));
    }
    if request.help || request.servers.is_empty() {
        return suite::build_and_become(&binary.of(&request), request.args);
    }
    run_within(binary, request, |run| run.with(&[]).map(cargo::exit_code))
}

/// Builds the program; `around` decides when to run it.
pub(crate) fn run_within(
    binary: Build,
    request: Request,
    around: impl FnOnce(Run<'_>) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    suite::build_and_run(&binary.of(&request), |program| around(Run { program, request }))
}

/// Which program is built, and for what.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Build {
    /// The suite with the databases that `--db` names: the others would only take time.
    Suite,
    /// The benchmarks, which need every database, with the release profile.
    Bench,
}

impl Build {
    fn of(self, request: &Request) -> suite::Binary {
        match self {
            Self::Suite => {
                suite::Binary { name: "batchsql-suite", profile: "suite", features: Some(request.features.clone()) }
            }
            Self::Bench => suite::Binary { name: "batchsql-bench", profile: "release", features: None },
        }
    }
}

/// A built program and its arguments.
pub(crate) struct Run<'a> {
    program: &'a mut Command,
    request: Request,
}

impl Run<'_> {
    /// Runs it with its servers, until all have ended. `further` arguments come before the given ones.
    pub(crate) fn with(self, further: &[OsString]) -> anyhow::Result<ExitStatus> {
        let Self { program, request } = self;
        program.args(further).args(&request.args);
        with_servers(program, &request.servers, request.may_install)
    }
}

fn help(verb: &str, options: &str) -> String {
    format!(
        "\
Options of cargo xtask {verb}:
{options}      --no-install
          Do not install a database server that is missing; BATCHSQL_NO_INSTALL=1 says so for every verb

Servers of the databases that --db names: POSTGRES_DSN, MYSQL_DSN and REDIS_DSN, or --postgres-dsn, --mysql-dsn and
--redis-dsn, name servers that may be used. Those that are not named are started from the programs of this machine, or
by Docker, or are installed with apt-get when root calls. They are stopped and removed at the end.

PostgreSQL 18 and Valkey 9 are downloaded when --db names them: postgres18, valkey. They take the place of postgres and
redis.

Everything else goes to the program:
"
    )
}

/// Runs the program while the servers run.
fn with_servers(program: &mut Command, kinds: &[Kind], may_install: bool) -> anyhow::Result<ExitStatus> {
    interrupt::watch(|_| ()).context("cannot watch for Ctrl-C")?;
    if !kinds.is_empty() {
        steps::heading("servers");
    }
    let sources = Sources::new(may_install);
    let named =
        |kind: &Kind| kind.variable().is_some_and(|name| std::env::var_os(name).is_some_and(|dsn| !dsn.is_empty()));
    let unnamed: Vec<_> = kinds.iter().copied().filter(|kind| !named(kind)).collect();
    sources.install(&unnamed);
    let mut servers = Vec::new();
    for (kind, provided) in sources.all_shared(kinds, Purpose::Measure) {
        let provided = provided.with_context(|| format!("no server for {}", kind.name()))?;
        say!("{}: {provided}", kind.title());
        if let Some(variable) = kind.variable() {
            // Never as an argument, which every user of the machine could read.
            program.env(variable, &provided.dsn);
        }
        servers.push(provided);
    }
    let status = interrupt::status(program).context("cannot start the program")?;
    if status.success() {
        // The program only waited for the last scrape.
        interrupt::forget_ctrl_c();
    }
    Ok(status)
}

/// The servers that arguments ask for, `all` without `--db`; whether they may be installed; and the arguments for the program.
pub(crate) fn asked_for(mut args: Vec<OsString>) -> (Vec<Kind>, bool, Vec<OsString>) {
    let names_some = |arg: &OsString| arg.to_str().is_some_and(|arg| arg == "--db" || arg.starts_with("--db="));
    if !args.iter().any(names_some) {
        args.push("--db=all".into());
    }
    let Request { servers, may_install, args, .. } = Request::new(args);
    (servers, may_install, args)
}

/// The arguments of this verb, and the rest for the program. They are read once: the rest names databases without their
/// versions, and has no `--no-install`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Servers without a DSN in the arguments. A variable may have it.
    servers: Vec<Kind>,
    /// The features of the suite crate for the databases that `--db` names.
    features: Vec<&'static str>,
    may_install: bool,
    help: bool,
    args: Vec<OsString>,
}

/// The databases of the suite, which are also features of its crate. The first one is the default.
const DATABASES: [&str; 4] = ["sqlite", "postgres", "mysql", "redis"];

impl Request {
    pub(crate) fn new(mut args: Vec<OsString>) -> Self {
        let given = args.len();
        args.retain(|arg| arg != "--no-install");
        let may_install = args.len() == given;
        let help = args.iter().any(|arg| arg == "--help" || arg == "-h");
        let (mut servers, mut named) = (Vec::new(), Vec::new());
        let mut features = Vec::new();
        let mut index = 0;
        while index < args.len() {
            let arg = args[index].to_str().unwrap_or_default().to_owned();
            index += 1;
            if let Some(kind) = named_by(&arg) {
                named.push(kind);
                // Skips its value.
                index += usize::from(!arg.contains('='));
                continue;
            }
            let (list, place) = match arg.strip_prefix("--db=") {
                Some(list) => (list.to_owned(), index - 1),
                None if arg == "--db" => {
                    index += 1;
                    let Some(list) = args.get(index - 1).and_then(|list| list.to_str()) else { break };
                    (list.to_owned(), index - 1)
                }
                None => continue,
            };
            let mut known = Vec::new();
            for name in list.split(',') {
                // The program reports other names.
                servers.extend(Kind::DATABASES.into_iter().filter(|kind| name == "all" || name == kind.name()));
                let on_demand = Kind::ON_DEMAND.into_iter().find(|kind| name == kind.name());
                servers.extend(on_demand);
                let name = on_demand.map_or(name, |kind| kind.family().name());
                features.extend(DATABASES.into_iter().filter(|database| name == "all" || name == *database));
                known.push(name);
            }
            // The program knows databases but not their versions.
            let option = if arg == "--db" { "" } else { "--db=" };
            args[place] = format!("{option}{}", known.join(",")).into();
        }
        if features.is_empty() {
            features.push(DATABASES[0]);
        }
        features.sort_unstable();
        features.dedup();
        servers.sort_by_key(|kind| kind.name());
        servers.dedup();
        servers.retain(|kind| !named.contains(&kind.family()));
        // A requested version replaces the default.
        let meant: Vec<Kind> =
            servers.iter().filter(|kind| kind.family() != **kind).map(|kind| kind.family()).collect();
        servers.retain(|kind| !meant.contains(kind));
        Self { servers, features, may_install, help, args }
    }
}

/// The kind of server of a DSN option, for example `--redis-dsn` or `--redis-dsn=…`.
fn named_by(arg: &str) -> Option<Kind> {
    let option = arg.split_once('=').map_or(arg, |(option, _)| option);
    let name = option.strip_prefix("--")?.strip_suffix("-dsn")?;
    Kind::DATABASES.into_iter().find(|kind| kind.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(args: &[&str]) -> Request {
        Request::new(args.iter().map(OsString::from).collect())
    }

    #[test]
    fn servers_are_started_for_the_databases_that_are_named() {
        let check = |args: &[&str], servers: &[Kind]| {
            let request = request(args);
            assert_eq!(request.servers, servers, "{args:?}");
            assert_eq!(request.args, args);
            assert!(request.may_install && !request.help);
        };
        let all = [Kind::MySql, Kind::Postgres, Kind::Redis];
        check(&[], &[]);
        check(&["--duration", "5s"], &[]);
        check(&["--db", "sqlite"], &[]);
        check(&["--db", "redis"], &[Kind::Redis]);
        check(&["--db=sqlite,postgres", "-v"], &[Kind::Postgres]);
        check(&["--db", "postgres,mysql,redis,sqlite"], &all);
        check(&["--db", "mysql", "--db", "mysql,redis"], &[Kind::MySql, Kind::Redis]);
        check(&["--db", "all"], &all);
        check(&["--db", "oracle"], &[]);
        check(&["--db"], &[]);
        // The program has a DSN for these.
        check(&["--db", "postgres", "--postgres-dsn", "postgres://h/d"], &[]);
        check(&["--mysql-dsn=mysql://h/d", "--db", "all"], &[Kind::Postgres, Kind::Redis]);
        check(&["--redis-dsn", "--db", "--db=redis,mysql", "--postgres-dsn=x"], &[Kind::MySql]);
        check(&["--db", "redis", "--sqlite-dsn", "x", "--dsn", "y"], &[Kind::Redis]);
    }

    #[test]
    fn only_the_databases_that_are_named_are_built() {
        let check = |args: &[&str], features: &[&str]| assert_eq!(request(args).features, features, "{args:?}");
        check(&[], &["sqlite"]);
        check(&["--help"], &["sqlite"]);
        check(&["--db", "oracle"], &["sqlite"]);
        check(&["--db", "redis"], &["redis"]);
        check(&["--db=redis,sqlite", "--db", "redis"], &["redis", "sqlite"]);
        check(&["--db", "postgres18,valkey"], &["postgres", "redis"]);
        check(&["--db", "mysql", "--mysql-dsn", "mysql://h/d"], &["mysql"]);
        check(&["--db", "all"], &["mysql", "postgres", "redis", "sqlite"]);
    }

    #[test]
    fn without_a_choice_every_server_is_asked_for() {
        let check = |args: &[&str], servers: &[&str], install: bool| {
            let (kinds, may_install, _) = asked_for(args.iter().map(OsString::from).collect());
            let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
            assert_eq!((names.as_slice(), may_install), (servers, install), "{args:?}");
        };
        check(&["--quick"], &["mysql", "postgres", "redis"], true);
        check(&["--db", "sqlite,redis", "--no-install"], &["redis"], false);
        check(&["--db=sqlite"], &[], true);
    }

    #[test]
    fn a_version_takes_the_place_of_its_database() {
        let check = |args: &[&str], servers: &[Kind], told: &[&str]| {
            let request = request(args);
            assert_eq!(
                (&*request.servers, &*request.args),
                (servers, &*told.iter().map(OsString::from).collect::<Vec<_>>())
            );
        };
        let both = [Kind::Postgres18, Kind::Valkey];
        check(&["--db", "postgres18,valkey", "-v"], &both, &["--db", "postgres,redis", "-v"]);
        check(&["--db=valkey,sqlite"], &[Kind::Valkey], &["--db=redis,sqlite"]);
        check(
            &["--db", "all", "--db", "postgres18"],
            &[Kind::MySql, Kind::Postgres18, Kind::Redis],
            &["--db", "all", "--db", "postgres"],
        );
        check(&["--db", "postgres18", "--postgres-dsn=x"], &[], &["--db", "postgres", "--postgres-dsn=x"]);
    }

    #[test]
    fn only_the_options_of_this_verb_are_taken_out() {
        let request = request(&["--no-install", "--db", "redis", "-h"]);
        assert!(!request.may_install && request.help);
        assert_eq!(request.args, ["--db", "redis", "-h"]);
    }
}
