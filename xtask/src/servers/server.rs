//! A server that was started here, of any kind.
//! Must not know how it was started.

use std::path::PathBuf;

use super::{certificates::Certificate, process::Process};

/// What a server is for, as far as it matters for its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Tests: a commit need not survive a power failure, only the end of the server.
    Test,
    /// Measurements: the server's own defaults. A server that does not wait for its disk would tell figures that
    /// no real one reaches.
    Measure,
}

/// A running or stopped server. It is stopped and its files are removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    /// One, or the nodes of a cluster.
    processes: Vec<Process>,
    /// The server to which this one leads: it is stopped afterwards.
    _behind: Option<Box<Self>>,
    pub(crate) dsn: String,
    /// Who signed its certificate, when it speaks TLS.
    pub(crate) authority: Option<PathBuf>,
}

impl Server {
    pub(crate) fn new(process: Process, dsn: String, certificate: Option<Certificate>) -> Self {
        let authority = certificate.map(|certificate| certificate.authority);
        Self { processes: vec![process], _behind: None, dsn, authority }
    }

    pub(crate) fn cluster(processes: Vec<Process>, dsn: String) -> Self {
        Self { processes, _behind: None, dsn, authority: None }
    }

    /// Keeps another server for as long as this one is there.
    pub(crate) fn before(self, behind: Self) -> Self {
        Self { _behind: Some(Box::new(behind)), ..self }
    }

    /// Where it listens; the first node of a cluster.
    pub(crate) fn port(&self) -> u16 {
        self.processes[0].port()
    }

    /// Stops it as an administrator would; its data stays. The server behind it goes on.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.processes.iter_mut().try_for_each(Process::stop)
    }

    /// Kills it without a warning; its data stays.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.processes.iter_mut().try_for_each(Process::kill)
    }

    /// Starts it again, on the same port, and does not wait.
    pub(crate) fn launch(&mut self) -> anyhow::Result<()> {
        self.processes.iter_mut().try_for_each(Process::launch)
    }

    /// Waits until it takes connections.
    pub(crate) fn wait(&mut self) -> anyhow::Result<()> {
        self.processes.iter_mut().try_for_each(Process::wait)
    }
}
