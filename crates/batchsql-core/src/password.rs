//! Owns how drivers ask for a password that changes, for example a token of a cloud's identity service.
//! Must not know any driver or service.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::error::{ErrorClass, SinkError};

type BoxError = Box<dyn StdError + Send + Sync>;

/// A password, and how long it can be used for new connections. `Debug` does not show it.
#[derive(Clone)]
pub struct Password {
    text: Arc<str>,
    valid_for: Option<Duration>,
}

impl Password {
    /// A password that is used until the server refuses it.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self { text: text.into(), valid_for: None }
    }

    /// Sets how long it can be used from now on; after that the provider is asked again. Open connections stay. Give a
    /// little less than the service says.
    #[must_use]
    pub fn valid_for(mut self, time: Duration) -> Self {
        self.valid_for = Some(time);
        self
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Password").field("valid_for", &self.valid_for).finish_non_exhaustive()
    }
}

/// Provides the password for new connections, for example a token that is valid for 15 minutes. An async closure is
/// one:
///
/// ```
/// # use batchsql_core::{Password, PasswordProvider};
/// # use std::time::Duration;
/// # async fn token() -> Result<String, std::io::Error> { Ok("token".to_owned()) }
/// let provider = || async { Ok(Password::new(token().await?).valid_for(Duration::from_secs(14 * 60))) };
/// # fn check(_: impl PasswordProvider) {}
/// # check(provider);
/// ```
#[async_trait]
pub trait PasswordProvider: Send + Sync + 'static {
    /// The password to use now. Drivers ask one call at a time, when they need a new connection and the last password
    /// is no longer valid or was refused: without [`valid_for`](Password::valid_for) only after a refusal, then for
    /// each attempt. A provider should cache a password that is expensive to get.
    ///
    /// # Errors
    /// No password is available now. The connection is retried as for a server that cannot be reached. The error is
    /// shown, so it must not contain the password.
    async fn password(&self) -> Result<Password, BoxError>;
}

#[async_trait]
impl<F, P> PasswordProvider for F
where
    F: Fn() -> P + Send + Sync + 'static,
    P: Future<Output = Result<Password, BoxError>> + Send,
{
    async fn password(&self) -> Result<Password, BoxError> {
        self().await
    }
}

/// A provider and its last password, for drivers. Clones share the password.
#[derive(Clone)]
pub struct CachedPassword(Arc<Cache>);

struct Cache {
    provider: Box<dyn PasswordProvider>,
    last: Mutex<Option<(Arc<str>, Option<Instant>)>>,
}

impl CachedPassword {
    /// Asks `provider` when a password is first needed.
    pub fn new(provider: impl PasswordProvider) -> Self {
        Self(Arc::new(Cache { provider: Box::new(provider), last: Mutex::new(None) }))
    }

    /// The last password while it is valid, else a new one; with it, whether it differs from the last one.
    ///
    /// # Errors
    /// The provider has none: a transient error.
    ///
    /// # Cancel safety
    /// A call that is dropped leaves the last password as it was.
    pub async fn get(&self) -> Result<(Arc<str>, bool), SinkError> {
        let mut last = self.0.last.lock().await;
        if let Some((text, until)) = last.as_ref()
            && until.is_none_or(|until| Instant::now() < until)
        {
            return Ok((Arc::clone(text), false));
        }
        let Password { text, valid_for } = self.0.provider.password().await.map_err(|error| {
            let text = format!("the password provider gave no password: {error}");
            SinkError::new(ErrorClass::Transient, text).caused_by(error)
        })?;
        let is_new = last.as_ref().is_none_or(|(last, _)| *last != text);
        // A time beyond the range of the clock is no limit.
        *last = Some((Arc::clone(&text), valid_for.and_then(|time| Instant::now().checked_add(time))));
        Ok((text, is_new))
    }

    /// Records that the server refused the password: the provider is asked again.
    pub async fn refused(&self) {
        if let Some((_, until)) = self.0.last.lock().await.as_mut() {
            *until = Some(Instant::now());
        }
    }
}

impl fmt::Debug for CachedPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedPassword").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn counting(valid_for: Option<Duration>) -> CachedPassword {
        let calls = AtomicU32::new(0);
        CachedPassword::new(move || {
            let mut password = Password::new(format!("token-{}", calls.fetch_add(1, Ordering::Relaxed)));
            password.valid_for = valid_for;
            async move { Ok(password) }
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_password_is_asked_for_again_when_its_time_is_over() {
        let password = counting(Some(Duration::from_secs(60)));
        assert_eq!(password.get().await.unwrap(), ("token-0".into(), true));
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(password.get().await.unwrap(), ("token-0".into(), false));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(password.get().await.unwrap(), ("token-1".into(), true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_password_that_was_refused_is_asked_for_again() {
        let password = counting(None);
        password.refused().await;
        assert_eq!(password.get().await.unwrap().0, "token-0".into());
        tokio::time::advance(Duration::from_secs(1_000_000)).await;
        assert_eq!(password.get().await.unwrap().0, "token-0".into());
        password.refused().await;
        assert_eq!(password.get().await.unwrap(), ("token-1".into(), true));
    }

    #[tokio::test]
    async fn a_provider_without_a_password_is_a_transient_error() {
        let password = CachedPassword::new(|| async { Err("the service is down".into()) });
        let error = password.get().await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Transient);
        assert!(
            error.to_string().starts_with("the password provider gave no password: the service is down"),
            "{error}"
        );
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the service is down");
    }

    #[test]
    fn the_password_is_not_shown() {
        assert!(!format!("{:?}", Password::new("canary")).contains("canary"));
    }
}
