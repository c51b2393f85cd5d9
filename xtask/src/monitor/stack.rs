//! The running stack: started in order, recorded in a state file, stopped and cleaned up.
//! Must not know what uses it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::{self, Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;

use super::{
    api, background,
    compose::{self, Project, Reach},
    options::Options,
    preflight,
    state::{self, Lock, State, Way},
    way::{self, Choice},
};
use crate::servers::{Keeper, Kind, Process, Sources, docker, grafana, port::Port, prometheus};

/// Interval of progress messages.
const PROGRESS: Duration = Duration::from_secs(5);
/// Interval of checks whether the containers run.
const LOOK: Duration = Duration::from_secs(5);

/// A running stack. Dropping it stops the stack and removes its state file.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) state: State,
    running: Running,
    known: Known,
}

#[derive(Debug)]
enum Running {
    Local {
        grafana: Option<Process>,
        prometheus: Box<Process>,
    },
    Docker {
        _keeper: Keeper,
        looked: Instant,
    },
    /// It runs without this process.
    Left,
}

/// The state file, removed on drop. It is the last field of its struct, so it is dropped after the stack.
#[derive(Debug)]
struct Known {
    lock: Lock,
    leave: bool,
}

impl Drop for Known {
    fn drop(&mut self) {
        // Without the lock, the state file belongs to another process.
        if !self.leave && self.lock.is_ours() {
            State::forget();
        }
    }
}

/// The result of a start.
#[derive(Debug)]
pub(crate) enum Started {
    Now(Box<Stack>),
    /// It is ready.
    Already(State),
}

impl Stack {
    /// Checks the requirements, then starts the stack. Prints each step.
    ///
    /// # Errors
    /// The error says what to do; nothing is left running.
    pub(crate) fn start(options: &Options) -> anyhow::Result<Started> {
        let Some(lock) = Lock::take()? else {
            return Self::other().map(Started::Already);
        };
        if let Some(state) = state::running_besides()? {
            return Ok(Started::Already(state));
        }
        let known = Known { lock, leave: false };
        if let Some(log) = &options.in_background {
            background::keep_log(log)?;
        }
        let mut choice = way::choose(options.forced()?, docker::engine, Reach::find)?;
        choice.why = options.because.clone().unwrap_or(choice.why);
        let stack = match &choice.reach {
            Some(reach) => Self::start_docker(options, &choice, reach, known)?,
            None => Self::start_local(options, &choice, known)?,
        };
        Ok(Started::Now(Box::new(stack)))
    }

