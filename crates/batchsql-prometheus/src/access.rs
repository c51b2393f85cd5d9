//! Owns who may read the metrics: the required token or password, compared in constant time.
//! Must not know paths, sockets or where secrets come from.

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

use crate::error::{Mistake, PrometheusError};

/// Limit of credentials in bytes: half of the limit for the head of a request.
const LONGEST: usize = 8 << 10;

/// What a client must send.
pub(crate) struct Access(Option<Demand>);

struct Demand {
    scheme: &'static str,
    /// What must follow the scheme.
    credentials: Vec<u8>,
    challenge: HeaderValue,
    /// The same for the live page, with a scheme for which no browser opens a dialog.
    challenge_of_page: HeaderValue,
}

/// Set by the live page, and not by a browser that opens `/metrics` directly.
const OF_PAGE: &str = "x-requested-with";

impl Access {
    /// Requires nothing.
    pub(crate) fn open() -> Self {
        Self(None)
    }

    /// # Errors
    /// No client could send the token.
    pub(crate) fn bearer(token: &str) -> Result<Self, PrometheusError> {
        if token.is_empty() {
            return Err(Mistake::EmptyToken.into());
        }
        // The position helps to find the character and does not reveal the rest.
        if let Some(position) = token.bytes().position(|byte| !byte.is_ascii_graphic()) {
            return Err(Mistake::TokenCharacter { position: position + 1 }.into());
        }
        if token.len() > LONGEST {
            return Err(Mistake::TooLong { name: "bearer token" }.into());
        }
        let challenge = HeaderValue::from_static("Bearer realm=\"batchsql\"");
        Ok(Self(Some(Demand {
            scheme: "Bearer",
            credentials: token.as_bytes().to_vec(),
            challenge_of_page: challenge.clone(),
            challenge,
        })))
    }

    /// # Errors
    /// No client could send the user or the password.
    pub(crate) fn basic(user: &str, password: &str) -> Result<Self, PrometheusError> {
        if user.is_empty() {
            return Err(Mistake::EmptyUser.into());
        }
        if user.contains(':') {
            return Err(Mistake::UserWithColon.into());
        }
        if password.is_empty() {
            return Err(Mistake::EmptyPassword.into());
        }
        if user.chars().chain(password.chars()).any(char::is_control) {
            return Err(Mistake::ControlCharacter.into());
        }
        let credentials = STANDARD.encode(format!("{user}:{password}")).into_bytes();
        if credentials.len() > LONGEST {
            return Err(Mistake::TooLong { name: "user and password of basic auth" }.into());
        }
        let challenge = HeaderValue::from_static("Basic realm=\"batchsql\", charset=\"UTF-8\"");
        let challenge_of_page = HeaderValue::from_static("X-Basic realm=\"batchsql\", charset=\"UTF-8\"");
        Ok(Self(Some(Demand { scheme: "Basic", credentials, challenge, challenge_of_page })))
    }

    pub(crate) fn is_open(&self) -> bool {
        self.0.is_none()
    }

    /// The challenge for a request without valid credentials. It is the same for missing and for wrong ones.
    pub(crate) fn refusal(&self, headers: &HeaderMap) -> Option<&HeaderValue> {
        let demand = self.0.as_ref()?;
        let challenge = if headers.contains_key(OF_PAGE) { &demand.challenge_of_page } else { &demand.challenge };
        (!demand.is_met_by(headers)).then_some(challenge)
    }
}

impl Demand {
    fn is_met_by(&self, headers: &HeaderMap) -> bool {
        let mut sent = headers.get_all(header::AUTHORIZATION).iter();
        // With two headers it is ambiguous which one counts.
        let (Some(value), None) = (sent.next(), sent.next()) else { return false };
        let value = value.as_bytes();
        let Some((scheme, rest)) = value.split_at_checked(self.scheme.len()) else { return false };
        let Some((b' ', credentials)) = rest.split_first() else { return false };
        // The time reveals the length of the secret and nothing else.
        scheme.eq_ignore_ascii_case(self.scheme.as_bytes())
            && bool::from(credentials.trim_ascii_start().ct_eq(&self.credentials))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(access: &Access, sent: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in sent {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        access.refusal(&headers).is_none()
    }

    #[test]
    fn a_token_is_taken_as_it_is_and_nothing_else() {
        let access = Access::bearer("s3cret").unwrap();
        for good in ["Bearer s3cret", "bearer s3cret", "BEARER  s3cret"] {
            assert!(grants(&access, &[good]), "{good}");
        }
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "s3cret",
            "Bearer s3cre",
            "Bearer s3cretx",
            "Bearer S3CRET",
            "Bearers3cret",
            "Bearer s3cret x",
            "Basic s3cret",
        ] {
            assert!(!grants(&access, &[bad]), "{bad}");
        }
        assert!(!grants(&access, &[]));
        assert!(!grants(&access, &["Bearer s3cret", "Bearer s3cret"]), "two headers are ambiguous");
    }

    #[test]
    fn a_password_may_have_colons_and_letters_of_any_language() {
        let access = Access::basic("prometheus", "pass:wörd").unwrap();
        assert!(grants(&access, &[&format!("Basic {}", STANDARD.encode("prometheus:pass:wörd"))]));
        for bad in ["prometheus:pass:word", "prometheus:", "Prometheus:pass:wörd", ":pass:wörd", "prometheus"] {
            assert!(!grants(&access, &[&format!("Basic {}", STANDARD.encode(bad))]), "{bad}");
        }
        assert!(!grants(&access, &["Basic prometheus:pass:word"]), "it must be encoded");
    }

    #[test]
    fn a_page_is_told_of_the_password_without_a_dialog_of_the_browser() {
        let access = Access::basic("prometheus", "hunter2").unwrap();
        let mut headers = HeaderMap::new();
        assert!(access.refusal(&headers).unwrap().to_str().unwrap().starts_with("Basic "));
        headers.insert("X-Requested-With", HeaderValue::from_static("BatchSQL"));
        assert!(access.refusal(&headers).unwrap().to_str().unwrap().starts_with("X-Basic "));
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str("Basic cHJvbWV0aGV1czpodW50ZXIy").unwrap());
        assert_eq!(access.refusal(&headers), None);
        headers.remove(header::AUTHORIZATION);
        let challenge = Access::bearer("s3cret").unwrap().refusal(&headers).cloned();
        assert_eq!(challenge.unwrap(), "Bearer realm=\"batchsql\"", "no browser has a dialog for tokens");
    }

    #[test]
    fn open_means_open() {
        assert!(Access::open().is_open());
        assert!(grants(&Access::open(), &[]) && grants(&Access::open(), &["Bearer whatever"]));
    }
}
