//! Owns one connection of a proxy: its two sockets, the threads between them, and what the network does with its bytes.
//! Must not know how connections are accepted.
//!
//! Each connection has a reader and a writer thread per direction, with a queue of (due, bytes) between them: reading
//! continues while earlier bytes wait. Threads rather than tasks, because tokio's timers have a resolution of 1 ms.
//! They sleep and do not spin, because a spinning thread would take processor time from the measured server.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::line::{Line, lock};
use crate::network_conditions::Conditions;
use crate::random::Random;

/// Bytes of one read.
const CHUNK: usize = 64 << 10;
/// Bytes that are sent at once when the bandwidth is limited.
const PIECE: usize = 4 << 10;
const STACK: usize = 256 << 10;

/// What the connections share.
#[derive(Debug)]
pub(crate) struct Network {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    is_stopped: bool,
    conditions: Conditions,
    random: Random,
    open: Vec<Weak<Link>>,
}

impl Network {
    pub(crate) fn new(conditions: Conditions, seed: u64) -> Self {
        let state = State { is_stopped: false, conditions, random: Random::new(seed), open: Vec::new() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    pub(crate) fn set(&self, conditions: Conditions) {
        lock(&self.state).conditions = conditions;
        self.changed.notify_all();
    }

    /// No connection is added from now on, and none is silent.
    pub(crate) fn stop(&self) {
        lock(&self.state).is_stopped = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        lock(&self.state).is_stopped
    }

    /// False if the network has stopped.
    pub(crate) fn add(&self, link: &Arc<Link>) -> bool {
        let mut state = lock(&self.state);
        if !state.is_stopped {
            state.open.retain(|link| link.strong_count() > 0);
            state.open.push(Arc::downgrade(link));
        }
        !state.is_stopped
    }

    /// The open connections.
    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        lock(&self.state).open.iter().filter_map(Weak::upgrade).collect()
    }

    fn conditions(&self) -> Conditions {
        lock(&self.state).conditions
    }

    /// Waits while the network is silent; false if it has stopped.
    fn wait_while_silent(&self) -> bool {
        let is_silent = |state: &mut State| state.conditions.is_silent && !state.is_stopped;
        let state = self.changed.wait_while(lock(&self.state), is_silent);
        !state.unwrap_or_else(PoisonError::into_inner).is_stopped
    }

    /// Whether this answer is lost.
    fn loses_answer(&self) -> bool {
        let mut state = lock(&self.state);
        let Some(one_in) = state.conditions.one_answer_lost_in else { return false };
        state.random.below(one_in.into()) == 0
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
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

impl Link {
    pub(crate) fn new(client: TcpStream, server: TcpStream) -> Self {
        Self {
            client,
            server,
            up: Line::default(),
            down: Line::default(),
            is_asked: AtomicBool::new(false),
            is_half_open: AtomicBool::new(false),
        }
    }

    /// Starts the threads of both directions. If one cannot be started, the others end.
    pub(crate) fn start(self: &Arc<Self>, network: &Arc<Network>, threads: &mut Vec<JoinHandle<()>>) {
        let started = self.forward(Direction::Up, network, threads);
        if started.and_then(|()| self.forward(Direction::Down, network, threads)).is_err() {
            self.close();
        }
    }

    /// Starts the two threads of one direction.
    fn forward(
        self: &Arc<Self>,
        direction: Direction,
        network: &Arc<Network>,
        threads: &mut Vec<JoinHandle<()>>,
    ) -> io::Result<()> {
        let spawn = |name: &str| thread::Builder::new().name(name.to_owned()).stack_size(STACK);
        let (reading, shared) = (Arc::clone(self), Arc::clone(network));
        threads.push(spawn("proxy-read").spawn(move || reading.read(direction, &shared))?);
        let (writing, shared) = (Arc::clone(self), Arc::clone(network));
        threads.push(spawn("proxy-write").spawn(move || writing.write(direction, &shared))?);
        Ok(())
    }

    /// Ends it. Bytes in transit are lost.
    pub(crate) fn close(&self) {
        self.up.close();
        self.down.close();
        self.shut_down();
    }

    /// Resets it, on both sides.
    pub(crate) fn reset(&self) {
        // First, so that no writer ends the stream regularly when its reader is woken.
        self.up.close();
        self.down.close();
        for socket in [&self.client, &self.server] {
            // The last owner of the socket closes it, which sends the reset.
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
            let _ = socket.shutdown(Shutdown::Read);
        }
    }

    /// Takes the server from it. The client does not learn it.
    pub(crate) fn lose_server(&self) {
        self.is_half_open.store(true, Ordering::SeqCst);
        let _ = self.server.shutdown(Shutdown::Both);
    }

    /// Takes the client from it. The server does not learn it.
    pub(crate) fn lose_client(&self) {
        self.is_half_open.store(true, Ordering::SeqCst);
        let _ = self.client.shutdown(Shutdown::Both);
    }

    /// Lets the side that is left learn that the other one is gone.
    pub(crate) fn close_if_half_open(&self) {
        if self.is_half_open.load(Ordering::SeqCst) {
            self.shut_down();
        }
    }

    fn shut_down(&self) {
        // One of them may be closed already.
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }

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
