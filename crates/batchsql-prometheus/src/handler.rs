//! Owns the endpoint as a function from a request to a response, for any server.
//! Must not know paths or metrics.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tower_service::Service;

/// The endpoint for a server of the application, without axum: a function from `http::Request` to `http::Response`,
/// and a `tower::Service`. Made by [`PrometheusMetrics::handler`](crate::PrometheusMetrics::handler). Cheap to clone.
///
/// It matches the whole path of a request: `/`, `/metrics`, `/health` and `/ready`, and responds to others with 404. A
/// server that serves it below another path removes that prefix first.
///
/// The address of the client distinguishes several Prometheus for [`linger`](crate::PrometheusMetrics::linger). Insert
/// it as a [`SocketAddr`](std::net::SocketAddr) into the extensions of the request.
///
/// ```
/// use batchsql_prometheus::{EndpointOptions, PrometheusMetrics};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let metrics = PrometheusMetrics::new()?;
/// let handler = metrics.handler(EndpointOptions::new())?;
///
/// // What a server calls for each request; the body of the request is ignored.
/// let request = http::Request::get("/metrics").body(())?;
/// let response = handler.respond(request).await;
/// assert_eq!(response.status(), 200);
/// assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct MetricsHandler(Router);

/// The body of a response. It has a known length and never fails.
pub struct MetricsBody(Body);

impl MetricsHandler {
    pub(crate) fn new(router: Router) -> Self {
        Self(router)
    }

    /// The response to a request.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with time.
    ///
    /// # Cancel safety
    /// A cancelled request is not counted as a scrape.
    pub async fn respond<B>(&self, request: Request<B>) -> Response<MetricsBody> {
        match self.clone().call(request).await {
            Ok(response) => response,
        }
    }
}

impl<B> Service<Request<B>> for MetricsHandler {
    type Response = Response<MetricsBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let answering = self.0.call(request.map(|_| Body::empty()));
        Box::pin(async move { Ok(answering.await?.map(MetricsBody)) })
    }
}

impl HttpBody for MetricsBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.0).poll_frame(context).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl fmt::Debug for MetricsHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsHandler").finish_non_exhaustive()
    }
}

impl fmt::Debug for MetricsBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsBody").finish_non_exhaustive()
    }
}
