//! Owns a proxy that changes a request on its way to the server, sends one of its own, or stands still at one, so that a test has the
//! server do what no client asks for, and ends a client or a session at a known moment.
//! Must not know protocols: bytes are replaced by others of the same length, and requests are given.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::line::lock;
use crate::listen::listen;

/// A change of the bytes that clients send.
#[derive(Debug)]
enum Change {
    /// These bytes by others.
    Replace(Vec<u8>, Vec<u8>),
    /// A request before the bytes that contain these.
    Before(Vec<u8>, Vec<u8>),
    /// No answer to these bytes, and to none behind them.
    Silence(Vec<u8>),
    /// Nothing is sent from these bytes on.
    Pause(Vec<u8>),
}

/// What is done besides passing on the bytes of a client.
#[derive(Debug)]
enum Also {
    Nothing,
    SendFirst(Vec<u8>),
    KeepAnswers,
    Pause,
}

#[derive(Debug, Default)]
struct State {
    /// Taken when it was made.
    change: Mutex<Option<Change>>,
    is_paused: Mutex<bool>,
    pauses: Condvar,
}

impl State {
    fn set_paused(&self, is_paused: bool) {
        *lock(&self.is_paused) = is_paused;
        self.pauses.notify_all();
    }
}

/// How long a test waits for an expected event.
const PATIENCE: Duration = Duration::from_secs(60);

/// A proxy before a server. Without TLS, so that it can read the bytes.
#[derive(Debug)]
pub struct AlteringProxy {
    address: SocketAddr,
    state: Arc<State>,
}

impl AlteringProxy {
    /// Starts a proxy before the server at `host:port`.
    ///
    /// # Panics
    /// If it cannot listen.
    pub fn start(server: &str) -> Self {
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let address = listen(server, move |client, server| carry(client, server, &shared));
        Self { address, state }
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
        self.set(Change::Replace(from.into(), to.into()));
    }

    /// Sends a request of its own before these bytes, the next time that a client sends them, once. Its client does not get the
    /// answer, which must arrive at once too.
    pub fn send_before(&self, mark: &str, request: &[u8]) {
        self.set(Change::Before(mark.into(), request.into()));
    }

    /// From the next time on that a client sends these bytes, it gets no answer on this connection, until the server closes it.
    pub fn keep_answers_to(&self, mark: &str) {
        self.set(Change::Silence(mark.into()));
    }

    /// Sends nothing from these bytes on, the next time that a client sends them, until [`go_on`](Self::go_on): not even that the
    /// client is gone.
    pub fn pause_before(&self, mark: &str) {
        self.set(Change::Pause(mark.into()));
    }

    /// Waits until a connection stands still.
    ///
    /// # Panics
    /// No client sends the bytes for a minute.
    pub fn wait_until_paused(&self) {
        let waited =
            self.state.pauses.wait_timeout_while(lock(&self.state.is_paused), PATIENCE, |is_paused| !*is_paused);
        assert!(!waited.unwrap_or_else(PoisonError::into_inner).1.timed_out(), "no client sends these bytes");
    }

    /// Sends what was kept.
    pub fn go_on(&self) {
        self.state.set_paused(false);
    }

    fn set(&self, change: Change) {
        *lock(&self.state.change) = Some(change);
    }

    /// Whether the last change was made.
    pub fn has_changed(&self) -> bool {
        lock(&self.state.change).is_none()
    }
}

