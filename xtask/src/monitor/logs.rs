//! `monitor logs`: the end of the logs, and new lines.
//! Must not know which program writes them.

use std::{
    fs,
    io::{self, Read, Seek, SeekFrom, Write},
    path::PathBuf,
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::Context;

use super::{
    background, compose,
    state::{self, State, Way},
};
use crate::{cargo, interrupt};

const POLL: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only the log of this component
    component: Option<Component>,
    /// Follow the logs until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Number of lines from the end
    #[arg(long, default_value_t = 100, value_name = "NUMBER")]
    lines: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Component {
    Prometheus,
    Grafana,
}

impl Component {
    fn name(self) -> &'static str {
        match self {
            Self::Prometheus => "prometheus",
            Self::Grafana => "grafana",
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let state = state::running()?;
    match state {
        Some(State { way: Way::Docker, .. }) => {
            let services: Vec<_> = arguments.component.map(Component::name).into_iter().collect();
            let mut logs = compose::logs(arguments.follow, arguments.lines, &services);
            Ok(cargo::exit_code(logs.status().context("cannot start docker")?))
        }
        Some(state) => of_files(&state, arguments),
        None => {
            // The reason why the background process has ended.
            if let Ok((text, _)) = background::tail(&background::log(), arguments.lines) {
                say!("{text}");
            }
            anyhow::bail!("nothing runs; start it with `cargo xtask monitor`")
        }
    }
}

/// A log and how far it has been shown.
struct Shown {
    prefix: String,
    file: PathBuf,
    offset: u64,
}

fn of_files(state: &State, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let wanted = |name: &&String| arguments.component.is_none_or(|component| component.name() == name.as_str());
    let names: Vec<_> = state.logs.keys().filter(wanted).collect();
    anyhow::ensure!(!names.is_empty(), "there is no such log: Grafana is not on this machine");
    let mut shown = Vec::new();
    for name in &names {
        let prefix = if names.len() > 1 { format!("{name:<11}| ") } else { String::new() };
        let file = state.logs[*name].clone();
        let (text, offset) = background::tail(&file, arguments.lines)
            .with_context(|| format!("cannot read {}; it may be another user's", file.display()))?;
        print(&prefix, &text);
        shown.push(Shown { prefix, file, offset });
    }
    if arguments.follow {
        interrupt::watch(|_| ()).context("cannot watch for Ctrl-C")?;
        while !interrupt::caught() && shown.iter_mut().all(|log| log.go_on().is_ok()) {
            thread::sleep(POLL);
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Shown {
    /// Shows new lines, up to the last complete one. Fails if the log was removed.
    fn go_on(&mut self) -> io::Result<()> {
        let mut file = fs::File::open(&self.file)?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        self.offset += whole as u64;
        print(&self.prefix, &String::from_utf8_lossy(&bytes[..whole]));
        Ok(())
    }
}

fn print(prefix: &str, text: &str) {
    let mut stdout = io::stdout().lock();
    for line in text.lines() {
        // The reader may have closed the pipe.
        let _ = writeln!(stdout, "{prefix}{line}");
    }
    let _ = stdout.flush();
}
