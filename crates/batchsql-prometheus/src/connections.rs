//! Owns connections: how many, how long each part of them may take, and how they end.
//! Must not know the content of responses.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};

use crate::client::Client;
use crate::connection_limit::{ConnectionLimit, ConnectionSlot};
use crate::options::Limits;
use crate::stopping::Stopping;
use crate::tls::Tls;
use crate::write_timeout::{Restart, WriteTimeout};

/// Interval between two warnings that no connection can be accepted.
const REMINDER: Duration = Duration::from_secs(60);

/// What every connection of a server shares.
#[derive(Clone)]
pub(crate) struct ConnectionContext {
    router: Router,
    tls: Option<Tls>,
    limits: Limits,
    limit: Arc<ConnectionLimit>,
    stopping: Stopping,
}

impl ConnectionContext {
    pub(crate) fn new(router: Router, tls: Option<Tls>, limits: Limits, stopping: Stopping) -> Self {
        Self { router, tls, limits, limit: Arc::new(ConnectionLimit::new(limits.connections)), stopping }
    }
}

/// Accepts connections until the server is stopped, then lets them end.
pub(crate) async fn accept(listener: TcpListener, context: ConnectionContext) {
    let mut stopping = context.stopping.clone();
    let mut connections = JoinSet::new();
    let mut warned: Option<Instant> = None;
    loop {
        let enter = async {
            let accepted = listener.accept().await;
            // The next connection waits here, those after it in the backlog of the listener.
            (accepted, context.limit.take().await)
        };
        let (accepted, slot) = tokio::select! {
            () = stopping.begins() => break,
            entered = enter => entered,
        };
        match accepted {
            Ok((stream, address)) => {
                connections.spawn(serve_in_slot(stream, Client(address.ip().to_canonical()), slot, context.clone()));
            }
            Err(error) => {
                drop(slot);
                if warned.is_none_or(|warned| warned.elapsed() >= REMINDER) {
                    warned = Some(Instant::now());
                    tracing::warn!(%error, "the metrics server cannot accept connections; retrying");
                }
                // At the limit of open files, accept fails immediately each time.
                sleep(Duration::from_millis(50)).await;
            }
        }
        while let Some(ended) = connections.try_join_next() {
            report_panic(ended);
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        report_panic(ended);
    }
}

pub(crate) fn report_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a part of the metrics server panicked, which is a defect");
    }
}

/// Serves a connection until it ends or is evicted.
async fn serve_in_slot(stream: TcpStream, client: Client, slot: ConnectionSlot, context: ConnectionContext) {
    tokio::select! {
        () = slot.activity().evicted() => tracing::debug!("a stalled connection to the metrics server was closed for a new one"),
        () = serve(stream, client, &slot, &context) => {}
    }
}

/// Performs the TLS handshake if there is one, and serves the connection. It always ends.
async fn serve(stream: TcpStream, client: Client, slot: &ConnectionSlot, context: &ConnectionContext) {
    // A response must not wait for more data. If this fails, responses are only slower.
    let _ = stream.set_nodelay(true);
    let Some(tls) = &context.tls else { return serve_http(stream, client, slot, context).await };
    let mut stopping = context.stopping.clone();
    let handshake = tokio::select! {
        () = stopping.begins() => return,
        handshake = timeout(context.limits.header_time, tls.accept(stream)) => handshake,
    };
    match handshake {
        Ok(Ok(stream)) => serve_http(stream, client, slot, context).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake with the metrics server failed"),
        Err(_) => tracing::debug!("a TLS handshake with the metrics server took too long"),
    }
}

