//! Owns a proxy before the server that cuts a connection, or holds back its data.
//! Must not know pipelines.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use batchsql_postgres::{PostgresOptions, PostgresSink, Strategy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::support::{TestSink, fresh};

/// The action of the proxy on a connection: once, at the first matching message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Cuts it instead of forwarding a message of the client that contains this.
    Before(&'static [u8]),
    /// Cuts it after forwarding the message, so that the server executes it and the reply is lost.
    After(&'static [u8]),
    /// From this message on, forwards nothing until it is released, like a network that fails and recovers. Data of
    /// a client that has already closed its connection is also delivered.
    Hold(&'static [u8]),
}

/// A proxy before the server.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    armed: AtomicBool,
    released: Notify,
    /// The server has closed a connection that was held and then released.
    delivered: Notify,
}

impl Proxy {
    pub(crate) async fn start(server: String, cut: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let of_links = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&*server).await.unwrap();
                tokio::spawn(carry(client, server, cut, Arc::clone(&of_links)));
            }
        });
        Self { address, state }
    }

    pub(crate) fn arm(&self) {
        self.state.armed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn has_cut(&self) -> bool {
        !self.state.armed.load(Ordering::SeqCst)
    }

    /// Delivers the held data, and waits until the server has executed it and closed the connection.
    pub(crate) async fn deliver(&self) {
        self.state.released.notify_one();
        self.state.delivered.notified().await;
    }
}

/// Forwards one connection until it is cut or closed.
async fn carry(client: TcpStream, server: TcpStream, cut: Cut, state: Arc<State>) -> io::Result<()> {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    // Whether answers are dropped, and that one was.
    let (is_mute, dropped) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
    let (of_answers, note_dropped) = (Arc::clone(&is_mute), Arc::clone(&dropped));
    let answers = tokio::spawn(async move {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(len @ 1..) = from_server.read(&mut buffer).await {
            if of_answers.load(Ordering::SeqCst) {
                note_dropped.notify_one();
                continue;
            }
            // The client may be gone; the server's data is read to its end.
            let _ = to_client.write_all(&buffer[..len]).await;
        }
    });
    let mut buffer = vec![0; 1 << 20];
    loop {
        let len = from_client.read(&mut buffer).await?;
        if len == 0 {
            return Ok(());
        }
        let sent = &buffer[..len];
        let has = |part: &[u8]| sent.windows(part.len()).any(|window| window == part);
        match cut {
            Cut::Before(part) if has(part) && state.armed.swap(false, Ordering::SeqCst) => {
                answers.abort();
                return Ok(());
            }
            Cut::After(part) if has(part) && state.armed.swap(false, Ordering::SeqCst) => {
                // The client must not notice before the server has answered: it ends the session at once.
                is_mute.store(true, Ordering::SeqCst);
                to_server.write_all(sent).await?;
                let _ = tokio::time::timeout(Duration::from_secs(60), dropped.notified()).await;
                answers.abort();
                return Ok(());
            }
            Cut::Hold(part) if has(part) && state.armed.swap(false, Ordering::SeqCst) => {
                let held = sent.to_vec();
                hold(held, &mut from_client, &mut to_server, &state).await;
                let _ = answers.await;
                state.delivered.notify_one();
                return Ok(());
            }
            _ => to_server.write_all(sent).await?,
        }
    }
}

/// Holds the data until it is released and the client has closed the connection, then delivers it.
async fn hold(mut held: Vec<u8>, from_client: &mut OwnedReadHalf, to_server: &mut OwnedWriteHalf, state: &State) {
    // An error also ends the connection.
    let _ = from_client.read_to_end(&mut held).await;
    state.released.notified().await;
    // The server may have closed its side.
    let _ = to_server.write_all(&held).await;
    let _ = to_server.shutdown().await;
}

/// A proxy that can become silent: it accepts data, and returns nothing.
pub(crate) struct Silenced {
    pub(crate) port: u16,
    is_silent: Arc<AtomicBool>,
}

impl Silenced {
    pub(crate) async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let is_silent = Arc::new(AtomicBool::new(false));
        let of_links = Arc::clone(&is_silent);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), TcpStream::connect(&*server).await.unwrap().into_split());
                tokio::spawn(pass(from_client, to_server, Arc::clone(&of_links)));
                tokio::spawn(pass(from_server, to_client, Arc::clone(&of_links)));
            }
        });
        Self { port, is_silent }
    }

    /// Becomes silent from now on, also for new connections.
    pub(crate) fn silence(&self) {
        self.is_silent.store(true, Ordering::SeqCst);
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, is_silent: Arc<AtomicBool>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(len @ 1..) = from.read(&mut buffer).await {
        if !is_silent.load(Ordering::SeqCst) && to.write_all(&buffer[..len]).await.is_err() {
            return;
        }
    }
    if is_silent.load(Ordering::SeqCst) {
        // The other side is not told that the connection ended.
        std::future::pending::<()>().await;
    }
}

/// A sink that accesses its own tables through a proxy, without TLS so that the proxy sees the messages.
pub(crate) async fn through_proxy(cut: Cut, strategy: Strategy) -> (PostgresSink, Proxy, TestSink) {
    let direct = fresh("CREATE TABLE t (id bigint UNIQUE, note text, version int DEFAULT 1)").await;
    let options = (*direct.pg_pool().connect_options()).clone();
    let proxy = Proxy::start(format!("{}:{}", options.get_host(), options.get_port()), cut).await;
    let options = options
        .host(&proxy.address.ip().to_string())
        .port(proxy.address.port())
        .ssl_mode(batchsql_postgres::sqlx::postgres::PgSslMode::Disable);
    let options = PostgresOptions::from_connect_options(options).strategy(strategy);
    let sink = PostgresSink::with_options(&options).await.unwrap();
    (sink, proxy, direct)
}

/// The message that makes rows durable: an Execute of the unnamed portal, the end of the data of a COPY, a COMMIT.
pub(crate) const EXECUTE: &[u8] = b"E\0\0\0\x09\0\0\0\0\0";
pub(crate) const COPY_DONE: &[u8] = b"c\0\0\0\x04";
pub(crate) const COMMIT: &[u8] = b"COMMIT\0";

pub(crate) fn commits(strategy: Strategy) -> &'static [u8] {
    match strategy {
        Strategy::Copy => COPY_DONE,
        Strategy::Staging => COMMIT,
        _ => EXECUTE,
    }
}
