//! Owns how a proxy of the tests accepts connections. Must not know what a proxy does with the bytes.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Listens on a free port of 127.0.0.1, and calls `carry` for each client with its own connection to the server at
/// `host:port`. It ends with the test's process.
///
/// # Panics
/// If it cannot listen.
pub(crate) fn listen(server: &str, mut carry: impl FnMut(TcpStream, TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it listens");
    let server = server.to_owned();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(&server)) else { continue };
            carry(client, server);
        }
    });
    address
}
