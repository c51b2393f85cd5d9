//! Owns the error of the exporter: opaque, with what to do about it.
//! Must not know where errors come from.

use std::io;
use std::net::SocketAddr;

/// The exporter cannot do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct PrometheusError(Kind);

#[derive(Debug, thiserror::Error)]
enum Kind {
    #[error(
        "cannot listen on {address}: another process already listens there; stop it, or give start_server \
         another port (0 takes any free one)"
    )]
    PortInUse { address: SocketAddr, source: io::Error },
    #[error("cannot listen on {address}: permission denied; use a port above 1023")]
    PermissionDenied { address: SocketAddr, source: io::Error },
    #[error("cannot listen on {address}: this machine has no such address; use 127.0.0.1, or 0.0.0.0 for all")]
    NoSuchAddress { address: SocketAddr, source: io::Error },
    #[error("cannot listen on {address}; check the address")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("the metrics server already listens on {address}; call stop_server() before starting it again")]
    AlreadyRunning { address: SocketAddr },
    #[error("cannot start the thread {name:?}; check the process limits for threads and open files")]
    Thread { name: &'static str, source: io::Error },
    #[error("the metrics server panicked, which is a defect; start it again")]
    Panicked,
    #[error(
        "this process already has a global recorder of the metrics crate; install_global() must come first, \
         or is not needed: reporter() works without it"
    )]
    AlreadyInstalled,
}

impl PrometheusError {
    pub(crate) fn listen(address: SocketAddr, source: io::Error) -> Self {
        Self(match source.kind() {
            io::ErrorKind::AddrInUse => Kind::PortInUse { address, source },
            io::ErrorKind::PermissionDenied => Kind::PermissionDenied { address, source },
            io::ErrorKind::AddrNotAvailable => Kind::NoSuchAddress { address, source },
            _ => Kind::Listen { address, source },
        })
    }

    pub(crate) fn already_running(address: SocketAddr) -> Self {
        Self(Kind::AlreadyRunning { address })
    }

    pub(crate) fn thread(name: &'static str, source: io::Error) -> Self {
        Self(Kind::Thread { name, source })
    }

    pub(crate) fn panicked() -> Self {
        Self(Kind::Panicked)
    }

    pub(crate) fn already_installed() -> Self {
        Self(Kind::AlreadyInstalled)
    }

    /// Something else listens on the address.
    pub fn is_port_in_use(&self) -> bool {
        matches!(self.0, Kind::PortInUse { .. })
    }

    /// The user of this process may not listen on the port.
    pub fn is_permission_denied(&self) -> bool {
        matches!(self.0, Kind::PermissionDenied { .. })
    }

    /// The server of these metrics is already running.
    pub fn is_already_running(&self) -> bool {
        matches!(self.0, Kind::AlreadyRunning { .. })
    }

    /// The process already has a global recorder.
    pub fn is_already_installed(&self) -> bool {
        matches!(self.0, Kind::AlreadyInstalled)
    }

    /// The address that the error is about, when it is about one.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.0 {
            Kind::PortInUse { address, .. }
            | Kind::PermissionDenied { address, .. }
            | Kind::NoSuchAddress { address, .. }
            | Kind::Listen { address, .. }
            | Kind::AlreadyRunning { address } => Some(address),
            Kind::Thread { .. } | Kind::Panicked | Kind::AlreadyInstalled => None,
        }
    }
}
