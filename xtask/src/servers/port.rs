//! Free ports of the loopback interface, each for one server at a time.
//! Must not know who listens on them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use super::random;

/// Below the range for outgoing connections: otherwise an outgoing connection could take the port of a stopped server,
/// and a client that reconnects to it could connect to itself.
const FIRST: u16 = 12_000;
const COUNT: u16 = 10_000;

/// Distance of the second port of a Redis node from its first.
const BUS: u16 = 10_000;

/// A TCP port that no other run of this program chooses while this exists.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    /// The UDP port of the same number, which none of our servers uses: only one process can bind it, and the system
    /// releases it however that process ends. Without it, two runs could choose the same port.
    _claim: Option<UdpSocket>,
}

impl Port {
    /// A free port whose second port for a Redis node is also free.
    pub(crate) fn claim() -> anyhow::Result<Self> {
        for _ in 0..1_000 {
            let number = FIRST + u16::try_from(random::number()? % u32::from(COUNT))?;
            let Ok(claim) = UdpSocket::bind(local(number)) else { continue };
            if is_free(number) && is_free(number + BUS) {
                return Ok(Self { number, _claim: Some(claim) });
            }
        }
        anyhow::bail!("found no free port between {FIRST} and {}", FIRST + COUNT)
    }

    /// The port that the user chose, or any free one for 0. Whether it is free is found when the server starts.
    pub(crate) fn chosen(number: u16) -> anyhow::Result<Self> {
        if number == 0 { Self::claim() } else { Ok(Self { number, _claim: UdpSocket::bind(local(number)).ok() }) }
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// Whether the port is free.
    pub(crate) fn is_free(&self) -> bool {
        is_free(self.number)
    }
}

/// The address of a port.
pub(crate) fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Whether a port is free.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind(local(port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_free_while_nobody_listens() {
        let port = Port::claim().unwrap();
        assert!((FIRST..FIRST + COUNT).contains(&port.number()));
        let listener = TcpListener::bind(local(port.number())).unwrap();
        assert!(!port.is_free());
        drop(listener);
        assert!(port.is_free());
    }

    #[test]
    fn a_port_is_claimed_once() {
        let port = Port::claim().unwrap();
        assert!(UdpSocket::bind(local(port.number())).is_err());
        let number = port.number();
        drop(port);
        assert!(UdpSocket::bind(local(number)).is_ok());
    }
}
