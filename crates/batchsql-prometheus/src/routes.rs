//! Owns the paths of the endpoint and their answers.
//! Must not know sockets, threads or limits.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::exposition::Exposition;
use crate::live;

/// Prometheus 3 refuses a scrape that does not name its format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

pub(crate) fn router(exposition: Arc<Exposition>) -> Router {
    Router::new()
        .route("/", get(|| async { answer(HTML, live::page()) }))
        .route("/metrics", get(scrape))
        .route("/health", get(|| async { answer(TEXT, "ok") }))
        .method_not_allowed_fallback(|| async {
            (StatusCode::METHOD_NOT_ALLOWED, answer(TEXT, "only GET and HEAD work here\n"))
        })
        .fallback(|| async { (StatusCode::NOT_FOUND, answer(TEXT, "not found; try /metrics or /health\n")) })
        .with_state(exposition)
}

async fn scrape(State(exposition): State<Arc<Exposition>>) -> impl IntoResponse {
    answer(METRICS, exposition.render())
}

fn answer(content_type: &'static str, body: impl IntoResponse) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, content_type)], body)
}
