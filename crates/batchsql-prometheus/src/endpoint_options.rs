//! Owns the options of an endpoint wherever it is served: access and the live page.
//! Must not know addresses, TLS or limits.

use std::fmt;

use crate::access::Access;
use crate::error::{Mistake, PrometheusError};

/// Who may read the metrics, and whether the live page is served, for
/// [`router`](crate::PrometheusMetrics::router) and [`handler`](crate::PrometheusMetrics::handler). The address, TLS
/// and limits for clients belong to the server of the application.
///
/// ```
/// use batchsql_prometheus::EndpointOptions;
///
/// # let token_from_your_secrets = "of 32 random bytes in hexadecimal".replace(' ', "-");
/// let options = EndpointOptions::new().bearer_token(token_from_your_secrets).live_page(false);
/// # batchsql_prometheus::PrometheusMetrics::new()?.router(options)?;
/// # Ok::<(), batchsql_prometheus::PrometheusError>(())
/// ```
#[derive(Clone)]
#[must_use = "options do nothing before router or handler"]
pub struct EndpointOptions {
    token: Option<String>,
    account: Option<(String, String)>,
    live_page: bool,
}

impl EndpointOptions {
    /// No authentication, with the live page.
    pub fn new() -> Self {
        Self { token: None, account: None, live_page: true }
    }

    /// Requires this token for `/metrics` (`Authorization: Bearer …`): printable ASCII without spaces. Without TLS
    /// it is sent in clear text. Not together with [`basic_auth`](Self::basic_auth).
    pub fn bearer_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Requires this user and password for `/metrics`. Without TLS they are sent in clear text. Not together with
    /// [`bearer_token`](Self::bearer_token).
    pub fn basic_auth(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.account = Some((user.into(), password.into()));
        self
    }

    /// Whether `/` is the live page; default true. The page itself holds no data and is open to everyone.
    pub fn live_page(mut self, live_page: bool) -> Self {
        self.live_page = live_page;
        self
    }

    pub(crate) fn has_live_page(&self) -> bool {
        self.live_page
    }

    /// # Errors
    /// The credentials are invalid, or there are two kinds of them.
    pub(crate) fn access(&self) -> Result<Access, PrometheusError> {
        match (&self.token, &self.account) {
            (None, None) => Ok(Access::open()),
            (Some(token), None) => Access::bearer(token),
            (None, Some((user, password))) => Access::basic(user, password),
            (Some(_), Some(_)) => Err(Mistake::TokenAndAccount.into()),
        }
    }

    /// Adds the fields to those of another type.
    pub(crate) fn fields(&self, shown: &mut fmt::DebugStruct<'_, '_>) {
        shown.field("bearer_token", &self.token.as_ref().map(|_| Hidden));
        shown.field("basic_auth", &self.account.as_ref().map(|_| Hidden));
        shown.field("live_page", &self.live_page);
    }
}

impl Default for EndpointOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for EndpointOptions {
    /// Without secrets and without the name of the user.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("EndpointOptions");
        self.fields(&mut shown);
        shown.finish()
    }
}

/// Stands for a secret.
pub(crate) struct Hidden;

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hidden")
    }
}
