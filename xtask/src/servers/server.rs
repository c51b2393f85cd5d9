//! A server that was started here, of any kind.
//! Must not know how it was started.

use std::path::PathBuf;

use super::{certificates::Certificate, process::Process};

/// The purpose of a server, which affects its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Tests: a commit need not survive a power failure, only the end of the server.
    Test,
    /// Measurements: the server's own defaults. Without waits for the disk the figures would be unrealistic.
    Measure,
}

/// A running or stopped server. It is stopped and its files are removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    /// One, or the nodes of a cluster.
    processes: Vec<Process>,
    /// The server behind this one; it is stopped after it.
    behind: Option<Box<Self>>,
    pub(crate) dsn: String,
    /// The certificate authority, if it supports TLS.
    pub(crate) authority: Option<PathBuf>,
}

impl Server {
    pub(crate) fn new(process: Process, dsn: String, certificate: Option<Certificate>) -> Self {
        let authority = certificate.map(|certificate| certificate.authority);
        Self { processes: vec![process], behind: None, dsn, authority }
    }

    pub(crate) fn cluster(processes: Vec<Process>, dsn: String) -> Self {
        Self { processes, behind: None, dsn, authority: None }
    }

    /// Keeps another server as long as this one exists.
    pub(crate) fn before(self, behind: Self) -> Self {
        Self { behind: Some(Box::new(behind)), ..self }
    }

    /// The server behind this one.
    pub(crate) fn behind(&mut self) -> Option<&mut Self> {
        self.behind.as_deref_mut()
    }

    /// Its port; for a cluster, of the first node.
    pub(crate) fn port(&self) -> u16 {
        self.processes[0].port()
    }

    /// Stops it gracefully; its data stays. The server behind it keeps running.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.processes.iter_mut().try_for_each(Process::stop)
    }

    /// Kills it; its data stays.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.processes.iter_mut().try_for_each(Process::kill)
    }

    /// Stops its processes where they are; its connections stay open.
    pub(crate) fn pause(&mut self) -> anyhow::Result<()> {
        self.processes.iter_mut().try_for_each(|process| process.keeper_mut().tell("pause"))
    }

    /// Lets its paused processes go on.
    pub(crate) fn resume(&mut self) -> anyhow::Result<()> {
        self.processes.iter_mut().try_for_each(|process| process.keeper_mut().tell("resume"))
    }

    /// Starts it again on the same port, without waiting.
    pub(crate) fn launch(&mut self) -> anyhow::Result<()> {
        self.processes.iter_mut().try_for_each(Process::launch)
    }

    /// Waits until it accepts connections.
    pub(crate) fn wait(&mut self) -> anyhow::Result<()> {
        self.processes.iter_mut().try_for_each(Process::wait)
    }
}
