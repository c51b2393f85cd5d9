//! Owns the error of the exporter: opaque, with what to do about it.
//! Must not know where errors come from.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
#[cfg(feature = "tls")]
use std::path::PathBuf;

use crate::listener::Process;

/// An error of the exporter. `Debug` shows the same sentence as `Display`, followed by the source, because a `main`
/// that returns the error prints `Debug`.
#[derive(thiserror::Error)]
#[error(transparent)]
pub struct PrometheusError(Kind);

#[derive(Debug, thiserror::Error)]
enum Kind {
    #[error(
        "cannot listen on {address}: {} already listens there; stop it, or choose another port (0 takes any free one)",
        name(.by.as_ref())
    )]
    PortInUse { address: SocketAddr, by: Option<Process>, source: io::Error },
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
        "this process already has a global recorder of the metrics crate; call install_global() before others set one, \
         or omit it: reporter() works without it"
    )]
    AlreadyInstalled,
    #[error(transparent)]
    Options(#[from] Mistake),
}

/// What is wrong with the options of a server. None shows a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Mistake {
    #[error("there is no address to listen on; pass at least one to bind(), or omit bind() for 127.0.0.1")]
    NoAddress,
    #[error("bind() has {address} twice; pass it once")]
    AddressTwice { address: IpAddr },
    #[error("{address} already means every address of this machine; pass only it to bind()")]
    EveryAddressAndMore { address: IpAddr },
    #[error("both a bearer token and basic auth are set; choose one of them")]
    TokenAndAccount,
    #[error("the bearer token is empty; omit bearer_token() to serve without a token")]
    EmptyToken,
    #[error(
        "the bearer token has a character at byte {position} that is not allowed in a header; use printable ASCII \
         without spaces (a token read from a file often ends with a line break: trim it)"
    )]
    TokenCharacter { position: usize },
    #[error("the user of basic auth is empty; omit basic_auth() to serve without a password")]
    EmptyUser,
    #[error("the user of basic auth has a colon, which is not allowed; choose another user")]
    UserWithColon,
    #[error("the password of basic auth is empty; omit basic_auth() to serve without a password")]
    EmptyPassword,
    #[error(
        "the user or the password of basic auth has a control character, which a client cannot send (a password read \
         from a file often ends with a line break: trim it)"
    )]
    ControlCharacter,
    #[error(
        "the {name} would take more than 8 KiB of the head of a request, whose limit is 16 KiB; a secret of 32 random \
         bytes is enough"
    )]
    TooLong { name: &'static str },
    #[error("max_connections is 0; it must be at least 1")]
    ZeroConnections,
    #[error("{name} is zero; it must be above zero")]
    ZeroTime { name: &'static str },
    #[cfg(feature = "tls")]
    #[error("cannot read {}; check the path, and that the user of this process may read the file", .path.display())]
    UnreadableFile { path: PathBuf, source: io::Error },
    #[cfg(feature = "tls")]
    #[error("{name} is not valid PEM; each item begins with -----BEGIN …----- and ends with -----END …-----")]
    BrokenPem { name: String, source: Box<dyn Error + Send + Sync> },
    #[cfg(feature = "tls")]
    #[error("there is no certificate in {name}; it must have a PEM item named CERTIFICATE")]
    NoCertificate { name: String },
    #[cfg(feature = "tls")]
    #[error("there is no certificate in {name}, but a private key; certificate first, key second: are they swapped?")]
    KeyForCertificate { name: String },
    #[cfg(feature = "tls")]
    #[error(
        "there is no private key in {name}; it must have a PEM item named PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE \
         KEY, and an encrypted one must be decrypted first"
    )]
    NoKey { name: String },
    #[cfg(feature = "tls")]
    #[error("there is no private key in {name}, but a certificate; certificate first, key second: are they swapped?")]
    CertificateForKey { name: String },
    #[cfg(feature = "tls")]
    #[error(
        "the private key in {key} does not match the first certificate in {certificates}; the certificate of the \
         server comes first, those of its authorities follow"
    )]
    KeyOfAnother { certificates: String, key: String },
    #[cfg(feature = "tls")]
    #[error("the certificate in {name}, or its key, cannot be used; make a new pair (RSA, ECDSA or Ed25519)")]
    RefusedByTls { name: String, source: Box<dyn Error + Send + Sync> },
}

fn name(process: Option<&Process>) -> String {
    process.map_or_else(|| "another process".to_owned(), ToString::to_string)
}

impl fmt::Debug for PrometheusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut behind = self.source();
        while let Some(error) = behind {
            write!(f, ": {error}")?;
            behind = error.source();
        }
        Ok(())
    }
}

impl PrometheusError {
    /// The error of a failed bind; `holder` finds the process that listens there, where the system shows it.
    pub(crate) fn listen(
        address: SocketAddr,
        source: io::Error,
        holder: impl FnOnce(SocketAddr) -> Option<Process>,
    ) -> Self {
        Self(match source.kind() {
            io::ErrorKind::AddrInUse => Kind::PortInUse { address, by: holder(address), source },
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

    /// The server of these metrics already runs.
    pub fn is_already_running(&self) -> bool {
        matches!(self.0, Kind::AlreadyRunning { .. })
    }

    /// The process already has a global recorder.
    pub fn is_already_installed(&self) -> bool {
        matches!(self.0, Kind::AlreadyInstalled)
    }

    /// The [`ServerOptions`](crate::ServerOptions) or [`EndpointOptions`](crate::EndpointOptions) are invalid on any
    /// machine: a token that no client can send, a key that does not match its certificate, a limit of zero, and
    /// similar mistakes.
    pub fn is_invalid_options(&self) -> bool {
        matches!(self.0, Kind::Options(_))
    }

    /// The address that the error is about, if any.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.0 {
            Kind::PortInUse { address, .. }
            | Kind::PermissionDenied { address, .. }
            | Kind::NoSuchAddress { address, .. }
            | Kind::Listen { address, .. }
            | Kind::AlreadyRunning { address } => Some(address),
            Kind::Thread { .. } | Kind::Panicked | Kind::AlreadyInstalled | Kind::Options(_) => None,
        }
    }
}

impl From<Mistake> for PrometheusError {
    fn from(mistake: Mistake) -> Self {
        Self(Kind::Options(mistake))
    }
}
