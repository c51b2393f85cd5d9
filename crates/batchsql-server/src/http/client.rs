//! Owns who sends requests, to share memory among them.
//! Must not know requests.

use std::net::{IpAddr, Ipv6Addr};

/// The bits of an IPv6 address that are not the network of a client, which has all addresses of it.
const INTERFACE: u128 = u64::MAX as u128;

/// Who sends requests. Clients behind one proxy are told apart by their tokens, and those with one token by their addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Client {
    token: String,
    /// Of IPv6 the network, a /64.
    address: IpAddr,
}

impl Client {
    /// `token` is the name of its token, empty if none is needed.
    pub(crate) fn new(token: String, address: IpAddr) -> Self {
        // An IPv4 address may come as an IPv6 one.
        let address = match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !INTERFACE).into(),
            address => address,
        };
        Self { token, address }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let of = |address: &str| Client::new("a".to_owned(), address.parse().unwrap());
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff:ffff:ffff:ffff"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("::ffff:192.0.2.1"), of("::ffff:192.0.2.2"));
    }
}
