//! `cargo xtask server`: one server, for as long as the input is open. A test sends commands as lines; a user gets
//! instructions and ends it with Ctrl-C.
//! Must not know how a server is found or started.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    process::ExitCode,
    sync::mpsc,
    thread,
};

use anyhow::Context;

use crate::{
    interrupt,
    servers::{Kind, Purpose, Server, Sources},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    kind: Kind,
    /// The version of PostgreSQL, if not that of this machine: 18
    #[arg(long, env = "BATCHSQL_POSTGRES_VERSION")]
    version: Option<String>,
    /// Do not install the server if it is missing; BATCHSQL_NO_INSTALL=1 has this effect on every verb
    #[arg(long)]
    no_install: bool,
    /// Use Docker even if the server is on this machine
    #[arg(long)]
    docker: bool,
    /// Arguments for the server program; they override the default ones
    #[arg(last = true, value_name = "SERVER ARGS")]
    server_args: Vec<String>,
}

enum Event {
    Command(String),
    /// The input has ended, or a signal came.
    End,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (events, next) = mpsc::channel();
    let signals = events.clone();
    interrupt::watch(move |_| drop(signals.send(Event::End))).context("cannot watch for Ctrl-C")?;
    let person = io::stdin().is_terminal();
    let kind = kind(arguments)?;
    let sources = if arguments.docker { Sources::docker() } else { Sources::new(!arguments.no_install) };
    sources.install(&[kind]);
    let (mut server, origin) = sources.start(kind, &arguments.server_args, Purpose::Test)?;
    if person {
        eprintln!("{}: {origin}", kind.title());
    }
    introduce(kind, &mut server, person)?;
    thread::spawn(move || read_commands(&events));
    while let Ok(Event::Command(command)) = next.recv() {
        match obey(&mut server, &command) {
            Ok(answer) => say(&answer)?,
            // A mistyped command does not end an interactive session.
            Err(error) if person => eprintln!("{command}: {error:#}"),
            Err(error) => return Err(error.context(command)),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The kind with the requested version. A version in the environment applies only to PostgreSQL.
fn kind(arguments: &Arguments) -> anyhow::Result<Kind> {
    match (arguments.kind, arguments.version.as_deref()) {
        (Kind::Postgres, Some("18")) => Ok(Kind::Postgres18),
        (Kind::Postgres, Some(other)) if !other.is_empty() => {
            anyhow::bail!("there is no PostgreSQL {other} to download; use --version 18, or none")
        }
        (kind, _) => Ok(kind),
    }
}

fn introduce(kind: Kind, server: &mut Server, person: bool) -> anyhow::Result<()> {
    let behind = server.behind().map(|behind| behind.dsn.clone());
    if person {
        let variable = kind.variable().map_or_else(String::new, |variable| format!("export {variable}="));
        println!("\n{variable}'{}'", server.dsn);
        if let Some(authority) = &server.authority {
            println!("# TLS, with a certificate that this authority signed: {}", authority.display());
        }
        println!("# Commands: stop, start, launch (start without waiting), kill, pause, resume");
        if let Some(behind) = behind {
            println!("# The server behind it: '{behind}'; commands: stop behind, start behind, …");
        }
        println!("# Ctrl-C stops the server and removes its files");
        return Ok(());
    }
    if let Some(authority) = &server.authority {
        say(&format!("CA {}", authority.display()))?;
    }
    if let Some(behind) = behind {
        say(&format!("BEHIND {behind}"))?;
    }
    say(&format!("READY {}", server.dsn))
}

fn read_commands(events: &mpsc::Sender<Event>) {
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        if events.send(Event::Command(line.trim().to_owned())).is_err() {
            return;
        }
    }
    // The receiver may be dropped already.
    let _ = events.send(Event::End);
}

fn obey(server: &mut Server, command: &str) -> anyhow::Result<String> {
    if let Some(command) = command.strip_suffix(" behind") {
        let behind = server.behind().context("there is no server behind this one")?;
        let answer = obey(behind, command)?;
        // `READY` has the DSN of the server itself.
        return Ok(answer.replacen("READY", "BEHIND", 1));
    }
    match command {
        "stop" => server.stop().map(|()| "STOPPED".to_owned()),
        "kill" => server.kill().map(|()| "STOPPED".to_owned()),
        "pause" => server.pause().map(|()| "PAUSED".to_owned()),
        "resume" => server.resume().map(|()| "RESUMED".to_owned()),
        "launch" => server.launch().map(|()| "LAUNCHED".to_owned()),
        "start" => {
            server.launch()?;
            server.wait()?;
            Ok(format!("READY {}", server.dsn))
        }
        "" => Ok(String::new()),
        _ => anyhow::bail!("unknown command; use stop, start, launch, kill, pause or resume"),
    }
}

/// Fails if the output is closed, which also ends the server.
fn say(line: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("cannot print the state of the server")
}
