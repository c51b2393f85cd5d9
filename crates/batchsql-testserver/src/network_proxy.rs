//! Owns a proxy that behaves like a bad network: delay, limited bandwidth, silence with late delivery, lost answers,
//! reset and half-open connections. Must not know protocols or databases.
//!
//! Each connection has a reader and a writer thread per direction, with a queue of (due, bytes) between them: reading
//! continues while earlier bytes wait. Threads rather than tasks, because tokio's timers have a resolution of 1 ms.
//! They sleep and do not spin, because a spinning thread would take processor time from the measured server. The TCP
//! handshake is not delayed; data on the connection is.
//!
//! Measured on two busy processors, one byte there and back, 200 times: with 2 ms, median 2.35 ms and 90th percentile
//! 2.41 ms; with 10 ms, 10.4 and 10.7 ms; with 0 ms, 0.06 ms. 512 MiB in one direction took 0.4 to 0.5 s, at 0, 10
//! and 50 ms alike.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::line::{Line, lock};
use crate::random::Random;

/// Bytes of one read.
const CHUNK: usize = 64 << 10;
/// Bytes that are sent at once when the bandwidth is limited.
const PIECE: usize = 4 << 10;
/// How long the server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
const STACK: usize = 256 << 10;

/// What the network does with bytes. The default does nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conditions {
    delay: Duration,
    bytes_per_second: Option<u32>,
    is_silent: bool,
    one_answer_lost_in: Option<u32>,
}

impl Conditions {
    /// The delay of each direction: half of the round trip.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// The bandwidth of each direction of each connection, at least 1 byte per second.
    #[must_use]
    pub fn bytes_per_second(mut self, bytes: u32) -> Self {
        self.bytes_per_second = Some(bytes.max(1));
        self
    }

    /// Nothing is delivered until the conditions change; then all of it is, even if one side has closed in the meantime.
    #[must_use]
    pub fn silent(mut self) -> Self {
        self.is_silent = true;
        self
    }

    /// One answer of the server in so many is dropped, at random: its client loses the connection, and the server executes
    /// what it was sent.
    #[must_use]
    pub fn one_answer_lost_in(mut self, answers: u32) -> Self {
        self.one_answer_lost_in = Some(answers.max(1));
        self
    }
}

/// A proxy in front of one server. Dropping it closes its connections and ends its threads.
#[derive(Debug)]
pub struct NetworkProxy {
    address: SocketAddr,
    network: Arc<Network>,
    acceptor: Option<JoinHandle<()>>,
}

/// What the connections share.
#[derive(Debug, Default)]
struct Network {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    conditions: Conditions,
    random: Random,
    open: Vec<Weak<Link>>,
}

