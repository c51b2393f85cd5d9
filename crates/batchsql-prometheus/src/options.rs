//! Owns the options of the server: addresses, access and limits for clients; rejects invalid ones.
//! Must not know HTTP or threads.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
#[cfg(feature = "tls")]
use std::path::PathBuf;
use std::time::Duration;

use crate::access::Access;
use crate::endpoint_options::EndpointOptions;
#[cfg(feature = "tls")]
use crate::endpoint_options::Hidden;
use crate::error::{Mistake, PrometheusError};
use crate::tls::Tls;

/// The port of [`ServerOptions::new`].
const DEFAULT_PORT: u16 = 9090;
/// Longer than any server runs, and short enough to be added to the current time.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Where the metrics are served, who may read them, and the limits for clients. Options are checked only in
/// [`start_server_with`](crate::PrometheusMetrics::start_server_with).
///
/// ```
/// use std::net::Ipv4Addr;
/// use batchsql_prometheus::{PrometheusMetrics, ServerOptions};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let metrics = PrometheusMetrics::new()?;
/// # let token_from_your_secrets = "of 32 random bytes in hexadecimal".replace(' ', "-");
/// let options = ServerOptions::new()
///     .port(0)
///     .bind([Ipv4Addr::LOCALHOST.into()])
///     .bearer_token(token_from_your_secrets)
///     .live_page(false);
/// let address = metrics.start_server_with(options).await?;
/// # assert!(address.ip().is_loopback());
/// # metrics.stop_server().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use = "options do nothing before start_server_with"]
pub struct ServerOptions {
    port: u16,
    bind: Vec<IpAddr>,
    endpoint: EndpointOptions,
    #[cfg(feature = "tls")]
    tls: Option<Pem>,
    limits: Limits,
}

/// The limits for clients of the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections at the same time; one more replaces another.
    pub(crate) connections: usize,
    /// Limit for a TLS handshake, for the head of a request, and for an idle connection.
    pub(crate) header_time: Duration,
    /// Limit for the head of a request, in bytes.
    pub(crate) header_bytes: usize,
    /// Limit for a client to receive a response.
    pub(crate) answer_time: Duration,
    /// Age of a connection at which it ends, after the current response.
    pub(crate) connection_age: Duration,
    /// Limit for the last response of a connection.
    pub(crate) grace: Duration,
}

/// Certificates and their private key.
#[cfg(feature = "tls")]
#[derive(Clone)]
enum Pem {
    Text { certificates: String, key: String },
    Files { certificates: PathBuf, key: PathBuf },
}

/// Options that were checked.
pub(crate) struct Settings {
    /// At least one, all with the same port.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) access: Access,
    pub(crate) tls: Option<Tls>,
    pub(crate) limits: Limits,
    pub(crate) live_page: bool,
}

impl ServerOptions {
    /// Port 9090 of 127.0.0.1 without authentication, with the live page.
    pub fn new() -> Self {
        Self {
            port: DEFAULT_PORT,
            bind: vec![Ipv4Addr::LOCALHOST.into()],
            endpoint: EndpointOptions::new(),
            #[cfg(feature = "tls")]
            tls: None,
            limits: Limits::default(),
        }
    }

    /// The port; default 9090. With 0 the first address takes any free port, and the others use the same port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// The addresses to listen on, instead of 127.0.0.1. `0.0.0.0` or `::` means all addresses of the machine and
    /// must be the only one. Without a token or a password, everyone who can reach an address can read the metrics;
    /// the log then has a warning for each address beyond the loopback interface.
    pub fn bind(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.bind = addresses.into_iter().collect();
        self
    }

    /// Requires this token for `/metrics` (`Authorization: Bearer …`): printable ASCII without spaces. Without TLS
    /// it is sent in clear text. Not together with [`basic_auth`](Self::basic_auth).
    pub fn bearer_token(mut self, token: impl Into<String>) -> Self {
        self.endpoint = self.endpoint.bearer_token(token);
        self
    }

    /// Requires this user and password for `/metrics`. Without TLS they are sent in clear text. Not together with
    /// [`bearer_token`](Self::bearer_token).
    pub fn basic_auth(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.endpoint = self.endpoint.basic_auth(user, password);
        self
    }

    /// Serves HTTPS (TLS 1.2 and 1.3) with these certificates, the server's own first, and this private key
    /// (PKCS #8, PKCS #1 or SEC 1, not encrypted), both as PEM text. Plain HTTP then fails.
    #[cfg(feature = "tls")]
    pub fn tls_pem(mut self, certificates: impl Into<String>, key: impl Into<String>) -> Self {
        self.tls = Some(Pem::Text { certificates: certificates.into(), key: key.into() });
        self
    }