    /// The stack that another process runs or starts.
    fn other() -> anyhow::Result<State> {
        let start = Instant::now();
        loop {
            match state::running()? {
                Some(state) if state.ready => return Ok(state),
                _ if start.elapsed() > Duration::from_secs(1) => {
                    anyhow::bail!("{} is starting or stopping it just now; try again in a moment", state::holder())
                }
                _ => thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn start_local(options: &Options, choice: &Choice, known: Known) -> anyhow::Result<Self> {
        say!("from programs of this machine ({})", choice.why);
        let grafana = grafana::Programs::find();
        let monitoring = options.monitoring();
        // Checked before anything is installed.
        check(options, grafana.is_some())?;
        let sources = Sources::new(!options.no_install);
        let refusal = sources.install_programs(&[Kind::Prometheus], &[]).err();
        let programs = prometheus::Programs::find().with_context(|| {
            let packages = match refusal {
                Some(refusal) => format!(", and {}", refusal.reason()),
                None => ", and installing it failed, see above".to_owned(),
            };
            format!(
                "there is no way to a Prometheus: Docker cannot be used ({}), the program `prometheus` is not on this \
                 machine{packages}; start Docker, install the package `prometheus` (Debian, Ubuntu), or put a release \
                 of Prometheus into PATH",
                choice.why
            )
        })?;
        let data = options.data.as_ref().map(path::absolute).transpose().context("--data is not a path")?;

        let port = Port::chosen(options.prometheus_port)?;
        let mut keeper = prometheus::keeper()?;
        let mut state = state(options, Way::Local, port.number());
        state.pid = Some(std::process::id());
        state.data = data.clone();
        state.logs = BTreeMap::from([("prometheus".to_owned(), keeper.log_file())]);
        state.save()?;
        let settings = local_settings(options);
        let data_of = |keeper: &mut Keeper, name| -> anyhow::Result<Option<PathBuf>> {
            let folder = data.as_ref().map(|data| data.join(name));
            folder.as_ref().map(|folder| keeper.provide(folder)).transpose()?;
            Ok(folder)
        };
        let place = programs.place().display().to_string();
        let prometheus = waiting(&format!("Prometheus ({place})"), || {
            let data = data_of(&mut keeper, "prometheus")?;
            prometheus::start_on(&programs, keeper, port, &monitoring, &settings, data.as_deref())
        })?;
        let mut stack =
            Self { state, running: Running::Local { grafana: None, prometheus: Box::new(prometheus) }, known };
        if let Some(programs) = grafana {
            stack.start_grafana(&programs, options, &monitoring, data_of)?;
        }
        stack.state.targets = api::targets_page(&stack.state.prometheus);
        stack.state.ready = true;
        stack.state.save()?;
        Ok(stack)
    }

    fn start_grafana(
        &mut self,
        programs: &grafana::Programs,
        options: &Options,
        monitoring: &Path,
        data_of: impl Fn(&mut Keeper, &'static str) -> anyhow::Result<Option<PathBuf>>,
    ) -> anyhow::Result<()> {
        let port = Port::chosen(options.grafana_port)?;
        let url = local(port.number());
        let mut keeper = programs.keeper()?;
        self.state.logs.insert("grafana".to_owned(), keeper.log_file());
        self.state.save()?;
        let started = waiting(&format!("Grafana ({})", programs.place().display()), || {
            let data = data_of(&mut keeper, "grafana")?;
            programs.start(keeper, port, monitoring, &self.state.prometheus, data.as_deref())
        })?;
        self.state.grafana = Some(url);
        if let Running::Local { grafana, .. } = &mut self.running {
            *grafana = Some(started);
        }
        Ok(())
    }

    fn start_docker(options: &Options, choice: &Choice, reach: &Reach, mut known: Known) -> anyhow::Result<Self> {
        say!("by Docker, {} ({})", compose::FILE, choice.why);
        anyhow::ensure!(
            options.data.is_none(),
            "with Docker, history is in volumes; omit --data, or add --local for the programs of this machine"
        );
        anyhow::ensure!(
            !compose::has_containers()?,
            "Docker runs a stack of this name already, started elsewhere or by hand; stop it with `cargo xtask monitor \
             down` or `docker compose -p {} down`",
            compose::PROJECT
        );
        check(options, true)?;
        let (port, other) = (Port::chosen(options.prometheus_port)?, Port::chosen(options.grafana_port)?);
        let targets = compose::write_targets(&state::folder(), options)?;
        let project = Project::new(options, port.number(), other.number(), &targets);
        let mut state = state(options, Way::Docker, port.number());
        state.grafana = Some(local(other.number()));
        state.bind = reach.bind();
        state.pid = Some(std::process::id());
        state.save()?;
        let running = waiting("Prometheus and Grafana (the first time Docker downloads them)", || {
            if options.detach {
                project.start_detached().map(|()| Running::Left)
            } else {
                project.start_kept().map(|keeper| Running::Docker { _keeper: keeper, looked: Instant::now() })
            }
        })?;
        state.targets = api::targets_page(&state.prometheus);
        state.ready = true;
        if options.detach {
            state.pid = None;
            known.leave = true;
        }
        state.save()?;
        Ok(Self { state, running, known })
    }

    /// Why it must stop: a component ended unexpectedly (with the end of its log), or the state folder was removed.
    pub(crate) fn trouble(&mut self) -> Option<String> {
        if !self.known.lock.is_ours() {
            let folder = state::folder();
            return Some(format!("{} was removed, and with it the state of this stack", folder.display()));
        }
        match &mut self.running {
            Running::Local { grafana, prometheus } => {
                let parts = [("Prometheus", Some(&**prometheus)), ("Grafana", grafana.as_ref())];
                let mut parts = parts.into_iter();
                let (name, part) =
                    parts.find_map(|(name, part)| Some((name, part.filter(|part| part.has_ended())?)))?;
                Some(format!("{name} has ended; the end of its log:\n{}", part.keeper().log()))
            }
            Running::Docker { looked, .. } if looked.elapsed() > LOOK => {
                let ended = compose::ended();
                *looked = Instant::now();
                let which = (!ended.is_empty()).then(|| ended.join(" and "))?;
                Some(format!("the container of {which} has ended; the end of the logs:\n{}", compose::last_words()))
            }
            Running::Docker { .. } | Running::Left => None,
        }
    }

    /// Whether it runs without this process.
    pub(crate) fn is_left(&self) -> bool {
        matches!(self.running, Running::Left)
    }

    /// Stops everything, and prints what stays.
    pub(crate) fn stop(self) {
        let Self { state, running, known } = self;
        say!("stopping");
        drop(running);
        drop(known);
        say!("stopped; {}", super::links::what_stays(&state));
    }
}

fn local_settings(options: &Options) -> prometheus::Settings {
    let here = |port| vec![format!("127.0.0.1:{port}")];
    prometheus::Settings {
        suite: here(options.metrics_port),
        app: here(options.app_port),
        interval: None,
        further: vec![
            "--log.level=info".to_owned(),
            format!("--storage.tsdb.retention.time={}", options.retention),
            "--storage.tsdb.retention.size=2GB".to_owned(),
        ],
    }
}

fn state(options: &Options, way: Way, prometheus: u16) -> State {
    State {
        way,
        pid: None,
        ready: false,
        detached: options.detach || options.in_background.is_some(),
        prometheus: local(prometheus),
        targets: local(prometheus),
        grafana: None,
        metrics_port: options.metrics_port,
        app_port: options.app_port,
        bind: vec![IpAddr::from(Ipv4Addr::LOCALHOST)],
        logs: BTreeMap::new(),
        data: None,
    }
}

fn local(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// Checks ports and files, and prints the result.
fn check(options: &Options, with_grafana: bool) -> anyhow::Result<()> {
    preflight::ports(options, with_grafana)?;
    if let Some(warning) = preflight::suite_port(options) {
        say!("note: {warning}");
    }
    let checked = preflight::configuration(&options.monitoring())?;
    say!(
        "configuration: {}",
        if checked.is_some() { "promtool accepts it" } else { "not checked, there is no promtool" }
    );
    Ok(())
}

/// Runs a slow step with progress messages.
fn waiting<T>(what: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    use std::sync::mpsc;

    say!("{what}: starting");
    let start = Instant::now();
    let (done, over) = mpsc::channel::<()>();
    let outcome = thread::scope(|scope| {
        scope.spawn(move || {
            while over.recv_timeout(PROGRESS) == Err(mpsc::RecvTimeoutError::Timeout) {
                say!("{what}: not ready yet ({:.0} s)", start.elapsed().as_secs_f32());
            }
        });
        let outcome = work();
        drop(done);
        outcome
    })?;
    say!("{what}: ready after {:.1} s", start.elapsed().as_secs_f32());
    Ok(outcome)
}