/// One connection.
#[derive(Debug)]
struct Link {
    client: TcpStream,
    server: TcpStream,
    up: Line,
    down: Line,
    /// The client has sent something that the server has not answered.
    is_asked: AtomicBool,
    /// One side is gone, and the other one does not know it.
    is_half_open: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl NetworkProxy {
    /// Listens on a free port of 127.0.0.1. `seed` decides which answers are lost.
    ///
    /// # Errors
    /// The name of the server cannot be resolved, or no port is free.
    pub fn start(server: impl ToSocketAddrs, conditions: Conditions, seed: u64) -> io::Result<Self> {
        let server = server.to_socket_addrs()?.next();
        let server = server.ok_or_else(|| io::Error::other("the server's name has no address"))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let network = Arc::new(Network::default());
        *lock(&network.state) = State { conditions, random: Random::new(seed), ..State::default() };
        let shared = Arc::clone(&network);
        let acceptor = thread::Builder::new().name("proxy-accept".to_owned());
        let acceptor = acceptor.spawn(move || accept(&listener, server, &shared))?;
        Ok(Self { address, network, acceptor: Some(acceptor) })
    }

    /// The address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what the network does, for all connections.
    pub fn set(&self, conditions: Conditions) {
        lock(&self.network.state).conditions = conditions;
        self.network.changed.notify_all();
    }

    /// Resets every open connection, on both sides (`RST`). Bytes in transit are lost.
    pub fn reset_connections(&self) {
        for link in self.links() {
            // First, so that no writer ends the stream regularly when its reader is woken.
            link.up.close();
            link.down.close();
            for socket in [&link.client, &link.server] {
                // The last owner of the socket closes it, which sends the reset.
                let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
                let _ = socket.shutdown(Shutdown::Read);
            }
        }
    }

    /// Takes the server away from every open connection. The clients do not learn it: nothing arrives any more, until they
    /// close.
    pub fn lose_servers(&self) {
        for link in self.links() {
            link.is_half_open.store(true, Ordering::SeqCst);
            let _ = link.server.shutdown(Shutdown::Both);
        }
    }

    /// Takes the client away from every open connection. The server does not learn it: its session stays until the server
    /// closes it. Bytes in transit are lost.
    pub fn lose_clients(&self) {
        for link in self.links() {
            link.is_half_open.store(true, Ordering::SeqCst);
            let _ = link.client.shutdown(Shutdown::Both);
        }
    }

    /// Lets the sides that are left learn that the other one is gone, as a system does that probes its connections.
    pub fn close_lost_connections(&self) {
        for link in self.links().iter().filter(|link| link.is_half_open.load(Ordering::SeqCst)) {
            // One of them is closed already.
            let _ = link.client.shutdown(Shutdown::Both);
            let _ = link.server.shutdown(Shutdown::Both);
        }
    }

    fn links(&self) -> Vec<Arc<Link>> {
        lock(&self.network.state).open.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Drop for NetworkProxy {
    fn drop(&mut self) {
        lock(&self.network.state).stopped = true;
        self.network.changed.notify_all();
        for link in self.links() {
            link.up.close();
            link.down.close();
            // The connection may have ended already.
            let _ = link.client.shutdown(Shutdown::Both);
            let _ = link.server.shutdown(Shutdown::Both);
        }
        // This connection wakes the acceptor.
        if TcpStream::connect(self.address).is_ok()
            && let Some(acceptor) = self.acceptor.take()
        {
            let _ = acceptor.join();
        }
    }
}

impl Network {
    fn conditions(&self) -> Conditions {
        lock(&self.state).conditions
    }

    /// Waits while the network is silent; false if the proxy has stopped.
    fn wait_while_silent(&self) -> bool {
        let is_silent = |state: &mut State| state.conditions.is_silent && !state.stopped;
        let state = self.changed.wait_while(lock(&self.state), is_silent);
        !state.unwrap_or_else(PoisonError::into_inner).stopped
    }

    /// Whether this answer is lost.
    fn loses_answer(&self) -> bool {
        let mut state = lock(&self.state);
        let Some(one_in) = state.conditions.one_answer_lost_in else { return false };
        state.random.below(one_in.into()) == 0
    }
}

fn accept(listener: &TcpListener, server: SocketAddr, network: &Arc<Network>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    while let Ok((client, _)) = listener.accept() {
        if lock(&network.state).stopped {
            break;
        }
        threads.retain(|thread| !thread.is_finished());
        // If the server cannot be reached, the client's connection is closed.
        let Ok(upstream) = TcpStream::connect_timeout(&server, CONNECT) else { continue };
        if client.set_nodelay(true).and(upstream.set_nodelay(true)).is_err() {
            continue;
        }
        let link = Arc::new(Link {
            client,
            server: upstream,
            up: Line::default(),
            down: Line::default(),
            is_asked: AtomicBool::new(false),
            is_half_open: AtomicBool::new(false),
        });
        {
            let mut state = lock(&network.state);
            if state.stopped {
                break;
            }
            state.open.retain(|link| link.strong_count() > 0);
            state.open.push(Arc::downgrade(&link));
        }
        let started = forward(&link, Direction::Up, network, &mut threads);
        if started.and_then(|()| forward(&link, Direction::Down, network, &mut threads)).is_err() {
            link.up.close();
            link.down.close();
            let _ = link.client.shutdown(Shutdown::Both);
            let _ = link.server.shutdown(Shutdown::Both);
        }
    }
    for thread in threads {
        let _ = thread.join();
    }
}

/// Starts the two threads of one direction.
fn forward(
    link: &Arc<Link>,
    direction: Direction,
    network: &Arc<Network>,
    threads: &mut Vec<JoinHandle<()>>,
) -> io::Result<()> {
    let spawn = |name: &str| thread::Builder::new().name(name.to_owned()).stack_size(STACK);
    let (reading, shared) = (Arc::clone(link), Arc::clone(network));
    threads.push(spawn("proxy-read").spawn(move || reading.read(direction, &shared))?);
    let (writing, shared) = (Arc::clone(link), Arc::clone(network));
    threads.push(spawn("proxy-write").spawn(move || writing.write(direction, &shared))?);
    Ok(())
}

impl Link {
    /// Source, target and queue of a direction.
    fn ends(&self, direction: Direction) -> (&TcpStream, &TcpStream, &Line) {
        match direction {
            Direction::Up => (&self.client, &self.server, &self.up),
            Direction::Down => (&self.server, &self.client, &self.down),
        }
    }

    fn read(&self, direction: Direction, network: &Network) {
        let (mut source, _, line) = self.ends(direction);
        let mut chunk = vec![0; CHUNK];
        loop {
            let bytes = match source.read(&mut chunk) {
                Ok(count) => &chunk[..count],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => &[],
            };
            if self.is_half_open.load(Ordering::SeqCst) {
                // What the side that is left sends goes nowhere. The writers of both directions end without a regular end of
                // the stream. The sockets stay open until the reader of that side ends.
                self.up.close();
                self.down.close();
                if bytes.is_empty() {
                    return;
                }
                continue;
            }
            match direction {
                Direction::Up => self.is_asked.store(true, Ordering::SeqCst),
                Direction::Down if bytes.is_empty() => {}
                Direction::Down => {
                    if self.is_asked.swap(false, Ordering::SeqCst) && network.loses_answer() {
                        // The reader of the client ends, and with it the connection, after what was sent has arrived.
                        self.down.close();
                        let _ = self.client.shutdown(Shutdown::Both);
                        return;
                    }
                }
            }
            // Empty bytes mark the end, which is delayed as well.
            if !line.push(Instant::now() + network.conditions().delay, bytes.into()) || bytes.is_empty() {
                return;
            }
        }
    }

    fn write(&self, direction: Direction, network: &Network) {
        let (source, target, line) = self.ends(direction);
        while line.wait_until_due() && network.wait_while_silent() {
            let Some(bytes) = line.pop() else { return };
            if bytes.is_empty() {
                let _ = target.shutdown(Shutdown::Write);
                return;
            }
            if send(target, &bytes, network.conditions().bytes_per_second).is_err() {
                // The peer accepts no more bytes, so the reader ends too.
                line.close();
                let _ = source.shutdown(Shutdown::Read);
                return;
            }
        }
    }
}

/// Sends bytes, in pieces if the bandwidth is limited.
fn send(mut target: &TcpStream, bytes: &[u8], bytes_per_second: Option<u32>) -> io::Result<()> {
    let Some(rate) = bytes_per_second else { return target.write_all(bytes) };
    for piece in bytes.chunks(PIECE) {
        thread::sleep(Duration::from_secs_f64(piece.len() as f64 / f64::from(rate)));
        target.write_all(piece)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(20);

    /// A server for one client: sends everything back, and a last message after the client's end.
    fn echo() -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            io::copy(&mut stream.try_clone().unwrap(), &mut stream).unwrap();
            stream.write_all(b"farewell").unwrap();
        });
        (address, server)
    }

    #[test]
    fn bytes_arrive_complete_in_order_and_late() {
        let (server, ended) = echo();
        let proxy = NetworkProxy::start(server, Conditions::default().delay(ROUND_TRIP / 2), 0).unwrap();
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        let mut back = [0; 1];
        for _ in 0..5 {
            let begin = Instant::now();
            client.write_all(&[7]).unwrap();
            client.read_exact(&mut back).unwrap();
            assert!(begin.elapsed() >= ROUND_TRIP, "{:?}", begin.elapsed());
            assert_eq!(back, [7]);
        }
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let (mut writer, all) = (client.try_clone().unwrap(), sent.clone());
        let writer = thread::spawn(move || {
            writer.write_all(&all).unwrap();
            // Closes only this direction; the rest still comes back.
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        writer.join().unwrap();
        ended.join().unwrap();
        assert!(received.strip_suffix(b"farewell").unwrap() == sent);
    }

    #[test]
    fn connections_end_with_the_proxy() {
        let (server, ended) = echo();
        let proxy = NetworkProxy::start(server, Conditions::default().delay(ROUND_TRIP / 2), 0).unwrap();
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        client.write_all(&[1]).unwrap();
        client.read_exact(&mut [0]).unwrap();
        let address = proxy.address();
        drop(proxy);
        assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
        assert!(TcpStream::connect(address).is_err());
        // It received the end of its client.
        let _ = ended.join();
    }

    /// A proxy before a listener, and a connection through it.
    fn connected() -> (NetworkProxy, TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = NetworkProxy::start(listener.local_addr().unwrap(), Conditions::default(), 0).unwrap();
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        let mut server = listener.accept().unwrap().0;
        // From here on the proxy carries it.
        client.write_all(&[0]).unwrap();
        server.read_exact(&mut [0]).unwrap();
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        }
        (proxy, client, server)
    }

    fn receive(stream: &mut TcpStream, count: usize) -> String {
        let mut bytes = vec![0; count];
        stream.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_was_sent_into_silence_arrives_after_the_client_has_closed() {
        let (proxy, mut client, mut server) = connected();
        client.write_all(b"one").unwrap();
        assert_eq!(receive(&mut server, 3), "one");
        proxy.set(Conditions::default().silent());
        client.write_all(b"late").unwrap();
        drop(client);
        server.set_nonblocking(true).unwrap();
        assert_eq!(server.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        server.set_nonblocking(false).unwrap();
        proxy.set(Conditions::default());
        assert_eq!(receive(&mut server, 4), "late");
        assert_eq!(server.read(&mut [0]).unwrap(), 0, "then the end");
    }

    #[test]
    fn a_lost_answer_ends_the_connection_of_the_client_after_the_server_has_everything() {
        let (proxy, mut client, mut server) = connected();
        proxy.set(Conditions::default().one_answer_lost_in(1));
        client.write_all(b"commit").unwrap();
        assert_eq!(receive(&mut server, 6), "commit");
        server.write_all(b"done").unwrap();
        assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)), "the answer arrived");
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_reset_is_seen_by_both_sides() {
        let (proxy, mut client, mut server) = connected();
        client.write_all(b"one").unwrap();
        assert_eq!(receive(&mut server, 3), "one");
        proxy.reset_connections();
        for stream in [&mut client, &mut server] {
            assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
    }

    #[test]
    fn the_side_that_is_left_hears_nothing() {
        let check = |lose: fn(&NetworkProxy), is_client: bool| {
            let (proxy, client, server) = connected();
            let (mut left, mut lost) = if is_client { (client, server) } else { (server, client) };
            lose(&proxy);
            assert_eq!(lost.read(&mut [0]).unwrap(), 0, "the other side sees the end");
            left.write_all(b"hello").unwrap();
            left.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let error = left.read(&mut [0]).unwrap_err();
            assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
            left.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            proxy.close_lost_connections();
            assert_eq!(left.read(&mut [0]).unwrap(), 0, "it learns of it at last");
        };
        check(NetworkProxy::lose_servers, true);
        check(NetworkProxy::lose_clients, false);
    }

    #[test]
    fn limited_bandwidth_delivers_everything() {
        let (proxy, mut client, mut server) = connected();
        proxy.set(Conditions::default().bytes_per_second(1_000_000));
        let begin = Instant::now();
        client.write_all(&[b'x'; 20_000]).unwrap();
        assert_eq!(receive(&mut server, 20_000).len(), 20_000);
        assert!(begin.elapsed() >= Duration::from_millis(20), "{:?}", begin.elapsed());
    }
}
