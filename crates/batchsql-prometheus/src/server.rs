//! Owns the HTTP server: its thread, its listener, and the limits of its connections.
//! Must not know what it serves.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;
use std::{io, thread};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};

use crate::error::PrometheusError;

const THREAD: &str = "batchsql-http";

/// What the clients of the server may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections at once; later ones wait in the backlog of the listener.
    pub(crate) connections: usize,
    /// Time for the head of a request, which is also how long a connection may be idle.
    pub(crate) header_read: Duration,
    /// Bytes of the head of a request.
    pub(crate) header_bytes: usize,
    /// Time for a connection from its begin; then it ends after the current answer.
    pub(crate) connection_age: Duration,
    /// Time for the last answer of a connection.
    pub(crate) grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            header_read: Duration::from_secs(10),
            header_bytes: 16 << 10,
            connection_age: Duration::from_secs(300),
            grace: Duration::from_secs(2),
        }
    }
}

/// A running server. Dropping it asks it to stop and does not wait.
///
/// It has a thread and a runtime of its own: a pipeline that keeps every worker of the caller's runtime
/// busy is just what people want to look at.
pub(crate) struct Server {
    address: SocketAddr,
    /// Closing this channel stops everything.
    stop: watch::Sender<()>,
    done: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

/// Resolves when a started server can answer.
pub(crate) type Ready = oneshot::Receiver<io::Result<()>>;

impl Server {
    /// Binds the address and starts the thread.
    ///
    /// # Errors
    /// The address cannot be bound, or there is no thread to be had.
    pub(crate) fn start(address: SocketAddr, router: Router, limits: Limits) -> Result<(Self, Ready), PrometheusError> {
        let bind = || {
            let listener = StdListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        };
        let (address, listener) = bind().map_err(|source| PrometheusError::listen(address, source))?;
        let (stop, stopped) = watch::channel(());
        let (is_ready, ready) = oneshot::channel();
        let (is_done, done) = oneshot::channel();
        let run = move || {
            run(listener, router, limits, stopped, is_ready);
            // Nobody may be waiting: then the server was dropped.
            let _ = is_done.send(());
        };
        let thread = Builder::new().name(THREAD.to_owned()).spawn(run);
        let thread = thread.map_err(|source| PrometheusError::thread(THREAD, source))?;
        Ok((Self { address, stop, done, thread }, ready))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it still serves; not after a panic.
    pub(crate) fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Lets current answers end, within the grace time, and waits for the thread.
    ///
    /// # Cancel safety
    /// Cancelling stops the wait, not the stopping.
    pub(crate) async fn stop(self) -> Result<(), PrometheusError> {
        let Self { stop, done, thread, .. } = self;
        drop(stop);
        // An error means a panic, which `join` tells.
        let _ = done.await;
        // The thread has said its last word, so this does not block.
        join(thread)
    }
}

fn join(thread: thread::JoinHandle<()>) -> Result<(), PrometheusError> {
    thread.join().map_err(|_| PrometheusError::panicked())
}

/// The life of the thread.
fn run(
    listener: StdListener,
    router: Router,
    limits: Limits,
    stopped: watch::Receiver<()>,
    ready: oneshot::Sender<io::Result<()>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() {
        Ok(runtime) => runtime,
        // Whoever started the server may have stopped waiting.
        Err(error) => return drop(ready.send(Err(error))),
    };
    runtime.block_on(async {
        match TcpListener::from_std(listener) {
            Ok(listener) => {
                let _ = ready.send(Ok(()));
                serve(listener, router, limits, stopped).await;
            }
            Err(error) => drop(ready.send(Err(error))),
        }
    });
}

/// Accepts connections until the server is stopped, then lets them end.
async fn serve(listener: TcpListener, router: Router, limits: Limits, mut stopped: watch::Receiver<()>) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let accept = async {
            let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            // The sender only ever closes the channel.
            _ = stopped.changed() => break,
            accepted = accept => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(converse(stream, permit, router.clone(), limits, stopped.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "the metrics server cannot accept a connection; trying again");
                // Without open files to be had, accepting fails at once, again and again.
                sleep(Duration::from_millis(50)).await;
            }
        }
        while let Some(ended) = connections.try_join_next() {
            tell_panic(ended);
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        tell_panic(ended);
    }
}

fn tell_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection of the metrics server panicked, which is a defect");
    }
}

/// Answers the requests of one connection. It always comes to an end.
async fn converse(
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
    router: Router,
    limits: Limits,
    mut stopped: watch::Receiver<()>,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        .max_buf_size(limits.header_bytes)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = stopped.changed() => None,
        () = sleep(limits.connection_age) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            // Whoever does not take the answer in time is cut off.
            timeout(limits.grace, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        // The client's fault, mostly: it sent no or half a request, or went away.
        tracing::debug!(%error, "a connection to the metrics server ended early");
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Instant;

    use axum::routing::get;

    use super::*;

    const TINY: Limits = Limits {
        connections: 2,
        header_read: Duration::from_millis(200),
        header_bytes: 8 << 10,
        connection_age: Duration::from_millis(500),
        grace: Duration::from_millis(200),
    };

    async fn start() -> Server {
        start_with(TINY).await
    }

    async fn start_with(limits: Limits) -> Server {
        let router = Router::new().route("/", get(|| async { "here" }));
        let (server, ready) = Server::start(([127, 0, 0, 1], 0).into(), router, limits).unwrap();
        ready.await.unwrap().unwrap();
        server
    }

    /// Everything that comes until the server closes the connection.
    fn drain(mut stream: TcpStream) -> String {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut answer = Vec::new();
        // A reset is an end, too.
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "the connection was not closed"),
        }
        String::from_utf8(answer).unwrap()
    }

    fn send(server: &Server, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_wait_for_those_that_say_nothing() {
        let server = start().await;
        let mute = [send(&server, ""), send(&server, "GET / HT")];
        let answer = drain(send(&server, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"));
        assert!(answer.ends_with("here"), "{answer:?}");
        for stream in mute {
            assert!(!drain(stream).contains("here"));
        }
        server.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_ends_when_it_is_too_old() {
        let server = start_with(Limits { header_read: Duration::from_secs(30), ..TINY }).await;
        let mut stream = send(&server, "");
        let begin = Instant::now();
        let died = loop {
            if stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").is_err() {
                break true;
            }
            if stream.read(&mut [0; 512]).unwrap_or(0) == 0 {
                break true;
            }
            if begin.elapsed() > Duration::from_secs(30) {
                break false;
            }
            thread::sleep(Duration::from_millis(20));
        };
        assert!(died);
        assert!(begin.elapsed() >= Duration::from_millis(400));
        server.stop().await.unwrap();
    }

    #[tokio::test]
    async fn stopping_does_not_wait_for_those_that_say_nothing() {
        let server = start().await;
        let _mute = [send(&server, ""), send(&server, "GET / HT")];
        let begin = Instant::now();
        let address = server.address();
        server.stop().await.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(10));
        assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_refused() {
        let server = start().await;
        let long = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(9 << 10));
        let answer = drain(send(&server, &long));
        // Empty where the reset, because of the rest that nobody read, overtakes the answer.
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer:?}");
        server.stop().await.unwrap();
    }
}
