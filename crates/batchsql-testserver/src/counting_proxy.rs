//! Owns a proxy that counts round trips, and can delay answers.
//! Must not know protocols.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::listen::listen;

/// A proxy before a server. It counts a round trip each time the server answers data of a client, over all
/// connections. Data without an answer, such as the message that closes a statement, is no trip.
#[derive(Debug)]
pub struct CountingProxy {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    trips: AtomicUsize,
    /// The delay of each answer, in milliseconds.
    delay: AtomicU64,
}

impl CountingProxy {
    /// Starts a proxy before the server at `host:port`.
    ///
    /// # Panics
    /// If it cannot listen.
    pub fn start(server: &str) -> Self {
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        Self { address: listen(server, move |client, server| carry(client, server, &shared)), state }
    }

    /// The port it listens on, at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Round trips since the start.
    pub fn trips(&self) -> usize {
        self.state.trips.load(Ordering::SeqCst)
    }

    /// Delays each answer from now on, in milliseconds.
    pub fn delay_answers(&self, milliseconds: u64) {
        self.state.delay.store(milliseconds, Ordering::SeqCst);
    }
}

/// Copies bytes in both directions, each on its own thread.
fn carry(client: TcpStream, server: TcpStream, state: &Arc<State>) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (Ok(mut from_client), Ok(mut to_server)) = (client.try_clone(), server.try_clone()) else { return };
    let (mut to_client, mut from_server) = (client, server);
    let is_asked = Arc::new(AtomicBool::new(false));
    let asks = Arc::clone(&is_asked);
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(len @ 1..) = from_client.read(&mut buffer) {
            asks.store(true, Ordering::SeqCst);
            if to_server.write_all(&buffer[..len]).is_err() {
                break;
            }
        }
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let down = Arc::clone(state);
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(len @ 1..) = from_server.read(&mut buffer) {
            thread::sleep(Duration::from_millis(down.delay.load(Ordering::SeqCst)));
            if is_asked.swap(false, Ordering::SeqCst) {
                down.trips.fetch_add(1, Ordering::SeqCst);
            }
            if to_client.write_all(&buffer[..len]).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
    });
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_trip_is_an_answer_to_data() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = CountingProxy::start(&server.local_addr().unwrap().to_string());
        let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
        let mut server = server.accept().unwrap().0;
        let send = |from: &mut TcpStream, to: &mut TcpStream| {
            from.write_all(b"data").unwrap();
            to.read_exact(&mut [0; 4]).unwrap();
        };
        send(&mut client, &mut server);
        send(&mut client, &mut server);
        assert_eq!(proxy.trips(), 0, "nothing was answered");
        send(&mut server, &mut client);
        send(&mut server, &mut client);
        assert_eq!(proxy.trips(), 1, "the second part of an answer is no trip");
        send(&mut client, &mut server);
        send(&mut server, &mut client);
        assert_eq!(proxy.trips(), 2);
    }
}
