//! Owns how a connection is opened: the password, the protocol version, and the first queries.
//! Must not know how connections are kept or used.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use batchsql_core::{AbandonedWrites, ErrorClass, SinkError};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ConnectionInfo, ErrorKind, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo,
    RedisError, RedisResult,
};

use tokio::time::{Instant, timeout, timeout_at};

use crate::classify::{connect_error, silent};
use crate::client::{Client, ClientName};
use crate::limits::ServerLimits;
use crate::link::{Link, Parts};
use crate::options::RedisOptions;
use crate::transport;
use crate::wire::Wire;

/// Opens connections.
pub(crate) struct Connector {
    pub(crate) options: RedisOptions,
    /// Whether the server supports only version 2 of the protocol.
    is_old: AtomicBool,
}

impl Connector {
    pub(crate) fn new(options: RedisOptions) -> Self {
        Self { options, is_old: AtomicBool::new(false) }
    }

    /// Gets the password from the provider, if there is one, within the connect timeout.
    ///
    /// # Errors
    /// The provider has none, or exceeds the timeout.
    pub(crate) async fn password(&self) -> Result<Option<Arc<str>>, SinkError> {
        let Some(provider) = &self.options.password else { return Ok(None) };
        let limit = self.options.connect_timeout;
        match timeout(limit, provider.get()).await {
            Ok(given) => given.map(|(password, _)| Some(password)),
            Err(_) => {
                let text = format!(
                    "the password provider gave no password within {limit:?}; check it, or raise connect_timeout"
                );
                Err(SinkError::new(ErrorClass::Transient, text))
            }
        }
    }

    /// Opens a connection before the deadline, which is extended by the time of the provider. If the server rejects a
    /// password, the provider is called once more.
    ///
    /// # Errors
    /// The server cannot be reached or rejects the connection, or there is no password.
    pub(crate) async fn connect(&self, server: &ConnectionInfo, deadline: &mut Instant) -> Result<Link, SinkError> {
        let Some(provider) = &self.options.password else {
            let settings = server.redis_settings();
            if settings.username().is_some() && settings.password().is_none() {
                let text = "the redis options name a user without a password; add it (user:@host for one that has none), \
                            or a password_provider";
                return Err(SinkError::new(ErrorClass::Permission, text));
            }
            return match timeout_at(*deadline, self.connect_as(server, server.redis_settings())).await {
                Ok(connected) => connected.map_err(|error| problem(&error, server)),
                Err(_) => Err(silent(&server.addr().to_string())),
            };
        };
        for is_last in [false, true] {
            let begin = Instant::now();
            let password = self.password().await?.unwrap_or_default();
            *deadline += begin.elapsed();
            let settings = server.redis_settings().clone().set_password(&*password);
            let connected = timeout_at(*deadline, self.connect_as(server, &settings)).await;
            match connected.map_err(|_| silent(&server.addr().to_string()))? {
                Ok(link) => return Ok(link),
                Err(error) if is_of_password(&error) => {
                    provider.refused().await;
                    if is_last {
                        let (class, address) = (ErrorClass::Permission, server.addr());
                        let text = format!("redis at {address} rejected the password of the provider, twice");
                        return Err(match error.code() {
                            Some(code) => SinkError::with_code(class, code, text),
                            None => SinkError::new(class, text),
                        });
                    }
                }
                Err(error) => return Err(problem(&error, server)),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Opens a connection and queries its name and the limits of the server, in one more round trip.
    async fn connect_as(&self, server: &ConnectionInfo, settings: &RedisConnectionInfo) -> RedisResult<Link> {
        if self.options.abandoned_writes == AbandonedWrites::Wait {
            return self.connect_unnamed(server, settings).await;
        }
        // A proxy may close the connection at unknown commands. So may a server that is being stopped.
        for _ in 0..2 {
            let mut link = self.connect_unnamed(server, settings).await?;
            let mut questions = ClientName::questions();
            ServerLimits::ask(&mut questions);
            if let Ok(replies) = link.ask_all(&questions).await {
                let (names, limits) = replies.split_at(ClientName::QUESTIONS.min(replies.len()));
                link.client = Arc::new(Client::new(server.clone(), ClientName::new(names)));
                link.limits = ServerLimits::new(limits);
                return Ok(link);
            }
        }
        self.connect_unnamed(server, settings).await
    }

    /// Opens a connection without queries.
    pub(crate) async fn connect_unnamed(
        &self,
        server: &ConnectionInfo,
        settings: &RedisConnectionInfo,
    ) -> RedisResult<Link> {
        match self.options.protocol {
            Some(version) => self.connect_with(server, settings, version).await,
            None if self.is_old.load(Ordering::Relaxed) => {
                self.connect_with(server, settings, ProtocolVersion::RESP2).await
            }
            None => match self.connect_with(server, settings, ProtocolVersion::RESP3).await {
                Err(error) if error.kind() == ErrorKind::RESP3NotSupported => {
                    self.is_old.store(true, Ordering::Relaxed);
                    self.connect_with(server, settings, ProtocolVersion::RESP2).await
                }
                result => result,
            },
        }
    }

    async fn connect_with(
        &self,
        server: &ConnectionInfo,
        settings: &RedisConnectionInfo,
        version: ProtocolVersion,
    ) -> RedisResult<Link> {
        let is_lost = Arc::new(AtomicBool::new(false));
        // Without a client name: otherwise the error of a server with too many clients is not reported, because
        // `redis` waits for the answer to the name.
        let settings = settings.clone().set_protocol(version).set_skip_set_lib_name();
        // The pipeline's statement_timeout limits a write; a late reply is not a lost one. The pool limits
        // the time to open the connection.
        let mut config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let reports_loss = version.supports_resp3();
        if reports_loss {
            let is_lost = Arc::clone(&is_lost);
            config = config.set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    is_lost.store(true, Ordering::Release);
                }
                Ok::<(), redis::aio::SendError>(())
            });
        }
        let options = &self.options;
        let stream = transport::open(server.addr(), options.tls.as_ref(), options.silence_limit).await?;
        let wire = Wire::new(stream);
        let (connection, driver) = MultiplexedConnection::new_with_config(&settings, wire.clone(), config).await?;
        let (driver, answer_timeout) = (tokio::spawn(driver), options.connect_timeout);
        let parts = Parts { connection, wire, driver, is_lost, answer_timeout, reports_loss };
        Ok(Link::new(Client::new(server.clone(), None), parts))
    }
}

fn problem(error: &RedisError, server: &ConnectionInfo) -> SinkError {
    connect_error(error, &server.addr().to_string())
}

/// Whether the server requires another password.
fn is_of_password(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
}