/// Copies bytes in both directions, each on its own thread.
fn carry(client: TcpStream, server: TcpStream, state: &Arc<State>) {
    let (Ok(mut from_client), Ok(mut to_server)) = (client.try_clone(), server.try_clone()) else { return };
    let (mut to_client, mut from_server) = (client, server);
    let state = Arc::clone(state);
    // The answer to a request of the proxy is expected, and was taken.
    let (expects, is_silent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (taken, is_taken) = channel();
    let (up, silences) = (Arc::clone(&expects), Arc::clone(&is_silent));
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(read @ 1..) = from_client.read(&mut buffer) {
            match alter(&mut buffer[..read], &state.change) {
                Also::Nothing => {}
                Also::SendFirst(request) => {
                    up.store(true, Ordering::SeqCst);
                    if to_server.write_all(&request).is_err() || is_taken.recv().is_err() {
                        break;
                    }
                }
                Also::KeepAnswers => silences.store(true, Ordering::SeqCst),
                Also::Pause => {
                    state.set_paused(true);
                    let paused = state.pauses.wait_while(lock(&state.is_paused), |is_paused| *is_paused);
                    drop(paused);
                }
            }
            if to_server.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = to_server.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(read @ 1..) = from_server.read(&mut buffer) {
            let passed = match expects.swap(false, Ordering::SeqCst) {
                true => taken.send(()).is_ok(),
                false => is_silent.load(Ordering::SeqCst) || to_client.write_all(&buffer[..read]).is_ok(),
            };
            if !passed {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
    });
}

/// Changes what a client sends.
fn alter(bytes: &mut [u8], change: &Mutex<Option<Change>>) -> Also {
    use Change::{Before, Pause, Replace, Silence};
    let mut next = lock(change);
    let Some(Replace(mark, _) | Before(mark, _) | Silence(mark) | Pause(mark)) = &*next else {
        return Also::Nothing;
    };
    let Some(place) = bytes.windows(mark.len()).position(|window| window == mark) else { return Also::Nothing };
    match next.take() {
        Some(Replace(_, to)) => {
            bytes[place..place + to.len()].copy_from_slice(&to);
            Also::Nothing
        }
        Some(Before(_, request)) => Also::SendFirst(request),
        Some(Silence(_)) => Also::KeepAnswers,
        Some(Pause(_)) => Also::Pause,
        None => Also::Nothing,
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
        assert!(!proxy.has_changed());
        assert_eq!(sent("a COMMIT"), "a ROLLBA");
        assert!(proxy.has_changed());
        assert_eq!(sent("a COMMIT"), "a COMMIT");
    }

    #[test]
    fn a_request_of_the_proxy_has_no_answer_for_the_client() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = AlteringProxy::start(&server.local_addr().unwrap().to_string());
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        let mut accepted = server.accept().unwrap().0;
        proxy.send_before("COMMIT", b"ROLLBACK");
        client.write_all(b"a COMMIT").unwrap();
        let mut bytes = [0; 8];
        accepted.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"ROLLBACK");
        accepted.write_all(b"rolled back").unwrap();
        accepted.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"a COMMIT");
        assert!(proxy.has_changed());
        accepted.write_all(b"done").unwrap();
        client.read_exact(&mut bytes[..4]).unwrap();
        assert_eq!(&bytes[..4], b"done");
    }

    #[test]
    fn an_answer_that_is_kept_is_never_there() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = AlteringProxy::start(&server.local_addr().unwrap().to_string());
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        let mut accepted = server.accept().unwrap().0;
        proxy.keep_answers_to("COMMIT");
        client.write_all(b"a COMMIT").unwrap();
        let mut bytes = [0; 8];
        accepted.read_exact(&mut bytes).unwrap();
        accepted.write_all(b"done").unwrap();
        drop(accepted);
        assert_eq!(client.read(&mut bytes).unwrap(), 0, "the end of the connection");
    }

    #[test]
    fn a_pause_keeps_what_a_client_has_sent_that_is_gone() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = AlteringProxy::start(&server.local_addr().unwrap().to_string());
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        let mut accepted = server.accept().unwrap().0;
        proxy.pause_before("COMMIT");
        client.write_all(b"a COMMIT").unwrap();
        proxy.wait_until_paused();
        drop(client);
        accepted.set_nonblocking(true).unwrap();
        assert_eq!(accepted.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        accepted.set_nonblocking(false).unwrap();
        proxy.go_on();
        let mut bytes = Vec::new();
        accepted.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"a COMMIT");
    }
}
