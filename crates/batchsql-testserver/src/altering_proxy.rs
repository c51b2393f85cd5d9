//! Owns a proxy that changes a request on its way to the server, so that the server does what no client asks for.
//! Must not know protocols: the bytes are replaced by others of the same length.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::listen::listen;

/// What is replaced by what; taken when it was done.
type Change = Arc<Mutex<Option<(Vec<u8>, Vec<u8>)>>>;

/// A proxy before a server. Without TLS, so that it can read the bytes.
#[derive(Debug)]
pub struct AlteringProxy {
    address: SocketAddr,
    change: Change,
}

impl AlteringProxy {
    /// Starts a proxy before the server at `host:port`.
    ///
    /// # Panics
    /// If it cannot listen.
    pub fn start(server: &str) -> Self {
        let change = Change::default();
        let shared = Arc::clone(&change);
        let address = listen(server, move |client, server| carry(client, server, &shared));
        Self { address, change }
    }

    /// The address it listens on, `host:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Replaces these bytes, the next time that a client sends them, once. They must arrive at once, as a short request does.
    ///
    /// # Panics
    /// The lengths differ.
    pub fn replace(&self, from: &str, to: &str) {
        assert_eq!(from.len(), to.len(), "a request keeps its length");
        *self.change.lock().unwrap_or_else(PoisonError::into_inner) = Some((from.into(), to.into()));
    }

    /// Whether they were replaced.
    pub fn has_replaced(&self) -> bool {
        self.change.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

/// Copies bytes in both directions, each on its own thread.
fn carry(client: TcpStream, server: TcpStream, change: &Change) {
    let (Ok(mut from_client), Ok(mut to_server)) = (client.try_clone(), server.try_clone()) else { return };
    let (mut to_client, mut from_server) = (client, server);
    let change = Arc::clone(change);
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(read @ 1..) = from_client.read(&mut buffer) {
            alter(&mut buffer[..read], &change);
            if to_server.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = to_server.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        let _ = std::io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
}

fn alter(bytes: &mut [u8], change: &Change) {
    let mut change = change.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((from, to)) = &*change else { return };
    if let Some(place) = bytes.windows(from.len()).position(|window| window == from) {
        bytes[place..place + to.len()].copy_from_slice(to);
        *change = None;
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_request_is_changed_once() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = AlteringProxy::start(&server.local_addr().unwrap().to_string());
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        let mut accepted = server.accept().unwrap().0;
        let mut sent = |text: &str| {
            client.write_all(text.as_bytes()).unwrap();
            let mut bytes = vec![0; text.len()];
            accepted.read_exact(&mut bytes).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(sent("a COMMIT"), "a COMMIT");
        proxy.replace("COMMIT", "ROLLBA");
        assert!(!proxy.has_replaced());
        assert_eq!(sent("a COMMIT"), "a ROLLBA");
        assert!(proxy.has_replaced());
        assert_eq!(sent("a COMMIT"), "a COMMIT");
    }
}
