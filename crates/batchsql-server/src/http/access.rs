//! Owns who may write which table.
//! Must not know HTTP servers.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::settings::Token;

/// The tokens of the server. Without any, everyone who can reach it may write.
#[derive(Debug)]
pub(crate) struct Access(Vec<Known>);

#[derive(Debug)]
struct Known {
    name: String,
    digest: [u8; 32],
    tables: Option<Vec<String>>,
}

/// What a request may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Granted<'a> {
    /// By the token with this name; empty if none is needed.
    As(&'a str),
    /// There is no token, or a wrong one.
    Unknown,
    /// The token is for other tables.
    Forbidden,
}

impl Access {
    pub(crate) fn new(tokens: &[Token]) -> Self {
        let known = |token: &Token| Known {
            name: token.name.clone(),
            digest: Sha256::digest(token.secret.reveal()).into(),
            tables: token.tables.clone(),
        };
        Self(tokens.iter().map(known).collect())
    }

    /// Whether a request with these headers may write a table.
    pub(crate) fn of(&self, headers: &HeaderMap, table: &str) -> Granted<'_> {
        if self.0.is_empty() {
            return Granted::As("");
        }
        let mut sent = headers.get_all(AUTHORIZATION).iter();
        // With two headers it is ambiguous which one counts.
        let (Some(value), None) = (sent.next(), sent.next()) else { return Granted::Unknown };
        let Some((scheme, token)) = value.as_bytes().split_at_checked(7) else { return Granted::Unknown };
        if !scheme.eq_ignore_ascii_case(b"Bearer ") {
            return Granted::Unknown;
        }
        // Digests have one length, and all are compared: the time shows nothing of the tokens.
        let digest: [u8; 32] = Sha256::digest(token.trim_ascii()).into();
        let mut found = None;
        for known in &self.0 {
            if known.digest.ct_eq(&digest).into() {
                found = Some(known);
            }
        }
        match found {
            None => Granted::Unknown,
            Some(known) if known.tables.as_ref().is_some_and(|tables| !tables.iter().any(|name| name == table)) => {
                Granted::Forbidden
            }
            Some(known) => Granted::As(&known.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::config::secret::Secret;

    #[test]
    fn a_token_is_for_its_tables() {
        let token = |name: &str, secret: &str, tables: Option<&[&str]>| Token {
            name: name.to_owned(),
            secret: Secret::new(secret),
            tables: tables.map(|tables| tables.iter().map(|table| (*table).to_owned()).collect()),
        };
        let access = Access::new(&[token("all", "s3cret", None), token("one", "other", Some(&["orders"]))]);
        let check = |sent: &[&str], table: &str, expected: Granted<'_>| {
            let mut headers = HeaderMap::new();
            for value in sent {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(access.of(&headers, table), expected, "{sent:?} {table}");
        };
        check(&["Bearer s3cret"], "events", Granted::As("all"));
        check(&["bearer s3cret"], "events", Granted::As("all"));
        check(&["Bearer other"], "orders", Granted::As("one"));
        check(&["Bearer other"], "events", Granted::Forbidden);
        for wrong in ["Bearer s3cre", "Bearer s3crets", "Bearer ", "Bearer", "Basic s3cret", "s3cret", ""] {
            check(&[wrong], "orders", Granted::Unknown);
        }
        check(&[], "orders", Granted::Unknown);
        check(&["Bearer s3cret", "Bearer s3cret"], "orders", Granted::Unknown);
        assert_eq!(Access::new(&[]).of(&HeaderMap::new(), "orders"), Granted::As(""));
    }
}
