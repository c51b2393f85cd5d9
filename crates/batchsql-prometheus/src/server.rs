//! Owns the HTTP server: its thread, its listeners, how it starts and how it stops.
//! Must not know what it serves.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::thread::{Builder, JoinHandle};
use std::{io, thread};

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::connections::{ConnectionContext, accept, report_panic};
use crate::error::PrometheusError;
use crate::listener;
use crate::options::Limits;
use crate::stopping::Stopping;
use crate::tls::Tls;

const THREAD: &str = "batchsql-http";
/// Attempts to find a port that is free on several addresses.
const TRIES: usize = 16;

/// A running server. Dropping it asks it to stop and does not wait.
///
/// It has a thread and a runtime of its own, so it responds even when a pipeline keeps every worker of the
/// caller's runtime busy.
pub(crate) struct Server {
    addresses: Vec<SocketAddr>,
    /// Closing this channel stops everything.
    stop: watch::Sender<()>,
    done: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

/// Resolves when a started server can answer.
pub(crate) type Ready = oneshot::Receiver<io::Result<()>>;

impl Server {
    /// Binds the addresses and starts the thread.
    ///
    /// # Errors
    /// An address cannot be bound, or the thread cannot be started.
    pub(crate) fn start(
        addresses: &[SocketAddr],
        tls: Option<Tls>,
        limits: Limits,
        router: impl FnOnce(Stopping) -> Router,
    ) -> Result<(Self, Ready), PrometheusError> {
        let listeners = bind(addresses)?;
        let addresses = listeners.iter().map(|(address, _)| *address).collect();
        let (stop, stopped) = watch::channel(());
        let stopping = Stopping::new(stopped);
        let context = ConnectionContext::new(router(stopping.clone()), tls, limits, stopping);
        let (is_ready, ready) = oneshot::channel();
        let (is_done, done) = oneshot::channel();
        let run = move || {
            run(listeners, context, is_ready);
            // Fails if the server was dropped and no caller waits.
            let _ = is_done.send(());
        };
        let thread = Builder::new().name(THREAD.to_owned()).spawn(run);
        let thread = thread.map_err(|source| PrometheusError::thread(THREAD, source))?;
        Ok((Self { addresses, stop, done, thread }, ready))
    }

    /// At least one, in the order they were given.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Whether it still serves; false after a panic.
    pub(crate) fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Lets current responses end, within the grace time, and waits for the thread.
    ///
    /// # Cancel safety
    /// Cancelling ends the wait; the server still stops.
    pub(crate) async fn stop(self) -> Result<(), PrometheusError> {
        let Self { stop, done, thread, .. } = self;
        drop(stop);
        // An error means a panic, which `join` reports.
        let _ = done.await;
        // The thread is about to end, so this does not block.
        join(thread)
    }
}

fn join(thread: thread::JoinHandle<()>) -> Result<(), PrometheusError> {
    thread.join().map_err(|_| PrometheusError::panicked())
}

type Bound = (SocketAddr, StdListener);

/// All of the addresses, or none.
fn bind(addresses: &[SocketAddr]) -> Result<Vec<Bound>, PrometheusError> {
    let any_port = addresses.len() > 1 && addresses.iter().all(|address| address.port() == 0);
    let mut tries = if any_port { TRIES } else { 1 };
    loop {
        tries -= 1;
        match bind_once(addresses) {
            // The port is free on the first address but not on another.
            Err(error) if error.is_port_in_use() && tries > 0 => {}
            bound => return bound,
        }
    }
}

fn bind_once(addresses: &[SocketAddr]) -> Result<Vec<Bound>, PrometheusError> {
    let mut bound: Vec<Bound> = Vec::with_capacity(addresses.len());
    for address in addresses {
        let port = bound.first().map_or(address.port(), |(first, _)| first.port());
        let address = SocketAddr::new(address.ip(), port);
        let listen = || {
            let listener = StdListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        };
        bound.push(listen().map_err(|source| PrometheusError::listen(address, source, listener::holder))?);
    }
    Ok(bound)
}

/// The body of the thread.
fn run(listeners: Vec<Bound>, context: ConnectionContext, ready: oneshot::Sender<io::Result<()>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() {
        Ok(runtime) => runtime,
        // The caller may have stopped waiting.
        Err(error) => return drop(ready.send(Err(error))),
    };
    runtime.block_on(async {
        let listeners: io::Result<Vec<_>> =
            listeners.into_iter().map(|(_, listener)| TcpListener::from_std(listener)).collect();
        match listeners {
            Ok(listeners) => {
                let _ = ready.send(Ok(()));
                let mut open: JoinSet<()> =
                    listeners.into_iter().map(|listener| accept(listener, context.clone())).collect();
                while let Some(ended) = open.join_next().await {
                    report_panic(ended);
                }
            }
            Err(error) => drop(ready.send(Err(error))),
        }
    });
}