/// Answers the requests of one connection.
async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    client: Client,
    slot: &ConnectionSlot,
    context: &ConnectionContext,
) {
    let ConnectionContext { limits, .. } = context;
    let mut stopping = context.stopping.clone();
    let activity = slot.activity();
    let router = TowerToHyperService::new(context.router.clone());
    let answer = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(client);
        activity.request_started();
        let answering = router.call(request);
        async move {
            let answer = answering.await;
            activity.response_ready();
            answer
        }
    });
    let stream = WriteTimeout::new(stream, limits.answer_time, Restart::AfterFlush, || activity.progressed());
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_buf_size(limits.header_bytes)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stopping.begins() => None,
        () = sleep(limits.connection_age) => None,
        () = activity.close_requested() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            // The connection is closed if the client does not read the response in time.
            timeout(limits.grace, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        // Usually caused by the client: an incomplete request, or a disconnect.
        tracing::debug!(%error, "a connection to the metrics server ended early");
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpStream as StdStream;
    use std::thread;

    use axum::routing::get;

    use super::*;
    use crate::server::Server;

    const TINY: Limits = Limits {
        connections: 2,
        header_time: Duration::from_millis(200),
        header_bytes: 8 << 10,
        answer_time: Duration::from_millis(400),
        connection_age: Duration::from_millis(500),
        grace: Duration::from_millis(200),
    };

    const HERE: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

    async fn start() -> Server {
        start_with(TINY).await
    }

    async fn start_with(limits: Limits) -> Server {
        let router = Router::new().route("/", get(|| async { "here" }));
        let (server, ready) = Server::start(&[([127, 0, 0, 1], 0).into()], None, limits, |_| router).unwrap();
        ready.await.unwrap().unwrap();
        server
    }

    /// Everything received until the server closes the connection.
    fn drain(mut stream: StdStream) -> String {
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut answer = Vec::new();
        // A reset also ends the connection.
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "the connection was not closed"),
        }
        String::from_utf8(answer).unwrap()
    }

    fn send(server: &Server, request: &str) -> StdStream {
        let mut stream = StdStream::connect(server.addresses()[0]).unwrap();
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
        let server = start_with(Limits { header_time: Duration::from_secs(30), ..TINY }).await;
        // Taken before the connection begins, so that its age is not underestimated.
        let begin = Instant::now();
        let mut stream = send(&server, "");
        let died = loop {
            if stream.write_all(HERE.as_bytes()).is_err() {
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
    async fn who_does_not_take_an_answer_is_cut_off() {
        let limits = Limits { connection_age: Duration::from_secs(600), header_time: Duration::from_secs(600), ..TINY };
        let body = "x".repeat(16 << 20);
        let router = Router::new().route("/", get(async move || body));
        let (server, ready) = Server::start(&[([127, 0, 0, 1], 0).into()], None, limits, |_| router).unwrap();
        ready.await.unwrap().unwrap();
        let mut deaf = [send(&server, HERE), send(&server, HERE)];
        let begin = Instant::now();
        // Both slots are taken; one connection is evicted for this one.
        let answer = drain(send(&server, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"));
        assert!(answer.len() > 16 << 20, "a client that reads gets everything");
        assert!(begin.elapsed() < Duration::from_secs(60), "it waited for {:?}", begin.elapsed());
        for stream in &mut deaf {
            // Empty lines between requests are ignored; they cannot be sent after the end of the connection.
            while stream.write_all(b"\r\n").is_ok() {
                assert!(begin.elapsed() < Duration::from_secs(60), "the connection is not closed");
                thread::sleep(Duration::from_millis(20));
            }
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let mut taken = Vec::new();
            let _ = stream.read_to_end(&mut taken);
            assert!(taken.len() < 16 << 20, "the rest was still sent");
        }
        server.stop().await.unwrap();
    }

    #[tokio::test]
    async fn stopping_does_not_wait_for_those_that_say_nothing() {
        let hour = Duration::from_secs(3_600);
        let server = start_with(Limits { header_time: hour, connection_age: hour, ..TINY }).await;
        let _mute = [send(&server, ""), send(&server, "GET / HT")];
        let begin = Instant::now();
        let address = server.addresses()[0];
        server.stop().await.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(60));
        assert!(StdStream::connect(address).is_err(), "the port is still open");
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_refused() {
        let server = start().await;
        let long = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(9 << 10));
        let answer = drain(send(&server, &long));
        // Empty if the reset, caused by unread data, arrives before the response.
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer:?}");
        server.stop().await.unwrap();
    }
}
