//! Owns the paths of the endpoint and their responses.
//! Must not know sockets, threads or limits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::access::Access;
use crate::answer::Answer;
use crate::client::Client;
use crate::encoding::{accepts_gzip, gzip};
use crate::mounted::Mounted;
use crate::renderings::Renderings;
use crate::stopping::Stopping;
use crate::watchers::Watchers;
use crate::{live, policy};

/// Prometheus 3 rejects a scrape that does not name its format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// The live page, compressed and with its policy.
struct Page {
    gzip: Vec<u8>,
    policy: HeaderValue,
}

static PAGE: LazyLock<Page> = LazyLock::new(|| Page {
    gzip: gzip(live::page().as_bytes()),
    policy: HeaderValue::from_str(&policy::of_page(live::page())).expect("it is made of ASCII"),
});

/// The state that the handlers share.
pub(crate) struct Endpoint {
    pub(crate) renderings: Renderings,
    pub(crate) watchers: Arc<Watchers>,
    /// Set by the application.
    pub(crate) is_ready: Arc<AtomicBool>,
    /// Lines of the application about it.
    pub(crate) ready_detail: Arc<Mutex<String>>,
    pub(crate) access: Access,
    pub(crate) live_page: bool,
    /// Of the server of this crate.
    pub(crate) stopping: Option<Stopping>,
    /// In a server of the application.
    pub(crate) _mounted: Option<Mounted>,
}

/// The paths alone, for an application that has others.
pub(crate) fn paths(endpoint: Endpoint) -> Router {
    let mut router =
        Router::new().route("/metrics", get(metrics)).route("/health", get(health)).route("/ready", get(ready));
    if endpoint.live_page {
        router = router.route("/", get(page));
    }
    router
        .method_not_allowed_fallback(async || {
            (StatusCode::METHOD_NOT_ALLOWED, answer(TEXT, "only GET and HEAD are allowed\n"))
        })
        .with_state(Arc::new(endpoint))
}

/// A whole server: every other path is not found.
pub(crate) fn router(endpoint: Endpoint) -> Router {
    let not_found = async || (StatusCode::NOT_FOUND, answer(TEXT, "not found; try /metrics, /health or /ready\n"));
    paths(endpoint).fallback(not_found)
}

async fn metrics(
    State(endpoint): State<Arc<Endpoint>>,
    Client(address): Client,
    method: Method,
    headers: HeaderMap,
) -> Response {
    if let Some(challenge) = endpoint.access.refusal(&headers) {
        let challenge = [(header::WWW_AUTHENTICATE, challenge.clone())];
        return (StatusCode::UNAUTHORIZED, challenge, answer(TEXT, "not authorized\n")).into_response();
    }
    // A HEAD request has not seen the values.
    let scrape = (method == Method::GET).then(|| endpoint.watchers.begin(address, &headers)).flatten();
    let rendering = endpoint.renderings.get().await;
    let body = |text| Body::new(Answer::new(text, scrape));
    if accepts_gzip(&headers) {
        compressed(answer(METRICS, body(rendering.gzip())))
    } else {
        varied(answer(METRICS, body(rendering.text())))
    }
}

/// The process lives, whatever its parts do; their lines say it.
async fn health(State(endpoint): State<Arc<Endpoint>>) -> Response {
    answer(TEXT, with_detail("ok", &endpoint)).into_response()
}

async fn ready(State(endpoint): State<Arc<Endpoint>>) -> Response {
    let is_ready = endpoint.is_ready.load(Ordering::Acquire);
    let is_ready = is_ready && !endpoint.stopping.as_ref().is_some_and(Stopping::has_begun);
    let (status, text) =
        if is_ready { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    (status, answer(TEXT, with_detail(text, &endpoint))).into_response()
}

/// The text with the lines of the application.
fn with_detail(text: &str, endpoint: &Endpoint) -> String {
    let detail = endpoint.ready_detail.lock().unwrap_or_else(PoisonError::into_inner);
    if detail.is_empty() { text.to_owned() } else { format!("{text}\n{detail}\n") }
}

async fn page(headers: HeaderMap) -> Response {
    let mut answer = if accepts_gzip(&headers) {
        compressed(answer(HTML, PAGE.gzip.as_slice()))
    } else {
        varied(answer(HTML, live::page()))
    };
    answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, PAGE.policy.clone());
    answer
}

/// Every response forbids caching and content sniffing.
fn answer(content_type: &'static str, body: impl Into<Body>) -> Response {
    const HEADERS: [(HeaderName, &str); 3] = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    ([(header::CONTENT_TYPE, content_type)], HEADERS, body.into()).into_response()
}

/// Marks a compressed body.
fn compressed(mut answer: Response) -> Response {
    answer.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    varied(answer)
}

/// Marks a body that depends on whether the client accepts compression.
fn varied(mut answer: Response) -> Response {
    answer.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    answer
}
