//! Owns a proxy that holds back bytes and delivers them late, even after the client has closed: like a kernel that
//! retransmits unacknowledged data, or a proxy that was frozen.
//! Must not know protocols: a mark in the bytes selects the connection to hold.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::listen::listen;

/// How long a test waits for an expected event.
const PATIENCE: Duration = Duration::from_secs(60);

/// A proxy before a server. Without TLS, so that it can read the bytes.
///
/// ```text
/// proxy.hold("old"); // the connection that sends "old" next sends nothing more to the server … // its
/// client times out and closes; other connections continue proxy.deliver(); // the server gets the held
/// bytes, and answers, or has closed the connection
/// ```
#[derive(Debug)]
pub struct LateProxy {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    held: Mutex<Held>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    mark: Option<Vec<u8>>,
    /// The number of the held connection.
    number: Option<usize>,
    connections: usize,
    is_released: bool,
    /// The server has answered the late bytes, or closed the connection.
    is_over: bool,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Held)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn wait(&self, what: &str, is_there: impl Fn(&Held) -> bool) {
        let waited = self.changed.wait_timeout_while(self.lock(), PATIENCE, |held| !is_there(held));
        let result = waited.unwrap_or_else(PoisonError::into_inner).1;
        assert!(!result.timed_out(), "{what} did not happen");
    }
}

impl LateProxy {
    /// Starts a proxy before the server at `host:port`.
    ///
    /// # Panics
    /// If it cannot listen.
    pub fn start(server: &str) -> Self {
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let address = listen(server, move |client, server| {
            let number = {
                let mut held = shared.lock();
                held.connections += 1;
                held.connections
            };
            carry(client, server, number, &shared);
        });
        Self { address, state }
    }

    /// The address it listens on, `host:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Holds the next connection whose client sends `mark`, from these bytes on, and no other.
    pub fn hold(&self, mark: &str) {
        self.state.change(|held| {
            let connections = held.connections;
            *held = Held { mark: Some(mark.as_bytes().to_vec()), connections, ..Held::default() };
        });
    }

    /// Waits until a connection is held.
    ///
    /// # Panics
    /// If that does not happen.
    pub fn wait_until_held(&self) {
        self.state.wait("the mark", |held| held.number.is_some());
    }

    /// Delivers the held bytes, and waits until the server has answered it or has closed the connection.
    ///
    /// # Panics
    /// If nothing was held, or the server does neither.
    pub fn deliver(&self) {
        assert!(self.state.lock().number.is_some(), "no connection was held");
        self.state.change(|held| held.is_released = true);
        self.state.wait("an answer to the late bytes", |held| held.is_over);
    }
}

/// Copies bytes in both directions, each on its own thread.
fn carry(client: TcpStream, server: TcpStream, number: usize, state: &Arc<State>) {
    let (Ok(mut from_client), Ok(mut to_server)) = (client.try_clone(), server.try_clone()) else { return };
    let (mut to_client, mut from_server) = (client, server);
    let up = Arc::clone(state);
    thread::spawn(move || {
        let (mut buffer, mut kept) = (vec![0; 1 << 16], Vec::new());
        loop {
            let read = from_client.read(&mut buffer).unwrap_or(0);
            {
                let mut held = up.lock();
                let is_marked = |mark: &Vec<u8>| buffer[..read].windows(mark.len()).any(|bytes| bytes == mark);
                if held.number.is_none() && held.mark.as_ref().is_some_and(is_marked) {
                    held.number = Some(number);
                    up.changed.notify_all();
                }
                if held.number == Some(number) {
                    kept.extend_from_slice(&buffer[..read]);
                    if read > 0 {
                        continue;
                    }
                }
            }
            if !kept.is_empty() {
                // The client is gone; the server does not know it.
                up.wait("the delivery", |held| held.is_released);
                if to_server.write_all(&kept).is_err() {
                    up.change(|held| held.is_over = true);
                }
                return;
            }
            if read == 0 || to_server.write_all(&buffer[..read]).is_err() {
                let _ = to_server.shutdown(Shutdown::Write);
                return;
            }
        }
    });
    let down = Arc::clone(state);
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = from_server.read(&mut buffer).unwrap_or(0);
            let is_held = {
                let mut held = down.lock();
                let is_held = held.number == Some(number);
                if is_held && (held.is_released || read == 0) {
                    held.is_over = true;
                    down.changed.notify_all();
                }
                is_held
            };
            if read == 0 {
                // The client of a held connection receives nothing.
                if !is_held {
                    let _ = to_client.shutdown(Shutdown::Both);
                }
                return;
            }
            // The client may be gone.
            let _ = to_client.write_all(&buffer[..read]);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn bytes_arrive_after_their_client_has_closed() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = LateProxy::start(&server.local_addr().unwrap().to_string());
        let connect = || (TcpStream::connect(proxy.address()).unwrap(), server.accept().unwrap().0);
        let read = |stream: &mut TcpStream, len: usize| {
            let mut bytes = vec![0; len];
            stream.read_exact(&mut bytes).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        let ((mut old, mut old_server), (mut new, mut new_server)) = (connect(), connect());
        old.write_all(b"first").unwrap();
        assert_eq!(read(&mut old_server, 5), "first");
        proxy.hold("old");
        old.write_all(b"an old write").unwrap();
        proxy.wait_until_held();
        drop(old);
        new.write_all(b"the old one again").unwrap();
        assert_eq!(read(&mut new_server, 17), "the old one again", "only one connection is held");
        let answering = thread::spawn(move || {
            let late = read(&mut old_server, 12);
            old_server.write_all(b"ok").unwrap();
            late
        });
        proxy.deliver();
        assert_eq!(answering.join().unwrap(), "an old write");
    }
}
