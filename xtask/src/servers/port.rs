//! Free ports of the loopback interface.
//! Must not know who listens on them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use super::random;

/// Below the ports that systems give to outgoing connections: otherwise one of those could take the port of a server
/// that is stopped for a moment, and a client that tries to reach it could be connected with itself.
const FIRST: u16 = 12_000;
const COUNT: u16 = 10_000;

/// How far the second port of a Redis node is from its first.
pub(crate) const BUS: u16 = 10_000;

/// A port on which nobody listens now, nor on the one that is [`BUS`] higher.
pub(crate) fn free() -> anyhow::Result<u16> {
    for _ in 0..1_000 {
        let port = FIRST + u16::try_from(random::number()? % u32::from(COUNT))?;
        if is_free(port) && is_free(port + BUS) {
            return Ok(port);
        }
    }
    anyhow::bail!("found no free port between {FIRST} and {}", FIRST + COUNT)
}

/// Whether nobody listens on a port of the loopback interface.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind(local(port)).is_ok()
}

/// A port of the loopback interface.
pub(crate) fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_free_while_nobody_listens() {
        let port = free().unwrap();
        assert!((FIRST..FIRST + COUNT).contains(&port));
        let listener = TcpListener::bind(local(port)).unwrap();
        assert!(!is_free(port));
        drop(listener);
        assert!(is_free(port));
    }
}
