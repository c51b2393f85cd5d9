//! Owns the address of the client of a request.
//! Must not know sockets or responses.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::Extensions;
use axum::http::request::Parts;

/// The address of the client. The server of this crate adds it to every request. A server of the application may add
/// [`ConnectInfo`] or a `SocketAddr`; without both the address is 0.0.0.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client(pub(crate) IpAddr);

impl Client {
    fn of(extensions: &Extensions) -> Self {
        if let Some(client) = extensions.get::<Self>() {
            return *client;
        }
        let info = extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address);
        let address = info.or_else(|| extensions.get::<SocketAddr>());
        Self(address.map_or(Ipv4Addr::UNSPECIFIED.into(), |address| address.ip().to_canonical()))
    }
}

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_comes_from_whoever_serves() {
        let address = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 1);
        let client = |ip: &str| Client(ip.parse().unwrap());
        let mut extensions = Extensions::new();
        assert_eq!(Client::of(&extensions), client("0.0.0.0"));
        extensions.insert(address("::ffff:10.0.0.1"));
        assert_eq!(Client::of(&extensions), client("10.0.0.1"));
        extensions.insert(ConnectInfo(address("10.0.0.2")));
        assert_eq!(Client::of(&extensions), client("10.0.0.2"));
        extensions.insert(client("10.0.0.3"));
        assert_eq!(Client::of(&extensions), client("10.0.0.3"));
    }
}
