//! Owns the connection to NATS.
//! Must not know streams.

use std::time::Duration;

use async_nats::jetstream::{self, Context};
use async_nats::{ConnectError, ConnectErrorKind, ConnectOptions, Event};
use tokio::time::sleep;

use crate::config::settings::{Login, Nats};
use crate::exit::Failure;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Why there is no connection. The text has no password.
#[derive(Debug)]
pub(crate) struct NotConnected {
    /// A person has to do something; otherwise it may succeed later.
    pub(crate) is_final: bool,
    pub(crate) text: String,
}

/// Connects. A connection that is lost later is made again by itself.
///
/// # Errors
/// No server can be reached, or the login is refused.
///
/// # Cancel safety
/// There is no connection.
pub(crate) async fn connect(nats: &Nats) -> Result<Context, NotConnected> {
    let options = options(nats)?;
    let client = options.connect(&nats.servers[..]).await.map_err(|error| not_connected(nats, &error))?;
    Ok(jetstream::new(client))
}

/// The same; while no server can be reached, it is tried again.
///
/// # Errors
/// The login is refused.
///
/// # Cancel safety
/// There is no connection.
pub(crate) async fn connect_waiting(nats: &Nats, who: &str) -> Result<Context, Failure> {
    let mut pause = FIRST_PAUSE;
    loop {
        match connect(nats).await {
            Ok(context) => return Ok(context),
            Err(NotConnected { is_final: true, text }) => return Err(Failure::unavailable(format!("[nats] {text}"))),
            Err(NotConnected { text, .. }) => tracing::warn!("{who} waits for NATS: {text}"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The hosts of the servers.
pub(crate) fn hosts(nats: &Nats) -> String {
    let hosts = nats.servers.iter().map(|url| url.split_once("://").map_or(&**url, |(_, host)| host));
    hosts.collect::<Vec<_>>().join(", ")
}

fn options(nats: &Nats) -> Result<ConnectOptions, NotConnected> {
    let options = ConnectOptions::new().name("batchsql").event_callback(report);
    let options = match &nats.login {
        Login::Open => options,
        Login::Token(token) => options.token(token.reveal().to_owned()),
        Login::Password(user, password) => options.user_and_password(user.clone(), password.reveal().to_owned()),
        // Its error may show parts of the file. It wants the end of the last line, which was trimmed.
        Login::Credentials(credentials) => {
            options.credentials(&format!("{}\n", credentials.reveal())).map_err(|_| NotConnected {
                is_final: true,
                text: "the file of credentials has no token and key of a user; make it with `nsc generate creds`"
                    .to_owned(),
            })?
        }
    };
    let Some(tls) = &nats.tls else { return Ok(options) };
    let options = options.require_tls(true);
    let options = match &tls.ca {
        Some(ca) => options.add_root_certificates(ca.clone()),
        None => options,
    };
    Ok(match (&tls.certificates, &tls.key) {
        (Some(certificates), Some(key)) => options.add_client_certificate(certificates.clone(), key.clone()),
        _ => options,
    })
}

fn not_connected(nats: &Nats, error: &ConnectError) -> NotConnected {
    let refused = matches!(error.kind(), ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation);
    let hosts = hosts(nats);
    let text = match error.kind() {
        _ if refused => format!("{hosts} refuses the login; correct it"),
        ConnectErrorKind::ServerParse => "`servers` has a URL that cannot be read; correct it".to_owned(),
        _ => format!("{hosts} cannot be reached: {error}"),
    };
    NotConnected { is_final: refused || error.kind() == ConnectErrorKind::ServerParse, text }
}

async fn report(event: Event) {
    match event {
        Event::Connected => tracing::info!("connected to NATS"),
        Event::Disconnected => tracing::warn!("the connection to NATS is lost; connecting again"),
        Event::ServerError(error) => tracing::warn!(%error, "an error of NATS"),
        other => tracing::debug!(event = %other, "NATS"),
    }
}