    /// As [`tls_pem`](Self::tls_pem), from files, which may be the same file. They are read when the server
    /// starts: after a renewal, stop it and start it again.
    ///
    /// ```
    /// use batchsql_prometheus::{PrometheusMetrics, ServerOptions};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// # let folder = tempfile::tempdir()?;
    /// # let folder = folder.path();
    /// # let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    /// # std::fs::write(folder.join("tls.crt"), made.cert.pem())?;
    /// # std::fs::write(folder.join("tls.key"), made.signing_key.serialize_pem())?;
    /// # let password = "not-in-your-code".to_owned();
    /// let metrics = PrometheusMetrics::new()?;
    /// let options = ServerOptions::new()
    ///     .port(0)
    ///     .tls_pem_files(folder.join("tls.crt"), folder.join("tls.key"))
    ///     .basic_auth("prometheus", password);
    /// let address = metrics.start_server_with(options).await?;
    /// println!("metrics: https://{address}/metrics");
    /// # metrics.stop_server().await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "tls")]
    pub fn tls_pem_files(mut self, certificates: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.tls = Some(Pem::Files { certificates: certificates.into(), key: key.into() });
        self
    }

    /// Connections that are served at the same time; default 64. For one more, the connection that was idle
    /// longest is closed, or the next one that has its response.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.limits.connections = connections;
        self
    }

    /// Limit for a TLS handshake, for the head of each request, and for an idle connection; default 10 s.
    pub fn header_time(mut self, time: Duration) -> Self {
        self.limits.header_time = time;
        self
    }

    /// Limit for a client to receive a response, from the moment the server waits for it; default 10 s. Then the
    /// connection is closed.
    pub fn answer_time(mut self, time: Duration) -> Self {
        self.limits.answer_time = time;
        self
    }

    /// Age at which a connection ends, after its current response; default 5 minutes.
    pub fn connection_age(mut self, age: Duration) -> Self {
        self.limits.connection_age = age;
        self
    }

    /// Whether `/` serves the live page; default true. The page holds no data and needs no authentication.
    pub fn live_page(mut self, live_page: bool) -> Self {
        self.endpoint = self.endpoint.live_page(live_page);
        self
    }

    /// Checks the options.
    pub(crate) fn check(self) -> Result<Settings, PrometheusError> {
        let addresses = self.addresses()?;
        let access = self.endpoint.access()?;
        Ok(Settings {
            addresses,
            access,
            tls: self.tls()?,
            limits: self.limits.check()?,
            live_page: self.endpoint.has_live_page(),
        })
    }

    fn addresses(&self) -> Result<Vec<SocketAddr>, PrometheusError> {
        if self.bind.is_empty() {
            return Err(Mistake::NoAddress.into());
        }
        for (position, address) in self.bind.iter().enumerate() {
            if address.is_unspecified() && self.bind.len() > 1 {
                return Err(Mistake::EveryAddressAndMore { address: *address }.into());
            }
            if self.bind[..position].contains(address) {
                return Err(Mistake::AddressTwice { address: *address }.into());
            }
        }
        Ok(self.bind.iter().map(|address| SocketAddr::new(*address, self.port)).collect())
    }

    #[cfg(feature = "tls")]
    fn tls(&self) -> Result<Option<Tls>, PrometheusError> {
        let tls = match &self.tls {
            None => return Ok(None),
            Some(Pem::Text { certificates, key }) => Tls::from_text(certificates, key),
            Some(Pem::Files { certificates, key }) => Tls::from_files(certificates, key),
        };
        tls.map(Some)
    }

    #[cfg(not(feature = "tls"))]
    #[allow(clippy::unnecessary_wraps, reason = "its twin can fail")]
    fn tls(&self) -> Result<Option<Tls>, PrometheusError> {
        Ok(None)
    }
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ServerOptions {
    /// Shows no secrets and no user name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ServerOptions");
        shown.field("port", &self.port).field("bind", &self.bind);
        self.endpoint.fields(&mut shown);
        #[cfg(feature = "tls")]
        shown.field("tls", &self.tls);
        shown.field("limits", &self.limits).finish()
    }
}

#[cfg(feature = "tls")]
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { .. } => Hidden.fmt(f),
            Self::Files { certificates, key } => {
                f.debug_struct("Files").field("certificates", certificates).field("key", key).finish()
            }
        }
    }
}

impl Limits {
    fn check(mut self) -> Result<Self, PrometheusError> {
        if self.connections == 0 {
            return Err(Mistake::ZeroConnections.into());
        }
        for (name, time) in [
            ("header_time", &mut self.header_time),
            ("answer_time", &mut self.answer_time),
            ("connection_age", &mut self.connection_age),
        ] {
            if time.is_zero() {
                return Err(Mistake::ZeroTime { name }.into());
            }
            *time = LONGEST.min(*time);
        }
        Ok(self)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            header_time: Duration::from_secs(10),
            header_bytes: 16 << 10,
            answer_time: Duration::from_secs(10),
            connection_age: Duration::from_secs(300),
            grace: Duration::from_secs(2),
        }
    }
}
