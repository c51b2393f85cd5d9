//! Owns the connections: how many, with TLS or not, and for how long.
//! Must not know paths or rows.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use batchsql::prometheus::{Restart, WriteTimeout};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

use crate::config::sections::Limits;

/// What a connection reads ahead; the head of a request fits into it.
const BUFFER_BYTES: usize = 64 << 10;
/// After an error of the listener, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// A server that accepts connections.
pub(crate) struct Server {
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Serves the routes on a listener.
    pub(crate) fn start(listener: TcpListener, tls: Option<TlsAcceptor>, routes: Router, limits: &Limits) -> Self {
        let (stop, stopped) = watch::channel(false);
        let places = Arc::new(Semaphore::new(limits.connections));
        let connections = Connections { tls, routes, limits: limits.clone(), places, stopped };
        Self { stop, serving: tokio::spawn(connections.accept(listener)) }
    }

    /// Accepts no more connections, lets requests end that are being answered, for at most `limit`.
    pub(crate) async fn stop(self, limit: Duration) {
        let Self { stop, mut serving } = self;
        stop.send_replace(true);
        if timeout(limit, &mut serving).await.is_err() {
            tracing::warn!("some connections are still open; closing them");
            serving.abort();
        }
    }
}

struct Connections {
    tls: Option<TlsAcceptor>,
    routes: Router,
    limits: Limits,
    places: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

impl Connections {
    async fn accept(self, listener: TcpListener) {
        let mut open = JoinSet::new();
        let places = Arc::clone(&self.places);
        let mut stopped = self.stopped.clone();
        loop {
            // Connections beyond the limit wait in the queue of the system. Those that are idle end by `header_time`.
            let place = tokio::select! {
                place = Arc::clone(&places).acquire_owned() => place.expect("it is never closed"),
                () = stop_of(&mut stopped) => break,
            };
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        open.spawn(self.serve(stream, peer, place));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection cannot be accepted");
                        sleep(PAUSE).await;
                    }
                },
                () = stop_of(&mut stopped) => break,
            }
            while open.try_join_next().is_some() {}
        }
        drop(listener);
        while open.join_next().await.is_some() {}
    }

    fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        place: OwnedSemaphorePermit,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (tls, routes, limits, stopped) =
            (self.tls.clone(), self.routes.clone(), self.limits.clone(), self.stopped.clone());
        async move {
            let _place = place;
            // A small response must not wait for an acknowledgement. Without it the response is only later.
            let _ = stream.set_nodelay(true);
            let stream = WriteTimeout::new(stream, limits.answer_time, Restart::AfterProgress, || ());
            match tls {
                None => serve_http(stream, peer, routes, &limits, stopped).await,
                Some(tls) => {
                    if let Ok(Ok(stream)) = timeout(limits.header_time, tls.accept(stream)).await {
                        serve_http(stream, peer, routes, &limits, stopped).await;
                    }
                }
            }
        }
    }
}

async fn serve_http<S>(stream: S, peer: SocketAddr, routes: Router, limits: &Limits, mut stopped: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut routes = routes.clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        async move {
            let response: Result<_, Infallible> = routes.call(request).await;
            response
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.header_time).max_buf_size(BUFFER_BYTES);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // Errors are those of clients: a lost connection, a head that is no HTTP.
        _ = connection.as_mut() => return,
        () = stop_of(&mut stopped) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// Returns when the server stops.
async fn stop_of(stopped: &mut watch::Receiver<bool>) {
    // The server is gone if there is an error.
    drop(stopped.wait_for(|stopped| *stopped).await);
}
